//! What is in an executor's `events.log`, in both directions.

use tepui_executor::{GroupRecord, Intent, Record as PlayedRecord, TaskRecord};
use tepui_model::id::{ContainerId, FrameworkId};
use tepui_model::time::Mono;
use tepui_proto::Wire;
use tepui_proto::disk::executor_event::Event;
use tepui_proto::disk::{
    ExecutorEvent, ExecutorRetired, PlayedExecutor, PlayedTask, TaskKill, UpdateAcknowledged,
    executor_record, played_executor,
};
use tepui_state_agent::{ExecutorKind, RecordBody};

/// One executor as it was recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) container: ContainerId,
    pub(crate) records: Vec<RecordBody>,
    pub(crate) played: PlayedRecord,
    /// The same of a default executor.
    pub(crate) groups: GroupRecord,
    pub(crate) retired: bool,
}

impl Recorded {
    /// The framework that it is of.
    pub(crate) fn framework(&self) -> FrameworkId {
        match self.records.first() {
            Some(RecordBody::Launch { framework, .. }) => {
                FrameworkId::from(framework.id.as_ref().map_or("", |id| &id.value))
            }
            _ => FrameworkId::from(""),
        }
    }

    pub(super) fn take(&mut self, event: ExecutorEvent) {
        let body = match event.event {
            Some(Event::Task(task)) => RecordBody::Task(Wire(task)),
            Some(Event::Kill(kill)) => RecordBody::Kill {
                task: kill.task_id.into(),
                reason: kill.reason,
                grace: kill.grace,
            },
            Some(Event::Update(status)) => RecordBody::Update(Wire(status)),
            Some(Event::Acknowledged(acknowledged)) => RecordBody::Acknowledged {
                task: acknowledged.task_id.into(),
                uuid: acknowledged.uuid.to_vec(),
            },
            Some(Event::Retired(_)) => {
                self.retired = true;
                RecordBody::Retired
            }
            Some(Event::Played(played)) => {
                self.played = PlayedRecord {
                    deadline: played.deadline.map(Mono),
                    intent: intent_from_disk(played.intent()),
                };
                let tasks = played.tasks.into_iter().map(|task| TaskRecord {
                    deadline: task.deadline.map(Mono),
                    intent: intent_from_disk(task.intent()),
                    task: task.task_id,
                    child: task.child,
                    group: task.group,
                });
                self.groups.tasks = tasks.collect();
                return;
            }
            // Of a later release; what this one does not know it cannot act upon.
            None => return,
        };
        self.records.push(body);
    }
}

pub(super) fn kind(kind: ExecutorKind) -> executor_record::Kind {
    match kind {
        ExecutorKind::Generated => executor_record::Kind::Generated,
        ExecutorKind::Default => executor_record::Kind::Default,
        ExecutorKind::Custom => executor_record::Kind::Custom,
    }
}

pub(super) fn kind_from_disk(kind: executor_record::Kind) -> ExecutorKind {
    match kind {
        executor_record::Kind::Generated => ExecutorKind::Generated,
        executor_record::Kind::Default => ExecutorKind::Default,
        executor_record::Kind::Custom => ExecutorKind::Custom,
    }
}

/// A record; none of a launch, which is a file of its own.
pub(super) fn event(body: &RecordBody) -> Option<Event> {
    Some(match body {
        RecordBody::Launch { .. } => return None,
        RecordBody::Task(task) => Event::Task(task.0.clone()),
        RecordBody::Kill {
            task,
            reason,
            grace,
        } => Event::Kill(TaskKill {
            task_id: task.to_string(),
            reason: *reason,
            grace: *grace,
        }),
        RecordBody::Update(status) => Event::Update(status.0.clone()),
        RecordBody::Acknowledged { task, uuid } => Event::Acknowledged(UpdateAcknowledged {
            task_id: task.to_string(),
            uuid: uuid.clone().into(),
        }),
        RecordBody::Retired => Event::Retired(ExecutorRetired {}),
    })
}

/// What a played executor goes on with.
pub(super) fn played(played: &PlayedRecord) -> Event {
    Event::Played(PlayedExecutor {
        deadline: played.deadline.map(|at| at.0),
        intent: intent_to_disk(played.intent).into(),
        tasks: Vec::new(),
    })
}

/// What a played default executor goes on with.
pub(super) fn groups(groups: &GroupRecord) -> Event {
    let tasks = groups.tasks.iter().map(|task| PlayedTask {
        task_id: task.task.clone(),
        child: task.child.clone(),
        group: task.group,
        deadline: task.deadline.map(|at| at.0),
        intent: intent_to_disk(task.intent).into(),
    });
    Event::Played(PlayedExecutor {
        tasks: tasks.collect(),
        ..PlayedExecutor::default()
    })
}

fn intent_to_disk(intent: Option<Intent>) -> played_executor::Intent {
    match intent {
        None => played_executor::Intent::None,
        Some(Intent::Killed) => played_executor::Intent::Killed,
        Some(Intent::OutOfTime) => played_executor::Intent::OutOfTime,
        Some(Intent::Unhealthy) => played_executor::Intent::Unhealthy,
    }
}

fn intent_from_disk(intent: played_executor::Intent) -> Option<Intent> {
    match intent {
        played_executor::Intent::None => None,
        played_executor::Intent::Killed => Some(Intent::Killed),
        played_executor::Intent::OutOfTime => Some(Intent::OutOfTime),
        played_executor::Intent::Unhealthy => Some(Intent::Unhealthy),
    }
}
