//! The records of an agent below `meta/`.
//!
//! Who the agent is is synced to the disk; records of executors survive the agent process only.
//! The directory belongs to one agent process at a time.

#[cfg(test)]
mod altered_tests;
mod files;
mod recorded;
mod resources;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use tepui_containerizer::checkpoint::{Log, checksum, seal};
use tepui_executor::{GroupRecord, Record as PlayedRecord};
use tepui_model::id::ContainerId;
use tepui_proto::disk::{AgentRecord, ExecutorEvent, ExecutorRecord, executor_event};
use tepui_proto::{Message, Wire};
use tepui_state_agent::RecordBody;

use crate::paths::Paths;
use files::{check_version, decode, open_log, read, read_boot_id, write, write_synced};
pub(crate) use recorded::Recorded;

/// Version of everything below `meta/` that this release writes, and the highest it reads. Since version 2 records
/// that are replaced as a whole are sealed.
const VERSION: u32 = 2;

/// Logs whose files are open at once: those of executors that something happens to.
const OPEN_LOGS: usize = 64;

/// Retired executors whose records are kept, for the history in `/state`.
const RETIRED_KEPT: usize = 1000;

/// The work directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another agent process has it.
    #[error("the work directory '{path}' belongs to another agent process")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A later release wrote it.
    #[error("'{path}' has version {found}, this release knows {VERSION}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} '{path}'")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is damaged.
    #[error("'{path}' is damaged: {message}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

impl StoreError {
    fn damaged(path: &Path, message: impl std::fmt::Display) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            message: message.to_string(),
        }
    }

    /// Whether an agent can go on without what the file says.
    pub(crate) fn is_of_record(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Newer { .. })
    }

    fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

/// The records.
#[derive(Debug)]
pub(crate) struct Store {
    paths: Paths,
    logs: BTreeMap<ContainerId, Log>,
    /// Whose files are open, in the order that they were opened in; some may be retired.
    open: VecDeque<ContainerId>,
    sequence: u64,
    /// How much was set aside.
    recovery_errors: u64,
    _lock: Flock<File>,
}

impl Store {
    /// Takes the work directory; it is made if it is missing.
    pub(crate) fn open(paths: Paths) -> Result<Self, StoreError> {
        let meta = paths.meta();
        fs::create_dir_all(paths.executors())
            .map_err(StoreError::io("make", &paths.executors()))?;
        let path = paths.lock();
        let file = File::create(&path).map_err(StoreError::io("open", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| StoreError::Locked { path: meta })?;
        check_version(&paths.version())?;
        Ok(Self {
            paths,
            logs: BTreeMap::new(),
            open: VecDeque::new(),
            sequence: 0,
            recovery_errors: 0,
            _lock: lock,
        })
    }

    /// Notes the boot of the machine; true if it is another than before. Then nothing of what is recorded runs any more,
    /// and the newest records may be lost with the machine's memory: executors are retired, as in Mesos, and the master
    /// tells of their tasks. If the earlier boot cannot be read, that is an error when `strict`, and otherwise taken for
    /// this one.
    pub(crate) fn rebooted(
        &mut self,
        boot_id: &str,
        recorded: &mut [Recorded],
        strict: bool,
    ) -> Result<bool, StoreError> {
        let path = self.paths.boot_id();
        let before = match read_boot_id(&path) {
            Err(error) if error.is_of_record() && !strict => {
                tracing::error!(%error, "whether the machine was started anew is not known; what runs is looked for");
                self.set_aside(&path)?;
                None
            }
            read => read?,
        };
        if before.as_deref() == Some(boot_id) {
            return Ok(false);
        }
        let rebooted = before.is_some();
        if rebooted {
            for one in recorded.iter_mut().filter(|one| !one.retired) {
                self.record(&one.container, &RecordBody::Retired)?;
                one.records.push(RecordBody::Retired);
                one.retired = true;
            }
        }
        let sum = checksum(boot_id.as_bytes());
        write_synced(&path, format!("{boot_id} {sum:08x}\n").as_bytes())?;
        Ok(rebooted)
    }

    /// Who the agent is; nobody yet if that was never written. If it cannot be read, that is an error
    /// when `strict`, and otherwise the agent is nobody: what it ran is ended.
    pub(crate) fn agent(&mut self, strict: bool) -> Result<AgentRecord, StoreError> {
        let path = self.paths.agent();
        match read_agent(&path) {
            Err(error) if error.is_of_record() && !strict => {
                tracing::error!(%error, "the agent's id is lost: it registers anew, and all that it ran is ended");
                self.set_aside(&path)?;
                let executors = self.paths.executors();
                self.set_aside(&executors)?;
                fs::create_dir_all(&executors).map_err(StoreError::io("make", &executors))?;
                Ok(AgentRecord::default())
            }
            read => read,
        }
    }

    /// Moves what cannot be read out of the way, where a person may look at it.
    fn set_aside(&mut self, path: &Path) -> Result<(), StoreError> {
        let damaged = self.paths.damaged();
        fs::create_dir_all(&damaged).map_err(StoreError::io("make", &damaged))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let free = |n: &u32| !damaged.join(format!("{name}.{n}")).exists();
        let number = (1..).find(free).unwrap_or_default();
        let kept = damaged.join(format!("{name}.{number}"));
        fs::rename(path, &kept).map_err(StoreError::io("move", path))?;
        tracing::warn!(from = %path.display(), to = %kept.display(), "kept");
        self.recovery_errors += 1;
        Ok(())
    }

    /// Records that this process could not read, and went on without.
    pub(crate) fn recovery_errors(&self) -> u64 {
        self.recovery_errors
    }

    pub(crate) fn set_agent(&self, record: AgentRecord) -> Result<(), StoreError> {
        let record = AgentRecord {
            version: VERSION,
            ..record
        };
        write_synced(&self.paths.agent(), &seal(record.encode_to_vec()))
    }

    /// Forgets who the agent was: the next process registers anew.
    pub(crate) fn forget_agent(&self) -> Result<(), StoreError> {
        let path = self.paths.agent();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Everything recorded, oldest first. What cannot be read is an error when `strict`, and is
    /// otherwise said and left out, so that its container is ended. Old history is removed.
    pub(crate) fn load(&mut self, strict: bool) -> Result<Vec<Recorded>, StoreError> {
        let path = self.paths.executors();
        let entries = fs::read_dir(&path).map_err(StoreError::io("read", &path))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io("read", &path))?;
            match self.load_one(&entry.path()) {
                Ok(Some(one)) => found.push(one),
                // Its launch was not recorded, so nothing was launched.
                Ok(None) => self.remove(&entry.path()),
                Err(error) if error.is_of_record() && !strict => {
                    let path = entry.path();
                    let container = entry.file_name();
                    tracing::error!(?container, %error, "the executor is lost: its container is ended, and its tasks are reported to the master as gone");
                    self.set_aside(&path)?;
                }
                Err(error) => return Err(error),
            }
        }
        found.sort_by_key(|(sequence, _)| *sequence);
        self.sequence = found.last().map_or(0, |(sequence, _)| *sequence);
        let retired = found.iter().filter(|(_, one)| one.retired).count();
        let mut excess = retired.saturating_sub(RETIRED_KEPT);
        found.retain(|(_, one)| {
            let old = one.retired && excess > 0;
            if old {
                excess -= 1;
                let _ = fs::remove_dir_all(self.paths.executor(&one.container));
            }
            !old
        });
        Ok(found.into_iter().map(|(_, one)| one).collect())
    }

