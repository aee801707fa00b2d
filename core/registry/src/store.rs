//! The file: tables, epochs, batches. Everything here blocks.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition,
};

use crate::{Op, RegistryError, Snapshot};

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");

/// Written into `META`; grows when old releases could not read the tables any more.
const FORMAT: u64 = 1;

/// The open file.
pub(crate) struct Store {
    database: Database,
    path: PathBuf,
}

/// One batch of a group commit.
pub(crate) struct Batch<'a> {
    pub(crate) epoch: u64,
    pub(crate) ops: &'a [Op],
}

/// How files are opened: all of one is read and its checksums are compared, since a registry that a disk has altered
/// must not be believed.
pub(crate) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_check_integrity_on_open(true);
    builder
}

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Self, RegistryError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| storage(path, &error))?;
        }
        let database = builder().create(path);
        Self::prepare(database.map_err(|error| open_error(path, error))?, path)
    }

    /// Checks the format of an opened database, or lays it out when it is new.
    pub(crate) fn prepare(database: Database, path: &Path) -> Result<Self, RegistryError> {
        let store = Self {
            database,
            path: path.to_path_buf(),
        };
        let found = store.within(|store| {
            let write = store.database.begin_write()?;
            let format = {
                let mut meta = write.open_table(META)?;
                let format = meta.get("format")?.map(|value| value.value().to_owned());
                if format.is_none() {
                    let id = uuid::Uuid::new_v4().to_string();
                    meta.insert("format", FORMAT.to_string().as_str())?;
                    meta.insert("cluster_id", id.as_str())?;
                    meta.insert("epoch", "0")?;
                }
                write.open_table(ENTRIES)?;
                format
            };
            if format.is_none() {
                write.commit()?;
            } else {
                write.abort()?;
            }
            Ok(format)
        })?;
        let Some(found) = found else { return Ok(store) };
        match found.parse::<u64>() {
            Ok(found) if found <= FORMAT => Ok(store),
            Ok(found) => Err(RegistryError::TooNew {
                path: store.path,
                found,
                known: FORMAT,
            }),
            Err(_) => Err(store.damaged(&format!("its format is '{found}'"))),
        }
    }

    pub(crate) fn load(&self) -> Result<Snapshot, RegistryError> {
        let (cluster_id, epoch, entries) = self.within(|store| {
            let read = store.database.begin_read()?;
            let meta = read.open_table(META)?;
            let text = |key| Ok::<_, redb::Error>(meta.get(key)?.map(|v| v.value().to_owned()));
            let mut entries = Vec::new();
            for entry in read.open_table(ENTRIES)?.iter()? {
                let (key, value) = entry?;
                entries.push((
                    key.value().to_owned(),
                    Bytes::copy_from_slice(value.value()),
                ));
            }
            Ok((text("cluster_id")?, text("epoch")?, entries))
        })?;
        let cluster_id = cluster_id.ok_or_else(|| self.damaged("it has no cluster id"))?;
        let epoch = epoch
            .and_then(|epoch| epoch.parse().ok())
            .ok_or_else(|| self.damaged("it has no epoch"))?;
        Ok(Snapshot {
            cluster_id,
            epoch,
            entries,
        })
    }

    pub(crate) fn begin_epoch(&self) -> Result<u64, RegistryError> {
        let epoch = self.epoch()? + 1;
        self.within(|store| {
            let write = store.database.begin_write()?;
            write
                .open_table(META)?
                .insert("epoch", epoch.to_string().as_str())?;
            write.commit()?;
            Ok(epoch)
        })
    }

    /// Stores the batches of the newest epoch in one commit; the result says which were fenced.
    pub(crate) fn store(
        &self,
        batches: &[Batch<'_>],
    ) -> Result<Vec<Result<(), RegistryError>>, RegistryError> {
        let newest = self.epoch()?;
        let fenced = |batch: &Batch<'_>| batch.epoch != newest;
        if batches.iter().any(|batch| !fenced(batch)) {
            self.within(|store| {
                let write = store.database.begin_write()?;
                {
                    let mut entries = write.open_table(ENTRIES)?;
                    for op in batches.iter().filter(|b| !fenced(b)).flat_map(|b| b.ops) {
                        match op {
                            Op::Put { key, value } => {
                                entries.insert(key.as_str(), value.as_ref())?;
                            }
                            Op::Delete { key } => {
                                entries.remove(key.as_str())?;
                            }
                        }
                    }
                }
                Ok(write.commit()?)
            })?;
        }
        Ok(batches
            .iter()
            .map(|batch| match fenced(batch) {
                true => Err(RegistryError::Fenced {
                    epoch: batch.epoch,
                    newest,
                }),
                false => Ok(()),
            })
            .collect())
    }

    fn epoch(&self) -> Result<u64, RegistryError> {
        let text = self.within(|store| {
            let meta = store.database.begin_read()?.open_table(META)?;
            Ok(meta.get("epoch")?.map(|value| value.value().to_owned()))
        })?;
        text.and_then(|epoch| epoch.parse().ok())
            .ok_or_else(|| self.damaged("it has no epoch"))
    }

    fn within<T>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, redb::Error>,
    ) -> Result<T, RegistryError> {
        work(self).map_err(|error| match error {
            redb::Error::Corrupted(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableDoesNotExist(_) => self.damaged(&error.to_string()),
            other => storage(&self.path, &other),
        })
    }

    fn damaged(&self, reason: &str) -> RegistryError {
        RegistryError::Damaged {
            path: self.path.clone(),
            reason: reason.to_owned(),
        }
    }
}

fn storage(path: &Path, error: &dyn std::error::Error) -> RegistryError {
    RegistryError::Storage {
        path: path.to_path_buf(),
        reason: error.to_string(),
    }
}

pub(crate) fn open_error(path: &Path, error: DatabaseError) -> RegistryError {
    let path = path.to_path_buf();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            RegistryError::InUse { path }
        }
        // redb says so of a file with another program's content, and of one that is cut short.
        DatabaseError::Storage(StorageError::Io(error))
            if matches!(
                error.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            ) =>
        {
            RegistryError::Damaged {
                path,
                reason: error.to_string(),
            }
        }
        DatabaseError::Storage(StorageError::Corrupted(reason)) => {
            RegistryError::Damaged { path, reason }
        }
        error @ (DatabaseError::RepairAborted | DatabaseError::UpgradeRequired(_)) => {
            RegistryError::Damaged {
                path,
                reason: error.to_string(),
            }
        }
        error => storage(&path, &error),
    }
}
