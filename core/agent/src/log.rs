//! A file of records: each has its length and checksum, and a torn end is cut off. Anything else that
//! is wrong with it is damage, which is never cut off silently.
//!
//! Records are appended without syncing: they survive the agent process, not the machine, and
//! neither do the tasks that they are about.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use flate2::Crc;

/// Length and checksum.
const HEAD: usize = 8;

/// No record is longer.
const LIMIT: usize = 64 << 20;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// What the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A record does not have the checksum that it was written with.
    #[error("the record at byte {at} is damaged")]
    Damaged { at: u64 },
}

/// An open log.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    /// Length of what is intact: an append that failed is cut off by the next.
    end: u64,
}

impl Log {
    /// Opens a log, makes it if it is missing, and gives what is intact of it.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Vec<u8>>), LogError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut records = Vec::new();
        let mut rest = &bytes[..];
        while let Some((record, after)) = take(rest) {
            records.push(record.to_vec());
            rest = after;
        }
        let end = (bytes.len() - rest.len()) as u64;
        if !is_torn(rest) {
            return Err(LogError::Damaged { at: end });
        }
        if !rest.is_empty() {
            file.set_len(end)?;
        }
        Ok((Self { file, end }, records))
    }

    /// Appends a record.
    pub(crate) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEAD + record.len());
        bytes.write_all(&length.to_le_bytes())?;
        bytes.write_all(&checksum(record).to_le_bytes())?;
        bytes.write_all(record)?;
        if let Err(error) = self.file.write_all_at(&bytes, self.end) {
            // A part of it must not be taken for damage; the next append begins here, too.
            let _ = self.file.set_len(self.end);
            return Err(error);
        }
        self.end += bytes.len() as u64;
        Ok(())
    }
}

/// Whether the rest of a log, where no intact record begins, is what a write that was cut short leaves.
fn is_torn(rest: &[u8]) -> bool {
    let Some((head, record)) = rest.split_at_checked(HEAD) else {
        return true;
    };
    let length = head.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    length.is_some_and(|length| length as usize <= LIMIT && record.len() < length as usize)
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let (length, sum) = head.split_at(4);
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    let sum = u32::from_le_bytes(sum.try_into().ok()?);
    if length > LIMIT {
        return None;
    }
    let (record, rest) = rest.split_at_checked(length)?;
    (checksum(record) == sum).then_some((record, rest))
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::{Log, LogError};

    #[test]
    fn damage_is_not_taken_for_a_torn_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let (mut log, _) = Log::open(&path).expect("a log");
        log.append(b"one").expect("space");
        log.append(b"two").expect("space");
        drop(log);
        let whole = std::fs::read(&path).expect("the file");
        // Checksum and content of the first record, and of the last.
        for at in (4..11).chain(15..22) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).expect("space");
            let begins = if at < 11 { 0 } else { 11 };
            let error = Log::open(&path).expect_err("it is damaged");
            assert!(matches!(error, LogError::Damaged { at } if at == begins));
            assert_eq!(std::fs::read(&path).expect("the file"), flipped);
        }
    }

    #[test]
    fn a_torn_end_is_cut() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let (mut log, records) = Log::open(&path).expect("a log");
        assert!(records.is_empty());
        log.append(b"one").expect("space");
        log.append(b"").expect("space");
        log.append(b"three").expect("space");
        drop(log);
        let whole = std::fs::read(&path).expect("the file");
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("space");
            let (mut log, records) = Log::open(&path).expect("a log");
            assert!(records.len() < 3);
            log.append(b"after").expect("space");
            drop(log);
            let (_, again) = Log::open(&path).expect("a log");
            assert_eq!(again.len(), records.len() + 1);
            assert_eq!(again.last().map(Vec::as_slice), Some(&b"after"[..]));
        }
    }
}
