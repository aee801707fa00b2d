//! `/api/v1/scheduler`.

use std::sync::Arc;

use tepui_http::{HeaderName, Media, Request, Response, StatusCode};
use tepui_model::authorization::Subject;
use tepui_proto::v1::scheduler;
use tepui_proto::v1::scheduler::call::Type;
use tepui_state_master::Event;
use tokio::sync::oneshot;

use crate::authorize::{self, Authorizer};
use crate::calls;
use crate::lanes::{LaneCall, Lanes};
use crate::limits::CallLimits;
use crate::owner::{Owner, Subscribed, Unavailable};
use crate::refusal::{Refusal, answer};

/// Names a subscription in every later call.
const STREAM_ID: &str = "mesos-stream-id";

/// What a scheduler's calls need of a leader.
#[derive(Clone)]
pub(crate) struct SchedulerApi {
    pub(crate) owner: Owner,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) limits: Arc<CallLimits>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
}

impl SchedulerApi {
    /// Answers a call. Leadership has been looked at before.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        if let Some(refused) = calls::only_post(&request) {
            return refused;
        }
        self.call(request).await.unwrap_or_else(Response::from)
    }

    async fn call(&self, request: Request) -> Result<Response, Refusal> {
        let call: scheduler::Call = calls::read(&request)?;
        let principal = request
            .subject
            .as_ref()
            .and_then(|subject| subject.principal.as_deref());
        let stream_id = request.header(STREAM_ID);
        match calls::scheduler(&call, principal)? {
            Type::Subscribe => {
                let media = calls::acceptable(&request)?;
                if stream_id.is_some() {
                    let text = "Subscribe calls should not include the 'Mesos-Stream-Id' header";
                    return Err(Refusal::bad_request(text));
                }
                self.subscribe(call, request.subject, media).await
            }
            kind => {
                if kind == Type::ReconcileOperations {
                    calls::acceptable(&request)?;
                }
                let stream_id = stream_id.unwrap_or_default().to_owned();
                self.in_order(call, request.subject, stream_id).await
            }
        }
    }

    async fn subscribe(
        &self,
        call: scheduler::Call,
        subject: Option<Subject>,
        media: Media,
    ) -> Result<Response, Refusal> {
        let refused = match &call.subscribe {
            Some(subscribe) => {
                authorize::registration(
                    &*self.authorizer,
                    subject.as_ref(),
                    &subscribe.framework_info,
                )
                .await?
            }
            None => None,
        };
        let principal = subject.and_then(|subject| subject.principal);
        let info = call.subscribe.as_ref();
        let named = info.and_then(|subscribe| subscribe.framework_info.principal.as_deref());
        let limited = self.limits.of(named.or(principal.as_deref()));
        let event = |id| Event::Subscribe {
            call: id,
            principal,
            request: call.into(),
            refused,
        };
        match self.owner.subscribe(media, event).await? {
            Subscribed::Refused(reply) => Ok(answer(reply)),
            Subscribed::Open { body, stream_id } => {
                if let Some(limited) = limited {
                    self.lanes.limit(&stream_id.to_string(), limited);
                }
                let response = Response::stream(media.content_type(), body);
                Ok(response.header(HeaderName::from_static(STREAM_ID), &stream_id.to_string()))
            }
        }
    }

    /// Any other call, through the lane of its stream.
    async fn in_order(
        &self,
        call: scheduler::Call,
        subject: Option<Subject>,
        stream_id: String,
    ) -> Result<Response, Refusal> {
        if call.r#type() == Type::UpdateFramework
            && let Some(update) = &call.update_framework
        {
            // Its roles may be others than those that it has subscribed with.
            let info = &update.framework_info;
            let refused =
                authorize::registration(&*self.authorizer, subject.as_ref(), info).await?;
            if let Some(text) = refused {
                return Err(Refusal::new(StatusCode::FORBIDDEN, text));
            }
        }
        let limited = self.lanes.limited(&stream_id);
        let turn = match &limited {
            Some(limited) => Some(self.limits.turn(limited).await?),
            None => None,
        };
        let (reply, replied) = oneshot::channel();
        let call = LaneCall {
            subject,
            stream_id,
            call,
            reply,
        };
        self.lanes.pass(call)?;
        drop(turn);
        Ok(answer(replied.await.map_err(|_| Unavailable::Stopped)?))
    }
}
