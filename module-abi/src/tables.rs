//! The tables. Frozen: any change is a new root type beside [`RootV1`].

use abi_stable::{
    StableAbi,
    library::{CheckTypeLayout, LibHeader, RootModule, RootModuleResult},
    marker_type::ErasedPrefix,
    prefix_type::{PrefixRefTrait, WithMetadata},
    sabi_types::VersionStrings,
    std_types::{RResult, RSlice, RVec},
};

/// Version of the tables, in the note and the manifest of every library.
pub const ABI_VERSION: &str = "1.0.0";

/// Payload bytes, and handles that travel with them.
#[repr(C)]
#[derive(Debug, Default, Clone, PartialEq, Eq, StableAbi)]
pub struct Message {
    /// A protobuf message; which one, the method says.
    pub bytes: RVec<u8>,
    /// File descriptors (HANDLEs on Windows) that belong to whoever has the message.
    pub handles: RVec<i64>,
}

impl Message {
    /// A message without handles.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: bytes.into(),
            handles: RVec::new(),
        }
    }
}

/// Answer to a call.
#[repr(C)]
#[derive(Debug, Default, Clone, PartialEq, Eq, StableAbi)]
pub struct Reply {
    /// 0 is OK; else the number of a gRPC code, and the bytes are a `Failure`.
    pub code: u32,
    /// Payload of the method, or `Failure`.
    pub message: Message,
}

impl Reply {
    /// A successful answer.
    pub fn ok(bytes: Vec<u8>) -> Self {
        Self {
            code: 0,
            message: Message::new(bytes),
        }
    }

    /// A failed answer; `bytes` hold a `Failure`.
    pub fn error(code: u32, bytes: Vec<u8>) -> Self {
        Self {
            code,
            message: Message::new(bytes),
        }
    }
}

/// The library, found by the loader symbol.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RootV1Ref, prefix_fields = RootV1Fields)))]
#[sabi(missing_field(panic))]
pub struct RootV1 {
    /// Encoded `LibraryManifest`: every module in the file.
    pub manifest: extern "C" fn() -> RVec<u8>,
    /// Makes an instance of a module named in the encoded `CreateRequest`, without side effects.
    /// On error the reply has a code other than 0.
    #[sabi(last_prefix_field)]
    pub create: extern "C" fn(spec: RSlice<'_, u8>, host: HostV1) -> RResult<InstanceV1, Reply>,
}

/// One instance of a module. Its functions may be called on any thread, also at the same time.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct InstanceV1 {
    /// First argument of each function.
    pub obj: *const (),
    /// Answers at once: no waiting, no I/O. The slice is the caller's.
    pub call: unsafe extern "C" fn(obj: *const (), method: u32, request: RSlice<'_, u8>) -> Reply,
    /// Returns at once and answers by [`HostV1::complete`], exactly once, with the number `call`, which the
    /// host uses for no other unfinished call. `timeout_ms` tells when the host will cancel; 0 is never.
    pub start: unsafe extern "C" fn(
        obj: *const (),
        call: u64,
        method: u32,
        timeout_ms: u64,
        request: Message,
    ),
    /// Asks for an end of the call; it still completes, once.
    pub cancel: unsafe extern "C" fn(obj: *const (), call: u64),
    /// The last call. Unfinished calls are cancelled.
    pub release: unsafe extern "C" fn(obj: *const ()),
}

/// What a module may ask of its host. Valid for the life of the process.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct HostV1 {
    /// First argument of each function; never freed.
    pub ctx: *const (),
    /// Log, metrics, health, progress. Never waits.
    pub call: unsafe extern "C" fn(ctx: *const (), method: u32, request: RSlice<'_, u8>) -> Reply,
    /// Answers a started call, from any thread.
    pub complete: unsafe extern "C" fn(ctx: *const (), call: u64, reply: Reply),
}

// SAFETY: the contract of both tables says that their functions may be called from any thread at
// any time (an instance until its release), and the pointer is only ever handed to them.
unsafe impl Send for InstanceV1 {}
// SAFETY: as above.
unsafe impl Sync for InstanceV1 {}
// SAFETY: as above; the context is never freed.
unsafe impl Send for HostV1 {}
// SAFETY: as above.
unsafe impl Sync for HostV1 {}

impl RootModule for RootV1Ref {
    abi_stable::declare_root_module_statics! {RootV1Ref}
    const BASE_NAME: &'static str = "tepui_module";
    const NAME: &'static str = "tepui_module";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new(ABI_VERSION);
}

/// A root in a static, as the loader symbol and static linking need it.
#[doc(hidden)]
pub type RootCell = WithMetadata<RootV1>;

/// The reference to a root in a static.
#[doc(hidden)]
pub const fn root_of(cell: &'static RootCell) -> RootV1Ref {
    RootV1Ref(cell.static_as_prefix())
}

/// The content of the loader symbol.
///
/// # Safety
/// `constructor` must return an erased [`RootV1Ref`].
#[doc(hidden)]
pub const unsafe fn lib_header(constructor: extern "C" fn() -> RootModuleResult) -> LibHeader {
    // SAFETY: the caller's promise is the one asked for.
    unsafe { LibHeader::from_constructor::<RootV1Ref>(constructor, CheckTypeLayout::Yes) }
}

impl RootV1Ref {
    /// What the constructor behind the loader symbol returns.
    #[doc(hidden)]
    pub fn erased(self) -> RootModuleResult {
        // SAFETY: erasing a prefix reference is sound; it is only used again as the `RootV1Ref` that the header names.
        RResult::ROk(unsafe { self.to_prefix_ref().cast::<ErasedPrefix>() })
    }
}
