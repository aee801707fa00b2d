//! Ctrl-C and SIGTERM as something to wait for.

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a command to stop.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// From now on the signals do not end the process.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one; its number.
    pub(crate) async fn wait(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => libc_number(SignalKind::interrupt()),
            _ = self.terminate.recv() => libc_number(SignalKind::terminate()),
        }
    }
}

fn libc_number(kind: SignalKind) -> i32 {
    kind.as_raw_value()
}
