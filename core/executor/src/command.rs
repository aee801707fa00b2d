//! The executor of one command task.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tepui_model::id::{ExecutorId, FrameworkId};
use tepui_model::rng::Rng;
use tepui_model::time::{Mono, Now};
use tepui_proto::v1::executor::{Call, Event, call, event};
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, TaskInfo, TaskState, TaskStatus, framework_info, task_status};
use tepui_proto::{Wire, v1::FrameworkInfo};

use crate::checks::{Checks, Finding, Probe, ProbeId};
use crate::describe_status;

/// Time between SIGTERM and SIGKILL when nobody asks for another.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// A command that is out of time gets this much: Mesos kills with no grace, but the SIGTERM that it
/// sends first is what ends most commands, and what clients read.
pub(crate) const OUT_OF_TIME_GRACE: Duration = Duration::from_millis(100);

/// What of an executor's shutdown grace period is not the command's (`executorShutdownGracePeriod`
/// less the reap interval and a second for the last update).
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(2);

/// What the machine is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "lives for one step")]
pub enum Input {
    /// The agent says something, as on the event stream of the executor API.
    Event(Wire<Event>),
    /// The container is over.
    Ended {
        /// Raw wait status of the command, where there is one.
        status: Option<i32>,
        /// It was destroyed for a limit; the agent reports that itself.
        limited: bool,
    },
    /// A probe has ended.
    Probed(ProbeId, Finding),
    /// A deadline has passed.
    Tick,
}

/// What the machine wants done, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "lives for one step")]
pub enum Output {
    /// A call to the agent, as on the executor API.
    Call(Wire<Call>),
    /// To be recorded before what follows it; replaces the record before.
    Record(Record),
    /// End the command: SIGTERM now, SIGKILL after the grace period.
    Stop {
        /// How long the command has.
        grace: Duration,
    },
    /// Look at the task; answered by [`Input::Probed`].
    Probe(Probe),
}

/// Why the command is being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Intent {
    /// A KILL or SHUTDOWN asked for it.
    Killed,
    /// It ran for longer than its `max_completion_time`.
    OutOfTime,
    /// Its health check failed too often.
    Unhealthy,
}

/// What must survive the agent process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When the command runs out of time.
    pub deadline: Option<Mono>,
    /// Why it is being ended, once it is.
    pub intent: Option<Intent>,
}

/// Whose executor it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The framework.
    pub framework: FrameworkId,
    /// The executor: of a command task it has the task's id.
    pub executor: ExecutorId,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandExecutor {
    identity: Identity,
    rng: Rng,
    /// From SUBSCRIBED.
    killing_state: bool,
    shutdown_grace: Duration,
    task: Option<Wire<TaskInfo>>,
    checks: Checks,
    /// Newest state sent, a `TaskState`.
    state: i32,
    record: Record,
}

impl CommandExecutor {
    /// The executor of a container that runs; it subscribes.
    pub fn start(identity: Identity, seed: u64, outputs: &mut Vec<Output>) -> Self {
        let executor = Self {
            identity,
            rng: Rng::new(seed),
            killing_state: false,
            shutdown_grace: Duration::from_secs(5),
            task: None,
            checks: Checks::default(),
            state: TaskState::TaskStaging.into(),
            record: Record::default(),
        };
        outputs.push(executor.call(call::Type::Subscribe, |call| {
            call.subscribe = Some(call::Subscribe::default());
        }));
        executor
    }

    /// The executor of a container that an earlier agent process launched for `task`, where the
    /// newest update that the agent has recorded says `state` (`TASK_STAGING` if there is none). It
    /// goes on when it is subscribed.
    pub fn resume(
        identity: Identity,
        seed: u64,
        record: Record,
        task: TaskInfo,
        state: TaskState,
        outputs: &mut Vec<Output>,
    ) -> Self {
        let mut executor = Self::start(identity, seed, outputs);
        executor.record = record;
        executor.checks = Checks::of(&task);
        executor.task = Some(Wire(task));
        executor.state = state.into();
        executor
    }

