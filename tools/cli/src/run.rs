//! `tepui run`: a framework that runs one command, some times over, and ends with it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tepui_http::SchedulerClient;
use tepui_http::scheduler_client::command_task;
use tepui_proto::v1::{self, scheduler};

use crate::client::{Master, MasterArg, Sandbox};
use crate::logs::Tail;
use crate::show::is_terminal;
use crate::stop::StopSignals;

/// How often a task's output is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How long killed tasks may take before the framework is torn down over them.
const KILL_PATIENCE: Duration = Duration::from_secs(15);

/// Run a command as a task and wait for its end
///
/// Task states go to stderr; with --follow the task's output goes to stdout and stderr as it comes.
/// The exit status is the task's own: its exit code, 128 + the signal that ended it, or 1 if it
/// could not run. Ctrl-C kills the tasks.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    master: MasterArg,
    /// Shell command to run
    #[arg(long, short, value_name = "COMMAND")]
    command: String,
    /// Name of the framework and its tasks
    #[arg(long, default_value = "tepui-run")]
    name: String,
    /// CPUs for each task
    #[arg(long, default_value_t = 0.1)]
    cpus: f64,
    /// Memory for each task, in MB
    #[arg(long, default_value_t = 32.0)]
    mem: f64,
    /// How many tasks to run
    #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    instances: u32,
    /// Show the output of the tasks while they run
    #[arg(long, short)]
    follow: bool,
    /// Environment variable of the task; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// User that the tasks run as [default: yours]
    #[arg(long)]
    user: Option<String>,
    /// Role whose resources are used
    #[arg(long, default_value = "*")]
    role: String,
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    for (flag, value) in [("--cpus", args.cpus), ("--mem", args.mem)] {
        if !(value.is_finite() && value > 0.0) {
            bail!("{flag} {value}: expected a number above 0");
        }
    }
    crate::block_on(async {
        let mut stop = StopSignals::new()?;
        let mut job = Job::subscribe(args).await?;
        let interrupted = tokio::select! {
            outcome = job.work() => { outcome?; None }
            signal = stop.wait() => Some(signal),
        };
        if interrupted.is_some() {
            eprintln!("killing {} tasks", job.running().count());
            job.kill_all().await?;
            tokio::select! {
                outcome = tokio::time::timeout(KILL_PATIENCE, job.work()) => outcome.unwrap_or(Ok(()))?,
                _ = stop.wait() => {}
            }
        }
        job.teardown().await?;
        let code = interrupted.map_or_else(|| job.exit_code(), |signal| 128 + signal);
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    })
}

/// A subscribed framework with its tasks.
struct Job {
    args: Args,
    master: Master,
    framework: SchedulerClient,
    tasks: BTreeMap<String, Task>,
    suppressed: bool,
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
        self.state.is_some_and(is_terminal)
    }
}

impl Job {
    async fn subscribe(args: Args) -> Result<Self> {
        let master = args.master.client()?;
        let user = args.user.clone().map_or_else(own_user, Ok)?;
        let info = v1::FrameworkInfo {
            user,
            name: args.name.clone(),
            roles: vec![args.role.clone()],
            capabilities: vec![v1::framework_info::Capability {
                r#type: Some(v1::framework_info::capability::Type::MultiRole.into()),
            }],
            ..Default::default()
        };
        let framework = SchedulerClient::subscribe(master.http(), info).await;
        let framework =
            framework.with_context(|| format!("at the master {}", args.master.master))?;
        let tasks = (0..args.instances)
            .map(|n| (task_id(&args, n), Task::default()))
            .collect();
        eprintln!("framework {}", framework.id().value);
        Ok(Self {
            args,
            master,
            framework,
            tasks,
            suppressed: false,
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
                _ = poll.tick(), if self.args.follow => self.copy_output().await?,
            }
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
        for offer in offers {
            let mut room = fits(&offer.resources, self.args.cpus, self.args.mem);
            let mut infos = Vec::new();
            for (id, task) in self
                .tasks
                .iter_mut()
                .filter(|(_, task)| task.agent.is_none())
            {
                if room == 0 {
                    break;
                }
                room -= 1;
                task.agent = Some(offer.agent_id.clone());
                infos.push(task_info(&self.args, id, &offer.agent_id));
            }
            self.answer(offer.id, infos).await?;
        }
        if !self.suppressed && self.tasks.values().all(|task| task.agent.is_some()) {
            self.suppressed = true;
            self.framework.bare(scheduler::call::Type::Suppress).await?;
        }
        Ok(())
    }

    async fn answer(&self, offer: v1::OfferId, tasks: Vec<v1::TaskInfo>) -> Result<()> {
        // What an offer does not hold may come with the next one.
        const REFUSE_SECONDS: f64 = 1.0;
        if tasks.is_empty() {
            return Ok(self.framework.decline(vec![offer], REFUSE_SECONDS).await?);
        }
        Ok(self.framework.launch(offer, tasks, REFUSE_SECONDS).await?)
    }

    async fn update(&mut self, status: v1::TaskStatus) -> Result<()> {
        let state = status.state();
        let id = status.task_id.value.clone();
        let shown = if status.message().is_empty() {
            String::new()
        } else {
            format!(": {}", status.message())
        };
        eprintln!("{id} {}{shown}", state.as_str_name());
        let sandbox = Sandbox {
            framework: self.framework.id().value.clone(),
            executor: id.clone(),
        };
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
                task.output = ["stdout", "stderr"]
                    .map(|file| Tail::new(agent.clone(), sandbox.clone(), file))
                    .into();
            }
            task.message = status.message().to_owned();
            task.state = Some(state);
        }
        if is_terminal(state) {
            // All of it is in the sandbox by now.
            self.copy_output().await?;
            if let Some(task) = self.tasks.get_mut(&id) {
                task.output.clear();
            }
        }
        Ok(self.framework.acknowledge(&status).await?)
    }

    async fn copy_output(&mut self) -> Result<()> {
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
        self.tasks.retain(|_, task| task.agent.is_some());
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

    /// The first task's code that is not 0.
    fn exit_code(&self) -> i32 {
        self.tasks
            .values()
            .map(|task| exit_code(task.state, &task.message))
            .find(|code| *code != 0)
            .unwrap_or(0)
    }
}

