//! The task that owns a connection: moves bytes, asks its end what they mean.
//!
//! Reading stops while an event waits for room in the inbox; writing goes on, so that a slow owner
//! never looks like a dead one. The read buffer exists only while a frame is incomplete.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tepui_proto::link::LinkFrame;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::sender::{Backlog, Outbox, Outgoing};
use crate::{CloseReason, Frames};

/// Encoded bytes that may wait for the socket before queued frames are held back.
const OUTPUT_LIMIT: usize = 256 << 10;

/// How much is read at once.
const READ_SIZE: usize = 16 << 10;

/// How long last words may take.
const LINGER: Duration = Duration::from_secs(2);

/// What an end makes of a step.
#[derive(Debug)]
pub(crate) struct Queues<E> {
    /// For the owner, in order.
    pub(crate) events: VecDeque<E>,
    /// For the peer, in order.
    pub(crate) replies: VecDeque<LinkFrame>,
    /// Set when the connection has served its purpose.
    pub(crate) done: Option<CloseReason>,
}

impl<E> Default for Queues<E> {
    fn default() -> Self {
        Self {
            events: VecDeque::new(),
            replies: VecDeque::new(),
            done: None,
        }
    }
}

/// The meaning of frames on one side of the link.
pub(crate) trait End: Send {
    type Event: Send;

    /// A frame came.
    fn receive(&mut self, frame: LinkFrame, now: Instant, queues: &mut Queues<Self::Event>);

    /// A session begins with `hello` (agent only).
    fn open(&mut self, hello: &LinkFrame, backlog: Arc<Backlog>, now: Instant);

    /// A queued frame is about to be written; false drops it, because its session is over.
    fn sending(
        &mut self,
        frame: &LinkFrame,
        now: Instant,
        queues: &mut Queues<Self::Event>,
    ) -> bool;

    /// This end closes a session.
    fn close(&mut self, session: u32, reason: CloseReason, queues: &mut Queues<Self::Event>);

    /// When `wake` wants to be called.
    fn next_wake(&self) -> Option<Instant>;

    /// Time has passed.
    fn wake(&mut self, now: Instant, queues: &mut Queues<Self::Event>);

    /// The connection is over: closes every session.
    fn end(&mut self, reason: &CloseReason, queues: &mut Queues<Self::Event>);
}

/// Receiving side of an [`crate::sender::Outbox`].
#[derive(Debug)]
pub(crate) struct Outgoings {
    frames: mpsc::UnboundedReceiver<Outgoing>,
    overflow: mpsc::UnboundedReceiver<u32>,
}

/// Both sides of what goes out on a connection.
#[expect(
    clippy::disallowed_methods,
    reason = "bounded in bytes by the backlog of each session; an overflow is said once a session"
)]
pub(crate) fn outbox() -> (Outbox, Outgoings) {
    let (frames_out, frames) = mpsc::unbounded_channel();
    let (overflow_out, overflow) = mpsc::unbounded_channel();
    let outbox = Outbox {
        frames: frames_out,
        overflow: overflow_out,
    };
    (outbox, Outgoings { frames, overflow })
}

