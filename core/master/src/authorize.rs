//! Questions to the authorizer, asked before a call reaches the owner.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tepui_model::authorization::{Action, Subject};
use tepui_proto::Message as _;
use tepui_proto::v1::{self, offer, scheduler};
use tepui_state_master::Refused;

/// What an action is about: as much as is known of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    /// The string that ACLs look at.
    pub value: Option<String>,
    /// `mesos.v1.FrameworkInfo`.
    pub framework_info: Bytes,
    /// `mesos.v1.TaskInfo`.
    pub task_info: Bytes,
}

impl Object {
    /// An object of which only the value matters.
    pub fn value(value: impl Into<String>) -> Object {
        Object {
            value: Some(value.into()),
            ..Object::default()
        }
    }
}

/// The authorizer gave no answer: neither yes nor no.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the authorizer gave no answer: {0}")]
pub struct Unanswered(pub String);

/// Decides for one subject and one action.
#[async_trait]
pub trait Approver: Send + Sync {
    /// The answer, if it is the same for all objects.
    fn constant(&self) -> Option<bool>;

    /// Whether the action may be done to the object.
    ///
    /// # Errors
    /// Nobody can tell: a call fails with 500, as in Mesos.
    async fn approved(&self, object: &Object) -> Result<bool, Unanswered>;

    /// The same where there is nobody to tell an error to: what is not answered for is not shown, not launched.
    async fn surely(&self, object: &Object) -> bool {
        self.approved(object).await.unwrap_or(false)
    }
}

/// An authorizer module.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// The approver of a subject (nobody: unauthenticated) for an action.
    async fn approver(&self, subject: Option<&Subject>, action: Action) -> Arc<dyn Approver>;
}

/// Allows everything: what tests use.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

#[async_trait]
impl Authorizer for AllowAll {
    async fn approver(&self, _subject: Option<&Subject>, _action: Action) -> Arc<dyn Approver> {
        Arc::new(AllowAll)
    }
}

#[async_trait]
impl Approver for AllowAll {
    fn constant(&self) -> Option<bool> {
        Some(true)
    }

    async fn approved(&self, _object: &Object) -> Result<bool, Unanswered> {
        Ok(true)
    }
}

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
