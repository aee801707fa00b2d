//! Kind `authorizer`: who may do what.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message;
use tepui_model::authorization::{Action, Subject};
use tepui_module_proto::authorizer::{
    Approver as ApproverReply, ApproversReply, ApproversRequest, ChangedReply, ChangedRequest,
    CheckReply, CheckRequest, Method, Object, ReleaseRequest, approver::Answer,
};

use super::{common_call, common_start, decode};
use crate::export::Made;
use crate::failure::undecodable;
use crate::instance::{Service, Started};
use crate::mesos::FrameworkInfo;
use crate::{Failure, Module, Result};

/// Decides who may do what. Mirrors `mesos::Authorizer::getApprover`.
///
/// The daemon asks for an approver once for each subject and action, and the approver once for each distinct key;
/// it remembers the answers for as long as the approver lives: a request, a stream, or until [`Self::changed`].
pub trait Authorizer: Module {
    /// The approver of a subject (`None`: an unauthenticated request) for an action. May be called at any time, also
    /// beside itself. An error or a missed deadline refuses: the request fails with status 500, and filters hide.
    fn approver(
        &self,
        subject: Option<&Subject>,
        action: Action,
    ) -> impl Future<Output = Result<Approver>> + Send;

    /// Answers with a new revision as soon as it differs from `seen` (0 at first), and waits until then: all approvers
    /// made before are void and asked for anew. Modules whose rules do not change while they run leave it out.
    fn changed(&self, seen: u64) -> impl Future<Output = Result<u64>> + Send {
        let _ = seen;
        // The host asks once and knows then, instead of a call that waits for ever.
        async { Err(Failure::unimplemented(Method::Changed as u32)) }
    }
}

/// A pending decision.
type Verdict = Pin<Box<dyn Future<Output = Result<bool>> + Send>>;

/// How an approver decides on a key.
pub enum Check<K: ?Sized> {
    /// At once.
    Now(Box<dyn Fn(&K) -> bool + Send + Sync>),
    /// By asking somebody else.
    Later(Box<dyn Fn(&K) -> Verdict + Send + Sync>),
}

impl<K: ?Sized> Check<K> {
    async fn decide(&self, key: &K) -> Result<bool> {
        let later = match self {
            Self::Now(check) => return Ok(check(key)),
            Self::Later(check) => check(key),
        };
        later.await
    }
}

/// Decides on the objects of one subject and action. Choose the first that is enough: it is asked least often.
pub enum Approver {
    /// Every object.
    Always,
    /// No object.
    Never,
    /// By the string that ACLs look at, which the documentation of each [`Action`] names: a user, role, principal, path.
    ByValue {
        /// Decides on one.
        check: Check<str>,
        /// The answer where there is no object.
        without_object: bool,
    },
    /// By the framework that the object belongs to.
    ByFramework {
        /// Decides on one.
        check: Check<FrameworkInfo>,
        /// The answer where there is no object.
        without_object: bool,
    },
    /// By everything that is known of the object.
    ByObject {
        /// Decides on one.
        check: Check<Object>,
        /// The answer where there is no object.
        without_object: bool,
    },
}

impl Approver {
    /// Decides by value. Without an object it refuses.
    pub fn by_value(check: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::ByValue {
            check: Check::Now(Box::new(check)),
            without_object: false,
        }
    }

