//! Client of an authorizer: each distinct key is asked once and remembered.
//!
//! An approver answers always, never, or by a key: the string that ACLs look at, the framework, or the
//! whole object. Answers live as long as the approver, or until the module says that its policy changed;
//! then, and after a new instance, the approver is asked for again. Whatever fails is an error: the
//! caller denies, or answers 500. Nothing is ever allowed because a module is away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use tepui_model::authorization::{Action, Subject};
use tepui_module_proto::authorizer::{
    ApproversReply, ApproversRequest, ChangedReply, ChangedRequest, CheckReply, CheckRequest,
    Method, ReleaseRequest, Subject as SubjectMessage, approver::Answer,
};

pub use tepui_module_proto::authorizer::Object;

use super::decode;
use crate::error::CallError;
use crate::instance::Instance;

/// More answers than this are not kept by one approver: ids come from strangers.
const MOST_ANSWERS: usize = 65_536;
/// Keys in one Check.
const BATCH: usize = 1024;

/// An authorizer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AuthorizerClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    instance: Instance,
    /// Grows whenever answers become void.
    epoch: AtomicU64,
}

impl AuthorizerClient {
    /// A client of this instance. Needs a tokio runtime, on which it waits for changes of the policy.
    pub fn new(instance: Instance) -> Self {
        let inner = Arc::new(Inner {
            instance,
            epoch: AtomicU64::new(1),
        });
        let weak = Arc::downgrade(&inner);
        let instance = inner.instance.clone();
        tokio::spawn(async move {
            let mut seen = (instance.generation(), 0);
            loop {
                seen = match changed(&instance, seen).await {
                    Some(now) => now,
                    // It never changes; a later instance may.
                    None => (instance.newer_than(seen.0).await, 0),
                };
                let Some(inner) = weak.upgrade() else { return };
                inner.epoch.fetch_add(1, Ordering::SeqCst);
            }
        });
        AuthorizerClient(inner)
    }

    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.0.instance
    }

    /// Who decides whether this subject may do this.
    pub async fn approver(
        &self,
        subject: Option<&Subject>,
        action: Action,
    ) -> Result<Approver, CallError> {
        let mut approvers = self.approvers(subject, &[action]).await?;
        Ok(approvers.remove(0))
    }

    /// As [`Self::approver`], for several actions with one call.
    pub async fn approvers(
        &self,
        subject: Option<&Subject>,
        actions: &[Action],
    ) -> Result<Vec<Approver>, CallError> {
        let epoch = self.0.epoch.load(Ordering::SeqCst);
        let states = self.0.ask(subject, actions, epoch).await?;
        let approver = |(action, state): (&Action, State)| {
            Approver(Arc::new(ApproverInner {
                client: self.clone(),
                subject: subject.cloned(),
                action: *action,
                state: Mutex::new(state),
            }))
        };
        Ok(actions.iter().zip(states).map(approver).collect())
    }
}

/// Waits until the policy is another, or the instance is. `None`: this instance does not tell.
async fn changed(instance: &Instance, (generation, seen): (u64, u64)) -> Option<(u64, u64)> {
    if instance.generation() != generation || !instance.is_active() {
        return Some((instance.newer_than(generation).await, 0));
    }
    let request = ChangedRequest { seen }.encode_to_vec();
    match instance
        .start(Method::Changed as u32, None, None, request)
        .await
    {
        Ok(bytes) => {
            let revision =
                ChangedReply::decode(bytes.as_slice()).map_or(seen + 1, |reply| reply.revision);
            if revision == seen {
                // Against the contract; not a reason to ask without end.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Some((generation, revision))
        }
        Err(error) if error.is_unimplemented() => None,
        Err(error) if error.is_lost() => Some((instance.newer_than(generation).await, 0)),
        Err(_) => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((generation, seen))
        }
    }
}

