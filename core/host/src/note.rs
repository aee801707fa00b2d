//! Reads the note of a library, and what its file says about panics, without running any code of it.

use std::fs::File;
use std::path::Path;

use object::{Object, ObjectSection, ObjectSymbol, ReadCache, ReadRef};
use tepui_module_proto::note::{Note, SECTION};

/// What the file itself tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileNote {
    /// The note.
    pub note: Note,
    /// Whether the file imports the unwinder: a Rust library that does not was built to abort.
    pub unwinds: bool,
}

/// A file that is no module library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoNote {
    /// A sound library, or no library at all: none of our business.
    Other,
    /// It should be one, and is damaged: cut off, or an unreadable note.
    Damaged(String),
}

/// Reads a file, of which only the needed parts are touched.
pub fn read_file(path: &Path) -> Result<FileNote, NoNote> {
    let file = File::open(path).map_err(|e| NoNote::Damaged(e.to_string()))?;
    read_open(&file)
}

/// The same of a file that is open.
pub(crate) fn read_open(file: &File) -> Result<FileNote, NoNote> {
    read(&ReadCache::new(file))
}

/// Reads the bytes of a file.
pub fn read<'a>(data: impl ReadRef<'a>) -> Result<FileNote, NoNote> {
    let magic = data.read_bytes_at(0, 4).unwrap_or_default();
    if magic != b"\x7fELF" && !magic.starts_with(b"MZ") {
        return Err(NoNote::Other);
    }
    let damaged = |e: object::Error| NoNote::Damaged(format!("damaged or cut off: {e}"));
    let object = object::File::parse(data).map_err(damaged)?;
    let Some(section) = object.section_by_name(SECTION) else {
        return Err(NoNote::Other);
    };
    let note = Note::parse(section.data().map_err(damaged)?)
        .map_err(|e| NoNote::Damaged(e.to_string()))?;
    let unwinds = object
        .dynamic_symbols()
        .any(|symbol| symbol.is_undefined() && symbol.name() == Ok("_Unwind_RaiseException"));
    Ok(FileNote { note, unwinds })
}
