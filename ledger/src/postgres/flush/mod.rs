//! Flush: what the bindings of a lane did, in one call, fenced by the lane's epoch.
//!
//! A flush without dead letters, with which no event goes out, is answered before it is durable; `kept.rs` says why none of it is lost all the same.
//! What a flush does to the accounts is worked out here (`plan.rs`) as far as the cursor passes places for the first
//! time, and in the database for the others. Nothing here decides about deliveries.
//!
//! Read `migrations/postgres/0004_delivery.sql` first, then `plan.rs`.

mod exceptions;
mod kept;
mod lines;
mod plan;

use std::collections::HashMap;
use std::sync::Arc;

use bellwire_schemas::{BindingId, Lane, Seq, SeqRanges, crash_point};
use postgres_types::Type;
use tokio_postgres::Row;

use super::Shared;
use super::append::Emission;
use super::fault::{Fault, misread};
use crate::{BindingFlush, Checkpoint, Error, Flush, FlushOutcome};
use kept::{Asked, LaneMemory, Stands};
use plan::{SharedPlan, Stand};

pub(super) use exceptions::Debts;
pub(super) use kept::Deliveries;
pub(super) use lines::{BLOCK, error_of, error_text, lines_at, offset};
pub(super) use plan::{Plan, big, number, place};

/// How often a flush begins anew because the database says that what we knew is out of date.
const ROUNDS: usize = 8;

/// Refuses a lane that does not exist.
pub(super) fn check_lane(shared: &Shared, lane: Lane) -> Result<(), Error> {
    if lane.0 == 0 || lane.0 > shared.lanes {
        return Err(Error::NotFound(format!("lane {lane} does not exist: the ledger has {}", shared.lanes)));
    }
    Ok(())
}

/// A lane as a column holds it.
pub(super) fn lane_number(lane: Lane) -> i16 {
    i16::try_from(lane.0).unwrap_or(i16::MAX)
}

/// Commits what the bindings of a lane did.
pub(super) async fn flush(shared: &Shared, flush: Flush) -> Result<FlushOutcome, Error> {
    shared.check_writable()?;
    check_lane(shared, flush.lane)?;
    flush.check_lanes(shared.lanes)?;
    let memory = shared.deliveries.lane(flush.lane);
    let mut stands = memory.turn.lock().await;
    if stands.epoch == flush.epoch {
        return Run { shared, memory: &memory, stands: &mut stands, flush: &flush }.run().await;
    }
    // Another epoch counts only once the database has taken a flush under it.
    let mut fresh = Stands { epoch: flush.epoch, ..Stands::default() };
    let outcome = Run { shared, memory: &memory, stands: &mut fresh, flush: &flush }.run().await;
    if matches!(outcome, Ok(FlushOutcome::Flushed)) || fresh.pending.is_some() {
        *stands = fresh;
    }
    outcome
}

/// Where a binding stands in a lane.
pub(super) async fn checkpoint(shared: &Shared, lane: Lane, binding: BindingId) -> Result<Checkpoint, Error> {
    check_lane(shared, lane)?;
    let stand = load(shared, lane, &[binding]).await?.remove(&binding);
    let unknown = || Error::NotFound(format!("binding number {binding} was never declared"));
    Ok(stand.ok_or_else(unknown)?.checkpoint)
}

/// Makes sure, by a synchronous commit, that the flushes answered so far are durable, and sends again what the server
/// has lost. Returns at once when somebody else is at it.
///
/// # Errors
/// When the server cannot be asked; then all of it is kept for the next time.
pub(super) async fn confirm(shared: &Shared) -> Result<(), Error> {
    let Ok(_turn) = shared.deliveries.confirming.try_lock() else { return Ok(()) };
    let asked = shared.deliveries.unconfirmed();
    for lane in ask(shared, &asked).await? {
        let memory = shared.deliveries.lane(lane);
        let mut stands = memory.turn.lock().await;
        send_again(shared, &memory, &mut stands).await?;
    }
    Ok(())
}

