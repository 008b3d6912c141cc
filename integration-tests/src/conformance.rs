//! The conformance runner: judges cases of public corpora, one JSON object a line.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::Context;
use bellwire_schemas::Verdict;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

/// What a file of cases is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// EventBridge patterns: match or not, valid or not.
    Patterns,
    /// Schedules: valid or not, next and previous ticks.
    Cron,
    /// Events as AWS Lambda hands them to functions.
    LambdaEvents,
    /// Object-store notifications.
    ObjectStore,
    /// CloudEvents over HTTP.
    Cloudevents,
    /// Answers of functions about the items of a batch.
    EsmAnswers,
    /// Filters of event source mappings.
    EsmFilters,
    /// Recordings of event source mappings and destinations.
    EsmRecorded,
}

/// The result over a file.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was judged.
    pub kind: Kind,
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Cases that were not judged.
    pub skipped: usize,
    /// The same per group.
    pub groups: BTreeMap<String, Tally>,
    /// Why cases were not judged, and how many.
    pub skip_reasons: BTreeMap<String, usize>,
    /// Every failure.
    pub failures: Vec<Failure>,
}

/// Counts of one group.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Tally {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Cases that were not judged.
    pub skipped: usize,
}

/// One failure.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// The case's name or id.
    pub name: String,
    /// What the corpus says.
    pub expected: Value,
    /// What we say.
    pub actual: Value,
}

impl Kind {
    /// The file of this kind in the shared corpora.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Patterns => "event-patterns.jsonl",
            Self::Cron => "cron.jsonl",
            Self::LambdaEvents => "lambda-events.jsonl",
            Self::ObjectStore => "object-store.jsonl",
            Self::Cloudevents => "cloudevents-bindings.jsonl",
            Self::EsmAnswers => "esm-batch-responses.jsonl",
            Self::EsmFilters => "esm-filters.jsonl",
            Self::EsmRecorded => "esm-recorded.jsonl",
        }
    }
}

/// The corpus of a kind: in `CONFORMANCE_DIR`, or beside the project. `None`, said aloud, where a user has none.
///
/// # Panics
/// When `CONFORMANCE_REQUIRED` is set and the corpus is not there.
pub fn corpus(kind: Kind) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    let file = std::env::var_os("CONFORMANCE_DIR").map_or(root, PathBuf::from).join(kind.file());
    if file.exists() {
        return Some(file);
    }
    assert!(std::env::var_os("CONFORMANCE_REQUIRED").is_none(), "{} is required", file.display());
    println!("skipped: no corpus at {}; CONFORMANCE_DIR names its folder", file.display());
    None
}

/// Judges every line of a file.
///
/// # Errors
/// When the file cannot be read or a line is no JSON object.
pub fn judge_file(kind: Kind, file: &Path) -> anyhow::Result<Report> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let mut report = Report {
        kind,
        passed: 0,
        failed: 0,
        skipped: 0,
        groups: BTreeMap::new(),
        skip_reasons: BTreeMap::new(),
        failures: Vec::new(),
    };
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let case: Value = serde_json::from_str(line)
            .with_context(|| format!("{} line {}: no JSON object", file.display(), number + 1))?;
        report.add(&case, number + 1);
    }
    Ok(report)
}

impl Report {
    fn add(&mut self, case: &Value, line: usize) {
        let kind = self.kind;
        // A panic of the code under test is a failure of the case, not of the runner.
        let judged = catch_unwind(AssertUnwindSafe(|| judge(kind, case)));
        let (group, verdict) = judged.unwrap_or_else(|_| {
            ("panicked".into(), Verdict::Failed { expected: Value::Null, actual: "panicked".into() })
        });
        let tally = self.groups.entry(group).or_default();
        match verdict {
            Verdict::Passed => {
                self.passed += 1;
                tally.passed += 1;
            }
            Verdict::Failed { expected, actual } => {
                self.failed += 1;
                tally.failed += 1;
                let name = ["name", "id"].iter().find_map(|k| case[*k].as_str());
                let name = name.map_or_else(|| format!("line {line}"), String::from);
                self.failures.push(Failure { name, expected, actual });
            }
            Verdict::Skipped { reason } => {
                self.skipped += 1;
                tally.skipped += 1;
                *self.skip_reasons.entry(reason).or_default() += 1;
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let judged = (self.passed + self.failed).max(1);
        let kind = self.kind.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default();
        writeln!(
            f,
            "{kind}: {} passed, {} failed, {} skipped ({:.1} % of those judged)",
            self.passed,
            self.failed,
            self.skipped,
            100.0 * self.passed as f64 / judged as f64
        )?;
        for (group, tally) in &self.groups {
            writeln!(
                f,
                "  {group:<40} {:>5} passed {:>4} failed {:>4} skipped",
                tally.passed, tally.failed, tally.skipped
            )?;
        }
        for (reason, count) in &self.skip_reasons {
            writeln!(f, "  skipped {count:>4}: {reason}")?;
        }
        for failure in self.failures.iter().take(50) {
            writeln!(f, "  FAILED {}: expected {}, got {}", failure.name, failure.expected, failure.actual)?;
        }
        Ok(())
    }
}

/// Each room judges its own cases and has a verdict of its own; here they have one form.
macro_rules! judged {
    ($($room:ident)::+, $case:expr) => {{
        use $($room)::+ as room;
        let verdict = match room::judge($case) {
            room::Verdict::Passed => Verdict::Passed,
            room::Verdict::Failed { expected, actual } => {
                Verdict::Failed { expected: Value::from(expected), actual: Value::from(actual) }
            }
            room::Verdict::Skipped { reason } => Verdict::Skipped { reason },
        };
        (room::group($case), verdict)
    }};
}

fn judge(kind: Kind, case: &Value) -> (String, Verdict) {
    match kind {
        Kind::Patterns => judged!(bellwire_patterns::conformance, case),
        Kind::Cron => judged!(bellwire_schedules::conformance, case),
        Kind::LambdaEvents => judged!(bellwire_dispatcher::shape::conformance, case),
        Kind::EsmAnswers => judged!(bellwire_dispatcher::conformance::answers, case),
        Kind::EsmFilters => judged!(bellwire_dispatcher::conformance::filters, case),
        Kind::EsmRecorded => judged!(bellwire_dispatcher::conformance::recorded, case),
        Kind::ObjectStore | Kind::Cloudevents => judged!(bellwire_connectors::conformance, case),
    }
}
