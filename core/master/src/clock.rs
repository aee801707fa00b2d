//! The real clocks, read for the state.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use tepui_model::time::{Mono, Now, Wall};
use tokio::time::Instant;

/// Both clocks now. The monotonic one goes on while the machine is suspended.
pub(crate) fn now() -> Now {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux has this clock");
    let mono = Duration::new(boot.tv_sec() as u64, boot.tv_nsec() as u32);
    Now {
        mono: Mono(mono.as_nanos() as u64),
        wall: wall(),
    }
}

/// The wall clock now.
pub(crate) fn wall() -> Wall {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Wall(since.as_nanos() as i64)
}

/// When the runtime's clock will show what the state calls `at`.
pub(crate) fn instant(at: Mono, now: Now) -> Instant {
    Instant::now() + at.since(now.mono)
}
