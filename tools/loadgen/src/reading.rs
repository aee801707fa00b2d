//! A framework's events, read all the time: who does not read is cut off, however busy it is with what it read.

use anyhow::{Context as _, Result, bail};
use tepui_http::SchedulerClient;
use tepui_proto::v1::scheduler;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Events that are read ahead of their use.
const AHEAD: usize = 1 << 20;

/// Events that are handed on at once.
const BATCH: usize = 1024;

/// Reads until it is ended.
pub(crate) struct Reading {
    events: mpsc::Receiver<scheduler::Event>,
    end: oneshot::Sender<()>,
    task: JoinHandle<Result<SchedulerClient>>,
}

impl Reading {
    /// Reads the events of this framework.
    pub(crate) fn of(framework: SchedulerClient) -> Self {
        let (sender, events) = mpsc::channel(AHEAD);
        let (end, ended) = oneshot::channel();
        Self {
            events,
            end,
            task: tokio::spawn(read(framework, sender, ended)),
        }
    }

    /// Those that came since the last time; waits for one.
    pub(crate) async fn next(&mut self) -> Result<Vec<scheduler::Event>> {
        let mut events = Vec::new();
        if self.events.recv_many(&mut events, BATCH).await == 0 {
            (&mut self.task).await??;
            bail!("the events ended");
        }
        Ok(events)
    }

    /// The framework; what was read and not asked for is gone.
    pub(crate) async fn end(self) -> Result<SchedulerClient> {
        let _ = self.end.send(());
        self.task.await.context("the reader of events")?
    }
}

async fn read(
    mut framework: SchedulerClient,
    events: mpsc::Sender<scheduler::Event>,
    mut ended: oneshot::Receiver<()>,
) -> Result<SchedulerClient> {
    loop {
        let event = tokio::select! {
            event = framework.next() => event?,
            _ = &mut ended => return Ok(framework),
        };
        // Who asks for no more has ended this.
        let _ = events.send(event).await;
    }
}