fn own_user() -> Result<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())?;
    Ok(user.context("your user id has no name: give --user")?.name)
}

fn task_id(args: &Args, n: u32) -> String {
    if args.instances == 1 {
        args.name.clone()
    } else {
        format!("{}-{n:05}", args.name)
    }
}

fn task_info(args: &Args, id: &str, agent_id: &v1::AgentId) -> v1::TaskInfo {
    let mut task = command_task(id, &args.command, args.cpus, args.mem);
    task.name = args.name.clone();
    task.agent_id = agent_id.clone();
    let variable = |(name, value): &(String, String)| v1::environment::Variable {
        name: name.clone(),
        value: Some(value.clone()),
        ..Default::default()
    };
    if let Some(command) = task.command.as_mut().filter(|_| !args.env.is_empty()) {
        command.environment = Some(v1::Environment {
            variables: args.env.iter().map(variable).collect(),
        });
    }
    for resource in &mut task.resources {
        resource.allocation_info = Some(v1::resource::AllocationInfo {
            role: Some(args.role.clone()),
        });
    }
    task
}

/// How many tasks an offer has room for.
fn fits(resources: &[v1::Resource], cpus: f64, mem: f64) -> u64 {
    let sum = |name: &str| -> f64 {
        resources
            .iter()
            .filter(|r| r.name == name)
            .filter_map(|r| r.scalar.as_ref())
            .map(|s| s.value)
            .sum()
    };
    // Three decimals count; below that it is rounding.
    let times = |have: f64, want: f64| ((have + 0.0005) / want).floor() as u64;
    times(sum("cpus"), cpus).min(times(sum("mem"), mem))
}

/// The code that a shell would report for the command. Mesos tells it in the update's message.
fn exit_code(state: Option<v1::TaskState>, message: &str) -> i32 {
    if state == Some(v1::TaskState::TaskFinished) {
        return 0;
    }
    if let Some(code) = message
        .strip_prefix("Command exited with status ")
        .and_then(|text| text.trim().parse().ok())
    {
        return code;
    }
    if let Some(name) = message.strip_prefix("Command terminated with signal ") {
        return 128 + signal_number(name.split(" (").next().unwrap_or(name).trim());
    }
    1
}

/// The number of a signal from what strsignal(3) calls it.
fn signal_number(description: &str) -> i32 {
    use nix::sys::signal::Signal;
    let named = Signal::iterator().find(|signal| describe(*signal) == description);
    named.map_or(0, |signal| signal as i32)
}

fn describe(signal: nix::sys::signal::Signal) -> &'static str {
    use nix::sys::signal::Signal::*;
    match signal {
        SIGHUP => "Hangup",
        SIGINT => "Interrupt",
        SIGQUIT => "Quit",
        SIGILL => "Illegal instruction",
        SIGTRAP => "Trace/breakpoint trap",
        SIGABRT => "Aborted",
        SIGBUS => "Bus error",
        SIGFPE => "Floating point exception",
        SIGKILL => "Killed",
        SIGUSR1 => "User defined signal 1",
        SIGSEGV => "Segmentation fault",
        SIGUSR2 => "User defined signal 2",
        SIGPIPE => "Broken pipe",
        SIGALRM => "Alarm clock",
        SIGTERM => "Terminated",
        SIGXCPU => "CPU time limit exceeded",
        SIGXFSZ => "File size limit exceeded",
        SIGVTALRM => "Virtual timer expired",
        SIGPROF => "Profiling timer expired",
        SIGSYS => "Bad system call",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_what_a_shell_would_report() {
        let failed = Some(v1::TaskState::TaskFailed);
        assert_eq!(
            exit_code(
                Some(v1::TaskState::TaskFinished),
                "Command exited with status 0"
            ),
            0
        );
        assert_eq!(exit_code(failed, "Command exited with status 7"), 7);
        assert_eq!(
            exit_code(
                failed,
                "Command terminated with signal Segmentation fault (core dumped)"
            ),
            139
        );
        assert_eq!(
            exit_code(failed, "Command terminated with signal Killed"),
            137
        );
        assert_eq!(exit_code(failed, "Container launch failed"), 1);
    }

    #[test]
    fn an_offer_holds_as_many_tasks_as_its_scarcest_resource() {
        let scalar = |name: &str, value| v1::Resource {
            name: name.to_owned(),
            scalar: Some(v1::value::Scalar { value }),
            ..Default::default()
        };
        let offer = [scalar("cpus", 1.0), scalar("mem", 100.0)];
        assert_eq!(fits(&offer, 0.1, 32.0), 3);
        assert_eq!(fits(&offer, 0.1, 1.0), 10);
        assert_eq!(fits(&offer, 2.0, 1.0), 0);
    }
}
