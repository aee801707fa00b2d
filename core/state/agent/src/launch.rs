//! Launching: which tasks are taken, and the executors that are made for them.

use std::sync::Arc;

use tepui_model::id::{ContainerId, ExecutorId, FrameworkId, TaskId};
use tepui_model::time::Now;
use tepui_proto::link::Run;
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, CommandInfo, ExecutorInfo, TaskInfo, TaskState};
use tepui_proto::{Wire, v1::executor_info};

use crate::executors::{NO_STATUS, executor_ended};
use crate::rows::{Executor, ExecutorState};
use crate::state::{AgentState, record};
use crate::{Effect, ExecutorKind, Launch, RecordBody};

/// Longest command text in the name of a generated executor.
const NAME_LIMIT: usize = 15;

/// What a longer one is cut to, before the dots.
const NAME_CUT: usize = 12;

/// What a generated executor has beside its task.
const EXECUTOR_CPUS: f64 = 0.1;
const EXECUTOR_MEM: f64 = 32.0;

/// What a command task's executor keeps for itself of the time to shut down, beyond the task's own.
const SHUTDOWN_MARGIN_NS: i64 = 2_000_000_000;

/// Tasks that are launched together.
struct Wanted {
    /// None for a command task.
    executor: Option<ExecutorInfo>,
    tasks: Vec<TaskInfo>,
    group: bool,
    /// The master takes the executor for running.
    running: bool,
}

/// What tasks that are not launched are told.
struct Refused {
    state: TaskState,
    reason: Reason,
    message: String,
}

impl AgentState {
    /// The master launches one task, or a group.
    pub(crate) fn run(&mut self, run: Run, now: Now, effects: &mut Vec<Effect>) {
        let id = run.framework_id.map_or_else(String::new, |id| id.value);
        let id = FrameworkId::from(id);
        let Some(framework) = self.framework(&id) else {
            // The master tells a framework before its first task.
            return;
        };
        if framework.terminating || self.leaving.is_some() {
            // Its tasks count as killed already.
            return;
        }
        // A task is launched at most once, however often it is asked for.
        let known = |task: &TaskInfo| {
            let task = TaskId::from(&*task.task_id.value);
            framework.container_of(&task).is_some() || framework.streams.contains_key(&task)
        };
        if run.group {
            if !run.tasks.iter().any(known) {
                let launch = Wanted {
                    executor: run.executor,
                    tasks: run.tasks,
                    group: true,
                    running: run.executor_running,
                };
                self.launch(&id, launch, &run.resource_version, now, effects);
            }
            return;
        }
        let fresh: Vec<TaskInfo> = run.tasks.into_iter().filter(|t| !known(t)).collect();
        for task in fresh {
            let launch = Wanted {
                executor: task.executor.clone().or_else(|| run.executor.clone()),
                tasks: vec![task],
                group: false,
                running: run.executor_running,
            };
            self.launch(&id, launch, &run.resource_version, now, effects);
        }
    }

    fn launch(
        &mut self,
        id: &FrameworkId,
        wanted: Wanted,
        resource_version: &[u8],
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(refused) = self.may_launch(id, &wanted, resource_version) {
            for task in &wanted.tasks {
                let task = TaskId::from(&*task.task_id.value);
                let (reason, message) = (refused.reason, &refused.message);
                let status = self.agent_status(&task, None, refused.state, reason, message, now);
                self.report_unknown(id, status, now, effects);
            }
            return self.executor_not_launched(id, &wanted, effects);
        }
        match wanted.executor {
            Some(executor) => self.launch_named(id, executor, wanted.tasks, wanted.group, effects),
            None => {
                for task in wanted.tasks {
                    self.launch_command(id, task, effects);
                }
            }
        }
    }

