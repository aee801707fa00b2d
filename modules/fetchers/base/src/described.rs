//! The descriptions of files in archives, within bounds. Readers of archives keep the name, the link and the attributes
//! of a file in memory, each as long as the archive says.

use std::{
    cell::Cell,
    io::{self, Read, Seek, SeekFrom},
    rc::Rc,
};

/// Most bytes of the description of one file.
pub const DESCRIPTION: u64 = 1 << 20;

/// What is read of an archive; bounded while a description is.
pub struct Described<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

/// Says what is being read.
pub struct Budget(Rc<Cell<u64>>);

impl<R> Described<R> {
    /// Reads this. Until [`Budget::begin`] nothing is bounded.
    pub fn new(inner: R) -> (Self, Budget) {
        let left = Rc::new(Cell::new(u64::MAX));
        let budget = Budget(left.clone());
        (Self { inner, left }, budget)
    }
}

impl Budget {
    /// The next that is read is a description.
    pub fn begin(&self) {
        self.0.set(DESCRIPTION);
    }

    /// The description is read; what follows is content. Answers the description's bytes.
    pub fn end(&self) -> u64 {
        DESCRIPTION - self.0.replace(u64::MAX)
    }
}

impl<R: Read> Read for Described<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(length as u64);
        self.left.set(left.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the description of a file is too long",
            )
        })?);
        Ok(length)
    }
}

impl<R: Seek> Seek for Described<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
