//! Bugs planted on purpose: tests that should find a wrong encoder or decoder are shown to find these.
//!
//! Only builds with debug assertions can have one; what is shipped has none of this.

#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU8, Ordering};

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Whole doubles are written without their decimal point.
    Encoder = 1,
    /// A number for a string is taken, where Mesos refuses it.
    Decoder = 2,
}

#[cfg(debug_assertions)]
static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants a bug for the rest of the process's life; without debug assertions nothing happens.
pub fn plant(bug: Bug) {
    #[cfg(debug_assertions)]
    PLANTED.store(bug as u8, Ordering::Relaxed);
    #[cfg(not(debug_assertions))]
    let _ = bug;
}

/// Whether this bug was planted.
#[inline]
pub(super) fn is_planted(bug: Bug) -> bool {
    #[cfg(debug_assertions)]
    return PLANTED.load(Ordering::Relaxed) == bug as u8;
    #[cfg(not(debug_assertions))]
    {
        let _ = bug;
        false
    }
}
