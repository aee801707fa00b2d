//! The module host of a daemon: from a name in the configuration to an instance.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use tepui_module_abi::{Library, RootV1Ref};
use tepui_module_proto::common::{CreateRequest, LibraryManifest, ModuleManifest};

use crate::backend;
use crate::child::{ChildError, ProcessLibrary};
use crate::config::{ModuleConfig, RunIn, schema};
use crate::error::LoadError;
use crate::instance::{Identity, Instance, Maker, Slot};
use crate::note::FileNote;
use crate::report::Report;
use crate::search::{Found, Search};
use crate::trial::{Trial, trial};
use crate::verify::{PrivateCopy, verify};

/// What a host is made from.
#[derive(Debug, Clone)]
pub struct HostSettings {
    /// `master`, `agent`, or `check`.
    pub daemon: &'static str,
    /// What the configuration says about modules.
    pub config: ModuleConfig,
    /// For private copies and the modules' runtime directories; without one, copies are in memory.
    pub runtime_dir: Option<PathBuf>,
    /// For the modules' state directories.
    pub work_dir: Option<PathBuf>,
    /// `tepui-module-host`; beside this program where none is named.
    pub module_host: Option<PathBuf>,
    /// Deadline of a call where neither the caller nor `[load]` has one.
    pub timeout: Duration,
    /// Limit of each step of a trial.
    pub trial: Duration,
    /// How long a child may go on after the deadline of a call before it is ended.
    pub grace: Duration,
    /// Least level of log events that modules send.
    pub log_level: String,
}

impl HostSettings {
    /// The usual deadlines.
    pub fn new(daemon: &'static str, config: ModuleConfig) -> Self {
        HostSettings {
            daemon,
            config,
            runtime_dir: None,
            work_dir: None,
            module_host: None,
            timeout: Duration::from_secs(30),
            trial: Duration::from_secs(10),
            grace: Duration::from_secs(5),
            log_level: "info".into(),
        }
    }
}

/// The module host. Cheap to clone; all clones are one host.
#[derive(Clone)]
pub struct ModuleHost(Arc<Host>);

impl std::fmt::Debug for ModuleHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ModuleHost").field(&self.0.settings).finish()
    }
}

struct Host {
    settings: HostSettings,
    search: Search,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    linked: Vec<Linked>,
    instances: Vec<Instance>,
    /// By digest; none is ever removed.
    open: HashMap<String, Library>,
    children: HashMap<String, Arc<ProcessLibrary>>,
    copies: HashMap<String, Arc<PrivateCopy>>,
    watching: bool,
}

#[derive(Clone)]
struct Linked {
    library: Library,
    manifest: LibraryManifest,
}

/// A module that passed every check, not started.
pub struct Checked {
    /// Where it was found.
    pub found: Found,
    /// Digest of the file.
    pub sha256: String,
    /// What the library says.
    pub library: LibraryManifest,
    /// What the module says.
    pub manifest: ModuleManifest,
    /// Its settings, merged and checked.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// How it is loaded.
    pub run_in: RunIn,
    copy: Arc<PrivateCopy>,
}

impl ModuleHost {
    /// A host that has loaded nothing yet.
    pub fn new(settings: HostSettings) -> Self {
        let search = Search::new(&settings.config.dirs);
        ModuleHost(Arc::new(Host {
            settings,
            search,
            state: Mutex::default(),
        }))
    }

    /// The search path.
    pub fn search(&self) -> &Search {
        &self.0.search
    }

    /// What it was made from.
    pub fn settings(&self) -> &HostSettings {
        &self.0.settings
    }

    /// Adds a library that is linked into this program; its modules are found before any file.
    pub fn link(&self, root: RootV1Ref) {
        let library = Library::linked(root);
        let manifest = LibraryManifest::decode(backend::manifest(library).as_slice())
            .expect("a linked library is of this build");
        self.0.state().linked.push(Linked { library, manifest });
    }

    /// Finds, verifies and tries a module, without starting it. Blocks: not for I/O threads.
    pub fn check(&self, kind: &str, name: &str) -> Result<Checked, LoadError> {
        let load = self.0.settings.config.load(name);
        let found = self.0.search.find(kind, name, load.file.as_deref())?;
        self.check_found(found, &[name.into()])
    }

