//! The note of a library: the section `.tepui`, read without running any code of it.
//!
//! It is text, so that any tool can show it, and is written by constant functions, because a static of a
//! section cannot be computed at run time:
//!
//! ```text
//! tepui modules 1
//! abi 1.0.0
//! sdk 0.1.0
//! panic unwind
//! module allocator hierarchical HierarchicalDRF
//! module leader-contender,leader-detector standalone
//! end
//! ```
//!
//! A `module` line has the kinds joined by commas, the name, then aliases. Lines of other first words are
//! skipped. A reader refuses a first line with a greater number.

/// Section of the note in ELF and PE files.
pub const SECTION: &str = ".tepui";
/// First line of every note.
pub const FIRST_LINE: &str = "tepui modules 1";

/// One module, as the macros of the SDK describe it.
#[derive(Debug, Clone, Copy)]
pub struct NoteModule {
    /// Kinds joined by commas.
    pub kinds: &'static str,
    /// Name of the module.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
}

/// What a note says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Version of the tables.
    pub abi: String,
    /// Version of the SDK.
    pub sdk: String,
    /// `unwind` or `abort`.
    pub panic: String,
    /// The modules, in the order of the library.
    pub modules: Vec<NotedModule>,
}

/// A module in a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedModule {
    /// Kinds it serves.
    pub kinds: Vec<String>,
    /// Its name.
    pub name: String,
    /// Other names that select it.
    pub aliases: Vec<String>,
}

impl NotedModule {
    /// Whether `name` is the module's name or one of its aliases.
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }
}

/// Why a section is not a note.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The first line is another.
    #[error("expected a note that begins with {FIRST_LINE:?}, found {found:?}")]
    FirstLine {
        /// The first line, cut to a few characters.
        found: String,
    },
    /// The note ends before its `end`, or is no text.
    #[error("the note is cut off or damaged")]
    Damaged,
    /// A line lacks a part.
    #[error("the note's line {line:?} is not complete")]
    Line {
        /// The line.
        line: String,
    },
}

impl Note {
    /// Reads the content of the section; bytes after `end` are padding.
    pub fn parse(section: &[u8]) -> Result<Self, NoteError> {
        const END: &[u8] = b"\nend\n";
        let end = section.windows(END.len()).position(|part| part == END);
        let text = std::str::from_utf8(&section[..end.unwrap_or(section.len())]);
        let first = text
            .ok()
            .and_then(|text| text.lines().next())
            .unwrap_or_default();
        if first != FIRST_LINE {
            return Err(NoteError::FirstLine {
                found: first.chars().take(40).collect(),
            });
        }
        let (Ok(text), Some(_)) = (text, end) else {
            return Err(NoteError::Damaged);
        };
        let mut note = Self {
            abi: String::new(),
            sdk: String::new(),
            panic: String::new(),
            modules: Vec::new(),
        };
        for line in text.lines().skip(1) {
            let incomplete = || NoteError::Line {
                line: line.to_owned(),
            };
            let mut words = line.split(' ');
            let key = words.next().unwrap_or_default();
            match key {
                "abi" => note.abi = words.next().ok_or_else(incomplete)?.to_owned(),
                "sdk" => note.sdk = words.next().ok_or_else(incomplete)?.to_owned(),
                "panic" => note.panic = words.next().ok_or_else(incomplete)?.to_owned(),
                "module" => note.modules.push(NotedModule {
                    kinds: words
                        .next()
                        .ok_or_else(incomplete)?
                        .split(',')
                        .map(str::to_owned)
                        .collect(),
                    name: words.next().ok_or_else(incomplete)?.to_owned(),
                    aliases: words.map(str::to_owned).collect(),
                }),
                _ => {}
            }
        }
        Ok(note)
    }
}

/// Length of the note that [`write()`] makes.
pub const fn length(abi: &str, sdk: &str, panic: &str, modules: &[NoteModule]) -> usize {
    emit(&mut [], abi, sdk, panic, modules)
}

