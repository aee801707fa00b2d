//! Short writes of one poll in one system call.
//!
//! Requests that a client sends one behind the other, without waiting for answers (as Mesos' own scheduler library
//! does), are read together and mostly answered in one poll of the connection. A write for each answer would cost more
//! than the answer. What is short is kept until [`Flusher::flush`] at the end of the poll; what is long goes out at
//! once, behind what is kept.
//!
//! `pipeline_flush` of hyper is not for this server: with it an answer waits as long as any byte of the next request has
//! been read (half a head, or a request behind a SUBSCRIBE whose stream never ends), bodies are copied, and
//! `can_buffer` is always true, so that a large answer is taken into memory however slowly its client reads.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are kept at most.
const KEPT: usize = 16 * 1024;

/// A socket whose short writes are kept, and the one who sends them.
pub(super) fn gather<S: AsyncRead + AsyncWrite>(socket: S) -> (Gathered<S>, Flusher<S>) {
    let shared = Arc::new(Mutex::new(Shared {
        socket: Box::pin(socket),
        kept: BytesMut::new(),
        passing: false,
    }));
    (Gathered(Arc::clone(&shared)), Flusher(shared))
}

struct Shared<S> {
    socket: Pin<Box<S>>,
    kept: BytesMut,
    /// Nobody flushes at the end of a poll any more.
    passing: bool,
}

impl<S: AsyncWrite> Shared<S> {
    /// Whether a write of this length is kept.
    fn keeps(&self, length: usize) -> bool {
        !self.passing && self.kept.len() + length <= KEPT
    }

    /// Hands all that is kept to the socket.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let sent = ready!(self.socket.as_mut().poll_write(cx, &self.kept))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.advance(sent);
        }
        // An idle connection keeps no buffer.
        self.kept = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

fn lock<S>(shared: &Mutex<Shared<S>>) -> MutexGuard<'_, Shared<S>> {
    shared.lock().expect("no panic happens under this lock")
}

/// The stream that the connection works with.
pub(super) struct Gathered<S>(Arc<Mutex<Shared<S>>>);

/// Sends what was kept.
pub(super) struct Flusher<S>(Arc<Mutex<Shared<S>>>);

impl<S: AsyncWrite> Flusher<S> {
    /// At the end of each poll. While the socket takes no more, the task is woken when it does.
    pub(super) fn flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).drain(cx)
    }

    /// From now on nothing is kept: an upgraded connection is polled by others.
    pub(super) fn pass(&self) {
        lock(&self.0).passing = true;
    }
}

impl<S: AsyncRead> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        lock(&self.0).socket.as_mut().poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut shared = lock(&self.0);
        if shared.keeps(bytes.len()) {
            shared.kept.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(shared.drain(cx))?;
        shared.socket.as_mut().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = lock(&self.0);
        let length = parts.iter().map(|part| part.len()).sum();
        if shared.keeps(length) {
            for part in parts {
                shared.kept.extend_from_slice(part);
            }
            return Poll::Ready(Ok(length));
        }
        ready!(shared.drain(cx))?;
        shared.socket.as_mut().poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.0).socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        if shared.passing {
            ready!(shared.drain(cx))?;
        }
        shared.socket.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        ready!(shared.drain(cx))?;
        shared.socket.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// What was written, write by write.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

    impl AsyncRead for Writes {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Writes {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.lock().unwrap().push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn short_writes_go_out_together_and_in_order() {
        let writes = Writes::default();
        let seen = || std::mem::take(&mut *writes.0.lock().unwrap());
        let (mut socket, flusher) = gather(writes.clone());
        let flush = async || std::future::poll_fn(|cx| flusher.flush(cx)).await.unwrap();
        for answer in [b"one", b"two"] {
            socket.write_all(answer).await.unwrap();
            socket.flush().await.unwrap();
        }
        assert_eq!(seen(), Vec::<Vec<u8>>::new(), "the poll is not over");
        flush().await;
        assert_eq!(seen(), [b"onetwo"]);
        flush().await;
        assert_eq!(seen(), Vec::<Vec<u8>>::new());

        let long = vec![b'x'; KEPT + 1];
        socket.write_all(b"three").await.unwrap();
        socket.write_all(&long).await.unwrap();
        assert_eq!(seen(), [b"three".to_vec(), long], "order is kept");

        socket.write_all(b"101").await.unwrap();
        flusher.pass();
        socket.write_all(b"frame").await.unwrap();
        assert_eq!(seen(), [b"101".to_vec(), b"frame".to_vec()]);
        socket.write_all(b"another").await.unwrap();
        assert_eq!(seen(), [b"another"], "nobody else would send it");
    }
}
