//! A flush as the arguments of its function: what changes, and what it does to the accounts.
//!
//! First endings by the cursor are counted here, from what is known of the checkpoint before; the function only adds. A
//! place that the cursor had passed before goes with it as an exception.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bellwire_schemas::{BindingId, Epoch, FinalState, Seq};
use postgres_types::Type;

use super::exceptions::Exceptions;
use super::lines::Lines;
use crate::postgres::connect::Param;
use crate::{BindingFlush, Checkpoint, DeadLetter, Error, Flush, Owed};

/// How many states a delivery can end in; `ended` has as many numbers.
const STATES: usize = FinalState::ALL.len();

/// Where a binding stands in a lane, and where its account begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::postgres) struct Stand {
    pub checkpoint: Checkpoint,
    pub account: i32,
    pub counted_from: Seq,
}

/// The arguments of one flush. It can be sent again as it is: the same versions change nothing twice.
#[derive(Debug)]
pub(in crate::postgres) struct Plan {
    pub epoch: Epoch,
    /// It holds dead letters, or events go out with it: answered when it is durable.
    pub strict: bool,
    /// What it weighs in memory, bytes, about.
    pub bytes: usize,
    pub bindings: Vec<i32>,
    pub versions: Vec<i64>,
    lane_number: i16,
    epoch_number: i64,
    reach: i64,
    before: Vec<i64>,
    accounts: Vec<i32>,
    marks: Vec<i64>,
    done: Vec<i64>,
    done_counts: Vec<i32>,
    ended: Vec<i64>,
    lines: Lines,
    exceptions: Exceptions,
}

/// Everything that a part says of one place beyond a first ending.
#[derive(Default)]
struct Place<'a> {
    owed: Option<&'a Owed>,
    settled: bool,
    letter: Option<&'a DeadLetter>,
}

impl Plan {
    /// Works out what a flush changes. The tail is not known here: the function compares.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown binding, [`Error::Corrupt`] for a flush that would break the accounts.
    pub fn new(flush: &Flush, stands: &HashMap<BindingId, Stand>) -> Result<Self, Error> {
        flush.check_once_each()?;
        let mut plan = Self {
            epoch: flush.epoch,
            strict: flush.bindings.iter().any(|part| !part.dead.is_empty() || !part.emitted.is_empty()),
            bytes: 0,
            bindings: Vec::with_capacity(flush.bindings.len()),
            versions: Vec::new(),
            lane_number: super::lane_number(flush.lane),
            epoch_number: i64::from(flush.epoch.0),
            reach: 0,
            before: Vec::new(),
            accounts: Vec::new(),
            marks: Vec::new(),
            done: Vec::new(),
            done_counts: Vec::new(),
            ended: Vec::new(),
            lines: Lines::default(),
            exceptions: Exceptions::default(),
        };
        for part in &flush.bindings {
            let unknown = || Error::NotFound(format!("binding number {} was never declared", part.binding));
            let stand = stands.get(&part.binding).ok_or_else(unknown)?;
            // One that is there already changes nothing, so it cannot be wrong either.
            if part.version > stand.checkpoint.version {
                part.check(&stand.checkpoint, Seq(u64::MAX))?;
                plan.add(part, stand)?;
            }
        }
        plan.bytes =
            200 * plan.bindings.len() + 16 * plan.done.len() + plan.lines.bytes + plan.exceptions.bytes;
        Ok(plan)
    }

    fn add(&mut self, part: &BindingFlush, stand: &Stand) -> Result<(), Error> {
        let after = Checkpoint { version: part.version, mark: part.mark, done: part.done.clone() };
        self.reach = self.reach.max(place(after.reach()));
        self.bindings.push(number(part.binding));
        self.versions.push(big(part.version));
        self.before.push(big(stand.checkpoint.version));
        self.accounts.push(stand.account);
        self.marks.push(place(part.mark));
        let pairs = self.done.len();
        self.done.extend(part.done.iter().flat_map(|(first, last)| [place(first), place(last)]));
        self.done_counts.push(int(self.done.len() - pairs));
        let nth = int(self.bindings.len());
        self.lines.add(nth, &part.log)?;
        self.count(nth, part, stand)
    }

