//! Two answers a second: for endpoints whose answers are costly, as in Mesos.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::response::Response;

/// Two answers a second, as in Mesos; more wait for their turn.
const INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for one's turn.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Lets one pass each half second.
#[derive(Debug, Default)]
pub struct Pace {
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// Waits for a turn; the error is the answer when too many wait.
    pub async fn turn(&self) -> Result<(), Box<Response>> {
        let at = {
            let now = Instant::now();
            let mut next = self.next.lock().await;
            let at = next.map_or(now, |next| next.max(now));
            let wait = at.duration_since(now);
            if wait > LONGEST_WAIT {
                let text = "Too many requests are waiting for their turn (two a second)";
                let seconds = wait.as_secs().try_into().unwrap_or(u32::MAX);
                return Err(Box::new(Response::too_many(text, seconds)));
            }
            *next = Some(at + INTERVAL);
            at
        };
        tokio::time::sleep_until(at).await;
        Ok(())
    }
}
