//! Isolators that need no more than POSIX: `posix/rlimits`.

mod rlimits;

pub use rlimits::Rlimits;
