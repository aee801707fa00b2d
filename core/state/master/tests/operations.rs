//! Operations on resources, from an ACCEPT or an operator to the agent and back.

mod support;

use std::time::Duration;

use support::{World, framework, names, task};
use tepui_model::Resources;
use tepui_model::id::AgentId;
use tepui_proto::link::{self, ApplyOperation, link_frame::Body};
use tepui_proto::v1::offer::{self, operation, operation::Type};
use tepui_proto::v1::scheduler::call::{self, Type as Call};
use tepui_proto::v1::{self, OperationState, OperationStatus, framework_info, scheduler};
use tepui_proto::{Wire, convert};
use tepui_state_master::{Event, OperatorCall, Reply, SessionKey};

const AGENT: &str = "cpus:4;mem:4096;disk:1000";
const RESERVED: &str =
    "cpus(reservations: [(DYNAMIC,peer)]):1; disk(reservations: [(DYNAMIC,peer)]):200";
const VOLUME: &str = "disk(reservations: [(DYNAMIC,peer)])[v:data]:100";

fn all(text: &str) -> Vec<v1::Resource> {
    convert::to_proto(&Resources::parse(text, "*").expect("resources of a test"))
}

/// An operation whose framework wants to hear of it, if it has an id.
fn operation(kind: Type, text: &str, id: &str) -> offer::Operation {
    let mut made = offer::Operation {
        r#type: Some(kind.into()),
        id: (!id.is_empty()).then(|| v1::OperationId { value: id.into() }),
        ..Default::default()
    };
    let (resources, volumes) = (all(text), all(text));
    match kind {
        Type::Reserve => {
            made.reserve = Some(operation::Reserve {
                resources,
                ..Default::default()
            });
        }
        Type::Unreserve => made.unreserve = Some(operation::Unreserve { resources }),
        Type::Create => made.create = Some(operation::Create { volumes }),
        Type::Destroy => made.destroy = Some(operation::Destroy { volumes }),
        other => panic!("{other:?} is made by hand"),
    }
    made
}

fn launch(tasks: Vec<v1::TaskInfo>) -> offer::Operation {
    offer::Operation {
        r#type: Some(Type::Launch.into()),
        launch: Some(operation::Launch { task_infos: tasks }),
        ..Default::default()
    }
}

fn accept(offer: &str, operations: Vec<offer::Operation>) -> scheduler::Call {
    scheduler::Call {
        r#type: Some(Call::Accept.into()),
        accept: Some(call::Accept {
            offer_ids: vec![v1::OfferId {
                value: offer.into(),
            }],
            operations,
            filters: Some(v1::Filters {
                refuse_seconds: Some(0.0),
            }),
        }),
        ..Default::default()
    }
}

/// One offer of one agent with [`AGENT`].
struct Setup {
    world: World,
    scheduler: support::Scheduler,
    agent: String,
}

impl Setup {
    fn new() -> Self {
        Self::with(framework("f", "peer"))
    }

    fn with(info: v1::FrameworkInfo) -> Self {
        let mut world = World::new();
        let agent = world.agent(1, AGENT);
        let scheduler = world.subscribe(info);
        Self {
            world,
            scheduler,
            agent,
        }
    }

    fn offer(&mut self) -> v1::Offer {
        let mut offers = self.world.take_offers(&self.scheduler);
        offers.pop().expect("something is offered")
    }

    /// Accepts the newest offer with these operations.
    fn accept(&mut self, operations: Vec<offer::Operation>) {
        let offer = self.offer();
        let call = accept(&offer.id.value, operations);
        assert_eq!(self.world.call(&self.scheduler, call), Reply::Accepted);
    }

    /// Operations that the agent was told since the last look.
    fn told(&mut self) -> Vec<ApplyOperation> {
        let frames = self.world.take_frames(SessionKey(1));
        let apply = frames.into_iter().filter_map(|body| match body {
            Body::ApplyOperation(apply) => Some(apply),
            _ => None,
        });
        apply.collect()
    }

    /// The agent says how an operation ended.
    fn ended(&mut self, apply: &ApplyOperation, state: OperationState) {
        self.world.apply(Event::AgentOperationUpdate {
            session: SessionKey(1),
            update: Wire(link::OperationUpdate {
                framework_id: apply.framework_id.clone(),
                status: Some(status_of(apply, state)),
                operation_uuid: apply.operation_uuid.clone(),
            }),
        });
    }

