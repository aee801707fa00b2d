//! `tepui logs`: a task's output, from its sandbox.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use tepui_proto::v1;

use crate::client::{Agent, MasterArg, Sandbox};

/// How often the end of a file is looked at.
const POLL: Duration = Duration::from_millis(200);

/// `tepui logs`
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    master: MasterArg,
    /// Id of the task
    task: String,
    /// Print stderr instead of stdout
    #[arg(long)]
    stderr: bool,
    /// Go on until the task has ended
    #[arg(long, short)]
    follow: bool,
}

/// Prints the output of a task.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    crate::block_on(async {
        let master = args.master.client()?;
        let task = master.task(&args.task).await?;
        let agent = master.agent(&task.agent_id).await?;
        let file = if args.stderr { "stderr" } else { "stdout" };
        let mut tail = Output::of_task(&task).tail(agent, file);
        let mut out = std::io::stdout();
        loop {
            let ended = !args.follow || master.task(&args.task).await?.state().is_terminal();
            // What was written before the state was asked for is read after it.
            tail.copy(&mut out).await?;
            if ended {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(POLL).await;
        }
    })
}

/// Where the output of a task is.
pub(crate) struct Output {
    sandbox: Sandbox,
    /// Directory in the sandbox, with a slash; empty for the sandbox itself.
    directory: String,
}

impl Output {
    /// Of the task that an update is about.
    pub(crate) fn of(framework: &v1::FrameworkId, status: &v1::TaskStatus) -> Self {
        let executor = status.executor_id.as_ref();
        Self::new(framework, &status.task_id, executor, Some(status))
    }

    /// Of a task that the master knows.
    pub(crate) fn of_task(task: &v1::Task) -> Self {
        // The update of an end may come from somebody who knows no container.
        let mut statuses = task.statuses.iter().rev();
        let status = statuses.find(|status| status.container_status.is_some());
        Self::new(
            &task.framework_id,
            &task.task_id,
            task.executor_id.as_ref(),
            status,
        )
    }

    fn new(
        framework: &v1::FrameworkId,
        task: &v1::TaskId,
        executor: Option<&v1::ExecutorId>,
        status: Option<&v1::TaskStatus>,
    ) -> Self {
        let container = status.and_then(|status| status.container_status.as_ref());
        let id = container.and_then(|container| container.container_id.as_ref());
        // A task of a group has a container in that of its executor, and a sandbox in that one's.
        let nested = id.is_some_and(|id| id.parent.is_some());
        Self {
            sandbox: Sandbox {
                framework: framework.value.clone(),
                executor: executor.map_or(&task.value, |id| &id.value).clone(),
            },
            directory: if nested {
                format!("tasks/{}/", task.value)
            } else {
                String::new()
            },
        }
    }

    /// A file of it, from the beginning.
    pub(crate) fn tail(&self, agent: Agent, file: &str) -> Tail {
        Tail {
            agent,
            sandbox: self.sandbox.clone(),
            file: format!("{}{file}", self.directory),
            offset: 0,
        }
    }
}

/// A file of a sandbox, read on from where the last read ended.
pub(crate) struct Tail {
    agent: Agent,
    sandbox: Sandbox,
    file: String,
    offset: u64,
}

impl Tail {
    /// Copies what has come since the last time.
    pub(crate) async fn copy(&mut self, out: &mut impl Write) -> Result<()> {
        loop {
            let data = self
                .agent
                .read(&self.sandbox, &self.file, self.offset)
                .await?;
            if data.is_empty() {
                return Ok(out.flush()?);
            }
            out.write_all(&data)?;
            self.offset += data.len() as u64;
        }
    }
}
