//! Debts, places passed before, and dead letters of a flush, as arrays.

use bellwire_schemas::{FinalState, Seq};
use postgres_types::Type;

use super::lines::error_text;
use super::plan::{code, int, place};
use crate::postgres::codec::{Time, escape, texts};
use crate::postgres::connect::Param;
use crate::{DeadLetter, Error, Owed, OwedReason};

/// A row per place that is owed or was passed before, and a row per dead letter.
#[derive(Debug, Default)]
pub(super) struct Exceptions {
    /// What it weighs in memory, bytes, about.
    pub bytes: usize,
    parts: Vec<i32>,
    seqs: Vec<i64>,
    passed: Vec<bool>,
    owes: Vec<bool>,
    settles: Vec<bool>,
    states: Vec<Option<i16>>,
    debts: Debts,
    dead: Dead,
}

/// Debts as columns, all null where there is none.
#[derive(Debug, Default)]
pub(in crate::postgres) struct Debts {
    pub attempts: Vec<Option<i32>>,
    pub next: Vec<Option<Time>>,
    pub since: Vec<Option<Time>>,
    pub errors: Vec<Option<String>>,
    pub reasons: Vec<Option<i16>>,
    pub replays: Vec<Option<String>>,
    pub keys: Vec<Option<String>>,
}

#[derive(Debug, Default)]
struct Dead {
    parts: Vec<i32>,
    places: Vec<i32>,
    seqs: Vec<i64>,
    died: Vec<Time>,
    first: Vec<Time>,
    attempts: Vec<i32>,
    errors: Vec<String>,
    fingerprints: Vec<String>,
    logs: Vec<String>,
    sources: Vec<String>,
    types: Vec<String>,
    accepted: Vec<Time>,
    keys: Vec<Option<String>>,
    ids: Vec<String>,
    attributes: Vec<String>,
    metas: Vec<Option<String>>,
    data: Vec<Option<Vec<u8>>>,
}

impl Exceptions {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.dead.parts.is_empty()
    }

    /// Adds a place of the nth part; answers the number of its row, from 1.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a failure cannot be written as JSON.
    pub fn add(
        &mut self,
        nth: i32,
        seq: Seq,
        passed: bool,
        owed: Option<&Owed>,
        settles: bool,
        state: Option<FinalState>,
    ) -> Result<i32, Error> {
        self.parts.push(nth);
        self.seqs.push(place(seq));
        self.passed.push(passed);
        self.owes.push(owed.is_some());
        self.settles.push(settles);
        self.states.push(state.map(code));
        self.debts.add(owed)?;
        let last = |texts: &Vec<Option<String>>| texts.last().and_then(Option::as_ref).map_or(0, String::len);
        self.bytes += 200 + last(&self.debts.errors) + last(&self.debts.keys);
        Ok(int(self.parts.len()))
    }

    /// Adds a dead letter of the nth part, whose place has a row or 0.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when something of it cannot be written as JSON.
    pub fn bury(&mut self, nth: i32, row: i32, letter: &DeadLetter) -> Result<(), Error> {
        let (dead, stored) = (&mut self.dead, &letter.event);
        let corrupt = |e| Error::Corrupt(format!("write a dead letter as JSON: {e}"));
        let (attributes, meta) = texts(&stored.event)?;
        dead.parts.push(nth);
        dead.places.push(row);
        dead.seqs.push(place(stored.address.seq));
        dead.died.push(Time(letter.died_at));
        dead.first.push(Time(letter.first_at));
        dead.attempts.push(int(letter.attempts));
        dead.errors.push(serde_json::to_string(&letter.error).map_err(corrupt)?);
        dead.fingerprints.push(escape(&letter.fingerprint).into_owned());
        dead.logs.push(serde_json::to_string(&letter.logs).map_err(corrupt)?);
        dead.sources.push(escape(stored.source.as_str()).into_owned());
        dead.types.push(escape(&stored.event.kind).into_owned());
        dead.accepted.push(Time(stored.accepted_at));
        dead.keys.push(stored.key.as_deref().map(|key| escape(key).into_owned()));
        dead.ids.push(escape(&stored.event.id).into_owned());
        dead.attributes.push(attributes);
        dead.metas.push(meta);
        dead.data.push(stored.event.data.as_ref().map(|data| data.to_vec()));
        Ok(())
    }

    /// Adds the arguments of the function.
    pub fn push<'a>(&'a self, params: &mut Vec<Param<'a>>) {
        params.extend([
            (&self.parts as _, Type::INT4_ARRAY),
            (&self.seqs as _, Type::INT8_ARRAY),
            (&self.passed as _, Type::BOOL_ARRAY),
            (&self.owes as _, Type::BOOL_ARRAY),
            (&self.settles as _, Type::BOOL_ARRAY),
            (&self.states as _, Type::INT2_ARRAY),
        ]);
        self.debts.push(params);
        let dead = &self.dead;
        params.extend([
            (&dead.parts as _, Type::INT4_ARRAY),
            (&dead.places as _, Type::INT4_ARRAY),
            (&dead.seqs as _, Type::INT8_ARRAY),
            (&dead.died as _, Type::TIMESTAMPTZ_ARRAY),
            (&dead.first as _, Type::TIMESTAMPTZ_ARRAY),
            (&dead.attempts as _, Type::INT4_ARRAY),
            (&dead.errors as _, Type::TEXT_ARRAY),
            (&dead.fingerprints as _, Type::TEXT_ARRAY),
            (&dead.logs as _, Type::TEXT_ARRAY),
            (&dead.sources as _, Type::TEXT_ARRAY),
            (&dead.types as _, Type::TEXT_ARRAY),
            (&dead.accepted as _, Type::TIMESTAMPTZ_ARRAY),
            (&dead.keys as _, Type::TEXT_ARRAY),
            (&dead.ids as _, Type::TEXT_ARRAY),
            (&dead.attributes as _, Type::TEXT_ARRAY),
            (&dead.metas as _, Type::TEXT_ARRAY),
            (&dead.data as _, Type::BYTEA_ARRAY),
            (&self.debts.keys as _, Type::TEXT_ARRAY),
        ]);
    }
}

