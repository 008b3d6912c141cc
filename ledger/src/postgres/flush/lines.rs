//! Log lines as the arrays of `delivery_log`: a row per binding and block of places.

use std::collections::BTreeMap;

use bellwire_schemas::{ErrorInfo, FinalState, ReplayId, Seq};
use postgres_types::Type;
use tokio_postgres::Row;

use super::plan::{code, int};
use crate::postgres::codec::{Time, escape, unescape};
use crate::postgres::connect::Param;
use crate::postgres::fault::misread;
use crate::{Error, LogEntry, LogOutcome};

/// Places per block.
pub(in crate::postgres) const BLOCK: u64 = 4_096;

/// Rows of the log, the shares of their arrays one after the other; `ends` says where each share ends.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// What it weighs in memory, bytes, about.
    pub bytes: usize,
    parts: Vec<i32>,
    blocks: Vec<i64>,
    at: Vec<Time>,
    ends: Vec<i32>,
    offsets: Vec<i16>,
    outcomes: Vec<i16>,
    attempts: Vec<i32>,
    started: Vec<i64>,
    ms: Vec<i32>,
    revisions: Vec<i32>,
    errors: Vec<Option<String>>,
    workers: Vec<Option<String>>,
    versions: Vec<Option<String>>,
    replays: Vec<Option<String>>,
}

impl Lines {
    /// Adds the lines of the nth part, a row per block.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a failure cannot be written as JSON.
    pub fn add(&mut self, nth: i32, log: &[LogEntry]) -> Result<(), Error> {
        let mut blocks: BTreeMap<u64, Vec<&LogEntry>> = BTreeMap::new();
        for line in log {
            blocks.entry(line.seq.0 / BLOCK).or_default().push(line);
        }
        for (block, lines) in blocks {
            self.row(nth, block, &lines)?;
        }
        Ok(())
    }

    fn row(&mut self, nth: i32, block: u64, lines: &[&LogEntry]) -> Result<(), Error> {
        let base = lines[0].at;
        self.parts.push(nth);
        self.blocks.push(i64::try_from(block).unwrap_or(i64::MAX));
        self.at.push(Time(base));
        self.offsets.extend(lines.iter().map(|l| offset(l.seq)));
        same(&mut self.outcomes, lines.iter().map(|l| outcome_code(l.outcome)));
        same(&mut self.attempts, lines.iter().map(|l| int(l.attempt)));
        same(&mut self.started, lines.iter().map(|l| l.at.micros().saturating_sub(base.micros())));
        same(&mut self.ms, lines.iter().map(|l| int(l.duration_ms)));
        same(&mut self.revisions, lines.iter().map(|l| int(l.revision)));
        let word = |text: &str| (!text.is_empty()).then(|| escape(text).into_owned());
        texts(&mut self.errors, lines, |l| &l.error, |e| error_text(e.as_ref()))?;
        texts(&mut self.workers, lines, |l| l.worker.as_str(), |w| Ok(word(w)))?;
        texts(&mut self.versions, lines, |l| l.version.as_str(), |v| Ok(word(v)))?;
        texts(&mut self.replays, lines, |l| &l.replay, |r| Ok(r.as_ref().and_then(|r| word(r.as_str()))))?;
        let ends = [
            self.offsets.len(),
            self.outcomes.len(),
            self.attempts.len(),
            self.started.len(),
            self.ms.len(),
            self.revisions.len(),
            self.errors.len(),
            self.workers.len(),
            self.versions.len(),
            self.replays.len(),
        ];
        self.ends.extend(ends.map(int));
        let long = lines.iter().filter_map(|l| l.error.as_ref()).map(weight).sum::<usize>();
        self.bytes += 200 + 40 * lines.len() + long;
        Ok(())
    }

    /// Adds the arguments of the function.
    pub fn push<'a>(&'a self, params: &mut Vec<Param<'a>>) {
        params.extend([
            (&self.parts as _, Type::INT4_ARRAY),
            (&self.blocks as _, Type::INT8_ARRAY),
            (&self.at as _, Type::TIMESTAMPTZ_ARRAY),
            (&self.ends as _, Type::INT4_ARRAY),
            (&self.offsets as _, Type::INT2_ARRAY),
            (&self.outcomes as _, Type::INT2_ARRAY),
            (&self.attempts as _, Type::INT4_ARRAY),
            (&self.started as _, Type::INT8_ARRAY),
            (&self.ms as _, Type::INT4_ARRAY),
            (&self.revisions as _, Type::INT4_ARRAY),
            (&self.errors as _, Type::TEXT_ARRAY),
            (&self.workers as _, Type::TEXT_ARRAY),
            (&self.versions as _, Type::TEXT_ARRAY),
            (&self.replays as _, Type::TEXT_ARRAY),
        ]);
    }
}

/// The place within its block.
pub(in crate::postgres) fn offset(seq: Seq) -> i16 {
    i16::try_from(seq.0 % BLOCK).unwrap_or(0)
}

