//! One configuration file for a master and its agents.
//!
//! `tepui local` takes one file. A key goes to the daemons that know it; what only one of them is to
//! have stands in a table `[master]` or `[agent]`. Settings of modules go to both.

use std::path::Path;

use anyhow::{Context, Result, bail};
use tepui_daemon::flags::Daemon;
use toml::{Table, Value};

/// The file's part for the master, and for each agent.
pub(crate) fn split(file: &Path) -> Result<(Table, Table)> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("--config {}", file.display()))?;
    let table: Table = text
        .parse()
        .with_context(|| format!("--config {}", file.display()))?;
    divide(table).with_context(|| format!("--config {}", file.display()))
}

fn divide(table: Table) -> Result<(Table, Table)> {
    let (mut master, mut agent) = (Table::new(), Table::new());
    let mut own = (Table::new(), Table::new());
    for (key, value) in table {
        match (key.as_str(), value) {
            ("modules" | "load", value) => {
                master.insert(key.clone(), value.clone());
                agent.insert(key, value);
            }
            ("master", Value::Table(table)) => own.0 = table,
            ("agent", Value::Table(table)) => own.1 = table,
            (_, value) => {
                let (to_master, to_agent) = (Daemon::Master.flag(&key), Daemon::Agent.flag(&key));
                if to_master.is_none() && to_agent.is_none() {
                    bail!("unknown key '{key}'{}", nearest(&key));
                }
                if to_master.is_some() {
                    master.insert(key.clone(), value.clone());
                }
                if to_agent.is_some() {
                    agent.insert(key, value);
                }
            }
        }
    }
    // What is said for one daemon wins over what is said for both.
    master.extend(own.0);
    agent.extend(own.1);
    Ok((master, agent))
}

fn nearest(key: &str) -> String {
    let known = [Daemon::Master, Daemon::Agent]
        .into_iter()
        .flat_map(Daemon::flags);
    let nearest = tepui_host::config::nearest(key, known.map(|flag| flag.name));
    nearest
        .map(|name| format!(", did you mean '{name}'?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_to_the_daemons_that_know_them() {
        let text = "allocator = \"round-robin\"\nisolation = [\"cgroups/mem\"]\nquiet = true\n[agent]\nquiet = false\n[modules.x]\na = 1\n";
        let (master, agent) = divide(text.parse().expect("TOML")).expect("known keys");
        assert_eq!(
            master.to_string(),
            "allocator = \"round-robin\"\nquiet = true\n\n[modules.x]\na = 1\n"
        );
        assert_eq!(
            agent.to_string(),
            "isolation = [\"cgroups/mem\"]\nquiet = false\n\n[modules.x]\na = 1\n"
        );
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = divide("isolaton = []".parse().expect("TOML")).expect_err("unknown");
        assert!(error.to_string().contains("'isolation'"), "{error}");
    }
}
