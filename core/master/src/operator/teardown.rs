//! TEARDOWN and `/teardown`.

use tepui_http::Response;
use tepui_model::authorization::Action;
use tepui_state_master::{Event, OperatorCall, Reply};

use super::Caller;
use crate::authorize::Object;
use crate::refusal::{Refusal, answer};

/// Times that a framework may change between the two looks.
const LOOKS: usize = 3;

impl Caller<'_> {
    /// Ends a framework, if the operator may: the authorization rests on the class of the framework in
    /// the published view, which the state compares with the truth.
    pub(crate) async fn teardown(&self, framework_id: String) -> Result<Response, Refusal> {
        let action = Action::TeardownFramework;
        let mut reply = Reply::Conflict(String::new());
        for _ in 0..LOOKS {
            let view = self.owner.view().await?;
            let framework = view
                .frameworks
                .iter()
                .find(|framework| framework.row.id.as_str() == framework_id);
            let class = framework.map(|framework| framework.row.class);
            if let Some(framework) = framework {
                let named = class
                    .and_then(|class| view.classes.get(class))
                    .and_then(|class| class.principal.clone());
                let object = Object {
                    value: named,
                    framework_info: framework.row.info.clone(),
                    ..Object::default()
                };
                self.require_all(action, [object]).await?;
            }
            let request = OperatorCall::Teardown {
                framework_id: framework_id.clone(),
            };
            let principal = self.subject.and_then(|subject| subject.principal.clone());
            reply = self
                .owner
                .call(|call| Event::Operator {
                    call,
                    principal,
                    request,
                    class,
                })
                .await?;
            if !matches!(reply, Reply::Again(_)) {
                break;
            }
        }
        Ok(answer(reply))
    }
}
