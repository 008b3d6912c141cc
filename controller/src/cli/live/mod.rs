//! The live log of `dev` and `events tail`: facts in, lines of text out.
//!
//! Pure: no clock, no terminal, no network. One line per fact, the address first, because it is what people paste
//! into `explain`. Above [`MAX_RATE`] events a second it counts instead (`rate.rs`). What is kept between facts is
//! bounded; forgetting it costs a remark, never a line.

mod rate;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bellwire_schemas::live::Fact;
use bellwire_schemas::{Address, BindingName, FailureClass, FinalState, FunctionName, SourceName, Timestamp};
use jiff::tz::TimeZone;

use self::rate::Rate;
use self::words::{attempt_words, line};
pub use self::words::{own_output, place};
use super::text::{Paint, Style, clean};
use super::times::{Times, duration};

/// Events a second above which the log counts per binding instead of naming each (surface of `dev`).
pub const MAX_RATE: u64 = 50;
/// Lines of a function's output shown per attempt; the rest is counted.
const MAX_OUTPUT_LINES: usize = 20;
/// Events whose filters are watched for "nobody wanted it".
const MAX_OPEN: usize = 10_000;
/// Below the time of day, where the address begins.
const INDENT: &str = "              ";

/// One binding, as far as the log needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub binding: BindingName,
    /// The source it reads.
    pub source: SourceName,
    /// The function it calls.
    pub function: FunctionName,
}

/// How the log looks.
#[derive(Clone, Debug)]
pub struct Options {
    /// Colours.
    pub paint: Paint,
    /// The zone of clock times.
    pub zone: TimeZone,
    /// RFC 3339 instead of clock times.
    pub iso: bool,
    /// The bindings that run: an event that all of its source's bindings filter is "wanted by nobody".
    pub bindings: Vec<Known>,
}

impl Options {
    /// Clock times of this machine's zone, no bindings known yet.
    pub fn new(color: bool) -> Self {
        Self { paint: Paint(color), zone: TimeZone::system(), iso: false, bindings: Vec::new() }
    }
}

/// The state between facts.
#[derive(Debug)]
pub struct Renderer {
    options: Options,
    labels: BTreeMap<BindingName, String>,
    label_width: usize,
    address_width: usize,
    open: BTreeMap<Address, Open>,
    open_order: VecDeque<Address>,
    cannot_start: BTreeSet<String>,
    rate: Rate,
}

/// An accepted event that nobody has taken so far.
#[derive(Debug)]
struct Open {
    source: SourceName,
    filtered: Vec<String>,
}

impl Renderer {
    /// A log that has shown nothing yet.
    pub fn new(options: Options) -> Self {
        let mut renderer = Self {
            options,
            labels: BTreeMap::new(),
            label_width: 0,
            address_width: 3,
            open: BTreeMap::new(),
            open_order: VecDeque::new(),
            cannot_start: BTreeSet::new(),
            rate: Rate::default(),
        };
        let bindings = std::mem::take(&mut renderer.options.bindings);
        renderer.set_bindings(bindings);
        renderer
    }

    /// Tells the log which bindings run now: at the start and after each reload.
    pub fn set_bindings(&mut self, bindings: Vec<Known>) {
        // The line above names the source: the function's name says enough unless it reads one source twice.
        let twice = |b: &Known| {
            bindings.iter().filter(|o| o.function == b.function && o.source == b.source).count() > 1
        };
        let label = |b: &Known| if twice(b) { b.binding.to_string() } else { b.function.to_string() };
        self.labels = bindings.iter().map(|b| (b.binding.clone(), label(b))).collect();
        self.label_width = self.labels.values().map(|l| l.chars().count()).max().unwrap_or(0);
        self.options.bindings = bindings;
    }

    /// Takes a fact in and gives the lines to show now.
    pub fn push(&mut self, fact: &Fact, now: Timestamp) -> Vec<String> {
        let mut lines = self.roll(now);
        let one_event = matches!(fact, Fact::Accepted { .. } | Fact::Attempt { .. } | Fact::Settled { .. });
        if one_event {
            let label = self.label_of(fact);
            let was_counting = self.rate.counting();
            self.rate.count(fact, label, now);
            if self.rate.counting() {
                if !was_counting {
                    let text = format!("{INDENT}≡ more than {MAX_RATE} events a second: counting");
                    lines.push(self.style(Style::Dim, &text));
                    self.open.clear();
                    self.open_order.clear();
                }
                return lines;
            }
        }
        self.show(fact, &mut lines);
        lines
    }

    /// Lets time pass: gives the counting lines that are due. Call it about once a second.
    pub fn tick(&mut self, now: Timestamp) -> Vec<String> {
        self.roll(now)
    }

