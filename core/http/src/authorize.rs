//! Who may do what: questions to the authorizer that a daemon has, a module or another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use tepui_host::kinds::authorizer::{self, AuthorizerClient, ObjectRef};
use tepui_model::authorization::{Action, Subject};

use crate::response::Response;

/// Approvers that are kept for later requests of the same subjects.
const APPROVERS: usize = 4096;

/// What an action is about: as much as is known of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    /// The string that ACLs look at.
    pub value: Option<String>,
    /// `mesos.v1.FrameworkInfo`.
    pub framework_info: Bytes,
    /// `mesos.v1.TaskInfo`.
    pub task_info: Bytes,
    /// `mesos.v1.ExecutorInfo` of the executor that it is of or in.
    pub executor_info: Bytes,
    /// `mesos.v1.CommandInfo` of what is to be run.
    pub command_info: Bytes,
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

/// Why a request is not served.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Denied {
    /// 403.
    #[error("not authorized")]
    Forbidden,
    /// 500.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

impl From<Denied> for Response {
    fn from(denied: Denied) -> Response {
        match denied {
            Denied::Forbidden => Response::forbidden(""),
            Denied::Unanswered(error) => {
                Response::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

/// Whether somebody may do something, with the refusal.
pub async fn require(
    authorizer: &dyn Authorizer,
    subject: Option<&Subject>,
    action: Action,
    object: &Object,
) -> Result<(), Denied> {
    let approver = authorizer.approver(subject, action).await;
    if approver.approved(object).await? {
        Ok(())
    } else {
        Err(Denied::Forbidden)
    }
}

/// Approvers by what they decide.
type Approvers = HashMap<(Option<Subject>, Action), Arc<ModuleApprover>>;

/// An authorizer module.
pub struct ModuleAuthorizer {
    client: AuthorizerClient,
    approvers: Mutex<Approvers>,
}

struct ModuleApprover {
    approver: authorizer::Approver,
    action: Action,
}

impl ModuleAuthorizer {
    /// The authorizer behind a client.
    pub fn new(client: AuthorizerClient) -> ModuleAuthorizer {
        ModuleAuthorizer {
            client,
            approvers: Mutex::default(),
        }
    }
}

#[async_trait]
impl Authorizer for ModuleAuthorizer {
    async fn approver(&self, subject: Option<&Subject>, action: Action) -> Arc<dyn Approver> {
        let key = (subject.cloned(), action);
        let table = || {
            self.approvers
                .lock()
                .expect("no panic happens under this lock")
        };
        let known = table().get(&key).cloned();
        if let Some(approver) = known {
            return approver;
        }
        match self.client.approver(subject, action).await {
            Ok(approver) => {
                let approver = Arc::new(ModuleApprover { approver, action });
                let mut approvers = table();
                if approvers.len() >= APPROVERS {
                    // Subjects come from outside: what is not asked for again is made anew.
                    approvers.clear();
                }
                approvers.insert(key, Arc::clone(&approver));
                approver
            }
            Err(error) => {
                tracing::error!(%action, %error, "the authorizer gives no answer");
                Arc::new(Unanswered(error.to_string()))
            }
        }
    }
}

#[async_trait]
impl Approver for ModuleApprover {
    fn constant(&self) -> Option<bool> {
        self.approver.constant()
    }

    async fn approved(&self, object: &Object) -> Result<bool, Unanswered> {
        let whole = authorizer::Object {
            value: object.value.clone(),
            framework_info: object.framework_info.to_vec(),
            task_info: object.task_info.to_vec(),
            executor_info: object.executor_info.to_vec(),
            command_info: object.command_info.to_vec(),
            ..Default::default()
        };
        let framework = (!object.framework_info.is_empty()).then_some(&*object.framework_info);
        let object = ObjectRef {
            value: object.value.as_deref(),
            framework,
            whole: Some(&whole),
        };
        self.approver.approved(&object).await.map_err(|error| {
            tracing::error!(action = %self.action, %error, "the authorizer gives no answer");
            Unanswered(error.to_string())
        })
    }
}

/// Where not even an approver was given.
#[async_trait]
impl Approver for Unanswered {
    fn constant(&self) -> Option<bool> {
        None
    }

    async fn approved(&self, _object: &Object) -> Result<bool, Unanswered> {
        Err(self.clone())
    }
}
