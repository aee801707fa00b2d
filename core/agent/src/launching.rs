//! The owner's dealings with containers: launching, watching, ending them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tepui_containerizer::{
    Class, Command, ContainerConfig, Exit, LaunchError, Launched, Limit, Limits, Termination,
};
use tepui_http::shared::{Files, Guard};
use tepui_model::authorization::Action;
use tepui_model::id::{ContainerId, ExecutorId, FrameworkId};
use tepui_model::{Resources, Scalar};
use tepui_proto::v1::environment::variable;
use tepui_proto::{Message as _, Wire, convert, v1};
use tepui_state_agent::{ContainerEnd, Event, ExecutorKind, Launch, Limitation};

use crate::containers::Containers;
use crate::environment::environment;
use crate::http::see;
use crate::owner::{Handle, Input, Owner};
use crate::paths::relink;

impl Owner {
    pub(crate) fn launch(&mut self, launch: Launch) {
        let container = launch.container.clone();
        let config = match self.config(&launch) {
            Ok(config) => config,
            Err(message) => {
                self.events
                    .push_back(Event::LaunchFailed { container, message });
                return;
            }
        };
        tracing::info!(%container, executor = %launch.executor.executor_id.value, "launching");
        let (containers, handle) = (self.containers.clone(), self.handle.clone());
        let interval = self.settings.image_pull_progress_interval;
        self.runtime.spawn(async move {
            let told = |message| {
                let container = container.clone();
                handle.tell(Input::Event(Event::Pulling {
                    container,
                    task: None,
                    message,
                }));
            };
            match launched(&*containers, config, interval, told).await {
                Ok(launched) => {
                    handle.tell(Input::Event(Event::Launched {
                        container: container.clone(),
                        pid: launched.pid,
                    }));
                    // On its own, which is small: this one has room for all that a launch needs.
                    tokio::spawn(async move {
                        report_end(&*containers, &handle, container).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%container, %error, "not launched");
                    let event = match &error {
                        LaunchError::Failed { termination, .. }
                            if termination.limitation.is_some() =>
                        {
                            let end = end_of(termination);
                            Event::ContainerEnded { container, end }
                        }
                        _ => Event::LaunchFailed {
                            container,
                            message: error.to_string(),
                        },
                    };
                    handle.tell(Input::Event(event));
                }
            }
        });
    }

    /// The container of an executor: of a command task it runs the task's command. Also makes its
    /// sandbox visible.
    fn config(&self, launch: &Launch) -> Result<ContainerConfig, String> {
        let agent = self.state.agent_id().ok_or("the agent is not registered")?;
        let framework = launch.framework.id.as_ref().map_or("", |id| &id.value);
        let framework = FrameworkId::from(framework);
        let executor = ExecutorId::from(&*launch.executor.executor_id.value);
        let container = &launch.container;
        let sandbox = self.paths.sandbox(agent, &framework, &executor, container);
        let runs = self.paths.runs(agent, &framework, &executor);
        self.keep(agent, &framework, &runs);
        std::fs::create_dir_all(&runs)
            .and_then(|()| relink(container.value.as_ref().as_ref(), &runs.join("latest")))
            .map_err(|error| format!("cannot make '{}': {error}", runs.display()))?;
        let guard = sandbox_guard(&launch.framework, &launch.executor);
        attach(&self.files, &runs, &framework, &executor, container, guard);
        let task = launch.task.as_ref();
        let (command, described) = match task {
            Some(task) => (&task.command, &task.container),
            None => (&launch.executor.command, &launch.executor.container),
        };
        if command.is_none() && launch.kind != ExecutorKind::Default {
            return Err("it has no command".to_owned());
        }
        let resources = amounts(&launch.resources)?;
        Ok(ContainerConfig {
            id: container.clone(),
            class: Class::Task,
            stdin: false,
            user: launch.user.clone(),
            secrets: command.as_ref().map_or_else(Vec::new, secrets),
            uris: command
                .as_ref()
                .map_or_else(Vec::new, |command| command.uris.clone()),
            environment: environment(&self.settings, agent.as_str(), launch, &sandbox),
            sandbox,
            command: command.as_ref().map(to_run),
            resources,
            limits: limits(&launch.limits),
            container: described.clone(),
            share_cgroups: true,
            is_command_task: task.is_some(),
            checkpoint: launch.checkpoint,
        })
    }

    pub(crate) fn watch(&self, container: ContainerId) {
        let (containers, handle) = (self.containers.clone(), self.handle.clone());
        self.runtime.spawn(async move {
            report_end(&*containers, &handle, container).await;
        });
    }

    pub(crate) fn destroy(&self, container: ContainerId) {
        let containers = self.containers.clone();
        self.runtime.spawn(async move {
            // Its end is reported by whoever launched or watches it.
            if let Err(error) = containers.destroy(&container).await {
                tracing::debug!(%container, %error, "not destroyed");
            }
        });
    }
}

/// What a command runs.
pub(crate) fn to_run(command: &v1::CommandInfo) -> Command {
    Command {
        shell: command.shell(),
        value: command.value().to_owned(),
        arguments: command.arguments.clone(),
    }
}

/// Variables whose values are secrets.
pub(crate) fn secrets(command: &v1::CommandInfo) -> Vec<(String, v1::Secret)> {
    let variables = command.environment.iter().flat_map(|own| &own.variables);
    variables
        .filter(|variable| variable.r#type() == variable::Type::Secret)
        .map(|variable| {
            let secret = variable.secret.clone().unwrap_or_default();
            (variable.name.clone(), secret)
        })
        .collect()
}

/// Launches a container; `told` is told meanwhile how far the pull of its image is. That is never with an interval of
/// zero, and not in the first interval.
pub(crate) async fn launched(
    containers: &dyn Containers,
    config: ContainerConfig,
    interval: Duration,
    told: impl Fn(String),
) -> Result<Launched, LaunchError> {
    let id = config.id.clone();
    let mut launch = containers.launch(config);
    if interval.is_zero() {
        return launch.await;
    }
    loop {
        match tokio::time::timeout(interval, &mut launch).await {
            Ok(launched) => return launched,
            Err(_) => containers.pulling(&id).into_iter().for_each(&told),
        }
    }
}

pub(crate) async fn report_end(
    containers: &dyn Containers,
    handle: &Handle,
    container: ContainerId,
) {
    match containers.wait(&container).await {
        Ok(termination) => handle.tell(Input::Ended(container, termination)),
        Err(error) => {
            tracing::error!(%container, %error, "container is lost");
            let termination = Termination {
                exit: Exit::Vanished,
                limitation: None,
                stopped: false,
                destroyed: false,
                launch_failure: None,
                cleanup_failures: Vec::new(),
            };
            handle.tell(Input::Ended(container, termination));
        }
    }
}

pub(crate) fn end_of(termination: &Termination) -> ContainerEnd {
    ContainerEnd {
        status: termination.status(),
        never_started: termination.exit == Exit::NeverStarted,
        limitation: termination
            .limitation
            .as_ref()
            .map(|limitation| Limitation {
                reason: limitation.reason,
                message: limitation.message.clone(),
                resources: limitation
                    .resources
                    .iter()
                    .map(|r| Wire(r.0.clone()))
                    .collect(),
            }),
    }
}

/// Limits as the containerizer has them.
pub(crate) fn limits(limits: &BTreeMap<String, f64>) -> Limits {
    let limit = |amount: f64| match amount.is_infinite() {
        true => Limit::Infinite,
        false => Limit::Amount(Scalar::from_f64(amount)),
    };
    let limits = limits.iter();
    limits
        .map(|(name, amount)| (name.clone(), limit(*amount)))
        .collect()
}

/// Resources of messages.
pub(crate) fn amounts(resources: &[Wire<v1::Resource>]) -> Result<Resources, String> {
    let all: Vec<v1::Resource> = resources.iter().map(|r| r.0.clone()).collect();
    convert::resources(&all).map_err(|error| error.to_string())
}

/// Makes a sandbox visible under the paths that Mesos gives it.
pub(crate) fn attach(
    files: &Files,
    runs: &std::path::Path,
    framework: &FrameworkId,
    executor: &ExecutorId,
    container: &ContainerId,
    guard: Arc<Guard>,
) {
    let sandbox = runs.join(&*container.value);
    let own = sandbox.display().to_string();
    files.attach_guarded(&own, &sandbox, guard.clone());
    let latest = runs.join("latest").display().to_string();
    files.attach_guarded(&latest, &sandbox, guard.clone());
    let short = format!("/frameworks/{framework}/executors/{executor}/runs/latest");
    files.attach_guarded(&short, &sandbox, guard);
}

/// Who may read a sandbox.
pub(crate) fn sandbox_guard(
    framework: &v1::FrameworkInfo,
    executor: &v1::ExecutorInfo,
) -> Arc<Guard> {
    let info = framework.encode_to_vec().into();
    let user = see::executor_user(framework, executor);
    Arc::new(Guard {
        action: Action::AccessSandbox,
        object: see::object(user, &info),
    })
}