    fn may_launch(
        &self,
        id: &FrameworkId,
        wanted: &Wanted,
        resource_version: &[u8],
    ) -> Result<(), Refused> {
        let refused = |state, reason, message: &str| Refused {
            state,
            reason,
            message: message.to_owned(),
        };
        let dropped = |reason, message: &str| refused(self.dropped(id), reason, message);
        if !resource_version.is_empty() && *resource_version != *self.resource_version {
            let message = "Task assumes outdated resource state";
            return Err(dropped(Reason::InvalidOffers, message));
        }
        if self.drain.is_some() {
            return Err(dropped(Reason::AgentDraining, "The agent is draining"));
        }
        if let Some(field) = unsupported(wanted) {
            let reason = match wanted.group {
                true => Reason::TaskGroupInvalid,
                false => Reason::TaskInvalid,
            };
            let message = format!("{field} is not supported by this agent");
            return Err(refused(TaskState::TaskError, reason, &message));
        }
        let Some(executor) = &wanted.executor else {
            return Ok(());
        };
        let executor = ExecutorId::from(&*executor.executor_id.value);
        let live = self.framework(id).and_then(|f| f.named(&executor));
        let message = match live.map(|executor| executor.state) {
            Some(ExecutorState::Terminating | ExecutorState::Terminated) => "Executor terminating",
            // It ended on its own while the master took it for running.
            None if wanted.running => {
                "No executor is expected to launch and there is no executor running"
            }
            _ => return Ok(()),
        };
        Err(dropped(Reason::ExecutorTerminated, message))
    }

    /// The master counts an executor from its first task on: it hears when there will be none.
    fn executor_not_launched(&self, id: &FrameworkId, wanted: &Wanted, effects: &mut Vec<Effect>) {
        let Some(executor) = &wanted.executor else {
            return;
        };
        let executor = ExecutorId::from(&*executor.executor_id.value);
        let here = self.framework(id).and_then(|f| f.named(&executor));
        if here.is_none() {
            self.to_master(executor_ended(id, &executor, NO_STATUS), effects);
        }
    }

