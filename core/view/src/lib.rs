//! Tables, rows and the encoders of what clients read.
//!
//! The owner of a state keeps [`table::Table`]s of [`rows`]; readers get a [`view::View`], a snapshot of
//! all of them, and never touch the owner. Pure: no I/O, no clock.

#![deny(clippy::disallowed_types)]

pub mod encode;
pub mod rows;
pub mod table;
pub mod view;

pub use rows::*;
pub use table::{Rows, Table};
pub use view::{Classes, FrameworkView, Globals, Maintenance, View};
