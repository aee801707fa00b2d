//! A library that keeps to the layout of the tables and to nothing else: its note promises a module that the manifest
//! does not have, and the one it has answers each call twice, the second time otherwise.

use tepui_module_abi::macro_support::{LibHeader, RootCell, RootModuleResult, lib_header, root_of};
use tepui_module_abi::{
    ABI_VERSION, HostV1, InstanceV1, Message, ROk, RResult, RSlice, RVec, Reply, RootV1,
};
use tepui_module_sdk::proto::authorizer::{Approver, ApproversReply, Method, approver::Answer};
use tepui_module_sdk::proto::common::{CommonMethod, Failure, LibraryManifest, ModuleManifest};
use tepui_module_sdk::proto::{Message as _, kind};

extern "C" fn manifest() -> RVec<u8> {
    let module = ModuleManifest {
        name: "bad/answers-twice".to_owned(),
        kinds: vec![kind::AUTHORIZER.to_owned()],
        schema: "true".to_owned(),
        ..ModuleManifest::default()
    };
    let manifest = LibraryManifest {
        abi: ABI_VERSION.to_owned(),
        panic: "unwind".to_owned(),
        modules: vec![module],
        ..LibraryManifest::default()
    };
    manifest.encode_to_vec().into()
}

extern "C" fn create(_: RSlice<'_, u8>, host: HostV1) -> RResult<InstanceV1, Reply> {
    let obj: *const HostV1 = Box::leak(Box::new(host));
    ROk(InstanceV1 {
        obj: obj.cast(),
        call,
        start,
        cancel,
        release,
    })
}

unsafe extern "C" fn call(_: *const (), method: u32, _: RSlice<'_, u8>) -> Reply {
    match method {
        m if m == CommonMethod::ProbePanic as u32 => {
            Reply::error(13, Failure::new("a panic, it says").encode_to_vec())
        }
        _ => Reply::ok(Vec::new()),
    }
}

unsafe extern "C" fn start(obj: *const (), call: u64, method: u32, _: u64, _: Message) {
    // SAFETY: the object is the leaked table of the host.
    let host = unsafe { &*obj.cast::<HostV1>() };
    if method == Method::Changed as u32 {
        // Its rules are what they are.
        let reply = Reply::error(12, Failure::new("no such method").encode_to_vec());
        // SAFETY: as below, and only once.
        return unsafe { (host.complete)(host.ctx, call, reply) };
    }
    let approver = Approver {
        answer: Answer::Always.into(),
        handle: 0,
    };
    let never = ApproversReply {
        approvers: vec![Approver {
            answer: Answer::Never.into(),
            ..approver
        }],
    };
    let always = ApproversReply {
        approvers: vec![approver],
    };
    let twice = [&never, &always].map(|reply| {
        if method < 16 {
            Vec::new()
        } else {
            reply.encode_to_vec()
        }
    });
    for bytes in twice {
        // SAFETY: the table is valid for the life of the process. That the second completion breaks the rule
        // of one answer is what this module is for.
        unsafe { (host.complete)(host.ctx, call, Reply::ok(bytes)) };
    }
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
module authorizer bad/answers-twice
module authorizer bad/promised
end
";

// SAFETY: no other item has this name or section, and the bytes are plain data.
#[unsafe(export_name = "tepui_module_note")]
#[unsafe(link_section = ".tepui")]
static NOTE: [u8; TEXT.len()] = *TEXT.first_chunk().expect("its own length");
