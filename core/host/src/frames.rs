//! Frames between the daemon and `tepui-module-host`: the three tables over a byte stream.
//!
//! A frame is a length, a fixed head and bytes. Both ends are of one release (they are installed
//! together, and the first frame names the version), so the head has no room for growth.

use std::io::{self, Read, Write};

/// Version of the frames; the first frame of the child carries it as its call number.
pub(crate) const VERSION: u64 = 1;
/// Larger frames are refused: a damaged length must not allocate gigabytes.
const MOST: usize = 256 << 20;
const HEAD: usize = 1 + 4 + 8 + 4 + 8;

/// What a frame is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    // To the child.
    /// `create` as instance `instance`; bytes are the request.
    Create = 1,
    /// `call`, answered by `Reply`.
    Call,
    /// `start`, answered by `Reply`.
    Start,
    /// `cancel`.
    Cancel,
    /// `release`.
    Release,
    // To the daemon.
    /// The library is open; bytes are its manifest.
    Loaded,
    /// The library is refused; bytes are a text.
    Refused,
    /// Answer to `Create`: `number` is the code.
    Created,
    /// Answer to `Call` or `Start`: `number` is the code.
    Reply,
    /// The host's `call`: `number` is the method.
    Host,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        const ALL: [Kind; 10] = [
            Kind::Create,
            Kind::Call,
            Kind::Start,
            Kind::Cancel,
            Kind::Release,
            Kind::Loaded,
            Kind::Refused,
            Kind::Created,
            Kind::Reply,
            Kind::Host,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) instance: u32,
    pub(crate) call: u64,
    /// Method, or code of an answer.
    pub(crate) number: u32,
    pub(crate) timeout_ms: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: Kind, instance: u32, call: u64, number: u32, bytes: Vec<u8>) -> Self {
        Frame {
            kind,
            instance,
            call,
            number,
            timeout_ms: 0,
            bytes,
        }
    }

    /// Writes the frame in one piece.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(4 + HEAD + self.bytes.len());
        let length = u32::try_from(HEAD + self.bytes.len())
            .map_err(|_| io::Error::other("the message is too large for a frame"))?;
        buffer.extend(length.to_le_bytes());
        buffer.push(self.kind as u8);
        buffer.extend(self.instance.to_le_bytes());
        buffer.extend(self.call.to_le_bytes());
        buffer.extend(self.number.to_le_bytes());
        buffer.extend(self.timeout_ms.to_le_bytes());
        buffer.extend(&self.bytes);
        out.write_all(&buffer)
    }

    /// Reads the next frame; none at the end of the stream.
    pub(crate) fn read(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; 4 + HEAD];
        match input.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let u32_at =
            |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let u64_at =
            |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let damaged = || io::Error::other("damaged frame");
        let length = (u32_at(0) as usize)
            .checked_sub(HEAD)
            .filter(|n| *n <= MOST)
            .ok_or_else(damaged)?;
        let kind = Kind::of(head[4]).ok_or_else(damaged)?;
        let mut bytes = vec![0; length];
        input.read_exact(&mut bytes)?;
        Ok(Some(Frame {
            kind,
            instance: u32_at(5),
            call: u64_at(9),
            number: u32_at(17),
            timeout_ms: u64_at(21),
            bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_damaged_ones_are_refused() {
        let frame = Frame {
            timeout_ms: 7,
            ..Frame::new(Kind::Start, 3, 1 << 40, 17, b"abc".to_vec())
        };
        let mut bytes = Vec::new();
        frame.write(&mut bytes).unwrap();
        Frame::new(Kind::Cancel, 3, 9, 0, vec![])
            .write(&mut bytes)
            .unwrap();
        let mut input = bytes.as_slice();
        assert_eq!(Frame::read(&mut input).unwrap(), Some(frame));
        assert_eq!(Frame::read(&mut input).unwrap().unwrap().kind, Kind::Cancel);
        assert_eq!(Frame::read(&mut input).unwrap(), None);
        bytes[4] = 99;
        assert!(Frame::read(&mut bytes.as_slice()).is_err());
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Frame::read(&mut bytes.as_slice()).is_err());
    }
}
