//! Mends frames that the AMQP client would give up over, so that one odd message cannot block its queue for ever.
//!
//! The broker hands over whatever publishers wrote. Two things in it would end the client's connection each time they
//! come: names that are not UTF-8 (routing keys, properties, names of headers), and headers nested so deep that
//! reading them needs more stack than there is. Both are changed in place and keep their length: a byte that is no
//! text becomes `?`, a nested value becomes bytes. Bodies and values of headers are never touched. Pure.

/// How deep headers may be nested; deeper values become bytes.
const MAX_DEPTH: usize = 16;
/// Largest frame that is looked at; the client asks for 128 KiB at most and refuses larger ones itself.
const MAX_FRAME: usize = 1 << 20;
/// Type, channel and size before a frame's payload; one octet after it (AMQP 0-9-1, section 4.2.3).
const HEAD: usize = 7;
const METHOD: u8 = 1;
const HEADER: u8 = 2;

/// Reads a stream of frames and passes it on, mended.
#[derive(Debug, Default)]
pub(super) struct Mender {
    /// The beginning of a frame that is not complete yet.
    frame: Vec<u8>,
    /// Bytes of the current frame that go through as they are.
    pass: usize,
}

impl Mender {
    /// Takes the next bytes and appends what can go on to `out`.
    pub(super) fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.pass > 0 {
                let (now, rest) = bytes.split_at(self.pass.min(bytes.len()));
                out.extend_from_slice(now);
                self.pass -= now.len();
                bytes = rest;
                continue;
            }
            let wanted = self.wanted();
            let (now, rest) = bytes.split_at((wanted - self.frame.len()).min(bytes.len()));
            self.frame.extend_from_slice(now);
            bytes = rest;
            if self.frame.len() == HEAD && self.wanted() == HEAD {
                self.pass = size(&self.frame) + 1;
                out.append(&mut self.frame);
            } else if self.frame.len() > HEAD && self.frame.len() == self.wanted() {
                let end = self.frame.len() - 1;
                let kind = self.frame[0];
                let payload = &mut self.frame[HEAD..end];
                // What cannot be read stays as it is: the client judges it.
                let _ = if kind == METHOD { mend_method(payload) } else { mend_header(payload) };
                out.append(&mut self.frame);
            }
        }
    }

    /// How many bytes of the current frame are needed before it can go on.
    fn wanted(&self) -> usize {
        let looked_at = self.frame.len() >= HEAD
            && matches!(self.frame[0], METHOD | HEADER)
            && size(&self.frame) <= MAX_FRAME;
        if looked_at { HEAD + size(&self.frame) + 1 } else { HEAD }
    }
}

fn size(frame: &[u8]) -> usize {
    u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]) as usize
}

/// `basic.return` and `basic.deliver`, which repeat what a publisher wrote (AMQP 0-9-1, section 1.8.3).
fn mend_method(payload: &mut [u8]) -> Option<()> {
    let mut rest = Cursor { bytes: payload, at: 0 };
    match (rest.u16()?, rest.u16()?) {
        (60, 50) => {
            rest.skip(2)?;
            rest.short_text()?;
        }
        (60, 60) => {
            rest.short_text()?;
            rest.skip(9)?;
        }
        _ => return Some(()),
    }
    rest.short_text()?;
    rest.short_text()
}

/// A content header: its properties in the order of their flags (AMQP 0-9-1, sections 4.2.6.1 and 1.8.3).
fn mend_header(payload: &mut [u8]) -> Option<()> {
    let mut rest = Cursor { bytes: payload, at: 0 };
    rest.skip(12)?;
    let flags = rest.u16()?;
    for bit in (2..16).rev().filter(|bit| flags & (1 << bit) != 0) {
        match bit {
            13 => rest.table(1)?,
            12 | 11 => rest.skip(1)?,
            6 => rest.skip(8)?,
            _ => rest.short_text()?,
        }
    }
    Some(())
}

