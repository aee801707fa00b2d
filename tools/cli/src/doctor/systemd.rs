//! Under systemd: whether the agent's unit lets tasks outlive the agent.

use std::path::Path;
use std::process::Command;

/// What there is to say about the unit of the agent.
pub(super) fn look(unit: &str) -> String {
    // As sd_booted(3).
    if !Path::new("/run/systemd/system").is_dir() {
        return "does not run this machine".to_owned();
    }
    let shown = Command::new("systemctl")
        .args(["show", unit, "--property"])
        .arg("LoadState,KillMode,Delegate")
        .output();
    match shown {
        Ok(output) if output.status.success() => {
            verdict(unit, &String::from_utf8_lossy(&output.stdout))
        }
        Ok(output) => format!(
            "systemctl cannot show '{unit}': {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) => format!("systemctl cannot be run: {error}"),
    }
}

/// Of lines `NAME=VALUE`.
fn verdict(unit: &str, properties: &str) -> String {
    let property = |name: &str| {
        let mut values = properties.lines().filter_map(|line| line.split_once('='));
        let found = values.rfind(|(known, _)| *known == name);
        found.map_or("", |(_, value)| value)
    };
    if property("LoadState") != "loaded" {
        return format!(
            "there is no unit '{unit}': --unit names another; docs/systemd/tepui-agent.service is one to begin with"
        );
    }
    let delegates = match property("Delegate") {
        "yes" => "",
        _ => {
            "; without Delegate=yes, --cgroups_root has to be outside the unit, as it is by default"
        }
    };
    match property("KillMode") {
        kept @ ("process" | "none") => format!("'{unit}' has KillMode={kept}{delegates}"),
        wrong => format!(
            "'{unit}' has KillMode={wrong}: when it stops, it ends the containers that are in cgroups below it, and with \
             --systemd_enable_support=false all others; set KillMode=process{delegates}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_ends_tasks_is_named_with_the_remedy() {
        let said = |text: &str| verdict("a.service", text);
        let good = said("LoadState=loaded\nKillMode=process\nDelegate=yes\n");
        assert_eq!(good, "'a.service' has KillMode=process");
        let usual = said("KillMode=control-group\nDelegate=no\nLoadState=loaded\n");
        for words in [
            "KillMode=control-group: when it stops",
            "set KillMode=process; without Delegate=yes",
        ] {
            assert!(usual.contains(words), "{usual}");
        }
        let none = said("LoadState=not-found\nKillMode=control-group\n");
        assert!(none.contains("--unit names another"), "{none}");
    }
}
