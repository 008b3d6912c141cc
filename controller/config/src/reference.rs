//! `${env:NAME}`, `${env:NAME, 'default'}` and `${file:path}`: found in a text, replaced by what they name.

use crate::context::Context;

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Variable { name: String, default: Option<String> },
    File(String),
}

/// What is wrong with a reference.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub message: String,
    pub help: String,
}

/// A text with its references replaced.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub text: String,
    /// The text is one reference and nothing else.
    pub whole: bool,
    /// A default is written beside one of them.
    pub has_default: bool,
    /// A file behind one of them can be read by others.
    pub exposed: Option<String>,
}

/// Cuts a text into its parts; `None` when there is no reference in it.
pub(crate) fn parse(text: &str) -> Result<Option<Vec<Part>>, Broken> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let body = &rest[start + 2..];
        let Some((scheme, tail)) = scheme(body) else {
            // Something else's `${…}`, such as a shell variable in a command.
            plain.push_str(&rest[..start + 2]);
            rest = body;
            continue;
        };
        plain.push_str(&rest[..start]);
        let (part, after) = match scheme {
            "env" => variable(tail)?,
            "file" => file(tail)?,
            other => return Err(unknown(other)),
        };
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(part);
        rest = after;
    }
    if parts.is_empty() {
        return Ok(None);
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(Some(parts))
}

/// Replaces the references of a text; `None` when it has none.
pub(crate) fn resolve(text: &str, cx: &mut Context<'_>) -> Result<Option<Resolved>, Broken> {
    let Some(parts) = parse(text)? else { return Ok(None) };
    let whole = matches!(parts.as_slice(), [Part::Variable { .. } | Part::File(_)]);
    let mut out = Resolved { text: String::new(), whole, has_default: false, exposed: None };
    for part in parts {
        match part {
            Part::Text(text) => out.text.push_str(&text),
            Part::Variable { name, default } => {
                out.has_default |= default.is_some();
                let value = cx.env.var(&name).or(default).ok_or_else(|| Broken {
                    message: format!("the variable `{name}` is not set"),
                    help: format!(
                        "set it where the controller runs, or give a default: `${{env:{name}, '…'}}`"
                    ),
                })?;
                cx.hide(&value);
                out.text.push_str(&value);
            }
            Part::File(path) => {
                let value = content(&path, cx, &mut out.exposed)?;
                cx.hide(&value);
                out.text.push_str(&value);
            }
        }
        if out.text.len() > crate::MAX_BYTES {
            return Err(Broken { message: "this value grows beyond 1 MB".into(), help: String::new() });
        }
    }
    Ok(Some(out))
}

/// The references of a hidden text; what is written beside them, and their defaults, are blotted out.
pub(crate) fn references_only(text: &str) -> String {
    let Ok(Some(parts)) = parse(text) else { return "***".into() };
    parts
        .into_iter()
        .map(|part| match part {
            Part::Text(_) => "***".into(),
            Part::Variable { name, default: Some(_) } => format!("${{env:{name}, '***'}}"),
            Part::Variable { name, default: None } => format!("${{env:{name}}}"),
            Part::File(path) => format!("${{file:{path}}}"),
        })
        .collect()
}

/// `word:` at the start. A shell's `:-`, `:=`, `:?` and `:+` are not ours.
fn scheme(body: &str) -> Option<(&str, &str)> {
    let (word, tail) = body.split_once(':')?;
    let ours = !word.is_empty()
        && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && !tail.starts_with(['-', '=', '?', '+']);
    ours.then_some((word, tail))
}

