//! What clients read, written straight from the rows.
//!
//! Each function writes one whole answer for one viewer into pieces of about 64 KiB, or less of it when
//! its sink wants no more. Nothing is
//! cached and no message is decoded where its bytes will do: most of a task's answer is a copy or
//! one walk over its bytes. Keys, their order and the forms of numbers are those of Mesos 1.11, as
//! recorded; the tests compare bytes.

pub mod agent;
mod blocks;
mod master_roles;
mod master_sums;
mod master_v0;
mod master_v1;
mod operations;
mod resources;
mod wire;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use tepui_model::authorization::ClassKey;
use tepui_model::id::Role;
use tepui_proto::json::Writer;

pub use tepui_proto::json::Sink;

pub use master_roles::{amount_of, get_roles, known_roles, roles};
pub use master_sums::state_summary;
pub use master_v0::{TasksQuery, frameworks, slaves, state, tasks};
pub use master_v1::{
    Form, get_agents, get_executors, get_frameworks, get_state, get_tasks, state_message,
};
pub use operations::get_operations;

/// What a daemon says about itself besides its state.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Release.
    pub version: String,
    /// Commit it was built from.
    pub git_sha: Option<String>,
    /// Branch it was built from.
    pub git_branch: Option<String>,
    /// Tag it was built from.
    pub git_tag: Option<String>,
    /// When it was built, as text.
    pub build_date: String,
    /// When it was built, in seconds since 1970.
    pub build_time: f64,
    /// Who built it.
    pub build_user: String,
    /// Name of the cluster.
    pub cluster: Option<String>,
    /// Directory of its logs.
    pub log_dir: Option<String>,
    /// File that something else logs to.
    pub external_log_file: Option<String>,
    /// Flags and their values, sorted.
    pub flags: Vec<(String, String)>,
}

/// Some of the values there are, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed<T> {
    /// All.
    All,
    /// These only.
    Only(BTreeSet<T>),
}

impl<T: Ord> Allowed<T> {
    /// None at all.
    #[must_use]
    pub const fn none() -> Self {
        Self::Only(BTreeSet::new())
    }

    /// Whether the value is one of them.
    pub fn has<Q: Ord + ?Sized>(&self, value: &Q) -> bool
    where
        T: std::borrow::Borrow<Q>,
    {
        match self {
            Self::All => true,
            Self::Only(these) => these.contains(value),
        }
    }
}

/// What one viewer may see; decided beforehand, once per class.
#[derive(Clone, Debug)]
pub struct Visibility {
    /// Classes of frameworks.
    pub frameworks: Allowed<ClassKey>,
    /// Classes of tasks.
    pub tasks: Allowed<ClassKey>,
    /// Classes of executors.
    pub executors: Allowed<ClassKey>,
    /// Roles, and resources reserved or allocated to them.
    pub roles: Allowed<Role>,
    /// The flags.
    pub flags: bool,
}

impl Visibility {
    /// For a viewer who may see everything.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            frameworks: Allowed::All,
            tasks: Allowed::All,
            executors: Allowed::All,
            roles: Allowed::All,
            flags: true,
        }
    }
}

/// Writes a JSON answer and hands on its last piece.
fn json(sink: Sink<'_>, write: impl FnOnce(&mut Writer<'_>)) {
    let mut last = Vec::new();
    write(&mut Writer::streaming(&mut last, sink));
    let _ = sink(last.into());
}

/// Collects an answer, for callers that want it whole.
#[must_use]
pub fn collect(write: impl FnOnce(Sink<'_>)) -> Vec<u8> {
    let mut whole = Vec::new();
    write(&mut |piece: Bytes| {
        whole.extend_from_slice(&piece);
        ControlFlow::Continue(())
    });
    whole
}
