//! The clients of modules as parts of a master.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tepui_host::kinds::allocator::AllocatorClient;
use tepui_host::kinds::authorizer::{self, AuthorizerClient, ObjectRef};
use tepui_host::kinds::leader::{Candidacy, LeaderClient};
use tepui_model::allocation::{Fact, Proposal, Round};
use tepui_model::authorization::{Action, Subject};
use tepui_module_proto::authorizer as wire;
use tokio::sync::watch;

use crate::authorize::{Approver, Authorizer, Object, Unanswered};
use crate::leadership::Leadership;
use crate::parts::Allocator;

/// Approvers that are kept for later requests of the same subjects.
const APPROVERS: usize = 4096;

impl Allocator for AllocatorClient {
    fn apply(&mut self, facts: Vec<Fact>) -> Result<(), String> {
        AllocatorClient::apply(self, &facts).map_err(|error| error.to_string())
    }

    fn allocate(&mut self, round: &Round) -> Result<Vec<Proposal>, String> {
        AllocatorClient::allocate(self, round).map_err(|error| error.to_string())
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
        let whole = wire::Object {
            value: object.value.clone(),
            framework_info: object.framework_info.to_vec(),
            task_info: object.task_info.to_vec(),
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

/// Contender and detector modules.
pub struct ModuleLeadership {
    contender: LeaderClient,
    detector: LeaderClient,
    candidacy: watch::Sender<Option<Candidacy>>,
}

impl ModuleLeadership {
    /// Leadership by these modules, which may be one.
    pub fn new(contender: LeaderClient, detector: LeaderClient) -> ModuleLeadership {
        ModuleLeadership {
            contender,
            detector,
            candidacy: watch::Sender::new(None),
        }
    }
}

#[async_trait]
impl Leadership for ModuleLeadership {
    async fn contend(&self, info: Bytes) -> Result<(), String> {
        let candidacy = self
            .contender
            .contend(info.to_vec())
            .await
            .map_err(|error| error.to_string())?;
        self.candidacy.send_replace(Some(candidacy));
        Ok(())
    }

    async fn lost(&self) -> String {
        let mut entered = self.candidacy.subscribe();
        let candidacy = entered
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|candidacy| candidacy.clone());
        match candidacy {
            Some(candidacy) => self.contender.lost(&candidacy).await,
            None => "no candidacy was entered".to_owned(),
        }
    }

    async fn detect(&self, previous: Option<Bytes>) -> Result<Option<Bytes>, String> {
        let leader = self
            .detector
            .detect(previous.as_deref())
            .await
            .map_err(|error| error.to_string())?;
        Ok(leader.master_info.map(Bytes::from))
    }
}
