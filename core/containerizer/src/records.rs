//! What is kept of a container on disk: `launch.pb` and `events.log` in `<meta_dir>/<container id>`.
//!
//! Neither is synced: they survive the agent, not the machine, whose end is the container's end too. `launch.pb` is
//! sealed and renamed into place; `events.log` is a [`Log`].

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use prost::Message;
use tepui_model::time::Mono;
use tepui_module_proto::isolator::{ContainerConfig, LaunchPlan, UpdateRequest};
use tepui_proto::{Wire, disk, v1};
use tepui_state_container::{Exit, Limitation, Mark, Termination};

use crate::Error;
use crate::checkpoint::{Log, LogError, is_sealed, seal};

/// The version of these records that this release writes, and the highest it reads. Since version 2 `launch.pb` is
/// sealed.
const VERSION: u32 = 2;

/// `launch.pb`.
#[derive(Clone, Debug)]
pub(crate) struct LaunchRecord {
    pub(crate) container: String,
    pub(crate) boot_id: String,
    pub(crate) isolators: Vec<String>,
    pub(crate) config: ContainerConfig,
    pub(crate) checkpoint: bool,
}

/// What `events.log` says.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) marks: Vec<Mark>,
    pub(crate) plan: LaunchPlan,
    pub(crate) update: Option<UpdateRequest>,
    /// Persistent volumes of updates before that one, as they are recorded.
    pub(crate) volumes: BTreeSet<Vec<u8>>,
}

/// A record for `events.log`.
#[derive(Debug)]
pub(crate) enum Entry<'a> {
    Mark(&'a Mark),
    Plan(&'a LaunchPlan),
    Update(&'a UpdateRequest),
}

/// The records of one container.
#[derive(Debug)]
pub(crate) struct Records {
    directory: PathBuf,
    log: Option<Log>,
}

impl Records {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            log: None,
        }
    }

    /// Writes `launch.pb`.
    pub(crate) fn persist(&self, launch: &LaunchRecord) -> Result<(), Error> {
        fs::create_dir_all(&self.directory).map_err(|source| self.error("create", "", source))?;
        let bytes = disk::ContainerLaunch {
            version: VERSION,
            container_id: launch.container.clone(),
            boot_id: launch.boot_id.clone(),
            isolators: launch.isolators.clone(),
            config: launch.config.encode_to_vec().into(),
            checkpoint: launch.checkpoint,
        }
        .encode_to_vec();
        let temporary = self.directory.join("launch.new");
        private()
            .truncate(true)
            .write(true)
            .open(&temporary)
            .and_then(|mut file| file.write_all(&seal(bytes)))
            .and_then(|()| fs::rename(&temporary, self.directory.join("launch.pb")))
            .map_err(|source| self.error("write", "launch.pb", source))
    }

    /// Reads `launch.pb`; none when there is none, so that nothing was done yet.
    pub(crate) fn launch(&self) -> Result<Option<LaunchRecord>, Error> {
        let bytes = match fs::read(self.directory.join("launch.pb")) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.error("read", "launch.pb", error)),
        };
        let bad = |message: String| Error::Record {
            path: self.directory.join("launch.pb"),
            message,
        };
        let sealed = is_sealed(&bytes).map_err(|error| bad(error.to_string()))?;
        let record =
            disk::ContainerLaunch::decode(&*bytes).map_err(|error| bad(error.to_string()))?;
        if record.version > VERSION {
            let message = format!("version {} is later than {VERSION}", record.version);
            return Err(bad(message));
        }
        if !sealed && record.version != 1 {
            return Err(bad("it is cut short".to_owned()));
        }
        let config =
            ContainerConfig::decode(&*record.config).map_err(|error| bad(error.to_string()))?;
        Ok(Some(LaunchRecord {
            container: record.container_id,
            boot_id: record.boot_id,
            isolators: record.isolators,
            config,
            checkpoint: record.checkpoint,
        }))
    }

    /// Appends to `events.log`.
    pub(crate) fn append(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        let event = disk::ContainerEvent {
            event: Some(entry_to_disk(entry)),
        }
        .encode_to_vec();
        let written = self.log().and_then(|log| log.append(&event));
        written.map_err(|source| self.error("append to", "events.log", source))
    }

    /// Nothing is appended for some time, as far as can be seen.
    pub(crate) fn rest(&mut self) {
        if let Some(log) = &mut self.log {
            log.rest();
        }
    }

    /// The log. Whatever is in it was read before.
    fn log(&mut self) -> io::Result<&mut Log> {
        match &mut self.log {
            Some(log) => Ok(log),
            unopened => {
                let (log, _) =
                    Log::open(&self.directory.join("events.log")).map_err(io::Error::other)?;
                Ok(unopened.insert(log))
            }
        }
    }

    /// Reads `events.log` and cuts a torn end.
    pub(crate) fn history(&mut self) -> Result<History, Error> {
        let path = self.directory.join("events.log");
        let mut history = History::default();
        if !path.exists() {
            return Ok(history);
        }
        let damaged = |message: String| Error::Record {
            path: path.clone(),
            message,
        };
        let (log, events) = Log::open(&path).map_err(|error| match error {
            LogError::Io(source) => self.error("read", "events.log", source),
            LogError::Damaged { .. } => damaged(error.to_string()),
        })?;
        for event in events {
            let event = disk::ContainerEvent::decode(&*event);
            history.take(event.map_err(|error| damaged(error.to_string()))?);
        }
        self.log = Some(log);
        Ok(history)
    }

    /// Moves records that cannot be read into `folder`.
    pub(crate) fn set_aside(&self, folder: &Path) -> Result<PathBuf, Error> {
        let name = self.directory.file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        let free = |n: &u32| !folder.join(format!("{name}.{n}")).exists();
        let kept = folder.join(format!("{name}.{}", (1..).find(free).unwrap_or_default()));
        fs::create_dir_all(folder)
            .and_then(|()| fs::rename(&self.directory, &kept))
            .map_err(|source| self.error("move", "", source))?;
        Ok(kept)
    }

    /// Removes all records.
    pub(crate) fn remove(&mut self) -> Result<(), Error> {
        self.log = None;
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.error("remove", "", error))
            }
            _ => Ok(()),
        }
    }

    fn error(&self, what: &'static str, name: &str, source: io::Error) -> Error {
        let path = if name.is_empty() {
            self.directory.clone()
        } else {
            self.directory.join(name)
        };
        Error::Io { what, path, source }
    }
}

