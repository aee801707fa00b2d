//! What processes use, from /proc.

use std::fs;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// What some processes use together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time in programs.
    pub user: Duration,
    /// Time in the kernel.
    pub system: Duration,
    /// Memory that is not swapped out.
    pub resident_bytes: u64,
}

/// Consumption of a process and all below it. Processes that end meanwhile are left out.
pub(crate) fn usage(first: u32) -> Usage {
    let of_system = |name, default| {
        let value = sysconf(name).ok().flatten();
        value
            .and_then(|value| u64::try_from(value).ok())
            .unwrap_or(default)
    };
    let ticks = of_system(SysconfVar::CLK_TCK, 100);
    let page = of_system(SysconfVar::PAGE_SIZE, 4096);
    let mut pids = vec![first];
    let (mut user, mut system, mut pages) = (0, 0, 0);
    let mut at = 0;
    while let Some(pid) = pids.get(at).copied() {
        at += 1;
        pids.extend(children(pid));
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // The name may contain anything, also parentheses and spaces.
        let Some((_, fields)) = stat.rsplit_once(')') else {
            continue;
        };
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // Numbered as in proc(5), where the name is the second.
        let field = |number: usize| -> u64 {
            let text = fields.get(number - 3);
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        user += field(14);
        system += field(15);
        pages += field(24);
    }
    Usage {
        user: Duration::from_secs_f64(user as f64 / ticks as f64),
        system: Duration::from_secs_f64(system as f64 / ticks as f64),
        resident_bytes: pages * page,
    }
}

/// The children of a process, all its threads' together.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let text = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    text.flatten()
        .flat_map(|text| {
            let pids = text
                .split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_below_count_too() {
        let own = std::process::id();
        assert!(usage(own).resident_bytes > 0);
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let below = children(own);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(below.contains(&child.id()), "{below:?}");
        assert_eq!(usage(child.id()).resident_bytes, 0);
    }
}
