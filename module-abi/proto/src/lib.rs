//! Payload messages of the module contract: what the bytes in the frozen tables mean.
//!
//! Messages are generated from `proto/tepui/module/*.proto`, which are the reference for authors in other
//! languages. Beside them live the conversions that both ends of the contract share: the note in a library
//! ([`note`]), the columns of the allocator ([`columns`]), and what makes messages pleasant to build.
//! Fields and numbers are only ever added; `module-abi/abi.lock` holds what there is.

#[allow(missing_docs, clippy::all, unreachable_pub)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/_includes.rs"));
}

pub mod columns;
mod failure;
mod launch_plan;
pub mod note;

pub use generated::tepui::module as common;
pub use generated::tepui::module::{
    allocator, authorizer, exporter, fetcher, image_store, isolator, leader, logger,
};
pub use prost::Message;

/// The encoded `FileDescriptorSet` of all payload messages.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Kinds of modules, as manifests, notes and configuration name them.
pub mod kind {
    /// Proposes offers.
    pub const ALLOCATOR: &str = "allocator";
    /// Decides who may do what.
    pub const AUTHORIZER: &str = "authorizer";
    /// Writes the daemon's metrics in a form of its own.
    pub const EXPORTER: &str = "exporter";
    /// Brings what commands ask for into their sandboxes.
    pub const FETCHER: &str = "fetcher";
    /// Says where the output of containers goes.
    pub const CONTAINER_LOGGER: &str = "container-logger";
    /// Pulls container images and unpacks their layers.
    pub const IMAGE_STORE: &str = "image-store";
    /// Prepares, limits and measures containers.
    pub const ISOLATOR: &str = "isolator";
    /// Takes part in the election of a leading master.
    pub const LEADER_CONTENDER: &str = "leader-contender";
    /// Tells who leads.
    pub const LEADER_DETECTOR: &str = "leader-detector";
    /// All of them.
    pub const ALL: &[&str] = &[
        ALLOCATOR,
        AUTHORIZER,
        CONTAINER_LOGGER,
        EXPORTER,
        FETCHER,
        IMAGE_STORE,
        ISOLATOR,
        LEADER_CONTENDER,
        LEADER_DETECTOR,
    ];
}
