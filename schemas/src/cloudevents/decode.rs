//! Messages into events.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::header::decode_header_value;
use super::{BATCH, CloudEventError, Mode, STRUCTURED, is_attribute_name};
use crate::event::is_json;
use crate::{Event, Timestamp};

/// The protocols whose binary mode differs in how attributes are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// `ce-` headers, values percent-encoded.
    Http,
    /// `ce_` headers, values plain UTF-8.
    Kafka,
    /// `cloudEvents:` or `cloudEvents_` application properties, values plain text.
    Amqp,
}

impl Binding {
    fn attribute(self, name: &str) -> Option<&str> {
        let prefixes: &[&str] = match self {
            Self::Http => &["ce-"],
            Self::Kafka => &["ce_"],
            Self::Amqp => &["cloudevents:", "cloudevents_"],
        };
        prefixes.iter().find_map(|prefix| {
            let (head, rest) = name.split_at_checked(prefix.len())?;
            head.eq_ignore_ascii_case(prefix).then_some(rest)
        })
    }

    fn value(self, value: &[u8]) -> Result<String, String> {
        match self {
            Self::Http => decode_header_value(value),
            Self::Kafka | Self::Amqp => String::from_utf8(value.to_vec()).map_err(|e| e.to_string()),
        }
    }
}

/// What a message held.
#[derive(Debug)]
pub enum Decoded {
    /// One event, in binary or structured mode.
    One(Box<Event>),
    /// A batch, each item judged by itself.
    Many(Vec<Result<Event, CloudEventError>>),
}

/// The mode of a message, or `None` when it is no CloudEvent: the content type decides, then the version attribute.
pub fn mode<'a>(
    binding: Binding,
    content_type: Option<&str>,
    mut header_names: impl Iterator<Item = &'a str>,
) -> Option<Mode> {
    let essence = content_type.map(essence).unwrap_or_default();
    if essence == BATCH || essence.starts_with("application/cloudevents-batch") {
        Some(Mode::Batch)
    } else if essence.starts_with("application/cloudevents") {
        Some(Mode::Structured)
    } else {
        let says = |name| binding.attribute(name).is_some_and(|a| a.eq_ignore_ascii_case("specversion"));
        header_names.any(says).then_some(Mode::Binary)
    }
}

/// Decodes a message in whichever mode it is; `None` when it is no CloudEvent. The time stays empty where the
/// sender gave none.
///
/// # Errors
/// When the message says it is a CloudEvent and breaks the specification.
pub fn decode(
    binding: Binding,
    headers: &[(&str, &[u8])],
    body: &Bytes,
) -> Result<Option<Decoded>, CloudEventError> {
    let content_type = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        .map(|(_, value)| String::from_utf8_lossy(value).trim().to_owned());
    let content_type = content_type.as_deref();
    let names = headers.iter().map(|(name, _)| *name);
    let Some(mode) = mode(binding, content_type, names) else { return Ok(None) };
    if mode != Mode::Binary {
        let essence = content_type.map(essence).unwrap_or_default();
        if essence != STRUCTURED && essence != BATCH {
            return Err(CloudEventError::Format(essence));
        }
    }
    Ok(Some(match mode {
        Mode::Binary => Decoded::One(Box::new(decode_binary(binding, headers, body)?)),
        Mode::Structured => Decoded::One(Box::new(decode_structured(body)?)),
        Mode::Batch => Decoded::Many(decode_batch(body)?),
    }))
}

/// Decodes binary mode: attributes from headers or properties, the content type and the body kept as they are.
///
/// # Errors
/// As [`decode`].
pub fn decode_binary(
    binding: Binding,
    headers: &[(&str, &[u8])],
    body: &Bytes,
) -> Result<Event, CloudEventError> {
    let mut attributes = BTreeMap::new();
    let mut content_type = None;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("content-type") {
            let text = std::str::from_utf8(value).map_err(|e| CloudEventError::value(name, e.to_string()))?;
            content_type = Some(text.trim().to_owned());
        } else if let Some(attribute) = binding.attribute(name) {
            // Header names have no case in HTTP; elsewhere a capital breaks the naming rule and is caught below.
            let attribute =
                if binding == Binding::Http { attribute.to_ascii_lowercase() } else { attribute.to_owned() };
            let text = binding.value(value).map_err(|p| CloudEventError::value(&attribute, p))?;
            if attributes.insert(attribute.clone(), Value::String(text)).is_some() {
                return Err(CloudEventError::value(&attribute, "is given twice"));
            }
        }
    }
    if attributes.contains_key("data") || attributes.contains_key("data_base64") {
        return Err(CloudEventError::Name("data".into()));
    }
    if let Some(content_type) = content_type {
        attributes.insert("datacontenttype".into(), content_type.into());
    }
    let mut event = event_of(attributes)?;
    event.data = (!body.is_empty()).then(|| body.clone());
    Ok(event)
}

