//! Real processes killed and stopped while they work; afterwards the history has to be as promised (docs/RELIABILITY.md).
//!
//! A few rounds here; `cargo xtask chaos` runs as many as asked.

mod acknowledged;
mod agents;
mod history;
mod masters;
mod stopped;

use std::fs;
use std::path::Path;

use serde_json::Value;
use tepui_e2e::{Daemon, wait_for};

const RESOURCES: &str = "--resources=cpus:8;mem:4096;disk:4096;ports:[31000-32000]";

/// An agent finds a master that came back at once.
const EAGER: &str = "--registration_backoff_factor=10ms";

/// Rounds of a test: as asked, or a few.
fn rounds(few: u64) -> u64 {
    let asked = std::env::var("TEPUI_CHAOS_ROUNDS").ok();
    asked.map_or(few, |text| {
        text.parse().expect("TEPUI_CHAOS_ROUNDS is a number")
    })
}

/// Says what was tried to whoever asked for it, once it has been kept. A file for each test and promise.
fn kept(promise: &str, test: &str, tried: &str) {
    if let Some(folder) = std::env::var_os("TEPUI_CHAOS_SUMMARY") {
        let file = format!("{promise}.{test}");
        fs::write(Path::new(&folder).join(file), tried).expect("a folder for summaries");
    }
}

/// A master that leads, on a port or, for 0, on any.
fn master(port: u16, dir: &Path, flags: &[&str]) -> Daemon {
    let flags = [&["--agent_reregister_timeout=10mins"], flags].concat();
    let master = Daemon::master_at(port, dir, &flags);
    wait_for("a leader", || {
        let weights = master.get_text("/weights");
        serde_json::from_str::<Value>(&weights).map_err(|_| weights)
    });
    master
}

/// The ids of a master's agents, oldest first, once it has so many.
fn agents(master: &Daemon, number: usize) -> Vec<Value> {
    wait_for("agents", || {
        let slaves = master.get("/slaves")["slaves"].clone();
        let ids = slaves.as_array().into_iter().flatten();
        let ids: Vec<Value> = ids
            .map(|one| serde_json::json!({"value": one["id"]}))
            .collect();
        if ids.len() == number {
            Ok(ids)
        } else {
            Err(slaves)
        }
    })
}
