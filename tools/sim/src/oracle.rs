//! What must be true whatever fails: the promises R2 and R3, seen from outside the states.
//!
//! R1 (nothing is offered or used twice) is checked by the states themselves after every event; R4 is watched by
//! the operator, R5 where an agent starts.

use std::collections::{BTreeMap, BTreeSet};

use tepui_proto::v1::{TaskState, TaskStatus, task_status};

/// What is known of one launch.
#[derive(Clone, Debug, Default)]
struct Launch {
    /// Times its command was started.
    starts: u32,
    /// The scheduler was told that it never runs.
    dropped: bool,
    /// What the master told of its loss since its agent was last heard of.
    lost: Option<TaskState>,
    /// Terminal states made by its executor or agent that a scheduler acknowledged.
    acknowledged: BTreeSet<i32>,
}

/// Watches all tasks of a run.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    launches: BTreeMap<String, Launch>,
}

impl Oracle {
    /// A command is about to start.
    pub(crate) fn started(&mut self, task: &str) -> Result<(), String> {
        let launch = self.launches.entry(task.to_owned()).or_default();
        launch.starts += 1;
        if launch.starts > 1 {
            return Err(format!(
                "R3: task {task} was started {} times",
                launch.starts
            ));
        }
        if launch.dropped {
            return Err(format!(
                "R3: task {task} was started after it was reported dropped"
            ));
        }
        Ok(())
    }

    /// A scheduler got an update.
    pub(crate) fn told(&mut self, status: &TaskStatus) -> Result<(), String> {
        let task = &status.task_id.value;
        let launch = self.launches.entry(task.clone()).or_default();
        if status.source() != task_status::Source::Master {
            // It comes from its agent, so that is back, whatever the master said before.
            launch.lost = None;
            return Ok(());
        }
        if status.reason() == task_status::Reason::AgentReregistered {
            launch.lost = None;
        }
        if status.reason() == task_status::Reason::Reconciliation && !is_loss_of_sync(status) {
            return Ok(());
        }
        match status.state() {
            TaskState::TaskDropped => launch.dropped = true,
            TaskState::TaskLost
            | TaskState::TaskGone
            | TaskState::TaskGoneByOperator
            | TaskState::TaskUnreachable => {}
            _ => return Ok(()),
        }
        // What was unreachable may turn out to be gone.
        let before = launch.lost.replace(status.state());
        if before
            .is_some_and(|state| state != TaskState::TaskUnreachable || state == status.state())
        {
            return Err(format!(
                "R2: task {task} was reported {} again: {}",
                status.state().as_str_name(),
                status.message()
            ));
        }
        Ok(())
    }

    /// A scheduler may have missed that its task is back: what comes next is not told again.
    pub(crate) fn missed(&mut self, task: &str) {
        if let Some(launch) = self.launches.get_mut(task) {
            launch.lost = None;
        }
    }

    /// A scheduler acknowledged an update.
    pub(crate) fn acknowledged(&mut self, status: &TaskStatus) -> Result<(), String> {
        if !status.state().is_terminal() {
            return Ok(());
        }
        let task = &status.task_id.value;
        let launch = self.launches.entry(task.clone()).or_default();
        launch.acknowledged.insert(status.state);
        if launch.acknowledged.len() > 1 {
            return Err(format!(
                "R2: task {task} ended in several ways: {:?}",
                launch.acknowledged
            ));
        }
        Ok(())
    }

    /// Launches of which an end was acknowledged.
    pub(crate) fn ends(&self) -> u64 {
        let launches = self.launches.values();
        launches
            .filter(|launch| !launch.acknowledged.is_empty())
            .count() as u64
    }

    pub(crate) fn starts(&self) -> u32 {
        self.launches.values().map(|launch| launch.starts).sum()
    }
}

/// DROPPED and GONE after a sync are told once; answers to RECONCILE as often as asked.
fn is_loss_of_sync(status: &TaskStatus) -> bool {
    status.state() == TaskState::TaskDropped && status.message().ends_with("unknown to the agent")
}
