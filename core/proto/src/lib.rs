//! Mesos v1 messages, their JSON form, RecordIO, the agent link and records on disk.
//!
//! The messages are generated from `proto/`. What Mesos does with them beyond that is here, driven
//! by the tables of [`descriptor`]: [`json`] reads and writes them exactly as Mesos 1.11 does,
//! [`decode`] enforces proto2 `required`, [`recordio`] frames them on streams. There is no logic of
//! the cluster in this crate.

#[allow(missing_docs, clippy::all, unreachable_pub, rustdoc::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/_includes.rs"));
}

pub mod convert;
pub mod descriptor;
pub mod json;
pub mod put;
pub mod recordio;
mod required;
mod task_state;
pub mod validate;
mod wire;
mod wire_value;

pub use generated::mesos::v1;
pub use generated::tepui::{disk, link};
pub use prost::{Message, Name};
pub use required::{DecodeError, check_required, decode, is_decodable};
pub use wire_value::Wire;
