//! Fetching one file by another program.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tepui_module_sdk::tokio::{process::Command, select, time};
use tepui_module_sdk::{Failure, Result};
use url::Url;

/// Bytes of a program's complaints that an error repeats: the last ones.
const WORDS: usize = 512;

/// How often the length of what a program writes is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A program and its arguments; `{uri}` and `{path}` in them stand for what to fetch and the file to write.
#[derive(Debug, Clone)]
pub struct Program(Vec<String>);

impl Program {
    /// One of the site's own.
    ///
    /// # Errors
    ///
    /// When it would not be told what to fetch, or whereto.
    pub fn new(words: Vec<String>) -> Result<Self> {
        let names = |place| {
            words
                .iter()
                .skip(1)
                .any(|argument| argument.contains(place))
        };
        match names("{uri}") && names("{path}") {
            true => Ok(Self(words)),
            false => Err(Failure::invalid(
                "expected a program with {uri} and {path} in its arguments",
            )),
        }
    }

    /// `curl`, of the PATH. It gives up when no byte comes for so long.
    pub fn curl(stall: Duration) -> Self {
        let stall = stall.as_secs().max(1);
        let words = format!(
            "curl --fail --silent --show-error --connect-timeout {stall} --speed-limit 1 --speed-time {stall} \
             --output {{path}} -- {{uri}}"
        );
        Self(words.split_whitespace().map(str::to_owned).collect())
    }

    /// The `hadoop` of this directory, else of the one that HADOOP_HOME names, else of the PATH.
    pub fn hadoop(home: Option<&Path>) -> Self {
        let home = home
            .map(Path::to_owned)
            .or_else(|| std::env::var_os("HADOOP_HOME").map(Into::into));
        let client = home.map_or_else(
            || "hadoop".to_owned(),
            |home| home.join("bin/hadoop").display().to_string(),
        );
        let arguments = ["fs", "-copyToLocal", "{uri}", "{path}"].map(str::to_owned);
        Self(std::iter::once(client).chain(arguments).collect())
    }

    /// Fetches to a file that is not there yet; answers its bytes. `grows` is told its length now and then, and at the
    /// end, and may end it. A caller that goes away ends the program.
    ///
    /// # Errors
    ///
    /// When the program cannot be run, ends badly (with its last words) or leaves no file; and those of `grows`.
    pub async fn fetch(
        &self,
        uri: &str,
        to: &Path,
        grows: impl Fn(u64) -> Result<()>,
    ) -> Result<u64> {
        let to_text = to.to_string_lossy();
        let filled = |argument: &String| argument.replace("{path}", &to_text).replace("{uri}", uri);
        let arguments: Vec<String> = self.0.iter().skip(1).map(filled).collect();
        let name = &self.0[0];
        let child = Command::new(name)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let child = child.map_err(|error| {
            let scheme = uri.split_once(':').map_or("such", |(scheme, _)| scheme);
            Failure::not_found(format!(
                "'{name}', which fetches {scheme} URIs, cannot be run: {error}"
            ))
        })?;
        let group = Group::of(child.id());
        let copying = Copying::of(to);
        let growing = async {
            loop {
                time::sleep(LOOK).await;
                let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
                let length = length(to).max(length(&copying.0));
                if let Err(failure) = grows(length) {
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
                words.join(" ").replace(uri, &shown(uri))
            )));
        }
        let length = std::fs::metadata(to).map_err(|error| {
            Failure::unavailable(format!("'{name}' succeeded but left no file: {error}"))
        })?;
        grows(length.len())?;
        Ok(length.len())
    }
}

/// The file that `hadoop` writes before it has the name that was asked for. What is left of it goes with this.
struct Copying(PathBuf);

impl Copying {
    fn of(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push("._COPYING_");
        Self(name.into())
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        // Not there after a good end, nor where another program was at work.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Kills a program that was started in a process group of its own, with what it has started itself.
#[derive(Debug)]
pub struct Group(Option<u32>);

impl Group {
    /// Of this process, if it was started.
    pub fn of(id: Option<u32>) -> Self {
        Self(id)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.and_then(|id| i32::try_from(id).ok()) {
            let group = nix::unistd::Pid::from_raw(group);
            // Nothing is left of it after a good end.
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// A URI for people: without a password.
pub fn shown(uri: &str) -> String {
    match Url::parse(uri) {
        Ok(mut url) if url.password().is_some() => {
            let _ = url.set_password(Some("***"));
            url.into()
        }
        _ => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(shown("http://u:secret@h/x"), "http://u:***@h/x");
        assert_eq!(shown("http://h/x?q"), "http://h/x?q");
    }
}
