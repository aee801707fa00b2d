//! Operations on an agent's resources: nothing that was told is forgotten, wherever the agent process ends.

use std::collections::BTreeSet;

use tepui_model::Resources;
use tepui_model::resources::Resource;
use tepui_model::time::{Mono, Now, Wall};
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{AckOperation, ApplyOperation, LinkFrame, OperationUpdate, Welcome};
use tepui_proto::v1::offer::{self, operation, operation::Type};
use tepui_proto::v1::{self, OperationState};
use tepui_proto::{Wire, convert};
use tepui_state_agent::{AgentSettings, AgentState, Effect, Event, RecoveredAgent, ResourceRecord};

const GIVEN: &str = "cpus:4;mem:1024;disk:1000";
const RESERVED: &str = "disk(reservations: [(DYNAMIC,a)]):200";
const VOLUME: &str = "disk(reservations: [(DYNAMIC,a)])[v:data]:100";

fn parse(text: &str) -> Resources {
    Resources::parse(text, "*").expect("resources of a test")
}

/// An agent with a disk, which may be full, and the master it talks to.
struct World {
    state: AgentState,
    now: Now,
    session: u64,
    record: ResourceRecord,
    /// Volumes that have a directory.
    data: BTreeSet<String>,
    full: bool,
    told: Vec<OperationUpdate>,
    synced: Option<(Resources, Vec<v1::Operation>)>,
    /// Effects that are done before the process ends.
    left: usize,
    dead: bool,
}

fn fresh() -> AgentState {
    let info = v1::AgentInfo {
        resources: convert::to_proto(&parse(GIVEN)),
        ..Default::default()
    };
    AgentState::new(AgentSettings::new(1, info, "127.0.0.1"))
}

