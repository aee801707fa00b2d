//! Frames: u32 length (little endian) of what follows, u8 kind, body.

use crate::{LaunchSpec, spec};

/// Longest frame that is taken, length field excluded. A launch carries a whole environment.
pub const MAX_FRAME: usize = 16 << 20;

/// What the agent tells the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Prepare the container and hold its first process at the gate. The first frame of the launching connection.
    Launch(Box<LaunchSpec>),
    /// Open the gate. Only on the launching connection, once.
    Open,
    /// Send a signal to all processes of the command.
    Signal(i32),
    /// Kill everything, then end.
    Kill,
    /// Bytes for the command's standard input; none are its end. Answered by [`Answer::InputTaken`].
    Input(Vec<u8>),
    /// The size of the command's terminal.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters of a line.
        columns: u16,
    },
}

/// What the supervisor tells the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The first process is there.
    Hello {
        /// The supervisor's version.
        protocol: u32,
        /// The first process, in the numbers of the supervisor's pid namespace.
        pid: u32,
        /// Whether the gate is open.
        opened: bool,
        /// The container.
        container: String,
    },
    /// The gate is open and the command was started.
    Opened,
    /// The command has ended and the `exit` file says how.
    Exited,
    /// The launch failed; the supervisor ends.
    Failed(String),
    /// The command has taken its input, or reads none any more.
    InputTaken,
}

// Kinds are never reused. 1-63 are requests, 64-127 answers; attach takes 16-31 and 80-95.
const LAUNCH: u8 = 1;
const OPEN: u8 = 2;
const SIGNAL: u8 = 3;
const KILL: u8 = 4;
const INPUT: u8 = 16;
const RESIZE: u8 = 17;
const HELLO: u8 = 64;
const OPENED: u8 = 65;
const EXITED: u8 = 66;
const FAILED: u8 = 67;
const INPUT_TAKEN: u8 = 80;

/// A frame that cannot be understood. The connection is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME`], or empty.
    Length(usize),
    /// The body of this kind is not what it should be.
    Body(u8),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length(length) => write!(formatter, "a frame of {length} bytes"),
            Self::Body(kind) => write!(formatter, "a frame of kind {kind} that cannot be read"),
        }
    }
}

impl std::error::Error for FrameError {}

impl Request {
    /// The request as a frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Launch(spec) => frame(LAUNCH, |body| spec.encode(body)),
            Self::Open => frame(OPEN, |_| {}),
            Self::Signal(signal) => {
                frame(SIGNAL, |body| body.extend_from_slice(&signal.to_le_bytes()))
            }
            Self::Kill => frame(KILL, |_| {}),
            Self::Input(bytes) => frame(INPUT, |body| body.extend_from_slice(bytes)),
            Self::Resize { rows, columns } => frame(RESIZE, |body| {
                body.extend_from_slice(&rows.to_le_bytes());
                body.extend_from_slice(&columns.to_le_bytes());
            }),
        }
    }

    fn decode(kind: u8, body: &[u8]) -> Result<Option<Self>, FrameError> {
        let bad = FrameError::Body(kind);
        Ok(Some(match kind {
            LAUNCH => Self::Launch(Box::new(LaunchSpec::decode(body).ok_or(bad)?)),
            OPEN => Self::Open,
            SIGNAL => Self::Signal(i32::from_le_bytes(body.try_into().map_err(|_| bad)?)),
            KILL => Self::Kill,
            INPUT => Self::Input(body.to_vec()),
            RESIZE => {
                let [a, b, c, d] = body.try_into().map_err(|_| bad)?;
                Self::Resize {
                    rows: u16::from_le_bytes([a, b]),
                    columns: u16::from_le_bytes([c, d]),
                }
            }
            _ => return Ok(None),
        }))
    }
}

