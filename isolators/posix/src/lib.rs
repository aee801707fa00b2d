//! Isolators that need no more than POSIX: `posix/cpu`, `posix/mem`, `posix/rlimits`.

mod processes;
mod rlimits;
mod usage;

pub use rlimits::Rlimits;
pub use usage::{Accounting, Cpu, CpuTime, Measure, Mem, ResidentMemory};
