//! Mesos v1 messages, their JSON form, RecordIO, the agent link and records on disk.

#[allow(missing_docs, clippy::all, unreachable_pub)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/_includes.rs"));
}

pub use generated::mesos::v1;
pub use generated::tepui::link;
pub use prost::{Message, Name};
mod wire_value;

pub use wire_value::Wire;
