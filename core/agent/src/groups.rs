//! The owner's dealings with default executors, which it plays, and with the containers of their tasks.

use std::path::Path;

use tepui_containerizer::{Class, ContainerConfig, LaunchError, Termination};
use tepui_executor::{ChildEnd, DefaultExecutor, GroupInput, GroupOutput, Identity};
use tepui_model::id::{ContainerId, TaskId};
use tepui_proto::v1::{self, TaskState};
use tepui_proto::{Wire, v1::TaskInfo};
use tepui_state_agent::{Event, ExecutorKind, Launch, Resumed};

use crate::clock;
use crate::containers::Containers;
use crate::environment;
use crate::gc::Gc;
use crate::launching::{amounts, end_of, launched, limits, secrets, to_run};
use crate::owner::{Handle, Input, Owner};

/// What an executor's container that is done has to end: it keeps namespaces, and does nothing.
const END: std::time::Duration = std::time::Duration::from_secs(5);

impl Owner {
    /// Begins to play a default executor, or goes on with one that an earlier process played.
    pub(crate) fn begin_groups(
        &mut self,
        container: ContainerId,
        identity: Identity,
        seed: u64,
        resumed: Option<Vec<Resumed>>,
    ) {
        let mut outputs = Vec::new();
        let id = container.clone();
        let machine = match resumed {
            None => DefaultExecutor::start(identity, id, seed, &mut outputs),
            Some(resumed) => {
                let record = self.resumable.remove(&container).unwrap_or_default().groups;
                let tasks = resumed.into_iter().map(|task| {
                    let state = TaskState::try_from(task.state).unwrap_or(TaskState::TaskStaging);
                    (task.task, state)
                });
                let tasks = tasks.collect();
                DefaultExecutor::resume(identity, id, seed, record, tasks, &mut outputs)
            }
        };
        self.deadlines.set(&container, machine.next_deadline());
        self.groups.insert(container.clone(), machine);
        self.group_outputs(&container, outputs);
    }

    pub(crate) fn play_groups(&mut self, container: &ContainerId, input: GroupInput) {
        let Some(executor) = self.groups.get_mut(container) else {
            return;
        };
        let mut outputs = Vec::new();
        executor.apply(input, clock::now(), &mut outputs);
        self.deadlines.set(container, executor.next_deadline());
        self.group_outputs(container, outputs);
    }

    fn group_outputs(&mut self, container: &ContainerId, outputs: Vec<GroupOutput>) {
        for output in outputs {
            match output {
                GroupOutput::Call(call) => self.events.push_back(Event::ExecutorCall {
                    container: container.clone(),
                    call,
                }),
                GroupOutput::Record(record) => {
                    // Frameworks without checkpoint have no records.
                    if let Err(error) = self.store.groups(container, &record) {
                        tracing::debug!(%container, error = %crate::chain(&error), "not recorded");
                    }
                }
                GroupOutput::Launch { child, task } => self.launch_child(container, child, &task),
                GroupOutput::Find { child } => self.find_child(container, child),
                GroupOutput::Stop { child, grace } => {
                    let child = container.child(child);
                    if let Err(error) = self.containers.stop(&child, grace) {
                        tracing::debug!(container = %child, %error, "nothing to stop");
                    }
                }
                GroupOutput::Probe { child, probe } => {
                    let (own, id) = (container.clone(), probe.id);
                    let name = child.clone();
                    let answer = move |finding| {
                        let child = name;
                        Input::Child(own, GroupInput::Probed { child, id, finding })
                    };
                    self.probe(container.child(child), probe, answer);
                }
                GroupOutput::Finish => {
                    self.events.push_back(Event::ExecutorFinished {
                        container: container.clone(),
                    });
                    if let Err(error) = self.containers.stop(container, END) {
                        tracing::debug!(%container, %error, "nothing to end");
                    }
                }
            }
        }
    }

    fn launch_child(&mut self, container: &ContainerId, child: String, task: &TaskInfo) {
        let (containers, handle) = (self.containers.clone(), self.handle.clone());
        let gc = self.gc.clone();
        let config = self.child_config(container, &child, task);
        let container = container.clone();
        let interval = self.settings.image_pull_progress_interval;
        let task = TaskId::from(&*task.task_id.value);
        tracing::info!(%container, child, %task, "launching");
        self.runtime.spawn(async move {
            let told = |message| {
                handle.tell(Input::Event(Event::Pulling {
                    container: container.clone(),
                    task: Some(task.clone()),
                    message,
                }));
            };
            let launched = match config {
                Ok(config) => launched(&*containers, config, interval, told).await,
                Err(message) => Err(LaunchError::Unmet(message)),
            };
            match launched {
                Ok(launched) => {
                    let pid = launched.pid;
                    let input = GroupInput::Launched {
                        child: child.clone(),
                        pid,
                    };
                    handle.tell(Input::Child(container.clone(), input));
                    report_child(&*containers, &handle, &gc, container, child).await;
                }
                Err(error) => {
                    tracing::warn!(%container, child, %error, "not launched");
                    handle.tell(Input::Child(container, failure(child, &error)));
                }
            }
        });
    }

