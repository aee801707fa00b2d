//! Standard input that an agent sends, and terminals: what the supervisor keeps of them.
//!
//! Output goes to files, also a terminal's, which is copied there. So nobody has to be attached, and who is reads the
//! files.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    pty::{Winsize, openpty},
    unistd::pipe2,
};
use tepui_init::{Input, LaunchSpec};

use crate::first;

/// What a terminal takes for the end of its input.
const END_OF_INPUT: u8 = 4;

/// The supervisor's ends.
#[derive(Default)]
pub(crate) struct Streams {
    /// The writing end of the command's standard input, or its terminal.
    input: Option<File>,
    /// Where a terminal's output goes, as long as it can be read.
    log: Option<File>,
    is_terminal: bool,
    /// Sent and not taken by the command yet.
    pending: Vec<u8>,
    /// Somebody waits until it is.
    waited_for: bool,
    /// Nothing follows what is pending.
    closing: bool,
}

impl Streams {
    /// The supervisor's ends, and what becomes the command's standard input; none for /dev/null.
    pub(crate) fn open(spec: &LaunchSpec) -> Result<(Self, Option<OwnedFd>), String> {
        let bad = |error: io::Error| format!("failed to make standard input: {error}");
        match spec.input {
            Input::Nothing => Ok((Self::default(), None)),
            Input::Pipe => {
                let (theirs, ours) = pipe2(OFlag::O_CLOEXEC).map_err(|e| bad(e.into()))?;
                unblock(&ours).map_err(bad)?;
                let streams = Self {
                    input: Some(ours.into()),
                    ..Self::default()
                };
                Ok((streams, Some(theirs)))
            }
            Input::Terminal { rows, columns } => {
                let size = size(rows, columns);
                let pair = openpty(Some(&size), None).map_err(|e| bad(e.into()))?;
                for end in [&pair.master, &pair.slave] {
                    fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|e| bad(e.into()))?;
                }
                unblock(&pair.master).map_err(bad)?;
                if let Some(user) = &spec.user {
                    std::os::unix::fs::fchown(&pair.slave, Some(user.uid), None).map_err(bad)?;
                }
                let streams = Self {
                    input: Some(pair.master.into()),
                    log: Some(first::open_log(&spec.stdout, spec)?),
                    is_terminal: true,
                    ..Self::default()
                };
                Ok((streams, Some(pair.slave)))
            }
        }
    }

    /// To be waited on for output of a terminal.
    pub(crate) fn output(&self) -> Option<BorrowedFd<'_>> {
        self.log.as_ref().and(self.input.as_ref()).map(AsFd::as_fd)
    }

    /// To be waited on until the command takes more.
    pub(crate) fn full(&self) -> Option<BorrowedFd<'_>> {
        let input = self.input.as_ref().filter(|_| !self.pending.is_empty());
        input.map(AsFd::as_fd)
    }

    /// Copies what a terminal has said to its log.
    pub(crate) fn copy(&mut self) {
        let (Some(terminal), Some(log)) = (&mut self.input, &mut self.log) else {
            return;
        };
        let mut buffer = [0; 16 << 10];
        loop {
            match terminal.read(&mut buffer) {
                // A full disk must not stop the command.
                Ok(length) if length > 0 => drop(log.write_all(&buffer[..length])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Nobody has it open any more.
                Ok(_) | Err(_) => break,
            }
        }
        self.log = None;
    }

    /// Takes input; empty is its end. [`Self::write`] says when the command has taken it.
    pub(crate) fn send(&mut self, bytes: Vec<u8>) {
        self.waited_for = true;
        if !bytes.is_empty() {
            self.pending.extend(bytes);
        } else if self.is_terminal {
            self.pending.push(END_OF_INPUT);
        } else {
            self.closing = true;
        }
    }

    /// Hands input on; true when somebody who waits can be told that it was taken.
    pub(crate) fn write(&mut self) -> bool {
        while let Some(input) = &mut self.input
            && !self.pending.is_empty()
        {
            match input.write(&self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) if self.is_terminal => self.pending.clear(),
                // Nobody reads it.
                Err(_) => self.input = None,
            }
        }
        if self.closing || self.input.is_none() {
            self.pending.clear();
            self.input = self.input.take().filter(|_| self.is_terminal);
        }
        std::mem::take(&mut self.waited_for)
    }

    /// Sets the size of a terminal.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        if let Some(terminal) = self.input.as_ref().filter(|_| self.is_terminal) {
            let size = size(rows, columns);
            // SAFETY: `size` outlives the call, which only reads it; the descriptor is open.
            unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        }
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn unblock(fd: &OwnedFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(io::Error::from)?;
    Ok(())
}
