//! What fetchers and image stores share: other programs that bring files, archives of strangers, and downloads that may
//! stall.

mod described;
mod pace;
mod program;

pub use described::{Budget, DESCRIPTION, Described};
pub use pace::Pace;
pub use program::{Group, Program, shown};