    /// Decides by value, after asking somebody. Without an object it refuses.
    pub fn by_value_async<F>(check: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<bool>> + Send + 'static,
    {
        let check = Check::Later(Box::new(move |value: &str| -> Verdict {
            Box::pin(check(value.to_owned()))
        }));
        Self::ByValue {
            check,
            without_object: false,
        }
    }

    /// Decides by framework. Without an object it refuses.
    pub fn by_framework(check: impl Fn(&FrameworkInfo) -> bool + Send + Sync + 'static) -> Self {
        Self::ByFramework {
            check: Check::Now(Box::new(check)),
            without_object: false,
        }
    }

    /// Decides by the whole object. Without an object it refuses.
    pub fn by_object(check: impl Fn(&Object) -> bool + Send + Sync + 'static) -> Self {
        Self::ByObject {
            check: Check::Now(Box::new(check)),
            without_object: false,
        }
    }

    /// The same, with an answer for actions that have no object.
    #[must_use]
    pub fn without_object(mut self, allowed: bool) -> Self {
        match &mut self {
            Self::ByValue { without_object, .. }
            | Self::ByFramework { without_object, .. }
            | Self::ByObject { without_object, .. } => *without_object = allowed,
            Self::Always | Self::Never => {}
        }
        self
    }

    fn answer(&self) -> Answer {
        match self {
            Self::Always => Answer::Always,
            Self::Never => Answer::Never,
            Self::ByValue { .. } => Answer::ByValue,
            Self::ByFramework { .. } => Answer::ByFramework,
            Self::ByObject { .. } => Answer::ByObject,
        }
    }

    /// Decides on all keys of a request, in its order.
    async fn decide(&self, request: &CheckRequest) -> Result<Vec<bool>> {
        let mut answers = Vec::with_capacity(request.values.len() + request.objects.len() + 1);
        let without = match self {
            Self::Always | Self::Never => {
                return Err(Failure::invalid("this approver has no keys"));
            }
            Self::ByValue {
                check,
                without_object,
            } => {
                for value in &request.values {
                    answers.push(check.decide(value).await?);
                }
                without_object
            }
            Self::ByFramework {
                check,
                without_object,
            } => {
                for object in &request.objects {
                    answers.push(check.decide(&read::<FrameworkInfo>(object)?).await?);
                }
                without_object
            }
            Self::ByObject {
                check,
                without_object,
            } => {
                for object in &request.objects {
                    answers.push(check.decide(&read::<Object>(object)?).await?);
                }
                without_object
            }
        };
        if request.without_object {
            answers.push(*without);
        }
        let asked =
            request.values.len() + request.objects.len() + usize::from(request.without_object);
        if answers.len() != asked {
            return Err(Failure::invalid(
                "keys of another class than the approver's",
            ));
        }
        Ok(answers)
    }
}

fn read<T: Message + Default>(bytes: &[u8]) -> Result<T> {
    T::decode(bytes).map_err(|error| undecodable(&error))
}

/// Packs answers: bit `i % 8` of byte `i / 8`.
fn bits(answers: &[bool]) -> Vec<u8> {
    let byte = |eight: &[bool]| {
        eight
            .iter()
            .enumerate()
            .fold(0, |byte, (i, &yes)| byte | (u8::from(yes) << i))
    };
    answers.chunks(8).map(byte).collect()
}

pub(crate) struct AuthorizerService<M> {
    module: Arc<M>,
    approvers: Mutex<BTreeMap<u64, Arc<Approver>>>,
    next: AtomicU64,
}

impl<M: Authorizer> AuthorizerService<M> {
    pub(crate) fn new(made: Made<M>) -> Self {
        Self {
            module: Arc::new(made.module),
            approvers: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    fn approvers(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Approver>>> {
        self.approvers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn make(self: Arc<Self>, request: ApproversRequest) -> Result<Vec<u8>> {
        let subject = request.subject.map(|subject| Subject {
            principal: subject.principal,
            claims: subject.claims,
        });
        let mut reply = ApproversReply::default();
        for number in request.actions {
            // An action that this library is too old to know is refused.
            let approver = match Action::from_number(number) {
                Some(action) => self.module.approver(subject.as_ref(), action).await?,
                None => Approver::Never,
            };
            let answer = approver.answer();
            let handle = match answer {
                Answer::Always | Answer::Never | Answer::Unspecified => 0,
                _ => self.keep(approver),
            };
            reply.approvers.push(ApproverReply {
                answer: answer.into(),
                handle,
            });
        }
        Ok(reply.encode_to_vec())
    }

    fn keep(&self, approver: Approver) -> u64 {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.approvers().insert(handle, Arc::new(approver));
        handle
    }

    async fn check(self: Arc<Self>, request: CheckRequest) -> Result<Vec<u8>> {
        let approver = self.approvers().get(&request.handle).cloned();
        let approver =
            approver.ok_or_else(|| Failure::not_found("an approver that was released"))?;
        let answers = approver.decide(&request).await?;
        Ok(CheckReply {
            approved: bits(&answers),
        }
        .encode_to_vec())
    }
}

fn method(number: u32) -> Option<Method> {
    Method::try_from(i32::try_from(number).ok()?).ok()
}

impl<M: Authorizer> Service for AuthorizerService<M> {
    fn call(&self, number: u32, request: &[u8]) -> Option<Result<Vec<u8>>> {
        if method(number) == Some(Method::Release) {
            return Some(decode::<ReleaseRequest>(request).map(|request| {
                // Closures of the author are dropped outside the lock.
                let mut approvers = self.approvers();
                let released: Vec<_> = request
                    .handles
                    .iter()
                    .filter_map(|handle| approvers.remove(handle))
                    .collect();
                drop(approvers);
                drop(released);
                Vec::new()
            }));
        }
        common_call(&*self.module, number)
    }

    fn start(self: Arc<Self>, number: u32, request: &[u8]) -> Option<Result<Started>> {
        match method(number) {
            Some(Method::Approvers) => {
                Some(decode(request).map(|request| Started::new(self.make(request))))
            }
            Some(Method::Check) => {
                Some(decode(request).map(|request| Started::new(self.check(request))))
            }
            Some(Method::Changed) => Some(decode::<ChangedRequest>(request).map(|request| {
                Started::new(async move {
                    let revision = self.module.changed(request.seen).await?;
                    Ok(ChangedReply { revision }.encode_to_vec())
                })
            })),
            _ => common_start(self.module.clone(), number),
        }
    }
}