fn name(volume: &Resource) -> String {
    let persistence = volume.disk().and_then(|disk| disk.persistence.clone());
    persistence.expect("a volume").id.to_string()
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: fresh(),
            now: Now {
                mono: Mono(1),
                wall: Wall(1),
            },
            session: 0,
            record: ResourceRecord::default(),
            data: BTreeSet::new(),
            full: false,
            told: Vec::new(),
            synced: None,
            left: usize::MAX,
            dead: false,
        };
        world.start();
        world
    }

    /// A new process, which registers.
    fn start(&mut self) {
        (self.state, self.left, self.dead) = (fresh(), usize::MAX, false);
        let total = parse(GIVEN).with_made(&self.record.made);
        self.feed(Event::Recovered(RecoveredAgent {
            agent_id: Some("S0".into()),
            total: Some(total.expect("the agent has it")),
            resources: self.record.clone(),
            ..Default::default()
        }));
        self.connect();
    }

    fn connect(&mut self) {
        self.session += 1;
        let agent_id = Some(v1::AgentId { value: "S0".into() });
        self.feed(Event::Connected {
            session: self.session,
            welcome: Wire(Welcome {
                agent_id,
                ..Default::default()
            }),
        });
    }

    fn feed(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.state.apply(event, self.now, &mut effects);
        assert_eq!(self.state.check(), Ok(()));
        for effect in effects {
            if self.left == 0 {
                self.dead = true;
                return;
            }
            self.left -= 1;
            if let Err(failed) = self.perform(effect) {
                // Nothing that follows is done.
                return self.feed(*failed);
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Result<(), Box<Event>> {
        match effect {
            Effect::CheckpointResources { operation, record } => {
                if !self.full {
                    self.record = record;
                } else if let Some(operation) = operation {
                    let message = "no space".into();
                    return Err(Box::new(Event::OperationFailed { operation, message }));
                }
            }
            Effect::MakeVolumes { volumes, .. } => self.data.extend(volumes.iter().map(name)),
            Effect::RemoveVolumes { volumes } => {
                volumes.iter().for_each(|volume| {
                    self.data.remove(&name(volume));
                });
            }
            Effect::Sync {
                total, operations, ..
            } => {
                let total: Vec<_> = total.into_iter().map(|r| r.0).collect();
                let total = convert::resources(&total).expect("resources");
                self.synced = Some((total, operations.into_iter().map(|o| o.0).collect()));
            }
            Effect::ToMaster { frame, .. } => {
                if let Some(Body::OperationUpdate(update)) = frame.0.body {
                    self.told.push(update);
                }
            }
            Effect::CloseSession { session, .. } => self.feed(Event::Disconnected { session }),
            Effect::CheckpointAgent { .. } => {}
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    fn master(&mut self, body: Body) {
        let frame = Wire(LinkFrame {
            body: Some(body),
            ..Default::default()
        });
        let session = self.session;
        self.feed(Event::FromMaster { session, frame });
    }

    fn apply(&mut self, kind: Type, text: &str, uuid: u8) {
        let (resources, volumes) = (
            convert::to_proto(&parse(text)),
            convert::to_proto(&parse(text)),
        );
        let mut operation = offer::Operation {
            r#type: Some(kind.into()),
            ..Default::default()
        };
        match kind {
            Type::Reserve => {
                operation.reserve = Some(operation::Reserve {
                    resources,
                    ..Default::default()
                });
            }
            Type::Create => operation.create = Some(operation::Create { volumes }),
            _ => operation.destroy = Some(operation::Destroy { volumes }),
        }
        self.master(Body::ApplyOperation(ApplyOperation {
            operation: Some(Box::new(operation)),
            operation_uuid: vec![uuid; 16].into(),
            ..Default::default()
        }));
    }

    fn acknowledge(&mut self, update: &OperationUpdate) {
        let status = update.status.clone().expect("one");
        self.master(Body::AckOperation(AckOperation {
            operation_uuid: update.operation_uuid.clone(),
            status_uuid: status.uuid.expect("it wants to be").value,
        }));
    }

    fn states(&self) -> Vec<OperationState> {
        let statuses = self.told.iter().filter_map(|update| update.status.as_ref());
        statuses.map(v1::OperationStatus::state).collect()
    }

    /// What the newest Sync said of volumes is what has a directory.
    fn check_volumes(&self) {
        let (total, _) = self.synced.as_ref().expect("a Sync");
        let volumes: BTreeSet<String> = total.persistent_volumes().iter().map(name).collect();
        // A volume that was not recorded may have left an empty directory.
        assert!(
            volumes.is_subset(&self.data),
            "{volumes:?} of {:?}",
            self.data
        );
    }
}

#[test]
fn an_end_is_told_until_it_is_acknowledged() {
    let mut world = World::new();
    world.apply(Type::Reserve, RESERVED, 1);
    assert_eq!(world.states(), [OperationState::OperationFinished]);
    // What is repeated is not done twice.
    world.apply(Type::Reserve, RESERVED, 1);
    world.now.mono = world.state.next_deadline().expect("a retry");
    world.feed(Event::Tick);
    world.start();
    assert_eq!(world.states(), [OperationState::OperationFinished; 4]);
    let (total, operations) = world.synced.clone().expect("a Sync");
    assert_eq!(
        total,
        parse(&format!("cpus:4;mem:1024;disk:800;{RESERVED}"))
    );
    assert_eq!(operations.len(), 1);
    let first = world.told[0].clone();
    assert!(world.told.iter().all(|update| *update == first));
    world.acknowledge(&first);
    assert_eq!(world.state.next_deadline(), None);
    world.start();
    assert_eq!(world.told.len(), 4);
    let (again, operations) = world.synced.clone().expect("a Sync");
    assert_eq!((again, operations.len()), (total, 0));
}

#[test]
fn what_was_told_is_so_wherever_the_process_ends() {
    let steps: [(Type, &str); 3] = [
        (Type::Reserve, RESERVED),
        (Type::Create, VOLUME),
        (Type::Destroy, VOLUME),
    ];
    for dies_in in 0..steps.len() {
        for done in 0..5 {
            let mut world = World::new();
            for (kind, text) in &steps[..dies_in] {
                world.apply(*kind, text, *kind as u8);
            }
            world.told.clear();
            let before = world.state.resources().clone();
            let (kind, text) = steps[dies_in];
            world.left = done;
            world.apply(kind, text, 9);
            let told = world.states() == [OperationState::OperationFinished];
            let wanted = world.state.resources().clone();
            assert_ne!(wanted, before);
            let died = world.dead;
            world.start();
            let (total, operations) = world.synced.clone().expect("a Sync");
            let is_done = operations.iter().any(|one| *one.uuid.value == [9; 16]);
            assert!(
                is_done || !told,
                "{kind:?} was told and is forgotten after {done} effects"
            );
            assert_eq!(total, if is_done { wanted } else { before });
            assert!(died || is_done);
            world.check_volumes();
            if kind == Type::Destroy {
                assert_eq!(world.data.is_empty(), is_done, "after {done} effects");
            }
        }
    }
}

#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    let mut world = World::new();
    world.apply(Type::Reserve, RESERVED, 1);
    let before = world.state.resources().clone();
    world.full = true;
    world.apply(Type::Create, VOLUME, 2);
    let states = [
        OperationState::OperationFinished,
        OperationState::OperationFailed,
    ];
    assert_eq!(world.states(), states);
    assert_eq!(*world.state.resources(), before);
    // The master took it for done: it learns better with the next Sync.
    assert!(world.state.master().is_none());
    world.connect();
    assert_eq!(world.synced.clone().expect("a Sync").0, before);
}

#[test]
fn what_does_not_fit_is_an_error_and_a_reason_to_tell_everything() {
    let mut world = World::new();
    let before = world.state.resources().clone();
    world.apply(Type::Destroy, VOLUME, 1);
    assert_eq!(world.states(), [OperationState::OperationError]);
    assert_eq!(*world.state.resources(), before);
    world.connect();
    assert_eq!(world.synced.clone().expect("a Sync").1.len(), 1);
    let outdated = ApplyOperation {
        operation: Some(Box::default()),
        operation_uuid: vec![2; 16].into(),
        resource_version: vec![7; 16].into(),
        ..Default::default()
    };
    world.told.clear();
    world.master(Body::ApplyOperation(outdated));
    assert_eq!(world.states(), [OperationState::OperationDropped]);
}
