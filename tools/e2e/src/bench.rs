//! A master and its agent in one folder: what most tests of containers begin with.

use crate::cluster::Daemon;
use crate::scheduler::{Scheduler, framework};
use crate::scratch::Scratch;

/// The `--resources` of its agents.
pub const RESOURCES: &str = "--resources=cpus:8;mem:4096;disk:4096;ports:[31000-32000]";

/// A master. Agents end before it, since tests hold them apart from it.
pub struct Bench {
    /// The master.
    pub master: Daemon,
    /// The folder of all of them.
    pub scratch: Scratch,
}

impl Bench {
    /// A master in a folder of its own.
    pub fn new() -> Self {
        let scratch = Scratch::new();
        let master = Daemon::master(scratch.path(), &[]);
        Self { master, scratch }
    }

    /// An agent with plenty of resources, and these flags.
    pub fn agent(&self, flags: &[&str]) -> Daemon {
        self.agent_at(0, flags)
    }

    /// The agent on a port: one that was killed comes back to its own, as an init system would start it.
    pub fn agent_at(&self, port: u16, flags: &[&str]) -> Daemon {
        let flags = [&[RESOURCES], flags].concat();
        let (dir, master) = (self.scratch.path(), self.master.address);
        Daemon::agent_at(port, dir, "agent", master, &flags)
    }

    /// A framework, subscribed.
    pub fn scheduler(&self, checkpoint: bool) -> Scheduler {
        Scheduler::subscribe(self.master.address, framework("e2e", checkpoint))
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}