    /// As [`Self::check`], for a module that was found.
    pub fn check_found(&self, found: Found, selected: &[String]) -> Result<Checked, LoadError> {
        let host = &self.0;
        let load = selected
            .iter()
            .chain([&found.module])
            .find_map(|name| host.settings.config.load.get(name))
            .cloned()
            .unwrap_or_default();
        let (sha256, note, copy) = host.verified(&found.file, load.sha256.as_deref())?;
        let program = host.program();
        let mut checked = None;
        let (library, manifest) = trial(Trial {
            program: &program,
            copy: &copy,
            file: &found.file,
            note: &note.note,
            module: &found.module,
            limit: host.settings.trial,
            request: &mut |manifest| {
                let values =
                    host.settings_of(manifest, selected)
                        .map_err(|errors| LoadError::Settings {
                            file: found.file.clone(),
                            module: found.module.clone(),
                            errors,
                        })?;
                let request = host.request(&found.module, selected, &values, "check");
                checked = Some(values);
                Ok(request)
            },
        })?;
        let settings = checked.unwrap_or_default();
        let run_in = load.run_in;
        Ok(Checked {
            found,
            sha256,
            library,
            manifest,
            settings,
            run_in,
            copy,
        })
    }

    /// What a library says of its modules, asked in a child process.
    pub fn describe(&self, file: &Path) -> Result<LibraryManifest, LoadError> {
        let (_, _, copy) = self.0.verified(file, None)?;
        crate::trial::describe(&self.0.program(), &copy, file, self.0.settings.trial)
    }

    /// Loads a module and starts its instance. Blocks: not for I/O threads.
    pub fn load(&self, kind: &str, name: &str) -> Result<Instance, LoadError> {
        self.load_selected(kind, &[name.into()])
    }

    /// Loads the module that all these names select (`cgroups/cpu`, `cgroups/mem`) as one instance.
    pub fn load_selected(&self, kind: &str, names: &[String]) -> Result<Instance, LoadError> {
        let first = names.first().expect("at least one name");
        if let Some(instance) = self.shared(kind, first) {
            return Ok(instance);
        }
        let linked = self.0.state().linked.clone();
        for linked in linked {
            if let Some(manifest) = module_of(&linked.manifest, kind, first) {
                return self.begin_linked(&linked, manifest, names);
            }
        }
        let load = self.0.settings.config.load(first);
        let found = self.0.search.find(kind, first, load.file.as_deref())?;
        let checked = self.check_found(found, names)?;
        self.begin(checked, names)
    }

    /// A module that serves several kinds (contender and detector) is one instance for all of them.
    fn shared(&self, kind: &str, name: &str) -> Option<Instance> {
        let state = self.0.state();
        let serves = |instance: &&Instance| {
            let kinds = &instance.manifest().kinds;
            kinds.len() > 1
                && kinds.iter().any(|k| k == kind)
                && instance.selected().iter().any(|selected| selected == name)
        };
        state.instances.iter().find(serves).cloned()
    }

