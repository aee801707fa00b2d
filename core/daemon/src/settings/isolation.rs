//! Which isolators an agent has, and the flags that are settings of theirs.

use std::path::{Component, Path, PathBuf};

use serde_json::Value as Json;
use tepui_host::value::parse_bytes;
use tepui_isolators_linux::Hierarchies;
use tepui_model::resources::{Value, parse_value};

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
const OF_ISOLATORS: [(&str, &str); 19] = [
    ("cgroups_net_cls_primary_handle", "cgroups/net_cls"),
    ("cgroups_net_cls_secondary_handles", "cgroups/net_cls"),
    ("perf_events", "cgroups/perf_event"),
    ("effective_capabilities", "linux/capabilities"),
    ("bounding_capabilities", "linux/capabilities"),
    ("seccomp_config_dir", "linux/seccomp"),
    ("seccomp_profile_name", "linux/seccomp"),
    ("docker_ignore_runtime", "docker/runtime"),
    ("enforce_container_disk_quota", "disk/du"),
    ("docker_volume_checkpoint_dir", "docker/volume"),
    ("docker_volume_chown", "docker/volume"),
    ("enforce_container_disk_quota", "disk/xfs"),
    ("xfs_kill_containers", "disk/xfs"),
    ("xfs_project_range", "disk/xfs"),
    ("xfs_quota_headroom", "disk/xfs"),
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
        // All `cgroups/*` are one module, and one name means all of them.
        let (module, all) = match isolator.starts_with("cgroups/") {
            true => ("cgroups", "cgroups/all"),
            false => (isolator, isolator),
        };
        // One of those that a flag is for is enough.
        let those = OF_ISOLATORS.iter().filter(|(other, _)| *other == flag);
        let is_there = configured
            .iter()
            .any(|name| name == all || those.clone().any(|(_, one)| name == one));
        if value != Json::Bool(false) && !is_there {
            return Err(together(&format!(
                "'{flag}' needs the isolator '{isolator}' in 'isolation'"
            )));
        }
        set_in_module(values, flag, module, flag, value);
    }
    Ok(())
}

/// `--volume_gid_range`, a setting of the isolators whose volumes may be shared; how many groups there are.
pub(super) fn volume_gids(values: &mut Values) -> Result<Option<u64>, FlagError> {
    const FLAG: &str = "volume_gid_range";
    let Some(text) = values.text(FLAG) else {
        return Ok(None);
    };
    let wrong = |what: &str| together(&format!("'{FLAG}': {what}"));
    let ranges = match parse_value(text) {
        Ok(Some(Value::Ranges(ranges))) if !ranges.is_empty() => ranges,
        _ => return Err(wrong("expected ranges of groups, such as [10000-20000]")),
    };
    let last = u64::from(u32::MAX) - 1;
    if ranges
        .iter()
        .any(|range| range.begin == 0 || range.end > last)
    {
        return Err(wrong(&format!("groups are numbers from 1 to {last}")));
    }
    let linux = "filesystem/linux";
    if !isolation_of(values)?.iter().any(|name| name == linux) {
        return Err(wrong(&format!(
            "needs the isolator '{linux}' in 'isolation'"
        )));
    }
    let pairs: Vec<[u64; 2]> = ranges.iter().map(|one| [one.begin, one.end]).collect();
    for isolator in [linux, "volume/sandbox_path"] {
        set_in_module(
            values,
            FLAG,
            isolator,
            "volume_gid_ranges",
            pairs.clone().into(),
        );
    }
    Ok(Some(ranges.count()))
}

/// Whether the cgroups of this machine limit CPU and memory as they are: hierarchies of version 1 for both, or that of
/// version 2 alone.
pub(super) fn cgroups_limit() -> bool {
    let Ok(hierarchies) = Hierarchies::detect() else {
        return false;
    };
    match hierarchies.unified() {
        Some(mount) => gives(mount, &LIMITING),
        None => LIMITING
            .iter()
            .all(|controller| hierarchies.v1.contains_key(*controller)),
    }
}

/// Without these a container has no limits.
const LIMITING: [&str; 2] = ["cpu", "memory"];

/// Whether cgroups below a mount of version 2 get these controllers. A cgroup with processes of its own cannot give any,
/// but for the machine's root: in the container of another system the mount is such a cgroup.
fn gives(mount: &Path, controllers: &[&str]) -> bool {
    let has = |file: &str, controller: &str| {
        let text = std::fs::read_to_string(mount.join(file)).unwrap_or_default();
        text.split_ascii_whitespace().any(|one| one == controller)
    };
    let is_root = !mount.join("cgroup.type").exists();
    let may_write = nix::unistd::access(mount, nix::unistd::AccessFlags::W_OK).is_ok();
    may_write
        && controllers.iter().all(|controller| {
            has("cgroup.subtree_control", controller)
                || is_root && has("cgroup.controllers", controller)
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
    for (flag, key) in [
        ("cgroups_destroy_timeout", "cgroups_destroy_timeout_secs"),
        ("perf_interval", "perf_interval_secs"),
        ("perf_duration", "perf_duration_secs"),
    ] {
        let seconds = duration(values, flag).as_secs().into();
        set_in_module(values, flag, "cgroups", key, seconds);
    }
    let interval = duration(values, "container_disk_watch_interval")
        .as_secs()
        .max(1);
    let (flag, key) = (
        "container_disk_watch_interval",
        "container_disk_watch_interval_secs",
    );
    for module in ["disk/du", "disk/xfs"] {
        set_in_module(values, flag, module, key, interval.into());
    }
    if let Some(devices) = values.text("allowed_devices") {
        let devices: Json = serde_json::from_str(devices).expect("checked when read");
        let flag = "allowed_devices";
        set_in_module(values, flag, "cgroups", flag, devices.clone());
        let list = devices["allowed_devices"].clone();
        set_in_module(values, flag, "linux/devices", flag, list);
        set_in_module(values, flag, "gpu/nvidia", flag, devices);
    }
}

/// `--nvidia_gpu_devices`, by index; none where it is not given.
pub(super) fn gpu_devices(values: &Values) -> Result<Option<Vec<u32>>, FlagError> {
    const FLAG: &str = "nvidia_gpu_devices";
    if !values.given(FLAG) {
        return Ok(None);
    }
    let mut indices: Vec<u32> = Vec::new();
    for text in values.list(FLAG) {
        let index = text.parse().map_err(|_| {
            together(&format!(
                "'{FLAG}': expected indices of GPUs such as 0,1, found '{text}'"
            ))
        })?;
        if indices.contains(&index) {
            return Err(together(&format!("'{FLAG}': {index} is named twice")));
        }
        indices.push(index);
    }
    if !isolation_of(values)?
        .iter()
        .any(|name| name == "gpu/nvidia")
    {
        return Err(together(&format!(
            "'{FLAG}' needs the isolator 'gpu/nvidia' in 'isolation'"
        )));
    }
    Ok(Some(indices))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_limits_where_controllers_can_be_given() {
        let at = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(at.path().join(file), text).unwrap();
        write("cgroup.controllers", "cpuset cpu memory pids\n");
        write("cgroup.subtree_control", "\n");
        assert!(gives(at.path(), &LIMITING), "the machine's root");
        assert!(!gives(at.path(), &["hugetlb"]));
        write("cgroup.type", "domain\n");
        assert!(!gives(at.path(), &LIMITING), "a cgroup with processes");
        write("cgroup.subtree_control", "cpu memory\n");
        assert!(gives(at.path(), &LIMITING), "one that gives them already");
    }
}
