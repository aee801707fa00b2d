//! Random histories: the invariants hold after every event, and equal histories give equal effects.

mod support;

use std::time::Duration;

use proptest::prelude::*;
use support::{Scheduler, World, framework, task};
use tepui_model::allocation::Holding;
use tepui_model::id::{AgentId, Role};
use tepui_model::time::Wall;
use tepui_proto::Message as _;
use tepui_proto::v1::{
    self, Task, TaskState, maintenance, quota, scheduler, scheduler::call::Type, value,
};
use tepui_proto::{Wire, link};
use tepui_state_master::{Event, OperatorCall, SessionKey};

const AGENT: &str = "cpus:4;mem:4096;disk:10240;ports:[31000-32000]";

/// One step: what, and two numbers that choose to whom.
type Step = (u8, u8, u8);

#[derive(Default)]
struct History {
    schedulers: Vec<Scheduler>,
    agents: Vec<(String, u64)>,
    sessions: u64,
    tasks: u32,
    uuids: u8,
}

impl History {
    fn step(&mut self, world: &mut World, (what, one, two): Step) {
        match what % 30 {
            0 => self.subscribe(world, one),
            1 => self.resubscribe(world, one, two),
            2 => self.with_scheduler(one, |scheduler| {
                world.apply(Event::StreamClosed {
                    stream: scheduler.stream,
                });
            }),
            3 => {
                self.sessions += 1;
                let session = self.sessions;
                world.hello(session, None, session);
                // Not so when its machine is down.
                let is_down = !world.state.view().globals.maintenance.down.is_empty();
                if world.frames.contains_key(&SessionKey(session)) && !is_down {
                    let id = world.welcome(session);
                    self.agents.push((id, session));
                    world.sync(session, AGENT, link::Sync::default());
                }
            }
            4 => self.agent_returns(world, one, two),
            5 => self.with_agent(one, |_, session| {
                world.apply(Event::AgentClosed { session });
            }),
            6 => self.with_agent(one, |_, session| {
                world.apply(Event::AgentSilent { session });
            }),
            7 | 8 | 17..=20 => self.accept(world, one, two),
            9 => self.decline(world, one, two),
            10 | 11 | 21..=24 => self.update(world, one, two),
            12 | 25..=27 => self.acknowledge(world, one, two),
            13 => self.simple(
                world,
                one,
                [Type::Revive, Type::Suppress, Type::Reconcile],
                two,
            ),
            14 => self.kill(world, one, two),
            15 => match two % 8 {
                0 => self.simple(world, one, [Type::Teardown; 3], 0),
                1 => self.with_agent(one, |_, session| {
                    world.apply(Event::AgentUnregister { session });
                }),
                2 => {
                    world.allocator = support::Greedy::default();
                    world.apply(Event::AllocatorRestarted);
                }
                3 => self.mark_gone(world, one),
                _ => self.operator(world, one, two),
            },
            16 => world.wait(Duration::from_millis(u64::from(one) * u64::from(two) * 10)),
            _ => world.wait(Duration::from_millis(500)),
        }
    }

    fn with_scheduler(&self, which: u8, act: impl FnOnce(&Scheduler)) {
        if !self.schedulers.is_empty() {
            act(&self.schedulers[which as usize % self.schedulers.len()]);
        }
    }

    fn with_agent(&self, which: u8, act: impl FnOnce(&str, SessionKey)) {
        if !self.agents.is_empty() {
            let (id, session) = &self.agents[which as usize % self.agents.len()];
            act(id, SessionKey(*session));
        }
    }

    fn subscribe(&mut self, world: &mut World, one: u8) {
        if self.schedulers.len() >= 6 {
            return;
        }
        let mut info = framework("random", ["a", "b", "a/b"][one as usize % 3]);
        info.checkpoint = Some(one.is_multiple_of(2));
        info.failover_timeout = Some(f64::from(one % 5) * 10.0);
        let scheduler = world.subscribe(info);
        self.schedulers.push(scheduler);
    }

    fn resubscribe(&mut self, world: &mut World, one: u8, two: u8) {
        if self.schedulers.is_empty() {
            return;
        }
        let index = one as usize % self.schedulers.len();
        let mut info = framework("random", ["a", "b", "c"][two as usize % 3]);
        info.id = Some(v1::FrameworkId {
            value: self.schedulers[index].id.clone(),
        });
        let scheduler = world.subscribe(info);
        if !scheduler.id.is_empty() {
            self.schedulers[index] = scheduler;
        }
    }

