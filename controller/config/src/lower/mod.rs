//! The checked file to the types that the other rooms read. Everything that needs two keys at once, or the
//! world outside (patterns, schedules, folders), is judged here. Read `bindings.rs` first.

mod bindings;
pub(crate) mod brokers;
mod command;
mod controller;
mod destinations;
mod functions;
mod handler;
mod kinds;
pub(crate) mod ledger;
mod objects;
mod policy;
mod sources;
pub(crate) mod url;

use std::collections::BTreeSet;
use std::path::Path;

pub use controller::door_of_flag;

use bellwire_schemas::service::{ControllerSpec, Service};

use crate::context::Context;
use crate::shape::words::FunctionId;
use crate::shape::{File, Sending};
use crate::tree::{At, Node};

/// What one file says, and whether it says anything about the controller.
pub(crate) struct Lowered {
    pub service: Service,
    pub controller: ControllerSpec,
}

/// Names as written, those of refused parts included: nothing is said about a part that another error took out.
#[derive(Default)]
pub(crate) struct Declared {
    pub sources: BTreeSet<String>,
    pub destinations: BTreeSet<String>,
}

/// Lowers a file.
pub(crate) fn lower(file: &File, root: &Node, declared: &Declared, cx: &mut Context<'_>) -> Lowered {
    let top = At::root(root);
    let mut sources = sources::Sources::new(file, &declared.sources);
    sources.declare(file, &top, cx);
    let mut destinations = destinations::Destinations::default();
    destinations.declare(file, &top, &declared.destinations, cx);
    let mut service =
        Service { name: file.service.0.clone(), namespace: file.namespace.0.clone(), ..Service::default() };
    // In the order of the file, which is the order that people look for.
    let functions = top.key("functions");
    let mut entries = Vec::new();
    for entry in root.get("functions").map(Node::entries).unwrap_or_default() {
        let Some(function) = file.functions.get(&FunctionId(entry.key.clone())) else { continue };
        let at = functions.entry(entry);
        if let Some(spec) = functions::lower(&entry.key, function, &at, cx) {
            service.functions.push(spec);
        }
        entries.extend(bindings::lower(&entry.key, function, &at, &mut sources, cx));
    }
    service.bindings = entries.iter().map(|entry| entry.spec.clone()).collect();
    for (i, entry) in entries.iter().enumerate() {
        let mut sending = |key, shape: &Option<Sending>| {
            let shape = shape.as_ref()?;
            destinations.sending(key, shape, entry, (file, &service), &mut sources, cx)
        };
        let on_success = sending("on_success", &entry.event.policy.on_success);
        let on_failure = sending("on_failure", &entry.event.policy.on_failure);
        (service.bindings[i].on_success, service.bindings[i].on_failure) = (on_success, on_failure);
    }
    service.sources = sources.finish();
    destinations.finish(&mut service);
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
    let authority = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let bracketed = authority.strip_prefix('[').and_then(|a| a.split_once(']')).map(|(host, _)| host);
    bracketed.unwrap_or_else(|| authority.split(':').next().unwrap_or_default())
}
