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
    let processes = processes(directory, except).into_iter();
    let mut found: Vec<String> = processes
        .map(|(pid, command)| format!("process {pid} {command}"))
        .collect();
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

/// The processes that have to do with a directory, by working directory, environment or command line: pid and command
/// line of each. Those in `except`, and this one, are left out.
pub fn processes(directory: &Path, except: &[u32]) -> Vec<(u32, String)> {
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
            found.push((pid, text("cmdline")));
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
    let entries = cgroup_roots(root)
        .into_iter()
        .flat_map(|path| fs::read_dir(path).into_iter().flatten().flatten());
    let found: BTreeSet<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    found.into_iter().collect()
}

/// A root of cgroups in every hierarchy that is mounted, whether it is there or not.
pub fn cgroup_roots(root: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let hierarchies = mounts.lines().filter_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mount = head.split(' ').nth(4)?;
        tail.starts_with("cgroup").then_some(mount)
    });
    hierarchies
        .map(|mount| Path::new(mount).join(root))
        .collect()
}
