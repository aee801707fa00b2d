//! The executor of task groups.
//!
//! Each task is a container of its own, nested in the executor's. Mirrors `src/launcher/default_executor.cpp` of Mesos:
//! the order of states, what each update says of the container, which end of one task ends its group. It ends itself
//! when its last task has.

mod types;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tepui_model::id::ContainerId;
use tepui_model::rng::Rng;
use tepui_model::time::{Mono, Now};
use tepui_proto::Wire;
use tepui_proto::v1::executor::{Event, call, event};
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, TaskInfo, TaskState, TaskStatus, framework_info, task_status};

use crate::checks::{Checks, Finding, ProbeId};
use crate::command::{GRACE, OUT_OF_TIME_GRACE, duration, grace, has_capability, new_call};
use crate::{Identity, Intent, describe_status};
pub use types::{ChildEnd, GroupInput, GroupOutput, GroupRecord, TaskRecord};

/// A task that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Member {
    record: TaskRecord,
    info: Wire<TaskInfo>,
    /// Newest state sent, a `TaskState`.
    state: i32,
    pid: Option<u32>,
    checks: Checks,
}

impl Member {
    fn state(&self) -> TaskState {
        TaskState::try_from(self.state).unwrap_or(TaskState::TaskStaging)
    }

    /// What it has to end when nobody says otherwise.
    fn grace(&self) -> Duration {
        grace(self.info.kill_policy.as_ref()).unwrap_or(GRACE)
    }
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DefaultExecutor {
    identity: Identity,
    container: ContainerId,
    rng: Rng,
    /// From SUBSCRIBED.
    killing_state: bool,
    subscribed: bool,
    groups: u64,
    members: Vec<Member>,
    /// It had tasks, or was told to end.
    used: bool,
    finished: bool,
}

impl DefaultExecutor {
    /// The executor of a container that runs; it subscribes.
    pub fn start(
        identity: Identity,
        container: ContainerId,
        seed: u64,
        outputs: &mut Vec<GroupOutput>,
    ) -> Self {
        let executor = Self::new(identity, container, seed);
        executor.subscribe(outputs);
        executor
    }

    /// The executor of a container that an earlier agent process launched, with its tasks that have not ended and the
    /// newest state recorded of each. What its record does not name was never begun: the agent, which is told of the
    /// others when it subscribes, gives that up.
    pub fn resume(
        identity: Identity,
        container: ContainerId,
        seed: u64,
        record: GroupRecord,
        tasks: Vec<(Wire<TaskInfo>, TaskState)>,
        outputs: &mut Vec<GroupOutput>,
    ) -> Self {
        let mut executor = Self::new(identity, container, seed);
        executor.used = true;
        executor.groups = record
            .tasks
            .iter()
            .map(|task| task.group + 1)
            .max()
            .unwrap_or(0);
        for record in record.tasks {
            let task = tasks
                .iter()
                .find(|(info, _)| info.task_id.value == record.task);
            let Some((info, state)) = task.filter(|(_, state)| !state.is_terminal()) else {
                continue;
            };
            executor.members.push(Member {
                record,
                checks: Checks::of(info),
                info: info.clone(),
                state: (*state).into(),
                pid: None,
            });
        }
        executor.subscribe(outputs);
        executor
    }

    fn new(identity: Identity, container: ContainerId, seed: u64) -> Self {
        Self {
            identity,
            container,
            rng: Rng::new(seed),
            killing_state: false,
            subscribed: false,
            groups: 0,
            members: Vec::new(),
            used: false,
            finished: false,
        }
    }

    fn subscribe(&self, outputs: &mut Vec<GroupOutput>) {
        let tasks = self.members.iter().map(|member| member.info.0.clone());
        let subscribe = call::Subscribe {
            unacknowledged_tasks: tasks.collect(),
            ..call::Subscribe::default()
        };
        let call = new_call(&self.identity, call::Type::Subscribe, |call| {
            call.subscribe = Some(subscribe);
        });
        outputs.push(GroupOutput::Call(Wire(call)));
    }

    /// When `Tick` is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let open = self.members.iter().filter(|m| m.record.intent.is_none());
        let times = open.flat_map(|member| {
            let checks = member.checks.next_deadline();
            member.record.deadline.into_iter().chain(checks)
        });
        times.min()
    }

