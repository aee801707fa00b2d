//! Files in which something outlives the agent process: some are replaced as a whole, some grow.
//!
//! Both carry checksums, so that a file which is not as it was written is told from one that is: a disk that
//! returns other bytes must not make an agent believe in other tasks or reservations. Only one kind of loss is taken
//! as it is: a log whose last record was cut short, as it is when the process is killed while it appends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Crc;

/// Tag of the last field of a sealed message: field 15, four bytes. Readers that do not know it skip it.
const SEAL: u8 = 15 << 3 | 5;

/// The seal and its checksum.
const SEAL_LENGTH: usize = 5;

/// Length and checksum before each record of a log.
const HEAD: usize = 8;

/// No record of a log is longer.
const LIMIT: usize = 64 << 20;

/// Puts a checksum behind an encoded message. The message must not have a field 15.
pub fn seal(mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&message);
    message.push(SEAL);
    message.extend_from_slice(&sum.to_le_bytes());
    message
}

/// Whether an encoded message is as it was [sealed](seal): true with its checksum, false without one.
///
/// # Errors
/// [`Altered`] where the checksum is not that of the message.
pub fn is_sealed(bytes: &[u8]) -> Result<bool, Altered> {
    let Some((message, end)) = bytes.split_last_chunk::<SEAL_LENGTH>() else {
        return Ok(false);
    };
    let [SEAL, sum @ ..] = end else {
        return Ok(false);
    };
    if checksum(message) == u32::from_le_bytes(*sum) {
        Ok(true)
    } else {
        Err(Altered)
    }
}

/// A file was changed after it was written.
#[derive(Debug, thiserror::Error)]
#[error("its checksum is wrong")]
pub struct Altered;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// What the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A record does not have the length or checksum that it was written with.
    #[error("the record at byte {at} is damaged")]
    Damaged {
        /// Where the record begins.
        at: u64,
    },
}

/// An open log: records, each with its length and checksum. A torn end is cut off; anything else that is wrong with
/// it is damage, which is never cut off silently.
///
/// Records are appended without syncing: they survive the agent process, not the machine, and neither do the
/// containers that they are about.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    /// None while it rests.
    file: Option<File>,
    /// Length of what is intact: an append that failed is cut off by the next.
    end: u64,
}

impl Log {
    /// Opens a log, makes it if it is missing, and gives what is intact of it. Only its owner may read it: records
    /// hold environments, which hold secrets.
    ///
    /// # Errors
    /// A file that cannot be opened, and a damaged one, which stays as it is.
    pub fn open(path: &Path) -> Result<(Self, Vec<Vec<u8>>), LogError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
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
            tracing::warn!(path = %path.display(), intact = end, lost = rest.len(), "cutting a torn end");
            file.set_len(end)?;
        }
        let (path, file) = (path.to_owned(), Some(file));
        Ok((Self { path, file, end }, records))
    }

    /// Lets go of the file until the next record comes: an agent has many logs that nothing is written to, and the system
    /// lets it have only so many files open.
    pub fn rest(&mut self) {
        self.file = None;
    }

    /// Whether its file is open.
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Appends a record.
    ///
    /// # Errors
    /// What the system says; nothing of the record is in the log then.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEAD + record.len());
        bytes.write_all(&length.to_le_bytes())?;
        bytes.write_all(&checksum(record).to_le_bytes())?;
        bytes.write_all(record)?;
        let file = match &mut self.file {
            Some(file) => file,
            resting => resting.insert(OpenOptions::new().write(true).open(&self.path)?),
        };
        if let Err(error) = file.write_all_at(&bytes, self.end) {
            // A part of it must not be taken for damage; the next append begins here, too.
            let _ = file.set_len(self.end);
            return Err(error);
        }
        self.end += bytes.len() as u64;
        Ok(())
    }
}

/// Whether the rest of a log, where no intact record begins, is what a write that was cut short leaves. It is not if
/// the record is there and only its length is another: then its checksum is that of a part of what follows.
fn is_torn(rest: &[u8]) -> bool {
    let Some((head, record)) = rest.split_at_checked(HEAD) else {
        return true;
    };
    let Some((length, sum)) = numbers(head) else {
        return true;
    };
    if length > LIMIT || record.len() >= length {
        return false;
    }
    let mut crc = Crc::new();
    let empty = crc.sum();
    let mut parts = record.iter().map(|byte| {
        crc.update(&[*byte]);
        crc.sum()
    });
    sum != empty && parts.all(|part| part != sum)
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let (length, sum) = numbers(head)?;
    if length > LIMIT {
        return None;
    }
    let (record, rest) = rest.split_at_checked(length)?;
    (checksum(record) == sum).then_some((record, rest))
}

/// Length and checksum of a record.
fn numbers(head: &[u8]) -> Option<(usize, u32)> {
    let (length, sum) = head.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    Some((length, u32::from_le_bytes(*sum.first_chunk()?)))
}

/// CRC-32 (IEEE).
pub fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::{Log, LogError, is_sealed, seal};

    #[test]
    fn a_sealed_message_is_told_from_an_altered_one() {
        let sealed = seal(b"message".to_vec());
        assert!(is_sealed(&sealed).expect("as it was written"));
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1 << bit;
                assert!(!is_sealed(&flipped).unwrap_or(false), "byte {at} bit {bit}");
            }
            assert!(!is_sealed(&sealed[..at]).unwrap_or(false), "cut at {at}");
        }
    }

    /// A log of some records; its bytes, and where each record ends.
    fn written(path: &std::path::Path, records: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let (mut log, found) = Log::open(path).expect("a log");
        assert!(found.is_empty());
        let mut ends = Vec::new();
        for record in records {
            log.append(record).expect("space");
            ends.push(log.end as usize);
        }
        (std::fs::read(path).expect("the file"), ends)
    }

    #[test]
    fn no_flipped_bit_is_taken_for_a_torn_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let (whole, ends) = written(&path, &[b"one", b"two", b"a longer one"]);
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                std::fs::write(&path, &flipped).expect("space");
                let begins = ends.iter().rfind(|end| **end <= at).copied().unwrap_or(0);
                match Log::open(&path) {
                    Err(LogError::Damaged { at: found }) => assert_eq!(found, begins as u64),
                    other => panic!("byte {at} bit {bit}: {other:?}"),
                }
                assert_eq!(std::fs::read(&path).expect("the file"), flipped);
            }
        }
    }

    #[test]
    fn a_torn_end_is_cut() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let (whole, ends) = written(&path, &[b"one", b"", b"three"]);
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("space");
            let (mut log, records) = Log::open(&path).expect("a log");
            assert_eq!(
                records.len(),
                ends.iter().filter(|end| **end <= cut).count()
            );
            log.rest();
            log.append(b"after").expect("space");
            drop(log);
            let (_, again) = Log::open(&path).expect("a log");
            assert_eq!(again.len(), records.len() + 1);
            assert_eq!(again.last().map(Vec::as_slice), Some(&b"after"[..]));
        }
    }
}
