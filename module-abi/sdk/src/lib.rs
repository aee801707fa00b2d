//! Author kit for Tepui modules.
//!
//! A module is a type that implements [`Module`] and the trait of its kind, in a crate that depends on this one
//! only; [`export!`] makes a library of it:
//!
//! ```
//! use tepui_module_sdk::prelude::*;
//!
//! #[config]
//! pub struct Config {
//!     /// Users whose tasks nobody may run.
//!     forbidden: BTreeSet<String>,
//! }
//!
//! pub struct NotThese(Config);
//!
//! impl Module for NotThese {
//!     type Config = Config;
//!     const NAME: &'static str = "acme/not-these";
//!     fn create(config: Config, _: Context) -> Result<Self> {
//!         Ok(Self(config))
//!     }
//! }
//!
//! impl Authorizer for NotThese {
//!     async fn approver(&self, _: Option<&Subject>, action: Action) -> Result<Approver> {
//!         let forbidden = self.0.forbidden.clone();
//!         Ok(match action {
//!             Action::RunTask => Approver::by_value(move |user| !forbidden.contains(user)),
//!             _ => Approver::Always,
//!         })
//!     }
//! }
//! # mod library { use super::NotThese;
//! tepui_module_sdk::export!(authorizer: NotThese);
//! # }
//! # fn main() {}
//! ```
//!
//! What the kit does for the author: it decodes and encodes payloads, catches panics (the instance is finished
//! then, and the host makes another), runs futures on the library's own tokio, answers every call exactly once,
//! also when it is cancelled, and sends `tracing` events and panics to the daemon's log.
//!
//! Inside `async` methods all of tokio works: [`tokio`] is this library's own copy, on one thread that is started
//! when the first call has to wait. Blocking work belongs into [`blocking`].

// The macros name this crate, and are used in it as well.
extern crate self as tepui_module_sdk;

mod allocation;
mod call;
mod context;
mod export;
mod failure;
mod instance;
mod kinds;
mod log;
mod module;
mod runtime;

pub use allocation::{Client, Cluster, NotOffered, Proposals, RoleKey};
pub use call::{blocking, progress};
pub use context::{Context, Host};
pub use failure::{Failure, Result};
pub use kinds::{
    Allocator, Approver, Authorizer, CacheUse, Candidacy, Check, Container, ContainerId,
    ContainerLogger, Explanation, Exported, Exporter, Fetch, Fetcher, ImageStore, Isolator,
    LeaderContender, LeaderDetector, Limitation, Logged, Output, Prune, Pruned, Pulled, Question,
    Update,
};
pub use module::{Module, NoConfig, Report};
pub use tepui_module_proto as proto;
pub use tepui_module_sdk_macros::config;
pub use tepui_proto::v1 as mesos;
pub use tokio;
pub use tracing;

/// Everything an author usually needs.
pub mod prelude {
    pub use crate::kinds::{
        Allocator, Approver, Authorizer, CacheUse, Candidacy, Container, ContainerId,
        ContainerLogger, Explanation, Exported, Exporter, Fetch, Fetcher, ImageStore, Isolator,
        LeaderContender, LeaderDetector, Limitation, Logged, Output, Prune, Pruned, Pulled,
        Question, Update,
    };
    pub use crate::proto::isolator::{LaunchPlan, Mount, Namespace};
    pub use crate::{
        Client, Cluster, Context, Failure, Module, NoConfig, Proposals, Report, Result, RoleKey,
        blocking, config, export, mesos, progress,
    };
    pub use std::collections::{BTreeMap, BTreeSet};
    pub use std::path::PathBuf;
    pub use std::time::Duration;
    pub use tepui_model::allocation::{AgentKey, Fact, FrameworkKey, Round};
    pub use tepui_model::authorization::{Action, Subject};
    pub use tepui_model::resources::{Quantities, Resource, Resources, Scalar};
    pub use tepui_model::time::Mono;
    pub use tokio::process::Command;
    pub use tokio::{fs, net, time};
    pub use tracing::{debug, error, info, warn};
}

/// The vocabulary of the core: ids, time, resources, authorization.
pub use tepui_model as model;

/// What the macros expand to; not for authors.
#[doc(hidden)]
pub mod macro_support {
    pub use crate::export::{
        Entry, allocator, authorizer, container_logger, create, exporter, fetcher, image_store,
        isolator, leader, leader_contender, leader_detector, manifest,
    };
    pub use schemars;
    pub use serde;
    pub use tepui_module_abi::macro_support::{
        LibHeader, RootCell, RootModuleResult, WithMetadata, lib_header, root_of,
    };
    pub use tepui_module_abi::{
        ABI_VERSION, HostV1, InstanceV1, RResult, RSlice, RVec, Reply, RootV1, RootV1Ref,
    };
    pub use tepui_module_proto::note;
    /// Version of the kit.
    pub const SDK_VERSION: &str = env!("CARGO_PKG_VERSION");
    /// How this library treats a panic.
    pub const PANIC: &str = if cfg!(panic = "unwind") {
        "unwind"
    } else {
        "abort"
    };
}
