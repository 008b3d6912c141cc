//! `handler: dir/module.function`: which file is meant, in which language.

use std::path::{Path, PathBuf};

use bellwire_schemas::service::Target;

use crate::context::Context;
use crate::diagnostic::{Code, shown};
use crate::tree::At;

/// A language with a bundled bootstrap, and the version that is demanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Runtime {
    Python(Option<String>),
    Node(Option<String>),
}

/// Reads `runtime`.
///
/// # Errors
/// When no bundled bootstrap has that name; the text is the help.
pub(super) fn runtime(word: &str) -> Result<Runtime, &'static str> {
    let digits = |text: &str| (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    match word {
        "python3" => return Ok(Runtime::Python(None)),
        "nodejs" => return Ok(Runtime::Node(None)),
        _ => {}
    }
    if let Some(minor) = word.strip_prefix("python3.").filter(|minor| digits(minor)) {
        return Ok(Runtime::Python(Some(format!("3.{minor}"))));
    }
    if let Some(major) =
        word.strip_prefix("nodejs").and_then(|w| w.strip_suffix(".x")).filter(|major| digits(major))
    {
        return Ok(Runtime::Node(Some(major.to_owned())));
    }
    if word.starts_with("provided") {
        return Err(
            "for a program that speaks the Runtime API write `command: ./bootstrap` instead of `handler` and `runtime`",
        );
    }
    Err(
        "there are `python3` and `nodejs`, and Lambda's ids of them, such as `python3.12` and `nodejs22.x`; anything else runs as `command`",
    )
}

/// Where a handler lies.
#[derive(Debug)]
pub(super) struct Found {
    pub target: Target,
    pub code: PathBuf,
}

/// Finds the file of a handler; `None` after an error.
pub(super) fn find(
    handler: &str,
    code: Option<PathBuf>,
    runtime: Option<Runtime>,
    at: &At<'_>,
    cx: &mut Context<'_>,
) -> Option<Found> {
    let at = at.key("handler");
    let mut refuse = |message: String, help: &str| {
        cx.error(Code::BadValue, at.node.at, &at.within, message).help = Some(help.to_owned());
    };
    let clean = handler.strip_prefix("./").unwrap_or(handler);
    let (dir, last) = clean.rsplit_once('/').unwrap_or(("", clean));
    let parts =
        |text: &str, by: char| text.split(by).all(|part| !part.is_empty() && part != "." && part != "..");
    if !last.contains('.') || !parts(last, '.') || !(dir.is_empty() || parts(dir, '/')) {
        refuse(
            format!("`{}` names no function", shown(handler)),
            "write `dir/module.function`, such as `app/price.handler`",
        );
        return None;
    }
    // Without `code`, the file's folder is the code, and the handler is named from there.
    let (code, name) = match code {
        Some(code) => (code, clean.to_owned()),
        None => (cx.resolve(dir), last.to_owned()),
    };
    let mut found = Vec::new();
    let mut missed = Vec::new();
    for path in candidates(&name, runtime.as_ref()) {
        if cx.env.is_file(&code.join(&path)) { found.push(path) } else { missed.push(format!("`{path}`")) }
    }
    let python = |path: &String| Path::new(path).extension().is_some_and(|e| e == "py");
    let target = match (found.iter().any(python), found.iter().any(|p| !python(p)), runtime) {
        (true, true, None) => {
            let list = found.iter().map(|p| format!("`{p}`")).collect::<Vec<_>>().join(" and ");
            refuse_at(
                cx,
                &at,
                Code::Conflict,
                format!("both {list} could be meant"),
                "say which with `runtime: python3` or `runtime: nodejs`",
            );
            return None;
        }
        (true, _, Some(Runtime::Python(version))) => Target::Python { handler: name, version },
        (true, _, None) => Target::Python { handler: name, version: None },
        (_, true, Some(Runtime::Node(version))) => Target::Node { handler: name, version },
        (_, true, None) => Target::Node { handler: name, version: None },
        _ => {
            let folder = code.strip_prefix(&cx.base).unwrap_or(&code).display().to_string();
            let folder =
                if folder.is_empty() { "the folder of this file".into() } else { format!("`{folder}`") };
            let message =
                format!("the handler's file is not there: looked for {} in {folder}", missed.join(", "));
            let stem = name.split('.').next().unwrap_or_default().to_owned();
            let typescript = cx.env.is_file(&code.join(format!("{stem}.ts")));
            let help = if typescript {
                "TypeScript is not run as it is: compile it, and name the JavaScript"
            } else {
                "`dir/module.function` is relative to this file, or to `code`"
            };
            refuse_at(cx, &at, Code::BadValue, message, help);
            return None;
        }
    };
    Some(Found { target, code })
}

fn refuse_at(cx: &mut Context<'_>, at: &At<'_>, code: Code, message: String, help: &str) {
    cx.error(code, at.node.at, &at.within, message).help = Some(help.to_owned());
}

/// Files that a handler's name can mean. Python takes the text behind the last dot as the function, and dots
/// before it as packages; Node.js takes what is behind the first dot of the last part.
fn candidates(name: &str, runtime: Option<&Runtime>) -> Vec<String> {
    let mut out = Vec::new();
    if !matches!(runtime, Some(Runtime::Node(_)))
        && let Some((module, _)) = name.rsplit_once('.')
    {
        out.push(format!("{}.py", module.replace('.', "/")));
    }
    if !matches!(runtime, Some(Runtime::Python(_))) {
        let (dir, last) = name.rsplit_once('/').map_or(("", name), |(d, l)| (d, l));
        let file = last.split('.').next().unwrap_or(last);
        let slash = if dir.is_empty() { "" } else { "/" };
        out.extend(["js", "mjs", "cjs"].map(|end| format!("{dir}{slash}{file}.{end}")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_read_as_lambda_writes_them() {
        assert_eq!(runtime("python3"), Ok(Runtime::Python(None)));
        assert_eq!(runtime("python3.12"), Ok(Runtime::Python(Some("3.12".into()))));
        assert_eq!(runtime("nodejs22.x"), Ok(Runtime::Node(Some("22".into()))));
        for bad in ["python", "python2.7", "python3.", "nodejs22", "go1.x", "provided.al2023", "java21"] {
            assert!(runtime(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn handlers_mean_files() {
        let python = Runtime::Python(None);
        assert_eq!(candidates("a.b.handler", Some(&python)), ["a/b.py"]);
        assert_eq!(candidates("src/index.sub.handler", Some(&Runtime::Node(None)))[0], "src/index.js");
        assert_eq!(candidates("hello.handler", None), ["hello.py", "hello.js", "hello.mjs", "hello.cjs"]);
    }
}