    /// When `Tick` is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        match self.record.intent {
            None if !self.state().is_terminal() => {
                let checks = self.checks.next_deadline();
                self.record.deadline.into_iter().chain(checks).min()
            }
            _ => None,
        }
    }

    /// Takes an input; what is to be done goes to `outputs`.
    pub fn apply(&mut self, input: Input, now: Now, outputs: &mut Vec<Output>) {
        if self.state().is_terminal() {
            return;
        }
        match input {
            Input::Event(event) => self.event(event.0, now, outputs),
            Input::Ended { limited: true, .. } => {}
            Input::Ended { status, .. } => self.ended(status, now, outputs),
            Input::Probed(id, finding) => self.probed(id, &finding, now, outputs),
            Input::Tick if self.record.intent.is_some() => {}
            Input::Tick if self.record.deadline.is_some_and(|at| at <= now.mono) => {
                self.out_of_time(outputs);
            }
            Input::Tick => {
                let due = self.checks.due(now.mono);
                outputs.extend(due.into_iter().map(Output::Probe));
            }
        }
    }

    fn state(&self) -> TaskState {
        TaskState::try_from(self.state).unwrap_or(TaskState::TaskStaging)
    }

    fn event(&mut self, event: Event, now: Now, outputs: &mut Vec<Output>) {
        match event.r#type() {
            event::Type::Subscribed => {
                if let Some(subscribed) = event.subscribed {
                    self.subscribed(&subscribed);
                    self.run(now, outputs);
                }
            }
            event::Type::Launch => {
                if let Some(launch) = event.launch {
                    self.launch(launch.task, now, outputs);
                }
            }
            event::Type::Kill => {
                let grace = event.kill.and_then(|kill| grace(kill.kill_policy.as_ref()));
                self.kill(grace, now, outputs);
            }
            event::Type::Shutdown => {
                let grace = self.shutdown_grace.saturating_sub(SHUTDOWN_MARGIN);
                self.kill(Some(grace), now, outputs);
            }
            // Data for a command has no reader; updates here are recorded when they are made.
            event::Type::Message
            | event::Type::Acknowledged
            | event::Type::Heartbeat
            | event::Type::LaunchGroup
            | event::Type::Error
            | event::Type::Unknown => {}
        }
    }

    fn subscribed(&mut self, subscribed: &event::Subscribed) {
        self.killing_state = has_capability(
            &subscribed.framework_info,
            framework_info::capability::Type::TaskKillingState,
        );
        let info = &subscribed.executor_info;
        if let Some(grace) = info.shutdown_grace_period.as_ref() {
            self.shutdown_grace = duration(grace);
        }
    }

    fn launch(&mut self, task: TaskInfo, now: Now, outputs: &mut Vec<Output>) {
        if self.task.is_none() {
            self.checks = Checks::of(&task);
            self.task = Some(Wire(task));
            self.run(now, outputs);
        }
    }

    /// The command runs already: both states at once. A resumed machine goes on where it was.
    fn run(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let Some(task) = &self.task else { return };
        if self.record.deadline.is_none()
            && let Some(limit) = &task.max_completion_time
        {
            self.record.deadline = Some(now.mono + duration(limit));
            outputs.push(Output::Record(self.record.clone()));
        }
        if self.state() == TaskState::TaskStaging {
            self.update(TaskState::TaskStarting, None, None, now, outputs);
        }
        if self.state() == TaskState::TaskStarting {
            self.update(TaskState::TaskRunning, None, None, now, outputs);
        }
        if self.record.intent.is_none() {
            self.checks.start(now.mono);
        }
    }

    /// What a check or health check found. Updates about it also say what is known from the other.
    fn probed(&mut self, id: ProbeId, finding: &Finding, now: Now, outputs: &mut Vec<Output>) {
        let verdict = self.checks.found(id, finding, now.mono);
        let Some((reason, kill)) = verdict.news() else {
            return;
        };
        let (check, healthy) = (self.checks.status(), self.checks.healthy());
        self.send(TaskState::TaskRunning, now, outputs, |status| {
            status.reason = Some(reason.into());
            status.check_status = check;
            status.healthy = healthy;
        });
        if kill {
            self.end(Intent::Unhealthy, None, now, outputs);
        }
    }

    fn kill(&mut self, asked: Option<Duration>, now: Now, outputs: &mut Vec<Output>) {
        self.end(Intent::Killed, asked, now, outputs);
    }

    fn end(
        &mut self,
        intent: Intent,
        asked: Option<Duration>,
        now: Now,
        outputs: &mut Vec<Output>,
    ) {
        let policy = self.task.as_ref().and_then(|task| task.kill_policy);
        let grace = asked.or_else(|| grace(policy.as_ref())).unwrap_or(GRACE);
        if self.record.intent.is_none() {
            self.record.intent = Some(intent);
            self.checks.stop();
            outputs.push(Output::Record(self.record.clone()));
            if self.killing_state && self.task.is_some() {
                self.update(TaskState::TaskKilling, None, None, now, outputs);
            }
        }
        outputs.push(Output::Stop { grace });
    }

    fn out_of_time(&mut self, outputs: &mut Vec<Output>) {
        self.record.intent = Some(Intent::OutOfTime);
        self.checks.stop();
        outputs.push(Output::Record(self.record.clone()));
        outputs.push(Output::Stop {
            grace: OUT_OF_TIME_GRACE,
        });
    }

    /// The verdict of `CommandExecutorProcess::reaped`.
    fn ended(&mut self, status: Option<i32>, now: Now, outputs: &mut Vec<Output>) {
        if self.task.is_none() {
            // Never launched: the agent still has the task queued and reports it.
            return;
        }
        let message = match status {
            Some(status) => format!("Command {}", describe_status(status)),
            None => "Failed to get exit status for Command".to_owned(),
        };
        let (state, reason) = match (self.record.intent, status) {
            (Some(Intent::OutOfTime), _) => (
                TaskState::TaskFailed,
                Some(Reason::MaxCompletionTimeReached),
            ),
            (_, Some(0)) => (TaskState::TaskFinished, None),
            (Some(Intent::Killed | Intent::Unhealthy), Some(_)) => (TaskState::TaskKilled, None),
            _ => (TaskState::TaskFailed, None),
        };
        self.update(state, Some(message), reason, now, outputs);
    }

    fn update(
        &mut self,
        state: TaskState,
        message: Option<String>,
        reason: Option<Reason>,
        now: Now,
        outputs: &mut Vec<Output>,
    ) {
        let unhealthy =
            state == TaskState::TaskKilled && self.record.intent == Some(Intent::Unhealthy);
        let check = self.checks.no_status();
        self.send(state, now, outputs, |status| {
            status.message = message;
            status.reason = reason.map(Into::into);
            status.check_status = check;
            status.healthy = unhealthy.then_some(false);
        });
    }

    fn send(
        &mut self,
        state: TaskState,
        now: Now,
        outputs: &mut Vec<Output>,
        fill: impl FnOnce(&mut TaskStatus),
    ) {
        let Some(task) = &self.task else { return };
        self.state = state.into();
        let mut status = TaskStatus {
            task_id: task.task_id.clone(),
            state: state.into(),
            source: Some(task_status::Source::Executor.into()),
            executor_id: Some(v1::ExecutorId {
                value: self.identity.executor.to_string(),
            }),
            timestamp: Some(now.wall.as_secs_f64()),
            uuid: Some(Bytes::copy_from_slice(self.rng.uuid().as_bytes())),
            ..TaskStatus::default()
        };
        fill(&mut status);
        outputs.push(self.call(call::Type::Update, |call| {
            call.update = Some(call::Update { status });
        }));
    }

    fn call(&self, kind: call::Type, fill: impl FnOnce(&mut Call)) -> Output {
        Output::Call(Wire(new_call(&self.identity, kind, fill)))
    }
}

/// A call of an executor.
pub(crate) fn new_call(
    identity: &Identity,
    kind: call::Type,
    fill: impl FnOnce(&mut Call),
) -> Call {
    let mut call = Call {
        executor_id: v1::ExecutorId {
            value: identity.executor.to_string(),
        },
        framework_id: v1::FrameworkId {
            value: identity.framework.to_string(),
        },
        r#type: Some(kind.into()),
        ..Call::default()
    };
    fill(&mut call);
    call
}

pub(crate) fn grace(policy: Option<&v1::KillPolicy>) -> Option<Duration> {
    policy?.grace_period.as_ref().map(duration)
}

pub(crate) fn duration(info: &v1::DurationInfo) -> Duration {
    Duration::from_nanos(info.nanoseconds.max(0).unsigned_abs())
}

pub(crate) fn has_capability(
    info: &FrameworkInfo,
    wanted: framework_info::capability::Type,
) -> bool {
    info.capabilities
        .iter()
        .any(|capability| capability.r#type() == wanted)
}
