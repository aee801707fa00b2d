//! The owner thread: the only one that touches the state.
//!
//! It takes what has come in batches of at most [`BATCH`], applies it, and gives the effects to the
//! outbox. It never encodes, decodes, or calls a module; it waits for events, for its next deadline,
//! and, when the outbox is far behind, for the outbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tepui_http::{Media, StreamBody};
use tepui_link::SessionSender;
use tepui_model::id::Uuid;
use tepui_state_master::{CallId, Counted, Effect, Event, MasterState, Reply, SessionKey};
use tepui_view::View;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::clock;
use crate::outbox::Work;
use crate::readers::{PUBLISH_INTERVAL, Publisher, Readers};

/// Events applied before their effects are handed on.
const BATCH: usize = 256;
/// Events that may wait.
const INBOX: usize = 16 * 1024;

/// The owner does not take the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// Its inbox is full: come back later.
    Busy,
    /// It has ended.
    Stopped,
}

/// Answer to a SUBSCRIBE.
pub(crate) enum Subscribed {
    /// 200 with this stream.
    Open {
        /// The body.
        body: StreamBody,
        /// Value of `Mesos-Stream-Id`.
        stream_id: Uuid,
    },
    /// No stream.
    Refused(Reply),
}

/// A new operator stream: everything up to now, and every event after it.
pub(crate) struct OperatorStream {
    pub(crate) view: Arc<View>,
    pub(crate) events: mpsc::Receiver<Arc<crate::outbox::OperatorEvent>>,
    /// Held while the stream is open: how many there are is a metric.
    pub(crate) open: Arc<()>,
}

/// Who waits for an answer.
pub(crate) enum Waiter {
    Reply(oneshot::Sender<Reply>),
    Stream(Media, oneshot::Sender<Subscribed>),
}

pub(crate) enum Input {
    Event(Event),
    Call(Event, CallId, Waiter),
    Hello(Event, SessionKey, SessionSender),
    Operator(oneshot::Sender<OperatorStream>),
    Counted(oneshot::Sender<Counted>),
    Publish,
    Stop,
}

/// A handle of the owner.
#[derive(Clone)]
pub(crate) struct Owner {
    inbox: mpsc::Sender<Input>,
    next_call: Arc<AtomicU64>,
    readers: Readers,
}

impl Owner {
    /// An event; waits while the inbox is full. Nothing happens once the owner has ended.
    pub(crate) async fn event(&self, event: Event) {
        let _ = self.inbox.send(Input::Event(event)).await;
    }

    /// The same from a thread.
    pub(crate) fn blocking_event(&self, event: Event) {
        let _ = self.inbox.blocking_send(Input::Event(event));
    }

    /// An event that may be lost while the inbox is full: for the outbox, which must not wait for the owner.
    pub(crate) fn try_event(&self, event: Event) {
        let _ = self.inbox.try_send(Input::Event(event));
    }

    /// The first event of a session, with the way back.
    pub(crate) async fn hello(&self, event: Event, session: SessionKey, sender: SessionSender) {
        let _ = self.inbox.send(Input::Hello(event, session, sender)).await;
    }

    /// A call whose answer is a reply.
    pub(crate) async fn call(
        &self,
        event: impl FnOnce(CallId) -> Event,
    ) -> Result<Reply, Unavailable> {
        let (waiter, reply) = oneshot::channel();
        self.try_call(event, Waiter::Reply(waiter))?;
        reply.await.map_err(|_| Unavailable::Stopped)
    }

    /// A call of a lane: waits while the inbox is full, does not wait for the reply.
    pub(crate) async fn ordered_call(
        &self,
        event: impl FnOnce(CallId) -> Event,
        waiter: oneshot::Sender<Reply>,
    ) {
        let call = self.call_id();
        let _ = self
            .inbox
            .send(Input::Call(event(call), call, Waiter::Reply(waiter)))
            .await;
    }

    /// A SUBSCRIBE of a scheduler.
    pub(crate) async fn subscribe(
        &self,
        media: Media,
        event: impl FnOnce(CallId) -> Event,
    ) -> Result<Subscribed, Unavailable> {
        let (waiter, subscribed) = oneshot::channel();
        self.try_call(event, Waiter::Stream(media, waiter))?;
        subscribed.await.map_err(|_| Unavailable::Stopped)
    }

    /// A SUBSCRIBE of an operator.
    pub(crate) async fn operator_stream(&self) -> Result<OperatorStream, Unavailable> {
        let (waiter, stream) = oneshot::channel();
        self.try_send(Input::Operator(waiter))?;
        stream.await.map_err(|_| Unavailable::Stopped)
    }

    /// A view that contains every event applied until now.
    pub(crate) async fn view(&self) -> Result<Arc<View>, Unavailable> {
        let version = self.readers.applied();
        if let Some(view) = self.readers.newest(version) {
            return Ok(view);
        }
        self.inbox
            .send(Input::Publish)
            .await
            .map_err(|_| Unavailable::Stopped)?;
        self.readers.wait(version).await.ok_or(Unavailable::Stopped)
    }

    /// The owner's numbers.
    pub(crate) async fn counted(&self) -> Result<Counted, Unavailable> {
        let (waiter, counted) = oneshot::channel();
        let asked = self.inbox.send(Input::Counted(waiter)).await;
        asked.map_err(|_| Unavailable::Stopped)?;
        counted.await.map_err(|_| Unavailable::Stopped)
    }

