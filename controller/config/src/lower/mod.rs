//! The checked file to the types that the other rooms read. Everything that needs two keys at once, or the
//! world outside (patterns, schedules, folders), is judged here. Read `bindings.rs` first.

mod bindings;
mod command;
mod controller;
mod functions;
mod handler;
pub(crate) mod ledger;
mod objects;
mod sources;

use std::collections::BTreeSet;
use std::path::Path;

pub use controller::door_of_flag;

use bellwire_schemas::service::{ControllerSpec, Service};

use crate::context::Context;
use crate::shape::File;
use crate::shape::words::FunctionId;
use crate::tree::{At, Node};

/// What one file says, and whether it says anything about the controller.
pub(crate) struct Lowered {
    pub service: Service,
    pub controller: ControllerSpec,
}

/// Lowers a file. `declared` are the names under `sources:` as written, those of refused sources included.
pub(crate) fn lower(file: &File, root: &Node, declared: &BTreeSet<String>, cx: &mut Context<'_>) -> Lowered {
    let top = At::root(root);
    let mut sources = sources::Sources::new(declared);
    sources.declare(file, &top, cx);
    let mut service =
        Service { name: file.service.0.clone(), namespace: file.namespace.0.clone(), ..Service::default() };
    // In the order of the file, which is the order that people look for.
    let functions = top.key("functions");
    for entry in root.get("functions").map(Node::entries).unwrap_or_default() {
        let Some(function) = file.functions.get(&FunctionId(entry.key.clone())) else { continue };
        let at = functions.entry(entry);
        if let Some(spec) = functions::lower(&entry.key, function, &at, cx) {
            service.functions.push(spec);
        }
        service.bindings.extend(bindings::lower(&entry.key, function, &at, &mut sources, cx));
    }
    service.sources = sources.finish();
    Lowered { service, controller: controller::lower(file, &top, cx) }
}

/// The folder that a path lies in; the current one for a bare name.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The host of a URL, without brackets; empty where there is none.
pub(crate) fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let bracketed = authority.strip_prefix('[').and_then(|a| a.split_once(']')).map(|(host, _)| host);
    bracketed.unwrap_or_else(|| authority.split(':').next().unwrap_or_default())
}
