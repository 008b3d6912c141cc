//! Server-sent events, read as they trickle in.

use super::exit::{Exit, Failure};

/// The longest event accepted, in bytes: a fact with all its captured output is far smaller.
const MAX_EVENT_BYTES: usize = 4 << 20;

/// One event of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The kind; empty means a message.
    pub event: String,
    /// The payload, lines joined.
    pub data: String,
    /// The id to resume after, when the message carries one.
    pub id: Option<String>,
}

/// Cuts a byte stream into events.
#[derive(Debug, Default)]
pub struct Parser {
    rest: Vec<u8>,
    building: Message,
    bytes: usize,
}

impl Parser {
    /// Takes bytes in, gives whole events out.
    ///
    /// # Errors
    /// When one event grows beyond the bound.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Message>, Failure> {
        let mut messages = Vec::new();
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.bytes += line.len();
            self.line(line.trim_end_matches(['\n', '\r']), &mut messages);
        }
        if self.bytes + self.rest.len() > MAX_EVENT_BYTES {
            return Err(Failure::new(Exit::Internal, "an event of the live stream is larger than 4 MB"));
        }
        Ok(messages)
    }

    fn line(&mut self, line: &str, messages: &mut Vec<Message>) {
        if line.is_empty() {
            let message = std::mem::take(&mut self.building);
            self.bytes = 0;
            if !message.data.is_empty() {
                messages.push(message);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.building.event = value.into(),
            "id" => self.building.id = Some(value.into()),
            "data" => {
                if !self.building.data.is_empty() {
                    self.building.data.push('\n');
                }
                self.building.data.push_str(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_they_are_cut() {
        let text =
            ": keep-alive\n\nid: 1-1\r\ndata: {\"a\":\ndata: \"é\"}\r\n\r\nevent: missed\ndata:7\n\ndata";
        for step in 1..=text.len() {
            let mut parser = Parser::default();
            let messages: Vec<_> =
                text.as_bytes().chunks(step).flat_map(|c| parser.push(c).unwrap()).collect();
            let first =
                Message { event: String::new(), data: "{\"a\":\n\"é\"}".into(), id: Some("1-1".into()) };
            let second = Message { event: "missed".into(), data: "7".into(), id: None };
            assert_eq!(messages, [first, second], "in steps of {step}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let line = [b"data: ".as_slice(), &[b'x'; 1 << 20], b"\n"].concat();
        assert!((0..8).any(|_| parser.push(&line).is_err()));
        let mut parser = Parser::default();
        assert!((0..8).any(|_| parser.push(&[b'x'; 1 << 20]).is_err()));
    }
}
