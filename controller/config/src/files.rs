//! Files to [`Loaded`]: the stages one after the other, and what several files must agree on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bellwire_schemas::service::{ControllerSpec, Service};

use crate::context::{Context, Env};
use crate::diagnostic::{Code, Diagnostic, Report, Severity, SourceText};
use crate::lower::{self, Declared, folder};
use crate::schema::shape;
use crate::shape::File;
use crate::tree::{Entry, Kind, Node, Pos};
use crate::yaml::{self, MAX_BYTES};
use crate::{Loaded, Mode, check, defaults, expand};

/// The keys of the controller part: in several files, at most one may have them.
const CONTROLLER_KEYS: [&str; 5] = ["ledger", "listen", "limits", "security", "telemetry"];

/// Reads one file.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load(path: &Path, mode: Mode, env: &dyn Env) -> Result<Loaded, Report> {
    load_many(&[path.to_owned()], mode, env)
}

/// Reads several services, as `run -f a.yaml -f b.yaml` does.
///
/// # Errors
/// Everything that is wrong with each of them, and where they contradict each other.
pub fn load_many(paths: &[PathBuf], mode: Mode, env: &dyn Env) -> Result<Loaded, Report> {
    let mut read = Vec::new();
    for path in paths {
        let file = path.display().to_string();
        read.push(match text_of(path, env) {
            Ok(text) => read_one(&text, &file, folder(path), mode, env),
            Err((message, help)) => One::unreadable(&file, message, help),
        });
    }
    combine(read, paths)
}

/// Reads a text that is at hand; `base` is the folder that its paths start from.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn parse(text: &str, file: &str, base: &Path, mode: Mode, env: &dyn Env) -> Result<Loaded, Report> {
    combine(vec![read_one(text, file, base, mode, env)], &[PathBuf::from(file)])
}

/// One file through all stages.
struct One {
    file: String,
    text: SourceText,
    found: Vec<Diagnostic>,
    lowered: Option<(Service, ControllerSpec)>,
    /// The first key of the controller part.
    controller_key: Option<(String, Pos)>,
    /// Where each source and function stands.
    places: BTreeMap<String, Pos>,
    expanded: String,
    read: BTreeSet<PathBuf>,
}

impl One {
    fn unreadable(file: &str, message: String, help: &str) -> Self {
        let finding = Diagnostic {
            severity: Severity::Error,
            code: Code::Unreadable,
            message,
            file: file.to_owned(),
            line: 0,
            column: 0,
            length: 0,
            path: String::new(),
            help: (!help.is_empty()).then(|| help.to_owned()),
        };
        Self {
            file: file.to_owned(),
            text: SourceText::new(file, ""),
            found: vec![finding],
            lowered: None,
            controller_key: None,
            places: BTreeMap::new(),
            expanded: String::new(),
            read: BTreeSet::new(),
        }
    }
}

fn text_of(path: &Path, env: &dyn Env) -> Result<String, (String, &'static str)> {
    let found = env.read_file(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            ("there is no such file".to_owned(), "`bellwire init` writes one; `-f FILE` names another")
        }
        kind => (format!("this file cannot be read: {kind}"), ""),
    })?;
    if found.bytes.len() > MAX_BYTES {
        return Err((
            "this file is larger than 1 MB".into(),
            "cut it into several services: `run` takes several files",
        ));
    }
    String::from_utf8(found.bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        (format!("this file is not UTF-8 text: the first wrong byte is in line {line}"), "save it as UTF-8")
    })
}

