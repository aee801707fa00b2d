//! The outbox: does what the state wants done, in the state's order.
//!
//! It encodes events once for each stream that gets them, hands frames to links, and passes work on
//! to allocator and registry. It never waits for any of them: streams and links cut off who is too
//! far behind, the other queues hold no more than the state has open.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use tepui_http::shared::{Counter, Metrics, Sample};
use tepui_http::{Media, StreamError, StreamSender, stream};
use tepui_link::SessionSender;
use tepui_model::allocation::Fact;
use tepui_model::authorization::ClassKey;
use tepui_model::id::{FrameworkId, Uuid};
use tepui_proto::v1::{master, scheduler};
use tepui_proto::{Message as _, json, link, recordio};
use tepui_state_master::{CallId, Effect, Event, Offers, Reply, SessionKey, StreamKey};
use tepui_view::View;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::allocation;
use crate::lanes::Lanes;
use crate::owner::{OperatorStream, Owner, Subscribed, Waiter};
use crate::store::Batch;

/// Events that an operator's stream may have waiting before it is cut off.
const OPERATOR_QUEUE: usize = 64 * 1024;

/// Facts that wait for a round of allocation before they are told without one.
const FACTS: usize = 4096;

/// Counts streams whose readers were too far behind.
pub(crate) const CUT_OFF: &str = "master/event_streams_cut_off";

/// One thing to do.
pub(crate) enum Todo {
    Effects(Vec<Effect>),
    Waiter(CallId, Waiter),
    Session(SessionKey, SessionSender),
    SessionClosed(SessionKey),
    StreamClosed(StreamKey),
    Operator {
        view: Arc<View>,
        /// Operators that ever subscribed, this one included.
        watchers: u64,
        waiter: oneshot::Sender<OperatorStream>,
    },
}

/// An event for operators, encoded at most once in each form.
pub(crate) struct OperatorEvent {
    pub(crate) class: Option<ClassKey>,
    pub(crate) event: master::Event,
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

impl OperatorEvent {
    pub(crate) fn new(class: Option<ClassKey>, event: master::Event) -> OperatorEvent {
        OperatorEvent {
            class,
            event,
            json: OnceLock::new(),
            protobuf: OnceLock::new(),
        }
    }

    /// The event as a record.
    pub(crate) fn record(&self, media: Media) -> Bytes {
        let (cell, encode): (_, fn(&master::Event) -> Vec<u8>) = match media {
            Media::Json => (&self.json, json::from_message),
            Media::Protobuf => (&self.protobuf, |event| event.encode_to_vec()),
        };
        cell.get_or_init(|| recordio::encode(&encode(&self.event)))
            .clone()
    }
}

/// Where the outbox puts things.
pub(crate) struct Outbox {
    owner: Owner,
    runtime: Handle,
    lanes: Arc<Lanes>,
    allocator: crossbeam_channel::Sender<allocation::Work>,
    /// Not told to the allocator yet.
    facts: Vec<Fact>,
    store: mpsc::Sender<Batch>,
    stepped_down: StepDown,
    stream_limit: usize,
    operator_limit: usize,
    waiters: HashMap<CallId, Waiter>,
    streams: HashMap<StreamKey, Stream>,
    sessions: HashMap<SessionKey, SessionSender>,
    operators: Vec<mpsc::Sender<Arc<OperatorEvent>>>,
    /// Operators that ever subscribed.
    watchers: u64,
    cut_off: Counter,
    /// One more than there are open streams of operators, and one for the metric.
    open: Arc<()>,
}

struct Stream {
    media: Media,
    sender: StreamSender,
    stream_id: String,
}

/// The end of this leader, with its reason.
#[derive(Clone, Default)]
pub(crate) struct StepDown {
    reason: Arc<OnceLock<String>>,
    token: CancellationToken,
}

impl StepDown {
    /// Ends the leader; the first reason stays.
    pub(crate) fn step_down(&self, reason: String) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Waits for the end.
    pub(crate) async fn wait(&self) -> String {
        self.token.cancelled().await;
        self.reason.get().cloned().unwrap_or_default()
    }
}

/// The queues that an outbox fills.
pub(crate) struct Queues {
    pub(crate) allocator: crossbeam_channel::Sender<allocation::Work>,
    pub(crate) store: mpsc::Sender<Batch>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) stepped_down: StepDown,
}

