//! SUBSCRIBE of the operator API: everything at one moment, then every event after it, once.

use std::sync::Arc;
use std::time::Duration;

use tepui_http::stream::StreamSender;
use tepui_http::{Media, Response, stream};
use tepui_model::authorization::{ClassKey, Subject};
use tepui_proto::v1::master::{self, event, response};
use tepui_proto::{Message as _, recordio};
use tepui_view::View;
use tepui_view::encode::{Allowed, Visibility, state_message};
use tokio::time::{Instant, interval_at};

use crate::authorize::Authorizer;
use crate::operator::{form, pieces};
use crate::outbox::OperatorEvent;
use crate::owner::{OperatorStream, Owner};
use crate::refusal::Refusal;
use crate::visibility;

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Opens the stream and serves it on a task of its own.
pub(crate) async fn subscribe(
    owner: &Owner,
    authorizer: &Arc<dyn Authorizer>,
    subject: Option<Subject>,
    media: Media,
) -> Result<Response, Refusal> {
    let OperatorStream { view, events } = owner.operator_stream().await?;
    let see = visibility::of(&**authorizer, subject.as_ref(), &view).await;
    let (sender, body) = stream::stream();
    let subscriber = Subscriber {
        owner: owner.clone(),
        authorizer: Arc::clone(authorizer),
        subject,
        media,
        known_classes: view.classes.list.len(),
        see,
    };
    tokio::spawn(subscriber.run(view, events, sender));
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
        view: Arc<View>,
        mut events: tokio::sync::mpsc::Receiver<Arc<OperatorEvent>>,
        sender: StreamSender,
    ) {
        let (see, media) = (self.see.clone(), self.media);
        let first = pieces(move |sink| sink(subscribed(&view, &see, media).into()))
            .await
            .concat();
        if sender.send(recordio::encode(&first)).is_err() {
            return;
        }
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
                () = gone.cancelled() => return,
                _ = beat.tick() => heartbeat.record(self.media),
                event = events.recv() => match event {
                    // Cut off by the outbox, or the master ends.
                    None => return,
                    Some(event) if self.sees(event.class).await => event.record(self.media),
                    Some(_) => continue,
                },
            };
            if sender.send(record).is_err() {
                return;
            }
        }
    }

    /// Whether the subscriber may see objects of a class; classes made later are decided then.
    async fn sees(&mut self, class: Option<ClassKey>) -> bool {
        let Some(class) = class else { return true };
        if matches!(self.see.frameworks, Allowed::All) && matches!(self.see.tasks, Allowed::All) {
            return true;
        }
        if class.0 as usize >= self.known_classes {
            let Ok(view) = self.owner.view().await else {
                return false;
            };
            self.see = visibility::of(&*self.authorizer, self.subject.as_ref(), &view).await;
            self.known_classes = view.classes.list.len();
        }
        let allowed = |these: &Allowed<ClassKey>| match these {
            Allowed::All => true,
            Allowed::Only(these) => these.contains(&class),
        };
        allowed(&self.see.frameworks) && allowed(&self.see.tasks)
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
