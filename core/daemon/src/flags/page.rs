//! docs/FLAGS.md, made from the table.

use std::fmt::Write;

use super::help::GROUPS;
use super::{Daemon, Fate, Flag};

const HEAD: &str = "# Flags

Made from the tables of the daemons; a test compares it with them.

Every flag of `tepui-master` and `tepui-agent` is also a variable (`TEPUI_FLAG`, `MESOS_FLAG`) and a key of the TOML file that
`--config` names. A flag wins over a variable, a variable over the file. `-` and `_` are the same in a name, `--no-flag` is `--flag=false`, and
`file:///PATH` as a value takes the content of the file. Durations have a unit (`500ms`, `10secs`, `5mins`, `2hrs`, `1days`,
`1weeks`), sizes too (`B`, `KB`, `MB`, `GB`, `TB`; 1 KB is 1,024 bytes).

Settings of modules stand in `[modules.\"NAME\"]` of the file: `tepui module schema NAME` prints which ones a module has.
";

/// The text of docs/FLAGS.md.
pub fn page() -> String {
    let mut out = HEAD.to_owned();
    for daemon in [Daemon::Master, Daemon::Agent] {
        let _ = write!(out, "\n## {}\n", daemon.program());
        let of = |wanted: &dyn Fn(&Fate) -> bool| -> Vec<&'static Flag> {
            daemon.flags().filter(|flag| wanted(&flag.fate)).collect()
        };
        for (group, title) in GROUPS {
            let flags = of(&|fate| *fate == Fate::Effective(group));
            table(&mut out, title, "what it is", &flags, |flag| {
                flag.help.to_owned()
            });
        }
        let ignored = of(&|fate| matches!(fate, Fate::Ignored(_)));
        let refused = of(&|fate| matches!(fate, Fate::Refused(_)));
        table(&mut out, "Accepted without effect", "why", &ignored, why);
        table(
            &mut out,
            "Refused unless they have their default",
            "why",
            &refused,
            why,
        );
    }
    out
}

fn why(flag: &Flag) -> String {
    match flag.fate {
        Fate::Ignored(why) | Fate::Refused(why) => why.to_owned(),
        Fate::Effective(_) => String::new(),
    }
}

fn table(
    out: &mut String,
    title: &str,
    says: &str,
    flags: &[&Flag],
    text: impl Fn(&Flag) -> String,
) {
    if flags.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "\n### {title}\n\n| flag | {says} | default |\n|---|---|---|\n"
    );
    for flag in flags {
        let alias = match flag.alias {
            Some(alias) => format!(", `--{alias}`"),
            None => String::new(),
        };
        let default = match flag.default {
            Some(default) if !default.is_empty() => format!("`{default}`"),
            _ => String::new(),
        };
        let text = text(flag).replace('|', "\\|");
        let _ = writeln!(
            out,
            "| `--{}{}`{alias} | {text} | {default} |",
            flag.name,
            flag.kind.placeholder()
        );
    }
}
