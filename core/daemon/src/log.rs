//! Log lines on their way out.
//!
//! A thread of its own writes them, a hundredth of a second's together, so that no request waits for a
//! terminal, a pipe or a disk. What comes faster than it can be written is left out and counted, and the
//! log says how much that was.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// Bytes that may wait to be written.
const LIMIT: usize = 4 << 20;

/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(10);

/// How long the end of a daemon waits for the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where lines are put; each write is a whole line.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Lines left out since the last write.
    lost: u64,
    /// The daemon ends.
    closed: bool,
    /// All is written, and no more will be.
    done: bool,
}

impl Lines {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .expect("no panic happens under this lock")
    }

    /// Writes what comes until the end. What cannot be written is gone: there is nobody to tell.
    fn write_to(&self, mut out: impl io::Write) {
        let mut spare = Vec::new();
        loop {
            let waiting = self.waiting();
            let idle = |waiting: &mut Waiting| waiting.bytes.is_empty() && !waiting.closed;
            let waiting = self.changed.wait_while(waiting, idle);
            let waiting = waiting.expect("no panic happens under this lock");
            let gathered = self
                .changed
                .wait_timeout_while(waiting, GATHER, |waiting| !waiting.closed);
            let (mut waiting, _) = gathered.expect("no panic happens under this lock");
            std::mem::swap(&mut waiting.bytes, &mut spare);
            let lost = std::mem::take(&mut waiting.lost);
            if spare.is_empty() && waiting.closed {
                waiting.done = true;
                drop(waiting);
                return self.changed.notify_all();
            }
            drop(waiting);
            let _ = out.write_all(&spare);
            if lost > 0 {
                let _ = writeln!(
                    out,
                    "{lost} lines of the log are lost: they came faster than they could be written"
                );
            }
            let _ = out.flush();
            spare.clear();
            // After a flood the memory goes back.
            spare.shrink_to(64 << 10);
        }
    }
}

impl io::Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.waiting();
        if waiting.bytes.len() + line.len() > LIMIT {
            waiting.lost += 1;
        } else {
            if waiting.bytes.is_empty() {
                self.changed.notify_all();
            }
            waiting.bytes.extend_from_slice(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The threads that write; dropping it waits a while for what is not written yet.
#[derive(Debug, Default)]
pub(crate) struct Writers(Vec<Arc<Lines>>);

impl Writers {
    /// Starts a thread that writes to `out`.
    pub(crate) fn add(&mut self, out: impl io::Write + Send + 'static) -> io::Result<Arc<Lines>> {
        let lines = Arc::<Lines>::default();
        let own = Arc::clone(&lines);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || own.write_to(out))?;
        self.0.push(Arc::clone(&lines));
        Ok(lines)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for lines in &self.0 {
            let mut waiting = lines.waiting();
            waiting.closed = true;
            lines.changed.notify_all();
            let ended = lines
                .changed
                .wait_timeout_while(waiting, LAST_WORDS, |waiting| !waiting.done);
            drop(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_reader_that_stops_holds_nobody_up_and_learns_what_it_missed() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut writers = Writers::default();
        let lines = writers.add(writer).unwrap();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        // Twice of what may wait, and nobody reads: the pipe itself takes little.
        let sent = 2 * LIMIT / line.len();
        for _ in 0..sent {
            (&*lines).write_all(&line).unwrap();
        }
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        drop((writers, lines));
        let text = reading.join().unwrap().unwrap();
        let (whole, told): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with('x'));
        assert!(whole.iter().all(|line| line.len() == 1023));
        assert!(whole.len() >= LIMIT / line.len() - 1);
        let lost: usize = told
            .iter()
            .filter_map(|line| line.split(' ').next()?.parse::<usize>().ok())
            .sum();
        assert_eq!(whole.len() + lost, sent);
    }
}
