//! The front of the containerizer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tepui_model::{id::ContainerId, resources::Resources};
use tepui_module_proto::image_store::PruneReply;
use tepui_module_proto::isolator as messages;
use tepui_proto::v1;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::{
    ContainerConfig, Counts, Error, Isolator, LaunchError, Launched, Limits, Listed, Provisioner,
    Recovered, Sandbox, Settings, Termination,
    driver::{Command, Context, Driver, Parts, View},
    isolation, nested,
    os::{self, Launcher, Users},
    records::{LaunchRecord, Records},
    requests,
    services::Fetches,
    usage,
};

/// More requests than this do not wait for one container.
const WAITING: usize = 64;
/// How long a supervisor may take to answer a new agent process.
pub(crate) const GREETING: Duration = Duration::from_secs(10);

/// All containers of an agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Containerizer {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) context: Arc<Context>,
    /// In the order they prepare.
    pub(crate) isolators: Vec<Arc<dyn Isolator>>,
    pub(crate) containers: Mutex<BTreeMap<ContainerId, Arc<Container>>>,
    /// Whether limits are heard of.
    pub(crate) watches: AtomicBool,
}

/// What the front keeps of a container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) commands: mpsc::Sender<Command>,
    view: watch::Receiver<View>,
    isolators: Vec<Arc<dyn Isolator>>,
    pub(crate) sandbox: Sandbox,
    /// As isolators see it.
    pub(crate) config: messages::ContainerConfig,
    /// What its isolators planned, from its start on.
    pub(crate) plan: Arc<OnceLock<messages::LaunchPlan>>,
    /// It is about to end: nothing begins in it any more.
    closed: AtomicBool,
    /// What is set aside for it.
    share: Mutex<(Resources, Limits)>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Containerizer {
    /// Takes the program for supervisors and the isolators, which prepare in Mesos' fixed order whatever order they
    /// are given in. Needs a tokio runtime. Call [`Self::recover`] next.
    ///
    /// # Errors
    ///
    /// When a directory cannot be made or the program cannot be read.
    pub fn new(settings: Settings, mut isolators: Vec<Arc<dyn Isolator>>) -> Result<Self, Error> {
        for directory in [&settings.meta_dir, &settings.runtime_dir] {
            fs::create_dir_all(directory).map_err(|source| Error::Io {
                what: "create",
                path: directory.clone(),
                source,
            })?;
        }
        isolators.extend(settings.provisioner.iter().map(Provisioner::isolator));
        if let Some(words) = isolation::missing(&isolators, nix::unistd::geteuid().is_root()) {
            return Err(Error::Settings(words));
        }
        isolation::sort(&mut isolators);
        let launcher = Launcher::load(&settings.init, settings.supervisors_in.clone())?;
        let boot_id = os::boot_id()
            .map_err(|error| Error::Settings(format!("the boot id cannot be read: {error}")))?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let context = Arc::new(Context {
            settings,
            launcher,
            users: Users::default(),
            boot_id,
            effects: AtomicU64::new(0),
            fetches: Fetches::default(),
            destroy_errors: AtomicU64::new(0),
            starting: Semaphore::new(processors.max(2)),
        });
        let inner = Arc::new(Inner {
            context,
            isolators,
            containers: Mutex::default(),
            watches: AtomicBool::new(false),
        });
        Ok(Self { inner })
    }

    /// Finds what an earlier agent process left. Containers that are not `known` are destroyed; returns when they are.
    ///
    /// # Errors
    ///
    /// When the records cannot be listed or an isolator cannot recover.
    pub async fn recover(&self, known: BTreeSet<ContainerId>) -> Result<Recovered, Error> {
        crate::recovery::recover(self, known).await
    }

    /// Launches a container; answers when its command was started (a program that is missing counts as started: it
    /// ends with status 1, as in Mesos).
    ///
    /// # Errors
    ///
    /// When a step failed or the container was stopped or destroyed meanwhile. All is cleaned up then.
    pub async fn launch(&self, config: ContainerConfig) -> Result<Launched, LaunchError> {
        let id = config.id.clone();
        let (parent, settings) = (self.parent(&id), &self.inner.context.settings);
        let message =
            requests::isolator_config(&config, parent.as_deref(), &settings.sandbox_directory);
        let isolators = isolation::select(&self.inner.isolators, &message);
        if let Some(words) = isolation::unmet(&config, &isolators) {
            return Err(LaunchError::Unmet(words));
        }
        let launch = LaunchRecord {
            container: id.to_string(),
            boot_id: self.inner.context.boot_id.clone(),
            isolators: isolators
                .iter()
                .map(|isolator| isolator.name().to_owned())
                .collect(),
            config: message,
            checkpoint: config.checkpoint,
        };
        let share = (config.resources.clone(), config.limits.clone());
        let (container, parts) = self.admit(&id, launch, isolators, share, true)?;
        tokio::spawn(Driver::launch(parts, config));
        let mut view = container.view.clone();
        let seen = view
            .wait_for(|view| view.launched.is_some() || view.termination.is_some())
            .await;
        match seen.as_deref() {
            Ok(View {
                launched: Some(pid),
                ..
            }) => Ok(Launched { pid: *pid }),
            Ok(View {
                termination: Some(termination),
                ..
            }) => Err(failure(termination)),
            Ok(View { .. }) | Err(_) => Err(LaunchError::Interrupted(id)),
        }
    }

    /// Makes room for a container, which `begins` unless it is of an earlier agent process.
    ///
    /// # Errors
    ///
    /// When its id is in use, or one that begins has no parent any more.
    pub(crate) fn admit(
        &self,
        id: &ContainerId,
        launch: LaunchRecord,
        isolators: Vec<Arc<dyn Isolator>>,
        share: (Resources, Limits),
        begins: bool,
    ) -> Result<(Arc<Container>, Parts), LaunchError> {
        let (commands, receiver) = mpsc::channel(WAITING);
        let (sender, view) = watch::channel(View::default());
        let mut containers = lock(&self.inner.containers);
        if containers.contains_key(id) {
            return Err(LaunchError::Exists(id.clone()));
        }
        let parent = id.parent.as_ref().and_then(|id| containers.get(&**id));
        let closed = parent.is_none_or(|parent| parent.closed.load(Ordering::Relaxed));
        if let Some(parent) = &id.parent
            && closed
            && begins
        {
            return Err(LaunchError::Parent((**parent).clone()));
        }
        let parent = parent.cloned();
        let path = Path::new(&launch.config.sandbox);
        let sandbox = match &parent {
            Some(parent) => parent.sandbox.nested(path),
            None => Sandbox::new(path),
        };
        let container = Arc::new(Container {
            commands,
            view,
            isolators: isolators.clone(),
            sandbox: sandbox.clone(),
            config: launch.config.clone(),
            plan: Arc::default(),
            closed: AtomicBool::new(false),
            share: Mutex::new(share),
        });
        containers.insert(id.clone(), container.clone());
        drop(containers);
        let parts = Parts {
            context: self.inner.context.clone(),
            launch,
            isolators,
            records: self.records(id),
            directory: self.directory(&id.to_string()),
            commands: receiver,
            view: sender,
            id: id.clone(),
            front: Arc::downgrade(&self.inner),
            plan: container.plan.clone(),
            sandbox,
            parent,
        };
        Ok((container, parts))
    }

    /// Sends a signal to all processes of the command. Nothing happens when it is not running.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub fn kill(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        self.tell(id, Command::Signal(signal))
    }

    /// Ends a command: SIGTERM now, SIGKILL after the grace period, also when the agent is restarted in between. A
    /// later call can only shorten the period. During a launch it ends the launch.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), Error> {
        self.tell(id, Command::Stop(grace))
    }

    /// Kills everything in a container at once, whatever it is doing; answers when it is cleaned up.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub async fn destroy(&self, id: &ContainerId) -> Result<Termination, Error> {
        self.tell(id, Command::Destroy)?;
        self.wait(id).await
    }

    /// Answers when a container is over and cleaned up; at once when it already is.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub async fn wait(&self, id: &ContainerId) -> Result<Termination, Error> {
        let mut view = self.get(id)?.view.clone();
        let seen = view.wait_for(|view| view.termination.is_some()).await;
        match seen.as_deref() {
            Ok(View {
                termination: Some(termination),
                ..
            }) => Ok(termination.clone()),
            Ok(View {
                termination: None, ..
            })
            | Err(_) => Err(Error::Unknown(id.clone())),
        }
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
        let container = self.get(id)?;
        let request = messages::UpdateRequest {
            id: id.to_string(),
            resources: requests::encode_resources(&resources),
            limits: requests::encode_limits(&limits),
        };
        let (answer, answered) = oneshot::channel();
        container
            .commands
            .send(Command::Update(Box::new(request), answer))
            .await
            .map_err(|_| Error::Unknown(id.clone()))?;
        let result = answered.await.map_err(|_| Error::Unknown(id.clone()))?;
        result.map_err(|message| Error::Update {
            id: id.clone(),
            message,
        })?;
        *lock(&container.share) = (resources, limits);
        Ok(())
    }

    /// Sends bytes to the standard input of a command, or to its terminal; none are the end. Answers when the command
    /// has taken them, or is over.
    ///
    /// # Errors
    ///
    /// When there is no such container, or it has no standard input.
    pub async fn input(&self, id: &ContainerId, bytes: Vec<u8>) -> Result<(), Error> {
        let container = self.typed(id)?;
        let (taken, waits) = oneshot::channel();
        let sent = container.commands.send(Command::Input(bytes, taken));
        if sent.await.is_ok() {
            let _ = waits.await;
        }
        Ok(())
    }

    /// Sets the size of a container's terminal; nothing happens without one.
    ///
    /// # Errors
    ///
    /// When there is no such container, or it has no standard input.
    pub fn resize(&self, id: &ContainerId, rows: u16, columns: u16) -> Result<(), Error> {
        self.typed(id)?.tell(Command::Resize(rows, columns));
        Ok(())
    }

    fn typed(&self, id: &ContainerId) -> Result<Arc<Container>, Error> {
        let container = self.get(id)?;
        if nested::takes_input(&container.config) {
            Ok(container)
        } else {
            Err(Error::NoInput(id.clone()))
        }
    }

    /// What a container uses: limits from its resources, the rest from its isolators.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub async fn usage(&self, id: &ContainerId) -> Result<v1::ResourceStatistics, Error> {
        let container = self.get(id)?;
        let mut answers = Vec::new();
        for isolator in &container.isolators {
            match isolator.usage(vec![id.to_string()]).await {
                Ok(reply) => answers.extend(reply.usages.into_iter().map(|usage| usage.statistics)),
                Err(error) => {
                    tracing::debug!(container = %id, isolator = isolator.name(), error, "no usage")
                }
            }
        }
        let mut statistics: v1::ResourceStatistics = usage::merge(answers.into_iter());
        let share = lock(&container.share);
        usage::complete(&mut statistics, &share.0, &share.1);
        Ok(statistics)
    }

    /// Id, pid and what isolators add.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub async fn status(&self, id: &ContainerId) -> Result<v1::ContainerStatus, Error> {
        let container = self.get(id)?;
        let mut answers = Vec::new();
        for isolator in &container.isolators {
            match isolator.status(vec![id.to_string()]).await {
                Ok(reply) => answers.extend(reply.statuses.into_iter().map(|status| status.status)),
                Err(error) => {
                    tracing::debug!(container = %id, isolator = isolator.name(), error, "no status")
                }
            }
        }
        let mut status: v1::ContainerStatus = usage::merge(answers.into_iter());
        status.container_id = Some(id.into());
        status.executor_pid = container.view.borrow().pid;
        Ok(status)
    }

    /// What containers came to.
    pub fn counts(&self) -> Counts {
        let context = &self.inner.context;
        let Settings {
            fetcher,
            provisioner,
            ..
        } = &context.settings;
        let cache = fetcher.as_ref().map(|fetcher| fetcher.cache());
        Counts {
            fetches: context.fetches.counts(cache.unwrap_or_default()),
            destroy_errors: context.destroy_errors.load(Ordering::Relaxed),
            provisioner_errors: provisioner.as_ref().map_or(0, Provisioner::removal_errors),
            with_root: self.with_root(),
        }
    }

    fn with_root(&self) -> Option<u64> {
        let mut isolators = self.inner.isolators.iter();
        isolators.find(|isolator| isolator.name() == "filesystem/linux")?;
        let containers = lock(&self.inner.containers);
        let rooted = containers.values().filter(|container| {
            let plan = container.plan.get();
            plan.is_some_and(|plan| plan.rootfs.is_some())
                && container.view.borrow().termination.is_none()
        });
        Some(rooted.count() as u64)
    }

    /// What image is pulled for a container that is being launched, and how far that is, for people.
    pub fn pulling(&self, id: &ContainerId) -> Option<String> {
        let provisioner = self.inner.context.settings.provisioner.as_ref()?;
        provisioner.pulling(&id.to_string())
    }

    /// Removes images that no container uses, but those to keep; with `dry_run` only says which.
    ///
    /// # Errors
    ///
    /// When a store fails, in words.
    pub async fn prune_images(
        &self,
        keep: &[v1::Image],
        dry_run: bool,
    ) -> Result<PruneReply, String> {
        let Some(provisioner) = &self.inner.context.settings.provisioner else {
            return Ok(PruneReply::default());
        };
        provisioner.prune(keep, dry_run).await
    }

    /// The containers that have not been forgotten.
    pub fn containers(&self) -> Vec<ContainerId> {
        lock(&self.inner.containers).keys().cloned().collect()
    }

    /// The same with what they are, those around others first.
    pub fn list(&self) -> Vec<Listed> {
        let containers = lock(&self.inner.containers);
        let listed = containers.iter().map(|(id, container)| Listed {
            id: id.clone(),
            class: nested::class_of(&container.config),
            over: container.view.borrow().termination.is_some(),
        });
        listed.collect()
    }

    /// Removes the records of a container that is over, and of those that were nested in it. Call it once its end is
    /// recorded elsewhere.
    ///
    /// # Errors
    ///
    /// When there is no such container or it is not over.
    pub fn forget(&self, id: &ContainerId) -> Result<(), Error> {
        let container = self.get(id)?;
        if container.view.borrow().termination.is_none() {
            return Err(Error::NotOver(id.clone()));
        }
        for nested in self.inner.nested_in(id).into_keys() {
            self.forget(&nested)?;
        }
        self.records(id).remove()?;
        lock(&self.inner.containers).remove(id);
        Ok(())
    }

    pub(crate) fn get(&self, id: &ContainerId) -> Result<Arc<Container>, Error> {
        lock(&self.inner.containers)
            .get(id)
            .cloned()
            .ok_or_else(|| Error::Unknown(id.clone()))
    }

    pub(crate) fn records(&self, id: &ContainerId) -> Records {
        Records::new(self.inner.context.settings.meta_dir.join(id.to_string()))
    }

    /// A supervisor's directory.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.inner.context.settings.runtime_dir.join(id)
    }

    fn tell(&self, id: &ContainerId, command: Command) -> Result<(), Error> {
        let container = self.get(id)?;
        match container.commands.try_send(command) {
            // A container that is over needs no telling.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Error::Busy(id.clone())),
        }
    }
}

