//! From module types to a library: roots, manifests, notes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use prost::Message as _;
use tepui_module_abi::{ABI_VERSION, HostV1, InstanceV1, RResult, RVec, Reply};
use tepui_module_proto::common::{
    CreateRequest, IsolatorManifest, LibraryManifest, ModuleManifest,
};
use tepui_module_proto::note::NoteModule;

use crate::failure::undecodable;
use crate::instance::{self, Service};
use crate::kinds::{
    self, Allocator, Authorizer, ContainerLogger, Exporter, Fetcher, ImageStore, Isolator,
    LeaderContender, LeaderDetector,
};
use crate::{Context, Failure, Host, Module, Result, log, macro_support};

/// Makes a library of modules: `export!(authorizer: Mine)`, or several as `export!(isolator: A, isolator: B)`.
///
/// Kinds are `allocator`, `authorizer`, `container_logger`, `exporter`, `fetcher`, `image_store`, `isolator`, `leader_contender`,
/// `leader_detector`, and `leader` for a type that is both of the last two. To be used once, in a crate of type `cdylib`.
#[macro_export]
macro_rules! export {
    ($($kind:ident : $module:ty),+ $(,)?) => {
        #[cfg(panic = "abort")]
        ::core::compile_error!(
            "a module library must be built with panic = \"unwind\": a panic would end the daemon"
        );
        const _: () = {
            use $crate::macro_support as support;
            static ENTRIES: &[support::Entry] = &[$(support::$kind::<$module>()),+];
            const NOTES: &[support::note::NoteModule] = &[$(support::$kind::<$module>().note()),+];
            extern "C" fn manifest() -> support::RVec<u8> {
                support::manifest(ENTRIES)
            }
            extern "C" fn create(
                spec: support::RSlice<'_, u8>,
                host: support::HostV1,
            ) -> support::RResult<support::InstanceV1, support::Reply> {
                support::create(ENTRIES, spec.as_slice(), host, true)
            }
            static ROOT: support::RootCell = support::RootCell::new(support::RootV1 { manifest, create });
            extern "C" fn constructor() -> support::RootModuleResult {
                support::root_of(&ROOT).erased()
            }
            // The name that abi_stable looks for.
            // SAFETY: no other item has this name, and the constructor returns the erased root.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            pub static HEADER: support::LibHeader = unsafe { support::lib_header(constructor) };

            const LENGTH: usize =
                support::note::length(support::ABI_VERSION, support::SDK_VERSION, support::PANIC, NOTES);
            // Exported, because a linker drops what nobody refers to.
            // SAFETY: no other item has this name or section, and the bytes are plain data.
            #[unsafe(export_name = "tepui_module_note")]
            #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".tepui"))]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__tepui"))]
            pub static NOTE: [u8; LENGTH] =
                support::note::write(support::ABI_VERSION, support::SDK_VERSION, support::PANIC, NOTES);
        };
    };
}

/// The same root without a library, for simulators and tests that link modules: `linked!(allocator: Mine)` is a
/// [`RootV1Ref`](tepui_module_abi::RootV1Ref). Log and panic hook stay those of the program.
#[macro_export]
macro_rules! linked {
    ($($kind:ident : $module:ty),+ $(,)?) => {{
        use $crate::macro_support as support;
        static ENTRIES: &[support::Entry] = &[$(support::$kind::<$module>()),+];
        extern "C" fn manifest() -> support::RVec<u8> {
            support::manifest(ENTRIES)
        }
        extern "C" fn create(
            spec: support::RSlice<'_, u8>,
            host: support::HostV1,
        ) -> support::RResult<support::InstanceV1, support::Reply> {
            support::create(ENTRIES, spec.as_slice(), host, false)
        }
        static ROOT: support::RootCell = support::RootCell::new(support::RootV1 { manifest, create });
        support::root_of(&ROOT)
    }};
}

/// One module of a library.
#[doc(hidden)]
pub struct Entry {
    kinds: &'static str,
    name: &'static str,
    aliases: &'static [&'static str],
    manifest: fn() -> ModuleManifest,
    create: fn(CreateRequest, Host) -> Result<Arc<dyn Service>>,
}

impl Entry {
    /// What the note says of it.
    pub const fn note(&self) -> NoteModule {
        NoteModule {
            kinds: self.kinds,
            name: self.name,
            aliases: self.aliases,
        }
    }
}

macro_rules! kinds {
    ($($name:ident($($bound:path),+) = $kinds:literal, $service:path, $isolator:expr;)*) => {$(
        #[doc(hidden)]
        pub const fn $name<M: $($bound +)+>() -> Entry {
            Entry {
                kinds: $kinds,
                name: M::NAME,
                aliases: M::ALIASES,
                manifest: || {
                    let isolator: fn() -> Option<IsolatorManifest> = $isolator;
                    module_manifest::<M>($kinds, isolator())
                },
                create: |request, host| Ok(Arc::new($service(make::<M>(request, host)?))),
            }
        }
    )*};
}

