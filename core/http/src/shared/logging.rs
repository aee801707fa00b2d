//! The log level, and `/logging/toggle`, which raises it for a while.
//!
//! Levels are glog's: 0 is the normal level, 1 to 3 say more. What a level means is up to the daemon.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::authorize::Authorizer;
use crate::request::Request;
use crate::response::Response;
use crate::router::Router;
use crate::shared::{guarded, parse_duration, parse_number};

/// The log level of a daemon. Clones share it.
#[derive(Clone)]
pub struct Logging {
    inner: Arc<Inner>,
}

struct Inner {
    original: u32,
    level: Mutex<u32>,
    /// Counts settings, so that the end of an old one does not undo a newer one.
    setting: AtomicU64,
    apply: Box<dyn Fn(u32) + Send + Sync>,
}

impl Logging {
    /// Starts at `original`; `apply` is called with each new level.
    pub fn new(original: u32, apply: impl Fn(u32) + Send + Sync + 'static) -> Logging {
        let inner = Inner {
            original,
            level: Mutex::new(original),
            setting: AtomicU64::new(0),
            apply: Box::new(apply),
        };
        Logging {
            inner: Arc::new(inner),
        }
    }

    /// The level in effect.
    pub fn level(&self) -> u32 {
        *self
            .inner
            .level
            .lock()
            .expect("no panic happens under this lock")
    }

    /// Sets a level for a while, then goes back to the original one. Must be called on a runtime.
    pub fn set(&self, level: u32, duration: Duration) -> Result<(), String> {
        if level < self.inner.original {
            return Err(format!("'{level}' < original level"));
        }
        let setting = self.inner.setting.fetch_add(1, Ordering::Relaxed) + 1;
        self.apply(level);
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            if this.inner.setting.load(Ordering::Relaxed) == setting {
                this.apply(this.inner.original);
            }
        });
        Ok(())
    }

    /// SET_LOGGING_LEVEL of the v1 APIs. Must be called on a runtime.
    ///
    /// # Errors
    /// What to answer with 400.
    pub fn set_for(&self, level: u32, nanoseconds: i64) -> Result<(), String> {
        let nanoseconds = u64::try_from(nanoseconds)
            .map_err(|_| "Expecting 'set_logging_level.duration' not to be negative")?;
        self.set(level, Duration::from_nanos(nanoseconds))
    }

    fn apply(&self, level: u32) {
        *self
            .inner
            .level
            .lock()
            .expect("no panic happens under this lock") = level;
        (self.inner.apply)(level);
    }

    pub(crate) fn register(&self, router: &mut Router, authorizer: &Arc<dyn Authorizer>) {
        let logging = self.clone();
        guarded(
            router,
            authorizer,
            "/logging/toggle",
            "/logging/toggle",
            move |request: Request| {
                let logging = logging.clone();
                async move {
                    logging
                        .toggle(&request)
                        .unwrap_or_else(Response::bad_request)
                }
            },
        );
    }

    fn toggle(&self, request: &Request) -> Result<Response, String> {
        let (level, duration) = match (request.query.get("level"), request.query.get("duration")) {
            (None, None) => {
                return Ok(Response::text(
                    http::StatusCode::OK,
                    format!("{}\n", self.level()),
                ));
            }
            (Some(level), Some(duration)) => (level, duration),
            (None, Some(_)) => return Err("Expecting 'level=value' in query.\n".to_owned()),
            (Some(_), None) => return Err("Expecting 'duration=value' in query.\n".to_owned()),
        };
        let level: i64 = parse_number(level).map_err(|error| format!("{error}.\n"))?;
        let level = u32::try_from(level).map_err(|_| format!("Invalid level '{level}'.\n"))?;
        let duration = parse_duration(duration).map_err(|error| format!("{error}.\n"))?;
        self.set(level, duration)
            .map_err(|error| format!("{error}.\n"))?;
        Ok(Response::empty(http::StatusCode::OK))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn level_is_raised_for_a_while() {
        let logging = Logging::new(0, |_| {});
        let ask = |query: &str| {
            logging.toggle(&Request::new(
                Method::GET,
                &format!("/logging/toggle{query}"),
            ))
        };
        let shown = ask("").unwrap();
        assert_eq!(shown.body_bytes().unwrap(), "0\n");
        assert_eq!(
            ask("?level=1").unwrap_err(),
            "Expecting 'duration=value' in query.\n"
        );
        assert_eq!(
            ask("?level=-1&duration=1secs").unwrap_err(),
            "Invalid level '-1'.\n"
        );
        ask("?level=2&duration=5secs").unwrap();
        assert_eq!(logging.level(), 2);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(logging.level(), 0);
        let error = logging.set_for(2, -1).unwrap_err();
        assert!(error.contains("'set_logging_level.duration'"), "{error}");
        assert_eq!(logging.level(), 0);
        logging.set_for(3, 5_000_000_000).unwrap();
        assert_eq!(logging.level(), 3);
    }
}