/// Records hold environments, which hold secrets.
fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.create(true).mode(0o600);
    options
}

/// Whether an encoded resource is a persistent volume.
pub(crate) fn is_volume(resource: &[u8]) -> bool {
    let resource = v1::Resource::decode(resource).ok();
    let disk = resource.and_then(|resource| resource.disk);
    disk.is_some_and(|disk| disk.persistence.is_some())
}

impl History {
    fn take(&mut self, event: disk::ContainerEvent) {
        use disk::container_event::Event;
        let mark = match event.event {
            Some(Event::Planned(plan)) => {
                self.plan = LaunchPlan::decode(&*plan).unwrap_or_default();
                return;
            }
            Some(Event::Updated(update)) => {
                let before = self.update.take();
                let before = before.into_iter().flat_map(|update| update.resources);
                self.volumes.extend(before.filter(|bytes| is_volume(bytes)));
                self.update = UpdateRequest::decode(&*update).ok();
                return;
            }
            Some(Event::GateOpened(_)) => Mark::GateOpened,
            Some(Event::Stopping(stopping)) => Mark::Stopping {
                deadline: Mono(stopping.deadline),
            },
            Some(Event::Stopped(_)) => Mark::Stopped,
            Some(Event::Destroying(_)) => Mark::Destroying,
            Some(Event::Limited(limitation)) => Mark::Limited(limitation_from_disk(limitation)),
            Some(Event::LaunchFailed(failed)) => Mark::LaunchFailed {
                message: failed.message,
            },
            Some(Event::Terminated(termination)) => {
                Mark::Terminated(termination_from_disk(termination))
            }
            // Written by a later release; what it must not miss raises the version.
            None => return,
        };
        self.marks.push(mark);
    }
}

fn entry_to_disk(entry: &Entry<'_>) -> disk::container_event::Event {
    use disk::container_event::Event;
    match entry {
        Entry::Plan(plan) => Event::Planned(plan.encode_to_vec().into()),
        Entry::Update(update) => Event::Updated(update.encode_to_vec().into()),
        Entry::Mark(mark) => match mark {
            Mark::GateOpened => Event::GateOpened(disk::ContainerGateOpened {}),
            Mark::Stopping { deadline } => Event::Stopping(disk::ContainerStopping {
                deadline: deadline.0,
            }),
            Mark::Stopped => Event::Stopped(disk::ContainerStopped {}),
            Mark::Destroying => Event::Destroying(disk::ContainerDestroying {}),
            Mark::Limited(limitation) => Event::Limited(limitation_to_disk(limitation)),
            Mark::LaunchFailed { message } => Event::LaunchFailed(disk::ContainerLaunchFailed {
                message: message.clone(),
            }),
            Mark::Terminated(termination) => Event::Terminated(termination_to_disk(termination)),
        },
    }
}

fn limitation_to_disk(limitation: &Limitation) -> disk::ContainerLimitation {
    disk::ContainerLimitation {
        reason: limitation.reason,
        message: limitation.message.clone(),
        resources: limitation
            .resources
            .iter()
            .map(|resource| resource.0.clone())
            .collect(),
    }
}