kinds! {
    allocator(Allocator) = "allocator", kinds::AllocatorService::new, || None;
    authorizer(Authorizer) = "authorizer", kinds::AuthorizerService::new, || None;
    container_logger(ContainerLogger) = "container-logger", kinds::LoggerService::new, || None;
    exporter(Exporter) = "exporter", kinds::ExporterService::new, || None;
    fetcher(Fetcher) = "fetcher", kinds::FetcherService::new, || None;
    image_store(ImageStore) = "image-store", kinds::ImageStoreService::new, || None;
    leader_contender(LeaderContender) = "leader-contender", kinds::ContenderService::new, || None;
    leader_detector(LeaderDetector) = "leader-detector", kinds::DetectorService::new, || None;
    leader(LeaderContender, LeaderDetector) =
        "leader-contender,leader-detector", kinds::LeaderService::new, || None;
}

#[doc(hidden)]
pub const fn isolator<M: Isolator>() -> Entry {
    Entry {
        kinds: "isolator",
        name: M::NAME,
        aliases: M::ALIASES,
        manifest: || {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let isolator = IsolatorManifest {
                nesting: M::NESTING,
                standalone: M::STANDALONE,
                limits: M::LIMITS,
                needs: owned(M::NEEDS),
                after: owned(M::AFTER),
            };
            module_manifest::<M>("isolator", Some(isolator))
        },
        create: |request, host| {
            Ok(Arc::new(kinds::IsolatorService::new(make::<M>(
                request, host,
            )?)))
        },
    }
}

fn module_manifest<M: Module>(kinds: &str, isolator: Option<IsolatorManifest>) -> ModuleManifest {
    ModuleManifest {
        name: M::NAME.to_owned(),
        aliases: M::ALIASES.iter().map(|alias| (*alias).to_owned()).collect(),
        kinds: kinds.split(',').map(str::to_owned).collect(),
        version: M::VERSION.to_owned(),
        author: M::AUTHOR.to_owned(),
        description: M::DESCRIPTION.to_owned(),
        schema: serde_json::to_string(&schemars::schema_for!(M::Config)).unwrap_or_default(),
        isolator,
    }
}

/// A module and where it lives.
pub(crate) struct Made<M> {
    pub(crate) module: M,
    pub(crate) request: CreateRequest,
    pub(crate) host: Host,
}

/// Makes a module from its settings.
pub(crate) fn make<M: Module>(request: CreateRequest, host: Host) -> Result<Made<M>> {
    let text: &[u8] = if request.config.is_empty() {
        b"{}"
    } else {
        &request.config
    };
    let config = serde_json::from_slice(text)
        .map_err(|error| Failure::invalid(format!("settings of {}: {error}", M::NAME)))?;
    let context = Context {
        request: request.clone(),
        host,
    };
    let module = M::create(config, context)?;
    Ok(Made {
        module,
        request,
        host,
    })
}

#[doc(hidden)]
pub fn manifest(entries: &'static [Entry]) -> RVec<u8> {
    let modules = || entries.iter().map(|entry| (entry.manifest)()).collect();
    let manifest = LibraryManifest {
        abi: ABI_VERSION.to_owned(),
        sdk: macro_support::SDK_VERSION.to_owned(),
        panic: macro_support::PANIC.to_owned(),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        // A schema is made by author code. A library that panics here has no modules.
        modules: catch_unwind(modules).unwrap_or_else(|payload| {
            std::mem::forget(payload);
            Vec::new()
        }),
    };
    manifest.encode_to_vec().into()
}

#[doc(hidden)]
pub fn create(
    entries: &'static [Entry],
    spec: &[u8],
    host: HostV1,
    own_library: bool,
) -> RResult<InstanceV1, Reply> {
    let host = Host(host);
    let made = catch_unwind(AssertUnwindSafe(|| {
        let request = CreateRequest::decode(spec).map_err(|error| undecodable(&error))?;
        if own_library {
            log::install(host, &request.log_level);
        }
        let entry = entries.iter().find(|entry| entry.name == request.module);
        let entry = entry.ok_or_else(|| {
            Failure::not_found(format!("this library has no module {:?}", request.module))
        })?;
        let service = (entry.create)(request, host)?;
        Ok(instance::table(entry.name, host, service))
    }));
    let made = made.unwrap_or_else(|payload| {
        let message = instance::message_of(&*payload);
        std::mem::forget(payload);
        Err(Failure::panicked(&message, log::take_backtrace()))
    });
    made.map_err(|failure: Failure| failure.reply()).into()
}
