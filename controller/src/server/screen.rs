//! What `dev` shows: a header once, then one line per fact. `run` logs instead.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use bellwire_config::{Loaded, Mode};
use bellwire_patterns::PatternSet;
use bellwire_schemas::api::{BindingStatus, Status};
use bellwire_schemas::live::Fact;
use bellwire_schemas::{Address, BindingName, FinalState, Timestamp};
use jiff::tz::TimeZone;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;

use super::admin::{collect_status, send_all, sums};
use super::app::Shared;
use super::assemble::Running;
use super::options::ServeOptions;
use super::reads::Reads;
use crate::cli::live::{Known, MAX_RATE, Options as LiveOptions, Renderer};
use crate::cli::samples;
use crate::cli::times::Times;

/// The terminal of one controller.
pub struct Screen {
    output: Output,
    started: Instant,
    explained: Explained,
    /// Whoever read it has gone.
    closed: bool,
}

/// How many filters were explained in the current second.
#[derive(Default)]
struct Explained {
    second: i64,
    count: u64,
}

enum Output {
    /// The screen of `dev`.
    Text(Box<Renderer>),
    /// Facts as JSON lines.
    Json,
    /// `run` without `--json`: the log says what matters.
    Log,
}

impl Screen {
    /// A screen as the options ask for it.
    pub fn new(options: &ServeOptions) -> Self {
        let output = match (options.json, options.mode) {
            (true, _) => Output::Json,
            (false, Mode::Dev) => Output::Text(Box::new(Renderer::new(LiveOptions::new(options.color)))),
            (false, Mode::Run) => Output::Log,
        };
        Self { output, started: Instant::now(), explained: Explained::default(), closed: false }
    }

    /// The doors are open.
    pub async fn opened(&mut self, running: &Running, loaded: &Loaded) {
        let app = &running.app;
        let Ok(status) = collect_status(app).await else { return };
        let owed: u64 = status.bindings.iter().map(|b| b.waiting + b.retrying).sum();
        match &mut self.output {
            Output::Text(renderer) => {
                renderer.set_bindings(known(&status));
                let times = Times { now: app.clock.now(), zone: TimeZone::system(), iso: false };
                let state = ledger_state(app, &status, owed).await;
                let seconds = self.started.elapsed().as_secs_f64();
                let header = header(&status, loaded, &state, &times, seconds);
                self.show(&[header]);
            }
            Output::Json => {}
            Output::Log => tracing::info!(
                ingress = %status.listen.ingress,
                admin = %status.listen.admin,
                ledger = %status.ledger.url,
                owed,
                "controller is ready"
            ),
        }
    }

    /// Another configuration is in force.
    pub async fn reloaded(&mut self, app: &Shared) {
        if let (Output::Text(renderer), Ok(status)) = (&mut self.output, collect_status(app).await) {
            renderer.set_bindings(known(&status));
        }
    }

    /// Shows a fact.
    pub async fn fact(&mut self, app: &Shared, fact: Result<Fact, RecvError>) {
        let now = app.clock.now();
        let fact = match fact {
            Ok(fact) if matches!(self.output, Output::Text(_)) => Ok(self.with_clause(app, fact, now).await),
            fact => fact,
        };
        let lines = match (&mut self.output, fact) {
            (Output::Text(renderer), Ok(fact)) => renderer.push(&fact, now),
            (Output::Text(_), Err(RecvError::Lagged(missed))) => {
                vec![format!("… {missed} facts not shown: too fast")]
            }
            (Output::Json, Ok(fact)) => serde_json::to_string(&fact).into_iter().collect(),
            (Output::Log, Ok(Fact::Condition { subject, state, detail, .. })) => {
                tracing::info!(%subject, %state, %detail, "condition");
                Vec::new()
            }
            _ => Vec::new(),
        };
        self.show(&lines);
    }

    /// Whether nobody can read the screen any more: a closed pipe or terminal.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn show(&mut self, lines: &[String]) {
        let mut out = std::io::stdout().lock();
        let shown = lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
        self.closed |= shown.is_err();
    }

    /// A filtered delivery with the clause that said no instead of the bare word, while there are few.
    async fn with_clause(&mut self, app: &Shared, mut fact: Fact, now: Timestamp) -> Fact {
        let Fact::Settled { address, binding, state: FinalState::Filtered, reason, .. } = &mut fact else {
            return fact;
        };
        let second = now.micros() / 1_000_000;
        if self.explained.second != second {
            self.explained = Explained { second, count: 0 };
        }
        self.explained.count += 1;
        if self.explained.count > MAX_RATE {
            return fact;
        }
        if let Some(clause) = clause(app, *address, binding).await {
            *reason = clause;
        }
        fact
    }

    /// Shows what was held back.
    pub fn tick(&mut self, now: Timestamp) {
        if let Output::Text(renderer) = &mut self.output {
            let lines = renderer.tick(now);
            self.show(&lines);
        }
    }

    /// The end began.
    pub fn closing(&mut self) {
        if let Output::Text(_) = self.output {
            self.show(&["\nstopping: running invocations may end; Ctrl-C again ends at once".into()]);
        }
    }
}