fn limitation_from_disk(limitation: disk::ContainerLimitation) -> Limitation {
    Limitation {
        reason: limitation.reason,
        message: limitation.message,
        resources: limitation.resources.into_iter().map(Wire).collect(),
    }
}

fn termination_to_disk(termination: &Termination) -> disk::ContainerTermination {
    use disk::container_termination::Exit as DiskExit;
    let (exit, status) = match termination.exit {
        Exit::Status(status) => (DiskExit::Status, status),
        Exit::NeverStarted => (DiskExit::NeverStarted, 0),
        Exit::Vanished => (DiskExit::Vanished, 0),
    };
    disk::ContainerTermination {
        exit: exit.into(),
        status,
        limitation: termination.limitation.as_ref().map(limitation_to_disk),
        stopped: termination.stopped,
        destroyed: termination.destroyed,
        launch_failure: termination.launch_failure.clone(),
        cleanup_failures: termination.cleanup_failures.clone(),
    }
}

fn termination_from_disk(termination: disk::ContainerTermination) -> Termination {
    use disk::container_termination::Exit as DiskExit;
    Termination {
        exit: match termination.exit() {
            DiskExit::Status => Exit::Status(termination.status),
            DiskExit::NeverStarted => Exit::NeverStarted,
            DiskExit::Vanished => Exit::Vanished,
        },
        limitation: termination.limitation.map(limitation_from_disk),
        stopped: termination.stopped,
        destroyed: termination.destroyed,
        launch_failure: termination.launch_failure,
        cleanup_failures: termination.cleanup_failures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Vec<Mark> {
        let limitation = Limitation {
            reason: 8,
            message: "Memory limit exceeded".to_owned(),
            resources: vec![Wire::default()],
        };
        let termination = Termination {
            exit: Exit::Status(9),
            limitation: Some(limitation.clone()),
            stopped: true,
            destroyed: true,
            launch_failure: Some("no".to_owned()),
            cleanup_failures: vec!["busy".to_owned()],
        };
        vec![
            Mark::GateOpened,
            Mark::Stopping { deadline: Mono(77) },
            Mark::Stopped,
            Mark::Destroying,
            Mark::Limited(limitation),
            Mark::LaunchFailed {
                message: "no".to_owned(),
            },
            Mark::Terminated(termination),
        ]
    }

    #[test]
    fn a_log_is_read_back_up_to_any_tear() {
        let directory = tempfile::tempdir().unwrap();
        let mut records = Records::new(directory.path().to_owned());
        let marks = marks();
        let path = directory.path().join("events.log");
        let mut ends = Vec::new();
        for mark in &marks {
            records.append(&Entry::Mark(mark)).unwrap();
            ends.push(fs::metadata(&path).unwrap().len() as usize);
        }
        assert_eq!(records.history().unwrap().marks, marks);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let kept = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(
                Records::new(directory.path().to_owned())
                    .history()
                    .unwrap()
                    .marks,
                marks[..kept]
            );
            let length = fs::metadata(&path).unwrap().len() as usize;
            assert_eq!(length, if kept == 0 { 0 } else { ends[kept - 1] });
        }
    }

    #[test]
    fn a_flipped_bit_is_told_and_nothing_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let mut records = Records::new(directory.path().to_owned());
        for mark in &marks() {
            records.append(&Entry::Mark(mark)).unwrap();
        }
        let path = directory.path().join("events.log");
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            let error = Records::new(directory.path().to_owned())
                .history()
                .expect_err("it is damaged");
            assert!(error.to_string().contains("events.log"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "bit {bit}");
        }
    }

    #[test]
    fn an_altered_launch_record_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::new(directory.path().to_owned());
        let launch = LaunchRecord {
            container: "container".to_owned(),
            boot_id: "boot".to_owned(),
            isolators: vec!["posix/cpu".to_owned()],
            config: ContainerConfig::default(),
            checkpoint: true,
        };
        records.persist(&launch).unwrap();
        let path = directory.path().join("launch.pb");
        let whole = fs::read(&path).unwrap();
        assert_eq!(records.launch().unwrap().unwrap().container, "container");
        let flipped = (0..whole.len() * 8).map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        for bytes in flipped.chain((0..whole.len()).map(|cut| whole[..cut].to_vec())) {
            fs::write(&path, &bytes).unwrap();
            let error = records.launch().expect_err("it is damaged").to_string();
            assert!(error.contains("launch.pb"), "{error}: {bytes:?}");
        }
        // What the first version wrote has no seal.
        let old = disk::ContainerLaunch {
            version: 1,
            container_id: "old".to_owned(),
            ..Default::default()
        };
        fs::write(&path, old.encode_to_vec()).unwrap();
        assert_eq!(records.launch().unwrap().unwrap().container, "old");
    }
}
