//! Reading request bodies: up to a limit each, up to a budget together, and not for ever.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::response::Response;

/// The budget is kept in units of so many bytes.
const UNIT: usize = 1024;

/// How much, and how long, a refused client may still send before it is cut off.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// What all bodies that are being read or answered may take together.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Budget {
        Budget {
            units: Arc::new(Semaphore::new(bytes / UNIT)),
        }
    }
}

/// A body in memory, and its part of the budget.
pub(super) struct Read {
    pub(super) bytes: Bytes,
    pub(super) taken: Option<OwnedSemaphorePermit>,
}

/// Reads a body. The error is the answer.
pub(super) async fn read(
    mut body: Incoming,
    limit: usize,
    idle: Duration,
    budget: &Budget,
) -> Result<Read, Box<Response>> {
    let read = collect(&mut body, limit, idle, budget).await;
    if read.is_err() {
        // Closing with unread bytes would reset the connection before the client has read the answer.
        let _ = timeout(LINGER, discard(&mut body)).await;
    }
    read
}

/// Forgets what comes.
async fn discard(body: &mut Incoming) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        if length >= left {
            return;
        }
        left -= length;
    }
}

async fn collect(
    body: &mut Incoming,
    limit: usize,
    idle: Duration,
    budget: &Budget,
) -> Result<Read, Box<Response>> {
    let refused = |status| Err(Box::new(Response::standard(status)));
    if body.size_hint().lower() > limit as u64 {
        return refused(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let mut taken: Option<OwnedSemaphorePermit> = None;
    let mut whole = BytesMut::new();
    let mut first = Bytes::new();
    loop {
        let frame = match timeout(idle, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(_))) => {
                let text = "Failed to read the request body";
                return Err(Box::new(Response::bad_request(text)));
            }
            Err(_) => return refused(StatusCode::REQUEST_TIMEOUT),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let length = first.len() + whole.len() + data.len();
        if length > limit {
            return refused(StatusCode::PAYLOAD_TOO_LARGE);
        }
        grow(&mut taken, length, budget)?;
        // Most bodies come in one piece, which is not copied.
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&data);
    }
    let bytes = if whole.is_empty() {
        first
    } else {
        whole.freeze()
    };
    Ok(Read { bytes, taken })
}

/// Takes what is missing for so many bytes out of the budget.
fn grow(
    taken: &mut Option<OwnedSemaphorePermit>,
    length: usize,
    budget: &Budget,
) -> Result<(), Box<Response>> {
    let have = taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let missing = length.div_ceil(UNIT).saturating_sub(have);
    if missing == 0 {
        return Ok(());
    }
    let missing = u32::try_from(missing).unwrap_or(u32::MAX);
    // Waiting could last for ever: those that have a part wait for more.
    let Ok(more) = Arc::clone(&budget.units).try_acquire_many_owned(missing) else {
        let text = "Too much is being sent at once";
        return Err(Box::new(Response::unavailable(text).retry_after(1)));
    };
    match taken {
        Some(taken) => taken.merge(more),
        None => *taken = Some(more),
    }
    Ok(())
}
