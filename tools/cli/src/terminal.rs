//! The terminal of this process.

use std::io::stdin;

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tepui_proto::v1::tty_info::WindowSize;

/// Its size in characters; none when standard input is no terminal.
pub(crate) fn size() -> Option<WindowSize> {
    let (width, height) = terminal_size::terminal_size_of(stdin())?;
    Some(WindowSize {
        rows: height.0.into(),
        columns: width.0.into(),
    })
}

/// The terminal hands on every key as it is typed, until this is dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Changes the terminal.
    pub(crate) fn enter() -> Result<Self> {
        let before = tcgetattr(stdin()).context("the terminal cannot be read")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).context("the terminal cannot be changed")?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing is left to do when the terminal is gone.
        let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, &self.before);
    }
}
