//! Base64 as stout reads it: padding is optional, and everything after the first `=` is ignored.

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;

/// Appends the padded base64 form of `bytes`.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD
        .encode_slice(bytes, &mut out[start..])
        .expect("the room is the encoded length");
}

/// Decodes, or says which character is none of base64's.
pub(super) fn read(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let mut group = 0_u32;
    let mut held = 0;
    for c in text.chars().take_while(|&c| c != '=') {
        group = group << 6 | sextet(c).ok_or_else(|| format!("Invalid character '{c}'"))?;
        held += 1;
        if held == 4 {
            out.extend_from_slice(&group.to_be_bytes()[1..]);
            (group, held) = (0, 0);
        }
    }
    if held > 1 {
        let bytes = (group << (6 * (4 - held))).to_be_bytes();
        out.extend_from_slice(&bytes[1..held]);
    }
    Ok(out)
}

fn sextet(c: char) -> Option<u32> {
    match c {
        'A'..='Z' => Some(c as u32 - 'A' as u32),
        'a'..='z' => Some(c as u32 - 'a' as u32 + 26),
        '0'..='9' => Some(c as u32 - '0' as u32 + 52),
        '+' => Some(62),
        '/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_with_and_without_padding() {
        for length in 0..20_u8 {
            let bytes: Vec<u8> = (0..length).map(|i| i.wrapping_mul(83)).collect();
            let mut text = Vec::new();
            write(&bytes, &mut text);
            let text = String::from_utf8(text).unwrap();
            assert_eq!(read(&text).unwrap(), bytes);
            assert_eq!(read(text.trim_end_matches('=')).unwrap(), bytes);
        }
        assert_eq!(read("###").unwrap_err(), "Invalid character '#'");
    }
}
