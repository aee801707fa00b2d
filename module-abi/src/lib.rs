//! The frozen tables between the Tepui host and module libraries.
//!
//! Three tables for all kinds of modules, and one function that opens a library. The tables never
//! change: what evolves is the payload (crate `tepui-module-proto`), where a new field is a protobuf
//! field and a new operation a method number. `SPEC.md` beside this crate says what each side must do.
//!
//! This is the only crate that names `abi_stable`, whose exact version is part of the ABI. It
//! deliberately knows nothing of kinds, payloads, search, or policy.

// abi_stable's derive expands to impls inside constants.
#![allow(non_local_definitions)]

mod layout;
mod loader;
mod tables;

pub use layout::layout_text;
pub use loader::{Library, OpenError, open};
pub use tables::{ABI_VERSION, HostV1, InstanceV1, Message, Reply, RootV1, RootV1Ref};

/// Types of `abi_stable` that the tables are made of.
pub use abi_stable::std_types::{RErr, ROk, RResult, RSlice, RVec};

/// What the macros of the SDK need to write the loader symbol; not for authors.
#[doc(hidden)]
pub mod macro_support {
    pub use crate::tables::{RootCell, lib_header, root_of};
    pub use abi_stable::library::{LibHeader, ROOT_MODULE_LOADER_NAME, RootModuleResult};
    pub use abi_stable::prefix_type::WithMetadata;
}
