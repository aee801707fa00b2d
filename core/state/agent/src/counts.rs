//! Numbers for metrics: how often something has happened since this agent process started. They
//! decide nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tepui_proto::v1::{TaskState, TaskStatus};

/// What is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Tasks that ended, by the number of their `TaskState`.
    pub ended: BTreeMap<i32, u64>,
    /// Updates of tasks that are known.
    pub valid_updates: u64,
    /// Updates that were refused.
    pub invalid_updates: u64,
    /// Messages between schedulers and executors that were handed on.
    pub valid_messages: u64,
    /// Messages of or for nobody.
    pub invalid_messages: u64,
    /// Executors whose container is over.
    pub executors_terminated: u64,
    /// Containers that could not be launched.
    pub launch_errors: u64,
}

impl Counts {
    /// Tasks that ended in this state.
    #[must_use]
    pub fn ended_in(&self, state: TaskState) -> u64 {
        self.ended.get(&(state as i32)).copied().unwrap_or_default()
    }

    pub(crate) fn update(&mut self, status: &TaskStatus) {
        self.valid_updates += 1;
        if status.state().is_terminal() {
            *self.ended.entry(status.state).or_default() += 1;
        }
    }
}
