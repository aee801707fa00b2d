//! `--rate_limits`: how many calls a second the frameworks of a principal may make.
//!
//! Mesos limits the messages of v0 frameworks so; here every call of a scheduler but SUBSCRIBE counts, for there are no
//! other messages. The calls of a principal go on one after the other, evenly spaced; as many as its capacity wait, and
//! what comes on top is refused with 429 (Mesos drops it). Principals that are not named share the default.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::MutexGuard;
use tokio::time::Instant;

use crate::owner::Unavailable;

/// The limit of a principal, or of all that are not named together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Between two calls.
    pub interval: Duration,
    /// Calls that may wait; without, what the lanes of the frameworks hold.
    pub capacity: Option<usize>,
}

/// `--rate_limits`; nobody is limited by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RateLimits {
    /// Principals that are named; none: they are not limited.
    pub principals: BTreeMap<String, Option<RateLimit>>,
    /// For all others together.
    pub others: Option<RateLimit>,
}

/// The limits at work.
#[derive(Debug, Default)]
pub(crate) struct CallLimits {
    named: HashMap<String, Option<Arc<Limiter>>>,
    others: Option<Arc<Limiter>>,
    /// Calls of each principal that were received and not handed on: they wait, or were refused.
    held: Mutex<BTreeMap<String, u64>>,
}

impl CallLimits {
    pub(crate) fn new(limits: &RateLimits) -> Self {
        let limiter = |limit: RateLimit| Arc::new(Limiter::new(limit));
        let named = limits.principals.iter();
        Self {
            named: named
                .map(|(principal, limit)| (principal.clone(), limit.map(limiter)))
                .collect(),
            others: limits.others.map(limiter),
            held: Mutex::default(),
        }
    }

    /// The limit that the calls of a framework with this principal share.
    pub(crate) fn of(&self, principal: Option<&str>) -> Option<Limited> {
        let named = principal.and_then(|principal| self.named.get(principal));
        let limiter = named.unwrap_or(&self.others).clone()?;
        let principal = principal.map(str::to_owned);
        Some(Limited { limiter, principal })
    }

    /// Waits for the turn of a call. It is handed on before the turn is given back, so that the order stays.
    pub(crate) async fn turn<'a>(&self, limited: &'a Limited) -> Result<Turn<'a>, Unavailable> {
        let count = |by: i64| {
            let Some(principal) = &limited.principal else {
                return;
            };
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let held = held.entry(principal.clone()).or_default();
            *held = held.saturating_add_signed(by);
        };
        count(1);
        let turn = limited.limiter.turn().await?;
        count(-1);
        Ok(turn)
    }

    /// Calls that were received and not handed on, by principal.
    pub(crate) fn held(&self) -> BTreeMap<String, u64> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }
}

/// Whose calls are limited by what.
#[derive(Clone, Debug)]
pub(crate) struct Limited {
    limiter: Arc<Limiter>,
    principal: Option<String>,
}

#[derive(Debug)]
struct Limiter {
    limit: RateLimit,
    waiting: AtomicUsize,
    /// When the next call may go on. Fair: who waits longest gets it first.
    next: tokio::sync::Mutex<Instant>,
}

/// Nobody else goes on meanwhile.
#[derive(Debug)]
pub(crate) struct Turn<'a>(#[expect(dead_code, reason = "held")] MutexGuard<'a, Instant>);

/// Takes one off the number of those that wait, also when its client has gone.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Limiter {
    fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            waiting: AtomicUsize::new(0),
            next: tokio::sync::Mutex::new(Instant::now()),
        }
    }

    async fn turn(&self) -> Result<Turn<'_>, Unavailable> {
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waits = Waits(&self.waiting);
        if self.limit.capacity.is_some_and(|most| before >= most) {
            return Err(Unavailable::Busy);
        }
        let mut next = self.next.lock().await;
        tokio::time::sleep_until(*next).await;
        *next = Instant::now() + self.limit.interval;
        Ok(Turn(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(capacity: Option<usize>) -> CallLimits {
        let limit = |qps: f64| RateLimit {
            interval: Duration::from_secs_f64(1.0 / qps),
            capacity,
        };
        CallLimits::new(&RateLimits {
            principals: [
                ("slow".to_owned(), Some(limit(2.0))),
                ("free".to_owned(), None),
            ]
            .into(),
            others: Some(limit(10.0)),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn calls_go_on_in_order_and_evenly() {
        let limits = Arc::new(limits(None));
        assert!(limits.of(Some("free")).is_none());
        assert!(limits.of(Some("other")).is_some() && limits.of(None).is_some());
        let begin = Instant::now();
        let (sender, mut done) = tokio::sync::mpsc::channel(4);
        for n in 0..4 {
            let (limits, sender) = (Arc::clone(&limits), sender.clone());
            tokio::spawn(async move {
                let limited = limits.of(Some("slow")).expect("it is named");
                let turn = limits.turn(&limited).await.expect("no capacity");
                let told = sender.send((n, begin.elapsed())).await;
                told.expect("read below");
                drop(turn);
            });
            tokio::task::yield_now().await;
        }
        assert_eq!(limits.held()["slow"], 3, "one went on at once");
        for n in 0..4 {
            let (number, at) = done.recv().await.expect("all go on");
            assert_eq!(number, n);
            let expected = Duration::from_millis(500) * n;
            assert!(
                at >= expected && at < expected + Duration::from_millis(100),
                "{at:?}"
            );
        }
        assert_eq!(limits.held()["slow"], 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_beyond_the_capacity_is_refused() {
        let limits = limits(Some(1));
        let limited = limits.of(Some("slow")).expect("it is named");
        drop(limits.turn(&limited).await.expect("the first"));
        let second = limits.turn(&limited);
        tokio::pin!(second);
        assert!(futures::poll!(&mut second).is_pending());
        let third = limits.turn(&limited).await;
        assert!(matches!(third, Err(Unavailable::Busy)), "{third:?}");
        drop(second.await.expect("it waited"));
        assert_eq!(limits.held()["slow"], 1, "what was refused");
        assert!(limits.turn(&limited).await.is_ok());
    }
}
