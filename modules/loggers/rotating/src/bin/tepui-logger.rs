//! Writes what comes from standard input, a FIFO, to files of bounded size:
//! `tepui-logger FILE MAX_BYTES KEEP gz|plain`.
//!
//! Ends when nothing writes to the FIFO any more; before there was a writer it waits. A disk that is full loses output,
//! but never stops the container.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tepui_logger_rotating::rotation::{Log, Options};

/// Most that is written at once: a page, as in Mesos, which no file may be smaller than.
const PIECE: usize = 4 << 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, max, keep, form] = &arguments[..] else {
        eprintln!("usage: tepui-logger FILE MAX_BYTES KEEP gz|plain");
        return ExitCode::from(2);
    };
    let (Ok(max), Ok(keep)) = (max.parse(), keep.parse()) else {
        eprintln!("MAX_BYTES and KEEP are numbers");
        return ExitCode::from(2);
    };
    let compress = form == "gz";
    match run(path, max, Options { keep, compress }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &str, max: u64, options: Options) -> io::Result<()> {
    let mut log = Log::open(path.into(), max, options)?;
    let input = io::stdin();
    let mut piece = vec![0; PIECE];
    loop {
        let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => drop(other?),
        }
        match input.lock().read(&mut piece) {
            Ok(0) => return Ok(()),
            // The container must not wait for a disk that is full.
            Ok(length) => drop(log.write(&piece[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
