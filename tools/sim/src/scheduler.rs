//! A simulated framework: launches, acknowledges, kills, reconciles, and loses its connection.

use std::collections::BTreeMap;
use std::time::Duration;

use tepui_model::resources::Resources;
use tepui_model::time::Mono;
use tepui_proto::v1::scheduler::{self, call::Type};
use tepui_proto::v1::{self, FrameworkInfo, TaskState, TaskStatus};
use tepui_proto::{Wire, convert};
use tepui_state_master::{Event, Reply, StreamKey};

use crate::simulation::Simulation;
use crate::step::Step;

/// What a framework believes of a task.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    agent: String,
    state: TaskState,
}

/// One framework.
#[derive(Debug)]
pub(crate) struct Scheduler {
    info: FrameworkInfo,
    stream: Option<Stream>,
    /// Connections made so far; messages of older ones are nobody's.
    connection: u64,
    pub(crate) tasks: BTreeMap<String, Known>,
    left: u32,
    launched: u32,
    call_at: Mono,
    /// Torn down, or given up by the master: nothing is promised about its tasks any more.
    pub(crate) over: bool,
    /// Until when it cannot reach the master.
    pub(crate) away_until: Mono,
    /// It asks for its end until it has it.
    leaving: bool,
}

#[derive(Clone, Debug)]
struct Stream {
    master_run: u32,
    key: StreamKey,
    id: String,
    /// Events arrive in order.
    at: Mono,
    connection: u64,
}

/// What comes down a stream.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    Event(Box<scheduler::Event>),
    Close,
}

impl Scheduler {
    pub(crate) fn new(info: FrameworkInfo, tasks: u32) -> Self {
        Self {
            info,
            stream: None,
            connection: 0,
            tasks: BTreeMap::new(),
            left: tasks,
            launched: 0,
            call_at: Mono(0),
            over: false,
            away_until: Mono(0),
            leaving: false,
        }
    }

    fn id(&self) -> Option<v1::FrameworkId> {
        self.info.id.clone()
    }

    pub(crate) fn framework_id(&self) -> Option<String> {
        self.id().map(|id| id.value)
    }

    fn living(&self) -> impl Iterator<Item = (&String, &Known)> {
        self.tasks
            .iter()
            .filter(|(_, known)| !known.state.is_terminal())
    }

    /// Whether it knows the end of everything it launched. `agents` are the ids by which agents go now.
    pub(crate) fn is_settled(&self, agents: &[&str]) -> bool {
        let open = |known: &Known| match known.state {
            // Where nobody knows the task any more, there is nothing else to wait for.
            TaskState::TaskUnknown => false,
            // Nor for an agent that goes by another id now: that one stays away, until an operator gives it up.
            TaskState::TaskUnreachable => agents.contains(&known.agent.as_str()),
            _ => true,
        };
        self.over || (self.stream.is_some() && !self.living().any(|(_, known)| open(known)))
    }

    /// Tasks whose end it does not know.
    pub(crate) fn open_tasks(&self) -> Vec<String> {
        self.living()
            .map(|(id, known)| format!("{id} {}", known.state.as_str_name()))
            .collect()
    }
}

fn work() -> v1::CommandInfo {
    v1::CommandInfo {
        value: Some("work".into()),
        ..Default::default()
    }
}

fn executor(id: &str) -> v1::ExecutorInfo {
    // The least that the executor of a group has.
    let least = Resources::parse("cpus:0.1;mem:32;disk:1", "*").expect("a text of ours");
    v1::ExecutorInfo {
        r#type: Some(v1::executor_info::Type::Custom.into()),
        executor_id: v1::ExecutorId { value: id.into() },
        command: Some(work()),
        resources: convert::to_proto(&least),
        ..Default::default()
    }
}

