//! Functions: what is called, and with which limits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bellwire_schemas::FunctionName;
use bellwire_schemas::service::{Auth, Format, FunctionSpec, RequestSpec, Secret, Target, Warm};

use super::{command, handler, host_of};
use crate::Mode;
use crate::context::Context;
use crate::diagnostic::{Code, shown};
use crate::shape::{Command, FormatWord, Function, Request};
use crate::source_text::Blot;
use crate::tree::{At, Node};

/// Longest deadline of one invocation.
const MAX_TIMEOUT: Duration = Duration::from_secs(12 * 3600);

/// Variables that the Lambda runtime contract sets itself (AWS Lambda Developer Guide, "Defined runtime
/// environment variables"): the official clients read them.
const RESERVED: [&str; 4] = ["AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "_HANDLER"];

/// Lowers one function; `None` after an error about what it is.
pub(super) fn lower(
    name: &str,
    function: &Function,
    at: &At<'_>,
    cx: &mut Context<'_>,
) -> Option<FunctionSpec> {
    let settings = &function.settings;
    limits(function, at, cx);
    let environment = environment(at, cx);
    let found = target(function, at, cx)?;
    let format = match settings.format {
        None | Some(FormatWord::Lambda) => Format::Lambda,
        Some(FormatWord::Cloudevents) => Format::Cloudevents,
        Some(FormatWord::CloudeventsStructured) => Format::CloudeventsStructured,
        Some(FormatWord::CloudeventsBatch) => Format::CloudeventsBatch,
        Some(FormatWord::Json) => Format::Json,
    };
    let request = request(settings.request.as_ref(), &found.target, at, cx);
    Some(FunctionSpec {
        name: FunctionName::new(name),
        target: found.target,
        code: found.code,
        timeout: settings.timeout.0,
        memory: settings.memory,
        concurrency: settings.concurrency.unwrap_or(10),
        warm: Warm { min: settings.warm.min, idle: settings.warm.idle.0 },
        environment,
        format,
        request,
    })
}

fn limits(function: &Function, at: &At<'_>, cx: &mut Context<'_>) {
    let settings = &function.settings;
    let mut refuse = |key: &str, message: &str| {
        let at = at.key(key);
        cx.error(Code::BadValue, at.node.at, &at.within, message.to_owned());
    };
    if settings.timeout.0.is_zero() || settings.timeout.0 > MAX_TIMEOUT {
        refuse("timeout", "`timeout` is more than 0s and at most 12h");
    }
    if settings.memory.0 < 1 << 20 {
        refuse("memory", "`memory` is at least 1MB");
    }
    if settings.concurrency.is_some_and(|most| settings.warm.min > most) {
        refuse("warm", "more workers are kept warm than `concurrency` lets run");
    }
}

fn target(function: &Function, at: &At<'_>, cx: &mut Context<'_>) -> Option<handler::Found> {
    let settings = &function.settings;
    let mut good = true;
    let code = settings.code.as_ref().map(|code| cx.resolve(&code.0));
    if let Some(folder) = &code
        && !cx.env.is_folder(folder)
    {
        let at = at.key("code");
        let message = format!("the folder `{}` is not there", shown(at.node.text().unwrap_or_default()));
        cx.error(Code::BadValue, at.node.at, &at.within, message).help =
            Some("`code` is relative to this file".into());
        good = false;
    }
    let mut runtime = None;
    if let Some(word) = &settings.runtime {
        let at = at.key("runtime");
        if function.handler.is_none() {
            let message = "`runtime` belongs to `handler`".to_owned();
            cx.error(Code::Conflict, at.key, &at.within, message).help =
                Some("a `command` brings its own, and a `url` needs none: take it out".into());
            good = false;
        }
        match handler::runtime(&word.0) {
            Ok(found) => runtime = Some(found),
            Err(help) => {
                let message = format!("unknown runtime `{}`", shown(&word.0));
                cx.error(Code::BadValue, at.node.at, &at.within, message).help = Some(help.into());
                good = false;
            }
        }
    }
    if settings.request.is_some() && function.url.is_none() {
        let at = at.key("request");
        cx.error(Code::Conflict, at.key, &at.within, "`request` belongs to `url`".into()).help =
            Some("a handler gets its settings through `environment`".into());
        good = false;
    }
    if !good {
        return None;
    }
    if let Some(handler) = &function.handler {
        return handler::find(&handler.0, code, runtime, at, cx);
    }
    let code: PathBuf = code.unwrap_or_else(|| cx.base.clone());
    if let Some(command) = &function.command {
        let words = words(command, at, cx)?;
        return Some(handler::Found { target: Target::Command(words), code });
    }
    let url = function.url.as_ref()?;
    check_url(&url.0, at, cx)?;
    Some(handler::Found { target: Target::Url(url.0.clone()), code })
}

fn words(command: &Command, at: &At<'_>, cx: &mut Context<'_>) -> Option<Vec<String>> {
    let split = match command {
        Command::Words(words) => Ok(words.iter().map(|w| w.0.clone()).collect()),
        Command::Line(line) => command::split(&line.0),
    };
    let at = at.key("command");
    let why = match split {
        Ok(words) if words.first().is_some_and(|program| !program.is_empty()) => return Some(words),
        Ok(_) => "it names no program",
        Err(why) => why,
    };
    cx.error(Code::BadValue, at.node.at, &at.within, format!("this command cannot be read: {why}")).help =
        Some("no shell reads it; a list of words is taken as it is".into());
    None
}

/// Refuses URLs without a host or with a password in them.
fn check_url(url: &str, at: &At<'_>, cx: &mut Context<'_>) -> Option<()> {
    let authority = url.split('/').nth(2).unwrap_or_default();
    let at = at.key("url");
    if authority.contains('@') {
        cx.text.blot(at.node.at, Blot::Whole);
        cx.error(Code::BadValue, at.key, &at.within, "a URL holds no user and password here".into()).help =
            Some("write `request: { auth: { basic: ${env:NAME} } }`".into());
        return None;
    }
    if host_of(url).is_empty() {
        cx.error(Code::BadValue, at.node.at, &at.within, "this URL names no host".into());
        return None;
    }
    Some(())
}

fn environment(at: &At<'_>, cx: &mut Context<'_>) -> BTreeMap<String, Secret> {
    let at = at.key("environment");
    let mut out = BTreeMap::new();
    if at.path.ends_with("environment") {
        for entry in at.node.entries() {
            if RESERVED.contains(&entry.key.as_str()) {
                let message = format!("`{}` is set for every worker and cannot be chosen", entry.key);
                cx.error(Code::Conflict, entry.at, &at.path, message);
            }
            let value = variable(&entry.value);
            if value.contains('\0') {
                cx.error(Code::BadValue, entry.value.at, &at.path, "a variable cannot hold a NUL".into());
            }
            out.insert(entry.key.clone(), Secret::new(value));
        }
    }
    out
}

/// A value as it was written, or what its reference stands for: `1.10` stays `1.10`.
pub(super) fn variable(node: &Node) -> String {
    let Some(scalar) = node.scalar() else { return String::new() };
    scalar.value.as_str().map_or_else(|| scalar.raw.clone(), str::to_owned)
}

fn request(request: Option<&Request>, target: &Target, at: &At<'_>, cx: &mut Context<'_>) -> RequestSpec {
    if !matches!(target, Target::Url(_)) {
        return RequestSpec::default();
    }
    // Hosts that `security.allow_private_urls` lists are added when all files are read.
    let mut spec = RequestSpec { allow_private: cx.mode == Mode::Dev, ..RequestSpec::default() };
    let Some(request) = request else { return spec };
    let headers = at.key("request").key("headers");
    let written = if request.headers.is_empty() { &[] } else { headers.node.entries() };
    for entry in written {
        let value = variable(&entry.value);
        if value.chars().any(char::is_control) {
            let message = "a header is one line without control characters".to_owned();
            cx.error(Code::BadValue, entry.value.at, &headers.path, message);
        }
        spec.headers.insert(entry.key.clone(), Secret::new(value));
    }
    spec.signing_secret = request.signing_secret.as_ref().map(|s| Secret::new(&*s.0));
    spec.auth = request.auth.as_ref().and_then(|auth| match (&auth.bearer, &auth.basic) {
        (Some(token), _) => Some(Auth::Bearer(Secret::new(&*token.0))),
        (None, Some(pair)) => {
            if !pair.0.contains(':') {
                let at = at.key("request").key("auth").key("basic");
                cx.error(Code::BadValue, at.key, &at.within, "`basic` is `user:password`".into());
            }
            Some(Auth::Basic(Secret::new(&*pair.0)))
        }
        (None, None) => None,
    });
    spec
}