/// The note, in an array of exactly [`length()`] bytes.
pub const fn write<const N: usize>(
    abi: &str,
    sdk: &str,
    panic: &str,
    modules: &[NoteModule],
) -> [u8; N] {
    let mut out = [0; N];
    emit(&mut out, abi, sdk, panic, modules);
    out
}

/// Writes as much as fits and returns the full length.
const fn emit(out: &mut [u8], abi: &str, sdk: &str, panic: &str, modules: &[NoteModule]) -> usize {
    let mut at = put(out, 0, FIRST_LINE);
    at = put(out, at, "\nabi ");
    at = put(out, at, abi);
    at = put(out, at, "\nsdk ");
    at = put(out, at, sdk);
    at = put(out, at, "\npanic ");
    at = put(out, at, panic);
    let mut i = 0;
    while i < modules.len() {
        at = put(out, at, "\nmodule ");
        at = put(out, at, word(modules[i].kinds));
        at = put(out, at, " ");
        at = put(out, at, word(modules[i].name));
        let mut alias = 0;
        while alias < modules[i].aliases.len() {
            at = put(out, at, " ");
            at = put(out, at, word(modules[i].aliases[alias]));
            alias += 1;
        }
        i += 1;
    }
    put(out, at, "\nend\n")
}

/// A name as it is; a build error when the note could not hold it.
const fn word(name: &str) -> &str {
    let bytes = name.as_bytes();
    assert!(!bytes.is_empty(), "a module needs a name");
    let mut i = 0;
    while i < bytes.len() {
        assert!(
            bytes[i] > b' ' && bytes[i] < 0x7f,
            "module names are printable ASCII without spaces"
        );
        i += 1;
    }
    name
}

const fn put(out: &mut [u8], at: usize, text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if at + i < out.len() {
            out[at + i] = bytes[i];
        }
        i += 1;
    }
    at + bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: &[NoteModule] = &[
        NoteModule {
            kinds: "allocator",
            name: "hierarchical",
            aliases: &["HierarchicalDRF"],
        },
        NoteModule {
            kinds: "leader-contender,leader-detector",
            name: "standalone",
            aliases: &[],
        },
    ];
    static NOTE: [u8; length("1.0.0", "0.1.0", "unwind", MODULES)] =
        write("1.0.0", "0.1.0", "unwind", MODULES);

    #[test]
    fn a_note_reads_back_even_with_padding_and_lines_from_the_future() {
        let mut section = NOTE.to_vec();
        section.extend([0; 7]);
        let note = Note::parse(&section).unwrap();
        assert_eq!(
            (note.abi.as_str(), note.sdk.as_str(), note.panic.as_str()),
            ("1.0.0", "0.1.0", "unwind")
        );
        assert_eq!(note.modules.len(), 2);
        assert!(
            note.modules[0].answers_to("HierarchicalDRF")
                && !note.modules[1].answers_to("HierarchicalDRF")
        );
        assert_eq!(
            note.modules[1].kinds,
            ["leader-contender", "leader-detector"]
        );

        let text = String::from_utf8(NOTE.to_vec()).unwrap();
        let newer = text.replace("panic unwind", "panic unwind\ncolour blue");
        assert_eq!(Note::parse(newer.as_bytes()).unwrap(), note);
    }

    #[test]
    fn what_is_not_a_note_is_refused() {
        assert!(matches!(
            Note::parse(b"tepui modules 2\nend\n"),
            Err(NoteError::FirstLine { .. })
        ));
        assert!(matches!(Note::parse(b""), Err(NoteError::FirstLine { .. })));
        assert_eq!(
            Note::parse(&NOTE[..NOTE.len() - 2]),
            Err(NoteError::Damaged)
        );
        assert!(matches!(
            Note::parse(b"tepui modules 1\nmodule allocator\nend\n"),
            Err(NoteError::Line { .. })
        ));
    }
}
