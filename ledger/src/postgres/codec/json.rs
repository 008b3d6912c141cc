//! Attributes as JSON, written for speed: this runs for every event, and nearly every text is plain.

use bellwire_schemas::Event;
use bytes::{BufMut, BytesMut};

use super::Converted;

/// Writes what `crate::attributes::attributes` means, byte for byte as serde_json would.
pub(super) fn put_attributes(event: &Event, out: &mut BytesMut) -> Converted<()> {
    // Enough for most events, so that the buffer grows once.
    out.reserve(96 + event.source.len() + event.time.len() + event.subject.as_ref().map_or(0, String::len));
    out.put_slice(b"{\"source\":");
    put_text(&event.source, out)?;
    out.put_slice(b",\"time\":");
    put_text(&event.time, out)?;
    for (name, text) in [
        (&b",\"subject\":"[..], &event.subject),
        (b",\"datacontenttype\":", &event.datacontenttype),
        (b",\"dataschema\":", &event.dataschema),
    ] {
        if let Some(text) = text {
            out.put_slice(name);
            put_text(text, out)?;
        }
    }
    if !event.extensions.is_empty() {
        out.put_slice(b",\"extensions\":");
        serde_json::to_writer(out.writer(), &event.extensions)?;
    }
    out.put_u8(b'}');
    Ok(())
}

fn put_text(text: &str, out: &mut BytesMut) -> Converted<()> {
    // Looks at every byte without a branch, which the compiler turns into a few wide instructions.
    let special = text.bytes().fold(false, |seen, b| seen | (b < 0x20) | (b == b'"') | (b == b'\\'));
    if special {
        return Ok(serde_json::to_writer(out.writer(), text)?);
    }
    out.reserve(text.len() + 2);
    out.put_u8(b'"');
    out.put_slice(text.as_bytes());
    out.put_u8(b'"');
    Ok(())
}