fn variable(tail: &str) -> Result<(Part, &str), Broken> {
    let tail = tail.trim_start();
    let end = tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(tail.len());
    let (name, rest) = tail.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(bad("names no variable"));
    }
    let name = name.to_owned();
    let rest = rest.trim_start();
    if let Some(after) = rest.strip_prefix('}') {
        return Ok((Part::Variable { name, default: None }, after));
    }
    let Some(rest) = rest.strip_prefix(',').map(str::trim_start) else {
        return Err(bad("does not end behind its name"));
    };
    let (default, rest) = match rest.chars().next() {
        Some(quote @ ('\'' | '"')) => {
            rest[1..].split_once(quote).ok_or_else(|| bad("has a default whose quote does not end"))?
        }
        _ => {
            let end = rest.find('}').ok_or_else(|| bad("does not end"))?;
            (rest[..end].trim_end(), &rest[end..])
        }
    };
    let after = rest.trim_start().strip_prefix('}').ok_or_else(|| bad("does not end behind its default"))?;
    Ok((Part::Variable { name, default: Some(default.to_owned()) }, after))
}

fn file(tail: &str) -> Result<(Part, &str), Broken> {
    let (path, after) = tail.split_once('}').ok_or_else(|| bad("does not end"))?;
    let path = path.trim();
    if path.is_empty() || path.contains('\0') {
        return Err(bad("names no file"));
    }
    Ok((Part::File(path.to_owned()), after))
}

fn bad(what: &str) -> Broken {
    Broken {
        message: format!("this reference {what}"),
        help: "references are written `${env:NAME}`, `${env:NAME, 'default'}` and `${file:path}`".into(),
    }
}

fn unknown(scheme: &str) -> Broken {
    let help = match scheme {
        "self" | "opt" | "param" | "sls" | "aws" | "cf" | "s3" | "ssm" => {
            "serverless.yml resolves it at deploy; here the controller reads `${env:NAME}` and `${file:path}` when it starts"
        }
        _ => "there are `${env:NAME}`, `${env:NAME, 'default'}` and `${file:path}`",
    };
    Broken { message: format!("`${{{scheme}:…}}` is no reference"), help: help.into() }
}

fn content(path: &str, cx: &mut Context<'_>, exposed: &mut Option<String>) -> Result<String, Broken> {
    let full = cx.resolve(path);
    let found = cx.env.read_file(&full).map_err(|e| Broken {
        message: match e.kind() {
            std::io::ErrorKind::NotFound => format!("the file `{path}` is not there"),
            kind => format!("the file `{path}` cannot be read: {kind}"),
        },
        help: "paths are relative to this file".into(),
    })?;
    cx.read.insert(full);
    if found.others_can_read {
        *exposed = Some(path.to_owned());
    }
    let text = String::from_utf8(found.bytes).map_err(|_| Broken {
        message: format!("the file `{path}` is not UTF-8 text"),
        help: String::new(),
    })?;
    // Editors and `echo` end a file with a line break that nobody means.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn var(name: &str, default: Option<&str>) -> Part {
        Part::Variable { name: name.into(), default: default.map(Into::into) }
    }

    #[test]
    fn references_are_found_in_any_text() {
        assert_eq!(parse("plain ${HOME} ${X:-y} $${}"), Ok(None));
        assert_eq!(parse("${env:A}"), Ok(Some(vec![var("A", None)])));
        assert_eq!(parse("${env:A, 'x, }y'}"), Ok(Some(vec![var("A", Some("x, }y"))])));
        assert_eq!(parse("${env:A,\"\"}"), Ok(Some(vec![var("A", Some(""))])));
        assert_eq!(parse("${env: A , 12 }"), Ok(Some(vec![var("A", Some("12"))])));
        assert_eq!(
            parse("a${env:B}c${file:./d e}"),
            Ok(Some(vec![
                Part::Text("a".into()),
                var("B", None),
                Part::Text("c".into()),
                Part::File("./d e".into())
            ]))
        );
    }

    #[test]
    fn broken_references_are_refused() {
        for text in [
            "${env:}",
            "${env:1A}",
            "${env:A",
            "${env:A 'x'}",
            "${env:A, 'x}",
            "${env:A, 'x' y}",
            "${file:}",
            "${file:x",
            "${self:x}",
            "${evn:A}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn defaults_are_blotted_out() {
        assert_eq!(references_only("a ${env:A, 'secret'}"), "***${env:A, '***'}");
        assert_eq!(references_only("literal"), "***");
    }
}
