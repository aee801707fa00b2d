//! Questions to the authorizer, asked before a call reaches the owner.

use bytes::Bytes;
use tepui_model::authorization::{Action, Subject};
use tepui_proto::v1::{self, offer, scheduler};
use tepui_proto::{Message as _, convert};
use tepui_state_master::Refused;

use crate::operation::{described, questions};

pub use tepui_http::authorize::{AllowAll, Approver, Authorizer, Object, Unanswered};

/// Refusal of a SUBSCRIBE, if any role of the framework is refused. The text is Mesos'.
pub(crate) async fn registration(
    authorizer: &dyn Authorizer,
    subject: Option<&Subject>,
    info: &v1::FrameworkInfo,
) -> Result<Option<String>, Unanswered> {
    let approver = authorizer
        .approver(subject, Action::RegisterFramework)
        .await;
    if approver.constant() == Some(true) {
        return Ok(None);
    }
    let framework_info = Bytes::from(info.encode_to_vec());
    for role in roles(info) {
        let object = Object {
            value: Some(role.clone()),
            framework_info: framework_info.clone(),
            ..Object::default()
        };
        if !approver.approved(&object).await? {
            return Ok(Some(format!("Not authorized to use role '{role}'")));
        }
    }
    Ok(None)
}

/// Roles that a framework subscribes to; `*` where it names none.
fn roles(info: &v1::FrameworkInfo) -> Vec<String> {
    let multi = v1::framework_info::capability::Type::MultiRole as i32;
    if info
        .capabilities
        .iter()
        .any(|capability| capability.r#type == Some(multi))
    {
        return info.roles.clone();
    }
    #[expect(deprecated, reason = "frameworks without MULTI_ROLE use it")]
    let role = info.role.clone().unwrap_or_else(|| "*".to_owned());
    vec![role]
}

/// Launches of an ACCEPT that the authorizer refuses.
pub(crate) async fn launches(
    authorizer: &dyn Authorizer,
    subject: Option<&Subject>,
    framework: &v1::FrameworkInfo,
    accept: &scheduler::call::Accept,
) -> Vec<Refused> {
    let approver = authorizer.approver(subject, Action::RunTask).await;
    let mut refused = Vec::new();
    if approver.constant() == Some(true) {
        return refused;
    }
    let framework_info = Bytes::from(framework.encode_to_vec());
    for (operation, launched) in (0..).zip(&accept.operations) {
        let (executor, tasks) = launched_tasks(launched);
        for (task, info) in (0..).zip(tasks) {
            let user = task_user(info, executor, framework);
            let object = Object {
                value: Some(user.clone()),
                framework_info: framework_info.clone(),
                task_info: info.encode_to_vec().into(),
                ..Object::default()
            };
            if !approver.surely(&object).await {
                let message = format!("Task is not authorized to launch as user '{user}'");
                refused.push(Refused {
                    operation,
                    task,
                    message,
                });
            }
        }
    }
    refused
}

/// Operations on resources of an ACCEPT that the authorizer refuses. The texts are Mesos'.
pub(crate) async fn operations(
    authorizer: &dyn Authorizer,
    subject: Option<&Subject>,
    accept: &scheduler::call::Accept,
) -> Vec<Refused> {
    let mut refused = Vec::new();
    for (number, message) in (0..).zip(&accept.operations) {
        // One that cannot be read is refused by the state.
        let Ok(Some(operation)) = convert::operation(message) else {
            continue;
        };
        for (action, object) in questions(&operation) {
            let approver = authorizer.approver(subject, action).await;
            if !approver.surely(&object).await {
                let principal = subject.and_then(|subject| subject.principal.as_deref());
                refused.push(Refused {
                    operation: number,
                    task: 0,
                    message: format!(
                        "Not authorized to {} as '{}'",
                        described(&operation),
                        principal.unwrap_or_default()
                    ),
                });
                break;
            }
        }
    }
    refused
}

/// Executor (of a group) and tasks that an operation launches.
fn launched_tasks(operation: &offer::Operation) -> (Option<&v1::ExecutorInfo>, &[v1::TaskInfo]) {
    if let Some(launch) = &operation.launch {
        return (None, &launch.task_infos);
    }
    match &operation.launch_group {
        Some(group) => (Some(&group.executor), &group.task_group.tasks),
        None => (None, &[]),
    }
}

/// The user a task runs as: its command's, else its executor's, else its framework's.
fn task_user(
    task: &v1::TaskInfo,
    group: Option<&v1::ExecutorInfo>,
    framework: &v1::FrameworkInfo,
) -> String {
    let own = task
        .command
        .as_ref()
        .and_then(|command| command.user.clone());
    let executor = task.executor.as_ref().or(group);
    let executor = executor.and_then(|executor| executor.command.as_ref()?.user.clone());
    own.or(executor).unwrap_or_else(|| framework.user.clone())
}