    fn remove(&self, path: &Path) {
        if let Err(error) = fs::remove_dir_all(path) {
            tracing::warn!(path = %path.display(), %error, "records not removed");
        }
    }

    fn load_one(&mut self, path: &Path) -> Result<Option<(u64, Recorded)>, StoreError> {
        let file = path.join("executor.pb");
        let Some(bytes) = read(&file)? else {
            return Ok(None);
        };
        let record: ExecutorRecord =
            decode(&file, &bytes, |record: &ExecutorRecord| record.version)?;
        if path
            .file_name()
            .is_none_or(|name| name != &*record.container_id)
        {
            return Err(StoreError::damaged(&file, "it is of another container"));
        }
        let kind = recorded::kind_from_disk(record.kind());
        let container = ContainerId::new(record.container_id);
        let mut one = Recorded {
            container: container.clone(),
            records: vec![RecordBody::Launch {
                framework: Wire(record.framework.unwrap_or_default()),
                executor: Wire(record.executor.unwrap_or_default()),
                kind,
            }],
            played: PlayedRecord::default(),
            groups: GroupRecord::default(),
            retired: false,
        };
        let path = path.join("events.log");
        let (mut log, events) = open_log(&path)?;
        log.rest();
        for event in events {
            let event = ExecutorEvent::decode(&*event)
                .map_err(|source| StoreError::damaged(&path, source))?;
            one.take(event);
        }
        if !one.retired {
            self.logs.insert(container, log);
        }
        Ok(Some((record.sequence, one)))
    }

    /// Records something of a container's executor.
    pub(crate) fn record(
        &mut self,
        container: &ContainerId,
        body: &RecordBody,
    ) -> Result<(), StoreError> {
        if let RecordBody::Launch {
            framework,
            executor,
            kind,
        } = body
        {
            self.sequence += 1;
            let record = ExecutorRecord {
                version: VERSION,
                sequence: self.sequence,
                framework: Some(framework.0.clone()),
                executor: Some(executor.0.clone()),
                kind: recorded::kind(*kind).into(),
                container_id: container.to_string(),
            };
            return self.launch(container, &record);
        }
        let event = recorded::event(body).expect("all but launches are events");
        self.append(container, event)?;
        if matches!(body, RecordBody::Retired) {
            self.logs.remove(container);
        }
        Ok(())
    }

    /// Records what a played executor goes on with.
    pub(crate) fn played(
        &mut self,
        container: &ContainerId,
        played: &PlayedRecord,
    ) -> Result<(), StoreError> {
        self.append(container, recorded::played(played))
    }

