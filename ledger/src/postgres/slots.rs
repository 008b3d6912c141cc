//! Slots of limits that controllers share; see `migrations/postgres/0014_slots.sql`.
//!
//! They go over connections of their own: they wait neither for questions nor for flushes, and no sign of life waits for
//! them.

use std::borrow::Cow;
use std::time::Duration;

use bellwire_schemas::{ControllerId, Timestamp};
use postgres_types::Type;

use super::codec::{Time, escape};
use super::pool::Param;
use super::{Shared, one};
use crate::slots::TURN;
use crate::{Error, SlotsAsked, SlotsGranted};

/// How long the database may take: an answer that comes later is out of date, since it is asked again every half second.
const LIMIT: Duration = Duration::from_secs(5);

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
    let params: [Param<'_>; 7] = [
        (&controller.0, Type::UUID),
        (&names, Type::TEXT_ARRAY),
        (&mosts, Type::INT8_ARRAY),
        (&kept, Type::INT8_ARRAY),
        (&wanteds, Type::INT8_ARRAY),
        (&turn, Type::INT8),
        (&now, Type::TIMESTAMPTZ),
    ];
    let sql = shared.sql("select s.* from bellwire.slots($1, $2, $3, $4, $5, $6, $7) s");
    let rows = shared.slots.ask_within(&sql, &params, LIMIT).await?;
    let (slots, parts): (Vec<i64>, Vec<i64>) = (one(&rows, 0)?, one(&rows, 1)?);
    let odd = || {
        let count = asked.len();
        Error::Corrupt(format!("{count} limits were asked for, the answer is {slots:?} and {parts:?}"))
    };
    if slots.len() != asked.len() || parts.len() != asked.len() {
        return Err(odd());
    }
    let number = |n: &i64| u32::try_from(*n).map_err(|_| odd());
    let granted = |(slots, part)| Ok(SlotsGranted { slots: number(slots)?, part: number(part)? });
    slots.iter().zip(&parts).map(granted).collect()
}
