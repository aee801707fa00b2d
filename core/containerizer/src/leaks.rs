//! Finds what containers have left behind, for tests.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

/// Everything on this machine that belongs to containers of an agent working below `directory`, one line each:
/// processes (by working directory, environment, command line), mounts, sockets, and cgroups below `cgroups_root`.
///
/// Nothing is expected once all containers are over. Processes in `except`, and this one, are not counted.
pub fn find(directory: &Path, cgroups_root: Option<&str>, except: &[u32]) -> Vec<String> {
    let mut found = processes(directory, except);
    let marker = directory.to_string_lossy();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&*marker))
            .map(|line| format!("mount {line}")),
    );
    sockets(directory, &mut found);
    if let Some(root) = cgroups_root {
        found.extend(
            cgroups(root)
                .into_iter()
                .map(|path| format!("cgroup {}", path.display())),
        );
    }
    found
}

fn processes(directory: &Path, except: &[u32]) -> Vec<String> {
    let marker = directory.to_string_lossy();
    let mut except: BTreeSet<u32> = except.iter().copied().collect();
    except.insert(std::process::id());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if except.contains(&pid) {
            continue;
        }
        let at = entry.path();
        let text = |file: &str| {
            String::from_utf8_lossy(&fs::read(at.join(file)).unwrap_or_default()).replace('\0', " ")
        };
        let in_directory =
            fs::read_link(at.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        if in_directory || text("environ").contains(&*marker) || text("cmdline").contains(&*marker)
        {
            found.push(format!("process {pid} {}", text("cmdline")));
        }
    }
    found
}

fn sockets(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => sockets(&entry.path(), found),
            Ok(kind) if kind.is_socket() => {
                found.push(format!("socket {}", entry.path().display()))
            }
            _ => {}
        }
    }
}

/// The cgroups below a root, in every hierarchy that is mounted.
pub fn cgroups(root: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = BTreeSet::new();
    for line in mounts.lines() {
        let Some((head, tail)) = line.split_once(" - ") else {
            continue;
        };
        if !tail.starts_with("cgroup") {
            continue;
        }
        let Some(mount) = head.split(' ').nth(4) else {
            continue;
        };
        for entry in fs::read_dir(Path::new(mount).join(root))
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.insert(entry.path());
            }
        }
    }
    found.into_iter().collect()
}