impl Inner {
    /// The containers that are nested in one, without those that are nested in them.
    pub(crate) fn nested_in(&self, id: &ContainerId) -> BTreeMap<ContainerId, Arc<Container>> {
        let containers = lock(&self.containers);
        let is_nested = |one: &ContainerId| one.parent.as_deref() == Some(id);
        let nested = containers.iter().filter(|(one, _)| is_nested(one));
        nested
            .map(|(one, container)| (one.clone(), container.clone()))
            .collect()
    }

    /// Lets nothing more begin in a container, and answers what is nested in it.
    pub(crate) fn close(&self, id: &ContainerId) -> Vec<Arc<Container>> {
        if let Some(container) = lock(&self.containers).get(id) {
            container.closed.store(true, Ordering::Relaxed);
        }
        self.nested_in(id).into_values().collect()
    }
}

impl Container {
    /// Its first process, once its command was started.
    pub(crate) fn pid(&self) -> Option<u32> {
        let view = self.view.borrow();
        view.pid.filter(|_| view.launched.is_some())
    }

    /// Kills everything in it, and waits until it is over.
    pub(crate) async fn end(&self) {
        // One that is over takes no commands.
        let _ = self.commands.send(Command::Destroy).await;
        let mut view = self.view.clone();
        let _ = view.wait_for(|view| view.termination.is_some()).await;
    }

    /// Nothing happens when too much waits or the container is over.
    pub(crate) fn tell(&self, command: Command) {
        let _ = self.commands.try_send(command);
    }

    pub(crate) fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }
}

fn failure(termination: &Termination) -> LaunchError {
    let message = match (&termination.launch_failure, &termination.limitation) {
        (Some(message), _) => message.clone(),
        (None, Some(limitation)) => limitation.message.clone(),
        (None, None) => "Container is being destroyed during launching".to_owned(),
    };
    LaunchError::Failed {
        message,
        termination: Box::new(termination.clone()),
    }
}

/// The entries of a directory, by name; none when there is no directory.
pub(crate) fn list(directory: &std::path::Path) -> Result<Vec<String>, Error> {
    let error = |source| Error::Io {
        what: "list",
        path: directory.to_owned(),
        source,
    };
    match fs::read_dir(directory) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_, _>>()
            .map_err(error),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(error(source)),
    }
}