    /// Takes an input; what is to be done goes to `outputs`.
    pub fn apply(&mut self, input: GroupInput, now: Now, outputs: &mut Vec<GroupOutput>) {
        match input {
            GroupInput::Event(event) => self.event(event.0, now, outputs),
            GroupInput::Launched { child, pid } => self.launched(&child, pid, now, outputs),
            GroupInput::LaunchFailed { child, message } => {
                let message = format!("Failed to launch container: {message}");
                let reason = Reason::ContainerLaunchFailed;
                self.over(&child, now, outputs, |member, status| {
                    let killed = member.record.intent == Some(Intent::Killed);
                    status.state = match killed {
                        true => TaskState::TaskKilled.into(),
                        false => TaskState::TaskFailed.into(),
                    };
                    status.message = Some(message);
                    status.reason = (!killed).then_some(reason.into());
                });
            }
            GroupInput::Ended { child, end } => {
                if !end.with_executor {
                    self.over(&child, now, outputs, |member, status| {
                        verdict(member, &end, status);
                    });
                }
            }
            GroupInput::Probed { child, id, finding } => {
                self.probed(&child, id, &finding, now, outputs);
            }
            GroupInput::Tick => {
                self.out_of_time(now, outputs);
                self.look(now, outputs);
            }
        }
        if self.subscribed && self.used && self.members.is_empty() && !self.finished {
            self.finished = true;
            outputs.push(GroupOutput::Finish);
        }
    }

