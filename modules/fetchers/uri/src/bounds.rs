//! How much one URI may bring: what strangers send must not fill the agent's disk.

use std::cell::Cell;
use std::io::{self, Read};

use tepui_module_sdk::{Failure, Result};

/// Bytes of one file, before anything is unpacked, and what it may unpack to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) download_bytes: u64,
    pub(crate) unpacked_bytes: u64,
    pub(crate) unpacked_files: u64,
}

impl Bounds {
    /// Refuses a file of this length.
    pub(crate) fn download(&self, length: u64) -> Result<()> {
        match length <= self.download_bytes {
            true => Ok(()),
            false => Err(Failure::invalid(format!(
                "it has more than {} bytes, the fetcher's 'max_download_bytes'",
                self.download_bytes
            ))),
        }
    }

    /// What one archive may still unpack to.
    pub(crate) fn allowance(&self) -> Allowance {
        Allowance {
            bounds: *self,
            bytes: Cell::new(self.unpacked_bytes),
            files: Cell::new(self.unpacked_files),
        }
    }
}

/// See [`Bounds::allowance`].
pub(crate) struct Allowance {
    bounds: Bounds,
    bytes: Cell<u64>,
    files: Cell<u64>,
}

impl Allowance {
    /// One more file, directory or link.
    pub(crate) fn file(&self) -> Result<()> {
        let left = self.files.get().checked_sub(1).ok_or_else(|| {
            Failure::invalid(format!(
                "it has more than {} files, the fetcher's 'max_unpacked_files'",
                self.bounds.unpacked_files
            ))
        })?;
        self.files.set(left);
        Ok(())
    }

    /// A file's content, which cannot be read beyond what is allowed.
    pub(crate) fn content<R: Read>(&self, from: R) -> Content<'_, R> {
        Content { of: self, from }
    }
}

/// See [`Allowance::content`].
pub(crate) struct Content<'a, R> {
    of: &'a Allowance,
    from: R,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        let left = self.of.bytes.get().checked_sub(length as u64);
        let left = left.ok_or_else(|| {
            io::Error::other(format!(
                "it unpacks to more than {} bytes, the fetcher's 'max_unpacked_bytes'",
                self.of.bounds.unpacked_bytes
            ))
        })?;
        self.of.bytes.set(left);
        Ok(length)
    }
}
