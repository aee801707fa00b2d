//! What a suite runs against.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;
use tepui_host::config::{Load, ModuleConfig, RunIn};
use tepui_host::{HostSettings, Instance, ModuleHost};
use tepui_module_abi::RootV1Ref;

/// A module, and the settings to try it with.
pub struct Subject {
    host: ModuleHost,
    name: String,
    /// State directories of its instances.
    _work_dir: Option<tempfile::TempDir>,
}

impl Subject {
    /// A module of a library, loaded as a daemon would: verified, tried in a child, copied. `tepui-module-host` must
    /// lie beside the test.
    pub fn file(file: impl Into<PathBuf>, name: &str, settings: Value) -> Self {
        Self::new(
            name,
            settings,
            Load {
                file: Some(file.into()),
                ..Load::default()
            },
        )
    }

    /// The same, in a child process.
    pub fn process(file: impl Into<PathBuf>, name: &str, settings: Value) -> Self {
        let load = Load {
            file: Some(file.into()),
            run_in: RunIn::Process,
            ..Load::default()
        };
        Self::new(name, settings, load)
    }

    /// A module that is linked into the test.
    pub fn linked(root: RootV1Ref, name: &str, settings: Value) -> Self {
        let subject = Self::new(name, settings, Load::default());
        subject.host.link(root);
        subject
    }

    fn new(name: &str, settings: Value, load: Load) -> Self {
        let mut config = ModuleConfig::default();
        if let Value::Object(settings) = settings {
            config.settings.insert(name.to_owned(), settings);
        }
        config.load.insert(name.to_owned(), load);
        let work_dir = tempfile::tempdir().ok();
        let mut host = HostSettings::new("agent", config);
        host.work_dir = work_dir.as_ref().map(|dir| dir.path().join("work"));
        host.runtime_dir = work_dir.as_ref().map(|dir| dir.path().join("run"));
        Self {
            host: ModuleHost::new(host),
            name: name.to_owned(),
            _work_dir: work_dir,
        }
    }

    /// A new instance.
    pub(crate) fn load(&self, kind: &str) -> Result<Instance> {
        let loaded = self.host.load(kind, &self.name);
        loaded.with_context(|| format!("{} cannot be loaded as {kind}", self.name))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.host.release();
    }
}
