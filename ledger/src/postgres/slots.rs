//! Slots of limits that controllers share; see `migrations/postgres/0014_slots.sql`.
//!
//! They go over connections of their own: they wait neither for questions nor for flushes, and no sign of life waits for
//! them.
//!
//! A question whose answer nobody got may still come to the database, and would take back what a later one was granted.
//! So the next one names a new round, and the database refuses questions of earlier rounds.

use std::borrow::Cow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bellwire_schemas::{ControllerId, Timestamp};
use postgres_types::Type;
use tokio_postgres::Row;
use uuid::Uuid;

use super::codec::{Time, escape};
use super::fault::Fault;
use super::pool::{Param, Pool};
use super::{Shared, one};
use crate::slots::TURN;
use crate::{Error, SlotsAsked, SlotsGranted};

/// How long the database may take: an answer that comes later is out of date, since it is asked again every half second.
const LIMIT: Duration = Duration::from_secs(5);

/// How often a question is sent.
const TRIES: usize = 3;
/// A question of a later round came first.
const OVERTAKEN: &str = "BW014";

/// What questions for slots need.
pub(super) struct Slots {
    pub pool: Pool,
    round: AtomicI64,
}

impl Slots {
    /// Begins with some round, so that a process does not go on with that of an earlier one of the same id.
    pub fn new(pool: Pool) -> Self {
        Self { pool, round: AtomicI64::new(i64::from(Uuid::new_v4().as_fields().0)) }
    }

    fn begin(&self) -> Question<'_> {
        Question { slots: self, round: self.round.load(Ordering::Acquire), is_over: false }
    }
}

/// A question under way. Dropped before it is over, it begins the next round.
struct Question<'a> {
    slots: &'a Slots,
    round: i64,
    is_over: bool,
}

impl Question<'_> {
    /// The database has told what became of it, and maybe the round in which it is.
    fn ends(mut self, round: Option<i64>) {
        self.is_over = true;
        if let Some(round) = round {
            self.slots.round.fetch_max(round.saturating_add(1), Ordering::AcqRel);
        }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.slots.round.fetch_max(self.round.saturating_add(1), Ordering::AcqRel);
        }
    }
}

/// Asks for slots; see [`crate::Ledger::slots`]. Asking twice gives what asking once does.
pub(super) async fn slots(
    shared: &Shared,
    controller: ControllerId,
    asked: &[SlotsAsked],
    now: Timestamp,
) -> Result<Vec<SlotsGranted>, Error> {
    shared.check_writable()?;
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<Cow<'_, str>> = asked.iter().map(|asked| escape(&asked.limit)).collect();
    let numbers = |of: fn(&SlotsAsked) -> u32| asked.iter().map(|a| i64::from(of(a))).collect::<Vec<_>>();
    let (mosts, kept, wanteds) = (numbers(|a| a.most), numbers(|a| a.kept), numbers(|a| a.wanted));
    let (turn, now) = (TURN.as_millis() as i64, Time(now));
    let sql = shared.sql("select s.* from bellwire.slots($1, $2, $3, $4, $5, $6, $7, $8) s");
    for left in (0..TRIES).rev() {
        let question = shared.slots.begin();
        let round = question.round;
        let params: [Param<'_>; 8] = [
            (&controller.0, Type::UUID),
            (&names, Type::TEXT_ARRAY),
            (&mosts, Type::INT8_ARRAY),
            (&kept, Type::INT8_ARRAY),
            (&wanteds, Type::INT8_ARRAY),
            (&turn, Type::INT8),
            (&now, Type::TIMESTAMPTZ),
            (&round, Type::INT8),
        ];
        match shared.slots.pool.call_within(&sql, &params, LIMIT).await {
            Ok(rows) => {
                question.ends(None);
                return granted_of(&rows, asked.len());
            }
            Err(fault) if fault.code() == OVERTAKEN => question.ends(fault.detail().parse().ok()),
            Err(fault) if left > 0 && fault.ends_connection() && !matches!(fault, Fault::Late(_)) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Err(Error::Unavailable("later questions for slots came first".into()))
}

fn granted_of(rows: &[Row], count: usize) -> Result<Vec<SlotsGranted>, Error> {
    let (slots, parts): (Vec<i64>, Vec<i64>) = (one(rows, 0)?, one(rows, 1)?);
    let odd =
        || Error::Corrupt(format!("{count} limits were asked for, the answer is {slots:?} and {parts:?}"));
    if slots.len() != count || parts.len() != count {
        return Err(odd());
    }
    let number = |n: &i64| u32::try_from(*n).map_err(|_| odd());
    let granted = |(slots, part)| Ok(SlotsGranted { slots: number(slots)?, part: number(part)? });
    slots.iter().zip(&parts).map(granted).collect()
}
