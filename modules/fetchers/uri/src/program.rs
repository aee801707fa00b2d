//! Fetching by other programs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tepui_module_sdk::tokio::{process::Command, select, time};
use tepui_module_sdk::{Failure, Result};

use crate::bounds::Bounds;

/// Bytes of a program's complaints that an error repeats: the last ones.
const WORDS: usize = 512;

/// Programs by the scheme of what they fetch.
pub(crate) struct Programs {
    by_scheme: BTreeMap<String, Vec<String>>,
    /// For any other scheme.
    hadoop: Vec<String>,
    bounds: Bounds,
}

/// How often the length of what a program writes is looked at.
const LOOK: Duration = Duration::from_secs(1);

impl Programs {
    /// The usual ones, and what the site has.
    pub(crate) fn new(
        own: BTreeMap<String, Vec<String>>,
        hadoop_home: Option<&Path>,
        bounds: Bounds,
    ) -> Result<Self> {
        let curl = [
            "curl",
            "--fail",
            "--silent",
            "--show-error",
            "--output",
            "{path}",
            "--",
            "{uri}",
        ];
        let curl = curl.map(str::to_owned).to_vec();
        let mut by_scheme = BTreeMap::from([("ftp", curl.clone()), ("ftps", curl)])
            .into_iter()
            .map(|(scheme, program)| (scheme.to_owned(), program))
            .collect::<BTreeMap<_, _>>();
        for (scheme, program) in own {
            let names = |word| program.iter().any(|argument| argument.contains(word));
            if !names("{uri}") || !names("{path}") {
                let message = format!(
                    "programs.{scheme}: expected a program with {{uri}} and {{path}} in its arguments"
                );
                return Err(Failure::invalid(message).setting(format!("programs.{scheme}")));
            }
            by_scheme.insert(scheme.to_ascii_lowercase(), program);
        }
        let home = hadoop_home
            .map(Path::to_owned)
            .or_else(|| std::env::var_os("HADOOP_HOME").map(Into::into));
        let client = home.map_or_else(
            || "hadoop".to_owned(),
            |home| home.join("bin/hadoop").display().to_string(),
        );
        let arguments = ["fs", "-copyToLocal", "{uri}", "{path}"].map(str::to_owned);
        let hadoop = std::iter::once(client).chain(arguments).collect();
        Ok(Self {
            by_scheme,
            hadoop,
            bounds,
        })
    }

    /// Fetches to a file that is not there yet; answers its bytes. A caller that goes away ends the program.
    pub(crate) async fn fetch(&self, scheme: &str, uri: &str, to: &Path) -> Result<u64> {
        let program = self.by_scheme.get(scheme).unwrap_or(&self.hadoop);
        let to_text = to.to_string_lossy();
        let filled = |argument: &String| argument.replace("{path}", &to_text).replace("{uri}", uri);
        let arguments: Vec<String> = program.iter().skip(1).map(filled).collect();
        let name = &program[0];
        let child = Command::new(name)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let child = child.map_err(|error| {
            Failure::not_found(format!(
                "'{name}', which fetches {scheme} URIs, cannot be run: {error}"
            ))
        })?;
        let group = Group(child.id());
        let growing = async {
            loop {
                time::sleep(LOOK).await;
                let length = std::fs::metadata(to).map_or(0, |file| file.len());
                if let Err(failure) = self.bounds.download(length) {
                    break failure;
                }
            }
        };
        let output = select! {
            output = child.wait_with_output() => output?,
            failure = growing => return Err(failure),
        };
        drop(group);
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text.trim_end();
            let from = last.ceil_char_boundary(last.len().saturating_sub(WORDS));
            let words: Vec<&str> = last[from..].split_whitespace().collect();
            return Err(Failure::unavailable(format!(
                "'{name}' ended with {}: {}",
                output.status,
                words.join(" ")
            )));
        }
        let length = std::fs::metadata(to).map_err(|error| {
            Failure::unavailable(format!("'{name}' succeeded but left no file: {error}"))
        })?;
        self.bounds.download(length.len())?;
        Ok(length.len())
    }
}

/// Kills what a program has started as well.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.and_then(|id| i32::try_from(id).ok()) {
            let group = nix::unistd::Pid::from_raw(group);
            // Nothing is left of it after a good end.
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
    }
}
