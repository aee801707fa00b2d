//! The owner of the state: one at a time, and whoever brings an event.
//!
//! What comes waits in one queue. Who puts something in and finds the state free takes all that waits, in
//! batches of at most [`BATCH`], applies it and performs the effects; who finds it taken goes on, since
//! its holder looks again before it leaves. So a call costs no switch of threads, and the state sees one
//! event after the other all the same. A thread of its own takes over from helpers that have helped long
//! enough, and does what time asks for.
//!
//! Under the lock nothing waits, and no module is called.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::{self, Thread};
use std::time::Duration;

use tepui_http::{Media, StreamBody};
use tepui_link::SessionSender;
use tepui_model::id::Uuid;
use tepui_state_master::{CallId, Counted, Effect, Event, MasterState, Reply, SessionKey};
use tepui_view::View;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::clock;
use crate::outbox::{Outbox, Todo};
use crate::readers::{PUBLISH_INTERVAL, Publisher, Readers};

/// Events applied before their effects are performed.
const BATCH: usize = 64;
/// Events that may wait.
const INBOX: usize = 16 * 1024;
/// How long one who brought an event goes on with those of others.
const HELP: Duration = Duration::from_millis(1);

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
    desk: Arc<Desk>,
    next_call: Arc<AtomicU64>,
    readers: Readers,
}

impl Owner {
    /// An event; waits while the inbox is full. Nothing happens once the owner has ended.
    pub(crate) async fn event(&self, event: Event) {
        let _ = self.send(Input::Event(event)).await;
    }

    /// The same from a thread.
    pub(crate) fn blocking_event(&self, event: Event) {
        let _ = self.inbox.blocking_send(Input::Event(event));
        self.desk.help();
    }

    /// An event that may be lost while the inbox is full: for the outbox, which works under the lock.
    pub(crate) fn try_event(&self, event: Event) {
        let _ = self.inbox.try_send(Input::Event(event));
        self.desk.more.store(true, Ordering::SeqCst);
    }

    /// The first event of a session, with the way back.
    pub(crate) async fn hello(&self, event: Event, session: SessionKey, sender: SessionSender) {
        let _ = self.send(Input::Hello(event, session, sender)).await;
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
        let call = Input::Call(event(call), call, Waiter::Reply(waiter));
        let _ = self.send(call).await;
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
        self.send(Input::Publish).await?;
        self.readers.wait(version).await.ok_or(Unavailable::Stopped)
    }

    /// The owner's numbers.
    pub(crate) async fn counted(&self) -> Result<Counted, Unavailable> {
        let (waiter, counted) = oneshot::channel();
        self.send(Input::Counted(waiter)).await?;
        counted.await.map_err(|_| Unavailable::Stopped)
    }

    /// What waits for the owner.
    pub(crate) fn waiting(&self) -> usize {
        self.inbox.max_capacity() - self.inbox.capacity()
    }

    /// Ends the owner after what is in its inbox.
    pub(crate) async fn stop(&self) {
        let _ = self.send(Input::Stop).await;
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
        })?;
        self.desk.help();
        Ok(())
    }

    /// Waits while the inbox is full.
    async fn send(&self, input: Input) -> Result<(), Unavailable> {
        let sent = self.inbox.send(input).await;
        sent.map_err(|_| Unavailable::Stopped)?;
        self.desk.help();
        Ok(())
    }
}

/// A handle before its owner runs: the outbox needs it first.
pub(crate) fn inbox() -> (Owner, Inbox) {
    let (sender, receiver) = mpsc::channel(INBOX);
    let (publisher, readers) = crate::readers::views();
    let desk = Arc::<Desk>::default();
    let owner = Owner {
        inbox: sender,
        desk: Arc::clone(&desk),
        next_call: Arc::default(),
        readers,
    };
    let inbox = Inbox {
        receiver,
        publisher,
        desk,
    };
    (owner, inbox)
}

/// The owner's end.
pub(crate) struct Inbox {
    receiver: mpsc::Receiver<Input>,
    publisher: Publisher,
    desk: Arc<Desk>,
}

impl Inbox {
    /// The next event that was told, for tests of those who tell.
    #[cfg(test)]
    pub(crate) async fn next_event(&mut self) -> Event {
        loop {
            if let Input::Event(event) = self.receiver.recv().await.expect("somebody tells") {
                return event;
            }
        }
    }

    /// Starts the owner. It ends on [`Owner::stop`], and the outbox with it.
    pub(crate) fn run(
        self,
        state: MasterState,
        outbox: Outbox,
    ) -> std::io::Result<thread::JoinHandle<()>> {
        let Inbox {
            receiver,
            publisher,
            desk,
        } = self;
        *desk.lock() = Some(Work {
            receiver,
            publisher,
            state,
            outbox,
            wanted: false,
            published: Instant::now(),
            wake_at: None,
        });
        thread::Builder::new()
            .name("owner".to_owned())
            .spawn(move || desk.run())
    }
}

/// Where the state lies, for one at a time.
#[derive(Default)]
struct Desk {
    /// None before the start and after the end.
    work: Mutex<Option<Work>>,
    /// Something may have come since the holder of the lock looked.
    more: AtomicBool,
    thread: OnceLock<Thread>,
}

/// The state in the hands of one who works on it. A panic ends the leader: the state may be half changed.
struct Hands<'a>(MutexGuard<'a, Option<Work>>, &'a Desk);

