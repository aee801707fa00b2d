//! What an instance is given, and its way to the daemon.

use std::path::{Path, PathBuf};

use tepui_module_abi::{HostV1, RSlice};
use tepui_module_proto::common::{
    CreateRequest, HealthRequest, HostMethod, LogRequest, MetricsRequest, ProgressRequest,
    metrics_request::Sample,
};

/// What an instance knows of its surroundings.
#[derive(Debug, Clone)]
pub struct Context {
    pub(crate) request: CreateRequest,
    pub(crate) host: Host,
}

impl Context {
    /// Names in the configuration that selected this module: its own or aliases, in their order.
    pub fn selected(&self) -> &[String] {
        &self.request.selected
    }

    /// `master`, `agent`, or `check` when this instance is a trial.
    pub fn daemon(&self) -> &str {
        &self.request.daemon
    }

    /// A directory of this module's own that outlives a reboot. It is there when `activate` or `recover` is called.
    pub fn state_dir(&self) -> PathBuf {
        Path::new(&self.request.state_dir).to_owned()
    }

    /// A directory of this module's own that a reboot empties. It is there when `activate` or `recover` is called.
    pub fn runtime_dir(&self) -> PathBuf {
        Path::new(&self.request.runtime_dir).to_owned()
    }

    /// The daemon's work directory.
    pub fn work_dir(&self) -> PathBuf {
        Path::new(&self.request.work_dir).to_owned()
    }

    /// The way to the daemon.
    pub fn host(&self) -> Host {
        self.host
    }
}

/// The way to the daemon. None of its methods waits.
#[derive(Debug, Clone, Copy)]
pub struct Host(pub(crate) HostV1);

impl Host {
    /// Sets a metric, named in the module's own space.
    pub fn gauge(&self, name: &str, value: f64) {
        self.metric(name, value, false);
    }

    /// Adds to a metric.
    pub fn count(&self, name: &str, by: f64) {
        self.metric(name, by, true);
    }

    /// Tells that the instance is well, or why not, until told otherwise.
    pub fn health(&self, unhealthy: Option<&str>) {
        let message = unhealthy.unwrap_or_default().to_owned();
        self.call(
            HostMethod::Health,
            &HealthRequest {
                healthy: unhealthy.is_none(),
                message,
            },
        );
    }

    pub(crate) fn progress(&self, call: u64, message: &str) {
        let message = message.to_owned();
        self.call(HostMethod::Progress, &ProgressRequest { call, message });
    }

    fn metric(&self, name: &str, value: f64, add: bool) {
        let sample = Sample {
            name: name.to_owned(),
            value,
            add,
            ..Sample::default()
        };
        self.call(
            HostMethod::Metrics,
            &MetricsRequest {
                samples: vec![sample],
            },
        );
    }

    pub(crate) fn log(&self, request: &LogRequest) {
        self.call(HostMethod::Log, request);
    }

    fn call(&self, method: HostMethod, request: &impl prost::Message) {
        let bytes = request.encode_to_vec();
        // SAFETY: the host's table is valid for the life of the process and its functions may be called
        // from any thread; the slice outlives the call. Answers of these methods are empty.
        unsafe { (self.0.call)(self.0.ctx, method as u32, RSlice::from_slice(&bytes)) };
    }
}