    /// The agent's new session tells some of the tasks that the master knows.
    fn agent_returns(&mut self, world: &mut World, one: u8, two: u8) {
        if self.agents.is_empty() {
            return;
        }
        let index = one as usize % self.agents.len();
        self.sessions += 1;
        let session = self.sessions;
        let id = self.agents[index].0.clone();
        let mut known: Vec<Task> = Vec::new();
        let mut infos = Vec::new();
        let view = world.state.view();
        for framework in &view.frameworks {
            for row in framework.tasks.iter() {
                let mut task = Task::decode(row.spec.clone()).expect("a task");
                task.set_state(row.state);
                if task.agent_id.value == id {
                    known.push(task);
                }
            }
            for row in framework.unreachable.iter() {
                let task = Task::decode(row.bytes.clone()).expect("a task");
                if task.agent_id.value == id {
                    known.push(task);
                }
            }
            let info = v1::FrameworkInfo::decode(framework.row.info.clone()).expect("an info");
            infos.push(link::SyncFramework {
                info: Some(info),
                completed: false,
            });
        }
        world.hello(session, Some(&id), session);
        let frames = world.take_frames(SessionKey(session));
        if !matches!(frames[..], [link::link_frame::Body::Welcome(_)]) {
            return;
        }
        self.agents[index].1 = session;
        let tasks = known
            .into_iter()
            .enumerate()
            .filter(|(at, _)| (two >> (at % 8)) & 1 == 1)
            .map(|(at, mut task)| {
                let states = [TaskState::TaskRunning, TaskState::TaskFinished];
                task.set_state(states[(at + two as usize) % 2]);
                link::SyncTask {
                    task: task.encode_to_vec().into(),
                }
            })
            .collect();
        let sync = link::Sync {
            tasks,
            frameworks: infos,
            ..Default::default()
        };
        world.sync(session, AGENT, sync);
    }

    fn offers_of(world: &mut World, scheduler: &Scheduler) -> Vec<(String, String)> {
        let view = world.state.view();
        let mine = view
            .frameworks
            .iter()
            .find(|framework| framework.row.id == scheduler.id.as_str());
        let Some(mine) = mine else { return Vec::new() };
        view.offers
            .iter()
            .filter(|offer| offer.framework == mine.row.key)
            .map(|offer| {
                let agent = view.agent(offer.agent).expect("agent of an offer");
                (offer.id.to_string(), agent.id.to_string())
            })
            .collect()
    }

    fn accept(&mut self, world: &mut World, one: u8, two: u8) {
        let Some(scheduler) = self.pick_scheduler(one) else {
            return;
        };
        let offers = Self::offers_of(world, &scheduler);
        let Some((offer, agent)) = offers.get(two as usize % offers.len().max(1)) else {
            return;
        };
        let tasks = (0..=two % 3)
            .map(|n| {
                self.tasks += 1;
                let port = 31000 + self.tasks % 1000;
                let id = format!("t{}", self.tasks - u32::from(n == 2));
                task(
                    &id,
                    agent,
                    &format!(
                        "cpus:{};mem:32;ports:[{port}-{port}]",
                        f64::from(one % 5) / 4.0
                    ),
                )
            })
            .collect();
        world.accept(&scheduler, &[offer], tasks);
    }

    fn decline(&mut self, world: &mut World, one: u8, two: u8) {
        let Some(scheduler) = self.pick_scheduler(one) else {
            return;
        };
        let offers = Self::offers_of(world, &scheduler);
        if let Some((offer, _)) = offers.get(two as usize % offers.len().max(1)) {
            let refuse = [None, Some(0.0), Some(3.0)][two as usize % 3];
            world.decline(&scheduler, offer, refuse);
        }
    }

    fn pick_scheduler(&self, one: u8) -> Option<Scheduler> {
        let count = self.schedulers.len();
        (count > 0).then(|| self.schedulers[one as usize % count].clone())
    }

    /// A task of a framework, with the agent it is on.
    fn pick_task(world: &mut World, scheduler: &Scheduler, two: u8) -> Option<(String, String)> {
        let view = world.state.view();
        let mine = view
            .frameworks
            .iter()
            .find(|framework| framework.row.id == scheduler.id.as_str())?;
        let count = mine.tasks.len();
        let row = mine.tasks.iter().nth(two as usize % count.max(1))?;
        let agent = view.agent(row.agent)?;
        Some((row.id.to_string(), agent.id.to_string()))
    }

    fn update(&mut self, world: &mut World, one: u8, two: u8) {
        let Some(scheduler) = self.pick_scheduler(one) else {
            return;
        };
        let Some((id, agent)) = Self::pick_task(world, &scheduler, two) else {
            return;
        };
        let session = self.agents.iter().find(|(known, _)| *known == agent);
        let session = session.map_or(0, |(_, session)| *session);
        let state = [
            TaskState::TaskRunning,
            TaskState::TaskFinished,
            TaskState::TaskFailed,
            TaskState::TaskStarting,
        ][two as usize % 4];
        self.uuids = self.uuids.wrapping_add(1);
        world.update(session, &scheduler, &agent, &id, state, self.uuids);
    }

