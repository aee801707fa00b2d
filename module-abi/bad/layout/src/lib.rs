//! A library whose note is right and whose root table is not: one function is missing a parameter. The host must
//! refuse it before it calls anything.

#![allow(
    non_local_definitions,
    missing_docs,
    reason = "what the macros of abi_stable expand to"
)]

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RSlice, RVec};

/// As the real one, but for `create`.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RootV1Ref, prefix_fields = RootV1Fields)))]
#[sabi(missing_field(panic))]
pub struct RootV1 {
    /// As the real one.
    pub manifest: extern "C" fn() -> RVec<u8>,
    /// Lacks the host.
    #[sabi(last_prefix_field)]
    pub create: extern "C" fn(spec: RSlice<'_, u8>) -> RVec<u8>,
}

impl RootModule for RootV1Ref {
    abi_stable::declare_root_module_statics! {RootV1Ref}
    const BASE_NAME: &'static str = "tepui_module";
    const NAME: &'static str = "tepui_module";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new(tepui_module_abi::ABI_VERSION);
}

extern "C" fn manifest() -> RVec<u8> {
    RVec::new()
}

extern "C" fn create(_: RSlice<'_, u8>) -> RVec<u8> {
    RVec::new()
}

/// What abi_stable looks for.
#[abi_stable::export_root_module]
pub fn root() -> RootV1Ref {
    RootV1 { manifest, create }.leak_into_prefix()
}

const TEXT: &[u8] = b"tepui modules 1
abi 1.0.0
sdk 0.0.0
panic unwind
module authorizer bad/layout
end
";

// SAFETY: no other item has this name or section, and the bytes are plain data.
#[unsafe(export_name = "tepui_module_note")]
#[unsafe(link_section = ".tepui")]
static NOTE: [u8; TEXT.len()] = *TEXT.first_chunk().expect("its own length");
