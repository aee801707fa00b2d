//! Logger `rotating`: output in files of the sandbox that are rotated when they reach a size.
//!
//! Mirrors `src/slave/container_loggers/logrotate.cpp`: the settings, and the variables of an executor's environment
//! that replace them. For each stream of a container there is a FIFO in the runtime directory and a program
//! ([`PROGRAM`]) that reads it, as the user of the sandbox. The program outlives the agent, and ends when nothing
//! writes to the FIFO any more; of a container that is never started, when [`Rotating::cleanup`] has opened and closed
//! it.

pub mod rotation;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tepui_module_sdk::prelude::*;

use rotation::{Options, bytes};

/// The program that writes a log.
pub const PROGRAM: &str = "tepui-logger";

/// The least size of a file: a page, as in Mesos.
const PAGE: u64 = 4096;

/// Settings of `rotating`, named as those of Mesos' LogrotateContainerLogger. An executor replaces each but the last three
/// by a variable of its environment: `CONTAINER_LOGGER_MAX_STDOUT_SIZE` and the like.
#[config]
pub struct Config {
    /// Size at which `stdout` is rotated, such as `10MB`.
    #[serde(default = "ten_megabytes")]
    max_stdout_size: String,
    /// Lines of logrotate for `stdout`: `rotate N` (old files that are kept; none without it), `compress`.
    #[serde(default)]
    logrotate_stdout_options: String,
    /// Size at which `stderr` is rotated.
    #[serde(default = "ten_megabytes")]
    max_stderr_size: String,
    /// Lines of logrotate for `stderr`.
    #[serde(default)]
    logrotate_stderr_options: String,
    /// What the names of the variables begin with.
    #[serde(default = "prefix")]
    environment_variable_prefix: String,
    /// The program that writes the files. By default `tepui-logger` beside the agent's.
    #[serde(default)]
    program: Option<PathBuf>,
    /// Cgroups that this program is put into, so that it outlives the agent. Under systemd the agent says which.
    #[serde(default)]
    cgroups: Vec<PathBuf>,
}

fn ten_megabytes() -> String {
    "10MB".to_owned()
}

fn prefix() -> String {
    "CONTAINER_LOGGER_".to_owned()
}

/// See the crate.
pub struct Rotating {
    config: Config,
    /// A directory for each container that is not over.
    directory: PathBuf,
}

/// How one stream is rotated.
#[derive(Debug, PartialEq, Eq)]
struct Stream {
    name: &'static str,
    max: u64,
    options: Options,
}

impl Module for Rotating {
    type Config = Config;
    const NAME: &'static str = "rotating";
    const ALIASES: &'static [&'static str] = &["org_apache_mesos_LogrotateContainerLogger"];
    const DESCRIPTION: &'static str = "output in files of the sandbox that are rotated";

    fn create(config: Config, context: Context) -> Result<Self> {
        let module = Self {
            config,
            directory: context.runtime_dir(),
        };
        // What is wrong for everybody is said at the start.
        module.streams(&BTreeMap::new())?;
        Ok(module)
    }
}

impl ContainerLogger for Rotating {
    async fn recover(&self, running: Vec<String>) -> Result<()> {
        let directory = self.directory.clone();
        blocking(move || {
            for entry in std::fs::read_dir(&directory)? {
                let entry = entry?;
                let name = entry.file_name();
                if !running.iter().any(|id| name.to_str() == Some(id)) {
                    forget(&entry.path())?;
                }
            }
            Ok(())
        })
        .await?
    }

    async fn prepare(&self, container: Logged) -> Result<Output> {
        let streams = self.streams(&container.environment)?;
        let program = self.program()?;
        let cgroups = self.config.cgroups.clone();
        let directory = self.directory.join(&container.id);
        blocking(move || {
            DirBuilder::new().mode(0o700).create(&directory)?;
            let mut fifos = Vec::new();
            for stream in streams {
                let fifo = directory.join(stream.name);
                mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR)?;
                start(&program, &cgroups, &fifo, &stream, &container)?;
                fifos.push(fifo);
            }
            let stderr = fifos.pop();
            Ok(Output {
                stdout: fifos.pop(),
                stderr,
            })
        })
        .await?
    }

    async fn cleanup(&self, container: &str) -> Result<()> {
        let directory = self.directory.join(container);
        blocking(move || Ok(forget(&directory)?)).await?
    }
}

