//! The `exit` file.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use crate::EXIT_FILE;

/// How the command of a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ran and ended with this raw wait status.
    Status(i32),
    /// The gate was never opened.
    NeverStarted,
}

impl Exit {
    /// Writes the `exit` file into the supervisor's directory, so that a reader sees all of it or nothing.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(self, directory: &Path) -> io::Result<()> {
        let temporary = directory.join("exit.new");
        let mut file = fs::File::create(&temporary)?;
        match self {
            Self::Status(status) => writeln!(file, "status {status}")?,
            Self::NeverStarted => writeln!(file, "never-started")?,
        }
        fs::rename(temporary, directory.join(EXIT_FILE))
    }

    /// Reads the `exit` file of a supervisor's directory; none when there is no such file.
    ///
    /// # Errors
    ///
    /// When it cannot be read or understood.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(directory.join(EXIT_FILE)) {
            Ok(text) => Self::parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> io::Result<Self> {
        let text = text.trim_end();
        if text == "never-started" {
            return Ok(Self::NeverStarted);
        }
        text.strip_prefix("status ")
            .and_then(|status| status.parse().ok())
            .map(Self::Status)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an exit record"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written_and_refuses_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Exit::read(directory.path()).unwrap(), None);
        for exit in [Exit::Status(1792), Exit::Status(9), Exit::NeverStarted] {
            exit.write(directory.path()).unwrap();
            assert_eq!(Exit::read(directory.path()).unwrap(), Some(exit));
        }
        for text in ["", "status", "status x", "gone"] {
            fs::write(directory.path().join(EXIT_FILE), text).unwrap();
            assert!(Exit::read(directory.path()).is_err(), "{text:?}");
        }
    }
}
