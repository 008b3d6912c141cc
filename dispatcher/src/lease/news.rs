//! What other controllers did to the ledger: events they appended to our lanes, and what their operators changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bellwire_schemas::{Epoch, Lane, Vital};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::View;
use crate::lane::{Roster, Stop};
use crate::replay::Replayer;
use crate::rooms::Rooms;

/// Between two looks at the tails while events keep coming from others.
const BUSY_POLL: Duration = Duration::from_millis(5);
/// The longest rest while others are alive; it doubles up to here.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// Between two looks while nobody else is known: a newcomer may append before its heartbeat is seen.
const LONE_POLL: Duration = Duration::from_millis(250);
/// A question without an answer is asked again after this long.
const ANSWER: Duration = Duration::from_secs(2);
/// Before the ledger is asked again for changes it did not tell.
const CHANGES_REST: Duration = Duration::from_secs(1);

/// Tells the readers of our lanes how far others have appended. Ends with the dispatcher.
pub(crate) async fn follow_tails(
    rooms: Arc<Rooms>,
    epochs: BTreeMap<Lane, watch::Receiver<Option<Epoch>>>,
    view: watch::Receiver<View>,
    mut stop: watch::Receiver<Stop>,
) {
    let _vital = Vital("the tails of the lanes");
    let mut rest = LONE_POLL;
    while *stop.borrow() == Stop::Run {
        tokio::select! {
            () = sleep(rest) => {}
            _ = stop.changed() => continue,
        }
        let owned = |lane: &Lane| epochs.get(lane).is_some_and(|epoch| epoch.borrow().is_some());
        if !epochs.keys().any(owned) {
            rest = LONE_POLL;
            continue;
        }
        let mut moved = false;
        match timeout(ANSWER, rooms.ledger().tails()).await {
            Ok(Ok(tails)) => {
                for (lane, tail) in (1..).map(Lane).zip(tails).filter(|(lane, _)| owned(lane)) {
                    moved |= rooms.feed.advance(lane, tail);
                }
            }
            // The heartbeats say so already.
            Ok(Err(error)) => tracing::debug!(%error, "cannot read the tails"),
            Err(_) => tracing::debug!("no answer about the tails"),
        }
        rest = match (view.borrow().cluster.controllers.len() > 1, moved) {
            (false, _) => LONE_POLL,
            (true, true) => BUSY_POLL,
            (true, false) => (rest * 2).clamp(BUSY_POLL, IDLE_POLL),
        };
    }
}

/// Looks again at what is kept in memory whenever the ledger says that somebody changed it: pauses, debts, replays.
/// Ends with the dispatcher.
pub(crate) async fn follow_changes(
    rooms: Arc<Rooms>,
    roster: Arc<Roster>,
    replayer: Arc<Replayer>,
    mut view: watch::Receiver<View>,
    mut stop: watch::Receiver<Stop>,
) {
    let _vital = Vital("the changes by others");
    let mut seen = 0;
    while *stop.borrow() == Stop::Run {
        let changes = view.borrow_and_update().cluster.changes;
        if changes != seen {
            match timeout(ANSWER, rooms.ledger().bindings()).await {
                Ok(Ok(records)) => {
                    seen = changes;
                    for (id, binding) in roster.all() {
                        if let Some(record) = records.iter().find(|record| record.id == id)
                            && binding.plan().pause != record.paused
                        {
                            binding.set_pause(record.paused.clone());
                        }
                        binding.poke();
                    }
                    replayer.wake();
                }
                failed => {
                    let error = failed.map(|answer| answer.map(drop).map_err(|e| e.to_string()));
                    tracing::warn!(?error, "cannot read what others changed");
                    tokio::select! {
                        () = sleep(CHANGES_REST) => {}
                        _ = stop.changed() => {}
                    }
                    continue;
                }
            }
        }
        tokio::select! {
            Ok(()) = view.changed() => {}
            _ = stop.changed() => {}
        }
    }
}
