//! The task that keeps the leases: sends heartbeats, tells lanes that they are ours or no more.
//!
//! It waits for nothing but the answer of its own heartbeat: lanes are taken, flushed and released by tasks of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::{Cluster, Heartbeat};
use bellwire_schemas::live::Fact;
use bellwire_schemas::{ControllerId, Epoch, Lane, Vital, crash_point};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::Fence;
use super::share::{Held, orders};
use crate::lane::{End, LaneTask, Roster, Stop};
use crate::rooms::Rooms;
use crate::slots::Slots;

/// Between two looks at a ledger that nobody shares: only a fault could have changed anything.
const LONE_BEAT: Duration = Duration::from_secs(5);
/// Before a lane that was lost is asked for again.
const LOST_REST: Duration = Duration::from_millis(100);
/// Before a lane that could not be taken, or that broke down, is asked for again.
const REFUSED_REST: Duration = Duration::from_secs(1);
/// Heartbeats to wait for before lanes of others are taken, after the ledger was away for longer than leases are
/// believed: the others were cut off as well, and need as long to be heard again.
const CALM_BEATS: u32 = 3;
/// How long the farewell may take.
const LEAVE: Duration = Duration::from_secs(2);

/// What the last answered heartbeat showed.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) cluster: Cluster,
    /// Why heartbeats fail, while they do.
    pub(crate) trouble: Option<String>,
}

/// Keeps the leases.
pub(crate) struct Keeper {
    rooms: Arc<Rooms>,
    roster: Arc<Roster>,
    fence: Arc<Fence>,
    slots: Arc<Slots>,
    stop: watch::Receiver<Stop>,
    view: watch::Sender<View>,
    epochs: BTreeMap<Lane, watch::Sender<Option<Epoch>>>,
    holds: BTreeMap<Lane, Hold>,
    tasks: JoinSet<(Lane, End)>,
    releases: JoinSet<()>,
    told: Told,
    /// When to look again, earlier than the next heartbeat would be due.
    hurry: Option<Instant>,
    /// When the last answered heartbeat was sent.
    heard_at: Option<Instant>,
    /// Lanes that were others' are left alone until then.
    calm_until: Option<Instant>,
}

/// A lane that is ours, being taken or being given back.
struct Hold {
    stop: watch::Sender<Stop>,
    since: Instant,
}

/// What people have been told.
#[derive(Default)]
struct Told {
    lanes: BTreeSet<Lane>,
    members: BTreeMap<ControllerId, String>,
    /// Whether there was ever anybody to share with.
    is_shared: bool,
}

type Beat = Pin<Box<dyn Future<Output = (Instant, Result<Cluster, String>)> + Send>>;

impl Keeper {
    pub(crate) fn new(
        rooms: Arc<Rooms>,
        roster: Arc<Roster>,
        (fence, slots): (Arc<Fence>, Arc<Slots>),
        stop: watch::Receiver<Stop>,
        view: watch::Sender<View>,
        epochs: BTreeMap<Lane, watch::Sender<Option<Epoch>>>,
    ) -> Self {
        let (holds, tasks, releases) = (BTreeMap::new(), JoinSet::new(), JoinSet::new());
        let told = Told::default();
        let (hurry, heard_at, calm_until) = (None, None, None);
        Self {
            rooms,
            roster,
            fence,
            slots,
            stop,
            view,
            epochs,
            holds,
            tasks,
            releases,
            told,
            hurry,
            heard_at,
            calm_until,
        }
    }

