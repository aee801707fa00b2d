//! A long answer as its reader's connection sees it.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Part;

/// Pieces that are sent before other connections have their turn.
const IN_A_ROW: u32 = 4;

/// The writer of an answer failed. The connection ends without the end of the body, so that the client
/// does not take it for a whole one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer was not written to its end")]
pub struct Unfinished;

/// A long body on its way.
#[derive(Debug)]
pub struct Written {
    parts: mpsc::Receiver<Part>,
    /// Pieces that came together, and how many of them are sent.
    batch: Arc<[Bytes]>,
    taken: usize,
    /// Pieces sent since the last pause.
    in_a_row: u32,
}

impl Written {
    pub(super) fn new(parts: mpsc::Receiver<Part>) -> Self {
        Self {
            parts,
            batch: Arc::new([]),
            taken: 0,
            in_a_row: 0,
        }
    }

    /// The next piece; none at the end.
    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Unfinished>>> {
        if self.in_a_row == IN_A_ROW {
            self.in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.in_a_row += 1;
        loop {
            if let Some(piece) = self.batch.get(self.taken) {
                self.taken += 1;
                return Poll::Ready(Some(Ok(piece.clone())));
            }
            match ready!(self.parts.poll_recv(cx)) {
                Some(Part::Pieces(batch)) => (self.batch, self.taken) = (batch, 0),
                Some(Part::End) => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(Unfinished))),
            }
        }
    }
}
