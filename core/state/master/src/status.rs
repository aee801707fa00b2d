//! Task statuses that the master makes itself, and the events that carry statuses.

use tepui_model::id::{AgentId, TaskId};
use tepui_model::time::Now;
use tepui_proto::v1::{self, TaskState, TaskStatus, scheduler, task_status};
use tepui_view::TaskRow;

/// What a status of the master says.
pub(crate) struct MasterStatus<'a> {
    pub(crate) task: &'a TaskId,
    pub(crate) state: TaskState,
    pub(crate) reason: task_status::Reason,
    pub(crate) message: String,
    pub(crate) agent: Option<&'a AgentId>,
}

/// A status with source MASTER and no uuid: nobody has to acknowledge it.
pub(crate) fn by_master(said: MasterStatus<'_>, now: Now) -> TaskStatus {
    TaskStatus {
        task_id: v1::TaskId {
            value: said.task.to_string(),
        },
        state: said.state as i32,
        message: Some(said.message),
        source: Some(task_status::Source::Master as i32),
        reason: Some(said.reason as i32),
        agent_id: said.agent.map(|id| v1::AgentId {
            value: id.to_string(),
        }),
        timestamp: Some(now.wall.as_secs_f64()),
        ..Default::default()
    }
}

/// The executor of a task, where the master names it.
pub(crate) fn executor_of(row: &TaskRow) -> Option<v1::ExecutorId> {
    row.executor.as_ref().map(|id| v1::ExecutorId {
        value: id.to_string(),
    })
}

/// UPDATE with a status.
pub(crate) fn update_event(status: TaskStatus) -> scheduler::Event {
    scheduler::Event {
        r#type: Some(scheduler::event::Type::Update as i32),
        update: Some(scheduler::event::Update { status }),
        ..Default::default()
    }
}

/// FAILURE of an agent, or of an executor with its raw wait status.
pub(crate) fn failure_event(
    agent: &AgentId,
    executor: Option<v1::ExecutorId>,
    status: Option<i32>,
) -> scheduler::Event {
    scheduler::Event {
        r#type: Some(scheduler::event::Type::Failure as i32),
        failure: Some(scheduler::event::Failure {
            agent_id: Some(v1::AgentId {
                value: agent.to_string(),
            }),
            executor_id: executor,
            status,
        }),
        ..Default::default()
    }
}