    /// Keeps the leases until the dispatcher ends and every lane is given back.
    pub(crate) async fn run(mut self) {
        let _vital = Vital("the leases");
        let mut beat: Option<Beat> = None;
        let mut beat_at = Instant::now();
        let mut ending = Stop::Run;
        loop {
            let stop = *self.stop.borrow_and_update();
            if stop != ending {
                ending = stop;
                self.holds.values().for_each(|hold| hold.order(stop));
                // The others learn at once that this one wants no lanes.
                beat_at = Instant::now();
            }
            if ending != Stop::Run && self.holds.is_empty() {
                break;
            }
            tokio::select! {
                () = sleep_until(beat_at), if beat.is_none() => beat = Some(self.beat(ending != Stop::Run)),
                (sent_at, answer) = heard(&mut beat), if beat.is_some() => {
                    beat = None;
                    match answer {
                        Ok(cluster) => self.heard(sent_at, cluster, ending),
                        Err(error) => self.unheard(error),
                    }
                    beat_at = self.next(sent_at);
                }
                Some(ended) = self.tasks.join_next() => {
                    self.ended(ended);
                    if beat.is_none() && let Some(hurry) = self.hurry.take() {
                        beat_at = beat_at.min(hurry);
                    }
                }
                Ok(()) = self.stop.changed() => {}
            }
        }
        match timeout(LEAVE, self.rooms.ledger().leave(self.rooms.controller)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot leave the ledger: the lease ends by itself"),
            Err(_) => tracing::warn!("the ledger does not answer the farewell: the lease ends by itself"),
        }
    }

