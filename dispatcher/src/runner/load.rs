//! Debts are known by their rows; before an attempt their events are read, many at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::{DeliveryKey, Error, Owed, OwedReason, StoredEvent};
use tokio::task::JoinSet;

use super::attempt::{End, Landed};
use super::cut::cancelled;
use super::queue::Job;
use crate::binding::Plan;
use crate::rooms::Rooms;

/// How long an attempt rests when the ledger does not give it its event.
const LOAD_REST: Duration = Duration::from_secs(1);
/// Debts read at once.
const AT_ONCE: usize = 16;

/// Reads the events of debts. Those that can be attempted come back in the order of places, with their events; the
/// others have landed.
pub(super) async fn load(rooms: &Arc<Rooms>, plan: &Arc<Plan>, jobs: Vec<Job>) -> (Vec<Job>, Landed) {
    let mut landed = Landed::default();
    let (mut ready, missing): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.event.is_some());
    if missing.is_empty() {
        return (ready, landed);
    }
    let mut left = missing.into_iter();
    let mut reading = JoinSet::new();
    loop {
        while reading.len() < AT_ONCE
            && let Some(job) = left.next()
        {
            reading.spawn(read(Arc::clone(rooms), Arc::clone(plan), job));
        }
        match reading.join_next().await {
            Some(Ok((job, None))) => ready.push(job),
            Some(Ok((job, Some(end)))) => landed.jobs.push((job, end)),
            Some(Err(error)) => std::panic::resume_unwind(Box::new(error.to_string())),
            None => break,
        }
    }
    if landed.jobs.iter().any(|(_, end)| matches!(end, End::Untried)) {
        tokio::time::sleep(LOAD_REST).await;
    }
    ready.sort_by_key(|job| job.address);
    let unread: HashSet<u64> =
        landed.jobs.iter().filter(|(_, end)| matches!(end, End::Untried)).map(|(job, _)| job.line).collect();
    let mut bytes = plan.spec.batch.bytes.0;
    let mut fits = true;
    let mut kept = Vec::with_capacity(ready.len());
    for job in ready {
        // Nothing goes ahead of what did not fit or could not be read: it may be of the same key.
        let size = job.event.as_ref().map_or(0, |stored| stored.event.size_bytes() as u64);
        fits = fits && (kept.is_empty() || size <= bytes);
        bytes = bytes.saturating_sub(size);
        if fits && !unread.contains(&job.line) {
            kept.push(job);
        } else {
            landed.jobs.push((job, End::Untried));
        }
    }
    (kept, landed)
}

async fn read(rooms: Arc<Rooms>, plan: Arc<Plan>, mut job: Job) -> (Job, Option<End>) {
    match find(&rooms, &plan, &job).await {
        Ok(Found { owed: None, .. }) => (job, Some(End::Gone)),
        Ok(Found { owed: Some(Some(row)), .. }) if row.reason == OwedReason::Cancelled => {
            let error = row.error.unwrap_or_else(cancelled);
            job.debt = Some(OwedReason::Cancelled);
            (job, Some(End::Cancelled(error)))
        }
        Ok(Found { event: None, .. }) => (job, Some(End::Missing)),
        Ok(Found { owed: Some(row), event: Some(event) }) => {
            if let Some(owed) = row {
                (job.attempts, job.since) = (owed.attempts, owed.since);
                (job.error, job.debt) = (owed.error, Some(owed.reason));
            }
            job.event = Some(Arc::new(event));
            (job, None)
        }
        Err(error) => {
            tracing::warn!(address = %job.address, %error, "cannot read the event of a debt");
            (job, Some(End::Untried))
        }
    }
}

struct Found {
    /// `None`: the row is gone; `Some(None)`: it was not asked for.
    owed: Option<Option<Owed>>,
    event: Option<StoredEvent>,
}

async fn find(rooms: &Rooms, plan: &Plan, job: &Job) -> Result<Found, Error> {
    let key = DeliveryKey { binding: plan.record.id, address: job.address };
    // A binding in order knows places and times of its debts; what they are now, the row says.
    let owed = match plan.is_ordered() && job.debt.is_some() {
        true => rooms.ledger().owed(key).await?.map(Some),
        false => Some(None),
    };
    let mut event = rooms.ledger().event(job.address).await?;
    if event.is_none() {
        event = rooms.ledger().dead_letter(key).await?.map(|dead| dead.event);
    }
    Ok(Found { owed, event })
}
