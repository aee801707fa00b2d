//! `tepui run`: a framework that runs one command, some times over, and ends with it.

mod code;
mod fields;
mod plan;
mod pulls;

use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tepui_http::SchedulerClient;
use tepui_model::Quantities;
use tepui_proto::convert;
use tepui_proto::v1::framework_info::capability::Type as Capability;
use tepui_proto::v1::{self, scheduler};

use self::code::exit_code;
use self::plan::{Launch, Unit};
use self::pulls::Pulls;
use crate::client::{Master, MasterArg};
use crate::logs::{Output, Tail};
use crate::stop::StopSignals;
use crate::when::Span;

/// How often a task's output is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How long killed tasks may take before the framework is torn down over them.
const KILL_PATIENCE: Duration = Duration::from_secs(15);

/// Run a command, a task or a group of tasks, and wait for the end
///
/// Task states go to stderr; with --follow the task's output goes to stdout and stderr as it comes.
/// The exit status is the task's own: its exit code, 128 + the signal that ended it, or 1 if it
/// could not run. Ctrl-C kills the tasks.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    master: MasterArg,
    #[command(flatten)]
    wanted: plan::Wanted,
    /// Name of the framework and, unless a file names them, its tasks
    #[arg(long, default_value = "tepui-run")]
    name: String,
    /// Show the output of the tasks while they run
    #[arg(long, short)]
    follow: bool,
    /// Kill the tasks after this time, such as 90s or 2h
    #[arg(long, value_name = "DURATION")]
    kill_after: Option<Span>,
    /// User that the tasks run as [default: yours]
    #[arg(long)]
    user: Option<String>,
    /// Role whose resources are used: first what is reserved to it
    #[arg(long, default_value = "*")]
    role: String,
    /// Principal of the framework
    #[arg(long)]
    principal: Option<String>,
    /// Let tasks run on while their agent is away
    #[arg(long)]
    checkpoint: bool,
    /// Capability of the framework, such as PARTITION_AWARE or GPU_RESOURCES; may be repeated
    #[arg(long = "capability", value_name = "NAME", value_parser = parse_capability)]
    capabilities: Vec<Capability>,
}