    /// Loads isolators in the configured order; names of one module are one instance, at the place of
    /// the first. What `[load]` says is not required may be missing.
    pub fn load_all(&self, kind: &str, names: &[String]) -> Result<Vec<Instance>, LoadError> {
        let required = |name: &String| self.0.settings.config.load(name).required;
        let skip = |name: &String, error: &LoadError| {
            tracing::warn!(module = %name, %error, "goes on without a module that is not required");
        };
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for name in names {
            let module = match self.module_name(kind, name) {
                Ok(module) => module,
                Err(error) if !required(name) => {
                    skip(name, &error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match groups.iter_mut().find(|(known, _)| *known == module) {
                Some((_, selected)) => selected.push(name.clone()),
                None => groups.push((module, vec![name.clone()])),
            }
        }
        let mut instances = Vec::new();
        for (_, selected) in groups {
            match self.load_selected(kind, &selected) {
                Ok(instance) => instances.push(instance),
                Err(error) if !selected.iter().any(required) => skip(&selected[0], &error),
                Err(error) => return Err(error),
            }
        }
        Ok(instances)
    }

    fn module_name(&self, kind: &str, name: &str) -> Result<String, LoadError> {
        let linked = self.0.state().linked.clone();
        if let Some(module) = linked
            .iter()
            .find_map(|linked| module_of(&linked.manifest, kind, name))
        {
            return Ok(module.name.clone());
        }
        let load = self.0.settings.config.load(name);
        Ok(self.0.search.find(kind, name, load.file.as_deref())?.module)
    }

    /// Starts a module that was checked.
    pub fn begin(&self, checked: Checked, selected: &[String]) -> Result<Instance, LoadError> {
        let host = &self.0;
        let file = checked.found.file.clone();
        let module = checked.found.module.clone();
        let request = host
            .request(&module, selected, &checked.settings, host.settings.daemon)
            .encode_to_vec();
        let maker: Maker = match checked.run_in {
            RunIn::Daemon => {
                let library = host.open(&checked)?;
                Box::new(move |events| backend::create(library, &request, events).map_err(refused))
            }
            RunIn::Process => {
                let library = host.child(&checked);
                Box::new(move |events| Ok(library.create(request.clone(), events)?))
            }
        };
        let identity = Identity {
            name: module.clone(),
            selected: selected.into(),
            abi: checked.library.abi,
            sdk: checked.library.sdk,
            file: Some(file.clone()),
            sha256: checked.sha256,
            run_in: checked.run_in,
            timeout: host.timeout(selected, &module),
            grace: host.settings.grace,
            directories: host.directories(&module),
            manifest: checked.manifest,
        };
        self.keep(identity, maker, file)
    }

    fn begin_linked(
        &self,
        linked: &Linked,
        manifest: &ModuleManifest,
        selected: &[String],
    ) -> Result<Instance, LoadError> {
        let host = &self.0;
        let module = manifest.name.clone();
        let file = PathBuf::from("(linked)");
        let settings =
            host.settings_of(manifest, selected)
                .map_err(|errors| LoadError::Settings {
                    file: file.clone(),
                    module: module.clone(),
                    errors,
                })?;
        let request = host
            .request(&module, selected, &settings, host.settings.daemon)
            .encode_to_vec();
        let library = linked.library;
        let identity = Identity {
            name: module.clone(),
            selected: selected.into(),
            manifest: manifest.clone(),
            abi: linked.manifest.abi.clone(),
            sdk: linked.manifest.sdk.clone(),
            file: None,
            sha256: String::new(),
            run_in: RunIn::Daemon,
            timeout: host.timeout(selected, &module),
            grace: host.settings.grace,
            directories: host.directories(&module),
        };
        let maker: Maker =
            Box::new(move |events| backend::create(library, &request, events).map_err(refused));
        self.keep(identity, maker, file)
    }

    fn keep(&self, identity: Identity, maker: Maker, file: PathBuf) -> Result<Instance, LoadError> {
        let module = identity.name.clone();
        let instance = Instance::begin(identity, maker).map_err(|error| LoadError::Create {
            file,
            module,
            message: error.to_string(),
        })?;
        let mut state = self.0.state();
        state.instances.push(instance.clone());
        if !std::mem::replace(&mut state.watching, true) {
            let host = Arc::downgrade(&self.0);
            let watch = move || {
                while let Some(host) = host.upgrade() {
                    let slots: Vec<Arc<Slot>> = host
                        .state()
                        .instances
                        .iter()
                        .map(|i| i.slot().clone())
                        .collect();
                    drop(host);
                    slots.iter().for_each(|slot| slot.watch());
                    std::thread::sleep(Duration::from_millis(250));
                }
            };
            if let Err(error) = std::thread::Builder::new()
                .name("module watch".into())
                .spawn(watch)
            {
                tracing::error!(%error, "no thread to watch modules");
            }
        }
        Ok(instance)
    }

    /// What to show.
    pub fn report(&self) -> Report {
        let instances = self.0.state().instances.clone();
        Report {
            modules: instances.iter().map(Instance::report).collect(),
        }
    }

    /// Processes of children that run now.
    pub fn children(&self) -> Vec<u32> {
        self.0
            .state()
            .children
            .values()
            .filter_map(|child| child.pid())
            .collect()
    }

    /// Releases all instances, the last one first.
    pub fn release(&self) {
        let instances = self.0.state().instances.clone();
        instances.iter().rev().for_each(Instance::release);
    }
}

fn refused(answer: backend::Answer) -> ChildError {
    let failure = tepui_module_proto::common::Failure::decode(answer.bytes.as_slice());
    ChildError::Create(Box::new(failure.unwrap_or_default()))
}

fn module_of<'a>(
    manifest: &'a LibraryManifest,
    kind: &str,
    name: &str,
) -> Option<&'a ModuleManifest> {
    manifest.modules.iter().find(|module| {
        let named = module.name == name || module.aliases.iter().any(|alias| alias == name);
        named && module.kinds.iter().any(|k| k == kind)
    })
}

impl Host {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn program(&self) -> PathBuf {
        if let Some(program) = &self.settings.module_host {
            return program.clone();
        }
        let name = "tepui-module-host";
        let exe = std::env::current_exe().unwrap_or_default();
        let folder = exe.parent().unwrap_or(Path::new("/"));
        // Tests of a workspace run in `deps`, one folder below the programs.
        let places = [
            folder.join(name),
            folder.join("../libexec/tepui").join(name),
            folder.join("..").join(name),
        ];
        places
            .iter()
            .find(|place| place.is_file())
            .unwrap_or(&places[0])
            .clone()
    }