fn weight(error: &ErrorInfo) -> usize {
    100 + error.kind.len() + error.message.len() + error.stack.iter().map(String::len).sum::<usize>()
}

/// Adds one value when it is the same for all lines, else one per line.
fn same<T: PartialEq>(to: &mut Vec<T>, values: impl Iterator<Item = T>) {
    let start = to.len();
    to.extend(values);
    let (first, rest) = (&to[start], &to[start..]);
    if rest.iter().all(|value| value == first) {
        to.truncate(start + 1);
    }
}

/// The same for texts, which are made only when needed; none at all when no line has one.
fn texts<'a, T: PartialEq + 'a>(
    to: &mut Vec<Option<String>>,
    lines: &[&'a LogEntry],
    field: impl Fn(&'a LogEntry) -> T,
    text: impl Fn(T) -> Result<Option<String>, Error>,
) -> Result<(), Error> {
    let first = field(lines[0]);
    if lines.iter().all(|line| field(line) == first) {
        to.extend(text(first)?.map(Some));
        return Ok(());
    }
    for line in lines {
        to.push(text(field(line))?);
    }
    Ok(())
}

/// A failure as JSON, or nothing.
pub(in crate::postgres) fn error_text(error: Option<&ErrorInfo>) -> Result<Option<String>, Error> {
    let corrupt = |e| Error::Corrupt(format!("write a failure as JSON: {e}"));
    error.map(|e| serde_json::to_string(e).map_err(corrupt)).transpose()
}

/// A failure out of its JSON.
pub(in crate::postgres) fn error_of(text: Option<&str>) -> Result<Option<ErrorInfo>, Error> {
    let corrupt = |e| Error::Corrupt(format!("read a failure from JSON: {e}"));
    text.map(|text| serde_json::from_str(text).map_err(corrupt)).transpose()
}

fn outcome_code(outcome: LogOutcome) -> i16 {
    match outcome {
        LogOutcome::Failed => 0,
        LogOutcome::Final(state) => code(state),
    }
}

fn outcome_of(number: i16) -> Result<LogOutcome, Error> {
    if number == 0 {
        return Ok(LogOutcome::Failed);
    }
    let known = FinalState::ALL.into_iter().find(|state| code(*state) == number);
    let unknown = || Error::Corrupt(format!("the delivery log holds outcome {number}"));
    known.map(LogOutcome::Final).ok_or_else(unknown)
}

/// The lines of one place out of a row of which the second column and those after it are: at, offsets, outcomes, attempts,
/// started, ms, revisions, errors, workers, versions, replays.
pub(in crate::postgres) fn lines_at(row: &Row, seq: Seq) -> Result<Vec<LogEntry>, Error> {
    let base: Time = row.try_get(1).map_err(misread)?;
    let offsets: Vec<i16> = row.try_get(2).map_err(misread)?;
    let (outcomes, attempts): (Vec<i16>, Vec<i32>) =
        (row.try_get(3).map_err(misread)?, row.try_get(4).map_err(misread)?);
    let (started, ms): (Vec<i64>, Vec<i32>) =
        (row.try_get(5).map_err(misread)?, row.try_get(6).map_err(misread)?);
    let revisions: Vec<i32> = row.try_get(7).map_err(misread)?;
    let texts = |column| row.try_get::<_, Option<Vec<Option<&str>>>>(column).map_err(misread);
    let (errors, workers, versions, replays) = (texts(8)?, texts(9)?, texts(10)?, texts(11)?);
    let word = |texts: &Option<Vec<Option<&str>>>, n: usize| {
        let text = texts.as_ref().and_then(|texts| pick(texts, n).flatten());
        text.map(|text| unescape(text).into_owned())
    };
    let here = offsets.iter().enumerate().filter(|(_, o)| **o == offset(seq));
    let line = |n: usize| {
        let error = errors.as_ref().and_then(|texts| pick(texts, n).flatten());
        Ok(LogEntry {
            seq,
            attempt: pick(&attempts, n).map_or(0, i32::unsigned_abs),
            at: bellwire_schemas::Timestamp::from_micros(
                base.0.micros().saturating_add(pick(&started, n).unwrap_or(0)),
            ),
            duration_ms: pick(&ms, n).map_or(0, i32::unsigned_abs),
            outcome: outcome_of(pick(&outcomes, n).unwrap_or(-1))?,
            error: error_of(error)?,
            worker: word(&workers, n).unwrap_or_default(),
            version: word(&versions, n).unwrap_or_default(),
            revision: pick(&revisions, n).map_or(0, i32::unsigned_abs),
            replay: word(&replays, n).map(ReplayId::new),
        })
    };
    here.map(|(n, _)| line(n)).collect()
}

/// The value of the nth line, where one may stand for all.
fn pick<T: Copy>(values: &[T], n: usize) -> Option<T> {
    match values {
        [one] => Some(*one),
        values => values.get(n).copied(),
    }
}