    /// Gives tasks to an executor that the framework has named; the first tasks start it.
    fn launch_named(
        &mut self,
        id: &FrameworkId,
        info: ExecutorInfo,
        tasks: Vec<TaskInfo>,
        group: bool,
        effects: &mut Vec<Effect>,
    ) {
        let name = ExecutorId::from(&*info.executor_id.value);
        let running = self.framework(id).and_then(|f| f.named(&name));
        let running = running.map(|executor| executor.container.clone());
        let first = running.is_none();
        let container = running.unwrap_or_else(|| ContainerId::new(self.rng.uuid().to_string()));
        let framework = self.framework_mut(id).expect("the caller has it");
        let (owner, checkpoint) = (framework.info.clone(), framework.checkpoint());
        if first {
            let kind = match info.r#type() {
                executor_info::Type::Default => ExecutorKind::Default,
                _ => ExecutorKind::Custom,
            };
            let executor = Executor::new(container.clone(), info, kind, checkpoint);
            framework.executors.push(Arc::new(executor));
        }
        let executor = framework.executor_mut(&container).expect("it is there");
        if first {
            let launch = RecordBody::Launch {
                framework: owner.clone(),
                executor: executor.info.clone(),
                kind: executor.kind,
            };
            record(id, executor, launch, effects);
        }
        if group {
            let members = tasks.iter().map(|task| TaskId::from(&*task.task_id.value));
            executor.groups.push(members.collect());
        }
        for task in tasks {
            record(id, executor, RecordBody::Task(Wire(task.clone())), effects);
            executor.queued.push(Wire(task));
        }
        if first {
            effects.push(Effect::Launch(Box::new(Launch {
                container,
                user: user(&owner, executor.info.command.as_ref()),
                framework: owner,
                executor: executor.info.clone(),
                kind: executor.kind,
                resources: executor.resources().cloned().map(Wire).collect(),
                limits: executor.limits(),
                task: None,
                checkpoint,
            })));
        } else if executor.connected {
            self.tell_waiting(&container, effects);
        }
    }

    /// How a framework is told that a task was not launched.
    pub(crate) fn dropped(&self, framework: &FrameworkId) -> TaskState {
        match self.framework(framework) {
            Some(framework) if framework.partition_aware() => TaskState::TaskDropped,
            _ => TaskState::TaskLost,
        }
    }

    fn launch_command(&mut self, id: &FrameworkId, task: TaskInfo, effects: &mut Vec<Effect>) {
        let container = ContainerId::new(self.rng.uuid().to_string());
        let info = self.generate(id, &task);
        let framework = self.framework_mut(id).expect("the caller has it");
        let checkpoint = framework.checkpoint();
        let kind = ExecutorKind::Generated;
        let mut executor = Executor::new(container.clone(), info.clone(), kind, checkpoint);
        executor.queued.push(Wire(task.clone()));
        let launch = RecordBody::Launch {
            framework: framework.info.clone(),
            executor: executor.info.clone(),
            kind: executor.kind,
        };
        record(id, &executor, launch, effects);
        record(id, &executor, RecordBody::Task(Wire(task.clone())), effects);
        effects.push(Effect::Launch(Box::new(Launch {
            container,
            framework: framework.info.clone(),
            executor: Wire(info),
            kind: executor.kind,
            user: user(&framework.info, task.command.as_ref()),
            resources: executor.resources().cloned().map(Wire).collect(),
            limits: executor.limits(),
            task: Some(Wire(task)),
            checkpoint: executor.checkpoint,
        })));
        framework.executors.push(Arc::new(executor));
    }

    /// What clients see of the executor of a command task (`Slave::getExecutorInfo`).
    #[expect(deprecated, reason = "Mesos still fills in the source")]
    fn generate(&self, framework: &FrameworkId, task: &TaskInfo) -> ExecutorInfo {
        let command = task.command.clone().unwrap_or_default();
        let role = task
            .resources
            .first()
            .and_then(|r| r.allocation_info.clone());
        let scalar = |name: &str, value| v1::Resource {
            name: name.to_owned(),
            r#type: v1::value::Type::Scalar.into(),
            scalar: Some(v1::value::Scalar { value }),
            allocation_info: role.clone(),
            ..v1::Resource::default()
        };
        let grace = task.kill_policy.and_then(|policy| policy.grace_period);
        ExecutorInfo {
            executor_id: v1::ExecutorId {
                value: task.task_id.value.clone(),
            },
            framework_id: Some(v1::FrameworkId {
                value: framework.to_string(),
            }),
            name: Some(name(&task.task_id.value, &command)),
            source: Some(task.task_id.value.clone()),
            command: Some(CommandInfo {
                shell: Some(false),
                value: Some(self.settings.executor_command.clone()),
                arguments: self.settings.executor_arguments.clone(),
                environment: command.environment.map(without_secrets),
                user: command.user,
                ..CommandInfo::default()
            }),
            container: task.container.clone(),
            resources: vec![scalar("cpus", EXECUTOR_CPUS), scalar("mem", EXECUTOR_MEM)],
            labels: task.labels.clone(),
            discovery: task.discovery.clone(),
            shutdown_grace_period: grace.map(|grace| v1::DurationInfo {
                nanoseconds: grace.nanoseconds.saturating_add(SHUTDOWN_MARGIN_NS),
            }),
            ..ExecutorInfo::default()
        }
    }
}

/// The generated executor is shown to whoever may see executors; the task's own command has the secrets.
fn without_secrets(mut environment: v1::Environment) -> v1::Environment {
    let secrets = environment.variables.iter_mut();
    for secret in secrets.filter_map(|variable| variable.secret.as_mut()) {
        secret.value = None;
    }
    environment
}

fn user(framework: &v1::FrameworkInfo, command: Option<&CommandInfo>) -> Option<String> {
    let own = command.and_then(|command| command.user.clone());
    own.or_else(|| Some(framework.user.clone()))
        .filter(|user| !user.is_empty())
}

