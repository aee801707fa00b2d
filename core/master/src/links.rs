//! Agents: the upgrade request, and what their sessions tell as events for the state.

use std::sync::Arc;

use tepui_http::{Request, Response};
use tepui_link::{MasterEnd, MasterEvent, Peer, SessionEvent, Synced, UPGRADE};
use tepui_model::authorization::{Action, Subject};
use tepui_proto::convert;
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{Hello, Refuse, Sync, Updates, refuse};
use tepui_state_master::{Event, SessionKey};
use tokio::sync::mpsc;

use crate::authorize::{Authorizer, Object};
use crate::master::Site;
use crate::operation::reservations;
use crate::owner::Owner;

/// Answers `GET /tepui/v1/agent`: switches to the link and serves it on a task of its own.
pub(crate) fn upgrade(mut request: Request, end: Arc<MasterEnd>, site: &Site) -> Response {
    let Some(upgrade) = request
        .take_upgrade()
        .filter(|upgrade| upgrade.protocol() == UPGRADE)
    else {
        return Response::bad_request(format!("Expecting an upgrade to '{UPGRADE}'"));
    };
    let peer = Peer {
        address: request.peer.to_string(),
        principal: request.subject.and_then(|subject| subject.principal),
    };
    let (response, upgraded) = upgrade.accept();
    site.spawn(async move {
        match upgraded.await {
            Ok(stream) => end.serve(stream, peer).await,
            Err(error) => tracing::debug!(peer = %peer.address, %error, "agent connection lost"),
        }
    });
    response
}

/// Turns the events of all sessions into events of the state. One session's stay in order.
pub(crate) async fn run(
    mut sessions: mpsc::Receiver<SessionEvent>,
    owner: Owner,
    authorizer: Arc<dyn Authorizer>,
) {
    while let Some(SessionEvent { session, event }) = sessions.recv().await {
        let session = SessionKey(session.0);
        let event = match event {
            MasterEvent::Hello {
                hello,
                sender,
                peer,
                ..
            } => {
                let subject = peer.principal.clone().map(Subject::principal);
                if let Err(reason) = may_register(&*authorizer, subject.as_ref(), &hello).await {
                    tracing::warn!(peer = %peer.address, reason, "agent refused");
                    let refusal = Refuse {
                        code: refuse::Code::Denied.into(),
                        reason,
                        retry_ms: 0,
                    };
                    // The session may have ended meanwhile.
                    let _ = sender.send(Body::Refuse(refusal));
                    continue;
                }
                let event = Event::AgentHello {
                    session,
                    principal: peer.principal,
                    hello: (*hello).into(),
                };
                owner.hello(event, session, sender).await;
                continue;
            }
            MasterEvent::Synced(synced) => synced_event(session, *synced),
            MasterEvent::Updates(updates) => Event::AgentUpdates {
                session,
                updates: Updates { updates }.into(),
            },
            MasterEvent::OperationUpdate(update) => Event::AgentOperationUpdate {
                session,
                update: (*update).into(),
            },
            MasterEvent::ExecutorEnded(ended) => Event::AgentExecutorEnded {
                session,
                ended: ended.into(),
            },
            MasterEvent::Resources(resources) => Event::AgentResources {
                session,
                resources: (*resources).into(),
            },
            MasterEvent::ExecutorMessage(message) => Event::AgentExecutorMessage {
                session,
                message: message.into(),
            },
            MasterEvent::Unregister => Event::AgentUnregister { session },
            MasterEvent::Silent => Event::AgentSilent { session },
            // What the state did about the silence stays done.
            MasterEvent::Heard => continue,
            MasterEvent::Closed(reason) => {
                tracing::info!(session = session.0, %reason, "agent session ended");
                Event::AgentClosed { session }
            }
        };
        owner.event(event).await;
    }
}

/// Whether the agent may register, and be reserved for the roles that it is reserved for.
async fn may_register(
    authorizer: &dyn Authorizer,
    subject: Option<&Subject>,
    hello: &Hello,
) -> Result<(), String> {
    let approver = authorizer.approver(subject, Action::RegisterAgent).await;
    if !approver.surely(&Object::default()).await {
        return Err("not authorized to register as an agent".to_owned());
    }
    let info = hello.info.as_ref();
    // What cannot be read is refused when the agent tells what it has.
    let resources = info.and_then(|info| convert::resources(&info.resources).ok());
    for (action, object) in reservations(&resources.unwrap_or_default()) {
        let approver = authorizer.approver(subject, action).await;
        if !approver.surely(&object).await {
            let role = object.value.unwrap_or_default();
            return Err(format!(
                "not authorized to register with resources reserved for the role '{role}'"
            ));
        }
    }
    Ok(())
}

fn synced_event(session: SessionKey, synced: Synced) -> Event {
    let Synced {
        frameworks,
        executors,
        tasks,
        total,
        operations,
        resource_version,
    } = synced;
    let sync = Sync {
        frameworks,
        executors,
        tasks,
        total,
        operations,
    };
    Event::AgentSynced {
        session,
        sync: sync.into(),
        resource_version,
    }
}