    fn roll(&mut self, now: Timestamp) -> Vec<String> {
        let Some((counts, over)) = self.rate.roll(now) else { return Vec::new() };
        let width = counts.iter().map(|c| c.label.chars().count()).max().unwrap_or(0);
        let clock = self.clock(now);
        counts
            .iter()
            .map(|count| {
                let label = clean(&count.label);
                format!("{clock}  ≡ {label:<width$}  {}   in {}", count.words(), duration(over))
            })
            .collect()
    }

    fn show(&mut self, fact: &Fact, lines: &mut Vec<String>) {
        match fact {
            Fact::Accepted { at, address, source, kind, subject, .. } => {
                let head = self.head(*at, Some(*address));
                let kind = clean(kind.strip_prefix("com.amazonaws.s3.").unwrap_or(kind)).into_owned();
                let subject = subject.as_deref().map(|s| format!("  {}", line(s))).unwrap_or_default();
                let source_text = self.style(Style::Bold, &clean(source.as_str()));
                lines.push(format!("{head}{source_text}  {kind}{subject}"));
                self.accepted(*address, source, lines);
            }
            Fact::NotAccepted { at, source, arrival, detail } => {
                let head = self.head(*at, None);
                let arrival_text = self.style(Paint::state(arrival), &clean(arrival));
                lines.push(format!("{head}{}  {arrival_text}: {}", clean(source.as_str()), line(detail)));
            }
            Fact::Attempt { .. } => self.attempt(fact, lines),
            Fact::Settled { at, address, binding, state, reason } => {
                self.settled(*at, *address, binding, *state, reason, lines);
            }
            Fact::Condition { at, subject, state, detail } => {
                self.condition(*at, subject, state, detail, lines)
            }
        }
    }

    fn accepted(&mut self, address: Address, source: &SourceName, lines: &mut Vec<String>) {
        if self.options.bindings.is_empty() {
            return;
        }
        if !self.options.bindings.iter().any(|b| b.source == *source) {
            let text = format!("{INDENT}◦ nobody wanted it: no binding reads {}", clean(source.as_str()));
            lines.push(self.style(Style::Dim, &text));
            return;
        }
        if self.open_order.len() >= MAX_OPEN
            && let Some(oldest) = self.open_order.pop_front()
        {
            self.open.remove(&oldest);
        }
        self.open.insert(address, Open { source: source.clone(), filtered: Vec::new() });
        self.open_order.push_back(address);
    }

    fn attempt(&mut self, fact: &Fact, lines: &mut Vec<String>) {
        let Fact::Attempt { at, address, binding, function, attempt, error, state, logs, .. } = fact else {
            return;
        };
        self.open.remove(address);
        let cannot_start = error.as_ref().filter(|e| e.class == FailureClass::CannotStart && state.is_none());
        if let Some(error) = cannot_start {
            let detail =
                std::iter::once(error.headline()).chain(error.stack.iter().cloned()).collect::<Vec<_>>();
            self.condition(*at, function.as_str(), "cannot-start", &detail.join("\n"), lines);
            return;
        }
        let (mark, style) = match state {
            Some(FinalState::Delivered) => ("✓", Style::Green),
            Some(FinalState::Dead) => ("✗", Style::Red),
            Some(_) => ("◦", Style::Dim),
            None => ("↻", Style::Yellow),
        };
        let head = self.head(*at, Some(*address));
        let label = self.padded(binding, function);
        lines.push(
            format!("{head}{} {label}  {}", self.style(style, mark), attempt_words(fact)).trim_end().into(),
        );
        self.output(&own_output(logs, error.as_ref()), lines);
        if *attempt == 1
            && state.is_none()
            && let Some(place) = error.as_ref().and_then(place)
        {
            self.indented(&place, Style::Dim, lines);
        }
        if *state == Some(FinalState::Dead) {
            let place = error.as_ref().and_then(place).map(|p| format!("{p} ")).unwrap_or_default();
            let text = format!(
                "{place}→ see it: bellwire dead-letters show {address}    after the fix: … redrive {address}"
            );
            self.indented(&text, Style::Dim, lines);
        }
    }

