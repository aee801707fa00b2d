//! How the files of the records are read and written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use tepui_containerizer::checkpoint::{Log, LogError, checksum, is_sealed};
use tepui_proto::Message;

use super::{StoreError, VERSION};

/// Characters of the id of a boot.
const BOOT_ID_LENGTH: usize = 36;

/// Decodes a record that is replaced as a whole; `version` says which it is of. Before version 2 they had no seal.
pub(super) fn decode<T: Message + Default>(
    path: &Path,
    bytes: &[u8],
    version: impl Fn(&T) -> u32,
) -> Result<T, StoreError> {
    let sealed = is_sealed(bytes).map_err(|error| StoreError::damaged(path, error))?;
    let record = T::decode(bytes).map_err(|source| StoreError::damaged(path, source))?;
    match version(&record) {
        found if found > VERSION => Err(StoreError::Newer {
            path: path.to_owned(),
            found: found.to_string(),
        }),
        1 => Ok(record),
        _ if sealed => Ok(record),
        _ => Err(StoreError::damaged(path, "it is cut short")),
    }
}

/// The boot that was noted, and a checksum of it; before version 2 there was none.
pub(super) fn read_boot_id(path: &Path) -> Result<Option<String>, StoreError> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|error| StoreError::damaged(path, error))?;
    let (id, sum) = text.split_once(' ').unwrap_or((&text, ""));
    let expected = format!("{:08x}\n", checksum(id.as_bytes()));
    if sum == expected || text.len() == BOOT_ID_LENGTH && sum.is_empty() {
        Ok(Some(id.to_owned()))
    } else {
        Err(StoreError::damaged(path, "its checksum is wrong"))
    }
}

pub(super) fn open_log(path: &Path) -> Result<(Log, Vec<Vec<u8>>), StoreError> {
    Log::open(path).map_err(|error| match error {
        LogError::Io(source) => StoreError::io("open", path)(source),
        damaged @ LogError::Damaged { .. } => StoreError::damaged(path, damaged),
    })
}

pub(super) fn check_version(path: &Path) -> Result<(), StoreError> {
    match read(path)? {
        None => write_synced(path, VERSION.to_string().as_bytes()),
        Some(bytes) => {
            let found = String::from_utf8_lossy(&bytes).trim().to_owned();
            match found.parse::<u32>() {
                Ok(VERSION) => Ok(()),
                // What is written from now on is of this version.
                Ok(version) if version < VERSION => {
                    write_synced(path, VERSION.to_string().as_bytes())
                }
                _ => Err(StoreError::Newer {
                    path: path.to_owned(),
                    found,
                }),
            }
        }
    }
}

pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

/// Replaces a file as a whole.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let fresh = path.with_extension("new");
    let replaced = fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path));
    replaced.map_err(|error| not_replaced(path, &fresh, error))
}

/// Nothing is left of what was to take the place of a file.
fn not_replaced(path: &Path, fresh: &Path, error: io::Error) -> StoreError {
    // It may not have been made.
    let _ = fs::remove_file(fresh);
    StoreError::io("write", path)(error)
}

/// The same, so that it survives the machine.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let fresh = path.with_extension("new");
    let parent = path.parent().expect("files have a directory");
    let replace = || -> io::Result<()> {
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(parent)?.sync_all()
    };
    replace().map_err(|error| not_replaced(path, &fresh, error))
}