/// A place in a frame; `None` where the frame ends too early.
struct Cursor<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Cursor<'_> {
    fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn u32(&mut self) -> Option<usize> {
        let bytes = [self.u8()?, self.u8()?, self.u8()?, self.u8()?];
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    }

    fn short_text(&mut self) -> Option<()> {
        let length = usize::from(self.u8()?);
        let start = self.at;
        self.skip(length)?;
        let mut text = &mut self.bytes[start..start + length];
        while let Err(error) = std::str::from_utf8(text) {
            let bad = error.valid_up_to();
            let count = error.error_len().unwrap_or(text.len() - bad);
            text[bad..bad + count].fill(b'?');
            text = &mut text[bad + count..];
        }
        Some(())
    }

    fn table(&mut self, depth: usize) -> Option<()> {
        let end = self.u32()?.checked_add(self.at)?;
        while self.at < end {
            self.short_text()?;
            self.value(depth)?;
        }
        Some(())
    }

    /// A value behind the letter of its type, as RabbitMQ writes them (its "AMQP 0-9-1 errata", table of field
    /// types).
    fn value(&mut self, depth: usize) -> Option<()> {
        let letter = self.at;
        match self.u8()? {
            b'V' => Some(()),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'l' | b'L' | b'd' | b'T' => self.skip(8),
            b'S' | b'x' => {
                let length = self.u32()?;
                self.skip(length)
            }
            b'A' | b'F' if depth >= MAX_DEPTH => {
                self.bytes[letter] = b'x';
                let length = self.u32()?;
                self.skip(length)
            }
            b'F' => self.table(depth + 1),
            b'A' => {
                let end = self.u32()?.checked_add(self.at)?;
                while self.at < end {
                    self.value(depth + 1)?;
                }
                Some(())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind, 0, 1];
        frame.extend((payload.len() as u32).to_be_bytes());
        frame.extend(payload);
        frame.push(0xCE);
        frame
    }

    fn deliver(routing_key: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 60, 1, b'c'];
        payload.extend([0; 9]);
        payload.extend([0, routing_key.len() as u8]);
        payload.extend(routing_key);
        frame(METHOD, &payload)
    }

    fn header(table: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0x20, 0];
        payload.extend((table.len() as u32).to_be_bytes());
        payload.extend(table);
        frame(HEADER, &payload)
    }

    /// `{"": {"": … }}`, so many tables deep.
    fn nested(depth: usize) -> Vec<u8> {
        let mut table = Vec::new();
        for _ in 0..depth {
            let mut outer = vec![0, b'F'];
            outer.extend((table.len() as u32).to_be_bytes());
            outer.extend(&table);
            table = outer;
        }
        table
    }

    fn mended(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Mender::default().take(bytes, &mut out);
        out
    }

    #[test]
    fn names_that_are_no_text_become_text() {
        assert_eq!(mended(&deliver(b"a\xff\xfeb")), deliver(b"a??b"));
        assert_eq!(mended(&deliver("grün".as_bytes())), deliver("grün".as_bytes()));
        assert_eq!(mended(&deliver(b"a\xe2\x82")), deliver(b"a??"));
        assert_eq!(mended(&header(b"\x02\xffxS\0\0\0\x01\xff")), header(b"\x02?xS\0\0\0\x01\xff"));
    }

    #[test]
    fn deep_headers_become_bytes() {
        let deep = mended(&header(&nested(10_000)));
        let letters: Vec<u8> =
            deep[HEAD + 18..].chunks(6).map(|entry| entry[1]).take(MAX_DEPTH + 1).collect();
        let expected: Vec<u8> = [vec![b'F'; MAX_DEPTH - 1], b"xF".to_vec()].concat();
        assert_eq!(String::from_utf8_lossy(&letters), String::from_utf8_lossy(&expected));
        let shallow = header(&nested(MAX_DEPTH - 1));
        assert_eq!(mended(&shallow), shallow);
    }

    proptest! {
        #[test]
        fn whatever_comes_goes_on_in_pieces_of_any_size(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            frames in 0usize..4,
            cut in 1usize..50,
        ) {
            let mut stream = Vec::new();
            for kind in 0..frames {
                stream.extend(frame(kind as u8 + 1, &bytes));
                stream.extend(deliver(b"k\xff"));
            }
            let whole = mended(&stream);
            prop_assert_eq!(whole.len(), stream.len());
            let (mut mender, mut out) = (Mender::default(), Vec::new());
            for piece in stream.chunks(cut) {
                mender.take(piece, &mut out);
            }
            prop_assert_eq!(out, whole);
        }
    }
}
