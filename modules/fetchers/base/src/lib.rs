//! What fetchers and image stores share: other programs that bring files, and archives of strangers.

mod described;
mod program;

pub use described::{Budget, DESCRIPTION, Described};
pub use program::{Program, shown};
