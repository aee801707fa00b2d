//! Waiting for a condition instead of sleeping.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again until there is a value; after [`PATIENCE`] the test fails with the last answer.
#[track_caller]
pub fn wait_for<T, E: Debug>(what: &str, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(value) => return value,
            Err(answer) if started.elapsed() > PATIENCE => {
                panic!(
                    "waited {} s for {what}; last answer: {answer:?}",
                    PATIENCE.as_secs()
                )
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
