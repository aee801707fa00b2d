//! Answers whose readers take their time. Each holds a thread until its last byte is taken, so there are only so many:
//! beyond that the slowest of them ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Slow answers at once, and who they are.
#[derive(Debug)]
pub(super) struct Slow {
    most: usize,
    all: Mutex<Vec<Arc<State>>>,
}

#[derive(Debug)]
struct State {
    since: Instant,
    /// Bytes taken since then.
    taken: AtomicUsize,
    ended: CancellationToken,
}

impl State {
    /// Bytes a second. Who has just come is not compared by its first moment.
    fn pace(&self) -> f64 {
        let seconds = self.since.elapsed().as_secs_f64().max(1.0);
        self.taken.load(Ordering::Relaxed) as f64 / seconds
    }
}

impl Slow {
    /// At most so many.
    pub(super) const fn new(most: usize) -> Self {
        Self {
            most,
            all: Mutex::new(Vec::new()),
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<State>>> {
        self.all.lock().expect("no panic happens under this lock")
    }

    /// One more. If there are too many the slowest that was there before ends.
    pub(super) fn enter(&'static self) -> Entered {
        let mut all = self.all();
        if all.len() >= self.most {
            let slowest = (0..all.len()).min_by(|a, b| all[*a].pace().total_cmp(&all[*b].pace()));
            if let Some(slowest) = slowest {
                all.swap_remove(slowest).ended.cancel();
            }
        }
        let state = Arc::new(State {
            since: Instant::now(),
            taken: AtomicUsize::new(0),
            ended: CancellationToken::new(),
        });
        all.push(Arc::clone(&state));
        Entered { slow: self, state }
    }
}

/// One of the slow answers, until it is dropped.
#[derive(Debug)]
pub(super) struct Entered {
    slow: &'static Slow,
    state: Arc<State>,
}

impl Entered {
    /// Its reader has taken so many bytes more.
    pub(super) fn taken(&self, bytes: usize) {
        self.state.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits until it has to end for another's sake.
    pub(super) async fn ended(&self) {
        self.state.ended.cancelled().await;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.slow
            .all()
            .retain(|other| !Arc::ptr_eq(other, &self.state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_slowest_ends_when_there_are_too_many() {
        static SLOW: Slow = Slow::new(2);
        let (quick, slowest) = (SLOW.enter(), SLOW.enter());
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        quick.taken(1000);
        slowest.taken(10);
        let third = SLOW.enter();
        slowest.ended().await;
        assert!(!quick.state.ended.is_cancelled() && !third.state.ended.is_cancelled());
        drop(third);
        let fourth = SLOW.enter();
        assert!(!quick.state.ended.is_cancelled(), "a place was left");
        drop((quick, slowest, fourth));
        assert!(SLOW.all().is_empty());
    }
}
