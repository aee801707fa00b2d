//! SUBSCRIBE of the operator API: everything at one moment, then every event after it, once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tepui_http::stream::StreamSender;
use tepui_http::{Media, Response, StreamError, stream};
use tepui_model::authorization::{ClassKey, Subject};
use tepui_proto::v1;
use tepui_proto::v1::master::response::get_agents;
use tepui_proto::v1::master::{self, event, response};
use tepui_proto::{Message as _, recordio};
use tepui_view::View;
use tepui_view::encode::{Allowed, Visibility, state_message};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at};

use crate::authorize::Authorizer;
use crate::operator::{OperatorApi, form};
use crate::outbox::{CUT_OFF, OperatorEvent};
use crate::owner::{OperatorStream, Owner};
use crate::refusal::Refusal;
use crate::visibility;

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Opens the stream and serves it on a task of its own.
pub(crate) async fn subscribe(
    api: &OperatorApi,
    subject: Option<Subject>,
    media: Media,
) -> Result<Response, Refusal> {
    let OperatorStream { view, events, open } = api.owner.operator_stream().await?;
    let see = visibility::of(&*api.authorizer, subject.as_ref(), &view).await;
    let known_classes = view.classes.list.len();
    let seen = see.clone();
    let write = move || subscribed(&view, &seen, media);
    let first = tokio::task::spawn_blocking(write)
        .await
        .expect("encoders do not panic");
    // Reading the state of a large cluster does not count as being behind.
    let (sender, body) = stream::bounded(api.stream_limit + first.len());
    let subscriber = Subscriber {
        owner: api.owner.clone(),
        authorizer: Arc::clone(&api.authorizer),
        subject,
        media,
        known_classes,
        see,
    };
    let cut_off = api.shared.metrics.counter(CUT_OFF);
    tokio::spawn(async move {
        if subscriber.run(first, events, sender).await == Err(StreamError::Slow) {
            tracing::warn!("an operator does not read its events; it is cut off");
            cut_off.increment();
        }
        drop(open);
    });
    Ok(Response::stream(media.content_type(), body))
}

struct Subscriber {
    owner: Owner,
    authorizer: Arc<dyn Authorizer>,
    subject: Option<Subject>,
    media: Media,
    see: Visibility,
    /// Classes that `see` was decided for.
    known_classes: usize,
}

impl Subscriber {
    async fn run(
        mut self,
        first: Vec<u8>,
        mut events: mpsc::Receiver<Arc<OperatorEvent>>,
        sender: StreamSender,
    ) -> Result<(), StreamError> {
        sender.send(recordio::encode(&first))?;
        let heartbeat = master::Event {
            r#type: Some(event::Type::Heartbeat.into()),
            ..Default::default()
        };
        let heartbeat = OperatorEvent::new(None, heartbeat);
        let mut beat = interval_at(Instant::now(), HEARTBEAT);
        let gone = sender.gone();
        loop {
            let record = tokio::select! {
                biased;
                () = gone.cancelled() => return Ok(()),
                _ = beat.tick() => Some(heartbeat.record(self.media)),
                event = events.recv() => match event {
                    // Cut off by the outbox, or the master ends.
                    None => return Ok(()),
                    Some(event) => self.record(&event).await,
                },
            };
            if let Some(record) = record {
                sender.send(record)?;
            }
        }
    }

    /// The event as far as the subscriber may see it.
    async fn record(&mut self, event: &OperatorEvent) -> Option<Bytes> {
        if let Some(class) = event.class {
            let is_task = event.event.task_added.is_some() || event.event.task_updated.is_some();
            return self
                .sees(class, is_task)
                .await
                .then(|| event.record(self.media));
        }
        let agent = match &event.event.agent_added {
            Some(added) if !matches!(self.see.roles, Allowed::All) => &added.agent,
            _ => return Some(event.record(self.media)),
        };
        // Its reservations may be for roles that were not there before.
        self.look_again().await?;
        let mut shown = event.event.clone();
        shown.agent_added = Some(event::AgentAdded {
            agent: self.visible_part(agent.clone()),
        });
        Some(OperatorEvent::new(None, shown).record(self.media))
    }

    /// Whether the subscriber may see objects of a class; classes made later are decided then.
    async fn sees(&mut self, class: ClassKey, is_task: bool) -> bool {
        let decided =
            |see: &Visibility| see.frameworks.has(&class) && (!is_task || see.tasks.has(&class));
        let all =
            matches!(self.see.frameworks, Allowed::All) && matches!(self.see.tasks, Allowed::All);
        if !all && class.0 as usize >= self.known_classes && self.look_again().await.is_none() {
            return false;
        }
        decided(&self.see)
    }

    /// Decides anew, for what is there now.
    async fn look_again(&mut self) -> Option<()> {
        let view = self.owner.view().await.ok()?;
        self.see = visibility::of(&*self.authorizer, self.subject.as_ref(), &view).await;
        self.known_classes = view.classes.list.len();
        Some(())
    }

    /// An agent without what is reserved or allocated to roles that are not to be seen.
    fn visible_part(&self, mut agent: get_agents::Agent) -> get_agents::Agent {
        let visible = |resource: &v1::Resource| {
            let reserved = resource
                .reservations
                .iter()
                .map(|reservation| &reservation.role);
            let allocated = resource.allocation_info.iter().map(|info| &info.role);
            let mut roles = reserved.chain(allocated).flatten();
            roles.all(|role| self.see.roles.has(role.as_str()))
        };
        agent.total_resources.retain(visible);
        agent.allocated_resources.retain(visible);
        agent.offered_resources.retain(visible);
        agent
    }
}

/// The first event, in the order of Mesos' JSON.
fn subscribed(view: &View, see: &Visibility, media: Media) -> Vec<u8> {
    let state = state_message(view, see, form(media));
    match media {
        Media::Json => {
            let head = br#"{"type":"SUBSCRIBED","subscribed":{"get_state":"#;
            let tail = format!(
                r#","heartbeat_interval_seconds":{:?}}}}}"#,
                HEARTBEAT.as_secs_f64()
            );
            [head, &*state, tail.as_bytes()].concat()
        }
        Media::Protobuf => {
            let subscribed = event::Subscribed {
                get_state: response::GetState::decode(&*state).ok(),
                heartbeat_interval_seconds: Some(HEARTBEAT.as_secs_f64()),
            };
            let event = master::Event {
                r#type: Some(event::Type::Subscribed.into()),
                subscribed: Some(subscribed),
                ..Default::default()
            };
            event.encode_to_vec()
        }
    }
}
