//! JSON text to values, as picojson does it inside stout's `JSON::parse`.
//!
//! Error texts name the rest of the line where reading stopped, and picojson stops at places of its
//! own, so this follows it character by character.

use std::borrow::Cow;

use super::JsonError;

/// Arrays and objects inside each other. Mesos 1.11 runs on until its stack ends.
const MAX_DEPTH: u32 = 200;

/// Longest part of the text that an error repeats.
const MAX_NEAR: usize = 4096;

/// A JSON value that borrows from its text where it can.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number
    Number(Number),
    /// A string
    String(Cow<'a, str>),
    /// An array
    Array(Vec<Value<'a>>),
    /// An object: members sorted by key, the last of equal keys only
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// A member of an object.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        let Self::Object(members) = self else {
            return None;
        };
        let place = members
            .binary_search_by(|(found, _)| found.as_ref().cmp(key))
            .ok()?;
        Some(&members[place].1)
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// The elements of an array.
    pub fn as_array(&self) -> Option<&[Value<'a>]> {
        if let Self::Array(elements) = self {
            Some(elements)
        } else {
            None
        }
    }
}

/// A JSON number: an integer where it is written as one and fits into 64 bits, else a double.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// An integer
    Int(i64),
    /// An integer that only an unsigned one holds. Mesos reads it as a double, which is another
    /// number; what was written by us or by Mesos reads back as it was.
    Uint(u64),
    /// Anything else
    Float(f64),
}

impl Number {
    /// As a double.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Uint(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    /// As a 64-bit integer: fractions are cut off, what does not fit stops at the bounds.
    pub fn as_i64(self) -> i64 {
        match self {
            Self::Int(value) => value,
            Self::Uint(_) => i64::MAX,
            Self::Float(value) => value as i64,
        }
    }

    /// As an unsigned 64-bit integer; a negative integer wraps around, as a C++ cast does.
    pub fn as_u64(self) -> u64 {
        match self {
            Self::Int(value) => value as u64,
            Self::Uint(value) => value,
            Self::Float(value) => value as u64,
        }
    }
}

/// Parses one JSON document.
///
/// # Errors
/// Text that is not JSON, with Mesos' words: `syntax error at line 1 near: ...`.
pub fn parse(text: &[u8]) -> Result<Value<'_>, JsonError> {
    let mut input = Input {
        text,
        next: 0,
        seen: 0,
    };
    let Some(value) = input.value(MAX_DEPTH) else {
        return Err(JsonError::Syntax(input.describe_error()));
    };
    input.skip_white_space();
    if input.next < text.len() {
        let rest =
            String::from_utf8_lossy(&text[input.next..text.len().min(input.next + MAX_NEAR)]);
        return Err(JsonError::Syntax(format!(
            "Parsed JSON included non-whitespace trailing characters: {}",
            rest.trim_end()
        )));
    }
    Ok(value)
}

/// The text with the place that was reached. Functions return `None` for a syntax error and leave
/// `next` where picojson's reader would stand.
struct Input<'a> {
    text: &'a [u8],
    next: usize,
    /// End of what was ever looked at; the line number counts up to there.
    seen: usize,
}

impl<'a> Input<'a> {
    fn get(&mut self) -> Option<u8> {
        let byte = self.text.get(self.next).copied();
        if byte.is_some() {
            self.next += 1;
        }
        self.seen = self.seen.max(self.next);
        byte
    }

    /// Takes back the byte that `get` gave.
    fn unget(&mut self, byte: Option<u8>) {
        if byte.is_some() {
            self.next -= 1;
        }
    }

    fn skip_white_space(&mut self) {
        loop {
            let byte = self.get();
            if !matches!(byte, Some(b' ' | b'\t' | b'\n' | b'\r')) {
                return self.unget(byte);
            }
        }
    }

    fn expect(&mut self, expected: u8) -> bool {
        self.skip_white_space();
        let byte = self.get();
        if byte != Some(expected) {
            self.unget(byte);
            return false;
        }
        true
    }

    fn literal(&mut self, rest: &[u8], value: Value<'a>) -> Option<Value<'a>> {
        for &expected in rest {
            let byte = self.get();
            if byte != Some(expected) {
                self.unget(byte);
                return None;
            }
        }
        Some(value)
    }

    fn value(&mut self, depth: u32) -> Option<Value<'a>> {
        let depth = depth.checked_sub(1)?;
        self.skip_white_space();
        let byte = self.get();
        match byte {
            Some(b'n') => self.literal(b"ull", Value::Null),
            Some(b'f') => self.literal(b"alse", Value::Bool(false)),
            Some(b't') => self.literal(b"rue", Value::Bool(true)),
            Some(b'"') => self.string().map(Value::String),
            Some(b'[') => self.array(depth),
            Some(b'{') => self.object(depth),
            Some(b'0'..=b'9' | b'-') => {
                self.unget(byte);
                self.number().map(Value::Number)
            }
            _ => {
                self.unget(byte);
                None
            }
        }
    }

    fn array(&mut self, depth: u32) -> Option<Value<'a>> {
        let mut elements = Vec::new();
        if self.expect(b']') {
            return Some(Value::Array(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            if !self.expect(b',') {
                break;
            }
        }
        self.expect(b']').then_some(Value::Array(elements))
    }

    fn object(&mut self, depth: u32) -> Option<Value<'a>> {
        let mut members: Vec<(Cow<'a, str>, Value<'a>)> = Vec::new();
        if self.expect(b'}') {
            return Some(Value::Object(members));
        }
        loop {
            if !self.expect(b'"') {
                return None;
            }
            let key = self.string()?;
            if !self.expect(b':') {
                return None;
            }
            let value = self.value(depth)?;
            members.push((key, value));
            if !self.expect(b',') {
                break;
            }
        }
        if !self.expect(b'}') {
            return None;
        }
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        // Equal keys stand together in their order; the value of the last moves to the first.
        members.dedup_by(|later, earlier| {
            let is_equal = later.0 == earlier.0;
            if is_equal {
                std::mem::swap(later, earlier);
            }
            is_equal
        });
        Some(Value::Object(members))
    }

