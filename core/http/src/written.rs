//! Large answers: written on a thread that may take its time, and sent while they are written.
//!
//! An answer that turns out short is sent whole, with its length, as Mesos sends every answer. A long
//! one is sent in chunks: its first byte leaves long before its last is written, and no more of it
//! than a few pieces is ever in memory.
//!
//! Large answers must not keep the processors from everything else, however many are asked for at once:
//! few are written at a time, in turns of a piece, and none is sent for long without a pause in which
//! other connections are served.

use std::collections::VecDeque;
use std::io::Write;
use std::pin::Pin;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::response::Body;

/// An answer of at least this many bytes is sent in chunks.
const LONG: usize = 256 * 1024;

/// Pieces that are written ahead of the client.
const AHEAD: usize = 16;

/// Pieces that are sent before other connections have their turn.
const IN_A_ROW: u32 = 4;

/// Who may write: half of the processors, so that the other half is left for those who answer calls.
static TURNS: LazyLock<Turns> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Turns::new((processors / 2).max(1))
});

/// A number of turns, each had by one writer at a time.
struct Turns {
    free: Mutex<usize>,
    returned: Condvar,
}

impl Turns {
    fn new(free: usize) -> Self {
        Self {
            free: Mutex::new(free),
            returned: Condvar::new(),
        }
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().expect("no panic happens under this lock")
    }

    /// Waits for a turn.
    fn take(&self) -> Turn<'_> {
        let free = self.returned.wait_while(self.free(), |free| *free == 0);
        *free.expect("no panic happens under this lock") -= 1;
        Turn(self)
    }
}

/// The right to write, until it is dropped.
struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free() += 1;
        self.0.returned.notify_one();
    }
}

/// Runs `encode`, which gives the pieces of a body in order to its argument.
pub(crate) async fn body(encode: impl FnOnce(&mut dyn FnMut(Bytes)) + Send + 'static) -> Body {
    let (sender, mut pieces) = mpsc::channel(AHEAD);
    let writer = tokio::task::spawn_blocking(move || {
        let mut turn = Some(TURNS.take());
        encode(&mut |piece| {
            // A client that does not read holds nobody else up.
            turn.take();
            // An error means that the client has gone; what else is written goes nowhere.
            let _ = sender.blocking_send(piece);
            turn = Some(TURNS.take());
        });
    });
    let (mut begun, mut length) = (VecDeque::new(), 0);
    while let Some(piece) = pieces.recv().await {
        length += piece.len();
        begun.push_back(piece);
        if length >= LONG {
            return Body::Written(Written {
                begun,
                rest: pieces,
                writer,
                gzip: None,
                ended: false,
                in_a_row: 0,
            });
        }
    }
    writer.await.expect("encoders do not panic");
    Body::Full(begun.into())
}

/// A long body on its way.
#[derive(Debug)]
pub struct Written {
    begun: VecDeque<Bytes>,
    rest: mpsc::Receiver<Bytes>,
    writer: JoinHandle<()>,
    gzip: Option<GzEncoder<Vec<u8>>>,
    ended: bool,
    /// Pieces sent since the last pause.
    in_a_row: u32,
}

impl Written {
    /// Compresses what is sent.
    pub(crate) fn compress(&mut self) {
        self.gzip = Some(GzEncoder::new(Vec::new(), Compression::new(6)));
    }

    /// The next piece; none at the end. A body that breaks off panics, which ends the connection: the
    /// client must not take it for a whole one.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.in_a_row == IN_A_ROW {
            self.in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.in_a_row += 1;
        while !self.ended {
            let piece = match self.begun.pop_front() {
                Some(piece) => Some(piece),
                None => ready!(self.rest.poll_recv(cx)),
            };
            let Some(piece) = piece else {
                let written = ready!(Pin::new(&mut self.writer).poll(cx));
                written.expect("encoders do not panic");
                self.ended = true;
                let last = self.gzip.take().map(GzEncoder::finish);
                let last = last.map(|last| last.expect("writing to memory cannot fail"));
                return Poll::Ready(last.map(Bytes::from));
            };
            let Some(gzip) = &mut self.gzip else {
                return Poll::Ready(Some(piece));
            };
            gzip.write_all(&piece)
                .expect("writing to memory cannot fail");
            if !gzip.get_ref().is_empty() {
                return Poll::Ready(Some(std::mem::take(gzip.get_mut()).into()));
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read;

    use super::*;

    async fn collect(mut written: Written) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(piece) = poll_fn(|cx| written.poll_piece(cx)).await {
            assert!(!piece.is_empty());
            all.extend_from_slice(&piece);
        }
        all
    }

    fn numbers(n: u64) -> Vec<u8> {
        (0..n).flat_map(u64::to_le_bytes).collect()
    }

    /// Writes them in pieces of a kilobyte.
    fn write(whole: Vec<u8>) -> impl FnOnce(&mut dyn FnMut(Bytes)) + Send + 'static {
        move |sink| {
            for piece in whole.chunks(1024) {
                sink(Bytes::copy_from_slice(piece));
            }
        }
    }

    #[tokio::test]
    async fn a_short_body_has_a_length_and_a_long_one_is_sent_as_it_is_written() {
        let whole = numbers(10_000);
        let Body::Full(pieces) = body(write(whole.clone())).await else {
            panic!("80 kB are short");
        };
        assert_eq!(pieces.concat(), whole);

        for compressed in [false, true] {
            let whole = numbers(100_000);
            let Body::Written(mut written) = body(write(whole.clone())).await else {
                panic!("800 kB are long");
            };
            assert!(!written.writer.is_finished(), "it waits for its reader");
            if compressed {
                written.compress();
            }
            let mut sent = collect(written).await;
            if compressed {
                assert!(sent.len() < whole.len());
                let mut plain = Vec::new();
                let mut decoder = flate2::read::GzDecoder::new(&*sent);
                decoder.read_to_end(&mut plain).expect("gzip");
                sent = plain;
            }
            assert!(sent == whole);
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_does_not_end_in_good_order() {
        let encode = |sink: &mut dyn FnMut(Bytes)| {
            sink(vec![0; LONG].into());
            panic!("planted");
        };
        let Body::Written(written) = body(encode).await else {
            panic!("it is long");
        };
        let ended = tokio::spawn(collect(written)).await;
        assert!(ended.is_err_and(|error| error.is_panic()));
    }
}
