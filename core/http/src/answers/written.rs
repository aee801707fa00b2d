//! A long answer as its reader's connection sees it.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Part;

/// Pieces that are sent before other connections have their turn.
const IN_A_ROW: u32 = 1;

/// The writer of an answer failed. The connection ends without the end of the body, so that the client
/// does not take it for a whole one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer was not written to its end")]
pub struct Unfinished;

/// A long body on its way.
#[derive(Debug)]
pub struct Written {
    parts: mpsc::Receiver<Part>,
    /// Pieces sent since the last pause.
    in_a_row: u32,
}

impl Written {
    pub(super) fn new(parts: mpsc::Receiver<Part>) -> Self {
        Self { parts, in_a_row: 0 }
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
        Poll::Ready(match ready!(self.parts.poll_recv(cx)) {
            Some(Part::Piece(piece)) => Some(Ok(piece)),
            Some(Part::End) => None,
            None => Some(Err(Unfinished)),
        })
    }
}
