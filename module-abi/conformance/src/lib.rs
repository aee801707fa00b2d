//! Conformance suites: what the host may expect of every module of a kind.
//!
//! A suite runs through the host's real loader and clients, against a library ([`Subject::file`]) or against modules
//! that are linked into a test ([`Subject::linked`]), which is how an author runs it:
//!
//! ```no_run
//! # fn root() -> tepui_module_abi::RootV1Ref { unimplemented!() }
//! // In a test of the module's crate, with `linked!(authorizer: GroupAuthorizer)` in place of `root()`.
//! let example = r#"modules."acme/group" = { admins = "ops", groups = { ops = ["root"] } }"#;
//! tepui_module_conformance::check(root(), "acme/group", example);
//! ```
//!
//! A suite says what is wrong in its error. It checks what `SPEC.md` says with MUST, as far as it can be seen from
//! outside; it does not judge a policy.

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use serde_json::Value;
use tepui_module_abi::RootV1Ref;
use tepui_module_proto::common::LibraryManifest;
use tepui_module_proto::isolator::ContainerConfig;
use tepui_module_proto::kind;

mod allocator;
mod authorizer;
mod common;
mod exporter;
mod fetcher;
mod image_store;
mod isolator;
mod leader;
mod logger;
mod subject;

pub use allocator::allocator;
pub use authorizer::authorizer;
pub use exporter::exporter;
pub use fetcher::fetcher;
pub use image_store::image_store;
pub use isolator::isolator;
pub use leader::leader;
pub use logger::container_logger;
pub use subject::Subject;

/// Runs the suites of all kinds of a module that is linked into a test, with the settings that `example`, a
/// configuration file, has for it. Panics with what is wrong.
pub fn check(root: RootV1Ref, name: &str, example: &str) {
    if let Err(error) = check_all(root, name, example) {
        panic!("{name} is not as a module of its kind must be: {error:#}");
    }
}

fn check_all(root: RootV1Ref, name: &str, example: &str) -> Result<()> {
    let example: Value = toml::from_str(example).context("the example is not TOML")?;
    let settings = example
        .pointer("/modules")
        .and_then(|modules| modules.get(name));
    let settings = settings.cloned().unwrap_or(Value::Null);
    let manifest = LibraryManifest::decode(root.manifest()().as_slice())?;
    let module = manifest.modules.iter().find(|module| module.name == name);
    let kinds = &module.context("the library has no such module")?.kinds;
    let subject = Subject::linked(root, name, settings);
    let has = |kind: &str| kinds.iter().any(|of| of == kind);
    ensure!(!kinds.is_empty(), "the module has no kind");
    if has(kind::ALLOCATOR) {
        allocator(&subject)?;
    }
    if has(kind::AUTHORIZER) {
        authorizer(&subject)?;
    }
    if has(kind::EXPORTER) {
        exporter(&subject)?;
    }
    if has(kind::FETCHER) {
        fetcher(&subject, None)?;
    }
    if has(kind::CONTAINER_LOGGER) {
        container_logger(&subject)?;
    }
    if has(kind::IMAGE_STORE) {
        image_store(&subject, None)?;
    }
    if has(kind::ISOLATOR) {
        isolator(&subject, &ContainerConfig::default())?;
    }
    if has(kind::LEADER_CONTENDER) && has(kind::LEADER_DETECTOR) {
        leader(&subject)?;
    }
    Ok(())
}
