//! Percent-decoding as libprocess does it.

/// The text holds a `%` that two hexadecimal digits do not follow, or does not decode to UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed percent-encoding")]
pub struct Malformed;

/// Decodes `%XX` and leaves `+` alone: paths.
pub fn decode(text: &str) -> Result<String, Malformed> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let digits = bytes.get(at + 1..at + 3).ok_or(Malformed)?;
            let high = (digits[0] as char).to_digit(16).ok_or(Malformed)?;
            let low = (digits[1] as char).to_digit(16).ok_or(Malformed)?;
            out.push((high * 16 + low) as u8);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).map_err(|_| Malformed)
}

/// Decodes `%XX` and `+`: queries and forms. What cannot be decoded stays as it was sent.
pub fn decode_form(text: &str) -> String {
    let spaced = text.replace('+', " ");
    decode(&spaced).unwrap_or(spaced)
}

/// What `process::http::encode` of libprocess encodes besides controls and what is not ASCII.
const ENCODED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'$')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}')
    .add(b'~');

/// Encodes what means something in a URL: a value for a query, or a part of a path.
pub fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_and_refuses() {
        assert_eq!(
            decode("/slave%281%29/state+x").unwrap(),
            "/slave(1)/state+x"
        );
        assert_eq!(decode("%zz"), Err(Malformed));
        assert_eq!(decode("%e"), Err(Malformed));
        assert_eq!(decode("%ff"), Err(Malformed));
        assert_eq!(decode_form("a+b%20c"), "a b c");
        assert_eq!(decode_form("a+%20%"), "a %20%");
        assert_eq!(decode(&encode("a b/ü&=")).unwrap(), "a b/ü&=");
    }
}
