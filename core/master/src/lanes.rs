//! One lane for each subscribed framework: its calls reach the owner in the order in which they came.
//!
//! A lane authorizes a call before it hands it on, so that a slow answer about an ACCEPT cannot let
//! its KILL overtake it. Lanes are named by stream id, which only the framework knows; calls with no
//! or another stream id are refused by the state and need no order. A full lane refuses calls; an
//! empty one is passed by calls that need no authorization, which saves them a wait for its task.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tepui_model::authorization::Subject;
use tepui_model::id::FrameworkId;
use tepui_proto::Message as _;
use tepui_proto::v1::{self, scheduler};
use tepui_state_master::{CallId, Event, Reply};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::authorize::{self, Authorizer};
use crate::limits::Limited;
use crate::owner::{Owner, Unavailable, Waiter};

/// A valid scheduler call with its sender.
pub(crate) struct LaneCall {
    pub(crate) subject: Option<Subject>,
    pub(crate) stream_id: String,
    pub(crate) call: scheduler::Call,
    pub(crate) reply: oneshot::Sender<Reply>,
}

impl LaneCall {
    /// What the owner gets: the event and who waits for its reply.
    fn event(
        self,
        refused: Vec<tepui_state_master::Refused>,
    ) -> (impl FnOnce(CallId) -> Event, oneshot::Sender<Reply>) {
        let Self {
            subject,
            stream_id,
            call,
            reply,
        } = self;
        let principal = subject.and_then(|subject| subject.principal);
        let event = |id| Event::SchedulerCall {
            call: id,
            principal,
            stream_id,
            request: call.into(),
            refused,
        };
        (event, reply)
    }
}

/// The way into a lane.
#[derive(Clone)]
struct Entry {
    calls: mpsc::Sender<LaneCall>,
    /// Calls that have entered and did not reach the owner yet.
    inside: Arc<AtomicUsize>,
    /// What its calls share with others of the principal.
    limited: Option<Limited>,
}

/// The lanes of all subscribed frameworks.
pub(crate) struct Lanes {
    open: Mutex<HashMap<String, Entry>>,
    owner: Owner,
    authorizer: Arc<dyn Authorizer>,
    limit: usize,
    runtime: Handle,
}

impl Lanes {
    pub(crate) fn new(owner: Owner, authorizer: Arc<dyn Authorizer>, limit: usize) -> Arc<Lanes> {
        Arc::new(Lanes {
            open: Mutex::default(),
            owner,
            authorizer,
            limit,
            runtime: Handle::current(),
        })
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.open.lock().expect("no panic happens under this lock")
    }

    /// Opens the lane of a stream.
    pub(crate) fn open(&self, stream_id: String, framework: FrameworkId) {
        let (sender, calls) = mpsc::channel(self.limit);
        let inside = Arc::new(AtomicUsize::new(0));
        let lane = Lane {
            owner: self.owner.clone(),
            authorizer: Arc::clone(&self.authorizer),
            framework,
            info: None,
            inside: Arc::clone(&inside),
        };
        self.runtime.spawn(lane.run(calls));
        let entry = Entry {
            calls: sender,
            inside,
            limited: None,
        };
        self.table().insert(stream_id, entry);
    }

    /// Limits the calls of a stream that has just been opened.
    pub(crate) fn limit(&self, stream_id: &str, limited: Limited) {
        // It may have been closed meanwhile.
        if let Some(entry) = self.table().get_mut(stream_id) {
            entry.limited = Some(limited);
        }
    }

    /// The limit of a stream's calls.
    pub(crate) fn limited(&self, stream_id: &str) -> Option<Limited> {
        self.table().get(stream_id)?.limited.clone()
    }

    /// Closes a lane; what is in it still reaches the owner.
    pub(crate) fn close(&self, stream_id: &str) {
        self.table().remove(stream_id);
    }

    /// Passes a call on to the owner, after those of its stream that came before it.
    pub(crate) fn pass(&self, call: LaneCall) -> Result<(), Unavailable> {
        let entry = self.table().get(&call.stream_id).cloned();
        let call = match entry {
            // No subscription of that name: the state says what is wrong with the call.
            None => call,
            // Calls that wait for nothing before them and need no answer of the authorizer.
            Some(lane)
                if call.call.accept.is_none() && lane.inside.load(Ordering::Acquire) == 0 =>
            {
                call
            }
            Some(lane) => {
                lane.inside.fetch_add(1, Ordering::AcqRel);
                match lane.calls.try_send(call) {
                    Ok(()) => return Ok(()),
                    Err(mpsc::error::TrySendError::Full(_)) => {
                        lane.inside.fetch_sub(1, Ordering::AcqRel);
                        return Err(Unavailable::Busy);
                    }
                    Err(mpsc::error::TrySendError::Closed(call)) => call,
                }
            }
        };
        let (event, reply) = call.event(Vec::new());
        self.owner.try_call(event, Waiter::Reply(reply))
    }
}

struct Lane {
    owner: Owner,
    authorizer: Arc<dyn Authorizer>,
    framework: FrameworkId,
    /// Read from a view when the first launch comes. What authorization needs of it (principal and
    /// user) never changes while the framework lives.
    info: Option<v1::FrameworkInfo>,
    inside: Arc<AtomicUsize>,
}

impl Lane {
    async fn run(mut self, mut calls: mpsc::Receiver<LaneCall>) {
        while let Some(call) = calls.recv().await {
            let refused = match &call.call.accept {
                Some(accept) => self.refused(call.subject.as_ref(), accept).await,
                None => Vec::new(),
            };
            let (event, reply) = call.event(refused);
            self.owner.ordered_call(event, reply).await;
            self.inside.fetch_sub(1, Ordering::AcqRel);
        }
    }

    async fn refused(
        &mut self,
        subject: Option<&Subject>,
        accept: &scheduler::call::Accept,
    ) -> Vec<tepui_state_master::Refused> {
        if self.info.is_none() {
            self.info = self.framework_info().await;
        }
        match &self.info {
            Some(info) => {
                let authorizer = &*self.authorizer;
                let mut refused = authorize::launches(authorizer, subject, info, accept).await;
                refused.extend(authorize::operations(authorizer, subject, accept).await);
                refused
            }
            // Gone: the state refuses the call.
            None => Vec::new(),
        }
    }

    async fn framework_info(&self) -> Option<v1::FrameworkInfo> {
        let view = self.owner.view().await.ok()?;
        let framework = view
            .frameworks
            .iter()
            .find(|framework| framework.row.id == self.framework)?;
        v1::FrameworkInfo::decode(framework.row.info.clone()).ok()
    }
}
