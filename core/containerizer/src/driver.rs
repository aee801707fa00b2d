//! The task of one container: feeds its state machine and performs what it decides.
//!
//! One step is under way at a time (an isolator's call, the start of the supervisor); signals, limits and the
//! supervisor's end come in beside it. The machine's clock is the one that goes on when the agent restarts.

mod ground;
mod steps;

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    path::PathBuf,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tepui_init::{Answer, Request};
use tepui_model::id::ContainerId;
use tepui_model::time::{Now, Wall};
use tepui_module_proto::isolator::{LaunchPlan, UpdateRequest};
use tepui_proto::Wire;
use tepui_state_container::{ContainerState, Effect, Event, Exit, Limitation, Mark, Termination};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::{
    ContainerConfig, Sandbox, Settings,
    containerizer::{Container, Inner},
    isolation::{self, Isolator},
    os::{self, Launcher, Supervisor, Users},
    records::{Entry, LaunchRecord, Records},
    requests,
    services::Fetches,
};
pub(crate) use ground::Ground;

/// Who waits for an update.
pub(crate) type Updated = oneshot::Sender<Result<(), String>>;

/// What the front asks of a container.
#[derive(Debug)]
pub(crate) enum Command {
    Signal(i32),
    Stop(Duration),
    Destroy,
    Limited(Limitation),
    Update(Box<UpdateRequest>, Updated),
    /// Bytes for standard input; none are its end. Answered when the command has taken them.
    Input(Vec<u8>, oneshot::Sender<()>),
    /// Lines and columns of the terminal.
    Resize(u16, u16),
}

/// What the front sees of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) pid: Option<u32>,
    /// The pid that its command was started with; stays, since who waits for the start may look after the end.
    pub(crate) launched: Option<u32>,
    pub(crate) termination: Option<Termination>,
}

/// What all containers of an agent share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) launcher: Launcher,
    pub(crate) users: Users,
    pub(crate) boot_id: String,
    pub(crate) effects: AtomicU64,
    pub(crate) fetches: Fetches,
    /// How many containers left something behind that could not be cleaned up.
    pub(crate) destroy_errors: AtomicU64,
    /// Held by who makes a sandbox, which keeps a processor busy: with more of them at once than processors nothing is
    /// done sooner, and each takes a thread's memory.
    pub(crate) starting: Semaphore,
}

