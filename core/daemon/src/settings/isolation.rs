//! Which isolators an agent has, and the flags that are settings of theirs.

use std::path::{Component, PathBuf};

use serde_json::Value as Json;
use tepui_host::value::parse_bytes;

use super::{duration, set_in_module, text, together};
use crate::flags::{FlagError, Kind, Values};

/// The configured isolators; `process` is an old name of two.
pub(super) fn isolation_of(values: &Values) -> Result<Vec<String>, FlagError> {
    let names = values.list("isolation").into_iter();
    let names = names.flat_map(|name| match name.as_str() {
        "none" => Vec::new(),
        "posix/disk" => vec!["disk/du".to_owned()],
        "process" => vec!["posix/cpu".to_owned(), "posix/mem".to_owned()],
        _ => vec![name],
    });
    let mut names: Vec<String> = names.collect();
    if let Some(twice) = (1..names.len()).find(|at| names[..*at].contains(&names[*at])) {
        return Err(together(&format!(
            "'isolation': '{}' is named twice",
            names[twice]
        )));
    }
    if names.iter().any(|name| name == "filesystem/linux") {
        // As in Mesos.
        for volume in ["volume/host_path", "volume/image", "volume/sandbox_path"] {
            if !names.iter().any(|name| name == volume) {
                names.push(volume.to_owned());
            }
        }
    }
    if !names.is_empty() && !names.iter().any(|name| name.starts_with("filesystem/")) {
        // As in Mesos; an agent that is to have no isolator needs no library of them.
        names.push("filesystem/posix".to_owned());
    }
    let secrets = "environment_secret".to_owned();
    if !names.is_empty() && !names.contains(&secrets) {
        // As in Mesos, where it is always there.
        names.push(secrets);
    }
    Ok(names)
}

/// Flags of Mesos that are settings of an isolator, under the same name. Without that isolator they would protect
/// nothing.
const OF_ISOLATORS: [(&str, &str); 10] = [
    ("effective_capabilities", "linux/capabilities"),
    ("bounding_capabilities", "linux/capabilities"),
    ("seccomp_config_dir", "linux/seccomp"),
    ("seccomp_profile_name", "linux/seccomp"),
    ("docker_ignore_runtime", "docker/runtime"),
    ("enforce_container_disk_quota", "disk/du"),
    ("host_path_volume_force_creation", "volume/host_path"),
    ("default_container_shm_size", "namespaces/ipc"),
    ("disallow_sharing_agent_ipc_namespace", "namespaces/ipc"),
    ("disallow_sharing_agent_pid_namespace", "namespaces/pid"),
];

pub(super) fn isolators(values: &mut Values) -> Result<(), FlagError> {
    let configured = isolation_of(values)?;
    for (flag, isolator) in OF_ISOLATORS {
        let Some(text) = values.text(flag).filter(|_| values.given(flag)) else {
            continue;
        };
        let value = match values.daemon.flag(flag).map(|flag| flag.kind) {
            Some(Kind::Flag) => values.is(flag).into(),
            Some(Kind::Bytes) => parse_bytes(text).expect("checked when read").into(),
            Some(Kind::Json) => serde_json::from_str(text).expect("checked when read"),
            _ => Json::String(text.into()),
        };
        if value != Json::Bool(false) && !configured.iter().any(|name| name == isolator) {
            return Err(together(&format!(
                "'{flag}' needs the isolator '{isolator}' in 'isolation'"
            )));
        }
        set_in_module(values, flag, isolator, flag, value);
    }
    Ok(())
}

/// Whether a cgroup v1 hierarchy with this controller is mounted.
pub(super) fn cgroup_v1(controller: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(2);
        fields.next() == Some("cgroup")
            && fields
                .next()
                .is_some_and(|options| options.split(',').any(|o| o == controller))
    })
}

/// Flags of Mesos that are settings of the module `cgroups`.
pub(super) fn cgroups(values: &mut Values) {
    let root = text(values, "cgroups_root").into();
    set_in_module(values, "cgroups_root", "cgroups", "cgroups_root", root);
    for flag in [
        "cgroups_enable_cfs",
        "cgroups_limit_swap",
        "cgroups_cpu_enable_pids_and_tids_count",
        "revocable_cpu_low_priority",
    ] {
        let on = values.is(flag).into();
        set_in_module(values, flag, "cgroups", flag, on);
    }
    let timeout = duration(values, "cgroups_destroy_timeout").as_secs().into();
    let (flag, key) = ("cgroups_destroy_timeout", "cgroups_destroy_timeout_secs");
    set_in_module(values, flag, "cgroups", key, timeout);
    let interval = duration(values, "container_disk_watch_interval")
        .as_secs()
        .max(1);
    let (flag, key) = (
        "container_disk_watch_interval",
        "container_disk_watch_interval_secs",
    );
    set_in_module(values, flag, "disk/du", key, interval.into());
    if let Some(devices) = values.text("allowed_devices") {
        let devices: Json = serde_json::from_str(devices).expect("checked when read");
        let flag = "allowed_devices";
        set_in_module(values, flag, "cgroups", flag, devices.clone());
        let list = devices["allowed_devices"].clone();
        set_in_module(values, flag, "linux/devices", flag, list);
    }
}

/// A path that images cannot lead elsewhere.
pub(super) fn sandbox_directory(values: &Values) -> Result<PathBuf, FlagError> {
    let path = values.path("sandbox_directory").expect("has a default");
    let mut parts = path.components();
    let is_root = parts.next() == Some(Component::RootDir);
    let names = parts.all(|part| matches!(part, Component::Normal(_)));
    if !is_root || !names || path.parent().is_none() {
        return Err(together(
            "'sandbox_directory' must be an absolute path without '..' below the root",
        ));
    }
    Ok(path)
}
