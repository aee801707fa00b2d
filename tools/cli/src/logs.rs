//! `tepui logs`: a task's output, from its sandbox.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use tepui_proto::v1;

use crate::client::{Agent, MasterArg, Sandbox};
use crate::show::is_terminal;

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
        let sandbox = sandbox_of(&task);
        let agent = master.agent(&task.agent_id).await?;
        let mut tail = Tail::new(
            agent,
            sandbox,
            if args.stderr { "stderr" } else { "stdout" },
        );
        let mut out = std::io::stdout();
        loop {
            let ended = !args.follow || is_terminal(master.task(&args.task).await?.state());
            // What was written before the state was asked for is read after it.
            tail.copy(&mut out).await?;
            if ended {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(POLL).await;
        }
    })
}

fn sandbox_of(task: &v1::Task) -> Sandbox {
    let executor = task
        .executor_id
        .as_ref()
        .map_or(&task.task_id.value, |id| &id.value);
    Sandbox {
        framework: task.framework_id.value.clone(),
        executor: executor.clone(),
    }
}

/// A file of a sandbox, read on from where the last read ended.
pub(crate) struct Tail {
    agent: Agent,
    sandbox: Sandbox,
    file: &'static str,
    offset: u64,
}

impl Tail {
    /// From the beginning of the file.
    pub(crate) fn new(agent: Agent, sandbox: Sandbox, file: &'static str) -> Self {
        Self {
            agent,
            sandbox,
            file,
            offset: 0,
        }
    }

    /// Copies what has come since the last time.
    pub(crate) async fn copy(&mut self, out: &mut impl Write) -> Result<()> {
        loop {
            let data = self
                .agent
                .read(&self.sandbox, self.file, self.offset)
                .await?;
            if data.is_empty() {
                return Ok(out.flush()?);
            }
            out.write_all(&data)?;
            self.offset += data.len() as u64;
        }
    }
}