    /// Counts first endings and sorts out the exceptions.
    fn count(&mut self, nth: i32, part: &BindingFlush, stand: &Stand) -> Result<(), Error> {
        let mut ended = [0; STATES];
        let endings = part.endings();
        let places = places(part);
        let mut count = |seq: Seq, state: FinalState| {
            ended[usize::from(code(state).unsigned_abs()) - 1] += i64::from(seq > stand.counted_from);
        };
        for (seq, state) in &endings {
            if !stand.checkpoint.passed(*seq) && !places.contains_key(seq) {
                count(*seq, *state);
            }
        }
        let again = endings.keys().filter(|seq| stand.checkpoint.passed(**seq));
        let seqs: BTreeSet<Seq> = places.keys().chain(again).copied().collect();
        for seq in seqs {
            let passed = stand.checkpoint.passed(seq);
            let state = endings.get(&seq).copied();
            let none = Place::default();
            let place = places.get(&seq).unwrap_or(&none);
            let owes = place.owed.filter(|_| passed || !place.settled);
            let mut row = 0;
            if passed || owes.is_some() {
                row = self.exceptions.add(nth, seq, passed, owes, passed && place.settled, state)?;
            } else if let Some(state) = state {
                count(seq, state);
            }
            if let Some(letter) = place.letter {
                self.exceptions.bury(nth, row, letter)?;
            }
        }
        self.ended.extend(ended);
        Ok(())
    }

    /// The statement, with `{g}` for the generation, and its arguments.
    pub fn call(&self) -> (&'static str, Vec<Param<'_>>) {
        let sql = if self.exceptions.is_empty() { PLAIN } else { WHOLE };
        (sql, self.params())
    }

    /// The arguments alone; those of exceptions come last, and are left out where there is none.
    pub fn params(&self) -> Vec<Param<'_>> {
        let mut params: Vec<Param<'_>> = vec![
            (&self.lane_number, Type::INT2),
            (&self.epoch_number, Type::INT8),
            (&self.strict, Type::BOOL),
            (&self.reach, Type::INT8),
            (&self.bindings, Type::INT4_ARRAY),
            (&self.versions, Type::INT8_ARRAY),
            (&self.before, Type::INT8_ARRAY),
            (&self.accounts, Type::INT4_ARRAY),
            (&self.marks, Type::INT8_ARRAY),
            (&self.done, Type::INT8_ARRAY),
            (&self.done_counts, Type::INT4_ARRAY),
            (&self.ended, Type::INT8_ARRAY),
        ];
        self.lines.push(&mut params);
        if !self.exceptions.is_empty() {
            self.exceptions.push(&mut params);
        }
        params
    }

    /// Whether a part of this binding is in it, with its version.
    pub fn parts(&self) -> impl Iterator<Item = (BindingId, u64)> + '_ {
        let id = |n: &i32| BindingId(n.unsigned_abs());
        self.bindings.iter().map(id).zip(self.versions.iter().map(|v| v.unsigned_abs()))
    }
}

/// A plan that others hold, too.
pub(in crate::postgres) type SharedPlan = Arc<Plan>;

/// What a part says of places besides their log; a dead letter ends a debt.
fn places(part: &BindingFlush) -> BTreeMap<Seq, Place<'_>> {
    let mut places: BTreeMap<Seq, Place<'_>> = BTreeMap::new();
    for owed in &part.owed {
        places.entry(owed.seq).or_default().owed = Some(owed);
    }
    for seq in &part.settled {
        places.entry(*seq).or_default().settled = true;
    }
    for letter in &part.dead {
        let place = places.entry(letter.event.address.seq).or_default();
        (place.settled, place.letter) = (true, Some(letter));
    }
    places
}

/// The number of a state in the tables.
pub(in crate::postgres) fn code(state: FinalState) -> i16 {
    match state {
        FinalState::Delivered => 1,
        FinalState::Filtered => 2,
        FinalState::Expired => 3,
        FinalState::Dead => 4,
        FinalState::Discarded => 5,
    }
}

/// A place as a column holds it.
pub(in crate::postgres) fn place(seq: Seq) -> i64 {
    big(seq.0)
}

/// A binding as a column holds it.
pub(in crate::postgres) fn number(binding: BindingId) -> i32 {
    i32::try_from(binding.0).unwrap_or(i32::MAX)
}

/// A count as a column holds it; none comes near the limit.
pub(in crate::postgres) fn big(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The same for a small one.
pub(in crate::postgres) fn int<N: TryInto<i32>>(n: N) -> i32 {
    n.try_into().unwrap_or(i32::MAX)
}

const PLAIN: &str = "select bellwire.flush_{g}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, \
    $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)";

const WHOLE: &str = "select bellwire.flush_{g}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, \
    $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, \
    $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50, $51, $52, $53, $54, $55, $56)";