impl Simulation {
    /// SUBSCRIBE, if it is not connected.
    pub(crate) fn subscribe(&mut self, index: usize) -> Result<(), String> {
        if self.is_away(self.schedulers[index].away_until) {
            let again = self.delay(1_000, 5_000);
            self.after(again, Step::Subscribe { scheduler: index });
            return Ok(());
        }
        let scheduler = &mut self.schedulers[index];
        if scheduler.over || scheduler.stream.is_some() {
            return Ok(());
        }
        scheduler.connection += 1;
        let request = scheduler::Call {
            framework_id: scheduler.id(),
            r#type: Some(Type::Subscribe as i32),
            subscribe: Some(scheduler::call::Subscribe {
                framework_info: scheduler.info.clone(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let retry = self.delay(3_000, 8_000);
        self.after(retry, Step::Subscribe { scheduler: index });
        self.call_master(index, |call| Event::Subscribe {
            call,
            principal: None,
            request: Wire(request),
            refused: None,
        })?;
        Ok(())
    }

    pub(crate) fn open_stream(
        &mut self,
        index: usize,
        master_run: u32,
        key: StreamKey,
        id: String,
    ) {
        let scheduler = &mut self.schedulers[index];
        scheduler.stream = Some(Stream {
            master_run,
            key,
            id,
            at: self.now.mono,
            connection: scheduler.connection,
        });
    }

    pub(crate) fn tell_scheduler(&mut self, run: u32, key: StreamKey, what: Down) {
        let latency = self.delay(0, 20);
        let now = self.now.mono;
        let found = self
            .schedulers
            .iter_mut()
            .enumerate()
            .find_map(|(index, scheduler)| {
                let stream = scheduler.stream.as_mut()?;
                (stream.key == key && stream.master_run == run).then_some((index, stream))
            });
        if let Some((scheduler, stream)) = found {
            stream.at = stream.at.max(now + latency);
            let (at, connection) = (stream.at, stream.connection);
            self.at(
                at,
                Step::Scheduled {
                    scheduler,
                    connection,
                    what,
                },
            );
        }
    }

    /// The scheduler's connection breaks; the master hears of it in its time.
    pub(crate) fn lose_stream(&mut self, index: usize) {
        let Some(stream) = self.schedulers[index].stream.take() else {
            return;
        };
        for task in self.schedulers[index].tasks.keys() {
            self.oracle.missed(task);
        }
        self.schedulers[index].connection += 1;
        let (heard, back) = (self.delay(0, 3_000), self.delay(10, 4_000));
        let gone = Step::StreamGone {
            run: stream.master_run,
            stream: stream.key,
        };
        self.after(heard, gone);
        self.after(back, Step::Subscribe { scheduler: index });
    }

    /// Something came down a stream.
    pub(crate) fn scheduled(
        &mut self,
        index: usize,
        connection: u64,
        what: Down,
    ) -> Result<(), String> {
        if self.schedulers[index].connection != connection {
            return Ok(());
        }
        let event = match what {
            Down::Close => {
                self.schedulers[index].stream = None;
                self.schedulers[index].connection += 1;
                let back = self.delay(10, 2_000);
                self.after(back, Step::Subscribe { scheduler: index });
                return Ok(());
            }
            Down::Event(event) => event,
        };
        match event.r#type() {
            scheduler::event::Type::Subscribed => {
                let id = event.subscribed.map(|subscribed| subscribed.framework_id);
                self.schedulers[index].info.id = id;
                if self.schedulers[index].leaving {
                    self.tear_down(index);
                }
                self.reconcile(index);
                Ok(())
            }
            scheduler::event::Type::Offers => {
                for offer in event.offers.unwrap_or_default().offers {
                    self.answer(index, &offer);
                }
                Ok(())
            }
            scheduler::event::Type::Update => {
                let status = event.update.map(|update| update.status).unwrap_or_default();
                self.updated(index, status)
            }
            scheduler::event::Type::UpdateOperationStatus => {
                let update = event.update_operation_status.unwrap_or_default();
                self.operation_told(index, update.status)
            }
            scheduler::event::Type::Error => {
                let message = event.error.map(|error| error.message).unwrap_or_default();
                if message == "Framework has been removed" {
                    self.schedulers[index].over = true;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Launches what fits, or refuses.
    fn answer(&mut self, index: usize, offer: &v1::Offer) {
        let mut left = convert::resources(&offer.resources)
            .unwrap_or_default()
            .unallocate();
        let operations = self.framework_operates(index, offer, &mut left);
        let mut tasks = Vec::new();
        let wanted = if self.faulty { self.rng.below(4) } else { 0 };
        for _ in 0..wanted {
            let cpus = 0.5 * (1 + self.rng.below(4)) as f64;
            let mut need = Resources::cpus_mem(cpus, 64.0);
            need += &self.something_reserved(&left);
            let Some(rest) = left.try_sub(&need) else {
                break;
            };
            let scheduler = &mut self.schedulers[index];
            if scheduler.left == 0 {
                break;
            }
            left = rest;
            scheduler.left -= 1;
            scheduler.launched += 1;
            let id = format!("f{index}-t{}", scheduler.launched);
            let known = Known {
                agent: offer.agent_id.value.clone(),
                state: TaskState::TaskStaging,
            };
            scheduler.tasks.insert(id.clone(), known);
            tasks.push(v1::TaskInfo {
                name: id.clone(),
                task_id: v1::TaskId { value: id },
                agent_id: offer.agent_id.clone(),
                resources: convert::to_proto(&need),
                command: Some(work()),
                ..Default::default()
            });
        }
        // A command, one of two executors that take tasks one by one, or one that takes groups.
        let manner = self.rng.below(6);
        if (1..=2).contains(&manner) {
            for task in &mut tasks {
                task.command = None;
                task.executor = Some(executor(&format!("x{manner}")));
            }
        }
        let refuse = [0.0, 1.0, 5.0, 30.0][self.rng.below(4) as usize];
        let filters = Some(v1::Filters {
            refuse_seconds: Some(refuse),
        });
        let offer_ids = vec![offer.id.clone()];
        let launches = !tasks.is_empty();
        let call = if !launches && operations.is_empty() {
            scheduler::Call {
                r#type: Some(Type::Decline as i32),
                decline: Some(scheduler::call::Decline { offer_ids, filters }),
                ..Default::default()
            }
        } else {
            let launch = if manner == 3 {
                let framework_id = self.schedulers[index].id();
                v1::offer::Operation {
                    r#type: Some(v1::offer::operation::Type::LaunchGroup as i32),
                    launch_group: Some(v1::offer::operation::LaunchGroup {
                        executor: v1::ExecutorInfo {
                            framework_id,
                            ..executor("groups")
                        },
                        task_group: v1::TaskGroupInfo { tasks },
                    }),
                    ..Default::default()
                }
            } else {
                v1::offer::Operation {
                    r#type: Some(v1::offer::operation::Type::Launch as i32),
                    launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
                    ..Default::default()
                }
            };
            scheduler::Call {
                r#type: Some(Type::Accept as i32),
                accept: Some(scheduler::call::Accept {
                    offer_ids,
                    operations: operations
                        .into_iter()
                        .chain(launches.then_some(launch))
                        .collect(),
                    filters,
                }),
                ..Default::default()
            }
        };
        self.send_call(index, call);
    }

    /// Takes note, and acknowledges; now and then the acknowledgement is forgotten.
    fn updated(&mut self, index: usize, status: TaskStatus) -> Result<(), String> {
        self.oracle.told(&status)?;
        let id = status.task_id.value.clone();
        let reregistered = status.reason() == v1::task_status::Reason::AgentReregistered;
        let from_executor = status.uuid.is_some();
        if let Some(known) = self.schedulers[index].tasks.get_mut(&id) {
            // A task that was given up may come back; its own end is its last word.
            if !known.state.is_terminal() || reregistered || from_executor {
                known.state = status.state();
            }
        }
        if from_executor && !(self.faulty && self.rng.below(20) == 0) {
            self.oracle.acknowledged(&status)?;
            self.send_call(
                index,
                scheduler::Call {
                    r#type: Some(Type::Acknowledge as i32),
                    acknowledge: Some(scheduler::call::Acknowledge {
                        agent_id: status.agent_id.unwrap_or_default(),
                        task_id: status.task_id,
                        uuid: status.uuid.unwrap_or_default(),
                    }),
                    ..Default::default()
                },
            );
        }
        Ok(())
    }

    /// Asks for all tasks whose end it does not know, and for its operations.
    pub(crate) fn reconcile(&mut self, index: usize) {
        self.reconcile_operations(index);
        let tasks: Vec<_> = self.schedulers[index]
            .living()
            .map(|(id, known)| scheduler::call::reconcile::Task {
                task_id: v1::TaskId { value: id.clone() },
                agent_id: Some(v1::AgentId {
                    value: known.agent.clone(),
                }),
            })
            .collect();
        if !tasks.is_empty() {
            self.send_call(
                index,
                scheduler::Call {
                    r#type: Some(Type::Reconcile as i32),
                    reconcile: Some(scheduler::call::Reconcile { tasks }),
                    ..Default::default()
                },
            );
        }
    }

    /// Something that schedulers do of themselves, from time to time.
    pub(crate) fn scheduler_acts(&mut self, index: usize) {
        let wait = self.delay(2_000, 12_000);
        self.after(wait, Step::SchedulerActs { scheduler: index });
        let chance = self.rng.below(10);
        if !self.faulty || chance < 4 {
            return self.reconcile(index);
        }
        let simple = |kind: Type| scheduler::Call {
            r#type: Some(kind as i32),
            ..Default::default()
        };
        match chance {
            4 | 5 => {
                let living: Vec<String> = self.schedulers[index]
                    .living()
                    .map(|(id, _)| id.clone())
                    .collect();
                if living.is_empty() {
                    return;
                }
                let value = living[self.rng.below(living.len() as u64) as usize].clone();
                let mut call = simple(Type::Kill);
                call.kill = Some(scheduler::call::Kill {
                    task_id: v1::TaskId { value },
                    ..Default::default()
                });
                self.send_call(index, call);
            }
            6 => self.send_call(index, simple(Type::Suppress)),
            7 if self.rng.below(30) == 0 => {
                self.schedulers[index].leaving = true;
                self.tear_down(index);
            }
            _ => self.send_call(index, simple(Type::Revive)),
        }
    }

    fn tear_down(&mut self, index: usize) {
        let call = scheduler::Call {
            r#type: Some(Type::Teardown as i32),
            ..Default::default()
        };
        self.send_call(index, call);
    }

    /// Calls of one framework arrive in order.
    pub(crate) fn send_call(&mut self, index: usize, mut call: scheduler::Call) {
        let latency = self.delay(0, 20) + self.held_up();
        let now = self.now.mono;
        if self.strikes("calls lost", self.chances.loss) {
            return;
        }
        // Another ACCEPT of the same offers would be an error of the scheduler, as with Mesos.
        let once = matches!(call.r#type(), Type::Accept | Type::Teardown);
        let again = !once && self.strikes("calls repeated", self.chances.duplicate);
        let scheduler = &mut self.schedulers[index];
        let Some(stream) = &scheduler.stream else {
            return;
        };
        call.framework_id = scheduler.info.id.clone();
        scheduler.call_at = scheduler.call_at.max(now + latency);
        let (at, stream_id) = (scheduler.call_at, stream.id.clone());
        for _ in 0..1 + u32::from(again) {
            let step = Step::Call {
                scheduler: index,
                stream_id: stream_id.clone(),
                call: Box::new(call.clone()),
            };
            self.at(at, step);
        }
    }

    pub(crate) fn called(
        &mut self,
        index: usize,
        stream_id: String,
        request: scheduler::Call,
    ) -> Result<(), String> {
        self.call_master(index, |call| Event::SchedulerCall {
            call,
            principal: None,
            stream_id,
            request: Wire(request),
            refused: Vec::new(),
        })?;
        Ok(())
    }

    pub(crate) fn replied(&mut self, index: usize, reply: &Reply) -> Result<(), String> {
        let _ = index;
        match reply {
            // The stream was replaced meanwhile, the framework is gone, or a new leader does not know the stream.
            Reply::Accepted | Reply::Ok | Reply::BadRequest(_) | Reply::Forbidden(_) => Ok(()),
            other => Err(format!("a call was answered with {other:?}")),
        }
    }

    pub(crate) fn stream_gone(&mut self, run: u32, stream: StreamKey) -> Result<(), String> {
        if self.master.as_ref().is_some_and(|master| master.run == run) {
            return self.master_event(Event::StreamClosed { stream });
        }
        Ok(())
    }
}

/// Info of a framework of a run.
pub(crate) fn info(
    index: usize,
    checkpoint: bool,
    partition_aware: bool,
    failover: Duration,
) -> FrameworkInfo {
    use v1::framework_info::{Capability, capability::Type};
    let mut capabilities = vec![Type::MultiRole, Type::ReservationRefinement];
    // The second framework of role a sees no shared volumes.
    if index < 2 {
        capabilities.push(Type::SharedResources);
    }
    if partition_aware {
        capabilities.push(Type::PartitionAware);
    }
    FrameworkInfo {
        user: "root".into(),
        name: format!("framework {index}"),
        roles: vec![["a", "b"][index % 2].into()],
        failover_timeout: Some(failover.as_secs_f64()),
        checkpoint: Some(checkpoint),
        capabilities: capabilities
            .into_iter()
            .map(|kind| Capability {
                r#type: Some(kind as i32),
            })
            .collect(),
        ..Default::default()
    }
}
