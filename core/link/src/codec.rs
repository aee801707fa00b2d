//! Frames: a big-endian length and one `LinkFrame`.

use bytes::{Buf, BufMut, BytesMut};
use prost::Message;
use tepui_proto::link::LinkFrame;
use tokio_util::codec::{Decoder, Encoder};

use crate::{FRAME_LIMIT, LinkError};

const PREFIX: usize = size_of::<u32>();

/// Codec of link frames; works on its own and under `tokio_util::codec::Framed`.
#[derive(Clone, Debug)]
pub struct Frames {
    limit: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self { limit: FRAME_LIMIT }
    }
}

impl Frames {
    /// A codec that refuses frames longer than `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self { limit }
    }

    /// Takes the next frame from the front of `buffer`, or `None` when it is not complete yet.
    pub fn take(&self, buffer: &mut BytesMut) -> Result<Option<LinkFrame>, LinkError> {
        let Some(prefix) = buffer.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > self.limit {
            return Err(LinkError::FrameTooLong {
                length,
                limit: self.limit,
            });
        }
        if buffer.len() < PREFIX + length {
            // Room for the rest of this frame only: the length is bounded by the limit.
            buffer.reserve(PREFIX + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(PREFIX);
        let frame = buffer.split_to(length).freeze();
        LinkFrame::decode(frame)
            .map(Some)
            .map_err(|error| LinkError::Undecodable(error.to_string()))
    }

    /// Appends `frame` to `buffer`.
    pub fn put(&self, frame: &LinkFrame, buffer: &mut BytesMut) -> Result<(), LinkError> {
        let length = frame.encoded_len();
        if length > self.limit {
            return Err(LinkError::FrameTooLong {
                length,
                limit: self.limit,
            });
        }
        buffer.reserve(PREFIX + length);
        buffer.put_u32(length as u32);
        frame.encode(buffer).expect("the buffer grows");
        Ok(())
    }
}

/// An error of the codec or of the stream below it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FramesError {
    /// The bytes are no frames.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Decoder for Frames {
    type Item = LinkFrame;
    type Error = FramesError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<LinkFrame>, FramesError> {
        Ok(self.take(buffer)?)
    }
}

impl Encoder<LinkFrame> for Frames {
    type Error = FramesError;

    fn encode(&mut self, frame: LinkFrame, buffer: &mut BytesMut) -> Result<(), FramesError> {
        Ok(self.put(&frame, buffer)?)
    }
}
