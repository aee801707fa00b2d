//! Fetcher and logger, and the flags that are settings of the built-in ones.

use serde_json::Value as Json;
use tepui_host::value::parse_bytes;

use super::{duration, set_in_module};
use crate::flags::Values;

/// The fetcher that Mesos' flags are about.
pub(super) const URI: &str = "uri";

/// The module of a flag, or the usual one; none where the site says `none`.
pub(super) fn service(values: &Values, flag: &str, usual: &str) -> Option<String> {
    let name = values.text(flag).unwrap_or(usual);
    (name != "none").then(|| name.to_owned())
}

/// Flags of Mesos that are settings of the fetcher, under the same names.
pub(super) fn fetcher(values: &mut Values) {
    for flag in ["fetcher_cache_dir", "frameworks_home", "hadoop_home"] {
        if let Some(path) = values.text(flag).filter(|path| !path.is_empty()) {
            let path = Json::String(path.to_owned());
            set_in_module(values, flag, URI, flag, path);
        }
    }
    let flag = "fetcher_cache_size";
    if let Some(size) = values.text(flag) {
        let size = parse_bytes(size).expect("checked when read").into();
        set_in_module(values, flag, URI, flag, size);
    }
    let (flag, key) = ("fetcher_stall_timeout", "fetcher_stall_timeout_secs");
    let seconds = duration(values, flag).as_secs().into();
    set_in_module(values, flag, URI, key, seconds);
}
