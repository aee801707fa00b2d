//! The clocks of an agent.

use nix::time::{ClockId, clock_gettime};
use tepui_model::time::{Mono, Now, Wall};

/// Now. The monotonic part goes on while the machine sleeps and is the same for every process of a
/// boot, so that deadlines in records mean the same to the next agent process.
pub(crate) fn now() -> Now {
    let read = |clock: ClockId| {
        let time = clock_gettime(clock).expect("the system has this clock");
        i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec())
    };
    Now {
        mono: Mono(u64::try_from(read(ClockId::CLOCK_BOOTTIME)).unwrap_or_default()),
        wall: Wall(i64::try_from(read(ClockId::CLOCK_REALTIME)).unwrap_or_default()),
    }
}