fn read_one(text: &str, file: &str, base: &Path, mode: Mode, env: &dyn Env) -> One {
    if text.len() > MAX_BYTES {
        return One::unreadable(file, "this file is larger than 1 MB".into(), "");
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
    // `.` and `./` would stay in every path that is shown.
    let base: PathBuf = base.components().collect();
    let mut cx = Context {
        file: file.to_owned(),
        base,
        mode,
        env,
        text: SourceText::new(file, text),
        found: Vec::new(),
        read: BTreeSet::new(),
        dropped: BTreeSet::new(),
        hidden: BTreeSet::new(),
        spilled: (0, None),
    };
    let mut one = One::unreadable(file, String::new(), "");
    one.found.clear();
    match yaml::read(text, &mut cx) {
        None if cx.failed() => {}
        Some(root) if !root.scalar().is_some_and(|s| s.value.is_null()) => judge(root, &mut cx, &mut one),
        _ => {
            cx.error(Code::Unreadable, Pos::NOWHERE, "", "this file is empty".into()).help =
                Some("it begins with `service: <name>`; `bellwire init` writes a first one".into());
        }
    }
    if cx.spilled.0 > 0 {
        let message = format!("and {} more like these", cx.spilled.0);
        cx.found.truncate(99);
        cx.error(Code::Unreadable, Pos::NOWHERE, "", message);
    }
    cx.found.sort_by_key(|d| (if d.line == 0 { usize::MAX } else { d.line }, d.column));
    cx.text.finish();
    one.found = cx.found;
    one.text = cx.text;
    one.read = cx.read;
    one
}

fn judge(mut root: Node, cx: &mut Context<'_>, one: &mut One) {
    let names = |key: &str| -> BTreeSet<String> {
        root.get(key).map(Node::entries).unwrap_or_default().iter().map(|e| e.key.clone()).collect()
    };
    let declared = Declared { sources: names("sources"), destinations: names("destinations") };
    for entry in root.entries() {
        if one.controller_key.is_none() && CONTROLLER_KEYS.contains(&entry.key.as_str()) {
            one.controller_key = Some((entry.key.clone(), entry.at));
        }
        if matches!(entry.key.as_str(), "sources" | "destinations" | "functions" | "service" | "namespace") {
            one.places.insert(entry.key.clone(), entry.at);
            for inner in entry.value.entries() {
                let outbox = if entry.key == "destinations" { "destination." } else { "" };
                one.places.insert(format!("{outbox}{}", inner.key), inner.at);
            }
        }
    }
    let shape = shape();
    check::check(&mut root, shape, cx);
    if root.get("service").is_none()
        && let Kind::Map(entries) = &mut root.kind
    {
        // Said already; the rest of the file is judged all the same.
        let at = Pos::new(1, 1, 1);
        entries.push(Entry { key: "service".into(), at, value: Node::made(&"unnamed".into(), at) });
    }
    if let Err(message) = defaults::bounded(&root) {
        let at = root.entry("functions").map_or(Pos::NOWHERE, |e| e.at);
        cx.error(Code::BadValue, at, "", message).help = Some("cut it into several services".into());
        return;
    }
    defaults::merge(&mut root);
    defaults::fill(&mut root, shape);
    match serde_json::from_value::<File>(root.to_json()) {
        Ok(file) => {
            let lowered = lower::lower(&file, &root, &declared, cx);
            one.lowered = Some((lowered.service, lowered.controller));
            one.expanded = expand::print(&root);
        }
        Err(e) => {
            let message = format!("this file cannot be read: {e}");
            cx.error(Code::BadValue, Pos::NOWHERE, "", message);
        }
    }
}

fn combine(mut read: Vec<One>, paths: &[PathBuf]) -> Result<Loaded, Report> {
    agree(&mut read);
    let found: Vec<Diagnostic> = read.iter().flat_map(|one| one.found.clone()).collect();
    let sources: Vec<SourceText> = read.iter().map(|one| one.text.clone()).collect();
    let failed = found.iter().any(|d| d.severity == Severity::Error);
    let with_controller = read.iter().position(|one| one.controller_key.is_some()).unwrap_or(0);
    let controller = read.get(with_controller).and_then(|one| one.lowered.as_ref().map(|(_, c)| c.clone()));
    let Some(controller) = controller.filter(|_| !failed) else {
        return Err(Report { diagnostics: found, sources });
    };
    let mut files = paths.to_vec();
    files.extend(read.iter().flat_map(|one| one.read.clone()).collect::<BTreeSet<_>>());
    let expanded = read.iter().map(|one| one.expanded.as_str()).collect::<Vec<_>>().join("---\n");
    let mut services: Vec<Service> = read.into_iter().filter_map(|one| one.lowered.map(|(s, _)| s)).collect();
    allow_private(&mut services, &controller);
    Ok(Loaded { services, controller, warnings: found, files, sources, expanded })
}

/// A host that the controller part of one file lists may be called from all.
fn allow_private(services: &mut [Service], controller: &ControllerSpec) {
    for function in services.iter_mut().flat_map(|s| s.functions.iter_mut()) {
        if let bellwire_schemas::service::Target::Url(url) = &function.target {
            let host = lower::host_of(url).to_lowercase();
            let listed = controller.allow_private_urls.iter().any(|l| l.eq_ignore_ascii_case(&host));
            function.request.allow_private |= listed;
        }
    }
}

/// What several files must not contradict each other in: controller part, namespace, names.
fn agree(read: &mut [One]) {
    for later in 1..read.len() {
        for earlier in 0..later {
            let conflicts = conflicts(&read[earlier], &read[later]);
            let one = &mut read[later];
            for (at, message, help) in conflicts {
                one.found.push(Diagnostic {
                    severity: Severity::Error,
                    code: Code::Conflict,
                    message,
                    file: one.file.clone(),
                    line: at.line,
                    column: at.column,
                    length: at.length,
                    path: String::new(),
                    help: Some(help.to_owned()),
                });
            }
        }
    }
}

fn conflicts(a: &One, b: &One) -> Vec<(Pos, String, &'static str)> {
    let mut out = Vec::new();
    if let (Some(_), Some((key, at))) = (&a.controller_key, &b.controller_key) {
        let message = format!("`{key}`: {} has a controller part already", a.file);
        out.push((*at, message, "of several files, one says how the process runs"));
    }
    let (Some((one, _)), Some((two, _))) = (&a.lowered, &b.lowered) else { return out };
    let place = |name: &str| b.places.get(name).copied().unwrap_or(Pos::NOWHERE);
    if one.name == two.name {
        out.push((
            place("service"),
            format!("{} is the service `{}` already", a.file, one.name),
            "give each file a name of its own",
        ));
    }
    if one.namespace != two.namespace {
        let message = format!(
            "several namespaces in one controller are not supported yet: {} is in `{}`",
            a.file, one.namespace
        );
        out.push((place("namespace"), message, "start one controller for each namespace"));
    }
    for function in &two.functions {
        if one.functions.iter().any(|f| f.name == function.name) {
            let name = function.name.as_str();
            let (kind, name) = name.split_once('.').unwrap_or(("function", name));
            let message = format!("{} has a {kind} `{name}` already", a.file);
            out.push((
                place(function.name.as_str()),
                message,
                "bindings are named by it: give each a name of its own",
            ));
        }
    }
    for source in &two.sources {
        if one.sources.iter().any(|s| s.name == source.name && s != source) {
            let message = format!("{} has a source `{}` that differs", a.file, source.name);
            out.push((place(source.name.as_str()), message, "give each a name of its own under `sources:`"));
        }
    }
    out
}