impl Inner {
    async fn ask(
        &self,
        subject: Option<&Subject>,
        actions: &[Action],
        epoch: u64,
    ) -> Result<Vec<State>, CallError> {
        let subject = subject.map(|subject| SubjectMessage {
            principal: subject.principal.clone(),
            claims: subject.claims.clone(),
        });
        let request = ApproversRequest {
            subject,
            actions: actions.iter().map(|a| a.number()).collect(),
        };
        let generation = self.instance.generation();
        let timeout = Some(self.instance.timeout());
        let method = Method::Approvers as u32;
        let bytes = self
            .instance
            .start(method, None, timeout, request.encode_to_vec())
            .await?;
        let reply: ApproversReply = decode(&self.instance, "APPROVERS", &bytes)?;
        if reply.approvers.len() != actions.len() {
            return Err(CallError::Answer {
                module: self.instance.name().into(),
                method: "APPROVERS",
                message: format!(
                    "{} approvers for {} actions",
                    reply.approvers.len(),
                    actions.len()
                ),
            });
        }
        let state = |approver: &tepui_module_proto::authorizer::Approver| State {
            generation,
            epoch,
            answer: approver.answer(),
            handle: approver.handle,
            answers: HashMap::new(),
        };
        Ok(reply.approvers.iter().map(state).collect())
    }
}

/// The object of an action, in the forms an authorizer may ask for.
#[derive(Debug, Clone, Copy, Default)]
pub struct ObjectRef<'a> {
    /// The string that ACLs look at: user, role, principal, path.
    pub value: Option<&'a str>,
    /// `mesos.v1.FrameworkInfo`, encoded.
    pub framework: Option<&'a [u8]>,
    /// Everything known about it.
    pub whole: Option<&'a Object>,
}

impl<'a> ObjectRef<'a> {
    /// An object of which only the value is known.
    pub fn value(value: &'a str) -> Self {
        ObjectRef {
            value: Some(value),
            ..Self::default()
        }
    }
}

/// What an answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// An action without an object, or an object without what the approver asks for.
    None,
    Value(String),
    Bytes(Vec<u8>),
}

/// Decides for one subject and one action. Cheap to clone; clones share the answers.
#[derive(Debug, Clone)]
pub struct Approver(Arc<ApproverInner>);

#[derive(Debug)]
struct ApproverInner {
    client: AuthorizerClient,
    subject: Option<Subject>,
    action: Action,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    generation: u64,
    epoch: u64,
    answer: Answer,
    handle: u64,
    answers: HashMap<Key, bool>,
}

impl Approver {
    /// The answer for every object, if it does not depend on the object.
    pub fn constant(&self) -> Option<bool> {
        let state = self.0.state();
        match state.answer {
            _ if !self.0.is_current(&state) => None,
            Answer::Always => Some(true),
            Answer::Never | Answer::Unspecified => Some(false),
            _ => None,
        }
    }

    /// Whether the action on this object is allowed.
    pub async fn approved(&self, object: &ObjectRef<'_>) -> Result<bool, CallError> {
        Ok(self.approved_all(std::slice::from_ref(object)).await?[0])
    }