    fn settled(
        &mut self,
        at: Timestamp,
        address: Address,
        binding: &BindingName,
        state: FinalState,
        reason: &str,
        lines: &mut Vec<String>,
    ) {
        let label = self.label(binding);
        if state != FinalState::Filtered {
            self.open.remove(&address);
            let head = self.head(at, Some(address));
            let word = self.style(Paint::state(state.as_str()), state.as_str());
            lines.push(format!("{head}◦ {}  {word}: {}", clean(&label), line(reason)));
            return;
        }
        let Some(open) = self.open.get_mut(&address) else { return };
        let clause = clean(reason.split_whitespace().next().unwrap_or("filter")).into_owned();
        open.filtered.push(format!("{} filtered ({clause})", clean(&label)));
        let readers = self.options.bindings.iter().filter(|b| b.source == open.source).count();
        if open.filtered.len() >= readers {
            let who = open.filtered.join(", ");
            self.open.remove(&address);
            let text = format!("{INDENT}◦ nobody wanted it: {who} → bellwire explain {address}");
            lines.push(self.style(Style::Dim, &text));
        }
    }

    fn condition(
        &mut self,
        at: Timestamp,
        subject: &str,
        state: &str,
        detail: &str,
        lines: &mut Vec<String>,
    ) {
        let fresh = match state {
            "cannot-start" => self.cannot_start.insert(subject.into()),
            "started" | "reloaded" => {
                self.cannot_start.remove(subject);
                true
            }
            _ => true,
        };
        if !fresh {
            return;
        }
        let (head, name) = (self.clock(at), clean(subject).into_owned());
        let (first, rest) = detail.split_once('\n').unwrap_or((detail, ""));
        let first = line(first);
        let colon = if first.is_empty() { String::new() } else { format!(": {first}") };
        let (mark, style, text, whole) = match state {
            "cannot-start" => ("✗", Style::Red, format!("{name} cannot start"), detail),
            "reload-failed" => {
                ("✗", Style::Red, "not reloaded, the last good configuration keeps running".into(), detail)
            }
            "reloaded" if first.is_empty() => ("↺", Style::Green, format!("reloaded {name}"), ""),
            "reloaded" => {
                let what = first.strip_prefix("reloaded ").unwrap_or(&first);
                ("↺", Style::Green, format!("reloaded {what}"), rest)
            }
            "started" => ("✓", Style::Green, format!("{name} starts again{colon}"), rest),
            "paused" => ("‖", Style::Yellow, format!("{name} paused{colon}"), rest),
            "resumed" => ("▸", Style::Green, format!("{name} resumed{colon}"), rest),
            other => ("◦", Style::Plain, format!("{name} {}{colon}", clean(other)), rest),
        };
        lines.push(format!("{head}  {} {text}", self.style(style, mark)));
        let body: Vec<_> = whole.lines().filter(|l| !l.trim().is_empty()).collect();
        self.output(&body, lines);
        if state == "cannot-start" {
            let text = format!("{INDENT}paused: {name} cannot start; save a fix to resume");
            lines.push(self.style(Style::Yellow, &text));
        }
    }

    /// What a function printed, under its delivery.
    fn output(&self, rows: &[&str], lines: &mut Vec<String>) {
        for row in rows.iter().take(MAX_OUTPUT_LINES) {
            self.indented(&line(row), Style::Plain, lines);
        }
        if rows.len() > MAX_OUTPUT_LINES {
            self.indented(&format!("… {} more lines", rows.len() - MAX_OUTPUT_LINES), Style::Dim, lines);
        }
    }

    fn indented(&self, text: &str, style: Style, lines: &mut Vec<String>) {
        lines.push(format!("{INDENT}{} {}", self.style(Style::Dim, "│"), self.style(style, text)));
    }

    fn head(&mut self, at: Timestamp, address: Option<Address>) -> String {
        let address = address.map(|a| a.to_string()).unwrap_or_default();
        self.address_width = self.address_width.max(address.len());
        let padded = format!("{address:<width$}", width = self.address_width);
        format!("{}  {}  ", self.clock(at), padded)
    }

    fn clock(&self, at: Timestamp) -> String {
        let times = Times { now: at, zone: self.options.zone.clone(), iso: self.options.iso };
        self.style(Style::Dim, &times.clock(at))
    }

    fn label(&self, binding: &BindingName) -> String {
        self.labels.get(binding).cloned().unwrap_or_else(|| binding.to_string())
    }

    fn label_of(&self, fact: &Fact) -> String {
        match fact {
            Fact::Accepted { source, .. } | Fact::NotAccepted { source, .. } => source.to_string(),
            Fact::Attempt { binding, .. } | Fact::Settled { binding, .. } => self.label(binding),
            Fact::Condition { subject, .. } => subject.clone(),
        }
    }

    fn padded(&mut self, binding: &BindingName, function: &FunctionName) -> String {
        let label = self.labels.get(binding).cloned().unwrap_or_else(|| function.to_string());
        self.label_width = self.label_width.max(label.chars().count());
        format!("{:<width$}", clean(&label), width = self.label_width)
    }

    fn style(&self, style: Style, text: &str) -> String {
        self.options.paint.style(style, text).into_owned()
    }
}
