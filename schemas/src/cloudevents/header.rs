//! Header values: percent-encoded UTF-8, quotes accepted when reading (HTTP protocol binding, section 3.1.3.2).

use std::fmt::Write;

/// Reads a header value: one pair of double quotes is taken off, `%XX` is decoded once, the rest must be UTF-8.
/// A `%` that no two hexadecimal digits follow stands for itself.
///
/// # Errors
/// When the bytes, or the decoded bytes, are not UTF-8 (overlong forms such as `%C0%A0` included).
pub fn decode_header_value(value: &[u8]) -> Result<String, String> {
    let value = value.trim_ascii();
    let plain = match value {
        [b'"', inner @ .., b'"'] => unescape(inner),
        _ => value.to_vec(),
    };
    let mut out = Vec::with_capacity(plain.len());
    let mut rest = plain.as_slice();
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(out)
        .map_err(|e| format!("value is not UTF-8 after percent-decoding: {}", e.utf8_error()))
}

/// Writes a header value: everything but printable ASCII, and space, double quote and percent, becomes `%XX`.
pub fn encode_header_value(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'"' | b'%' => push_escaped(&mut out, byte),
            0x21..=0x7e => out.push(char::from(byte)),
            _ => push_escaped(&mut out, byte),
        }
    }
    out
}

fn push_escaped(out: &mut String, byte: u8) {
    write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
}

fn unescape(quoted: &[u8]) -> Vec<u8> {
    let mut bytes = quoted.iter();
    let mut out = Vec::with_capacity(quoted.len());
    while let Some(&byte) = bytes.next() {
        out.push(if byte == b'\\' { bytes.next().copied().unwrap_or(byte) } else { byte });
    }
    out
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}
