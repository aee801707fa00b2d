//! Streamed bodies that are bounded in bytes.
//!
//! A sender never waits: what the client has not read yet is counted. A burst (the first offers of a
//! large cluster) may put any client far behind for a while, so being behind is no fault by itself: a
//! client is cut off when more than the limit waits for it and the oldest of that has waited too long,
//! or when [`BURST`] times the limit waits. Its connection ends with it, since a stream with a hole in
//! it would be worse than none.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Bytes that a client may be behind for long.
pub const STREAM_LIMIT: usize = 8 * 1024 * 1024;

/// How long a piece may wait while more than the limit does. A client that takes the limit in this
/// time is never cut off for being slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// More than this many times the limit is never kept.
const BURST: usize = 32;

/// Why a piece could not be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The client was too far behind; its connection has been closed.
    #[error("reader is too far behind")]
    Slow,
    /// The client has gone, or the stream was closed before.
    #[error("stream is closed")]
    Closed,
}

/// A stream with [`STREAM_LIMIT`].
pub fn stream() -> (StreamSender, StreamBody) {
    bounded(STREAM_LIMIT)
}

/// A stream whose client may be `limit` bytes behind for long. A single piece may be larger than that.
pub fn bounded(limit: usize) -> (StreamSender, StreamBody) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        limit,
        gone: CancellationToken::new(),
    });
    (
        StreamSender {
            shared: Arc::clone(&shared),
        },
        StreamBody { shared },
    )
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    limit: usize,
    /// Cancelled when the stream is over, whoever ended it.
    gone: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// Pieces, and since when they wait.
    queue: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    ended: bool,
    waker: Option<Waker>,
    /// Closes the connection at once.
    connection: Option<CancellationToken>,
}

impl State {
    /// Whether a client for which a piece of `more` bytes waits as well is too far behind.
    fn is_too_slow(&self, more: usize, limit: usize) -> bool {
        let behind = self.bytes + more;
        let Some((since, _)) = self.queue.front() else {
            return false;
        };
        behind > limit && (behind > limit * BURST || since.elapsed() > PATIENCE)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic happens under this lock")
    }
}

/// The writing end. When it is dropped the stream ends in good order.
#[derive(Debug)]
pub struct StreamSender {
    shared: Arc<Shared>,
}

impl StreamSender {
    /// Queues a piece. Never waits; after an error every later call fails, too.
    pub fn send(&self, piece: Bytes) -> Result<(), StreamError> {
        let mut state = self.shared.state();
        if state.ended || self.shared.gone.is_cancelled() {
            return Err(StreamError::Closed);
        }
        if state.is_too_slow(piece.len(), self.shared.limit) {
            state.ended = true;
            state.queue.clear();
            if let Some(connection) = state.connection.take() {
                connection.cancel();
            }
            self.shared.gone.cancel();
            return Err(StreamError::Slow);
        }
        state.bytes += piece.len();
        state.queue.push_back((Instant::now(), piece));
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    /// Bytes that the client has not taken yet.
    pub fn backlog(&self) -> usize {
        self.shared.state().bytes
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.shared.gone.is_cancelled()
    }

    /// Cancelled when nobody reads any more: the client went away or was cut off.
    pub fn gone(&self) -> CancellationToken {
        self.shared.gone.clone()
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.ended = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

/// The reading end, given to [`crate::Response::stream`].
#[derive(Debug)]
pub struct StreamBody {
    shared: Arc<Shared>,
}

impl StreamBody {
    /// Names the connection that a cut-off closes. A cut-off that has happened already counts.
    pub(crate) fn on_connection(&self, connection: CancellationToken) {
        if self.shared.gone.is_cancelled() {
            connection.cancel();
        }
        self.shared.state().connection = Some(connection);
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut state = self.shared.state();
        if let Some((_, piece)) = state.queue.pop_front() {
            state.bytes -= piece.len();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        self.shared.gone.cancel();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn pieces_arrive_and_the_end_is_seen() {
        let (sender, mut body) = bounded(8);
        sender.send(Bytes::from_static(b"one")).unwrap();
        sender.send(Bytes::from_static(b"two")).unwrap();
        assert_eq!(sender.backlog(), 6);
        drop(sender);
        let mut got = Vec::new();
        while let Some(frame) = body.frame().await {
            got.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
        assert_eq!(got, b"onetwo");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_goes_on_is_not_cut_off_and_one_that_stops_is() {
        let (sender, mut body) = bounded(8);
        let connection = CancellationToken::new();
        body.on_connection(connection.clone());
        // A burst far above the limit, read slowly.
        for _ in 0..BURST {
            sender.send(Bytes::from_static(b"12345678")).unwrap();
        }
        for _ in 1..BURST {
            body.frame().await.unwrap().unwrap();
        }
        tokio::time::advance(2 * PATIENCE).await;
        assert_eq!(sender.backlog(), 8, "no more than the limit may wait long");
        sender.send(Bytes::new()).unwrap();
        assert_eq!(
            sender.send(Bytes::from_static(b"9")),
            Err(StreamError::Slow)
        );
        assert_eq!(
            sender.send(Bytes::from_static(b"1")),
            Err(StreamError::Closed)
        );
        assert!(connection.is_cancelled());
        sender.gone().cancelled().await;
    }

    #[tokio::test]
    async fn what_waits_is_bounded_however_quickly_it_came() {
        let (sender, _body) = bounded(8);
        for _ in 0..BURST {
            sender.send(Bytes::from_static(b"12345678")).unwrap();
        }
        assert_eq!(
            sender.send(Bytes::from_static(b"1")),
            Err(StreamError::Slow)
        );
    }

    #[tokio::test]
    async fn the_sender_learns_that_the_reader_left() {
        let (sender, body) = stream();
        drop(body);
        sender.gone().cancelled().await;
        assert_eq!(
            sender.send(Bytes::from_static(b"1")),
            Err(StreamError::Closed)
        );
    }
}
