//! `event`, `prefix` and `suffix` of an inline `s3` source: a filter in short words.

use serde_json::{Map, Value, json};

/// What CloudEvents' S3 adapter puts before the event's name.
const TYPE: &str = "com.amazonaws.s3.";

/// The condition on `type` and the one on `subject`; `None` where nothing is asked.
pub(super) fn condition(events: &[String], prefixes: &[String], suffixes: &[String]) -> Map<String, Value> {
    let mut out = Map::new();
    if !events.is_empty() {
        out.insert("type".into(), events.iter().map(|e| event(e)).collect());
    }
    let subjects = subjects(prefixes, suffixes);
    if !subjects.is_empty() {
        out.insert("subject".into(), Value::Array(subjects));
    }
    out
}

fn event(word: &str) -> Value {
    let word = word.strip_prefix("s3:").unwrap_or(word);
    match word.strip_suffix('*') {
        Some(kind) => json!({ "prefix": format!("{TYPE}{kind}") }),
        None => json!(format!("{TYPE}{word}")),
    }
}

fn subjects(prefixes: &[String], suffixes: &[String]) -> Vec<Value> {
    match (prefixes, suffixes) {
        (prefixes, []) => prefixes.iter().map(|p| json!({ "prefix": p })).collect(),
        ([], suffixes) => suffixes.iter().map(|s| json!({ "suffix": s })).collect(),
        _ => prefixes.iter().flat_map(|p| suffixes.iter().flat_map(move |s| both(p, s))).collect(),
    }
}

/// Keys that begin with one text and end with another. The wildcard holds where the two do not overlap; the few
/// shorter keys in which they do are listed one by one.
fn both(prefix: &str, suffix: &str) -> Vec<Value> {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('*', "\\*");
    let mut out = vec![json!({ "wildcard": format!("{}*{}", escape(prefix), escape(suffix)) })];
    let cuts = suffix.char_indices().map(|(i, _)| i).skip(1).chain([suffix.len()]);
    for cut in cuts {
        if prefix.ends_with(&suffix[..cut]) {
            out.push(json!(format!("{prefix}{}", &suffix[cut..])));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_words_become_patterns() {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let check = |e: &[&str], p: &[&str], s: &[&str], expected: Value| {
            assert_eq!(Value::Object(condition(&words(e), &words(p), &words(s))), expected);
        };
        check(&[], &[], &[], json!({}));
        check(
            &["s3:ObjectCreated:*", "ObjectRemoved:Delete"],
            &[],
            &[".jpg", ".png"],
            json!({
                "type": [{"prefix": "com.amazonaws.s3.ObjectCreated:"}, "com.amazonaws.s3.ObjectRemoved:Delete"],
                "subject": [{"suffix": ".jpg"}, {"suffix": ".png"}],
            }),
        );
        check(&[], &["raw/"], &["*.jpg"], json!({ "subject": [{"wildcard": "raw/*\\*.jpg"}] }));
        check(&[], &["a.b"], &[".bc"], json!({ "subject": [{"wildcard": "a.b*.bc"}, "a.bc"] }));
    }
}
