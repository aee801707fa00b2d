//! Who asks for a change, and how it is asked of the state: authorized, applied, written, answered.

use tepui_http::Response;
use tepui_model::authorization::{Action, Subject};
use tepui_state_master::{Event, OperatorCall, Reply};

use crate::authorize::{Authorizer, Object};
use crate::owner::Owner;
use crate::refusal::{Refusal, answer};

/// An operator with a call.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) owner: &'a Owner,
    pub(crate) authorizer: &'a dyn Authorizer,
    pub(crate) subject: Option<&'a Subject>,
}

impl Caller<'_> {
    /// Refuses with 403 unless the action may be done.
    pub(crate) async fn require(&self, action: Action) -> Result<(), Refusal> {
        self.require_all(action, [Object::default()]).await
    }

    /// Refuses with 403 unless the action may be done to each of the objects.
    pub(crate) async fn require_all(
        &self,
        action: Action,
        objects: impl IntoIterator<Item = Object, IntoIter: Send>,
    ) -> Result<(), Refusal> {
        let approver = self.authorizer.approver(self.subject, action).await;
        for object in objects {
            if !approver.approved(&object).await? {
                return Err(Refusal::forbidden());
            }
        }
        Ok(())
    }

    /// Keeps what the action may be done to.
    pub(crate) async fn visible<T: Send>(
        &self,
        action: Action,
        all: Vec<T>,
        object: impl Fn(&T) -> Object + Send,
    ) -> Vec<T> {
        let approver = self.authorizer.approver(self.subject, action).await;
        let mut visible = Vec::new();
        for one in all {
            if approver.surely(&object(&one)).await {
                visible.push(one);
            }
        }
        visible
    }

    /// What the state says to a call that rests on no object's class.
    pub(crate) async fn ask(&self, request: OperatorCall) -> Result<Reply, Refusal> {
        let principal = self.subject.and_then(|subject| subject.principal.clone());
        let event = |call| Event::Operator {
            call,
            principal,
            request,
            class: None,
        };
        Ok(self.owner.call(event).await?)
    }

    /// The same as an answer.
    pub(crate) async fn change(&self, request: OperatorCall) -> Result<Response, Refusal> {
        Ok(answer(self.ask(request).await?))
    }
}
