//! RecordIO: records on a stream, each behind its length in decimal and a newline.
//!
//! The scheduler, executor and operator event streams use it, and the agent's container streams.

use bytes::{Bytes, BytesMut};
use prost::Message;

/// Digits in the longest length that fits 64 bits.
const MAX_HEADER: usize = 20;

/// Why a stream cannot be read on. Mesos closes such a stream, or answers 400 with this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The length is not a decimal number.
    #[error("Failed to decode length '{0}': Failed to convert '{0}' to number")]
    Length(String),
    /// No newline within the digits of the longest possible length.
    #[error("Failed to decode length: no newline within {MAX_HEADER} characters")]
    EndlessLength,
    /// The length is more than the reader accepts.
    #[error("record of {length} bytes exceeds the limit of {limit} bytes")]
    TooLong {
        /// Length announced.
        length: u64,
        /// Longest record that the reader accepts.
        limit: usize,
    },
    /// A former call of this decoder failed.
    #[error("Decoder is in a FAILED state")]
    Failed,
}

/// Frames one record.
pub fn encode(record: &[u8]) -> Bytes {
    let mut digits = itoa::Buffer::new();
    let length = digits.format(record.len());
    let mut framed = BytesMut::with_capacity(length.len() + 1 + record.len());
    framed.extend_from_slice(length.as_bytes());
    framed.extend_from_slice(b"\n");
    framed.extend_from_slice(record);
    framed.freeze()
}

/// Frames a message, which is encoded in its place.
pub fn encode_message(message: &impl Message) -> Bytes {
    let mut digits = itoa::Buffer::new();
    let length = message.encoded_len();
    let digits = digits.format(length);
    let mut framed = BytesMut::with_capacity(digits.len() + 1 + length);
    framed.extend_from_slice(digits.as_bytes());
    framed.extend_from_slice(b"\n");
    message.encode(&mut framed).expect("there is room for it");
    framed.freeze()
}

/// Takes records out of a stream that comes in pieces.
///
/// Memory is bounded by the limit plus what was pushed and not taken. After an error the stream's
/// place is lost, so every later call fails too.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// Length of the record that is being read; `None` while the header is.
    length: Option<usize>,
    limit: usize,
    has_failed: bool,
}

impl Decoder {
    /// A decoder that refuses records longer than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            length: None,
            limit,
            has_failed: false,
        }
    }

    /// Adds what came from the stream.
    pub fn push(&mut self, piece: &[u8]) {
        if !self.has_failed {
            self.buffer.extend_from_slice(piece);
        }
    }

    /// The next complete record, or `None` until more is pushed.
    ///
    /// # Errors
    /// A length that is no number or too large; the decoder is of no use after that.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, RecordError> {
        if self.has_failed {
            return Err(RecordError::Failed);
        }
        match self.advance() {
            Ok(record) => Ok(record),
            Err(error) => {
                self.has_failed = true;
                self.buffer = BytesMut::new();
                Err(error)
            }
        }
    }

    /// Whether the stream may end here: no record has been begun.
    pub fn is_between_records(&self) -> bool {
        self.length.is_none() && self.buffer.is_empty()
    }

    fn advance(&mut self) -> Result<Option<Bytes>, RecordError> {
        let length = match self.length {
            Some(length) => length,
            None => {
                let window = &self.buffer[..self.buffer.len().min(MAX_HEADER + 1)];
                let Some(end) = memchr::memchr(b'\n', window) else {
                    let is_endless = window.len() > MAX_HEADER;
                    return if is_endless {
                        Err(RecordError::EndlessLength)
                    } else {
                        Ok(None)
                    };
                };
                let header = self.buffer.split_to(end + 1);
                let length = parse_length(&header[..end], self.limit)?;
                self.length = Some(length);
                length
            }
        };
        if self.buffer.len() < length {
            self.buffer.reserve(length.min(64 * 1024));
            return Ok(None);
        }
        self.length = None;
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

fn parse_length(header: &[u8], limit: usize) -> Result<usize, RecordError> {
    let text = String::from_utf8_lossy(header);
    if header.is_empty() || !header.iter().all(u8::is_ascii_digit) {
        return Err(RecordError::Length(text.into_owned()));
    }
    let length: u64 = text
        .parse()
        .map_err(|_| RecordError::Length(text.into_owned()))?;
    usize::try_from(length)
        .ok()
        .filter(|&length| length <= limit)
        .ok_or(RecordError::TooLong { length, limit })
}
