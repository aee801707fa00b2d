//! Kind `allocator`: proposes which framework is offered what.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message;
use tepui_model::allocation::{AgentKey, Fact, FrameworkKey, Round};
use tepui_model::time::Mono;
use tepui_module_proto::allocator::{self as messages, Method};
use tepui_module_proto::columns::{self, Columns};
use tepui_module_proto::common::{CommonMethod, CreateRequest};

use super::{common_start, decode, report};
use crate::allocation::{Cluster, Proposals, RoleKey};
use crate::export::{Made, make};
use crate::instance::{Service, Started};
use crate::{Failure, Host, Module, Result};

/// Proposes offers. Mirrors `mesos::allocator::Allocator`, with the ledger left to the master.
///
/// The methods run one at a time, on a thread of the master's own: `&mut self` and no locks. They must not wait, do I/O,
/// read a clock or draw random numbers: `round.now` and `round.seed` are there for that. Equal facts and rounds give equal
/// proposals, so that an allocator can be replayed, compared with another, and replaced at any time.
pub trait Allocator: Module {
    /// Something happened; `cluster` knows it already. Keep here what you derive, if deriving it in each round is too slow.
    /// When all facts are told anew ([`Fact::Reset`]) the kit makes the module anew, so this never sees a reset.
    fn observe(&mut self, fact: &Fact, cluster: &Cluster) {
        let _ = (fact, cluster);
    }

    /// Proposes offers for the candidates of a round. The master takes what its ledger allows and tells as
    /// [`Fact::Refused`] what it did not take. Called at each allocation interval and when something is worth offering.
    fn allocate(&mut self, cluster: &Cluster, round: &Round, out: &mut Proposals<'_>);

    /// Why a framework gets nothing, for an operator who asks. The default answers from filters and capabilities.
    fn explain(&self, cluster: &Cluster, question: &Question) -> Explanation {
        Explanation::from_filters(cluster, question)
    }
}

/// An operator asks why a framework is not offered anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The framework.
    pub framework: FrameworkKey,
    /// Only for this role.
    pub role: Option<RoleKey>,
    /// Only from this agent.
    pub agent: Option<AgentKey>,
    /// The clock.
    pub now: Mono,
}

/// Reasons, for a person to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explanation {
    /// The agent it is about (none: all), and a sentence.
    pub reasons: Vec<(Option<AgentKey>, String)>,
}

impl Explanation {
    /// What the facts alone explain.
    pub fn from_filters(cluster: &Cluster, question: &Question) -> Self {
        let mut explanation = Self::default();
        let Some(framework) = cluster.framework(question.framework) else {
            explanation
                .reasons
                .push((None, "the framework is not known".to_owned()));
            return explanation;
        };
        if !framework.active {
            explanation
                .reasons
                .push((None, "the framework is not connected".to_owned()));
        }
        for role in &framework.suppressed {
            explanation.reasons.push((
                None,
                format!("the framework suppressed offers for role {role}"),
            ));
        }
        let clients = cluster
            .clients()
            .iter()
            .filter(|client| client.framework == question.framework);
        for client in clients.filter(|client| question.role.is_none_or(|role| role == client.role))
        {
            for (&agent, _) in cluster.agents() {
                if question.agent.is_none_or(|asked| asked == agent)
                    && let Err(reason) = cluster.offerable(client, agent, cluster.free(agent))
                {
                    let role = cluster.role(client.role);
                    explanation
                        .reasons
                        .push((Some(agent), format!("role {role}: {reason}")));
                }
            }
        }
        explanation
    }
}

struct State<M> {
    module: M,
    /// What it was made from.
    made: (CreateRequest, Host),
    cluster: Cluster,
    columns: Columns,
}

pub(crate) struct AllocatorService<M>(Mutex<State<M>>);

impl<M: Allocator> AllocatorService<M> {
    pub(crate) fn new(made: Made<M>) -> Self {
        Self(Mutex::new(State {
            module: made.module,
            made: (made.request, made.host),
            cluster: Cluster::default(),
            columns: Columns::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State<M>> {
        // Poisoned means that the instance is finished, and the guard lets nobody in.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Allocator> State<M> {
    fn apply(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        let facts = self.columns.unpack_facts(decode(request)?)?;
        for fact in &facts {
            self.cluster.apply(fact);
            if matches!(fact, Fact::Reset) {
                // What it derived from facts that are void now is void too.
                let (request, host) = self.made.clone();
                self.module = make::<M>(request, host)?.module;
                continue;
            }
            self.module.observe(fact, &self.cluster);
        }
        Ok(Vec::new())
    }

    fn allocate(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        let round = columns::unpack_round(&decode(request)?);
        self.cluster.set_now(round.now);
        let mut out = Proposals::new(&self.cluster);
        self.module.allocate(&self.cluster, &round, &mut out);
        let proposals = out.into_vec();
        let reply = self.columns.pack_proposals(&proposals)?;
        self.cluster.book(&proposals);
        Ok(reply.encode_to_vec())
    }

    fn explain(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        let question: messages::Question = decode(request)?;
        let role = question
            .role
            .map(|role| self.columns.role(role))
            .transpose()?;
        let question = Question {
            framework: FrameworkKey(question.framework),
            role: role.and_then(|role| self.cluster.role_key(role)),
            agent: question.agent.map(AgentKey),
            now: Mono(question.now),
        };
        self.cluster.set_now(question.now);
        let explanation = self.module.explain(&self.cluster, &question);
        let reason = |(agent, text): (Option<AgentKey>, String)| messages::explanation::Reason {
            agent: agent.map(|agent| agent.0),
            text,
        };
        let reasons = explanation.reasons.into_iter().map(reason).collect();
        Ok(messages::Explanation { reasons }.encode_to_vec())
    }
}

impl<M: Allocator> Service for AllocatorService<M> {
    fn call(&self, number: u32, request: &[u8]) -> Option<Result<Vec<u8>>> {
        if number == CommonMethod::Report as u32 {
            return Some(Ok(report(self.state().module.report())));
        }
        match Method::try_from(i32::try_from(number).ok()?).ok()? {
            Method::Apply => Some(self.state().apply(request)),
            Method::Allocate => Some(self.state().allocate(request)),
            Method::Explain => Some(self.state().explain(request)),
            Method::Unspecified => None,
        }
    }

    fn start(self: Arc<Self>, number: u32, _: &[u8]) -> Option<Result<Started>> {
        // The module is behind a lock that no future may hold; it has nothing to begin.
        struct Nothing;
        impl Module for Nothing {
            type Config = crate::NoConfig;
            const NAME: &'static str = "nothing";
            fn create(_: Self::Config, _: crate::Context) -> Result<Self> {
                Err(Failure::internal("never made by a host"))
            }
        }
        common_start(Arc::new(Nothing), number)
    }
}
