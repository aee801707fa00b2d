//! The real isolators, linked into the test, below a cgroup of its own.

use std::{path::Path, sync::Arc};

use tepui_containerizer::{Isolator, leaks, loaded};
use tepui_host::{
    HostSettings, LoadError, ModuleHost, config::ModuleConfig, kinds::isolator::IsolatorClient,
};

/// Where the machine has its cgroups.
const MOUNT: &str = "/sys/fs/cgroup";

/// The cgroup root of a test; removed at its end, when nothing is in it.
pub struct Root(pub String);

impl Root {
    pub fn new(test: &str) -> Self {
        Self(format!("tepui-test-{test}-{}", std::process::id()))
    }

    /// Of version 2, where no other is mounted; whatever the subsystem then.
    pub fn cgroup(&self, subsystem: &str, id: &str) -> std::path::PathBuf {
        let subsystem = if has_v1() { subsystem } else { "" };
        Path::new(MOUNT).join(subsystem).join(&self.0).join(id)
    }

    pub fn file(&self, subsystem: &str, id: &str, file: &str) -> String {
        let path = self.cgroup(subsystem, id).join(file);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim()
            .to_owned()
    }

    /// The hard limit of a container's memory, in bytes.
    pub fn memory_limit(&self, id: &str) -> String {
        let name = if has_v1() {
            "memory.limit_in_bytes"
        } else {
            "memory.max"
        };
        self.file("memory", id, name)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for cgroup in leaks::cgroups(&self.0) {
            let _ = std::fs::remove_dir(cgroup);
        }
        for root in leaks::cgroup_roots(&self.0) {
            let _ = std::fs::remove_dir(root);
        }
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn has_v1() -> bool {
    let files = ["memory/memory.limit_in_bytes", "cpu/cpu.shares"];
    let there = |file: &&str| Path::new(MOUNT).join(file).exists();
    files.iter().all(there)
}

fn has_v2_only() -> bool {
    let controllers = std::fs::read_to_string(Path::new(MOUNT).join("cgroup.controllers"));
    controllers.is_ok_and(|all| all.contains("cpu") && all.contains("memory"))
}

/// Root, and cgroups v1: what these tests need. Says what is missing.
pub fn available() -> bool {
    let there = is_root() && has_v1();
    if !there {
        eprintln!("not run: needs root and cgroups v1 for cpu and memory at /sys/fs/cgroup");
    }
    there
}

/// The same for cgroups v2.
pub fn is_unified() -> bool {
    let there = is_root() && has_v2_only();
    if !there {
        eprintln!("not run: needs root and a machine with cgroups v2 only");
    }
    there
}

/// Root, and cgroups of either version.
pub fn limits() -> bool {
    let there = is_root() && (has_v1() || has_v2_only());
    if !there {
        eprintln!("without limits: needs root and cgroups for cpu and memory at /sys/fs/cgroup");
    }
    there
}

/// The directory where hierarchies of version 1 are mounted that the machine has not mounted itself; none when the test
/// has run to its end with them.
///
/// It runs again, in a process of its own with a mount namespace, and so nothing is left of them.
pub fn mounted(subsystems: &[&str]) -> Option<std::path::PathBuf> {
    const AT: &str = "TEPUI_TEST_HIERARCHIES";
    const NOT_THERE: i32 = 77;
    if let Some(at) = std::env::var_os(AT) {
        return Some(at.into());
    }
    if !available() {
        return None;
    }
    let at = tempfile::tempdir().unwrap();
    let script = format!(
        "for one in {}; do mkdir ${AT}/$one && mount -t cgroup -o $one none ${AT}/$one || exit {NOT_THERE}; done; exec \"$@\"",
        subsystems.join(" ")
    );
    let test = std::thread::current().name().unwrap().to_owned();
    let status = std::process::Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(AT, at.path())
        .status()
        .unwrap();
    if status.code() == Some(NOT_THERE) {
        eprintln!(
            "not run: the kernel has no cgroups v1 of {}",
            subsystems.join(", ")
        );
    } else {
        assert!(status.success(), "{status}");
    }
    None
}

pub fn isolators(root: &str, settings: serde_json::Value) -> Vec<Arc<dyn Isolator>> {
    let mut table = settings.as_object().cloned().unwrap_or_default();
    table.insert("cgroups_root".to_owned(), root.into());
    let names = ["namespaces/pid", "cgroups/cpu", "cgroups/mem"];
    load(&names, serde_json::json!({ "cgroups": table })).unwrap()
}

/// Isolators by name, with the settings of each module.
pub fn load(
    names: &[&str],
    settings: serde_json::Value,
) -> Result<Vec<Arc<dyn Isolator>>, LoadError> {
    load_at(names, settings, None)
}

/// The same, for isolators that keep something below the agent's runtime directory.
pub fn load_at(
    names: &[&str],
    settings: serde_json::Value,
    runtime_dir: Option<&Path>,
) -> Result<Vec<Arc<dyn Isolator>>, LoadError> {
    load_in(names, settings, runtime_dir, None)
}

/// The same, for isolators that look below the agent's work directory.
pub fn load_in(
    names: &[&str],
    settings: serde_json::Value,
    runtime_dir: Option<&Path>,
    work_dir: Option<&Path>,
) -> Result<Vec<Arc<dyn Isolator>>, LoadError> {
    let mut config = ModuleConfig::default();
    for (module, table) in settings.as_object().into_iter().flatten() {
        let table = table.as_object().cloned().unwrap_or_default();
        config.settings.insert(module.clone(), table);
    }
    let host = ModuleHost::new(HostSettings {
        runtime_dir: runtime_dir.map(Path::to_path_buf),
        work_dir: work_dir.map(Path::to_path_buf),
        ..HostSettings::new("agent", config)
    });
    host.link(tepui_module_sdk::linked!(
        isolator: tepui_isolator_cgroups::Cgroups,
        isolator: tepui_isolator_cgroups::LinuxDevices,
        isolator: tepui_isolator_cgroups::NvidiaGpus,
        isolator: tepui_isolator_filesystem::DockerRuntime,
        isolator: tepui_isolator_filesystem::Du,
        isolator: tepui_isolator_filesystem::LinuxFilesystem,
        isolator: tepui_isolator_filesystem::PosixFilesystem,
        isolator: tepui_isolator_filesystem::Xfs,
        isolator: tepui_isolator_namespaces::IpcNamespaces,
        isolator: tepui_isolator_namespaces::PidNamespaces,
        isolator: tepui_isolator_posix::Cpu,
        isolator: tepui_isolator_posix::Mem,
        isolator: tepui_isolator_posix::Rlimits,
        isolator: tepui_isolator_privileges::Capabilities,
        isolator: tepui_isolator_privileges::NoNewPrivileges,
        isolator: tepui_isolator_seccomp::Seccomp,
        isolator: tepui_isolator_volumes::DockerVolumes,
        isolator: tepui_isolator_volumes::HostPathVolumes,
        isolator: tepui_isolator_volumes::ImageVolumes,
        isolator: tepui_isolator_volumes::SandboxPathVolumes,
        isolator: tepui_isolator_volumes::SecretVolumes,
    ));
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let instances = host.load_all("isolator", &names)?;
    Ok(instances
        .into_iter()
        .map(|instance| loaded(IsolatorClient::new(instance)))
        .collect())
}
