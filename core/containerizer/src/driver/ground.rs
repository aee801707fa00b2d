//! What a command stands on before it starts: its sandbox, the places of its output, the files it asked for.

use std::path::PathBuf;
use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use tepui_init::Answer;
use tepui_module_proto::fetcher::{FetchRequest, User};
use tepui_module_proto::isolator::LaunchPlan;
use tepui_module_proto::logger::{PrepareReply, PrepareRequest};
use tepui_state_container::Event;

use super::{Context, Done, Driver};
use crate::os::Supervisor;
use crate::services::fetched;
use crate::spec::launch_spec;
use crate::{Class, ContainerConfig, Sandbox};

/// Whom a command runs as, and where its output goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ground {
    pub(crate) user: Option<tepui_init::User>,
    /// Nobody but the agent writes to this directory above the sandbox.
    pub(crate) sandboxes: PathBuf,
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: PathBuf,
}

impl Driver {
    /// Makes the sandbox and asks the logger where output goes.
    pub(super) fn prepare_logs(&self) -> BoxFuture<'static, Done> {
        let Some(mut config) = self.config.clone() else {
            let message = "a recovered container is not started".to_owned();
            return std::future::ready(Done::Event(Event::StepFailed { message })).boxed();
        };
        // Perhaps that of the container around it.
        config.user.clone_from(&self.launch.config.user);
        let (context, message) = (self.context.clone(), self.launch.config.clone());
        let sandbox = self.sandbox.clone();
        async move {
            match ground(context, config, sandbox, message).await {
                Ok(ground) => Done::Grounded(ground),
                Err(message) => Done::Event(Event::StepFailed { message }),
            }
        }
        .boxed()
    }

    /// Tells the logger that the container is over.
    pub(super) fn cleanup_logs(&self) -> BoxFuture<'static, Done> {
        let logger = self.context.settings.logger.clone();
        let container = self.launch.container.clone();
        async move {
            let failure = match logger {
                Some(logger) => logger.cleanup(container).await.err(),
                None => None,
            };
            Done::Event(Event::LogsCleaned {
                failure: failure.map(|message| format!("logger: {message}")),
            })
        }
        .boxed()
    }

    /// Brings what the command asks for.
    pub(super) fn fetch(&self) -> BoxFuture<'static, Done> {
        let uris = self.config.as_ref().map_or(&[][..], |config| &config.uris);
        if uris.is_empty() {
            return std::future::ready(Done::Event(Event::Fetched)).boxed();
        }
        let container = self.launch.container.clone();
        let Some(fetcher) = self.context.settings.fetcher.clone() else {
            let message = "the command has URIs, and this agent has no fetcher".to_owned();
            return std::future::ready(Done::Event(Event::StepFailed { message })).boxed();
        };
        let request = FetchRequest {
            container: container.clone(),
            sandbox: self.launch.config.sandbox.clone(),
            uris: uris.iter().map(fetched).collect(),
            user: self.ground.user.as_ref().map(|user| User {
                uid: user.uid,
                gid: user.gid,
            }),
        };
        let counts = self.context.clone();
        async move {
            let result = fetcher.fetch(request).await;
            counts.fetches.count(result.is_ok());
            Done::Event(match result {
                Ok(()) => Event::Fetched,
                Err(message) => Event::StepFailed {
                    message: format!(
                        "Failed to fetch all URIs for container '{container}': {message}"
                    ),
                },
            })
        }
        .boxed()
    }
}

/// Makes a container's sandbox, and finds out where its output goes.
async fn ground(
    context: Arc<Context>,
    config: ContainerConfig,
    sandbox: Sandbox,
    message: tepui_module_proto::isolator::ContainerConfig,
) -> Result<Ground, String> {
    let class = config.class;
    let (own, owner) = (sandbox.clone(), context.clone());
    let starting = context.starting.acquire().await;
    let made = tokio::task::spawn_blocking(move || {
        let user = match &config.user {
            Some(name) if owner.settings.switch_user => owner.users.switch_to(name)?,
            _ => None,
        };
        let made = own.prepare(user.as_ref());
        made.map(|()| user).map_err(|error| error.to_string())
    });
    let user = made.await.map_err(|error| error.to_string())??;
    drop(starting);
    let output = match &context.settings.logger {
        None => PrepareReply::default(),
        // What is run for an operator, or as a check, has an output of its own.
        Some(_) if class == Class::Debug => PrepareReply::default(),
        Some(logger) => {
            let request = PrepareRequest {
                config: Some(message),
                uid: user.as_ref().map(|user| user.uid),
                gid: user.as_ref().map(|user| user.gid),
            };
            let prepared = logger.prepare(request).await;
            prepared
                .map_err(|message| format!("Failed to prepare the container's log: {message}"))?
        }
    };
    let place = |path: String, name| match path.is_empty() {
        true => sandbox.path().join(name),
        false => path.into(),
    };
    Ok(Ground {
        sandboxes: sandbox.trusted().to_owned(),
        user,
        stdout: place(output.stdout, "stdout"),
        stderr: place(output.stderr, "stderr"),
    })
}

/// Starts a supervisor and waits until it holds the container at the gate.
pub(super) async fn start(
    context: Arc<Context>,
    config: ContainerConfig,
    plan: LaunchPlan,
    ground: Ground,
    sandbox_inside: PathBuf,
    directory: PathBuf,
) -> Result<(Box<Supervisor>, u32), String> {
    let patience = context.settings.start_timeout;
    std::fs::create_dir_all(&directory)
        .map_err(|error| format!("failed to create '{}': {error}", directory.display()))?;
    let rlimits = &context.settings.rlimits;
    let spec = launch_spec(&config, &plan, ground, &directory, rlimits, &sandbox_inside)?;
    let started = Supervisor::start(&context.launcher, spec, &directory).await;
    let mut supervisor =
        started.map_err(|error| format!("failed to start a supervisor: {error}"))?;
    let failure = match tokio::time::timeout(patience, supervisor.next()).await {
        Ok(Ok(Some(Answer::Hello { pid, .. }))) => return Ok((Box::new(supervisor), pid)),
        Ok(Ok(Some(Answer::Failed(message)))) => message,
        Ok(Ok(_)) => "the supervisor ended at once".to_owned(),
        Ok(Err(error)) => format!("the conversation with the supervisor failed: {error}"),
        Err(_) => "the supervisor did not start in time".to_owned(),
    };
    supervisor.kill().await;
    let _ = supervisor.ended().await;
    Err(failure)
}
