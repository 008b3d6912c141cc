//! The sample events of a service: `samples/*.json` beside its `bellwire.yaml`, sent by `dev --samples`.
//!
//! A file is one event, the files are sent in the order of their names:
//! `{"source": "s3.photos", "data": {…}, "after_ms": 500, "content_type": "application/json"}`. `data` is the body as
//! the sender would post it, JSON or a text; without it the source's own sample (for a schedule: a tick) is sent.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bellwire_schemas::SourceName;
use bellwire_schemas::api::SendRequest;
use serde::Deserialize;
use serde_json::Value;

use super::commands::send::media_type;

/// The most files read from one folder.
const MAX_FILES: usize = 1_000;
/// The largest file, in bytes: the default of `limits.event_size`.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The longest pause before a sample.
const MAX_AFTER: Duration = Duration::from_secs(60);

/// One sample event.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The source through whose door it goes.
    pub source: SourceName,
    /// The pause before it.
    pub after: Duration,
    /// What is sent.
    pub request: SendRequest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    #[serde(default)]
    after_ms: u64,
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    content_type: Option<String>,
}

/// Reads the samples beside the configuration in `folder`, in the order of their file names. No folder, no samples.
///
/// # Errors
/// When a file is not readable or not understood; the message names it.
pub fn load(folder: &Path) -> anyhow::Result<Vec<Sample>> {
    let folder = folder.join("samples");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("read the folder {}", folder.display()))? {
        let path = entry.with_context(|| format!("read the folder {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
        if paths.len() > MAX_FILES {
            bail!("{} holds more than {MAX_FILES} samples", folder.display());
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| read(path).with_context(|| format!("read the sample {}", path.display())))
        .collect()
}

fn read(path: &Path) -> anyhow::Result<Sample> {
    if fs::metadata(path)?.len() > MAX_FILE_BYTES {
        bail!("it is larger than 1 MB");
    }
    let file: File = serde_json::from_str(&fs::read_to_string(path)?)?;
    let data = file.data.map(|data| match data {
        Value::String(text) => text,
        json => json.to_string(),
    });
    let content_type = file.content_type.or_else(|| data.as_deref().and_then(media_type).map(String::from));
    Ok(Sample {
        source: SourceName::new(file.source),
        after: Duration::from_millis(file.after_ms).min(MAX_AFTER),
        request: SendRequest { data, content_type, sample: None, count: None },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(folder.path()).unwrap().is_empty());
        let samples = folder.path().join("samples");
        fs::create_dir(&samples).unwrap();
        fs::write(
            samples.join("02.json"),
            r#"{"source": "topic.t", "data": "plain", "content_type": "text/plain"}"#,
        )
        .unwrap();
        fs::write(
            samples.join("01.json"),
            r#"{"source": "s3.photos", "after_ms": 500, "data": {"Records": []}}"#,
        )
        .unwrap();
        fs::write(samples.join("03.json"), r#"{"source": "schedule.report"}"#).unwrap();
        fs::write(samples.join("notes.txt"), "not a sample").unwrap();
        let read = load(folder.path()).unwrap();
        let shown: Vec<_> = read
            .iter()
            .map(|s| (s.source.as_str(), s.after.as_millis(), s.request.data.as_deref()))
            .collect();
        let expected = [
            ("s3.photos", 500, Some(r#"{"Records":[]}"#)),
            ("topic.t", 0, Some("plain")),
            ("schedule.report", 0, None),
        ];
        assert_eq!(shown, expected);
        fs::write(samples.join("04.json"), r#"{"sorce": "x"}"#).unwrap();
        let error = format!("{:#}", load(folder.path()).unwrap_err());
        assert!(error.contains("04.json") && error.contains("sorce"), "{error}");
    }

    #[test]
    fn the_samples_of_the_examples_are_readable() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let samples = load(&examples.join("thumbnails")).unwrap();
        assert!(samples.len() >= 4, "delivered, retried, dead, filtered");
    }
}