    fn acknowledge(&mut self, world: &mut World, one: u8, two: u8) {
        let Some(scheduler) = self.pick_scheduler(one) else {
            return;
        };
        let acknowledge = world.events.get(&scheduler.stream).and_then(|events| {
            let updates: Vec<&v1::TaskStatus> = events
                .iter()
                .filter_map(|event| event.update.as_ref())
                .map(|update| &update.status)
                .filter(|status| status.uuid.is_some())
                .collect();
            let status = updates.get(two as usize % updates.len().max(1))?;
            Some((
                status.agent_id.clone().unwrap_or_default().value,
                status.task_id.value.clone(),
                status.uuid().first().copied().unwrap_or_default(),
            ))
        });
        if let Some((agent, id, uuid)) = acknowledge {
            world.acknowledge(&scheduler, &agent, &id, uuid);
        }
    }

    fn kill(&mut self, world: &mut World, one: u8, two: u8) {
        let Some(scheduler) = self.pick_scheduler(one) else {
            return;
        };
        let Some((id, _)) = Self::pick_task(world, &scheduler, two) else {
            return;
        };
        world.call(
            &scheduler,
            scheduler::Call {
                r#type: Some(Type::Kill as i32),
                kill: Some(scheduler::call::Kill {
                    task_id: v1::TaskId { value: id },
                    ..Default::default()
                }),
                ..Default::default()
            },
        );
    }

    fn simple(&mut self, world: &mut World, one: u8, kinds: [Type; 3], two: u8) {
        if let Some(scheduler) = self.pick_scheduler(one) {
            world.simple(&scheduler, kinds[two as usize % 3]);
        }
    }

    fn mark_gone(&mut self, world: &mut World, one: u8) {
        self.with_agent(one, |id, _| {
            world.operator(OperatorCall::MarkGone {
                agent_id: AgentId::from(id),
                at: Wall(0),
            });
        });
    }

    /// What operators decide of roles, agents and machines.
    fn operator(&mut self, world: &mut World, one: u8, two: u8) {
        let role = ["a", "b", "c"][one as usize % 3];
        let amount = value::Scalar {
            value: f64::from(two % 7),
        };
        let machine = Wire(v1::MachineId {
            hostname: Some("localhost".into()),
            ip: Some("127.0.0.1".into()),
        });
        let mut agent_id = AgentId::from("none");
        self.with_agent(one, |id, _| agent_id = id.into());
        world.operator(match two / 8 % 8 {
            0 => OperatorCall::UpdateQuota {
                configs: vec![Wire(quota::QuotaConfig {
                    role: role.into(),
                    guarantees: Default::default(),
                    limits: [("cpus".to_owned(), amount)].into(),
                })],
                force: one.is_multiple_of(2),
            },
            1 => OperatorCall::RemoveQuota {
                role: Role::from(role),
            },
            2 | 3 => OperatorCall::Deactivate { agent_id },
            4 => OperatorCall::Drain {
                agent_id,
                config: Wire(v1::DrainConfig {
                    max_grace_period: None,
                    mark_gone: Some(one.is_multiple_of(4)),
                }),
            },
            5 => OperatorCall::UpdateMaintenance {
                schedule: Wire(maintenance::Schedule {
                    windows: vec![maintenance::Window {
                        machine_ids: vec![machine.0],
                        unavailability: v1::Unavailability::default(),
                    }],
                }),
            },
            6 if one.is_multiple_of(3) => OperatorCall::StartMaintenance {
                machines: vec![machine],
            },
            6 => OperatorCall::StopMaintenance {
                machines: vec![machine],
            },
            _ => OperatorCall::Reactivate { agent_id },
        });
    }
}

fn run(steps: &[Step], mischief: bool) -> World {
    let mut world = World::new();
    world.mischief = mischief;
    let mut history = History::default();
    for step in steps {
        history.step(&mut world, *step);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn invariants_hold_in_random_histories(
        steps in proptest::collection::vec(any::<Step>(), 1..120),
    ) {
        // `World::apply` checks after every event.
        let first = run(&steps, false);
        let second = run(&steps, false);
        prop_assert_eq!(first.all, second.all);
    }

    #[test]
    fn a_wrong_allocator_cannot_offer_twice(
        steps in proptest::collection::vec(any::<Step>(), 1..120),
    ) {
        run(&steps, true);
    }
}

/// Events and effects survive being written down.
#[test]
fn a_recording_can_be_read_back() {
    let steps: Vec<Step> = (0..200)
        .map(|n| (n as u8, (n * 7) as u8, (n * 13) as u8))
        .collect();
    let world = run(&steps, false);
    assert!(world.all.len() > 200);
    for effect in &world.all {
        let bytes = postcard::to_stdvec(effect).expect("effects are plain data");
        let back = postcard::from_bytes(&bytes).expect("written above");
        assert_eq!(effect, &back);
    }
    let event = Event::Proposals {
        round: 3,
        proposals: Vec::<Holding>::new(),
    };
    let bytes = postcard::to_stdvec(&event).expect("events are plain data");
    assert_eq!(postcard::from_bytes::<Event>(&bytes).ok(), Some(event));
}
