//! What the machine has: resources that nobody configured, its boot.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::unistd::{SysconfVar, sysconf};
use tepui_model::Resources;
use tepui_model::resources::Name;
use tepui_proto::convert::{self, ParseResourcesError};

const MB: u64 = 1 << 20;
const GB: u64 = 1 << 30;

/// The resources that are configured, and for each standard one that is not, what the machine has
/// (as `Containerizer::resources` of Mesos: some memory and disk is left to the system).
pub fn resources(
    configured: Option<&str>,
    default_role: &str,
    work_dir: &Path,
    gpus: Option<usize>,
) -> Result<Resources, ParseResourcesError> {
    let text = configured.unwrap_or_default().trim();
    let mut total = convert::parse_resources(text, default_role)?;
    let detected = [
        (Name::CPUS, Some(cpus())),
        (Name::MEM, Some(mem())),
        (Name::DISK, Some(disk(work_dir))),
        (Name::GPUS, gpus.map(|gpus| gpus as u64)),
    ];
    for (name, amount) in detected {
        let Some(amount) = amount else { continue };
        if !mentioned(text, &total, name.as_str()) {
            let text = format!("{}:{amount}", name.as_str());
            total += Resources::parse(&text, default_role)?;
        }
    }
    if !mentioned(text, &total, "ports") {
        total += Resources::parse("ports:[31000-32000]", default_role)?;
    }
    Ok(total)
}

/// Whether a name is configured, be it with nothing (`cpus:0`).
fn mentioned(text: &str, resources: &Resources, name: &str) -> bool {
    let listed = resources.iter().any(|r| r.name().as_str() == name);
    let starts = |token: &str| {
        let head = token.split([':', '(']).next().unwrap_or_default();
        head.trim() == name
    };
    listed || (!text.starts_with('[') && text.split(';').any(starts))
}

fn cpus() -> u64 {
    let found = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    found.and_then(|n| n.try_into().ok()).unwrap_or(1)
}

/// Megabytes of memory: all but 1 GB, or half of what is less than 2 GB.
fn mem() -> u64 {
    let total = nix::sys::sysinfo::sysinfo().map_or(GB, |info| info.ram_total());
    let left = if total >= 2 * GB {
        total - GB
    } else {
        total / 2
    };
    left / MB
}

/// Megabytes of disk: all but 5 GB, or half of what is less than 10 GB.
fn disk(work_dir: &Path) -> u64 {
    let total = statvfs(work_dir).map_or(10 * GB, |fs| fs.blocks() * fs.fragment_size());
    let left = if total >= 10 * GB {
        total - 5 * GB
    } else {
        total / 2
    };
    left / MB
}

/// Names the boot that the machine is in.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::resources;

    fn shown(configured: &str) -> String {
        let dir = std::env::temp_dir();
        resources(Some(configured), "*", &dir, Some(2))
            .expect("resources")
            .to_string()
    }

    #[test]
    fn what_is_missing_is_detected() {
        let all = shown("cpus:4;mem:4096;disk:10240;gpus:0;ports:[1-2]");
        assert_eq!(all, "cpus:4; mem:4096; disk:10240; ports:[1-2]");
        let some = shown("cpus(a):4");
        assert!(
            some.contains("mem:")
                && some.contains("gpus:2")
                && some.contains("ports:[31000-32000]"),
            "{some}"
        );
        assert_eq!(some.matches("cpus").count(), 1, "{some}");
        let none = shown("cpus:0");
        assert!(!none.contains("cpus"), "{none}");
        let json = shown(r#"[{"name": "cpus", "type": "SCALAR", "scalar": {"value": 2}}]"#);
        assert!(json.starts_with("cpus:2; mem:"), "{json}");
        let error = resources(Some("cpus:x:y"), "*", &std::env::temp_dir(), None);
        assert!(error.is_err());
    }
}