    fn beat(&self, leaving: bool) -> Beat {
        let (rooms, options) = (Arc::clone(&self.rooms), self.rooms.lease);
        let beat = Heartbeat {
            controller: rooms.controller,
            name: rooms.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            ttl: options.ttl,
            leaving,
        };
        Box::pin(async move {
            crash_point("lease.renew");
            let sent_at = Instant::now();
            let answer = match timeout(options.answer, rooms.ledger().heartbeat(&beat)).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer to a heartbeat within {:?}", options.answer)),
            };
            (sent_at, answer)
        })
    }

    /// When the next heartbeat is due.
    fn next(&mut self, sent_at: Instant) -> Instant {
        let rest = match (self.rooms.ledger().is_shared(), self.view.borrow().trouble.is_some()) {
            (false, false) => LONE_BEAT,
            _ => self.rooms.lease.beat,
        };
        let due = (sent_at + rest).max(Instant::now());
        self.hurry.take().map_or(due, |hurry| hurry.min(due))
    }

    /// First what is lost or lapsed is dropped, then the leases are believed anew, then orders are given: no attempt can start
    /// between on a lane that is not ours.
    fn heard(&mut self, sent_at: Instant, cluster: Cluster, ending: Stop) {
        if self.view.borrow().trouble.is_some() {
            tracing::info!("the ledger answers heartbeats again");
        }
        let options = self.rooms.lease;
        let is_long = |at: Instant| sent_at.saturating_duration_since(at) > options.trust;
        let before = self.heard_at.replace(sent_at);
        if self.rooms.ledger().is_shared() && before.is_some_and(|at| at.elapsed() > options.trust) {
            // The answer, at least, came after they had ended.
            self.slots.void();
        }
        if before.is_some_and(is_long) && self.rooms.ledger().is_shared() {
            self.calm_until = Some(Instant::now() + options.beat * CALM_BEATS);
        }
        for owner in &cluster.lanes {
            let Some(hold) = self.holds.get(&owner.lane) else { continue };
            // While it is being taken, the fence compares the epochs.
            let Some(epoch) = self.epoch(owner.lane) else { continue };
            let given = !hold.is_kept();
            let other = owner.epoch == epoch && owner.owner != Some(self.rooms.controller) && !given;
            let rewound = cluster.rewound.contains(&owner.lane) && hold.since < sent_at;
            if owner.epoch > epoch || other || rewound {
                tracing::warn!(lane = %owner.lane, %epoch, now = %owner.epoch, rewound, "the lane is lost");
                hold.order(Stop::Lost);
            }
        }
        self.fence.confirm(sent_at + self.rooms.lease.trust, &cluster.lanes);
        if ending == Stop::Run {
            self.balance(&cluster);
        }
        self.tell(&cluster);
        self.view.send_replace(View { cluster, trouble: None });
    }

    fn unheard(&mut self, error: String) {
        if self.view.borrow().trouble.is_none() {
            tracing::warn!(%error, "cannot renew the leases; deliveries stop when they run out");
        }
        self.view.send_modify(|view| view.trouble = Some(error));
    }

    fn balance(&mut self, cluster: &Cluster) {
        let mut held = Held::default();
        for (lane, hold) in &self.holds {
            let place = if hold.is_kept() { &mut held.kept } else { &mut held.leaving };
            place.insert(*lane);
        }
        let mut orders = orders(self.rooms.controller, cluster, &held);
        if self.calm_until.is_some_and(|until| Instant::now() < until) {
            let ours = |lane: &Lane| {
                cluster.lanes.iter().any(|l| l.lane == *lane && l.owner == Some(self.rooms.controller))
            };
            orders.take.retain(ours);
        }
        for lane in orders.give {
            if let Some(hold) = self.holds.get(&lane) {
                tracing::info!(%lane, "giving the lane to another controller");
                hold.order(Stop::Give);
            }
        }
        for lane in orders.take {
            self.take(lane);
        }
        for (lane, epoch) in orders.abandon {
            let rooms = Arc::clone(&self.rooms);
            self.releases.spawn(async move {
                if let Err(error) = rooms.ledger().release(lane, epoch).await {
                    tracing::warn!(%lane, %error, "cannot give the lane back");
                }
            });
        }
        while self.releases.try_join_next().is_some() {}
    }

    fn take(&mut self, lane: Lane) {
        let Some(epoch) = self.epochs.get(&lane).cloned() else { return };
        crash_point("lease.takeover");
        let stop = watch::Sender::new(Stop::Run);
        let task = LaneTask {
            rooms: Arc::clone(&self.rooms),
            lane,
            roster: Arc::clone(&self.roster),
            fence: Arc::clone(&self.fence),
            stop: stop.clone(),
            epoch,
        };
        self.tasks.spawn(async move { (lane, task.run().await) });
        self.holds.insert(lane, Hold { stop, since: Instant::now() });
    }

    fn ended(&mut self, ended: Result<(Lane, End), JoinError>) {
        // A lane task that broke down has ended the process.
        let Ok((lane, end)) = ended else { return };
        self.holds.remove(&lane);
        let rest = match end {
            End::Released => return,
            End::Lost => LOST_REST,
            End::Refused | End::Fault => REFUSED_REST,
        };
        let at = Instant::now() + rest;
        self.hurry = Some(self.hurry.map_or(at, |before| before.min(at)));
    }

    fn epoch(&self, lane: Lane) -> Option<Epoch> {
        *self.epochs.get(&lane)?.borrow()
    }

    /// Facts for people, where there is somebody to share with.
    fn tell(&mut self, cluster: &Cluster) {
        let members: BTreeMap<_, _> = cluster.controllers.iter().map(|m| (m.id, m.name.clone())).collect();
        let lanes: BTreeSet<_> = self.epochs.keys().copied().filter(|l| self.epoch(*l).is_some()).collect();
        let is_shared = self.told.is_shared || members.len() > 1;
        let before = std::mem::replace(&mut self.told, Told { lanes, members, is_shared });
        if !is_shared {
            return;
        }
        let me = self.rooms.controller;
        let say = |subject: String, state: &str| {
            let (at, detail) = (self.rooms.clock.now(), String::new());
            let _ = self.rooms.live.send(Fact::Condition { at, subject, state: state.into(), detail });
        };
        for (id, name) in self.told.members.iter().filter(|(id, _)| **id != me) {
            if !before.members.contains_key(id) {
                say(format!("controller {name}"), "joined");
            }
        }
        for (id, name) in before.members.iter().filter(|(id, _)| **id != me) {
            if !self.told.members.contains_key(id) {
                say(format!("controller {name}"), "left");
            }
        }
        for lane in self.told.lanes.difference(&before.lanes) {
            say(format!("lane {lane}"), "taken");
        }
        for lane in before.lanes.difference(&self.told.lanes) {
            say(format!("lane {lane}"), "let-go");
        }
    }
}

impl Hold {
    /// Orders only grow stricter.
    fn order(&self, order: Stop) {
        self.stop.send_if_modified(|stop| {
            let stricter = order > *stop;
            *stop = order.max(*stop);
            stricter
        });
    }

    fn is_kept(&self) -> bool {
        *self.stop.borrow() == Stop::Run
    }
}

async fn heard(beat: &mut Option<Beat>) -> (Instant, Result<Cluster, String>) {
    match beat {
        Some(beat) => beat.await,
        None => std::future::pending().await,
    }
}
