//! A master with a script: calls go in, events and frames come out, a simple allocator answers.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test file uses a part"
)]

mod greedy;
mod messages;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tepui_model::resources::Resources;
use tepui_model::time::{Mono, Now, Wall};
use tepui_proto::link::{self, LinkFrame, link_frame::Body};
use tepui_proto::v1::{self, TaskState, TaskStatus, scheduler};
use tepui_proto::{Message as _, convert};
use tepui_proto::{Wire, v1::scheduler::call::Type};
use tepui_state_master::{
    CallId, Effect, Entry, Event, MasterState, OperatorCall, Refused, Reply, SessionKey, Settings,
    StreamKey,
};

pub use greedy::Greedy;
pub use messages::{accept_call, framework, names, task};

/// The master, its allocator and registry, and everything that came out so far.
pub struct World {
    pub state: MasterState,
    pub now: Now,
    pub allocator: Greedy,
    pub events: BTreeMap<StreamKey, Vec<scheduler::Event>>,
    pub frames: BTreeMap<SessionKey, Vec<LinkFrame>>,
    pub closed: Vec<StreamKey>,
    pub replies: BTreeMap<CallId, Reply>,
    pub opened: BTreeMap<CallId, (StreamKey, String)>,
    pub operators: Vec<v1::master::Event>,
    pub all: Vec<Effect>,
    /// What the registry holds.
    pub registry: BTreeMap<String, Bytes>,
    /// Batches are written only by [`World::write`].
    pub slow_registry: bool,
    unwritten: Vec<Effect>,
    /// The allocator proposes everything twice.
    pub mischief: bool,
    /// The invariants are checked after every event.
    pub checked: bool,
    /// All effects are kept in `all`.
    pub keep_effects: bool,
    calls: u64,
}

/// A scheduler's end of a stream.
#[derive(Clone, Debug)]
pub struct Scheduler {
    pub id: String,
    pub stream: StreamKey,
    pub stream_id: String,
}

pub const MASTER: &str = "6b0f3d8c-0000-4000-8000-000000000001";

impl World {
    pub fn new() -> Self {
        Self::with(Settings {
            seed: 7,
            master_id: MASTER.into(),
            ..Settings::default()
        })
    }

    pub fn with(settings: Settings) -> Self {
        let mut world = Self::empty(settings);
        world.apply(Event::Recovered {
            cluster_id: "cluster".into(),
            epoch: 1,
            entries: Vec::new(),
        });
        world.apply(Event::Watched);
        world
    }

    fn empty(settings: Settings) -> Self {
        Self {
            state: MasterState::new(settings),
            now: Now {
                mono: Mono(500_000_000),
                wall: Wall(1_795_349_922_000_000_000),
            },
            allocator: Greedy::default(),
            events: BTreeMap::new(),
            frames: BTreeMap::new(),
            closed: Vec::new(),
            replies: BTreeMap::new(),
            opened: BTreeMap::new(),
            operators: Vec::new(),
            all: Vec::new(),
            registry: BTreeMap::new(),
            slow_registry: false,
            unwritten: Vec::new(),
            mischief: false,
            checked: true,
            keep_effects: true,
            calls: 0,
        }
    }

