//! Clients beyond the server's capacity: told so, and to come back.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::socket::Stream;

/// Clients that are told at once; more are cut off without a word.
const TOLD: usize = 256;
/// What telling one may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is read of its request, so that closing does not reset the connection before it has read the answer.
const HEARD: usize = 64 * 1024;

const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Retry-After: 1\r\n\
    Connection: close\r\n\
    Content-Length: 25\r\n\r\n\
    Too many connections open";

/// Says 503.
pub(super) struct Refusing {
    room: Arc<Semaphore>,
}

impl Refusing {
    pub(super) fn new() -> Refusing {
        Refusing {
            room: Arc::new(Semaphore::new(TOLD)),
        }
    }

    pub(super) fn tell<S: Stream>(&self, mut socket: S, tasks: &TaskTracker) {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            return;
        };
        tasks.spawn(async move {
            // It may be gone already.
            let _ = timeout(PATIENCE, async {
                socket.write_all(ANSWER).await?;
                socket.shutdown().await?;
                let mut heard = socket.take(HEARD as u64);
                tokio::io::copy(&mut heard, &mut tokio::io::sink()).await
            })
            .await;
            drop(permit);
        });
    }
}