    /// States of operations that the framework was told since the last look.
    fn heard(&mut self) -> Vec<OperationStatus> {
        let events = self.world.take(&self.scheduler);
        let updates = events.into_iter().filter_map(|e| e.update_operation_status);
        updates.map(|update| update.status).collect()
    }

    fn acknowledge(&mut self, status: &OperationStatus) {
        let call = scheduler::Call {
            r#type: Some(Call::AcknowledgeOperationStatus.into()),
            acknowledge_operation_status: Some(call::AcknowledgeOperationStatus {
                agent_id: status.agent_id.clone(),
                uuid: status.uuid.clone().expect("wants it").value,
                operation_id: status.operation_id.clone().expect("its framework's"),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(self.world.call(&self.scheduler, call), Reply::Accepted);
    }

    fn acknowledged(&mut self) -> usize {
        let frames = self.world.take_frames(SessionKey(1));
        let acks = frames.iter().filter(|b| matches!(b, Body::AckOperation(_)));
        acks.count()
    }

    fn total(&mut self) -> String {
        let view = self.world.state.view();
        view.agents.iter().next().expect("one").total.to_string()
    }

    /// An operator's operation on the agent.
    fn asked(&self, operation: offer::Operation) -> OperatorCall {
        OperatorCall::Operate {
            agent_id: AgentId::from(self.agent.as_str()),
            operation: Box::new(Wire(operation)),
        }
    }

    fn listed(&mut self) -> usize {
        self.world.state.view().operations.len()
    }
}

fn status_of(apply: &ApplyOperation, state: OperationState) -> OperationStatus {
    OperationStatus {
        operation_id: apply.operation.as_ref().and_then(|o| o.id.clone()),
        state: state.into(),
        uuid: Some(v1::Uuid {
            value: vec![9; 16].into(),
        }),
        ..Default::default()
    }
}

fn message_of(apply: &ApplyOperation, state: OperationState) -> v1::Operation {
    let status = status_of(apply, state);
    v1::Operation {
        framework_id: apply.framework_id.clone(),
        agent_id: None,
        info: *apply.operation.clone().expect("one"),
        latest_status: status.clone(),
        statuses: vec![status],
        uuid: v1::Uuid {
            value: apply.operation_uuid.clone(),
        },
    }
}

#[test]
fn each_operation_rests_on_those_before_it() {
    let mut setup = Setup::new();
    let agent = setup.agent.clone();
    let uses = "cpus(reservations: [(DYNAMIC,peer)]):1; mem:16";
    setup.accept(vec![
        operation(Type::Reserve, RESERVED, "op-1"),
        operation(Type::Create, VOLUME, ""),
        launch(vec![task("t", &agent, uses)]),
    ]);
    let total = "cpus:3; mem:4096; disk:800; cpus(reservations: [(DYNAMIC,peer)]):1; disk(reservations: [(DYNAMIC,peer)]):100; disk(reservations: [(DYNAMIC,peer)])[v:data]:100";
    assert_eq!(setup.total(), total);
    // Nothing was rescinded or refused: the rest is offered again, with what was made.
    let offered = convert::resources(&setup.offer().resources).expect("resources");
    let rest = "disk:800;mem:4080;cpus:3; disk(reservations: [(DYNAMIC,peer)]):100; disk(reservations: [(DYNAMIC,peer)])[v:data]:100";
    let rest = Resources::parse(rest, "*")
        .expect("resources")
        .allocate(&"peer".into());
    assert_eq!(offered, rest);
    let told = setup.told();
    let kinds = told
        .iter()
        .map(|apply| apply.operation.as_ref().expect("one").r#type());
    assert!(kinds.eq([Type::Reserve, Type::Create]));
    assert!(told.iter().all(|apply| apply.resource_version.len() == 16));

    // The one without an id is acknowledged for its framework, the other one by it, and only as it was told.
    setup.ended(&told[1], OperationState::OperationFinished);
    assert_eq!(setup.acknowledged(), 1);
    setup.ended(&told[0], OperationState::OperationFinished);
    let heard = setup.heard();
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].state(), OperationState::OperationFinished);
    assert_eq!(heard[0].agent_id.as_ref().expect("told").value, agent);
    let mut other = heard[0].clone();
    other.uuid = Some(v1::Uuid {
        value: vec![1; 16].into(),
    });
    setup.acknowledge(&other);
    assert_eq!((setup.acknowledged(), setup.listed()), (0, 1));
    setup.acknowledge(&heard[0]);
    assert_eq!((setup.acknowledged(), setup.listed()), (1, 0));
    let counted = setup.world.state.counted();
    let finished = counted
        .operations
        .iter()
        .filter(|(_, state, _)| *state == OperationState::OperationFinished);
    assert_eq!(finished.map(|(_, _, number)| number).sum::<u64>(), 2);
    let pending = counted
        .operations
        .iter()
        .filter(|(_, state, _)| *state == OperationState::OperationPending);
    assert_eq!(pending.map(|(_, _, number)| number).sum::<u64>(), 0);
}

#[test]
fn wrong_ones_are_refused_in_the_words_of_mesos() {
    let on_agent = |setup: &Setup| {
        format!(
            "; on agent {} at slave(1)@127.0.0.1:5052 (localhost)",
            setup.agent
        )
    };
    let volume = "disk[v:v]:100";
    let nowhere = "disk(reservations: [(DYNAMIC,peer)])[x:data]:100";
    let cases = [
        (
            Type::Reserve,
            "cpus(reservations: [(DYNAMIC,other)]):1",
            "A reserve operation was attempted for a resource with role 'other', but the resource was allocated to role 'peer'",
            true,
        ),
        (
            Type::Reserve,
            "cpus(reservations: [(DYNAMIC,peer)]):100",
            "cpus(allocated: peer):4; mem(allocated: peer):4096; disk(allocated: peer):1000 does not contain cpus(allocated: peer):100",
            false,
        ),
        (
            Type::Create,
            volume,
            "Invalid resources: Invalid DiskInfo: Persistent volumes cannot be created from unreserved resources",
            true,
        ),
        (Type::Destroy, nowhere, "Persistent volumes not found", true),
        (
            Type::Unreserve,
            "cpus:1",
            "Resource cpus(allocated: peer):1 is not dynamically reserved",
            true,
        ),
    ];
    for (kind, text, refusal, says_where) in cases {
        let mut setup = Setup::new();
        setup.accept(vec![operation(kind, text, "op"), operation(kind, text, "")]);
        let heard = setup.heard();
        // Of one without an id nothing is heard.
        assert_eq!(heard.len(), 1, "{text}");
        assert_eq!(heard[0].state(), OperationState::OperationError);
        let place = on_agent(&setup);
        let expected = format!("{refusal}{}", if says_where { &place } else { "" });
        assert_eq!(heard[0].message(), expected);
        assert!(setup.told().is_empty());
        assert_eq!(setup.total(), "cpus:4; mem:4096; disk:1000");
    }
}

#[test]
fn volumes_are_resized_within_one_accept() {
    let mut setup = Setup::new();
    let one = |text: &str| all(text).pop().expect("one");
    let grow = offer::Operation {
        r#type: Some(Type::GrowVolume.into()),
        grow_volume: Some(Box::new(operation::GrowVolume {
            volume: one(VOLUME),
            addition: one("disk(reservations: [(DYNAMIC,peer)]):50"),
        })),
        ..Default::default()
    };
    let shrink = offer::Operation {
        r#type: Some(Type::ShrinkVolume.into()),
        shrink_volume: Some(Box::new(operation::ShrinkVolume {
            volume: one("disk(reservations: [(DYNAMIC,peer)])[v:data]:150"),
            subtract: v1::value::Scalar { value: 30.0 },
        })),
        ..Default::default()
    };
    setup.accept(vec![
        operation(Type::Reserve, RESERVED, ""),
        operation(Type::Create, VOLUME, ""),
        grow,
        shrink,
    ]);
    let total = setup.total();
    assert!(total.contains("[v:data]:120"), "{total}");
    assert!(
        total.contains("disk(reservations: [(DYNAMIC,peer)]):80"),
        "{total}"
    );
    assert_eq!(setup.told().len(), 4);
}

#[test]
fn operators_take_back_only_the_offers_they_need() {
    let mut world = World::new();
    let agent = world.agent(1, "cpus:4;mem:4096");
    let scheduler = world.subscribe(framework("f", "peer"));
    let offer = world.take_offers(&scheduler).pop().expect("all of it");
    let used = launch(vec![task("t", &agent, "cpus:1;mem:1000")]);
    world.call(&scheduler, accept(&offer.id.value, vec![used]));
    let mut setup = Setup {
        world,
        scheduler,
        agent,
    };
    let rest = setup.offer();
    // Not while a task uses it, and then no offer is touched.
    let much = operation(Type::Reserve, "cpus(reservations: [(DYNAMIC,ops)]):4", "");
    let refused = setup.world.operate(setup.asked(much));
    let text = "cpus:3; mem:3096 does not contain cpus:4";
    assert_eq!(refused, Reply::Conflict(text.into()));
    assert!(setup.world.take(&setup.scheduler).is_empty());

    let asked = setup.asked(operation(
        Type::Reserve,
        "cpus(reservations: [(DYNAMIC,ops)]):2",
        "",
    ));
    let call = setup.world.operator(asked.clone());
    let events = setup.world.take(&setup.scheduler);
    let rescinded = events.iter().filter_map(|event| event.rescind.as_ref());
    assert!(rescinded.map(|rescind| &rescind.offer_id).eq([&rest.id]));
    // Answered when the agent has made it durable.
    assert!(!setup.world.replies.contains_key(&call));
    let told = setup.told();
    setup.ended(&told[0], OperationState::OperationFinished);
    assert_eq!(setup.world.replies[&call], Reply::Accepted);
    assert_eq!((setup.acknowledged(), setup.listed()), (1, 0));
    // The next one finds enough that is free: what is reserved for others is not offered.
    setup.world.take(&setup.scheduler);
    let back = setup.asked(operation(
        Type::Unreserve,
        "cpus(reservations: [(DYNAMIC,ops)]):2",
        "",
    ));
    let call = setup.world.operator(back);
    let events = names(&setup.world.take(&setup.scheduler));
    assert!(!events.contains(&"RESCIND".to_owned()), "{events:?}");
    // An agent that says nothing leaves the outcome open.
    setup.world.wait(Duration::from_secs(10));
    assert!(
        matches!(&setup.world.replies[&call], Reply::Unavailable(text) if text.contains("open"))
    );
    let told = setup.told();
    setup.ended(&told[0], OperationState::OperationFinished);
    assert_eq!(setup.total(), "cpus:4; mem:4096");
}

#[test]
fn what_the_agent_knows_after_a_break_is_so() {
    let mut setup = Setup::new();
    setup.accept(vec![
        operation(Type::Reserve, RESERVED, "op-1"),
        operation(Type::Create, VOLUME, "op-2"),
    ]);
    let told = setup.told();
    setup.world.take(&setup.scheduler);
    let asked = setup.asked(operation(
        Type::Reserve,
        "mem(reservations: [(DYNAMIC,ops)]):1",
        "",
    ));
    let call = setup.world.operator(asked);
    // The first one arrived, and then the connection broke.
    let session = SessionKey(1);
    setup.world.apply(Event::AgentClosed { session });
    let agent = setup.agent.clone();
    setup.world.hello(2, Some(&agent), 2);
    let reserved = format!("cpus:3;mem:4096;disk:800;{RESERVED}");
    let sync = link::Sync {
        operations: vec![message_of(&told[0], OperationState::OperationFinished)],
        ..Default::default()
    };
    setup.world.sync(2, &reserved, sync.clone());
    let heard = setup.heard();
    let dropped: Vec<_> = heard
        .iter()
        .map(|s| {
            (
                s.operation_id.as_ref().expect("one").value.as_str(),
                s.state(),
            )
        })
        .collect();
    assert_eq!(dropped, [("op-2", OperationState::OperationDropped)]);
    assert!(matches!(setup.world.replies[&call], Reply::Conflict(_)));
    let total = Resources::parse(&reserved, "*").expect("resources");
    assert_eq!(
        Resources::parse(&setup.total(), "*").expect("resources"),
        total
    );

    // The next leader learns of it from the agent; its framework comes back within ten minutes, or never.
    for (returns, acks) in [(true, 0), (false, 1)] {
        let mut next = setup.world.failover();
        next.hello(1, Some(&agent), 3);
        next.sync(1, &reserved, sync.clone());
        let mut info = framework("f", "peer");
        info.id = Some(v1::FrameworkId {
            value: setup.scheduler.id.clone(),
        });
        let scheduler = match returns {
            true => next.subscribe(info),
            false => setup.scheduler.clone(),
        };
        let agent = agent.clone();
        let mut after = Setup {
            world: next,
            scheduler,
            agent,
        };
        after.world.take_frames(session);
        after.ended(&told[0], OperationState::OperationFinished);
        assert_eq!(after.heard().len(), usize::from(returns));
        after.world.wait(Duration::from_mins(10));
        assert_eq!(after.acknowledged(), acks);
        assert_eq!(after.listed(), 1 - acks);
    }
}

#[test]
fn the_states_of_operations_on_agents_that_are_away() {
    let gone = |setup: &Setup| OperatorCall::MarkGone {
        agent_id: AgentId::from(setup.agent.as_str()),
        at: Default::default(),
    };
    let reconcile = |setup: &mut Setup, ids: &[&str]| {
        let agent_id = Some(v1::AgentId {
            value: setup.agent.clone(),
        });
        let operations = ids.iter().map(|id| call::reconcile_operations::Operation {
            operation_id: v1::OperationId {
                value: (*id).into(),
            },
            agent_id: agent_id.clone(),
            ..Default::default()
        });
        let call = scheduler::Call {
            r#type: Some(Call::ReconcileOperations.into()),
            reconcile_operations: Some(call::ReconcileOperations {
                operations: operations.collect(),
            }),
            ..Default::default()
        };
        setup.world.call(&setup.scheduler, call);
        let heard = setup.heard();
        heard.iter().map(OperationStatus::state).collect::<Vec<_>>()
    };
    use OperationState as State;
    let mut setup = Setup::new();
    setup.accept(vec![operation(Type::Reserve, RESERVED, "op")]);
    setup.heard();
    assert_eq!(
        reconcile(&mut setup, &["op", "other"]),
        [State::OperationPending, State::OperationUnknown]
    );
    assert_eq!(reconcile(&mut setup, &[]), [State::OperationPending]);
    setup.world.apply(Event::AgentSilent {
        session: SessionKey(1),
    });
    let states =
        |heard: Vec<OperationStatus>| heard.iter().map(OperationStatus::state).collect::<Vec<_>>();
    assert_eq!(states(setup.heard()), [State::OperationUnreachable]);
    assert_eq!(
        reconcile(&mut setup, &["op"]),
        [State::OperationUnreachable]
    );

    let mut setup = Setup::new();
    setup.accept(vec![operation(Type::Reserve, RESERVED, "op")]);
    setup.heard();
    setup.world.operate(gone(&setup));
    assert_eq!(states(setup.heard()), [State::OperationGoneByOperator]);
    assert_eq!(
        reconcile(&mut setup, &["op"]),
        [State::OperationGoneByOperator]
    );
    assert_eq!(setup.listed(), 0);
}

#[test]
fn a_shared_volume_is_offered_while_it_is_used() {
    let mut info = framework("f", "peer");
    info.capabilities.push(framework_info::Capability {
        r#type: Some(framework_info::capability::Type::SharedResources.into()),
    });
    let mut setup = Setup::with(info);
    let shared = "disk(reservations: [(DYNAMIC,peer)])[v:data]<SHARED>:100";
    setup.accept(vec![
        operation(Type::Reserve, RESERVED, ""),
        operation(Type::Create, shared, ""),
    ]);
    let total = setup.total();
    assert!(total.contains("<SHARED>"), "{total}");
    for round in 0..2 {
        let offer = setup.offer();
        let volumes = offer.resources.iter().filter(|r| r.shared.is_some());
        assert_eq!(volumes.count(), 1, "round {round}");
        let call = accept(&offer.id.value, Vec::new());
        setup.world.call(&setup.scheduler, call);
    }
    setup.accept(vec![operation(Type::Destroy, shared, "op")]);
    assert!(!setup.total().contains("<SHARED>"));
}
