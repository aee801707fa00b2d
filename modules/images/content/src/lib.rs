//! Container images: where they come from, and a store of them by content.
//!
//! A plain crate that the image stores share. Everything in an image is taken for hostile: what is read has a bound,
//! what is named by a digest is checked against it, and nothing is written outside of the store.

mod answer;
mod archive;
mod credentials;
pub mod defaults;
mod download;
mod error;
mod fetched;
mod layer;
mod layout;
mod manifest;
mod progress;
mod pulls;
mod reference;
mod registries;
mod registry;
mod store;
mod unpack;

pub use answer::{failure, prune, pull};
pub use archive::Archive;
pub use credentials::{Credential, DockerConfig};
pub use download::{Brought, Download};
pub use error::{Error, Result};
pub use fetched::Fetched;
pub use layer::decoder;
pub use layout::Layout;
pub use manifest::{Digest, Part};
pub use progress::Progress;
pub use pulls::Pulls;
pub use reference::Reference;
pub use registries::{Registries, is_url, own_credentials};
pub use registry::{Access, Registry};
pub use store::{Counters, Image, Pruned, Settings, Source, Store};
pub use tepui_fetcher_base::Program;
pub use unpack::{Allowance, is_whiteout, unpack};
