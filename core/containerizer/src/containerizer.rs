//! The front of the containerizer.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tepui_model::{id::ContainerId, resources::Resources};
use tepui_proto::v1;

use crate::{
    ContainerConfig, Error, LaunchError, Launched, Limits, Recovered, Settings, Termination,
};

/// All containers of an agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Containerizer {
    settings: Arc<Settings>,
}

impl Containerizer {
    /// Takes the program for supervisors and the isolators, in the order they prepare. Call [`Self::recover`] next.
    ///
    /// # Errors
    ///
    /// When a directory cannot be made or the program cannot be read.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Ok(Self {
            settings: Arc::new(settings),
        })
    }

    /// Finds what an earlier agent process left. Containers that are not `known` are destroyed; returns when they are.
    ///
    /// # Errors
    ///
    /// When the records cannot be listed or an isolator cannot recover.
    pub async fn recover(&self, known: BTreeSet<ContainerId>) -> Result<Recovered, Error> {
        let _ = (known, &self.settings);
        Ok(Recovered::default())
    }

    /// Launches a container; answers when its command was started (a program that is missing counts as started: it
    /// ends with status 1, as in Mesos).
    ///
    /// # Errors
    ///
    /// When a step failed or the container was stopped or destroyed meanwhile. All is cleaned up then.
    pub async fn launch(&self, config: ContainerConfig) -> Result<Launched, LaunchError> {
        Err(LaunchError::Exists(config.id))
    }

    /// Sends a signal to all processes of the command. Nothing happens when it is not running.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub fn kill(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        let _ = signal;
        Err(Error::Unknown(id.clone()))
    }

    /// Ends a command: SIGTERM now, SIGKILL after the grace period, also when the agent is restarted in between. A
    /// later call can only shorten the period. During a launch it ends the launch.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), Error> {
        let _ = grace;
        Err(Error::Unknown(id.clone()))
    }

    /// Kills everything in a container at once, whatever it is doing; answers when it is cleaned up.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub async fn destroy(&self, id: &ContainerId) -> Result<Termination, Error> {
        Err(Error::Unknown(id.clone()))
    }

    /// Answers when a container is over and cleaned up; at once when it already is.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub async fn wait(&self, id: &ContainerId) -> Result<Termination, Error> {
        Err(Error::Unknown(id.clone()))
    }

    /// Changes what is set aside for a running container.
    ///
    /// # Errors
    ///
    /// When there is no such container, or an isolator refuses.
    pub async fn update(
        &self,
        id: &ContainerId,
        resources: Resources,
        limits: Limits,
    ) -> Result<(), Error> {
        let _ = (resources, limits);
        Err(Error::Unknown(id.clone()))
    }

    /// What a container uses: limits from its resources, the rest from its isolators, else from its processes.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub async fn usage(&self, id: &ContainerId) -> Result<v1::ResourceStatistics, Error> {
        Err(Error::Unknown(id.clone()))
    }

    /// Id, pid and what isolators add.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub async fn status(&self, id: &ContainerId) -> Result<v1::ContainerStatus, Error> {
        Err(Error::Unknown(id.clone()))
    }

    /// The containers that have not been forgotten.
    pub fn containers(&self) -> Vec<ContainerId> {
        Vec::new()
    }

    /// Removes the records of a container that is over. Call it once its end is recorded elsewhere.
    ///
    /// # Errors
    ///
    /// When there is no such container or it is not over.
    pub fn forget(&self, id: &ContainerId) -> Result<(), Error> {
        Err(Error::Unknown(id.clone()))
    }
}