/// Asks for unconfirmed flushes and forgets those that are there; answers the lanes that lost some.
async fn ask(shared: &Shared, asked: &[Asked]) -> Result<Vec<Lane>, Error> {
    let (mut lanes, mut bindings, mut versions) = (Vec::new(), Vec::new(), Vec::new());
    for one in asked {
        for (binding, version) in &one.newest {
            lanes.push(lane_number(one.lane));
            bindings.push(number(*binding));
            versions.push(big(*version));
        }
    }
    if lanes.is_empty() {
        return Ok(Vec::new());
    }
    let sql = shared.sql("select distinct lane from bellwire.confirm($1, $2, $3)");
    let types = [Type::INT2_ARRAY, Type::INT4_ARRAY, Type::INT8_ARRAY];
    let [a, b, c] = types;
    let rows = shared.flushes.ask(&sql, &[(&lanes, a), (&bindings, b), (&versions, c)]).await?;
    let lost: Vec<i16> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(misread)?;
    let is_lost = |lane: Lane| lost.contains(&lane_number(lane));
    for one in asked.iter().filter(|one| !is_lost(one.lane)) {
        shared.deliveries.lane(one.lane).confirmed(one);
    }
    Ok(asked.iter().map(|one| one.lane).filter(|lane| is_lost(*lane)).collect())
}

/// Sends the unconfirmed flushes of a lane again, oldest first; those that are there change nothing. Says whether the
/// lane is still ours and all of them are there.
async fn send_again(shared: &Shared, memory: &LaneMemory, stands: &mut Stands) -> Result<bool, Error> {
    stands.known.clear();
    let plans = memory.plans(stands.epoch);
    tracing::warn!(
        flushes = plans.len(),
        "the database lost what it had not made durable, as after a crash: flushing it again"
    );
    for plan in plans {
        loop {
            let Err(fault) = send(shared, &plan).await else { break };
            match fault.code() {
                "BW001" | "42883" | "42P01" => {
                    shared.refresh_generation().await?;
                }
                "BW010" => return Ok(false),
                "BW011" | "BW012" => {
                    lost_for_good(&fault);
                    return Ok(false);
                }
                _ => return Err(fault.into()),
            }
        }
    }
    Ok(true)
}

fn lost_for_good(fault: &Fault) {
    tracing::error!(
        what = fault.detail(),
        "the database lost checkpoints that it had made durable, as after a fail-over: giving the lane up, to begin where \
         they stand"
    );
}

/// Sends a flush and says whether all of it was new. Of a part that was not, somebody else may have written the version,
/// with other contents.
async fn send(shared: &Shared, plan: &Plan) -> Result<bool, Fault> {
    let (text, params) = plan.call();
    let sql = shared.sql_in(text, shared.generation());
    crash_point("flush.before");
    let rows = shared.flushes.call(&sql, &params).await?;
    crash_point("flush.after_commit");
    // What says nothing of the sort is taken for old: then the checkpoints are asked for once more, no harm done.
    Ok(rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(false))
}

/// Reads where bindings stand; unknown ones are left out.
async fn load(
    shared: &Shared,
    lane: Lane,
    bindings: &[BindingId],
) -> Result<HashMap<BindingId, Stand>, Error> {
    let ids: Vec<i32> = bindings.iter().map(|b| number(*b)).collect();
    let sql = shared.sql(
        "select binding, ver, mark, done, account, counted_from from bellwire.stands($1::smallint, $2::int[])",
    );
    let rows =
        shared.flushes.ask(&sql, &[(&lane_number(lane), Type::INT2), (&ids, Type::INT4_ARRAY)]).await?;
    rows.iter().map(stand_at).collect()
}

fn stand_at(row: &Row) -> Result<(BindingId, Stand), Error> {
    let get = |column| row.try_get::<_, i64>(column).map(i64::unsigned_abs).map_err(misread);
    let pairs: Vec<i64> = row.try_get(3).map_err(misread)?;
    let done: SeqRanges = pairs
        .chunks_exact(2)
        .map(|pair| (Seq(pair[0].unsigned_abs()), Seq(pair[1].unsigned_abs())))
        .collect();
    let checkpoint = Checkpoint { version: get(1)?, mark: Seq(get(2)?), done };
    let binding: i32 = row.try_get(0).map_err(misread)?;
    let account = row.try_get(4).map_err(misread)?;
    Ok((BindingId(binding.unsigned_abs()), Stand { checkpoint, account, counted_from: Seq(get(5)?) }))
}