    /// Verifies a file: its digest, its note, and the private copy of it.
    fn verified(
        &self,
        file: &Path,
        pinned: Option<&str>,
    ) -> Result<(String, FileNote, Arc<PrivateCopy>), LoadError> {
        let verified = verify(file, pinned, self.settings.runtime_dir.as_deref())?;
        let (sha256, note) = (verified.sha256.clone(), verified.note.clone());
        if let Some(copy) = self.state().copies.get(&sha256) {
            return Ok((sha256, note, copy.clone()));
        }
        let copy = Arc::new(PrivateCopy::make(verified)?);
        self.state().copies.insert(sha256.clone(), copy.clone());
        Ok((sha256, note, copy))
    }

    fn open(&self, checked: &Checked) -> Result<Library, LoadError> {
        if let Some(library) = self.state().open.get(&checked.sha256) {
            return Ok(*library);
        }
        let path = checked.copy.path();
        let library = tepui_module_abi::open(&path).map_err(|error| LoadError::File {
            file: checked.found.file.clone(),
            message: without_path(&error.to_string(), &path),
        })?;
        // The system's loader knows what it has loaded by name too: while the library is there, which is
        // for good, no other copy may get this path (`/proc/self/fd/7`).
        std::mem::forget(checked.copy.clone());
        self.state().open.insert(checked.sha256.clone(), library);
        Ok(library)
    }

    fn child(&self, checked: &Checked) -> Arc<ProcessLibrary> {
        let mut state = self.state();
        let library = state
            .children
            .entry(checked.sha256.clone())
            .or_insert_with(|| {
                let path = checked.copy.path_for_child();
                Arc::new(ProcessLibrary::new(
                    self.program(),
                    path,
                    self.settings.timeout,
                ))
            });
        library.clone()
    }

    /// Settings come under the module's own name, or under a name that selected it.
    fn settings_of(
        &self,
        manifest: &ModuleManifest,
        selected: &[String],
    ) -> Result<serde_json::Map<String, serde_json::Value>, Vec<String>> {
        let config = &self.settings.config;
        let named = std::iter::once(&manifest.name)
            .chain(selected)
            .find(|name| {
                config.settings.contains_key(*name) || config.parameters.contains_key(*name)
            })
            .unwrap_or(&manifest.name);
        let schema = serde_json::from_str(&manifest.schema)
            .map_err(|e| vec![format!("the module's schema cannot be read: {e}")])?;
        schema::settings(config, named, &schema)
    }

    fn timeout(&self, selected: &[String], module: &str) -> Duration {
        let config = &self.settings.config;
        let load = selected
            .iter()
            .map(String::as_str)
            .chain([module])
            .find_map(|name| config.load.get(name));
        load.and_then(|load| load.timeout)
            .unwrap_or(self.settings.timeout)
    }

    fn request(
        &self,
        module: &str,
        selected: &[String],
        settings: &serde_json::Map<String, serde_json::Value>,
        daemon: &str,
    ) -> CreateRequest {
        let text = |dir: Option<PathBuf>| dir.map(|d| d.display().to_string()).unwrap_or_default();
        let [state_dir, runtime_dir] = self.own_dirs(module);
        CreateRequest {
            module: module.into(),
            selected: selected.into(),
            config: serde_json::to_vec(settings).expect("a JSON object"),
            daemon: daemon.into(),
            state_dir: text(state_dir),
            runtime_dir: text(runtime_dir),
            work_dir: text(self.settings.work_dir.clone()),
            host_version: env!("CARGO_PKG_VERSION").into(),
            log_level: self.settings.log_level.clone(),
        }
    }

    /// State and runtime directory of a module.
    fn own_dirs(&self, module: &str) -> [Option<PathBuf>; 2] {
        let name = module.replace('/', "_");
        [
            self.settings
                .work_dir
                .as_ref()
                .map(|dir| dir.join("modules").join(&name)),
            self.settings
                .runtime_dir
                .as_ref()
                .map(|dir| dir.join("module-state").join(&name)),
        ]
    }

    fn directories(&self, module: &str) -> Vec<PathBuf> {
        self.own_dirs(module).into_iter().flatten().collect()
    }
}

/// The loader names the private copy, which means nothing to an operator.
pub(crate) fn without_path(text: &str, path: &Path) -> String {
    text.replace(&format!("{}: ", path.display()), "")
}