    fn number(&mut self) -> Option<Number> {
        let start = self.next;
        loop {
            let byte = self.get();
            if !matches!(byte, Some(b'0'..=b'9' | b'+' | b'-' | b'e' | b'E' | b'.')) {
                self.unget(byte);
                break;
            }
        }
        let text = std::str::from_utf8(&self.text[start..self.next]).expect("these are ASCII");
        if let Ok(value) = text.parse() {
            return Some(Number::Int(value));
        }
        if let Ok(value) = text.parse() {
            return Some(Number::Uint(value));
        }
        text.parse()
            .ok()
            .filter(|value: &f64| value.is_finite())
            .map(Number::Float)
    }

    /// The rest of a string, after its opening quote.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.next;
        let mut owned: Option<Vec<u8>> = None;
        loop {
            let run = self.next;
            let rest = &self.text[run..];
            let length = rest
                .iter()
                .position(|&b| b < b' ' || b == b'"' || b == b'\\')
                .unwrap_or(rest.len());
            self.next += length;
            self.seen = self.seen.max(self.next);
            if let Some(owned) = &mut owned {
                owned.extend_from_slice(&rest[..length]);
            }
            let byte = self.get();
            match byte {
                Some(b'"') => {
                    return match owned {
                        Some(owned) => String::from_utf8(owned).ok().map(Cow::Owned),
                        None => std::str::from_utf8(&self.text[start..run + length])
                            .ok()
                            .map(Cow::Borrowed),
                    };
                }
                Some(b'\\') => {
                    let owned =
                        owned.get_or_insert_with(|| self.text[start..run + length].to_vec());
                    self.escape(owned)?;
                }
                _ => {
                    self.unget(byte);
                    return None;
                }
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Option<()> {
        out.push(match self.get()? {
            b'"' => b'"',
            b'\\' => b'\\',
            b'/' => b'/',
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let c = self.code_point()?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        });
        Some(())
    }

    fn code_point(&mut self) -> Option<char> {
        let first = self.quad_hex()?;
        if !(0xd800..0xe000).contains(&first) {
            return char::from_u32(first);
        }
        if first >= 0xdc00 {
            return None;
        }
        for expected in [b'\\', b'u'] {
            let byte = self.get();
            if byte != Some(expected) {
                self.unget(byte);
                return None;
            }
        }
        let second = self.quad_hex()?;
        if !(0xdc00..0xe000).contains(&second) {
            return None;
        }
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    }

    fn quad_hex(&mut self) -> Option<u32> {
        let mut value = 0;
        for _ in 0..4 {
            let byte = self.get();
            let Some(digit) = char::from(byte?).to_digit(16) else {
                self.unget(byte);
                return None;
            };
            value = value * 16 + digit;
        }
        Some(value)
    }

    /// picojson's text: the line, and what is left of it without control characters.
    fn describe_error(&self) -> String {
        let before = &self.text[..self.seen.saturating_sub(1)];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let rest = &self.text[self.next..];
        let rest = &rest[..memchr::memchr(b'\n', rest)
            .unwrap_or(rest.len())
            .min(MAX_NEAR)];
        let near: Vec<u8> = rest.iter().copied().filter(|&byte| byte >= b' ').collect();
        format!(
            "syntax error at line {line} near: {}",
            String::from_utf8_lossy(&near)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn stops_where_picojson_stops() {
        for (text, near) in [
            ("", "line 1 near: "),
            ("{not json", "line 1 near: not json"),
            ("not json", "line 1 near: ot json"),
            ("\u{8}\u{1}", "line 1 near: "),
            ("{\"a\":\n  ?}\nx", "line 2 near: ?}"),
            ("{\"a\" 1}", "line 1 near: 1}"),
            ("[1 2]", "line 1 near: 2]"),
            ("[1,]", "line 1 near: ]"),
            ("\"a\u{1}b\"", "line 1 near: b\""),
            (r#""\ud800x""#, "line 1 near: x\""),
            (r#""\q""#, "line 1 near: \""),
            ("1-2,", "line 1 near: ,"),
            ("1e999", "line 1 near: "),
        ] {
            assert_eq!(error(text), format!("syntax error at {near}"), "{text:?}");
        }
        assert_eq!(
            error("{} x "),
            "Parsed JSON included non-whitespace trailing characters: x"
        );
    }

    #[test]
    fn reads_values() {
        let value = parse(br#" {"b":[1,-2.5,1e2,01,"\u00e9\ud83d\ude00\/"],"a":null,"b":true} "#);
        let value = value.unwrap();
        assert_eq!(value.get("b"), Some(&Value::Bool(true)));
        assert_eq!(value.get("a"), Some(&Value::Null));
        let list =
            parse(br#"[1,-2.5,1e2,01,"\u00e9\ud83d\ude00\/",9223372036854775808,1e19]"#).unwrap();
        assert_eq!(
            list,
            Value::Array(vec![
                Value::Number(Number::Int(1)),
                Value::Number(Number::Float(-2.5)),
                Value::Number(Number::Float(100.0)),
                Value::Number(Number::Int(1)),
                Value::String("é😀/".into()),
                Value::Number(Number::Uint(9223372036854775808)),
                Value::Number(Number::Float(1e19)),
            ])
        );
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        parse(&nested(200)).unwrap();
        parse(&nested(201)).unwrap_err();
        parse(&vec![b'['; 1_000_000]).unwrap_err();
    }
}
