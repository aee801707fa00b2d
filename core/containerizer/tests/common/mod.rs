//! What the tests share: directories of their own, configurations, an isolator that remembers.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of it"
)]

pub mod kernel;
pub mod tracer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::FutureExt;
use tepui_containerizer::{
    Called, Class, Command, ContainerConfig, Containerizer, Images, Isolator, Settings,
};
use tepui_model::{id::ContainerId, resources::Resources};
use tepui_module_proto::isolator as messages;

/// The program that `TEPUI_INIT` names, else the one beside the tests, built when it is missing or older than its
/// source.
pub fn init() -> PathBuf {
    if let Some(program) = std::env::var_os("TEPUI_INIT") {
        return program.into();
    }
    let mut directory = std::env::current_exe().unwrap();
    directory.pop();
    if directory.ends_with("deps") {
        directory.pop();
    }
    let program = directory.join("tepui-init");
    let changed = |path: &Path| {
        std::fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../init/src");
    let newest = std::fs::read_dir(source)
        .unwrap()
        .filter_map(|entry| changed(&entry.unwrap().path()))
        .max();
    if changed(&program) < newest {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = std::process::Command::new(cargo)
            .args(["build", "-p", "tepui-init", "--profile"])
            .arg(if directory.ends_with("release") {
                "release"
            } else {
                "dev"
            })
            .status()
            .unwrap();
        assert!(built.success(), "tepui-init cannot be built");
    }
    program
}

pub fn settings(at: &Path) -> Settings {
    Settings::new(at.join("meta"), at.join("run"), init())
}

pub fn containerizer(at: &Path, isolators: Vec<Arc<dyn Isolator>>) -> Containerizer {
    Containerizer::new(settings(at), isolators).unwrap()
}

pub fn shell(at: &Path, id: &str, text: &str) -> ContainerConfig {
    ContainerConfig {
        id: ContainerId::new(id),
        user: None,
        sandbox: at.join("sandboxes").join(id),
        class: Class::Task,
        stdin: false,
        command: Some(Command {
            shell: true,
            value: text.to_owned(),
            arguments: Vec::new(),
        }),
        environment: Vec::new(),
        secrets: Vec::new(),
        uris: Vec::new(),
        resources: Resources::cpus_mem(0.1, 32.0),
        limits: BTreeMap::new(),
        container: None,
        share_cgroups: true,
        is_command_task: true,
        checkpoint: true,
    }
}

pub fn read(config: &ContainerConfig, name: &str) -> String {
    std::fs::read_to_string(config.sandbox.join(name)).unwrap_or_default()
}

/// The processes that a process has started and that have not been waited for.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children"));
    let texts = tasks.filter_map(|task| of(task.ok()?).ok());
    let found: Vec<String> = texts.collect();
    let words = found.iter().flat_map(|text| text.split_whitespace());
    words.map(|pid| pid.parse().unwrap()).collect()
}

pub async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "waited in vain: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("not run: needs root");
    }
    is_root
}

/// A root file system with nothing but a shell.
pub fn busybox(at: &Path) -> Option<PathBuf> {
    let program = Path::new("/bin/busybox");
    if !program.exists() {
        eprintln!("not run: needs /bin/busybox (Debian's busybox-static)");
        return None;
    }
    let root = at.join("rootfs");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::copy(program, root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "cat", "ls", "id", "stat", "sleep", "touch", "mkdir", "mount", "mv", "readlink",
        "rm", "test", "echo",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    Some(root)
}

/// In the place of the provisioner: one root file system for all, made a mount point, where those who look into a
/// container are with it.
pub fn provisioner(root: &Path) -> Arc<dyn Isolator> {
    provisioner_of(root, Images::default())
}

/// The same, of an image that says this of itself.
pub fn provisioner_of(root: &Path, images: Images) -> Arc<dyn Isolator> {
    let mut plan = messages::LaunchPlan {
        rootfs: Some(root.to_string_lossy().into_owned()),
        ..messages::LaunchPlan::none()
    }
    .bind(root, root);
    plan.mounts[0].outside = true;
    Arc::new(Notes {
        name: "provisioner",
        plan,
        images: Some(images),
        ..Notes::default()
    })
}

/// An isolator that notes its calls and does as it is told.
#[derive(Debug, Default)]
pub struct Notes {
    pub name: &'static str,
    pub calls: Arc<Mutex<Vec<String>>>,
    /// The method that fails.
    pub fails: Option<&'static str>,
    /// The method that never answers.
    pub hangs: Option<&'static str>,
    /// What prepare answers.
    pub plan: messages::LaunchPlan,
    /// What the isolators after it are told of images.
    pub images: Option<Images>,
    /// What has to be there as well.
    pub needs: &'static [&'static str],
    /// What cleanup tells.
    pub exceeded: Option<messages::Limitation>,
}

impl Notes {
    fn call<T: Send + 'static>(&self, method: &'static str, answer: T) -> Called<'_, T> {
        self.calls
            .lock()
            .unwrap()
            .push(format!("{} {method}", self.name));
        let failed = self.fails == Some(method);
        if self.hangs == Some(method) {
            return std::future::pending().boxed();
        }
        async move {
            tokio::task::yield_now().await;
            if failed {
                Err("as told".to_owned())
            } else {
                Ok(answer)
            }
        }
        .boxed()
    }
}

impl Isolator for Notes {
    fn name(&self) -> &str {
        self.name
    }
    fn nesting(&self) -> bool {
        true
    }
    fn standalone(&self) -> bool {
        true
    }
    fn limits(&self) -> bool {
        false
    }
    fn needs(&self) -> Vec<String> {
        self.needs.iter().map(|need| (*need).to_owned()).collect()
    }
    fn images(&self, _: &str) -> Option<Images> {
        self.images.clone()
    }
    fn recover(&self, _: messages::RecoverRequest) -> Called<'_, ()> {
        self.call("recover", ())
    }
    fn prepare(&self, request: messages::PrepareRequest) -> Called<'_, messages::LaunchPlan> {
        let config = request.config;
        let looks = config.is_some_and(|config| config.class() == messages::ContainerClass::Debug);
        let plan = match looks && self.plan.rootfs.is_some() {
            true => messages::LaunchPlan::none(),
            false => self.plan.clone(),
        };
        self.call("prepare", plan)
    }
    fn isolate(&self, request: messages::IsolateRequest) -> Called<'_, ()> {
        assert!(request.pid > 0 && Path::new(&request.namespaces[&2]).exists());
        self.call("isolate", ())
    }
    fn update(&self, _: messages::UpdateRequest) -> Called<'_, ()> {
        self.call("update", ())
    }
    fn cleanup(&self, _: String) -> Called<'_, messages::CleanupReply> {
        let limitation = self.exceeded.clone();
        self.call("cleanup", messages::CleanupReply { limitation })
    }
    fn usage(&self, _: Vec<String>) -> Called<'_, messages::UsageReply> {
        self.call("usage", messages::UsageReply::default())
    }
    fn status(&self, _: Vec<String>) -> Called<'_, messages::StatusReply> {
        self.call("status", messages::StatusReply::default())
    }
    fn limited(&self, _: u64) -> Called<'_, messages::LimitedReply> {
        std::future::pending().boxed()
    }
}