impl Drop for Hands<'_> {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(work) = self.0.take()
        {
            work.outbox
                .step_down("the master's state failed, as the log says".to_owned());
            self.1.wake_thread();
        }
    }
}

impl Desk {
    /// What a panic has left is nothing, so that the lock is never poisoned with something in it.
    fn lock(&self) -> MutexGuard<'_, Option<Work>> {
        self.work
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn wake_thread(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Does what waits, unless somebody is about it, who then sees what came.
    fn help(&self) {
        self.more.store(true, Ordering::SeqCst);
        // Either the holder of the lock sees `more` after it let go, or the lock is seen to be free.
        fence(Ordering::SeqCst);
        let mut begun = None;
        while self.more.load(Ordering::SeqCst) {
            let work = match self.work.try_lock() {
                Ok(work) => work,
                Err(TryLockError::WouldBlock) => return,
                Err(TryLockError::Poisoned(ended)) => ended.into_inner(),
            };
            let begun = *begun.get_or_insert_with(Instant::now);
            if self.turn(work, false).is_none() {
                return;
            }
            fence(Ordering::SeqCst);
            if begun.elapsed() > HELP {
                return self.wake_thread();
            }
        }
    }

    /// The owner's thread.
    fn run(&self) {
        // Nobody else sets it.
        let _ = self.thread.set(thread::current());
        loop {
            self.more.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            let work = match self.work.try_lock() {
                Ok(work) => work,
                // Its holder sees to what is due; this thread looks after it.
                Err(TryLockError::WouldBlock) => {
                    thread::park_timeout(HELP);
                    continue;
                }
                Err(TryLockError::Poisoned(_)) => return,
            };
            let Some(deadline) = self.turn(work, true) else {
                return;
            };
            fence(Ordering::SeqCst);
            if self.more.load(Ordering::SeqCst) {
                continue;
            }
            match deadline {
                Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
                None => thread::park(),
            }
        }
    }

    /// One batch; when there is something to do without an event, if ever. None at the end.
    fn turn(&self, work: MutexGuard<'_, Option<Work>>, is_thread: bool) -> Option<Option<Instant>> {
        let mut hands = Hands(work, self);
        let work = hands.0.as_mut()?;
        self.more.swap(false, Ordering::SeqCst);
        let Some(full) = work.batch() else {
            *hands.0 = None;
            self.wake_thread();
            return None;
        };
        if full {
            self.more.store(true, Ordering::SeqCst);
        }
        let deadline = work.deadline();
        if is_thread {
            work.wake_at = deadline;
        } else if deadline.is_some_and(|at| work.wake_at.is_none_or(|until| at < until)) {
            work.wake_at = deadline;
            self.wake_thread();
        }
        Some(deadline)
    }
}

/// What the owner works with.
struct Work {
    receiver: mpsc::Receiver<Input>,
    publisher: Publisher,
    state: MasterState,
    outbox: Outbox,
    /// Somebody waits for a view.
    wanted: bool,
    published: Instant,
    /// Until when the thread sleeps.
    wake_at: Option<Instant>,
}

impl Work {
    /// When to go on without an event.
    fn deadline(&self) -> Option<Instant> {
        let timer = self
            .state
            .next_deadline()
            .map(|at| clock::instant(at, clock::now()));
        let publish = self.wanted.then(|| self.published + PUBLISH_INTERVAL);
        timer.into_iter().chain(publish).min()
    }

    /// Applies a batch and performs its effects; whether more may wait, or none when this is the end.
    fn batch(&mut self) -> Option<bool> {
        let mut todo = Vec::new();
        let mut effects = Vec::new();
        let mut taken = 0;
        while taken < BATCH
            && let Ok(input) = self.receiver.try_recv()
        {
            taken += 1;
            let event = match input {
                Input::Publish => {
                    self.wanted = true;
                    continue;
                }
                Input::Operator(waiter) => {
                    self.apply(Event::Watched, &mut effects, &mut todo);
                    let (view, watchers) = (self.state.view(), self.state.watchers());
                    todo.push(Todo::Operator {
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
                Input::Stop => return None,
                Input::Event(event) => event,
                Input::Call(event, call, waiter) => {
                    todo.push(Todo::Waiter(call, waiter));
                    event
                }
                Input::Hello(event, session, sender) => {
                    todo.push(Todo::Session(session, sender));
                    event
                }
            };
            self.apply(event, &mut effects, &mut todo);
        }
        if self
            .state
            .next_deadline()
            .is_some_and(|at| at <= clock::now().mono)
        {
            self.apply(Event::Tick, &mut effects, &mut todo);
        }
        self.publisher.applied(self.state.version());
        if self.wanted && self.published.elapsed() >= PUBLISH_INTERVAL {
            self.publisher.publish(Arc::new(self.state.view()));
            self.wanted = false;
            self.published = Instant::now();
        }
        for todo in todo {
            self.outbox.perform(todo);
        }
        Some(taken == BATCH)
    }

    fn apply(&mut self, event: Event, effects: &mut Vec<Effect>, todo: &mut Vec<Todo>) {
        let closed = match &event {
            Event::AgentClosed { session } => Some(Todo::SessionClosed(*session)),
            Event::StreamClosed { stream } => Some(Todo::StreamClosed(*stream)),
            _ => None,
        };
        self.state.apply(event, clock::now(), effects);
        if !effects.is_empty() {
            todo.push(Todo::Effects(std::mem::take(effects)));
        }
        todo.extend(closed);
    }
}
