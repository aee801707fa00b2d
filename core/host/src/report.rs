//! What is shown of modules: `/tepui/v1/modules`, `tepui module list`, metrics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::RunIn;

/// All modules of a daemon.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// In the order they were loaded.
    pub modules: Vec<ModuleReport>,
}

/// State of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Tried, not started.
    Checked,
    /// In use.
    Active,
    /// In use, and a call did not end at its deadline.
    Stuck,
    /// Finished or lost; another is being made.
    Failed,
    /// Not in use any more.
    Released,
}

/// One module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleReport {
    /// Its name.
    pub name: String,
    /// Its kinds.
    pub kinds: Vec<String>,
    /// Names that selected it.
    pub selected: Vec<String>,
    /// How it is.
    pub state: State,
    /// Its own version.
    pub version: String,
    /// What it says of itself.
    pub description: String,
    /// Version of the ABI it was built with.
    pub abi: String,
    /// Version of the SDK it was built with.
    pub sdk: String,
    /// The library; none when it is linked into the program.
    pub file: Option<String>,
    /// Digest of the file.
    pub sha256: String,
    /// Where it runs.
    pub run_in: RunIn,
    /// Number of the instance: 1 is the first.
    pub instance: u64,
    /// Instances that were finished or lost.
    pub restarts: u64,
    /// Why the last one was.
    pub trouble: Option<String>,
    /// What the instance itself says is wrong.
    pub health: Option<String>,
    /// Calls that completed.
    pub methods: Vec<MethodReport>,
    /// Calls that did not complete yet.
    pub pending: Vec<PendingReport>,
    /// What the module counts itself.
    pub metrics: Vec<MetricReport>,
}

/// Completed calls of one method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodReport {
    /// Its name.
    pub method: String,
    /// How many.
    pub calls: u64,
    /// Of these, answered with a failure. To be without an optional method is none.
    pub failed: u64,
    /// Of these, completed after their deadline.
    pub overdue: u64,
    /// Time of all.
    pub total_ms: f64,
    /// Time of the longest.
    pub longest_ms: f64,
}

/// A call that has not completed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingReport {
    /// Its number.
    pub call: u64,
    /// Its method.
    pub method: String,
    /// Its lane: the container it is about.
    pub container: Option<String>,
    /// Since when.
    pub age_ms: f64,
    /// Meant to last.
    pub long_poll: bool,
    /// Past its deadline.
    pub stuck: bool,
    /// What the module said it does.
    pub progress: Option<String>,
}

/// A metric of a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricReport {
    /// Its name, in the module's own space.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}
