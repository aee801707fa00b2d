//! What a master is told at start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tepui_http::ServerSettings;
use tepui_http::shared::VersionInfo;
use tepui_proto::v1;
use tepui_state_master as state;

use crate::limits::RateLimits;

/// Settings of a master. The daemon makes them from its flags.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen, and the limits of the server.
    pub server: ServerSettings,
    /// Address that others are told; the bound one if there is none. A zero port is the bound one.
    pub advertised: Option<SocketAddr>,
    /// Host name that others are told.
    pub hostname: String,
    /// `cluster`.
    pub cluster: Option<String>,
    /// `domain`.
    pub domain: Option<v1::DomainInfo>,
    /// What `/flags` shows.
    pub flags: Arc<BTreeMap<String, String>>,
    /// `log_dir`, shown in `/state`.
    pub log_dir: Option<String>,
    /// `external_log_file`, shown in `/state`.
    pub external_log_file: Option<String>,
    /// What `/version` shows.
    pub version: VersionInfo,
    /// Settings of the state. Master id, info, seed and start time are filled in here.
    pub state: state::Settings,
    /// `whitelist`: the file with the hosts that may be offered from.
    pub whitelist: Option<PathBuf>,
    /// `registry_fetch_timeout`.
    pub registry_fetch_timeout: Duration,
    /// `registry_store_timeout`.
    pub registry_store_timeout: Duration,
    /// `max_operator_event_stream_subscribers`.
    pub max_operator_streams: usize,
    /// Paths that are answered with 403: `firewall_rules`.
    pub disabled_endpoints: Vec<String>,
    /// `publish_per_framework_metrics`.
    pub per_framework_metrics: bool,
    /// `rate_limits`.
    pub rate_limits: RateLimits,
    /// Calls of one framework that may wait; more are refused with 429.
    pub lane_limit: usize,
    /// Bytes that the reader of an event stream may be behind for long.
    pub stream_limit: usize,
}

impl Settings {
    /// Defaults for a listening address.
    pub fn new(address: SocketAddr) -> Settings {
        Settings {
            server: ServerSettings::new(address),
            advertised: None,
            hostname: "localhost".to_owned(),
            cluster: None,
            domain: None,
            flags: Arc::default(),
            log_dir: None,
            external_log_file: None,
            version: VersionInfo::default(),
            state: state::Settings::default(),
            whitelist: None,
            registry_fetch_timeout: Duration::from_secs(60),
            registry_store_timeout: Duration::from_secs(20),
            max_operator_streams: 1000,
            disabled_endpoints: Vec::new(),
            per_framework_metrics: true,
            rate_limits: RateLimits::default(),
            lane_limit: 1024,
            stream_limit: tepui_http::stream::STREAM_LIMIT,
        }
    }
}
