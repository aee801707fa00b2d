//! The descriptions of files in archives, within bounds. Readers of archives keep the name, the link and the attributes
//! of a file in memory, each as long as the archive says; those of zip archives keep all at once.

use std::{
    cell::Cell,
    io::{self, Read, Seek, SeekFrom},
    rc::Rc,
};

/// Most bytes of the description of one file.
pub const DESCRIPTION: u64 = 1 << 20;
/// Most bytes of the list of files that a zip archive has at its end: that of some 300,000 files.
const LIST: u64 = 32 << 20;

/// What is read of an archive; bounded while a description is.
pub struct Described<R> {
    inner: R,
    left: Rc<Left>,
}

/// Says what is being read.
pub struct Budget(Rc<Left>);

struct Left {
    bytes: Cell<u64>,
    /// What has more of them.
    what: Cell<&'static str>,
}

impl<R> Described<R> {
    /// Reads this. Until [`Budget::begin`] nothing is bounded.
    pub fn new(inner: R) -> (Self, Budget) {
        let left = Rc::new(Left {
            bytes: Cell::new(u64::MAX),
            what: Cell::new(""),
        });
        let budget = Budget(left.clone());
        (Self { inner, left }, budget)
    }
}

impl Budget {
    /// The next that is read is a description.
    pub fn begin(&self) {
        self.0.bytes.set(DESCRIPTION);
        self.0.what.set("the description of a file");
    }

    /// The next that is read is the list of all files.
    pub fn begin_list(&self) {
        self.0.bytes.set(LIST);
        self.0.what.set("the archive's list of files");
    }

    /// The description or list is read; what follows is content. Answers the description's bytes.
    pub fn end(&self) -> u64 {
        DESCRIPTION.saturating_sub(self.0.bytes.replace(u64::MAX))
    }
}

impl<R: Read> Read for Described<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let left = self.left.bytes.get().checked_sub(length as u64);
        self.left.bytes.set(left.ok_or_else(|| {
            let text = format!("{} is too long", self.left.what.get());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?);
        Ok(length)
    }
}

impl<R: Seek> Seek for Described<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