impl Rotating {
    /// How the streams of a container with this environment are rotated.
    fn streams(&self, environment: &BTreeMap<String, String>) -> Result<[Stream; 2]> {
        let of = |name: &'static str, max: &str, options: &str| {
            let upper = name.to_uppercase();
            let size = format!("MAX_{upper}_SIZE");
            let lines = format!("LOGROTATE_{upper}_OPTIONS");
            let given = |variable: &str, setting: &str| {
                let full = format!("{}{variable}", self.config.environment_variable_prefix);
                match environment.get(&full) {
                    Some(value) => (value.clone(), full),
                    None => (setting.to_owned(), variable.to_lowercase()),
                }
            };
            let (text, said) = given(&size, max);
            let max = bytes(&text).filter(|max| *max >= PAGE).ok_or_else(|| {
                let message =
                    format!("{said}: expected a size of at least 4KB such as 10MB, found '{text}'");
                Failure::invalid(message).setting(said)
            })?;
            let (text, said) = given(&lines, options);
            let options = Options::parse(&text)
                .map_err(|wrong| Failure::invalid(format!("{said}: {wrong}")).setting(said))?;
            Ok::<_, Failure>(Stream { name, max, options })
        };
        let config = &self.config;
        Ok([
            of(
                "stdout",
                &config.max_stdout_size,
                &config.logrotate_stdout_options,
            )?,
            of(
                "stderr",
                &config.max_stderr_size,
                &config.logrotate_stderr_options,
            )?,
        ])
    }

    fn program(&self) -> Result<PathBuf> {
        if let Some(program) = &self.config.program {
            return Ok(program.clone());
        }
        let own = std::env::current_exe()?;
        let beside = own.parent().unwrap_or(Path::new("/"));
        let places = [PROGRAM.to_owned(), format!("../libexec/tepui/{PROGRAM}")];
        let mut places = places.into_iter().map(|place| beside.join(place));
        let found = places.find(|place| place.is_file());
        found.ok_or_else(|| {
            let message = format!("{PROGRAM} was not found beside the agent's program");
            Failure::not_found(message).setting("program")
        })
    }
}

/// Starts the program of one stream. It has the reading end from the start, so that the container finds a reader.
fn start(
    program: &Path,
    cgroups: &[PathBuf],
    fifo: &Path,
    stream: &Stream,
    container: &Logged,
) -> Result<()> {
    let reading = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(fifo)?;
    let mut command = std::process::Command::new(program);
    command
        .arg(container.sandbox.join(stream.name))
        .arg(stream.max.to_string())
        .arg(stream.options.keep.to_string())
        .arg(if stream.options.compress {
            "gz"
        } else {
            "plain"
        })
        .env_clear()
        .current_dir("/")
        .stdin(reading)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Signals for the agent's group are not for it.
        .process_group(0);
    if let Some((uid, gid)) = container.owner {
        command.uid(uid).gid(gid);
    }
    let mut child = command.spawn().map_err(|error| {
        Failure::not_found(format!("cannot start '{}': {error}", program.display()))
    })?;
    for cgroup in cgroups {
        let file = cgroup.join("cgroup.procs");
        std::fs::write(&file, child.id().to_string()).map_err(|error| {
            let file = file.display();
            Failure::unavailable(format!("{PROGRAM} cannot be moved into '{file}': {error}"))
                .setting("cgroups")
        })?;
    }
    // It ends with the container, and somebody has to hear of it as long as the agent lives.
    std::thread::Builder::new()
        .name("tepui-log".to_owned())
        .stack_size(64 << 10)
        .spawn(move || child.wait())?;
    Ok(())
}

/// Removes what is left of a container. A program that still waits for a writer sees one come and go, and ends.
fn forget(directory: &Path) -> io::Result<()> {
    for name in ["stdout", "stderr"] {
        let poke = File::options()
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(directory.join(name));
        // Nobody may be reading any more.
        drop(poke);
    }
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executor_replaces_the_settings() {
        let own = [
            ("CONTAINER_LOGGER_MAX_STDOUT_SIZE", "8KB"),
            (
                "CONTAINER_LOGGER_LOGROTATE_STDERR_OPTIONS",
                "rotate 3\ncompress",
            ),
        ];
        let own: BTreeMap<String, String> = own
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let rotating = Rotating {
            config: Config {
                max_stdout_size: ten_megabytes(),
                logrotate_stdout_options: "rotate 9".to_owned(),
                max_stderr_size: ten_megabytes(),
                logrotate_stderr_options: String::new(),
                environment_variable_prefix: prefix(),
                program: None,
                cgroups: Vec::new(),
            },
            directory: PathBuf::new(),
        };
        let [stdout, stderr] = rotating.streams(&own).unwrap();
        assert_eq!((stdout.max, stdout.options.keep), (8192, 9));
        assert_eq!(
            (stderr.max, stderr.options.keep, stderr.options.compress),
            (10 << 20, 3, true)
        );
        let wrong = [(
            "CONTAINER_LOGGER_MAX_STDERR_SIZE".to_owned(),
            "1B".to_owned(),
        )];
        let failure = rotating.streams(&wrong.into()).unwrap_err();
        assert!(
            failure
                .message()
                .starts_with("CONTAINER_LOGGER_MAX_STDERR_SIZE: "),
            "{failure}"
        );
    }
}