/// Serves a connection until it ends, then reports the end of all its sessions.
pub(crate) async fn run<S, E>(
    stream: S,
    frames: Frames,
    mut end: E,
    mut outgoings: Outgoings,
    inbox: mpsc::Sender<E::Event>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    E: End,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let mut input = BytesMut::new();
    let mut output = BytesMut::new();
    let mut unflushed = false;
    let mut queues = Queues::default();

    let reason = loop {
        if let Err(reason) = digest(&frames, &mut end, &mut input, &mut queues) {
            break reason;
        }
        for frame in queues.replies.drain(..) {
            put(&frames, &frame, &mut output);
        }
        if let Some(reason) = queues.done.take() {
            break reason;
        }
        let wake = end.next_wake();
        tokio::select! {
            result = write_some(&mut write, &mut output), if unflushed || !output.is_empty() => match result {
                Ok(wrote) => unflushed = wrote,
                Err(error) => break CloseReason::Io(error.to_string()),
            },
            permit = inbox.reserve(), if !queues.events.is_empty() => match permit {
                Ok(permit) => {
                    if let Some(event) = queues.events.pop_front() {
                        permit.send(event);
                    }
                }
                Err(_) => break CloseReason::Local("owner is gone".to_owned()),
            },
            result = read_some(&mut read, &mut input), if queues.events.is_empty() => match result {
                Ok(0) => break CloseReason::Disconnected,
                Ok(_) => {}
                Err(error) => break CloseReason::Io(error.to_string()),
            },
            Some(session) = outgoings.overflow.recv() => {
                end.close(session, CloseReason::Backlog, &mut queues);
            }
            outgoing = outgoings.frames.recv(), if output.len() < OUTPUT_LIMIT => match outgoing {
                Some(outgoing) => {
                    take(outgoing, &frames, &mut end, &mut queues, &mut output);
                    // All that waits goes out in one write.
                    while output.len() < OUTPUT_LIMIT
                        && let Ok(outgoing) = outgoings.frames.try_recv()
                    {
                        take(outgoing, &frames, &mut end, &mut queues, &mut output);
                    }
                }
                None => break CloseReason::Local("no session is left".to_owned()),
            },
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                end.wake(Instant::now(), &mut queues);
            }
        }
    };

    for frame in queues.replies.drain(..) {
        put(&frames, &frame, &mut output);
    }
    end.end(&reason, &mut queues);
    for event in queues.events.drain(..) {
        if inbox.send(event).await.is_err() {
            break;
        }
    }
    // A peer that reads learns why; one that does not is not waited for.
    let _ = timeout(LINGER, async {
        write.write_all_buf(&mut output).await?;
        write.shutdown().await
    })
    .await;
}

/// Hands complete frames to the end until an event waits or none is left.
fn digest<E: End>(
    frames: &Frames,
    end: &mut E,
    input: &mut BytesMut,
    queues: &mut Queues<E::Event>,
) -> Result<(), CloseReason> {
    while queues.events.is_empty() && queues.done.is_none() {
        match frames.take(input) {
            Ok(Some(frame)) => end.receive(frame, Instant::now(), queues),
            Ok(None) => break,
            Err(error) => return Err(CloseReason::Protocol(error.to_string())),
        }
    }
    if input.is_empty() {
        *input = BytesMut::new();
    }
    Ok(())
}

fn take<E: End>(
    outgoing: Outgoing,
    frames: &Frames,
    end: &mut E,
    queues: &mut Queues<E::Event>,
    output: &mut BytesMut,
) {
    match outgoing {
        Outgoing::Open(frame, backlog) => {
            end.open(&frame, backlog, Instant::now());
            put(frames, &frame, output);
        }
        Outgoing::Frame(frame, backlog, size) => {
            backlog.sent(size);
            if end.sending(&frame, Instant::now(), queues) {
                put(frames, &frame, output);
            }
        }
        Outgoing::Close(session, reason) => {
            end.close(session, CloseReason::Local(reason), queues);
        }
    }
}

fn put(frames: &Frames, frame: &LinkFrame, output: &mut BytesMut) {
    if let Err(error) = frames.put(frame, output) {
        tracing::error!(session = frame.session, %error, "frame not sent");
    }
}

/// Writes what the stream takes, or flushes it when all is written; true if a flush is due.
async fn write_some<W: AsyncWrite + Unpin>(
    write: &mut W,
    output: &mut BytesMut,
) -> io::Result<bool> {
    if output.is_empty() {
        write.flush().await?;
        return Ok(false);
    }
    write.write_buf(output).await?;
    Ok(true)
}

/// Reads what there is; the buffer it reads into is on the stack of the poll, not in the future.
async fn read_some<R: AsyncRead + Unpin>(read: &mut R, input: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|context| {
        let mut stack = [MaybeUninit::<u8>::uninit(); READ_SIZE];
        let mut buffer = ReadBuf::uninit(&mut stack);
        Pin::new(&mut *read)
            .poll_read(context, &mut buffer)
            .map_ok(|()| {
                input.extend_from_slice(buffer.filled());
                buffer.filled().len()
            })
    })
    .await
}