    /// As [`Self::approved`], for many objects; only keys that are new are asked.
    pub async fn approved_all(&self, objects: &[ObjectRef<'_>]) -> Result<Vec<bool>, CallError> {
        // Three times: the policy may change while it is asked, but not without end.
        let mut last = None;
        for _ in 0..3 {
            self.0.refresh().await?;
            match self.0.once(objects).await {
                Ok(Some(answers)) => return Ok(answers),
                Ok(None) => {}
                Err(error) if error.code() == Some(tepui_module_proto::common::Code::NotFound) => {
                    // The handle is void: the module knows of a change that we do not know of yet.
                    self.0.state().epoch = 0;
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| CallError::Away {
            module: self.0.client.instance().name().into(),
            why: "its policy changes all the time".into(),
        }))
    }
}

impl ApproverInner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_current(&self, state: &State) -> bool {
        let inner = &self.client.0;
        state.generation == inner.instance.generation()
            && inner.instance.is_active()
            && state.epoch == inner.epoch.load(Ordering::SeqCst)
    }

    /// Asks for the approver again when its answers are void.
    async fn refresh(&self) -> Result<(), CallError> {
        if self.is_current(&self.state()) {
            return Ok(());
        }
        let epoch = self.client.0.epoch.load(Ordering::SeqCst);
        let mut states = self
            .client
            .0
            .ask(self.subject.as_ref(), &[self.action], epoch)
            .await?;
        *self.state() = states.remove(0);
        Ok(())
    }

    /// Answers from what is remembered, and asks for the rest. `None`: the answers became void meanwhile.
    async fn once(&self, objects: &[ObjectRef<'_>]) -> Result<Option<Vec<bool>>, CallError> {
        let (keys, new, handle, epoch) = {
            let state = self.state();
            let constant = match state.answer {
                Answer::Always => Some(true),
                Answer::Never | Answer::Unspecified => Some(false),
                _ => None,
            };
            if let Some(constant) = constant {
                return Ok(Some(vec![constant; objects.len()]));
            }
            let keys: Vec<Key> = objects
                .iter()
                .map(|object| key(state.answer, object))
                .collect();
            let mut new: Vec<Key> = keys
                .iter()
                .filter(|key| !state.answers.contains_key(*key))
                .cloned()
                .collect();
            new.sort_by(order);
            new.dedup();
            (keys, new, state.handle, state.epoch)
        };
        let mut answers = HashMap::new();
        for batch in new.chunks(BATCH) {
            let bits = self.check(handle, batch).await?;
            answers.extend(batch.iter().cloned().zip(bits));
        }
        let mut state = self.state();
        if state.handle != handle || state.epoch != epoch {
            return Ok(None);
        }
        let result = keys
            .iter()
            .map(|key| {
                answers
                    .get(key)
                    .or_else(|| state.answers.get(key))
                    .copied()
                    .unwrap_or(false)
            })
            .collect();
        if state.answers.len() + answers.len() > MOST_ANSWERS {
            state.answers.clear();
        }
        state.answers.extend(answers);
        Ok(Some(result))
    }

    async fn check(&self, handle: u64, keys: &[Key]) -> Result<Vec<bool>, CallError> {
        let instance = self.client.instance();
        let mut request = CheckRequest {
            handle,
            ..Default::default()
        };
        // Sorted: values, then bytes, then the one without an object, as the answer has them.
        for key in keys {
            match key {
                Key::Value(value) => request.values.push(value.clone()),
                Key::Bytes(bytes) => request.objects.push(bytes.clone()),
                Key::None => request.without_object = true,
            }
        }
        let timeout = Some(instance.timeout());
        let bytes = instance
            .start(Method::Check as u32, None, timeout, request.encode_to_vec())
            .await?;
        let reply: CheckReply = decode(instance, "CHECK", &bytes)?;
        if reply.approved.len() != keys.len().div_ceil(8) {
            return Err(CallError::Answer {
                module: instance.name().into(),
                method: "CHECK",
                message: format!(
                    "{} bytes of answers for {} keys",
                    reply.approved.len(),
                    keys.len()
                ),
            });
        }
        Ok((0..keys.len())
            .map(|i| reply.approved[i / 8] >> (i % 8) & 1 == 1)
            .collect())
    }
}

impl Drop for ApproverInner {
    fn drop(&mut self) {
        let instance = self.client.instance();
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.handle == 0 || state.generation != instance.generation() || !instance.is_active() {
            return;
        }
        let request = ReleaseRequest {
            handles: vec![state.handle],
        }
        .encode_to_vec();
        if let Err(error) = instance.call(Method::Release as u32, &request) {
            tracing::debug!(%error, "an approver was not released");
        }
    }
}

fn key(answer: Answer, object: &ObjectRef<'_>) -> Key {
    match answer {
        Answer::ByValue => object
            .value
            .map_or(Key::None, |value| Key::Value(value.into())),
        Answer::ByFramework => object
            .framework
            .map_or(Key::None, |bytes| Key::Bytes(bytes.into())),
        _ => match (object.whole, object.value) {
            (Some(whole), _) => Key::Bytes(whole.encode_to_vec()),
            (None, Some(value)) => {
                let whole = Object {
                    value: Some(value.into()),
                    ..Object::default()
                };
                Key::Bytes(whole.encode_to_vec())
            }
            (None, None) => Key::None,
        },
    }
}

/// Values, bytes, none: the order of the answer.
fn order(a: &Key, b: &Key) -> std::cmp::Ordering {
    match (a, b) {
        (Key::Value(a), Key::Value(b)) => a.cmp(b),
        (Key::Bytes(a), Key::Bytes(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

fn rank(key: &Key) -> u8 {
    match key {
        Key::Value(_) => 0,
        Key::Bytes(_) => 1,
        Key::None => 2,
    }
}