    /// Records what a played default executor goes on with.
    pub(crate) fn groups(
        &mut self,
        container: &ContainerId,
        groups: &GroupRecord,
    ) -> Result<(), StoreError> {
        self.append(container, recorded::groups(groups))
    }

    fn launch(
        &mut self,
        container: &ContainerId,
        record: &ExecutorRecord,
    ) -> Result<(), StoreError> {
        let dir = self.paths.executor(container);
        fs::create_dir(&dir).map_err(StoreError::io("make", &dir))?;
        let written = write(&dir.join("executor.pb"), &seal(record.encode_to_vec()));
        let log = match written.and_then(|()| open_log(&dir.join("events.log"))) {
            Ok((log, _)) => log,
            Err(error) => {
                // It is not launched, and the next agent process must not find that it is.
                let _ = fs::remove_dir_all(&dir);
                return Err(error);
            }
        };
        self.logs.insert(container.clone(), log);
        self.opened(container);
        Ok(())
    }

    fn append(
        &mut self,
        container: &ContainerId,
        event: executor_event::Event,
    ) -> Result<(), StoreError> {
        let path = self.paths.executor(container).join("events.log");
        let Some(log) = self.logs.get_mut(container) else {
            let gone = io::Error::new(io::ErrorKind::NotFound, "its launch is not recorded");
            return Err(StoreError::io("append to", &path)(gone));
        };
        let event = ExecutorEvent { event: Some(event) };
        let rested = !log.is_open();
        log.append(&event.encode_to_vec())
            .map_err(StoreError::io("append to", &path))?;
        if rested {
            self.opened(container);
        }
        Ok(())
    }

    /// One more log has its file open; the one that has had it longest lets go of it when there are too many.
    fn opened(&mut self, container: &ContainerId) {
        self.open.push_back(container.clone());
        if self.open.len() > OPEN_LOGS
            && let Some(oldest) = self.open.pop_front()
            && let Some(log) = self.logs.get_mut(&oldest)
        {
            log.rest();
        }
    }
}

fn read_agent(path: &Path) -> Result<AgentRecord, StoreError> {
    let Some(bytes) = read(path)? else {
        return Ok(AgentRecord::default());
    };
    let record = decode(path, &bytes, |record: &AgentRecord| record.version)?;
    if record.agent_id.is_empty() {
        return Err(StoreError::damaged(path, "it has no agent id"));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use tepui_model::id::ContainerId;
    use tepui_proto::disk::AgentRecord;
    use tepui_proto::{Wire, v1};
    use tepui_state_agent::{ExecutorKind, RecordBody};

    use super::{Store, StoreError};
    use crate::paths::Paths;

    fn open(dir: &std::path::Path) -> Result<Store, StoreError> {
        Store::open(Paths::new(dir.to_owned()))
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = open(dir.path()).expect("a store");
        assert!(matches!(open(dir.path()), Err(StoreError::Locked { .. })));
        assert!(!store.rebooted("one", &mut [], true).expect("space"));
        let agent = AgentRecord {
            agent_id: "S1".into(),
            epoch: 3,
            ..AgentRecord::default()
        };
        store.set_agent(agent).expect("space");
        let launch = RecordBody::Launch {
            framework: Wire(v1::FrameworkInfo::default()),
            executor: Wire(v1::ExecutorInfo::default()),
            kind: ExecutorKind::Generated,
        };
        let bodies = [
            launch,
            RecordBody::Task(Wire(v1::TaskInfo::default())),
            RecordBody::Update(Wire(v1::TaskStatus::default())),
            RecordBody::Acknowledged {
                task: "t".into(),
                uuid: vec![7; 16],
            },
            RecordBody::Retired,
        ];
        for name in ["b", "a"] {
            for body in &bodies {
                let container = ContainerId::new(name);
                store.record(&container, body).expect("space");
            }
        }
        let running = ContainerId::new("c");
        store.record(&running, &bodies[0]).expect("space");
        drop(store);

        let mut store = open(dir.path()).expect("a store");
        let mut found = store.load(true).expect("a store");
        assert!(!store.rebooted("one", &mut found, true).expect("space"));
        assert!(!found[2].retired);
        assert!(store.rebooted("two", &mut found, true).expect("space"));
        assert!(found[2].retired, "nothing runs after a reboot");
        drop(store);

        let mut store = open(dir.path()).expect("a store");
        assert_eq!(store.agent(true).expect("it was written").agent_id, "S1");
        let found = store.load(true).expect("a store");
        let names: Vec<&str> = found.iter().map(|one| &*one.container.value).collect();
        assert_eq!(names, ["b", "a", "c"]);
        assert_eq!(found[0].records, bodies);
        assert!(found[2].retired);
        drop(store);
        std::fs::write(dir.path().join("meta/version"), "9").expect("space");
        let error = open(dir.path()).expect_err("a later version").to_string();
        assert!(error.contains("version 9"), "{error}");
    }
}