fn name(task: &str, command: &CommandInfo) -> String {
    let value = command.value();
    let shown = if command.shell() {
        format!("sh -c '{}'", cut(value))
    } else {
        let all = format!("{value}, {}", command.arguments.join(", "));
        format!("[{}]", cut(&all))
    };
    format!("Command Executor (Task: {task}) (Command: {shown})")
}

fn cut(text: &str) -> String {
    if text.len() <= NAME_LIMIT {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(NAME_CUT)])
}

/// The first field of a launch that asks for what this agent does not do.
fn unsupported(wanted: &Wanted) -> Option<&'static str> {
    if let Some(executor) = &wanted.executor {
        // The tasks of a custom executor are its own business.
        let container = executor.container.as_ref();
        if executor.r#type() == executor_info::Type::Default {
            if !wanted.group {
                return Some("ExecutorInfo.type DEFAULT without a group");
            }
            let mut tasks = wanted.tasks.iter();
            let of_tasks = tasks.find_map(unsupported_task);
            return container.and_then(unsupported_container).or(of_tasks);
        }
        let Some(command) = &executor.command else {
            return Some("ExecutorInfo without command");
        };
        return unsupported_command(command, container)
            .or_else(|| container.and_then(unsupported_container));
    }
    if wanted.group {
        return Some("a task group without executor");
    }
    let mut tasks = wanted.tasks.iter();
    tasks.find_map(unsupported_task)
}

fn unsupported_task(task: &TaskInfo) -> Option<&'static str> {
    let Some(command) = &task.command else {
        return Some("TaskInfo without command");
    };
    if let Some(field) = unsupported_command(command, task.container.as_ref()) {
        return Some(field);
    }
    task.container.as_ref().and_then(unsupported_container)
}

fn unsupported_command(
    command: &CommandInfo,
    container: Option<&v1::ContainerInfo>,
) -> Option<&'static str> {
    let image = container.and_then(|container| container.mesos.as_ref()?.image.as_ref());
    if command.value.is_none() && image.is_none() {
        return Some("CommandInfo without value");
    }
    let mut variables = command.environment.iter().flat_map(|e| &e.variables);
    let is_named = |secret: &v1::Secret| secret.reference.is_some();
    variables
        .any(|variable| variable.secret.as_ref().is_some_and(is_named))
        .then_some("Environment.Variable.secret.reference")
}

fn unsupported_container(container: &v1::ContainerInfo) -> Option<&'static str> {
    if container.r#type() == v1::container_info::Type::Docker || container.docker.is_some() {
        return Some("ContainerInfo.docker");
    }
    if !container.network_infos.is_empty() {
        return Some("ContainerInfo.network_infos");
    }
    container
        .hostname
        .is_some()
        .then_some("ContainerInfo.hostname")
}

#[cfg(test)]
mod tests {
    use tepui_proto::v1::CommandInfo;

    use super::name;

    fn command(shell: bool, value: &str, arguments: &[&str]) -> CommandInfo {
        CommandInfo {
            shell: Some(shell),
            value: Some(value.to_owned()),
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            ..CommandInfo::default()
        }
    }

    #[test]
    fn generated_executors_are_named_as_recorded() {
        let named = |shell, value, arguments: &[&str]| name("t", &command(shell, value, arguments));
        let prefix = "Command Executor (Task: t) (Command: ";
        assert_eq!(
            named(true, "exit 0", &[]),
            format!("{prefix}sh -c 'exit 0')")
        );
        assert_eq!(
            named(true, "trap '' TERM; while :; do sleep 0.1; done", &[]),
            format!("{prefix}sh -c 'trap '' TERM...')")
        );
        assert_eq!(
            named(false, "/bin/echo", &["echo", "hello", "there"]),
            format!("{prefix}[/bin/echo, e...])")
        );
        assert_eq!(
            named(false, "/no/such/program", &[]),
            format!("{prefix}[/no/such/pro...])")
        );
    }
}
