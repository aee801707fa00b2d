//! What frameworks say, and short names of what they are told.

use tepui_model::resources::Resources;
use tepui_proto::convert;
use tepui_proto::v1::{self, scheduler, scheduler::call::Type};

pub fn accept_call(
    offers: &[&str],
    tasks: Vec<v1::TaskInfo>,
    refuse: Option<f64>,
) -> scheduler::Call {
    scheduler::Call {
        r#type: Some(Type::Accept as i32),
        accept: Some(scheduler::call::Accept {
            offer_ids: offers
                .iter()
                .map(|id| v1::OfferId {
                    value: (*id).into(),
                })
                .collect(),
            operations: vec![v1::offer::Operation {
                r#type: Some(v1::offer::operation::Type::Launch as i32),
                launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
                ..Default::default()
            }],
            filters: refuse.map(|seconds| v1::Filters {
                refuse_seconds: Some(seconds),
            }),
        }),
        ..Default::default()
    }
}

/// A framework like those of the recordings.
pub fn framework(name: &str, role: &str) -> v1::FrameworkInfo {
    use v1::framework_info::{Capability, capability::Type};
    v1::FrameworkInfo {
        user: "root".into(),
        name: name.into(),
        hostname: Some("localhost".into()),
        roles: vec![role.into()],
        failover_timeout: Some(3600.0),
        checkpoint: Some(false),
        capabilities: [
            Type::MultiRole,
            Type::PartitionAware,
            Type::ReservationRefinement,
        ]
        .into_iter()
        .map(|kind| Capability {
            r#type: Some(kind as i32),
        })
        .collect(),
        ..Default::default()
    }
}

/// A command task.
pub fn task(id: &str, agent: &str, resources: &str) -> v1::TaskInfo {
    let resources = Resources::parse(resources, "*").expect("resources of a test");
    v1::TaskInfo {
        name: id.into(),
        task_id: v1::TaskId { value: id.into() },
        agent_id: v1::AgentId {
            value: agent.into(),
        },
        resources: convert::to_proto(&resources),
        command: Some(v1::CommandInfo {
            value: Some("true".into()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Short names of events: type, or for updates the state with its message.
pub fn names(events: &[scheduler::Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| match &event.update {
            Some(update) => format!(
                "{} {} {}",
                update.status.task_id.value,
                update.status.state().as_str_name(),
                update.status.message()
            )
            .trim_end()
            .to_owned(),
            None => event.r#type().as_str_name().to_owned(),
        })
        .collect()
}
