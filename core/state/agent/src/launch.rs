//! Launching: which tasks are taken, and the executors that are made for them.

use std::sync::Arc;

use tepui_model::id::{ContainerId, ExecutorId, FrameworkId, TaskId};
use tepui_model::time::Now;
use tepui_proto::link::Run;
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, CommandInfo, ExecutorInfo, TaskInfo, TaskState};
use tepui_proto::{Wire, v1::environment};

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
        let stale =
            !run.resource_version.is_empty() && *run.resource_version != *self.resource_version;
        for task in run.tasks {
            let task_id = TaskId::from(&*task.task_id.value);
            let framework = self.framework(&id).expect("it was found above");
            if framework.container_of(&task_id).is_some()
                || framework.streams.contains_key(&task_id)
            {
                // A task is launched at most once, however often it is asked for.
                continue;
            }
            if stale {
                let message = "Task assumes outdated resource state";
                self.refuse(&id, &task_id, Reason::InvalidOffers, message, now, effects);
            } else if let Some(drain) = &self.drain {
                let _ = drain;
                let message = "The agent is draining";
                self.refuse(&id, &task_id, Reason::AgentDraining, message, now, effects);
            } else if let Some(field) = unsupported(&task, run.executor.is_some() || run.group) {
                let message = format!("{field} is not supported by this agent");
                let status = self.agent_status(
                    &task_id,
                    None,
                    TaskState::TaskError,
                    Reason::TaskInvalid,
                    &message,
                    now,
                );
                self.report_unknown(&id, status, now, effects);
            } else {
                self.launch_command(&id, task, effects);
            }
        }
    }

    /// The task never ran here, and never will.
    fn refuse(
        &mut self,
        framework: &FrameworkId,
        task: &TaskId,
        reason: Reason,
        message: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let state = self.dropped(framework);
        let status = self.agent_status(task, None, state, reason, message, now);
        self.report_unknown(framework, status, now, effects);
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
        let executor = Executor {
            id: ExecutorId::from(&*info.executor_id.value),
            container: container.clone(),
            info: Wire(info.clone()),
            kind: ExecutorKind::Generated,
            state: ExecutorState::Launching,
            pid: None,
            kills: Vec::new(),
            queued: vec![Wire(task.clone())],
            tasks: Vec::new(),
            completed_tasks: std::collections::VecDeque::new(),
            end: None,
            checkpoint: framework.checkpoint(),
            shutdown_at: None,
        };
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
                environment: command.environment,
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

/// The first field of a task that asks for what this agent does not do.
fn unsupported(task: &TaskInfo, executor: bool) -> Option<&'static str> {
    if executor || task.executor.is_some() {
        return Some("TaskInfo.executor");
    }
    let Some(command) = &task.command else {
        return Some("TaskInfo without command");
    };
    if command.value.is_none() {
        return Some("CommandInfo without value");
    }
    if !command.uris.is_empty() {
        return Some("CommandInfo.uris");
    }
    let variables = command.environment.iter().flat_map(|e| &e.variables);
    let mut variables = variables;
    if variables.any(|v| v.r#type() == environment::variable::Type::Secret) {
        return Some("Environment.Variable.secret");
    }
    if task.health_check.is_some() {
        return Some("TaskInfo.health_check");
    }
    if task.check.is_some() {
        return Some("TaskInfo.check");
    }
    task.container.as_ref().and_then(unsupported_container)
}

fn unsupported_container(container: &v1::ContainerInfo) -> Option<&'static str> {
    if container.r#type() == v1::container_info::Type::Docker || container.docker.is_some() {
        return Some("ContainerInfo.docker");
    }
    if container
        .mesos
        .as_ref()
        .is_some_and(|mesos| mesos.image.is_some())
    {
        return Some("ContainerInfo.mesos.image");
    }
    if !container.volumes.is_empty() {
        return Some("ContainerInfo.volumes");
    }
    if !container.network_infos.is_empty() {
        return Some("ContainerInfo.network_infos");
    }
    if container.hostname.is_some() {
        return Some("ContainerInfo.hostname");
    }
    if container.linux_info.is_some() {
        return Some("ContainerInfo.linux_info");
    }
    if container.rlimit_info.is_some() {
        return Some("ContainerInfo.rlimit_info");
    }
    container
        .tty_info
        .is_some()
        .then_some("ContainerInfo.tty_info")
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