    /// Applies an event and everything that follows from it at once.
    pub fn apply(&mut self, event: Event) {
        let mut queue = std::collections::VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            let mut effects = Vec::new();
            self.state.apply(event, self.now, &mut effects);
            if self.checked {
                self.state.check().expect("invariants hold");
            }
            for effect in effects {
                if self.keep_effects {
                    self.all.push(effect.clone());
                }
                self.perform(effect, &mut queue);
            }
        }
    }

    fn perform(&mut self, effect: Effect, queue: &mut std::collections::VecDeque<Event>) {
        match effect {
            Effect::Reply { call, reply } => {
                self.replies.insert(call, reply);
            }
            Effect::OpenStream {
                call,
                stream,
                stream_id,
                ..
            } => {
                self.opened.insert(call, (stream, stream_id.to_string()));
            }
            Effect::ToScheduler { stream, event } => {
                self.events.entry(stream).or_default().push(event.0);
            }
            Effect::Offers { stream, offers } => {
                let event = offers.event();
                assert_eq!(
                    scheduler::Event::decode(&offers.event_bytes()[..]),
                    Ok(event.clone()),
                    "both forms are the same"
                );
                self.events.entry(stream).or_default().push(event);
            }
            Effect::CloseStream { stream } => self.closed.push(stream),
            Effect::ToAgent { session, frame } => {
                self.frames.entry(session).or_default().push(frame.0);
            }
            Effect::Facts(facts) => {
                for fact in facts {
                    self.allocator.apply(fact);
                }
            }
            Effect::Allocate { number, round } => {
                let mut proposals = self.allocator.allocate(&round);
                if self.mischief {
                    proposals.extend(proposals.clone());
                }
                queue.push_back(Event::Proposals {
                    round: number,
                    proposals,
                });
            }
            Effect::Store { .. } if self.slow_registry => self.unwritten.push(effect),
            Effect::Store { id, puts, deletes } => {
                self.keep(puts, &deletes);
                queue.push_back(Event::Stored { id });
            }
            Effect::ToOperators { event, .. } if self.keep_effects => self.operators.push(event.0),
            Effect::ToOperators { .. } => {}
            Effect::CloseAgent { .. } | Effect::StepDown { .. } => {}
        }
    }

    /// Writes one batch that waits.
    pub fn write(&mut self) {
        let Effect::Store { id, puts, deletes } = self.unwritten.remove(0) else {
            unreachable!("only batches wait");
        };
        self.keep(puts, &deletes);
        self.apply(Event::Stored { id });
    }

    fn keep(&mut self, puts: Vec<Entry>, deletes: &[String]) {
        let puts = puts.into_iter().map(|entry| (entry.key, entry.value));
        self.registry.extend(puts);
        for key in deletes {
            self.registry.remove(key);
        }
    }

    /// The next leader: it knows what is in the registry, and nothing else.
    pub fn failover(&self) -> Self {
        self.failover_with(Settings {
            seed: 8,
            ..Settings::default()
        })
    }

    /// The same with other settings.
    pub fn failover_with(&self, settings: Settings) -> Self {
        let mut world = Self::empty(settings);
        world.registry = self.registry.clone();
        let entry = |(key, value): (&String, &Bytes)| Entry {
            key: key.clone(),
            value: value.clone(),
        };
        world.apply(Event::Recovered {
            cluster_id: "cluster".into(),
            epoch: 2,
            entries: self.registry.iter().map(entry).collect(),
        });
        world.apply(Event::AllocatorRestarted);
        world
    }

    /// A call of an operator; its answer is in `replies` as soon as there is one.
    pub fn operator(&mut self, request: OperatorCall) -> CallId {
        let call = self.call_id();
        self.apply(Event::Operator {
            call,
            principal: None,
            request,
            class: None,
        });
        call
    }

    /// The same, answered at once.
    pub fn operate(&mut self, request: OperatorCall) -> Reply {
        let call = self.operator(request);
        self.replies[&call].clone()
    }

    /// Lets time pass, with every deadline on the way.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.state.next_deadline().filter(|at| *at <= end.mono) {
            let step = deadline.since(self.now.mono);
            self.now = self.now + step;
            self.apply(Event::Tick);
        }
        self.now = end;
    }

    pub fn call_id(&mut self) -> CallId {
        self.calls += 1;
        CallId(self.calls)
    }

    pub fn subscribe(&mut self, info: v1::FrameworkInfo) -> Scheduler {
        self.subscribe_with(scheduler::call::Subscribe {
            framework_info: info,
            ..Default::default()
        })
    }

    pub fn subscribe_with(&mut self, subscribe: scheduler::call::Subscribe) -> Scheduler {
        let call = self.call_id();
        self.apply(Event::Subscribe {
            call,
            principal: None,
            request: Wire(scheduler::Call {
                r#type: Some(Type::Subscribe as i32),
                subscribe: Some(subscribe),
                ..Default::default()
            }),
            refused: None,
        });
        let (stream, stream_id) = self.opened[&call].clone();
        let id = self.events[&stream][0]
            .subscribed
            .as_ref()
            .map(|subscribed| subscribed.framework_id.value.clone());
        Scheduler {
            id: id.unwrap_or_default(),
            stream,
            stream_id,
        }
    }

    pub fn call(&mut self, scheduler: &Scheduler, request: scheduler::Call) -> Reply {
        self.call_refusing(scheduler, request, Vec::new())
    }

    pub fn call_refusing(
        &mut self,
        scheduler: &Scheduler,
        mut request: scheduler::Call,
        refused: Vec<Refused>,
    ) -> Reply {
        let call = self.call_id();
        request.framework_id = Some(v1::FrameworkId {
            value: scheduler.id.clone(),
        });
        self.apply(Event::SchedulerCall {
            call,
            principal: None,
            stream_id: scheduler.stream_id.clone(),
            request: Wire(request),
            refused,
        });
        self.replies[&call].clone()
    }

    pub fn simple(&mut self, scheduler: &Scheduler, kind: Type) -> Reply {
        self.call(
            scheduler,
            scheduler::Call {
                r#type: Some(kind as i32),
                ..Default::default()
            },
        )
    }

    /// Events since the last look.
    pub fn take(&mut self, scheduler: &Scheduler) -> Vec<scheduler::Event> {
        self.events.remove(&scheduler.stream).unwrap_or_default()
    }

    pub fn take_frames(&mut self, session: SessionKey) -> Vec<Body> {
        let frames = self.frames.remove(&session).unwrap_or_default();
        frames.into_iter().filter_map(|frame| frame.body).collect()
    }

    /// Ids of the offers among the events since the last look.
    pub fn take_offers(&mut self, scheduler: &Scheduler) -> Vec<v1::Offer> {
        self.take(scheduler)
            .into_iter()
            .filter_map(|event| event.offers)
            .flat_map(|offers| offers.offers)
            .collect()
    }

    /// Admits and syncs a new agent with nothing on it.
    pub fn agent(&mut self, session: u64, resources: &str) -> String {
        self.hello(session, None, 1);
        let id = self.welcome(session);
        self.sync(session, resources, link::Sync::default());
        id
    }

    pub fn hello(&mut self, session: u64, id: Option<&str>, run_number: u64) {
        self.hello_from(
            &format!("127.0.0.1:{}", 5051 + session),
            session,
            id,
            run_number,
        );
    }

    pub fn hello_from(&mut self, address: &str, session: u64, id: Option<&str>, run_number: u64) {
        self.apply(Event::AgentHello {
            session: SessionKey(session),
            principal: None,
            hello: Wire(link::Hello {
                protocol: Some(link::ProtocolRange { min: 1, max: 1 }),
                version: "1.11.0".into(),
                info: Some(v1::AgentInfo {
                    hostname: "localhost".into(),
                    port: Some(5051),
                    id: id.map(|id| v1::AgentId { value: id.into() }),
                    ..Default::default()
                }),
                address: address.to_owned(),
                run_number,
                ..Default::default()
            }),
        });
    }

    pub fn welcome(&mut self, session: u64) -> String {
        self.take_frames(SessionKey(session))
            .into_iter()
            .find_map(|body| match body {
                Body::Welcome(welcome) => welcome.agent_id.map(|id| id.value),
                _ => None,
            })
            .expect("welcomed")
    }

    pub fn sync(&mut self, session: u64, resources: &str, mut sync: link::Sync) {
        let total = Resources::parse(resources, "*").expect("resources of a test");
        sync.total = convert::to_proto(&total);
        self.apply(Event::AgentSynced {
            session: SessionKey(session),
            sync: Wire(sync),
            resource_version: vec![1; 16].into(),
        });
    }

    /// An update of a task, as an agent forwards it.
    pub fn update(
        &mut self,
        session: u64,
        scheduler: &Scheduler,
        agent: &str,
        task: &str,
        state: TaskState,
        uuid: u8,
    ) {
        self.apply(Event::AgentUpdates {
            session: SessionKey(session),
            updates: Wire(link::Updates {
                updates: vec![link::Update {
                    framework_id: Some(v1::FrameworkId {
                        value: scheduler.id.clone(),
                    }),
                    status: Some(TaskStatus {
                        task_id: v1::TaskId { value: task.into() },
                        state: state as i32,
                        source: Some(v1::task_status::Source::Executor as i32),
                        agent_id: Some(v1::AgentId {
                            value: agent.into(),
                        }),
                        uuid: Some(vec![uuid; 16].into()),
                        ..Default::default()
                    }),
                    latest_state: state as i32,
                }],
            }),
        });
    }

    pub fn acknowledge(
        &mut self,
        scheduler: &Scheduler,
        agent: &str,
        task: &str,
        uuid: u8,
    ) -> Reply {
        self.call(
            scheduler,
            scheduler::Call {
                r#type: Some(Type::Acknowledge as i32),
                acknowledge: Some(scheduler::call::Acknowledge {
                    agent_id: v1::AgentId {
                        value: agent.into(),
                    },
                    task_id: v1::TaskId { value: task.into() },
                    uuid: vec![uuid; 16].into(),
                }),
                ..Default::default()
            },
        )
    }

    pub fn accept(
        &mut self,
        scheduler: &Scheduler,
        offers: &[&str],
        tasks: Vec<v1::TaskInfo>,
    ) -> Reply {
        self.call(scheduler, accept_call(offers, tasks, None))
    }

    pub fn decline(&mut self, scheduler: &Scheduler, offer: &str, refuse: Option<f64>) -> Reply {
        self.call(
            scheduler,
            scheduler::Call {
                r#type: Some(Type::Decline as i32),
                decline: Some(scheduler::call::Decline {
                    offer_ids: vec![v1::OfferId {
                        value: offer.into(),
                    }],
                    filters: refuse.map(|seconds| v1::Filters {
                        refuse_seconds: Some(seconds),
                    }),
                }),
                ..Default::default()
            },
        )
    }
}