fn known(status: &Status) -> Vec<Known> {
    let active = status.bindings.iter().filter(|b| b.state != "inactive");
    let known = |b: &BindingStatus| Known {
        binding: b.name.clone(),
        source: b.source.clone(),
        function: b.function.clone(),
    };
    active.map(known).collect()
}

/// The clause of the filter in force that says no to an event. The delivery itself may not be in the ledger yet.
async fn clause(app: &Shared, address: Address, binding: &BindingName) -> Option<String> {
    let stored = app.ledger().event(address).await.ok()??;
    let record = app.ledger().bindings().await.ok()?.into_iter().find(|b| b.name == *binding)?;
    let filter = PatternSet::from_value(&Value::Array(record.filter)).ok()?;
    Some(filter.explain(&stored.event.envelope())?.to_string())
}

/// What lies in the ledger, what the last run left owed, and whether everything is accounted for.
async fn ledger_state(app: &Shared, status: &Status, owed: u64) -> String {
    let stored: u64 = status.sources.iter().map(|s| s.accepted).sum();
    let number = |n: u64, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    if stored == 0 {
        return "empty".into();
    }
    let lost = match sums(&Reads::from(app)).await {
        Ok(proof) => proof.bindings.iter().map(|b| b.gap.unsigned_abs()).sum(),
        Err(_) => 0,
    };
    let events = number(stored, "event", "events");
    match (owed, lost) {
        (0, 0) => events,
        (owed, 0) => {
            format!("{events}; recovered: {}, 0 lost", number(owed, "owed delivery", "owed deliveries"))
        }
        (owed, lost) => {
            let owed = number(owed, "owed delivery", "owed deliveries");
            format!("{events}; recovered: {owed}, {lost} NOT accounted for: bellwire verify")
        }
    }
}

fn header(status: &Status, loaded: &Loaded, state: &str, times: &Times, seconds: f64) -> String {
    use std::fmt::Write;
    let ledger = status
        .ledger
        .url
        .rsplit_once("/.bellwire/")
        .map_or(status.ledger.url.clone(), |(_, file)| format!(".bellwire/{file}"));
    let mut out = String::new();
    let _ = writeln!(
        out,
        "bellwire {}   {}   ledger {ledger} ({state})",
        status.version,
        status.services.join(", ")
    );
    let _ = writeln!(
        out,
        "  ingress  {}   admin  {}   token in .bellwire/controller.json",
        status.listen.ingress, status.listen.admin
    );
    let name_width = status.functions.iter().map(|f| f.name.as_str().len()).max().unwrap_or(0);
    let target_width = status.functions.iter().map(|f| f.target.chars().count()).max().unwrap_or(0).min(40);
    let source_width = status.bindings.iter().map(|b| b.source.as_str().len()).max().unwrap_or(0);
    for function in &status.functions {
        let mut left = format!("  {:<name_width$}  {:<target_width$}", function.name, function.target);
        let mut bound = status
            .bindings
            .iter()
            .filter(|b| b.function == function.name && b.state != "inactive")
            .peekable();
        if bound.peek().is_none() {
            let _ = writeln!(out, "{left}  called by `bellwire invoke`");
        }
        for binding in bound {
            let entrance =
                status.sources.iter().find(|s| s.name == binding.source).map_or("", |s| &s.entrance);
            let entrance = times.told(entrance);
            let _ = writeln!(out, "{left}  ◂ {:<source_width$}  {entrance}", binding.source);
            left = " ".repeat(left.chars().count());
        }
    }
    // A schedule shows itself soon enough: the hint is for what somebody has to send.
    let mut sources: Vec<_> = loaded.services.iter().flat_map(|s| &s.sources).collect();
    sources.sort_by_key(|source| source.kind.word() == "schedule");
    let example = sources.first();
    let hint = example.map(|s| format!(" Try:  bellwire send {} --sample", s.name)).unwrap_or_default();
    let _ = writeln!(out, "  ready in {seconds:.1} s. Edit, save, it reloads.{hint}");
    out
}

/// Sends the samples that lie beside the configuration, at the pace they ask for.
pub async fn send_samples(app: Shared, base: PathBuf) {
    let samples = match samples::load(&base) {
        Ok(samples) => samples,
        Err(error) => {
            eprintln!("error: {error:#}");
            return;
        }
    };
    for sample in samples {
        tokio::time::sleep(sample.after).await;
        if app.stopping.is_cancelled() {
            return;
        }
        if let Err(problem) = send_all(&app, sample.source.as_str(), &sample.request, 1).await {
            eprintln!("error: sample for {}: {problem:?}", sample.source);
        }
    }
}
