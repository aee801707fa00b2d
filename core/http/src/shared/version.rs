//! `/version`.

use serde::Serialize;

/// What is built here, in the terms of Mesos' `/version`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionInfo {
    /// When it was built, as text.
    pub build_date: String,
    /// The same in seconds since 1970.
    pub build_time: f64,
    /// Who built it.
    pub build_user: String,
    /// Commit, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_sha: Option<String>,
    /// Tag, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_tag: Option<String>,
    /// The Mesos release whose interfaces are spoken. Clients compare it.
    pub version: String,
}

/// Release of Mesos whose APIs are spoken.
pub const MESOS_VERSION: &str = "1.11.0";

impl VersionInfo {
    /// The body of `/version`: keys in alphabetical order.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data serializes")
    }
}

impl Default for VersionInfo {
    /// What the build told us through `TEPUI_BUILD_*`, else the crate's version.
    fn default() -> VersionInfo {
        VersionInfo {
            build_date: option_env!("TEPUI_BUILD_DATE")
                .unwrap_or("1970-01-01 00:00:00")
                .to_owned(),
            build_time: option_env!("TEPUI_BUILD_TIME")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0.0),
            build_user: option_env!("TEPUI_BUILD_USER")
                .unwrap_or("tepui")
                .to_owned(),
            git_sha: option_env!("TEPUI_GIT_SHA").map(str::to_owned),
            git_tag: Some(concat!("tepui-", env!("CARGO_PKG_VERSION")).to_owned()),
            version: MESOS_VERSION.to_owned(),
        }
    }
}