    /// What waits for the owner.
    pub(crate) fn waiting(&self) -> usize {
        self.inbox.max_capacity() - self.inbox.capacity()
    }

    /// Ends the owner after what is in its inbox.
    pub(crate) async fn stop(&self) {
        let _ = self.inbox.send(Input::Stop).await;
    }

    fn call_id(&self) -> CallId {
        CallId(self.next_call.fetch_add(1, Ordering::Relaxed))
    }

    /// A call that is refused when the inbox is full.
    pub(crate) fn try_call(
        &self,
        event: impl FnOnce(CallId) -> Event,
        waiter: Waiter,
    ) -> Result<(), Unavailable> {
        let call = self.call_id();
        self.try_send(Input::Call(event(call), call, waiter))
    }

    fn try_send(&self, input: Input) -> Result<(), Unavailable> {
        self.inbox.try_send(input).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unavailable::Busy,
            mpsc::error::TrySendError::Closed(_) => Unavailable::Stopped,
        })
    }
}

/// A handle before its owner runs: the outbox needs it first.
pub(crate) fn inbox() -> (Owner, Inbox) {
    let (sender, receiver) = mpsc::channel(INBOX);
    let (publisher, readers) = crate::readers::views();
    let owner = Owner {
        inbox: sender,
        next_call: Arc::default(),
        readers,
    };
    (
        owner,
        Inbox {
            receiver,
            publisher,
        },
    )
}

/// The owner's end.
pub(crate) struct Inbox {
    receiver: mpsc::Receiver<Input>,
    publisher: Publisher,
}

impl Inbox {
    /// Starts the owner thread. It ends on [`Owner::stop`], and the outbox with it.
    pub(crate) fn run(
        self,
        state: MasterState,
        outbox: crossbeam_channel::Sender<Vec<Work>>,
    ) -> std::io::Result<thread::JoinHandle<()>> {
        // Of its own: it must outlive the one that the master was started on, however that ends.
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let looping = Loop {
            inbox: self,
            state,
            outbox,
            wanted: false,
            published: Instant::now(),
        };
        thread::Builder::new()
            .name("owner".to_owned())
            .spawn(move || looping.run(&runtime))
    }
}

struct Loop {
    inbox: Inbox,
    state: MasterState,
    outbox: crossbeam_channel::Sender<Vec<Work>>,
    /// Somebody waits for a view.
    wanted: bool,
    published: Instant,
}

impl Loop {
    fn run(mut self, runtime: &Runtime) {
        let mut inputs = Vec::with_capacity(BATCH);
        loop {
            let deadline = self.deadline();
            let receiving = self.inbox.receiver.recv_many(&mut inputs, BATCH);
            let got = runtime.block_on(async {
                match deadline {
                    Some(at) => tokio::time::timeout_at(at, receiving).await.ok(),
                    None => Some(receiving.await),
                }
            });
            if got == Some(0) || !self.batch(&mut inputs) {
                return;
            }
        }
    }

    /// When to wake without an event.
    fn deadline(&self) -> Option<Instant> {
        let timer = self
            .state
            .next_deadline()
            .map(|at| clock::instant(at, clock::now()));
        let publish = self.wanted.then(|| self.published + PUBLISH_INTERVAL);
        timer.into_iter().chain(publish).min()
    }

    /// Applies a batch; false when this is the end.
    fn batch(&mut self, inputs: &mut Vec<Input>) -> bool {
        let mut work = Vec::new();
        let mut effects = Vec::new();
        for input in inputs.drain(..) {
            let event = match input {
                Input::Publish => {
                    self.wanted = true;
                    continue;
                }
                Input::Operator(waiter) => {
                    self.apply(Event::Watched, &mut effects, &mut work);
                    let (view, watchers) = (self.state.view(), self.state.watchers());
                    work.push(Work::Operator {
                        view: Arc::new(view),
                        watchers,
                        waiter,
                    });
                    continue;
                }
                Input::Counted(waiter) => {
                    // Who asked may have gone.
                    let _ = waiter.send(self.state.counted());
                    continue;
                }
                Input::Stop => return false,
                Input::Event(event) => event,
                Input::Call(event, call, waiter) => {
                    work.push(Work::Waiter(call, waiter));
                    event
                }
                Input::Hello(event, session, sender) => {
                    work.push(Work::Session(session, sender));
                    event
                }
            };
            self.apply(event, &mut effects, &mut work);
        }
        if self
            .state
            .next_deadline()
            .is_some_and(|at| at <= clock::now().mono)
        {
            self.apply(Event::Tick, &mut effects, &mut work);
        }
        self.inbox.publisher.applied(self.state.version());
        if self.wanted && self.published.elapsed() >= PUBLISH_INTERVAL {
            self.inbox.publisher.publish(Arc::new(self.state.view()));
            self.wanted = false;
            self.published = Instant::now();
        }
        work.is_empty() || self.outbox.send(work).is_ok()
    }

    fn apply(&mut self, event: Event, effects: &mut Vec<Effect>, work: &mut Vec<Work>) {
        let closed = match &event {
            Event::AgentClosed { session } => Some(Work::SessionClosed(*session)),
            Event::StreamClosed { stream } => Some(Work::StreamClosed(*stream)),
            _ => None,
        };
        self.state.apply(event, clock::now(), effects);
        if !effects.is_empty() {
            work.push(Work::Effects(std::mem::take(effects)));
        }
        work.extend(closed);
    }
}