impl Context {
    /// Ends this process here when a test has asked for it.
    fn crash_point(&self) {
        if let Some(at) = self.settings.crash_at_effect
            && self.effects.fetch_add(1, Ordering::Relaxed) == at
        {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// The result of a step.
enum Done {
    Event(Event),
    Planned(u32, Box<LaunchPlan>),
    Grounded(Ground),
    Started(Result<(Box<Supervisor>, u32), String>),
}

pub(crate) struct Driver {
    context: Arc<Context>,
    state: ContainerState,
    launch: LaunchRecord,
    /// Until it was launched. A recovered container has none: it is not started.
    config: Option<ContainerConfig>,
    isolators: Vec<Arc<dyn Isolator>>,
    plan: LaunchPlan,
    /// Known once the output is prepared.
    ground: Ground,
    records: Records,
    /// The supervisor's directory.
    directory: PathBuf,
    supervisor: Option<Box<Supervisor>>,
    /// The supervisor has closed the conversation and is about to be gone.
    leaving: bool,
    /// The containerizer was dropped: what this container does next is for a later agent process to see.
    abandoned: bool,
    /// Keeps a supervisor from beginning where one was found dead.
    _lock: Option<File>,
    step: Option<BoxFuture<'static, Done>>,
    /// The step is the pull of its images.
    pulling: bool,
    update: Option<BoxFuture<'static, ()>>,
    /// Updates that the machine has not settled, by their numbers.
    updates: BTreeMap<u64, (UpdateRequest, Updated)>,
    next_update: u64,
    /// Who waits until the command has taken what they sent, oldest first.
    typing: VecDeque<oneshot::Sender<()>>,
    commands: mpsc::Receiver<Command>,
    view: watch::Sender<View>,
    id: ContainerId,
    /// To find what is nested in this container. Weak: a driver ends when the front does.
    front: Weak<Inner>,
    planned: Arc<OnceLock<LaunchPlan>>,
    sandbox: Sandbox,
    parent: Option<Arc<Container>>,
}

/// What a driver works with.
pub(crate) struct Parts {
    pub(crate) context: Arc<Context>,
    pub(crate) launch: LaunchRecord,
    pub(crate) isolators: Vec<Arc<dyn Isolator>>,
    pub(crate) records: Records,
    pub(crate) directory: PathBuf,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) view: watch::Sender<View>,
    pub(crate) id: ContainerId,
    pub(crate) front: Weak<Inner>,
    /// Where the front finds the plan.
    pub(crate) plan: Arc<OnceLock<LaunchPlan>>,
    pub(crate) sandbox: Sandbox,
    /// The container around this one.
    pub(crate) parent: Option<Arc<Container>>,
}

impl Driver {
    fn new(parts: Parts) -> Self {
        Self {
            context: parts.context,
            state: ContainerState::new(),
            launch: parts.launch,
            config: None,
            isolators: parts.isolators,
            plan: LaunchPlan::none(),
            ground: Ground::default(),
            records: parts.records,
            directory: parts.directory,
            supervisor: None,
            leaving: false,
            abandoned: false,
            _lock: None,
            step: None,
            pulling: false,
            update: None,
            updates: BTreeMap::new(),
            next_update: 0,
            typing: VecDeque::new(),
            commands: parts.commands,
            view: parts.view,
            id: parts.id,
            front: parts.front,
            planned: parts.plan,
            sandbox: parts.sandbox,
            parent: parts.parent,
        }
    }

    /// Launches a container and stays with it.
    pub(crate) fn launch(parts: Parts, config: ContainerConfig) -> impl Future<Output = ()> {
        // Boxed: a future has room for whatever it is moved through.
        let mut driver = Box::new(Self {
            config: Some(config),
            ..Self::new(parts)
        });
        async move {
            let isolators = driver.count();
            driver.apply(Event::Launch { isolators }).await;
            driver.run().await;
        }
    }

    /// Goes on with a container of an earlier agent process.
    pub(crate) async fn recover(
        parts: Parts,
        plan: LaunchPlan,
        marks: Vec<Mark>,
        found: Option<os::Found>,
    ) {
        let mut driver = Box::new(Self {
            plan,
            ..Self::new(parts)
        });
        let _ = driver.planned.set(std::mem::take(&mut driver.plan));
        let supervisor = match found {
            Some(os::Found::Alive {
                supervisor,
                pid,
                opened,
                container,
            }) => {
                debug_assert_eq!(container, driver.launch.container);
                driver.supervisor = Some(supervisor);
                driver.view.send_modify(|view| view.pid = Some(pid));
                tepui_state_container::Supervisor::Alive { pid, opened }
            }
            Some(os::Found::Ended { exit, lock }) => {
                driver._lock = lock;
                tepui_state_container::Supervisor::Exited(exit_of(exit))
            }
            None => tepui_state_container::Supervisor::Exited(Exit::Vanished),
        };
        let isolators = driver.count();
        driver
            .apply(Event::Recover {
                isolators,
                marks,
                supervisor,
            })
            .await;
        driver.records.rest();
        let running = driver.state.pid().filter(|_| driver.state.is_running());
        driver.view.send_modify(|view| view.launched = running);
        driver.run().await;
    }

    fn count(&self) -> u32 {
        u32::try_from(self.isolators.len()).expect("a few dozen isolators")
    }

    async fn run(mut self: Box<Self>) {
        while !self.state.is_ended() && !self.abandoned {
            let event = self.next().await;
            if let Some(event) = event {
                self.apply(event).await;
            }
        }
    }

    /// Waits for what happens next.
    async fn next(&mut self) -> Option<Event> {
        let deadline = self.state.next_deadline();
        let Self {
            step,
            update,
            supervisor,
            leaving,
            commands,
            ..
        } = self;
        let heard = async {
            match supervisor {
                Some(supervisor) if *leaving => Heard::Gone(supervisor.ended().await),
                Some(supervisor) => Heard::Answer(supervisor.next().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What the supervisor has said comes first: a failed step may be its consequence.
            biased;
            heard = heard => self.hear(heard),
            done = poll_option(step) => {
                self.step = None;
                self.finish(done)
            }
            () = poll_option(update) => {
                self.update = None;
                None
            }
            command = commands.recv() => match command {
                Some(Command::Input(bytes, taken)) => {
                    self.typing.push_back(taken);
                    self.send(&Request::Input(bytes)).await;
                    None
                }
                Some(Command::Resize(rows, columns)) => {
                    self.send(&Request::Resize { rows, columns }).await;
                    None
                }
                Some(command) => self.obey(command),
                None => {
                    self.abandoned = true;
                    None
                }
            },
            () = sleep_until(deadline) => Some(Event::Tick),
        }
    }

    fn hear(&mut self, heard: Heard) -> Option<Event> {
        match heard {
            Heard::Answer(Ok(Some(Answer::Opened))) => {
                self.step = None;
                Some(Event::Opened)
            }
            Heard::Answer(Ok(Some(Answer::InputTaken))) => {
                if let Some(sender) = self.typing.pop_front() {
                    // Whoever typed it may be gone.
                    let _ = sender.send(());
                }
                None
            }
            Heard::Answer(Ok(Some(Answer::Hello { .. } | Answer::Failed(_)))) => None,
            Heard::Answer(Ok(Some(Answer::Exited) | None) | Err(_)) => {
                self.leaving = true;
                None
            }
            Heard::Gone(exit) => {
                self.supervisor = None;
                self.leaving = false;
                let exit = exit.unwrap_or_else(|error| {
                    tracing::warn!(container = self.launch.container, %error, "the end of a supervisor cannot be read");
                    None
                });
                Some(Event::Exited(exit_of(exit)))
            }
        }
    }

    fn finish(&mut self, done: Done) -> Option<Event> {
        self.pulling = false;
        Some(match done {
            Done::Event(event) => event,
            Done::Planned(isolator, plan) => {
                if let Some(part) = isolation::beyond_us(&plan) {
                    let name = self.isolators[isolator as usize].name();
                    let message =
                        format!("isolator {name} asks for {part}, which is not supported yet");
                    return Some(Event::StepFailed { message });
                }
                self.plan.merge(*plan);
                self.tell_of_root();
                if let Some(images) =
                    self.isolators[isolator as usize].images(&self.launch.container)
                {
                    self.launch.config.image_config = images.config;
                    self.launch.config.image_roots = images.volumes;
                }
                Event::Prepared { isolator }
            }
            Done::Grounded(ground) => {
                self.ground = ground;
                Event::LogsPrepared
            }
            Done::Started(Ok((supervisor, pid))) => {
                self.supervisor = Some(supervisor);
                self.view.send_modify(|view| view.pid = Some(pid));
                Event::Started { pid }
            }
            Done::Started(Err(message)) => Event::StepFailed { message },
        })
    }

    /// A pull may take long, and nothing of the container depends on it: it goes on for others, and is not waited for.
    fn interrupt_pull(&mut self) {
        if std::mem::take(&mut self.pulling) {
            let message = "Container is being destroyed during provisioning images".to_owned();
            let failed = Done::Event(Event::StepFailed { message });
            self.step = Some(std::future::ready(failed).boxed());
        }
    }

    /// Those who prepare next see where the container's root is, and its sandbox in it.
    fn tell_of_root(&mut self) {
        let inside = &self.context.settings.sandbox_directory;
        requests::tell_of_root(&mut self.launch.config, &self.plan, inside);
    }

    fn obey(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::Signal(signal) => Some(Event::Signal { signal }),
            Command::Stop(grace) => {
                self.interrupt_pull();
                Some(Event::Stop { grace })
            }
            Command::Destroy => {
                self.interrupt_pull();
                Some(Event::Destroy)
            }
            Command::Limited(limitation) => Some(Event::Limited(limitation)),
            Command::Update(request, answer) => {
                let update = self.next_update;
                self.next_update += 1;
                self.updates.insert(update, (*request, answer));
                Some(Event::Update { update })
            }
            Command::Input(..) | Command::Resize(..) => None,
        }
    }

    /// Applies an event and performs its effects; an effect that fails gives the next event.
    async fn apply(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            tracing::debug!(container = self.launch.container, ?event, "container");
            let mut effects = Vec::new();
            let now = Now {
                mono: os::boot_time(),
                wall: Wall(0),
            };
            self.state.apply(event, now, &mut effects);
            debug_assert_eq!(self.state.check(), Ok(()));
            for effect in effects {
                next = self.perform(effect).await;
                if next.is_some() {
                    break;
                }
            }
        }
    }

    async fn perform(&mut self, effect: Effect) -> Option<Event> {
        self.context.crash_point();
        match effect {
            Effect::Persist => {
                let failed = self.records.persist(&self.launch).err()?;
                return Some(Event::RecordFailed {
                    mark: None,
                    message: failed.to_string(),
                });
            }
            Effect::Record(mark) => {
                let failed = self.records.append(&Entry::Mark(&mark)).err()?;
                tracing::error!(container = self.launch.container, error = %failed, "a record was not written");
                return Some(Event::RecordFailed {
                    mark: Some(mark),
                    message: failed.to_string(),
                });
            }
            Effect::Prepare { isolator } => {
                self.pulling = self.isolators[isolator as usize].name() == isolation::PROVISIONER;
                self.step = Some(self.prepare(isolator));
            }
            Effect::PrepareLogs => self.step = Some(self.prepare_logs()),
            Effect::Start => match self.start() {
                Ok(step) => self.step = Some(step),
                Err(message) => return Some(Event::StepFailed { message }),
            },
            Effect::Isolate { isolator } => self.step = Some(self.isolate(isolator)),
            Effect::Fetch => self.step = Some(self.fetch()),
            Effect::Open => {
                let wait = self.context.settings.start_timeout;
                self.send(&Request::Open).await;
                self.step = Some(
                    tokio::time::sleep(wait)
                        .map(|()| {
                            let message = "the gate did not open in time".to_owned();
                            Done::Event(Event::StepFailed { message })
                        })
                        .boxed(),
                );
            }
            Effect::Signal { signal } => self.send(&Request::Signal(signal)).await,
            Effect::Update { update } => self.begin_update(update),
            Effect::RefuseUpdate { update } => {
                if let Some((_, answer)) = self.updates.remove(&update) {
                    // Whoever asked may be gone.
                    let _ = answer.send(Err("the container is ending".to_owned()));
                }
            }
            Effect::EndNested => self.step = Some(self.end_nested()),
            Effect::Kill => {
                // The only step that can be under way is a fetch, or the opening of the gate.
                self.step = None;
                if self.supervisor.is_none() {
                    return Some(Event::Exited(Exit::Vanished));
                }
                self.send(&Request::Kill).await;
            }
            Effect::Cleanup { isolator } => self.step = Some(self.cleanup(isolator)),
            Effect::CleanupLogs => self.step = Some(self.cleanup_logs()),
            Effect::Launched { pid } => {
                self.forget_launch();
                self.records.rest();
                self.view.send_modify(|view| {
                    view.pid = Some(pid);
                    view.launched = Some(pid);
                });
            }
            Effect::Terminated(termination) => self.terminated(termination),
        }
        None
    }

    /// Keeps nothing that only a launch needs for as long as the command runs.
    fn forget_launch(&mut self) {
        self.config = None;
        self.launch.config = Default::default();
        self.plan = LaunchPlan::none();
        self.ground = Ground::default();
    }

    /// A supervisor that cannot be told anything is gone or broken; the second is made the first.
    async fn send(&mut self, request: &Request) {
        if let Some(supervisor) = &mut self.supervisor
            && supervisor.send(request).await.is_err()
        {
            supervisor.kill().await;
        }
    }

    fn terminated(&mut self, termination: Termination) {
        if !termination.cleanup_failures.is_empty() {
            self.context.destroy_errors.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %self.directory.display(), %error, "a runtime directory was not removed");
        }
        self.view.send_modify(|view| {
            view.pid = None;
            view.termination = Some(termination);
        });
    }
}

enum Heard {
    Answer(std::io::Result<Option<Answer>>),
    Gone(std::io::Result<Option<tepui_init::Exit>>),
}

fn exit_of(exit: Option<tepui_init::Exit>) -> Exit {
    match exit {
        Some(tepui_init::Exit::Status(status)) => Exit::Status(status),
        Some(tepui_init::Exit::NeverStarted) => Exit::NeverStarted,
        None => Exit::Vanished,
    }
}

/// None when an isolator says what cannot be understood.
pub(crate) fn limitation(
    limitation: tepui_module_proto::isolator::Limitation,
) -> Option<Limitation> {
    use prost::Message;
    let resources = limitation
        .resources
        .iter()
        .map(|bytes| tepui_proto::v1::Resource::decode(&**bytes).map(Wire));
    Some(Limitation {
        reason: i32::try_from(limitation.reason).ok()?,
        message: limitation.message,
        resources: resources.collect::<Result<_, _>>().ok()?,
    })
}

async fn poll_option<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<tepui_model::time::Mono>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.since(os::boot_time())).await,
        None => std::future::pending().await,
    }
}
