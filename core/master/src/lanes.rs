//! One lane for each subscribed framework: its calls reach the owner in the order in which they came.
//!
//! A lane authorizes a call before it hands it on, so that a slow answer about an ACCEPT cannot let
//! its KILL overtake it. Lanes are named by stream id, which only the framework knows; calls with no
//! or another stream id are refused by the state and need no order. A full lane refuses calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tepui_model::authorization::Subject;
use tepui_model::id::FrameworkId;
use tepui_proto::Message as _;
use tepui_proto::v1::{self, scheduler};
use tepui_state_master::{Event, Reply};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::authorize::{self, Authorizer};
use crate::owner::Owner;

/// A valid scheduler call with its sender.
pub(crate) struct LaneCall {
    pub(crate) subject: Option<Subject>,
    pub(crate) stream_id: String,
    pub(crate) call: scheduler::Call,
    pub(crate) reply: oneshot::Sender<Reply>,
}

/// The lanes of all subscribed frameworks.
pub(crate) struct Lanes {
    open: Mutex<HashMap<String, mpsc::Sender<LaneCall>>>,
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

    fn table(&self) -> MutexGuard<'_, HashMap<String, mpsc::Sender<LaneCall>>> {
        self.open.lock().expect("no panic happens under this lock")
    }

    /// Opens the lane of a stream.
    pub(crate) fn open(&self, stream_id: String, framework: FrameworkId) {
        let (sender, calls) = mpsc::channel(self.limit);
        let lane = Lane {
            owner: self.owner.clone(),
            authorizer: Arc::clone(&self.authorizer),
            framework,
            info: None,
        };
        self.runtime.spawn(lane.run(calls));
        self.table().insert(stream_id, sender);
    }

    /// Closes a lane; what is in it still reaches the owner.
    pub(crate) fn close(&self, stream_id: &str) {
        self.table().remove(stream_id);
    }

    /// The lane of a stream.
    pub(crate) fn of(&self, stream_id: &str) -> Option<mpsc::Sender<LaneCall>> {
        self.table().get(stream_id).cloned()
    }
}

struct Lane {
    owner: Owner,
    authorizer: Arc<dyn Authorizer>,
    framework: FrameworkId,
    /// Read from a view when the first launch comes. What authorization needs of it (principal and
    /// user) never changes while the framework lives.
    info: Option<v1::FrameworkInfo>,
}

impl Lane {
    async fn run(mut self, mut calls: mpsc::Receiver<LaneCall>) {
        while let Some(LaneCall {
            subject,
            stream_id,
            call,
            reply,
        }) = calls.recv().await
        {
            let refused = match &call.accept {
                Some(accept) => self.refused(subject.as_ref(), accept).await,
                None => Vec::new(),
            };
            let principal = subject.and_then(|subject| subject.principal);
            let event = |id| Event::SchedulerCall {
                call: id,
                principal,
                stream_id,
                request: call.into(),
                refused,
            };
            self.owner.ordered_call(event, reply).await;
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
            Some(info) => authorize::launches(&*self.authorizer, subject, info, accept).await,
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