impl Debts {
    /// Adds a debt, or a row of nulls.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when its failure cannot be written as JSON.
    pub fn add(&mut self, owed: Option<&Owed>) -> Result<(), Error> {
        let reason = owed.map(|o| reason_code(&o.reason));
        self.attempts.push(owed.map(|o| int(o.attempts)));
        self.next.push(owed.map(|o| Time(o.next_at)));
        self.since.push(owed.map(|o| Time(o.since)));
        self.errors.push(error_text(owed.and_then(|o| o.error.as_ref()))?);
        self.reasons.push(reason.map(|(code, _)| code));
        self.replays.push(reason.and_then(|(_, replay)| replay.map(|r| escape(r).into_owned())));
        self.keys.push(owed.and_then(|o| o.key.as_deref()).map(|key| escape(key).into_owned()));
        Ok(())
    }

    /// Adds the arguments of a function but for the keys, in this order: attempts, next, since, error, reason, replay.
    pub fn push<'a>(&'a self, params: &mut Vec<Param<'a>>) {
        params.extend([
            (&self.attempts as _, Type::INT4_ARRAY),
            (&self.next as _, Type::TIMESTAMPTZ_ARRAY),
            (&self.since as _, Type::TIMESTAMPTZ_ARRAY),
            (&self.errors as _, Type::TEXT_ARRAY),
            (&self.reasons as _, Type::INT2_ARRAY),
            (&self.replays as _, Type::TEXT_ARRAY),
        ]);
    }
}

/// A reason to be owed, as its number and the replay.
fn reason_code(reason: &OwedReason) -> (i16, Option<&str>) {
    match reason {
        OwedReason::Retry => (0, None),
        OwedReason::Redrive => (1, None),
        OwedReason::Replay(id) => (2, Some(id.as_str())),
        OwedReason::Parked => (3, None),
        OwedReason::Blocked => (4, None),
        OwedReason::Delayed => (5, None),
        OwedReason::Debounced => (6, None),
        // 7 is a request: only operators write these.
        OwedReason::Cancelled => (8, None),
    }
}