    fn event(&mut self, event: Event, now: Now, outputs: &mut Vec<GroupOutput>) {
        match event.r#type() {
            event::Type::Subscribed => {
                if let Some(subscribed) = event.subscribed {
                    let killing = framework_info::capability::Type::TaskKillingState;
                    self.killing_state = has_capability(&subscribed.framework_info, killing);
                    self.subscribed = true;
                    self.find(outputs);
                }
            }
            event::Type::LaunchGroup => {
                if let Some(group) = event.launch_group {
                    self.launch(group.task_group.tasks, now, outputs);
                }
            }
            event::Type::Kill => {
                let Some(kill) = event.kill else { return };
                let asked = grace(kill.kill_policy.as_ref());
                let task = &kill.task_id.value;
                self.kill(|member| member.record.task == *task, asked, now, outputs);
            }
            event::Type::Shutdown => {
                self.used = true;
                self.kill(|_| true, None, now, outputs);
            }
            // Single tasks are never sent here, data has no reader, updates are recorded when they are made.
            event::Type::Launch
            | event::Type::Message
            | event::Type::Acknowledged
            | event::Type::Heartbeat
            | event::Type::Error
            | event::Type::Unknown => {}
        }
    }

    /// Goes on with what an earlier agent process began.
    fn find(&self, outputs: &mut Vec<GroupOutput>) {
        for member in &self.members {
            let child = member.record.child.clone();
            outputs.push(GroupOutput::Find {
                child: child.clone(),
            });
            if member.record.intent.is_some() {
                // Whether it was stopped before is not known; a second stop changes nothing.
                let grace = member.grace();
                outputs.push(GroupOutput::Stop { child, grace });
            }
        }
    }

    fn launch(&mut self, tasks: Vec<TaskInfo>, now: Now, outputs: &mut Vec<GroupOutput>) {
        self.used = true;
        let group = self.groups;
        self.groups += 1;
        let first = self.members.len();
        for info in tasks {
            let limit = info.max_completion_time.as_ref();
            self.members.push(Member {
                record: TaskRecord {
                    task: info.task_id.value.clone(),
                    child: self.rng.uuid().to_string(),
                    group,
                    deadline: limit.map(|limit| now.mono + duration(limit)),
                    intent: None,
                },
                checks: Checks::of(&info),
                info: Wire(info),
                state: TaskState::TaskStaging.into(),
                pid: None,
            });
        }
        outputs.push(self.record());
        for at in first..self.members.len() {
            self.update(at, TaskState::TaskStarting, now, outputs);
        }
        for member in &self.members[first..] {
            outputs.push(GroupOutput::Launch {
                child: member.record.child.clone(),
                task: member.info.clone(),
            });
        }
    }

    fn launched(&mut self, child: &str, pid: u32, now: Now, outputs: &mut Vec<GroupOutput>) {
        let Some(at) = self.place(child) else { return };
        self.members[at].pid = Some(pid);
        let state = self.members[at].state();
        if matches!(state, TaskState::TaskStaging | TaskState::TaskStarting) {
            self.update(at, TaskState::TaskRunning, now, outputs);
        }
        if self.members[at].record.intent.is_none() {
            self.members[at].checks.start(now.mono);
        }
    }

    /// Takes the looks that are due.
    fn look(&mut self, now: Now, outputs: &mut Vec<GroupOutput>) {
        let open = self.members.iter_mut();
        for member in open.filter(|member| member.record.intent.is_none()) {
            let child = &member.record.child;
            let due = member.checks.due(now.mono).into_iter();
            outputs.extend(due.map(|probe| GroupOutput::Probe {
                child: child.clone(),
                probe,
            }));
        }
    }

    /// As of a command task; a task that is not healthy is killed alone, and its group ends with it.
    fn probed(
        &mut self,
        child: &str,
        id: ProbeId,
        finding: &Finding,
        now: Now,
        outputs: &mut Vec<GroupOutput>,
    ) {
        let Some(at) = self.place(child) else { return };
        let verdict = self.members[at].checks.found(id, finding, now.mono);
        let Some((reason, kill)) = verdict.news() else {
            return;
        };
        let mut status = self.status(at, now);
        let member = &mut self.members[at];
        status.state = TaskState::TaskRunning.into();
        status.reason = Some(reason.into());
        status.check_status = member.checks.status();
        status.healthy = member.checks.healthy();
        outputs.push(self.call_update(status));
        if kill {
            let member = &mut self.members[at];
            member.record.intent = Some(Intent::Unhealthy);
            member.checks.stop();
            outputs.push(self.record());
            let children = [child.to_owned()];
            self.tell_killing(&children, now, outputs);
            self.stop(children.iter(), None, outputs);
        }
    }

    /// Ends some tasks, each with the grace that is asked for or its own.
    fn kill(
        &mut self,
        is_meant: impl Fn(&Member) -> bool,
        asked: Option<Duration>,
        now: Now,
        outputs: &mut Vec<GroupOutput>,
    ) {
        let again = |m: &&Member| is_meant(m) && m.record.intent.is_some();
        let again = self.members.iter().filter(again);
        let again: Vec<String> = again.map(|m| m.record.child.clone()).collect();
        let fresh = self.mark(is_meant);
        if !fresh.is_empty() {
            outputs.push(self.record());
        }
        self.tell_killing(&fresh, now, outputs);
        self.stop(again.iter().chain(&fresh), asked, outputs);
    }

    /// Notes that tasks are killed which were not yet; answers their containers.
    fn mark(&mut self, is_meant: impl Fn(&Member) -> bool) -> Vec<String> {
        let fresh = |m: &&mut Member| is_meant(m) && m.record.intent.is_none();
        let fresh = self.members.iter_mut().filter(fresh);
        let marked = fresh.map(|member| {
            member.record.intent = Some(Intent::Killed);
            member.checks.stop();
            member.record.child.clone()
        });
        marked.collect()
    }

    fn tell_killing(&mut self, children: &[String], now: Now, outputs: &mut Vec<GroupOutput>) {
        if !self.killing_state {
            return;
        }
        for child in children {
            if let Some(at) = self.place(child) {
                self.update(at, TaskState::TaskKilling, now, outputs);
            }
        }
    }

    fn stop<'a>(
        &self,
        children: impl Iterator<Item = &'a String>,
        asked: Option<Duration>,
        outputs: &mut Vec<GroupOutput>,
    ) {
        for child in children {
            if let Some(at) = self.place(child) {
                outputs.push(GroupOutput::Stop {
                    child: child.clone(),
                    grace: asked.unwrap_or_else(|| self.members[at].grace()),
                });
            }
        }
    }

    fn place(&self, child: &str) -> Option<usize> {
        self.members.iter().position(|m| m.record.child == child)
    }

    fn out_of_time(&mut self, now: Now, outputs: &mut Vec<GroupOutput>) {
        let is_due = |member: &&mut Member| {
            let due = member.record.deadline.is_some_and(|at| at <= now.mono);
            due && member.record.intent.is_none()
        };
        let mut due = Vec::new();
        for member in self.members.iter_mut().filter(is_due) {
            member.record.intent = Some(Intent::OutOfTime);
            member.checks.stop();
            due.push(member.record.child.clone());
        }
        if due.is_empty() {
            return;
        }
        outputs.push(self.record());
        let grace = OUT_OF_TIME_GRACE;
        outputs.extend(
            due.into_iter()
                .map(|child| GroupOutput::Stop { child, grace }),
        );
    }

    /// A task's container is over, with the end that `fill` says. Unless it is a good one its group ends.
    fn over(
        &mut self,
        child: &str,
        now: Now,
        outputs: &mut Vec<GroupOutput>,
        fill: impl FnOnce(&Member, &mut TaskStatus),
    ) {
        let Some(at) = self.place(child) else { return };
        let mut status = self.status(at, now);
        fill(&self.members[at], &mut status);
        // The container is gone, and so is what is known of it but its name.
        status.container_status = Some(self.container_status(child));
        let group = self.members[at].record.group;
        let mut killed = Vec::new();
        if status.state() != TaskState::TaskFinished {
            let own = child.to_owned();
            killed = self.mark(|m| m.record.group == group && m.record.child != own);
            // The end itself is known again from the container, should this be all that an agent gets to.
            outputs.push(self.record());
        }
        outputs.push(self.call_update(status));
        self.members.remove(at);
        self.tell_killing(&killed, now, outputs);
        self.stop(killed.iter(), None, outputs);
    }

    fn update(&mut self, at: usize, state: TaskState, now: Now, outputs: &mut Vec<GroupOutput>) {
        let mut status = self.status(at, now);
        status.state = state.into();
        self.members[at].state = state.into();
        outputs.push(self.call_update(status));
    }

    /// A status without a state.
    fn status(&mut self, at: usize, now: Now) -> TaskStatus {
        let uuid = self.rng.uuid();
        let member = &self.members[at];
        let container = v1::ContainerStatus {
            executor_pid: member.pid,
            ..self.container_status(&member.record.child)
        };
        TaskStatus {
            task_id: member.info.task_id.clone(),
            source: Some(task_status::Source::Executor.into()),
            executor_id: Some(v1::ExecutorId {
                value: self.identity.executor.to_string(),
            }),
            timestamp: Some(now.wall.as_secs_f64()),
            uuid: Some(Bytes::copy_from_slice(uuid.as_bytes())),
            container_status: Some(container),
            check_status: member.checks.no_status(),
            ..TaskStatus::default()
        }
    }

    fn container_status(&self, child: &str) -> v1::ContainerStatus {
        v1::ContainerStatus {
            container_id: Some((&self.container.child(child)).into()),
            ..v1::ContainerStatus::default()
        }
    }

    fn call_update(&self, status: TaskStatus) -> GroupOutput {
        let call = new_call(&self.identity, call::Type::Update, |call| {
            call.update = Some(call::Update { status });
        });
        GroupOutput::Call(Wire(call))
    }

    fn record(&self) -> GroupOutput {
        let tasks = self.members.iter().map(|member| member.record.clone());
        GroupOutput::Record(GroupRecord {
            tasks: tasks.collect(),
        })
    }
}

/// The end of a task whose container is over.
fn verdict(member: &Member, end: &ChildEnd, status: &mut TaskStatus) {
    status.message = Some(match end.status {
        Some(raw) => format!("Command {}", describe_status(raw)),
        None => "Failed to get exit status for Command".to_owned(),
    });
    let (state, reason) = match (&end.limitation, member.record.intent, end.status) {
        (Some((reason, message, resources)), ..) => {
            status.message = Some(message.clone());
            status.limitation = Some(v1::TaskResourceLimitation {
                resources: resources.iter().map(|r| r.0.clone()).collect(),
            });
            (TaskState::TaskFailed, Some(*reason))
        }
        (None, Some(Intent::OutOfTime), _) => {
            let reason = Reason::MaxCompletionTimeReached;
            (TaskState::TaskFailed, Some(reason.into()))
        }
        (None, _, Some(0)) => (TaskState::TaskFinished, None),
        (None, Some(Intent::Unhealthy), Some(_)) => {
            status.healthy = Some(false);
            (TaskState::TaskKilled, None)
        }
        (None, Some(Intent::Killed), Some(_)) => (TaskState::TaskKilled, None),
        (None, ..) => (TaskState::TaskFailed, None),
    };
    status.state = state.into();
    status.reason = reason;
}