fn parse_capability(text: &str) -> Result<Capability, String> {
    let found = Capability::from_str_name(text).filter(|found| *found != Capability::Unknown);
    found
        .ok_or_else(|| "expected a capability of FrameworkInfo, such as PARTITION_AWARE".to_owned())
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let units = args.wanted.units(&args.name)?;
    crate::block_on(async {
        let mut stop = StopSignals::new()?;
        let kill_after = args.kill_after;
        let mut job = Job::subscribe(args, units).await?;
        let late = async {
            match kill_after {
                Some(Span(time)) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        let (killed, signal) = tokio::select! {
            outcome = job.work() => { outcome?; (false, None) }
            signal = stop.wait() => (true, Some(signal)),
            () = late => (true, None),
        };
        if killed {
            match job.running().count() {
                0 => eprintln!("no task runs: giving up"),
                running => eprintln!("killing {running} tasks"),
            }
            job.kill_all().await?;
            tokio::select! {
                outcome = tokio::time::timeout(KILL_PATIENCE, job.work()) => outcome.unwrap_or(Ok(()))?,
                _ = stop.wait() => {}
            }
        }
        job.teardown().await?;
        let code = signal.map_or_else(|| job.exit_code(), |signal| 128 + signal);
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    })
}

/// Whether nobody answers where an agent was, or one that has just started and knows of nothing yet.
fn is_away(error: &anyhow::Error) -> bool {
    use tepui_http::{ClientError, StatusCode};
    match error.downcast_ref() {
        Some(ClientError::Connect { .. } | ClientError::Timeout { .. } | ClientError::Body(_)) => {
            true
        }
        Some(ClientError::Refused { status, .. }) => *status == StatusCode::SERVICE_UNAVAILABLE,
        _ => false,
    }
}

/// A subscribed framework with its tasks.
struct Job {
    args: Args,
    master: Master,
    framework: SchedulerClient,
    /// What no offer had room for yet.
    waiting: VecDeque<Unit>,
    tasks: BTreeMap<String, Task>,
    /// Tasks were dropped for which no offer had come.
    given_up: bool,
    suppressed: bool,
    /// It was said that offers have too little.
    told: bool,
    /// It was said that an agent does not answer.
    agent_away: bool,
    pulls: Pulls,
}

/// A task that is to run, runs or has run.
#[derive(Default)]
struct Task {
    agent: Option<v1::AgentId>,
    state: Option<v1::TaskState>,
    message: String,
    output: Vec<Tail>,
}

impl Task {
    fn ended(&self) -> bool {
        self.state.is_some_and(v1::TaskState::is_terminal)
    }
}

impl Job {
    async fn subscribe(args: Args, units: Vec<Unit>) -> Result<Self> {
        let master = args.master.client()?;
        let user = args.user.clone().map_or_else(own_user, Ok)?;
        let capabilities = [Capability::MultiRole, Capability::ReservationRefinement];
        let mut capabilities: Vec<Capability> = capabilities
            .into_iter()
            .chain(args.capabilities.iter().copied())
            .collect();
        capabilities.sort_unstable();
        capabilities.dedup();
        let capability = |kind: Capability| v1::framework_info::Capability {
            r#type: Some(kind.into()),
        };
        let info = v1::FrameworkInfo {
            user,
            name: args.name.clone(),
            roles: vec![args.role.clone()],
            principal: args.principal.clone(),
            checkpoint: args.checkpoint.then_some(true),
            capabilities: capabilities.into_iter().map(capability).collect(),
            ..Default::default()
        };
        let framework = SchedulerClient::subscribe(master.http(), info).await;
        let framework =
            framework.with_context(|| format!("at the master {}", args.master.master))?;
        let ids = units
            .iter()
            .flat_map(|unit| &unit.tasks)
            .map(|task| task.task_id.value.clone());
        let tasks = ids.map(|id| (id, Task::default())).collect();
        eprintln!("framework {}", framework.id().value);
        Ok(Self {
            args,
            master,
            framework,
            waiting: units.into(),
            tasks,
            given_up: false,
            suppressed: false,
            told: false,
            agent_away: false,
            pulls: Pulls::default(),
        })
    }

    fn running(&self) -> impl Iterator<Item = (&String, &Task)> {
        self.tasks
            .iter()
            .filter(|(_, task)| task.agent.is_some() && !task.ended())
    }

    /// Handles events until every task has ended.
    async fn work(&mut self) -> Result<()> {
        let mut poll = tokio::time::interval(POLL);
        while self.tasks.values().any(|task| !task.ended()) {
            tokio::select! {
                event = self.framework.next() => self.handle(event?).await?,
                _ = poll.tick(), if self.args.follow => self.look_at_output().await?,
            }
        }
        Ok(())
    }

    /// An agent that is away, as while it restarts, has the output when it is back.
    async fn look_at_output(&mut self) -> Result<()> {
        match self.copy_output().await {
            Ok(()) => self.agent_away = false,
            Err(error) if is_away(&error) => {
                if !self.agent_away {
                    eprintln!("waiting for the agent's output: {error:#}");
                }
                self.agent_away = true;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn handle(&mut self, event: scheduler::Event) -> Result<()> {
        use scheduler::event::Type;
        match event.r#type() {
            Type::Offers => {
                self.use_offers(event.offers.unwrap_or_default().offers)
                    .await
            }
            Type::Update => match event.update {
                Some(update) => self.update(update.status).await,
                None => Ok(()),
            },
            Type::Error => bail!(
                "{}",
                event.error.map(|error| error.message).unwrap_or_default()
            ),
            _ => Ok(()),
        }
    }

    async fn use_offers(&mut self, offers: Vec<v1::Offer>) -> Result<()> {
        // What an offer does not hold may come with the next one.
        const REFUSE_SECONDS: f64 = 1.0;
        for offer in offers {
            let mut room = convert::resources(&offer.resources).context("resources of an offer")?;
            let mut launch = Launch::default();
            while let Some(unit) = self.waiting.front()
                && launch.add(unit, &mut room, &offer.agent_id, self.framework.id())
            {
                for task in self.waiting.pop_front().iter().flat_map(|unit| &unit.tasks) {
                    let task = self.tasks.entry(task.task_id.value.clone()).or_default();
                    task.agent = Some(offer.agent_id.clone());
                }
            }
            let operations = launch.operations();
            if operations.is_empty() {
                self.framework
                    .decline(vec![offer.id], REFUSE_SECONDS)
                    .await?;
            } else {
                self.framework
                    .accept(vec![offer.id], operations, REFUSE_SECONDS)
                    .await?;
            }
        }
        if self.waiting.is_empty() && !self.suppressed {
            self.suppressed = true;
            self.framework.bare(scheduler::call::Type::Suppress).await?;
        }
        if let Some(unit) = self.waiting.front()
            && !self.told
        {
            self.told = true;
            let needs = unit.needs();
            eprintln!("waiting for an offer of {needs}");
            self.say_if_none_is_large(&needs.quantities()).await;
        }
        Ok(())
    }

    /// Says that waiting is in vain as long as there are these agents only. Who may not list agents waits without knowing.
    async fn say_if_none_is_large(&self, needs: &Quantities) {
        let Ok(agents) = self.master.agents().await else {
            return;
        };
        let totals = agents.iter().map(|agent| {
            let total = convert::resources(&agent.total_resources).unwrap_or_default();
            total.quantities()
        });
        if !totals.into_iter().any(|total| total.contains(needs)) {
            eprintln!("no agent has that much in all: `tepui agents` lists what they have");
        }
    }

    async fn update(&mut self, status: v1::TaskStatus) -> Result<()> {
        let state = status.state();
        let id = status.task_id.value.clone();
        let shown = if status.message().is_empty() {
            String::new()
        } else {
            format!(": {}", status.message())
        };
        let line = format!("{id} {}{shown}", state.as_str_name());
        self.pulls.show(&status, &line);
        if let Some(task) = self.tasks.get_mut(&id) {
            if self.args.follow && task.output.is_empty() && state == v1::TaskState::TaskRunning {
                let agent = self
                    .master
                    .agent(
                        status
                            .agent_id
                            .as_ref()
                            .context("update without an agent")?,
                    )
                    .await?;
                let output = Output::of(self.framework.id(), &status);
                task.output = ["stdout", "stderr"]
                    .map(|file| output.tail(agent.clone(), file))
                    .into();
            }
            task.message = status.message().to_owned();
            task.state = Some(state);
        }
        if state.is_terminal() {
            // All of it is in the sandbox by now.
            self.copy_output().await?;
            if let Some(task) = self.tasks.get_mut(&id) {
                task.output.clear();
            }
        }
        Ok(self.framework.acknowledge(&status).await?)
    }

    async fn copy_output(&mut self) -> Result<()> {
        if self.tasks.values().any(|task| !task.output.is_empty()) {
            self.pulls.make_room();
        }
        for task in self.tasks.values_mut() {
            if let [stdout, stderr] = &mut task.output[..] {
                stdout.copy(&mut std::io::stdout()).await?;
                stderr.copy(&mut std::io::stderr()).await?;
            }
        }
        Ok(())
    }

    async fn kill_all(&mut self) -> Result<()> {
        // Tasks that no offer came for will not run any more.
        self.waiting.clear();
        let wanted = self.tasks.len();
        self.tasks.retain(|_, task| task.agent.is_some());
        self.given_up = self.tasks.len() < wanted;
        let running: Vec<_> = self
            .running()
            .map(|(id, task)| (id.clone(), task.agent.clone()))
            .collect();
        for (id, agent_id) in running {
            self.framework.kill(&id, agent_id).await?;
        }
        Ok(())
    }

    async fn teardown(&self) -> Result<()> {
        Ok(self.framework.bare(scheduler::call::Type::Teardown).await?)
    }

    /// The first task's code that is not 0, or 1 if some never ran.
    fn exit_code(&self) -> i32 {
        self.tasks
            .values()
            .map(|task| exit_code(task.state, &task.message))
            .find(|code| *code != 0)
            .unwrap_or(i32::from(self.given_up))
    }
}

fn own_user() -> Result<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())?;
    Ok(user.context("your user id has no name: give --user")?.name)
}
