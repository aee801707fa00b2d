//! A library whose panics end the process, and whose note says otherwise. It is right in everything else, so the
//! host must see it in the file: an abort build imports no `_Unwind_RaiseException`.
//!
//! `cargo xtask build` compiles this crate with `-C panic=abort`; a plain build of the workspace makes an ordinary library
//! of it, which fails when the host's trial provokes a panic, since nothing here catches one. `export!` would refuse to
//! compile, so the symbols are written by hand.

use tepui_module_abi::macro_support::{LibHeader, RootCell, RootModuleResult, lib_header, root_of};
use tepui_module_abi::{
    HostV1, InstanceV1, Message, RErr, ROk, RResult, RSlice, RVec, Reply, RootV1,
};

/// `LibraryManifest { abi: "1.0.0", sdk: "0.0.0", panic: "unwind", modules: [{ name: "bad/abort", kinds: ["authorizer"],
/// schema: "true" }] }`, encoded by hand, as all of it.
const MANIFEST: &[u8] =
    b"\x0a\x051.0.0\x12\x050.0.0\x1a\x06unwind\x2a\x1d\x0a\x09bad/abort\x1a\x0aauthorizer\x3a\x04true";

extern "C" fn manifest() -> RVec<u8> {
    MANIFEST.to_vec().into()
}

extern "C" fn create(spec: RSlice<'_, u8>, _: HostV1) -> RResult<InstanceV1, Reply> {
    match spec.is_empty() {
        true => RErr(Reply::error(3, Vec::new())),
        false => ROk(InstanceV1 {
            obj: std::ptr::null(),
            call,
            start,
            cancel,
            release,
        }),
    }
}

unsafe extern "C" fn call(_: *const (), method: u32, _: RSlice<'_, u8>) -> Reply {
    panic!("method {method} panics, and nobody catches it")
}

unsafe extern "C" fn start(_: *const (), _: u64, method: u32, _: u64, _: Message) {
    panic!("method {method} panics, and nobody catches it")
}

unsafe extern "C" fn cancel(_: *const (), _: u64) {}

unsafe extern "C" fn release(_: *const ()) {}

static ROOT: RootCell = RootCell::new(RootV1 { manifest, create });

extern "C" fn constructor() -> RootModuleResult {
    root_of(&ROOT).erased()
}

// SAFETY: no other item has this name, and the constructor returns the erased root.
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
static HEADER: LibHeader = unsafe { lib_header(constructor) };

const TEXT: &[u8] = b"tepui modules 1
abi 1.0.0
sdk 0.0.0
panic unwind
module authorizer bad/abort
end
";

// SAFETY: no other item has this name or section, and the bytes are plain data.
#[unsafe(export_name = "tepui_module_note")]
#[unsafe(link_section = ".tepui")]
static NOTE: [u8; TEXT.len()] = *TEXT.first_chunk().expect("its own length");
