//! `--help`, made from the table.

use std::fmt::Write;

use super::{Daemon, Fate, Flag, Group};

pub(super) const GROUPS: [(Group, &str); 10] = [
    (Group::Program, "Program"),
    (Group::Network, "Network"),
    (Group::Cluster, "Cluster"),
    (Group::State, "State"),
    (Group::Offers, "Offers"),
    (Group::Resources, "Resources"),
    (Group::Containers, "Containers"),
    (Group::Modules, "Modules"),
    (Group::Security, "Security"),
    (Group::Logging, "Logging"),
];

/// The text of `--help`.
pub fn help(daemon: Daemon) -> String {
    let mut out = format!(
        "Usage: {} [--flag=VALUE | --flag VALUE | --flag | --no-flag]...\n\n\
         Every flag is also a variable (TEPUI_FLAG or MESOS_FLAG) and a key of the file given with\n\
         --config; the command line wins over the environment, that over the file. '-' and '_' are\n\
         the same in a name. file:///PATH as a value takes the content of the file.\n",
        daemon.program()
    );
    for (group, title) in GROUPS {
        let flags: Vec<&Flag> = daemon
            .flags()
            .filter(|f| f.fate == Fate::Effective(group))
            .collect();
        if !flags.is_empty() {
            let _ = write!(out, "\n{title}\n");
            flags.into_iter().for_each(|flag| one(&mut out, flag));
        }
    }
    let names = |wanted: fn(&Fate) -> bool| -> Vec<&str> {
        daemon
            .flags()
            .filter(|f| wanted(&f.fate))
            .map(|f| f.name)
            .collect()
    };
    out.push_str("\nMesos flags accepted without effect\n");
    wrap(&mut out, &names(|fate| matches!(fate, Fate::Ignored(_))));
    out.push_str("\nMesos flags refused unless they have their default\n");
    wrap(&mut out, &names(|fate| matches!(fate, Fate::Refused(_))));
    out
}

fn one(out: &mut String, flag: &Flag) {
    let head = format!("  --{}{}", flag.name, flag.kind.placeholder());
    let default = match flag.default {
        Some(default) if !default.is_empty() => format!(" [default: {default}]"),
        _ => String::new(),
    };
    // Names that are too long have the text on the next line.
    let _ = if head.len() > 38 {
        write!(out, "{head}\n{:40}{}{default}\n", "", flag.help)
    } else {
        writeln!(out, "{head:40}{}{default}", flag.help)
    };
}

fn wrap(out: &mut String, names: &[&str]) {
    let mut width = 2;
    out.push_str("  ");
    for name in names {
        if width + name.len() > 98 {
            out.push_str("\n  ");
            width = 2;
        }
        let _ = write!(out, "{name} ");
        width += name.len() + 1;
    }
    out.push('\n');
}