impl Answer {
    /// The answer as a frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello {
                protocol,
                pid,
                opened,
                container,
            } => frame(HELLO, |body| {
                body.extend_from_slice(&protocol.to_le_bytes());
                body.extend_from_slice(&pid.to_le_bytes());
                body.push(u8::from(*opened));
                spec::put_bytes(body, container.as_bytes());
            }),
            Self::Opened => frame(OPENED, |_| {}),
            Self::Exited => frame(EXITED, |_| {}),
            Self::Failed(message) => {
                frame(FAILED, |body| spec::put_bytes(body, message.as_bytes()))
            }
            Self::InputTaken => frame(INPUT_TAKEN, |_| {}),
        }
    }

    fn decode(kind: u8, body: &[u8]) -> Result<Option<Self>, FrameError> {
        let bad = FrameError::Body(kind);
        let mut reader = spec::Reader(body);
        Ok(Some(match kind {
            // What a later version appends is not looked at.
            HELLO => (|| {
                Some(Self::Hello {
                    protocol: reader.u32()?,
                    pid: reader.u32()?,
                    opened: reader.u8()? != 0,
                    container: reader.string()?,
                })
            })()
            .ok_or(bad)?,
            OPENED => Self::Opened,
            EXITED => Self::Exited,
            FAILED => Self::Failed(reader.string().ok_or(bad)?),
            INPUT_TAKEN => Self::InputTaken,
            _ => return Ok(None),
        }))
    }
}

fn frame(kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, kind];
    body(&mut bytes);
    let length = u32::try_from(bytes.len() - 4).expect("frames are far below 4 GiB");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Cuts frames out of a byte stream.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Appends what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next request, when all of it is there. Unknown kinds are skipped.
    ///
    /// # Errors
    ///
    /// When the stream cannot be understood.
    pub fn request(&mut self) -> Result<Option<Request>, FrameError> {
        self.next(Request::decode)
    }

    /// The next answer, when all of it is there. Unknown kinds are skipped.
    ///
    /// # Errors
    ///
    /// When the stream cannot be understood.
    pub fn answer(&mut self) -> Result<Option<Answer>, FrameError> {
        self.next(Answer::decode)
    }

    fn next<T>(
        &mut self,
        decode: impl Fn(u8, &[u8]) -> Result<Option<T>, FrameError>,
    ) -> Result<Option<T>, FrameError> {
        loop {
            let Some(length) = self.buffer.first_chunk::<4>() else {
                return Ok(None);
            };
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            if length == 0 || length > MAX_FRAME {
                return Err(FrameError::Length(length));
            }
            let Some(frame) = self.buffer.get(4..4 + length) else {
                return Ok(None);
            };
            let decoded = decode(frame[0], &frame[1..]);
            self.buffer.drain(..4 + length);
            if self.buffer.is_empty() {
                // A launch is large, and this process lives long.
                self.buffer = Vec::new();
            }
            match decoded {
                Ok(None) => {}
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_frames_at_any_byte_and_skips_unknown_kinds() {
        let answers = [
            Answer::Hello {
                protocol: 1,
                pid: 77,
                opened: true,
                container: "a.b".to_owned(),
            },
            Answer::Opened,
            Answer::Exited,
            Answer::Failed("no".to_owned()),
            Answer::InputTaken,
        ];
        let mut stream = Vec::new();
        for answer in &answers {
            stream.extend(frame(127, |body| {
                body.extend_from_slice(b"from a later release")
            }));
            stream.extend(answer.encode());
        }
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for byte in stream {
            decoder.push(&[byte]);
            seen.extend(decoder.answer().unwrap());
        }
        assert_eq!(seen, answers);
    }

    #[test]
    fn requests_come_back_and_bad_ones_are_refused() {
        let requests = [
            Request::Launch(Box::default()),
            Request::Open,
            Request::Signal(15),
            Request::Kill,
            Request::Input(b"typed".to_vec()),
            Request::Input(Vec::new()),
            Request::Resize {
                rows: 24,
                columns: 300,
            },
        ];
        let mut decoder = Decoder::default();
        for request in &requests {
            decoder.push(&request.encode());
            assert_eq!(decoder.request().unwrap().as_ref(), Some(request));
        }
        for bytes in [
            &[0, 0, 0, 0][..],
            &[255, 255, 255, 255],
            &[2, 0, 0, 0, SIGNAL, 1],
            &[2, 0, 0, 0, LAUNCH, 1],
        ] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert!(decoder.request().is_err(), "{bytes:?}");
        }
    }
}