/// Bounds of what is sent to readers.
pub(crate) struct Limits {
    /// Bytes that a scheduler may be behind.
    pub(crate) stream: usize,
    /// Operators' streams at once.
    pub(crate) operators: usize,
}

impl Outbox {
    pub(crate) fn new(owner: Owner, queues: Queues, limits: Limits, metrics: &Metrics) -> Outbox {
        Outbox {
            owner,
            runtime: Handle::current(),
            lanes: queues.lanes,
            allocator: queues.allocator,
            facts: Vec::new(),
            store: queues.store,
            stepped_down: queues.stepped_down,
            stream_limit: limits.stream,
            operator_limit: limits.operators,
            waiters: HashMap::new(),
            streams: HashMap::new(),
            sessions: HashMap::new(),
            operators: Vec::new(),
            watchers: 0,
            cut_off: metrics.counter(CUT_OFF),
            open: count_operators(metrics),
        }
    }

    /// Ends the leader.
    pub(crate) fn step_down(&self, reason: String) {
        self.stepped_down.step_down(reason);
    }

    pub(crate) fn perform(&mut self, todo: Todo) {
        match todo {
            Todo::Effects(effects) => effects.into_iter().for_each(|effect| self.effect(effect)),
            Todo::Waiter(call, waiter) => {
                self.waiters.insert(call, waiter);
            }
            Todo::Session(session, sender) => {
                self.sessions.insert(session, sender);
            }
            Todo::SessionClosed(session) => {
                self.sessions.remove(&session);
            }
            Todo::StreamClosed(stream) => self.close_stream(stream),
            Todo::Operator {
                view,
                watchers,
                waiter,
            } => {
                self.watchers = watchers;
                self.open_operator(view, waiter);
            }
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Reply { call, reply } => self.reply(call, reply),
            Effect::OpenStream {
                call,
                stream,
                stream_id,
                framework,
            } => {
                self.open_stream(call, stream, stream_id, framework);
            }
            Effect::ToScheduler { stream, event } => self.scheduler_event(stream, &event),
            Effect::Offers { stream, offers } => self.offers(stream, &offers),
            Effect::CloseStream { stream } => self.close_stream(stream),
            Effect::ToAgent { session, frame } => self.agent_frame(session, frame.0),
            Effect::CloseAgent { session } => {
                if let Some(sender) = self.sessions.remove(&session) {
                    sender.close("closed by the master");
                }
            }
            Effect::Facts(facts) => self.facts(facts),
            Effect::Allocate { number, round } => {
                let asked = allocation::Asked {
                    number,
                    round,
                    at: Instant::now(),
                };
                self.tell_allocator(Some(asked));
            }
            Effect::Store { id, puts, deletes } => {
                let batch = Batch { id, puts, deletes };
                if self.store.try_send(batch).is_err() {
                    let reason = "the registry is too far behind".to_owned();
                    self.stepped_down.step_down(reason);
                }
            }
            Effect::ToOperators { class, event } => self.operator_event(class, event.0),
            Effect::StepDown { reason } => self.stepped_down.step_down(reason),
        }
    }

    /// Keeps facts for the next round: without one the allocator has no use for them.
    fn facts(&mut self, facts: Vec<Fact>) {
        if let Some(Fact::Reset) = facts.first() {
            // What was told before is void.
            self.facts.clear();
        }
        self.facts.extend(facts);
        if self.facts.len() >= FACTS {
            self.tell_allocator(None);
        }
    }

    fn tell_allocator(&mut self, asked: Option<allocation::Asked>) {
        let facts = std::mem::take(&mut self.facts);
        // Its thread ends only after the owner.
        let _ = self.allocator.send(allocation::Work { facts, asked });
    }