/// Decodes structured mode (JSON format). JSON payloads keep their bytes; nesting is not followed.
///
/// # Errors
/// As [`decode`].
pub fn decode_structured(body: &Bytes) -> Result<Event, CloudEventError> {
    let members: BTreeMap<String, &RawValue> = parse(body, "a CloudEvent in JSON")?;
    event_of_members(members, body)
}

/// Decodes a batch; a bad item does not spoil the others.
///
/// # Errors
/// When the body is no JSON array.
pub fn decode_batch(body: &Bytes) -> Result<Vec<Result<Event, CloudEventError>>, CloudEventError> {
    let items: Vec<&RawValue> = parse(body, "a JSON array of CloudEvents")?;
    Ok(items.into_iter().map(|item| decode_structured(&body.slice_ref(item.get().as_bytes()))).collect())
}

fn parse<'a, T: serde::Deserialize<'a>>(
    body: &'a [u8],
    expected: &'static str,
) -> Result<T, CloudEventError> {
    serde_json::from_slice(body).map_err(|e| CloudEventError::Body { expected, problem: e.to_string() })
}

fn event_of_members(
    mut members: BTreeMap<String, &RawValue>,
    body: &Bytes,
) -> Result<Event, CloudEventError> {
    let data = members.remove("data");
    let base64 = members.remove("data_base64").filter(|raw| raw.get() != "null");
    let mut attributes = BTreeMap::new();
    for (name, raw) in members {
        let value: Value = serde_json::from_str(raw.get())
            .map_err(|_| CloudEventError::value(&name, "must be a string, a boolean or an integer"))?;
        if !value.is_null() {
            attributes.insert(name, value);
        }
    }
    let mut event = event_of(attributes)?;
    event.data = match (data, base64) {
        (Some(_), Some(_)) => return Err(CloudEventError::value("data_base64", "stands beside `data`")),
        (Some(raw), None) => Some(payload(raw, event.datacontenttype.as_deref(), body)),
        (None, Some(raw)) => Some(decode_base64(raw)?),
        (None, None) => None,
    };
    Ok(event)
}

/// JSON stays as written. Under another media type a string means its text (JSON format, section 3.1).
fn payload(raw: &RawValue, media_type: Option<&str>, body: &Bytes) -> Bytes {
    if media_type.is_some_and(|t| !is_json(t))
        && let Ok(text) = serde_json::from_str::<String>(raw.get())
    {
        return Bytes::from(text);
    }
    body.slice_ref(raw.get().as_bytes())
}

fn decode_base64(raw: &RawValue) -> Result<Bytes, CloudEventError> {
    let bad = |problem: String| CloudEventError::value("data_base64", problem);
    let text: String = serde_json::from_str(raw.get()).map_err(|_| bad("must be a string".into()))?;
    STANDARD.decode(text.trim()).map(Bytes::from).map_err(|e| bad(format!("is not base64: {e}")))
}

fn event_of(mut attributes: BTreeMap<String, Value>) -> Result<Event, CloudEventError> {
    if let Some(name) = attributes.keys().find(|name| !is_attribute_name(name)) {
        return Err(CloudEventError::Name(name.chars().take(64).collect()));
    }
    match text(&mut attributes, "specversion")? {
        Some(version) if version == "1.0" => {}
        Some(version) => return Err(CloudEventError::Version(version)),
        None => return Err(CloudEventError::Missing("specversion")),
    }
    let mut required = |name| text(&mut attributes, name)?.ok_or(CloudEventError::Missing(name));
    let (id, source, kind) = (required("id")?, required("source")?, required("type")?);
    let time = text(&mut attributes, "time")?.unwrap_or_default();
    if !time.is_empty() {
        Timestamp::parse(&time).map_err(|problem| CloudEventError::value("time", problem))?;
    }
    let subject = text(&mut attributes, "subject")?;
    let datacontenttype = text(&mut attributes, "datacontenttype")?;
    let dataschema = text(&mut attributes, "dataschema")?;
    if let Some((name, _)) = attributes.iter().find(|(_, value)| !is_extension_value(value)) {
        return Err(CloudEventError::value(name, "must be a string, a boolean or a 32-bit integer"));
    }
    let extensions = attributes;
    Ok(Event { id, source, kind, subject, time, datacontenttype, dataschema, extensions, ..Event::default() })
}

/// Takes a text attribute; an empty one counts as absent, because re-emitting it would break the schema.
fn text(attributes: &mut BTreeMap<String, Value>, name: &str) -> Result<Option<String>, CloudEventError> {
    match attributes.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|t| !t.is_empty())),
        Some(_) => Err(CloudEventError::value(name, "must be a string")),
    }
}

/// The type system's Integer has 32 bits (CloudEvents 1.0, "Type System").
fn is_extension_value(value: &Value) -> bool {
    match value {
        Value::String(_) | Value::Bool(_) => true,
        Value::Number(n) => n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        _ => false,
    }
}

fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}
