//! What Prometheus reads, and the measurements that are gathered for it from the facts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use bellwire_connectors::pressure::{LEDGER_FULL, MEMORY};
use bellwire_schemas::FinalState;
use bellwire_schemas::api::Status;
use bellwire_schemas::live::Fact;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// Upper bounds of the duration histogram, seconds: from a warm no-op to a long batch.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

/// Measurements since start, by function; names come from the configuration, so their number is bounded.
#[derive(Debug, Default)]
pub struct Observed(Mutex<BTreeMap<String, Durations>>);

#[derive(Clone, Debug, Default)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
    failures: u64,
    starts: u64,
    start_seconds: f64,
}

impl Observed {
    /// Follows the facts until `stop`.
    pub async fn follow(self: Arc<Self>, mut facts: broadcast::Receiver<Fact>, stop: CancellationToken) {
        loop {
            let fact = tokio::select! {
                () = stop.cancelled() => return,
                fact = facts.recv() => fact,
            };
            match fact {
                Ok(fact) => self.observe(&fact),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn observe(&self, fact: &Fact) {
        let Fact::Attempt { function, duration_ms, init_ms, error, .. } = fact else { return };
        let mut all = self.0.lock().expect("no code panics while it holds this lock");
        let durations = all.entry(function.to_string()).or_default();
        let seconds = *duration_ms as f64 / 1_000.0;
        for (bucket, bound) in durations.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
        durations.count += 1;
        durations.seconds += seconds;
        durations.failures += u64::from(error.is_some());
        if let Some(ms) = init_ms {
            durations.starts += 1;
            durations.start_seconds += *ms as f64 / 1_000.0;
        }
    }
}

/// The text exposition (version 0.0.4) of a status and the measurements.
pub fn render(status: &Status, observed: &Observed) -> String {
    let mut out = Text(String::with_capacity(8 << 10));
    out.family("bellwire_build_info", "gauge", "The running program.");
    out.sample("bellwire_build_info", &[("version", &status.version)], 1.0);
    out.family("bellwire_ledger_size_bytes", "gauge", "Size of the ledger on disk.");
    out.sample("bellwire_ledger_size_bytes", &[], status.ledger.size_bytes as f64);
    cluster(&mut out, status);
    sources(&mut out, status);
    bindings(&mut out, status);
    functions(&mut out, status, observed);
    out.0
}

fn cluster(out: &mut Text, status: &Status) {
    out.family("bellwire_controllers", "gauge", "Controllers alive on the ledger, this one included.");
    out.sample("bellwire_controllers", &[], status.controllers.len() as f64);
    out.family("bellwire_lanes", "gauge", "Lanes of the ledger.");
    out.sample("bellwire_lanes", &[], status.lanes.len() as f64);
    out.family("bellwire_lanes_owned", "gauge", "Lanes that this controller owns.");
    let owned = status.lanes.iter().filter(|lane| lane.owned).count();
    out.sample("bellwire_lanes_owned", &[], owned as f64);
    out.family("bellwire_lanes_without_owner", "gauge", "Lanes that no controller owns.");
    let orphans = status.lanes.iter().filter(|lane| lane.owner.is_none()).count();
    out.sample("bellwire_lanes_without_owner", &[], orphans as f64);
    if let Some(left) = status.lease_left_ms {
        out.family(
            "bellwire_lease_seconds_left",
            "gauge",
            "How long attempts may still start unless the ledger renews the leases.",
        );
        out.sample("bellwire_lease_seconds_left", &[], left as f64 / 1_000.0);
    }
}

fn sources(out: &mut Text, status: &Status) {
    out.family("bellwire_source_arrivals_total", "counter", "Arrivals by source and what became of them.");
    for source in &status.sources {
        let name = source.name.as_str();
        for (result, count) in [
            ("accepted", source.accepted),
            ("duplicate", source.duplicate),
            ("quarantined", source.quarantined),
            ("refused", source.refused),
        ] {
            out.sample(
                "bellwire_source_arrivals_total",
                &[("source", name), ("result", result)],
                count as f64,
            );
        }
    }
    out.family("bellwire_source_up", "gauge", "1 while the source takes events in.");
    for source in &status.sources {
        let up = f64::from(u8::from(source.state == "ok"));
        out.sample("bellwire_source_up", &[("source", source.name.as_str())], up);
    }
    held(out, status);
}

fn held(out: &mut Text, status: &Status) {
    out.family("bellwire_source_paused", "gauge", "1 while the source is held back for this reason.");
    for source in &status.sources {
        for reason in [LEDGER_FULL, MEMORY] {
            let said = source.reason.as_deref().and_then(|said| said.strip_prefix(reason));
            let held = source.state == "paused" && said.is_some_and(|rest| rest.starts_with(':'));
            let labels = [("source", source.name.as_str()), ("reason", reason)];
            out.sample("bellwire_source_paused", &labels, f64::from(u8::from(held)));
        }
    }
    out.family(
        "bellwire_source_restarts_total",
        "counter",
        "Connectors that were dropped and made anew because they stalled or broke down.",
    );
    for source in &status.sources {
        let labels = [("source", source.name.as_str())];
        out.sample("bellwire_source_restarts_total", &labels, source.restarts as f64);
    }
}

fn bindings(out: &mut Text, status: &Status) {
    out.family(
        "bellwire_binding_deliveries_total",
        "counter",
        "Deliveries that ended, by binding and final state.",
    );
    for binding in &status.bindings {
        let counts = [binding.delivered, binding.filtered, binding.expired, binding.dead, binding.discarded];
        for (state, count) in FinalState::ALL.into_iter().zip(counts) {
            let labels = [("binding", binding.name.as_str()), ("state", state.as_str())];
            out.sample("bellwire_binding_deliveries_total", &labels, count as f64);
        }
    }
    type Gauge = (&'static str, &'static str, fn(&bellwire_schemas::api::BindingStatus) -> f64);
    let gauges: [Gauge; 7] = [
        ("bellwire_binding_waiting", "Deliveries owed and not tried so far.", |b| b.waiting as f64),
        ("bellwire_binding_running", "Deliveries in flight.", |b| b.running as f64),
        ("bellwire_binding_retrying", "Deliveries owed that were tried, or asked for by an operator.", |b| {
            b.retrying as f64
        }),
        ("bellwire_binding_up", "1 while the binding delivers.", |b| f64::from(u8::from(b.state == "ok"))),
        ("bellwire_binding_breaker_open", "1 while its target is left alone but for probes.", |b| {
            f64::from(u8::from(b.reason.as_deref() == Some("breaker-open")))
        }),
        ("bellwire_binding_blocked_keys", "Keys that wait for an operator, 1,000 at most.", |b| {
            b.blocked_keys as f64
        }),
        ("bellwire_binding_stalled", "1 while it has work and does not advance.", |b| {
            f64::from(u8::from(b.state == "stalled"))
        }),
    ];
    for (name, help, value) in gauges {
        out.family(name, "gauge", help);
        for binding in &status.bindings {
            out.sample(name, &[("binding", binding.name.as_str())], value(binding));
        }
    }
    out.family(
        "bellwire_binding_oldest_owed_timestamp_seconds",
        "gauge",
        "When the oldest owed event was accepted, or the time came that it had asked for.",
    );
    for binding in &status.bindings {
        if let Some(at) = binding.oldest_owed_at {
            let labels = [("binding", binding.name.as_str())];
            out.sample("bellwire_binding_oldest_owed_timestamp_seconds", &labels, at.micros() as f64 / 1e6);
        }
    }
}

fn functions(out: &mut Text, status: &Status, observed: &Observed) {
    out.family("bellwire_function_workers", "gauge", "Workers by function and what they do.");
    for function in &status.functions {
        for (state, count) in [("idle", function.idle), ("busy", function.busy)] {
            let labels = [("function", function.name.as_str()), ("state", state)];
            out.sample("bellwire_function_workers", &labels, f64::from(count));
        }
    }
    let help = "Most attempts of the function at once, all controllers together.";
    out.family("bellwire_function_concurrency", "gauge", help);
    for function in &status.functions {
        let labels = [("function", function.name.as_str())];
        out.sample("bellwire_function_concurrency", &labels, f64::from(function.concurrency));
    }
    if status.functions.iter().any(|function| function.slots.is_some()) {
        out.family("bellwire_function_slots", "gauge", "How many of them this controller has.");
        for function in &status.functions {
            let labels = [("function", function.name.as_str())];
            out.sample("bellwire_function_slots", &labels, f64::from(function.slots.unwrap_or(0)));
        }
    }
    let all = observed.0.lock().expect("no code panics while it holds this lock").clone();
    out.family("bellwire_function_failures_total", "counter", "Attempts that failed.");
    for (name, d) in &all {
        out.sample("bellwire_function_failures_total", &[("function", name)], d.failures as f64);
    }
    out.family("bellwire_function_duration_seconds", "histogram", "How long attempts took.");
    for (name, d) in &all {
        for (bound, count) in BUCKETS.iter().zip(d.buckets) {
            let labels = [("function", name.as_str()), ("le", &bound.to_string())];
            out.sample("bellwire_function_duration_seconds_bucket", &labels, count as f64);
        }
        let labels = [("function", name.as_str()), ("le", "+Inf")];
        out.sample("bellwire_function_duration_seconds_bucket", &labels, d.count as f64);
        out.sample("bellwire_function_duration_seconds_sum", &[("function", name)], d.seconds);
        out.sample("bellwire_function_duration_seconds_count", &[("function", name)], d.count as f64);
    }
    out.family("bellwire_function_start_seconds", "summary", "How long workers took to start.");
    for (name, d) in &all {
        out.sample("bellwire_function_start_seconds_sum", &[("function", name)], d.start_seconds);
        out.sample("bellwire_function_start_seconds_count", &[("function", name)], d.starts as f64);
    }
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escape(v))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}
