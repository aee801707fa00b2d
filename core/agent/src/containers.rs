//! What the owner needs of a containerizer. The built-in one has it; so has one that pretends.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;
use tepui_containerizer::{
    Command, ContainerConfig, Containerizer, Counts, Error, LaunchError, Launched, Limits, Listed,
    Recovered, Sandbox, Termination,
};
use tepui_model::Resources;
use tepui_model::id::ContainerId;
use tepui_module_proto::image_store::PruneReply;
use tepui_proto::v1;

/// Launches, watches and ends containers. See [`Containerizer`] for what each call means.
pub trait Containers: Send + Sync + 'static {
    /// Finds what an earlier process left; what is not `known` is destroyed.
    fn recover(&self, known: BTreeSet<ContainerId>) -> BoxFuture<'_, Result<Recovered, Error>>;

    /// Launches a container.
    fn launch(&self, config: ContainerConfig) -> BoxFuture<'_, Result<Launched, LaunchError>>;

    /// Answers when a container is over.
    fn wait<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Termination, Error>>;

    /// A container that looks into another one, or checks it, ready to be launched.
    fn inside(
        &self,
        parent: &ContainerId,
        name: &str,
        command: Command,
    ) -> Result<ContainerConfig, Error>;

    /// The sandbox of a container.
    fn sandbox(&self, id: &ContainerId) -> Result<Sandbox, Error>;

    /// All containers that are not forgotten, those around others first.
    fn list(&self) -> Vec<Listed>;

    /// Sends a signal to all processes of a command.
    fn kill(&self, id: &ContainerId, signal: i32) -> Result<(), Error>;

    /// Sends bytes to a command's standard input; none are the end. Answers when they are taken.
    fn input<'a>(&'a self, id: &'a ContainerId, bytes: Vec<u8>)
    -> BoxFuture<'a, Result<(), Error>>;

    /// Sets the size of a container's terminal.
    fn resize(&self, id: &ContainerId, rows: u16, columns: u16) -> Result<(), Error>;

    /// Ends a command with a grace period.
    fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), Error>;

    /// Ends a container at once.
    fn destroy<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Termination, Error>>;

    /// Changes what is set aside for a container, and what it may use beyond that.
    fn update<'a>(
        &'a self,
        id: &'a ContainerId,
        resources: Resources,
        limits: Limits,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// What a container uses.
    fn usage<'a>(
        &'a self,
        id: &'a ContainerId,
    ) -> BoxFuture<'a, Result<v1::ResourceStatistics, Error>>;

    /// Id, pid and what isolators add.
    fn status<'a>(
        &'a self,
        id: &'a ContainerId,
    ) -> BoxFuture<'a, Result<v1::ContainerStatus, Error>>;

    /// What containers came to.
    fn counts(&self) -> Counts;

    /// What image is pulled for a container that is being launched, and how far that is, for people.
    fn pulling(&self, id: &ContainerId) -> Option<String> {
        let _ = id;
        None
    }

    /// Removes images that no container uses, but those to keep; with `dry_run` only says which. An error is in words.
    fn prune_images(
        &self,
        keep: Vec<v1::Image>,
        dry_run: bool,
    ) -> BoxFuture<'_, Result<PruneReply, String>> {
        let _ = (keep, dry_run);
        Box::pin(async { Ok(PruneReply::default()) })
    }

    /// Forgets a container that is over.
    fn forget(&self, id: &ContainerId) -> Result<(), Error>;
}

impl Containers for Containerizer {
    fn recover(&self, known: BTreeSet<ContainerId>) -> BoxFuture<'_, Result<Recovered, Error>> {
        Box::pin(Self::recover(self, known))
    }

    fn launch(&self, config: ContainerConfig) -> BoxFuture<'_, Result<Launched, LaunchError>> {
        Box::pin(Self::launch(self, config))
    }

    fn wait<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Termination, Error>> {
        Box::pin(Self::wait(self, id))
    }

    fn inside(
        &self,
        parent: &ContainerId,
        name: &str,
        command: Command,
    ) -> Result<ContainerConfig, Error> {
        Self::inside(self, parent, name, command)
    }

    fn sandbox(&self, id: &ContainerId) -> Result<Sandbox, Error> {
        Self::sandbox(self, id)
    }

    fn list(&self) -> Vec<Listed> {
        Self::list(self)
    }

    fn kill(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        Self::kill(self, id, signal)
    }

    fn input<'a>(
        &'a self,
        id: &'a ContainerId,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(Self::input(self, id, bytes))
    }

    fn resize(&self, id: &ContainerId, rows: u16, columns: u16) -> Result<(), Error> {
        Self::resize(self, id, rows, columns)
    }

    fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), Error> {
        Self::stop(self, id, grace)
    }

    fn destroy<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Termination, Error>> {
        Box::pin(Self::destroy(self, id))
    }

    fn update<'a>(
        &'a self,
        id: &'a ContainerId,
        resources: Resources,
        limits: Limits,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(Self::update(self, id, resources, limits))
    }

    fn usage<'a>(
        &'a self,
        id: &'a ContainerId,
    ) -> BoxFuture<'a, Result<v1::ResourceStatistics, Error>> {
        Box::pin(Self::usage(self, id))
    }

    fn status<'a>(
        &'a self,
        id: &'a ContainerId,
    ) -> BoxFuture<'a, Result<v1::ContainerStatus, Error>> {
        Box::pin(Self::status(self, id))
    }

    fn counts(&self) -> Counts {
        Self::counts(self)
    }

    fn pulling(&self, id: &ContainerId) -> Option<String> {
        Self::pulling(self, id)
    }

    fn prune_images(
        &self,
        keep: Vec<v1::Image>,
        dry_run: bool,
    ) -> BoxFuture<'_, Result<PruneReply, String>> {
        Box::pin(async move { Self::prune_images(self, &keep, dry_run).await })
    }

    fn forget(&self, id: &ContainerId) -> Result<(), Error> {
        Self::forget(self, id)
    }
}
