//! Files of bounded size: what the program of a log does with what it reads.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The options of logrotate that mean something here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Old files that are kept.
    pub keep: u32,
    /// Old files are gzipped.
    pub compress: bool,
}

impl Options {
    /// Reads lines of logrotate's configuration.
    ///
    /// # Errors
    ///
    /// Names a line that means nothing here.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.split_once(char::is_whitespace) {
                Some(("rotate", count)) => {
                    let count = count.trim().parse();
                    options.keep = count.map_err(|_| format!("'{line}' has no number"))?;
                }
                None if line == "compress" => options.compress = true,
                None if line == "nocompress" => options.compress = false,
                // How files are always treated here.
                None if ["missingok", "notifempty", "nocreate"].contains(&line) => {}
                _ => {
                    return Err(format!(
                        "'{line}' is not supported; rotate N, compress, nocompress, missingok, notifempty and nocreate are"
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// A size as Mesos writes it: `10MB`.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let shift = match unit {
        "B" => 0,
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A log that is written.
pub struct Log {
    path: PathBuf,
    max: u64,
    options: Options,
    file: File,
    size: u64,
}

impl Log {
    /// Goes on with the file at a path, or makes one.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(path: PathBuf, max: u64, options: Options) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            max,
            options,
            file,
            size,
        })
    }

    /// Appends to the file, and begins a new one where it would be too large.
    ///
    /// # Errors
    ///
    /// When a file cannot be written, renamed or made.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.max {
            self.rotate()?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let Options { keep, compress } = self.options;
        if keep == 0 {
            fs::remove_file(&self.path)?;
        } else {
            for number in (1..keep).rev() {
                let moved = fs::rename(self.old(number), self.old(number + 1));
                // There are not that many yet.
                if let Err(error) = moved
                    && error.kind() != io::ErrorKind::NotFound
                {
                    return Err(error);
                }
            }
            if compress {
                gzip(&self.path, &self.old(1))?;
                fs::remove_file(&self.path)?;
            } else {
                fs::rename(&self.path, self.old(1))?;
            }
        }
        *self = Self::open(self.path.clone(), self.max, self.options)?;
        Ok(())
    }

    fn old(&self, number: u32) -> PathBuf {
        let suffix = if self.options.compress { ".gz" } else { "" };
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}{suffix}"));
        name.into()
    }
}

fn gzip(from: &Path, to: &Path) -> io::Result<()> {
    let mut encoder =
        flate2::write::GzEncoder::new(File::create(to)?, flate2::Compression::default());
    io::copy(&mut File::open(from)?, &mut encoder)?;
    encoder.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn sizes_and_options_are_those_of_mesos() {
        assert_eq!(bytes("10MB"), Some(10 << 20));
        assert_eq!(bytes("0B"), Some(0));
        for wrong in ["", "10", "MB", "10mb", "-1MB", "99999999999TB"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        let options = Options::parse("rotate 9\n  compress\n\nmissingok").unwrap();
        assert_eq!(
            options,
            Options {
                keep: 9,
                compress: true
            }
        );
        for wrong in [
            "rotate",
            "rotate x",
            "daily",
            "postrotate /bin/sh endscript",
        ] {
            assert!(
                Options::parse(wrong).unwrap_err().contains(wrong),
                "{wrong}"
            );
        }
    }

    #[test]
    fn no_file_is_too_large_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (compress, suffix) in [(false, ""), (true, ".gz")] {
            let options = Options { keep: 2, compress };
            let mut log = Log::open(at("log"), 10, options).unwrap();
            for number in 0..4 {
                log.write(format!("line {number}\n").as_bytes()).unwrap();
            }
            assert_eq!(fs::read_to_string(at("log")).unwrap(), "line 3\n");
            for (name, expected) in [("log.1", "line 2\n"), ("log.2", "line 1\n")] {
                let bytes = fs::read(at(&format!("{name}{suffix}"))).unwrap();
                let mut text = String::new();
                match compress {
                    true => flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut text),
                    false => (&*bytes).read_to_string(&mut text),
                }
                .unwrap();
                assert_eq!(text, expected);
            }
            assert!(!at(&format!("log.3{suffix}")).exists());
            fs::remove_file(at("log")).unwrap();
        }
        // One piece that is larger has a file of its own; with none to keep the old one is gone.
        let mut log = Log::open(at("alone"), 10, Options::default()).unwrap();
        for text in ["short", "longer than ten bytes", "end"] {
            log.write(text.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(at("alone")).unwrap(), "end");
        assert!(!at("alone.1").exists());
    }
}