    /// Answers a call; nobody may wait for it any more.
    fn reply(&mut self, call: CallId, reply: Reply) {
        match self.waiters.remove(&call) {
            Some(Waiter::Reply(waiter)) => {
                let _ = waiter.send(reply);
            }
            Some(Waiter::Stream(_, waiter)) => {
                let _ = waiter.send(Subscribed::Refused(reply));
            }
            None => tracing::error!(?call, "answer to a call that is not open"),
        }
    }

    fn open_stream(
        &mut self,
        call: CallId,
        key: StreamKey,
        stream_id: Uuid,
        framework: Option<FrameworkId>,
    ) {
        let Some(Waiter::Stream(media, waiter)) = self.waiters.remove(&call) else {
            return tracing::error!(?call, "stream for a call that is not open");
        };
        let (sender, body) = stream::bounded(self.stream_limit);
        let text = stream_id.to_string();
        if let Some(framework) = framework {
            self.lanes.open(text.clone(), framework);
        }
        // Also when the client is gone already: dropping the body tells the watcher.
        let gone = sender.gone();
        let owner = self.owner.clone();
        self.runtime.spawn(async move {
            gone.cancelled().await;
            owner.event(Event::StreamClosed { stream: key }).await;
        });
        self.streams.insert(
            key,
            Stream {
                media,
                sender,
                stream_id: text,
            },
        );
        let _ = waiter.send(Subscribed::Open { body, stream_id });
    }

    fn scheduler_event(&mut self, key: StreamKey, event: &scheduler::Event) {
        self.send(key, |media| match media {
            Media::Json => recordio::encode(&json::from_message(event)),
            Media::Protobuf => recordio::encode_message(event),
        });
    }

    fn offers(&self, key: StreamKey, offers: &Offers) {
        self.send(key, |media| match media {
            Media::Json => recordio::encode(&json::from_message(&offers.event())),
            Media::Protobuf => recordio::encode(&offers.event_bytes()),
        });
    }

    fn send(&self, key: StreamKey, record: impl FnOnce(Media) -> Bytes) {
        let Some(stream) = self.streams.get(&key) else {
            return;
        };
        let record = record(stream.media);
        if stream.sender.send(record) == Err(StreamError::Slow) {
            tracing::warn!(stream = %stream.stream_id, "scheduler does not read its events; it is cut off");
            self.cut_off.increment();
        }
    }

    fn close_stream(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.remove(&key) {
            self.lanes.close(&stream.stream_id);
        }
    }

    fn agent_frame(&mut self, session: SessionKey, frame: link::LinkFrame) {
        // A frame that does not fit closes the session, which its end reports.
        if let Some(sender) = self.sessions.get(&session)
            && let Err(error) = sender.send_frame(frame)
        {
            tracing::debug!(session = session.0, %error, "frame for an agent is not sent");
        }
    }

    fn open_operator(&mut self, view: Arc<View>, waiter: oneshot::Sender<OperatorStream>) {
        self.operators.retain(|operator| !operator.is_closed());
        if self.operators.len() >= self.operator_limit {
            // The oldest goes, as in Mesos.
            self.operators.remove(0);
        }
        let (sender, events) = mpsc::channel(OPERATOR_QUEUE);
        let open = Arc::clone(&self.open);
        if waiter.send(OperatorStream { view, events, open }).is_ok() {
            self.operators.push(sender);
        }
    }

    fn operator_event(&mut self, class: Option<ClassKey>, event: master::Event) {
        if self.operators.is_empty() {
            // No more of them; this is said again if it is lost.
            let watchers = self.watchers;
            return self.owner.try_event(Event::Unwatched { watchers });
        }
        let event = Arc::new(OperatorEvent::new(class, event));
        let cut_off = &self.cut_off;
        self.operators
            .retain(|operator| match operator.try_send(Arc::clone(&event)) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    cut_off.increment();
                    false
                }
            });
    }
}

/// What each open stream holds a part of; the parts are counted when metrics are read.
fn count_operators(metrics: &Metrics) -> Arc<()> {
    let open = Arc::new(());
    let counted = Arc::clone(&open);
    metrics.source(move || {
        let streams = Arc::strong_count(&counted).saturating_sub(2);
        let name = "master/operator_event_stream_subscribers";
        async move { vec![Sample::gauge(name, streams as f64)] }
    });
    open
}