    /// Looks for a task's container that an earlier agent process may have launched.
    fn find_child(&mut self, container: &ContainerId, child: String) {
        let (containers, handle) = (self.containers.clone(), self.handle.clone());
        let (gc, container) = (self.gc.clone(), container.clone());
        self.runtime.spawn(async move {
            let id = container.child(&*child);
            let status = containers.status(&id).await;
            if let Some(pid) = status.ok().and_then(|status| status.executor_pid) {
                let input = GroupInput::Launched {
                    child: child.clone(),
                    pid,
                };
                handle.tell(Input::Child(container.clone(), input));
            }
            report_child(&*containers, &handle, &gc, container, child).await;
        });
    }

    /// The container of a task, nested in its executor's. Also names its sandbox after the task.
    fn child_config(
        &self,
        container: &ContainerId,
        child: &str,
        task: &TaskInfo,
    ) -> Result<ContainerConfig, String> {
        let agent = self.state.agent_id().ok_or("the agent is not registered")?;
        let rows = self.state.frameworks().iter();
        let mut rows = rows.flat_map(|f| f.executors.iter().map(move |e| (f, e)));
        let found = rows.find(|(_, executor)| executor.container == *container);
        let (framework, executor) = found.ok_or("its executor is over")?;
        let around = self
            .containers
            .sandbox(container)
            .map_err(|e| e.to_string())?;
        let target = Path::new("../containers").join(child);
        let sandbox = around.path().join("containers").join(child);
        // `tasks/<task id>` leads to the sandbox of a task's container.
        around
            .link("tasks", &task.task_id.value, &target)
            .map_err(|error| format!("cannot name '{}': {error}", sandbox.display()))?;
        let launch = Launch {
            container: container.clone(),
            framework: framework.info.clone(),
            executor: executor.info.clone(),
            kind: ExecutorKind::Default,
            task: None,
            user: None,
            resources: Vec::new(),
            limits: Default::default(),
            checkpoint: executor.checkpoint,
        };
        let own = environment::environment(&self.settings, agent.as_str(), &launch, &around.path());
        let command = task.command.clone().ok_or("it has no command")?;
        let wires: Vec<Wire<v1::Resource>> = task.resources.iter().cloned().map(Wire).collect();
        let most = task
            .limits
            .iter()
            .map(|(name, limit)| (name.clone(), limit.value));
        let linux = task
            .container
            .as_ref()
            .and_then(|info| info.linux_info.as_ref());
        Ok(ContainerConfig {
            id: container.child(child),
            class: Class::Task,
            stdin: false,
            user: command.user.clone(),
            environment: environment::of_task(&self.settings, own, task, &sandbox),
            secrets: secrets(&command),
            uris: command.uris.clone(),
            sandbox,
            command: Some(to_run(&command)),
            resources: amounts(&wires)?,
            limits: limits(&most.collect()),
            container: task.container.clone(),
            share_cgroups: linux.is_none_or(|linux| linux.share_cgroups()),
            is_command_task: false,
            checkpoint: executor.checkpoint,
        })
    }
}

fn failure(child: String, error: &LaunchError) -> GroupInput {
    if let LaunchError::Failed { termination, .. } = error
        && (termination.limitation.is_some() || termination.destroyed)
    {
        let end = child_end(termination);
        return GroupInput::Ended { child, end };
    }
    GroupInput::LaunchFailed {
        child,
        message: error.to_string(),
    }
}

async fn report_child(
    containers: &dyn Containers,
    handle: &Handle,
    gc: &Gc,
    container: ContainerId,
    child: String,
) {
    let id = container.child(&*child);
    let ended = containers.wait(&id).await;
    gc.schedule_of(containers, &id);
    let input = match ended {
        Ok(termination) => GroupInput::Ended {
            child,
            end: child_end(&termination),
        },
        Err(_) => GroupInput::LaunchFailed {
            child,
            message: "the agent was restarted before it was started".to_owned(),
        },
    };
    handle.tell(Input::Child(container, input));
}

fn child_end(termination: &Termination) -> ChildEnd {
    let end = end_of(termination);
    ChildEnd {
        status: end.status,
        // Nobody else destroys the container of a task: it is stopped, or sent signals.
        with_executor: termination.destroyed && end.limitation.is_none(),
        limitation: end.limitation.map(|l| (l.reason, l.message, l.resources)),
    }
}
