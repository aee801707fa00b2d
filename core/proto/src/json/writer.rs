//! A streaming JSON writer for bodies made by hand.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{base64, encode, number};
use crate::descriptor::{Described, MessageDescriptor};

/// Size of the pieces that a streaming writer hands on, and the buffer's growth.
const PIECE: usize = 64 * 1024;

/// Receives the pieces of an answer in order, and breaks when nobody wants more of them.
pub type Sink<'a> = &'a mut dyn FnMut(Bytes) -> ControlFlow<()>;

/// Writes JSON as Mesos prints it: no white space, keys in the order of the calls.
///
/// Commas are its business; that every key is followed by one value is the caller's.
///
/// ```
/// # use tepui_proto::json::Writer;
/// let mut body = Vec::new();
/// Writer::new(&mut body).object(|w| {
///     w.key("name").str("cpus");
///     w.key("value").f64(4.0);
///     w.key("roles").array(|w| w.str("a"));
/// });
/// assert_eq!(body, br#"{"name":"cpus","value":4.0,"roles":["a"]}"#);
/// ```
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    sink: Option<Sink<'a>>,
    /// The next value or key has something before it in its object or array.
    needs_comma: bool,
    /// The sink wants no more.
    is_stopped: bool,
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("buffered", &self.out.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Writer<'a> {
    /// A writer that appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            sink: None,
            needs_comma: false,
            is_stopped: false,
        }
    }

    /// A writer that hands pieces of about 64 KiB to `sink` as it goes. `out` is its buffer; what
    /// is left in it at the end is the last piece.
    pub fn streaming(out: &'a mut Vec<u8>, sink: Sink<'a>) -> Self {
        // Most answers are short.
        out.reserve(PIECE / 4);
        Self {
            out,
            sink: Some(sink),
            needs_comma: false,
            is_stopped: false,
        }
    }

    /// Whether the sink wants no more. What is written all the same goes nowhere.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// An object whose members `members` writes.
    pub fn object(&mut self, members: impl FnOnce(&mut Self)) {
        self.nest(b'{', b'}', members);
    }

    /// An array whose elements `elements` writes.
    pub fn array(&mut self, elements: impl FnOnce(&mut Self)) {
        self.nest(b'[', b']', elements);
    }

    /// The key of the next value.
    pub fn key(&mut self, key: &str) -> &mut Self {
        self.separate();
        write_str(key.as_bytes(), self.out);
        self.out.push(b':');
        self.needs_comma = false;
        self
    }

    /// A string.
    pub fn str(&mut self, value: &str) {
        self.separate();
        write_str(value.as_bytes(), self.out);
    }

    /// Bytes as a base64 string.
    pub fn base64(&mut self, value: &[u8]) {
        self.separate();
        self.out.push(b'"');
        base64::write(value, self.out);
        self.out.push(b'"');
    }

    /// An unsigned integer.
    pub fn u64(&mut self, value: u64) {
        self.separate();
        self.out
            .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A signed integer.
    pub fn i64(&mut self, value: i64) {
        self.separate();
        self.out
            .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A number with a decimal point: `4.0`, never `4`.
    pub fn f64(&mut self, value: f64) {
        self.separate();
        number::write_f64(value, self.out);
    }

    /// `true` or `false`.
    pub fn bool(&mut self, value: bool) {
        self.separate();
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// `null`.
    pub fn null(&mut self) {
        self.raw(b"null");
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, json: &[u8]) {
        self.separate();
        self.out.extend_from_slice(json);
    }

    /// A message.
    pub fn message<M: Described>(&mut self, message: &M) {
        self.wire(M::DESCRIPTOR, &message.encode_to_vec());
    }

    /// A message given as its bytes, which were checked when they came in; bytes that are not this
    /// message give `{}`.
    pub fn wire(&mut self, descriptor: &MessageDescriptor, bytes: &[u8]) {
        self.separate();
        if encode::from_wire(descriptor, bytes, self.out).is_err() {
            self.out.extend_from_slice(b"{}");
        }
    }

    fn nest(&mut self, open: u8, close: u8, inner: impl FnOnce(&mut Self)) {
        self.separate();
        self.out.push(open);
        self.needs_comma = false;
        inner(self);
        self.out.push(close);
        self.needs_comma = true;
    }

    /// Comes before every key and value: hands on a full piece, writes the comma.
    #[inline]
    fn separate(&mut self) {
        if self.out.len() >= PIECE {
            self.pass_on();
        }
        if self.needs_comma {
            self.out.push(b',');
        }
        self.needs_comma = true;
    }

    #[cold]
    fn pass_on(&mut self) {
        match &mut self.sink {
            Some(_) if self.is_stopped => self.out.clear(),
            Some(sink) => {
                let fresh = Vec::with_capacity(PIECE + PIECE / 4);
                let piece = Bytes::from(std::mem::replace(self.out, fresh));
                self.is_stopped = sink(piece).is_break();
            }
            None if self.out.capacity() - self.out.len() < PIECE => {
                self.out.reserve(PIECE.max(self.out.len() / 2));
            }
            None => {}
        }
    }
}

/// For each byte: 0 when it stands for itself, the letter after the backslash, or `u`.
static ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x08] = b'b';
    table[0x0c] = b'f';
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Whether nothing has to be escaped. It looks at all bytes and does not stop early, so that the
/// compiler can take many at once.
fn is_clean(value: &[u8]) -> bool {
    let dirty = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    !value.iter().fold(false, |any, &byte| any | dirty(byte))
}

/// Appends a quoted string, escaped as RapidJSON does.
pub(super) fn write_str(value: &[u8], out: &mut Vec<u8>) {
    out.reserve(value.len() + 2);
    out.push(b'"');
    if is_clean(value) {
        out.extend_from_slice(value);
        out.push(b'"');
        return;
    }
    let mut clean = 0;
    for (place, &byte) in value.iter().enumerate() {
        let escape = ESCAPES[usize::from(byte)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&value[clean..place]);
        clean = place + 1;
        out.extend_from_slice(&[b'\\', escape]);
        if escape == b'u' {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"00");
            out.extend_from_slice(&digits);
        }
    }
    out.extend_from_slice(&value[clean..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_as_rapidjson() {
        let mut out = Vec::new();
        write_str(
            "a/\"\\\u{8}\u{c}\n\r\t\u{1}\u{1f}\u{7f}é€😀".as_bytes(),
            &mut out,
        );
        let expected = "\"a/\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001F\u{7f}é€😀\"";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn streaming_and_whole_bodies_are_equal() {
        fn body(w: &mut Writer<'_>) {
            w.object(|w| {
                w.key("empty").array(|_| {});
                w.key("list").array(|w| {
                    for i in 0..30_000 {
                        w.object(|w| {
                            w.key("i").i64(-i);
                            w.key("half").f64(i as f64 / 2.0);
                            w.key("odd").bool(i % 2 == 1);
                            w.key("none").null();
                        });
                    }
                });
                w.key("bytes").base64(b"\0\x01");
            });
        }
        let mut whole = Vec::new();
        body(&mut Writer::new(&mut whole));

        let mut pieces = Vec::new();
        let mut rest = Vec::new();
        body(&mut Writer::streaming(&mut rest, &mut |piece| {
            pieces.push(piece);
            ControlFlow::Continue(())
        }));
        assert!(pieces.len() > 10, "{} pieces", pieces.len());
        assert!(pieces.iter().all(|piece| piece.len() < PIECE + PIECE / 4));
        let joined = [pieces.concat(), rest].concat();
        assert!(joined == whole);
        serde_json::from_slice::<serde_json::Value>(&whole).unwrap();

        let (mut taken, mut stopped) = (0, Vec::new());
        let mut sink = |_| {
            taken += 1;
            ControlFlow::Break(())
        };
        let mut writer = Writer::streaming(&mut stopped, &mut sink);
        body(&mut writer);
        assert!(writer.is_stopped());
        assert_eq!(taken, 1, "who wants no more is given no more");
        assert!(stopped.len() < PIECE + PIECE / 4);
    }
}