/// One flush on its way.
struct Run<'a> {
    shared: &'a Shared,
    memory: &'a LaneMemory,
    stands: &'a mut Stands,
    flush: &'a Flush,
}

impl Run<'_> {
    async fn run(mut self) -> Result<FlushOutcome, Error> {
        for _ in 0..ROUNDS {
            if let Some(outcome) = self.look_up().await? {
                return Ok(outcome);
            }
            let plan = match Plan::new(self.flush, &self.stands.known) {
                Ok(plan) => Arc::new(plan),
                Err(_) => match self.judge().await? {
                    Some(outcome) => return Ok(outcome),
                    None => continue,
                },
            };
            if self.memory.is_overdue() {
                self.confirm().await?;
            }
            let emission = self.emission().await?;
            if let Some(outcome) = self.attempt(plan, emission).await? {
                return Ok(outcome);
            }
        }
        Err(Error::Unavailable(format!("the checkpoints of lane {} do not come to rest", self.flush.lane)))
    }

    /// What goes out with the flush: the events of the parts that were not flushed before.
    async fn emission(&self) -> Result<Option<Emission>, Error> {
        let new = |part: &&BindingFlush| {
            self.stands.known.get(&part.binding).is_some_and(|s| part.version > s.checkpoint.version)
        };
        let parts = self.flush.bindings.iter().filter(new);
        let events: Vec<_> = parts.flat_map(|part| part.emitted.iter().cloned()).collect();
        if events.is_empty() {
            return Ok(None);
        }
        Ok(Some(Emission::new(self.shared, events, self.flush.at).await?))
    }

    /// Sends a flush and minds the answer; `None` when it must begin anew.
    async fn attempt(
        &mut self,
        plan: SharedPlan,
        emission: Option<Emission>,
    ) -> Result<Option<FlushOutcome>, Error> {
        // Until the answer is here nobody knows where the bindings stand, also when this future is dropped.
        let before = std::mem::take(&mut self.stands.known);
        self.stands.pending = Some(plan.clone());
        let emits = emission.is_some();
        let sent = match emission {
            None => send(self.shared, &plan).await,
            // Refused as a whole unless all of it is new.
            Some(mut emission) => {
                emission.send(self.shared, self.shared.generation(), &plan).await.map(|()| true)
            }
        };
        let fault = match sent {
            Ok(new) => {
                self.stands.pending = None;
                self.done(plan, before, new);
                return Ok(Some(FlushOutcome::Flushed));
            }
            Err(fault) => fault,
        };
        if !fault.code().is_empty() {
            self.stands.pending = None;
        }
        match fault.code() {
            "BW010" => Ok(Some(self.give_up())),
            // Also when the tables of the generation are gone.
            "BW001" | "42883" | "42P01" => {
                self.shared.refresh_generation().await?;
                Ok(None)
            }
            "BW011" => self.mend(&fault).await,
            "BW012" => Ok(None),
            // What its append can meet: a new dedup bucket, another server, the same dedup keys at the same moment.
            "BW003" => self.shared.appenders.reload(self.shared).await.map(|()| None),
            "BW008" => self.shared.follow(fault.detail().parse().unwrap_or(0)).await.map(|()| None),
            "23505" | "40001" | "40P01" if emits => Ok(None),
            "BW013" => self.judge().await,
            _ => Err(fault.into()),
        }
    }

    /// Remembers what a flush made of the checkpoints, unless it was not new: then the next one asks for them.
    fn done(&mut self, plan: SharedPlan, before: HashMap<BindingId, Stand>, new: bool) {
        self.stands.known = if new { before } else { HashMap::new() };
        for part in &self.flush.bindings {
            if let Some(stand) = self.stands.known.get_mut(&part.binding)
                && part.version > stand.checkpoint.version
            {
                stand.checkpoint =
                    Checkpoint { version: part.version, mark: part.mark, done: part.done.clone() };
            }
        }
        if !plan.strict && !plan.bindings.is_empty() {
            self.memory.keep(plan);
        }
    }

    /// Asks for checkpoints that are not known, and thereby learns what became of a flush of unknown outcome. Ones that
    /// are older than a flush that was answered say that the server lost it.
    async fn look_up(&mut self) -> Result<Option<FlushOutcome>, Error> {
        let mut wanted: Vec<BindingId> = self.flush.bindings.iter().map(|part| part.binding).collect();
        wanted.extend(self.stands.pending.iter().flat_map(|plan| plan.parts().map(|(binding, _)| binding)));
        wanted.retain(|binding| !self.stands.known.contains_key(binding));
        if !wanted.is_empty() {
            wanted.sort_unstable();
            wanted.dedup();
            let mut found = load(self.shared, self.flush.lane, &wanted).await?;
            if self.memory.is_ahead_of(self.flush.epoch, &found) {
                if !send_again(self.shared, self.memory, self.stands).await? {
                    return Ok(Some(self.give_up()));
                }
                found = load(self.shared, self.flush.lane, &wanted).await?;
            }
            self.stands.known.extend(found);
        }
        if let Some(plan) = self.stands.pending.take() {
            let there = |(binding, version): (BindingId, u64)| {
                self.stands.known.get(&binding).is_some_and(|stand| stand.checkpoint.version >= version)
            };
            if !plan.strict && plan.parts().all(there) {
                self.memory.keep(plan);
            }
        }
        Ok(None)
    }

    /// What is wrong with a flush, in the order of the contract: fenced, unknown bindings, what breaks the accounts.
    async fn judge(&mut self) -> Result<Option<FlushOutcome>, Error> {
        let Flush { lane, epoch, bindings, .. } = self.flush;
        let sql = self.shared.sql("select owned, tail from bellwire.lane_now($1, $2)");
        let params = [(&lane_number(*lane) as _, Type::INT2), (&i64::from(epoch.0) as _, Type::INT8)];
        let rows = self.shared.flushes.ask(&sql, &params).await?;
        let (owned, tail): (bool, i64) = (super::one(&rows, 0)?, super::one(&rows, 1)?);
        if !owned {
            return Ok(Some(self.give_up()));
        }
        self.flush.check_once_each()?;
        if let Some(outcome) = self.look_up().await? {
            return Ok(Some(outcome));
        }
        for part in bindings {
            let unknown = || Error::NotFound(format!("binding number {} was never declared", part.binding));
            let stand = self.stands.known.get(&part.binding).ok_or_else(unknown)?;
            if part.version > stand.checkpoint.version {
                part.check(&stand.checkpoint, Seq(tail.unsigned_abs()))?;
            }
        }
        Ok(None)
    }

    /// An earlier flush is missing, or there are more than we know of: `detail` is "binding found expected".
    async fn mend(&mut self, fault: &Fault) -> Result<Option<FlushOutcome>, Error> {
        let numbers: Vec<i64> = fault.detail().split(' ').filter_map(|n| n.parse().ok()).collect();
        if let [_, found, expected] = numbers[..]
            && found > expected
        {
            return Ok(None);
        }
        if self.memory.plans(self.flush.epoch).is_empty() {
            lost_for_good(fault);
        } else if send_again(self.shared, self.memory, self.stands).await? {
            return Ok(None);
        }
        Ok(Some(self.give_up()))
    }

    /// There is a hole below what we know, and nothing to fill it with; or the lane is no longer ours.
    fn give_up(&mut self) -> FlushOutcome {
        self.stands.known.clear();
        self.memory.forget(self.flush.epoch);
        FlushOutcome::Fenced
    }

    /// Confirms the flushes of this lane.
    async fn confirm(&mut self) -> Result<(), Error> {
        let asked: Vec<Asked> = self.memory.unconfirmed(self.flush.lane).into_iter().collect();
        if !ask(self.shared, &asked).await?.is_empty() {
            let known = std::mem::take(&mut self.stands.known);
            if send_again(self.shared, self.memory, self.stands).await? {
                self.stands.known = known;
            }
        }
        Ok(())
    }
}
