//! How many slots of a shared limit are this controller's: asks the ledger as they are needed, gives back what others need
//! more, and keeps every gate to what was granted.
//!
//! A gate is never larger than what the ledger has on record for it, so the limits hold whoever comes, goes or dies. It
//! runs only where controllers share the ledger.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwire_ledger::{SlotsAsked, SlotsGranted};
use bellwire_schemas::Vital;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::binding::{Gate, Look};
use crate::handle::{Targets, lock};
use crate::lane::{Roster, Stop};
use crate::lease::View;
use crate::rooms::Rooms;

/// Before the next question while somebody waits for slots that others are about to give back.
const SOON: Duration = Duration::from_millis(100);
/// Least time between two questions.
const REST: Duration = Duration::from_millis(5);

/// The gates of shared limits.
pub(crate) struct Slots {
    rooms: Arc<Rooms>,
    roster: Arc<Roster>,
    targets: Targets,
    hungry: Arc<Notify>,
    /// How often everything granted became void.
    voids: Mutex<u64>,
}

/// A question under way.
struct Question {
    gates: Vec<Arc<Gate>>,
    asked: Vec<SlotsAsked>,
    voids: u64,
}

/// What the ledger has on record for this controller.
#[derive(Clone, Copy, Debug)]
struct Known {
    granted: u32,
    wanted: u32,
}

impl Slots {
    pub(crate) fn new(rooms: Arc<Rooms>, roster: Arc<Roster>, targets: Targets) -> Self {
        Self { rooms, roster, targets, hungry: Arc::default(), voids: Mutex::default() }
    }

    /// What gates tell when they want more; none where the ledger is not shared.
    pub(crate) fn hungry(&self) -> Option<Arc<Notify>> {
        self.rooms.ledger().is_shared().then(|| Arc::clone(&self.hungry))
    }

    /// The lease may have ended: others may have what was granted, so nothing new starts before it is granted anew.
    pub(crate) fn void(&self) {
        let mut voids = lock(&self.voids);
        *voids += 1;
        self.gates().values().for_each(|gate| gate.resize(0));
    }

    /// Keeps the gates until the leases are given back.
    pub(crate) async fn run(self: Arc<Self>, mut view: watch::Receiver<View>, stop: watch::Receiver<Stop>) {
        let _vital = Vital("the slots");
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.hungry.notified() => {}
                changed = view.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
            let members = u32::try_from(view.borrow().cluster.controllers.len()).unwrap_or(u32::MAX).max(1);
            let is_ending = *stop.borrow() != Stop::Run;
            let question = self.question(members, is_ending, &mut known);
            let rest =
                if question.asked.is_empty() { None } else { Some(self.ask(question, &mut known).await) };
            next = Instant::now() + rest.unwrap_or(self.rooms.lease.beat);
            tokio::time::sleep(REST).await;
        }
    }

    /// Gathers what there is to ask; nothing when nobody could tell the difference.
    fn question(&self, members: u32, is_ending: bool, known: &mut BTreeMap<String, Known>) -> Question {
        let voids = lock(&self.voids);
        let (mut gates, mut asked, mut is_due) = (Vec::new(), Vec::new(), false);
        let all = self.gates();
        known.retain(|limit, _| all.contains_key(limit));
        for (limit, gate) in all {
            let Some(look) = gate.look() else { continue };
            let before = known.get(&limit).copied();
            let Wish { size, wanted } =
                wish(look, before.map_or(0, |known| known.wanted), members, is_ending);
            gate.resize(size);
            let kept = gate.inside().max(size);
            let had = before.map(|known| known.granted);
            is_due |= had.is_none() || wanted > size || kept > size;
            is_due |= members > 1 && (kept > 0 || had.is_some_and(|had| had > 0));
            if kept > 0 || wanted > 0 || had.is_none_or(|had| had > 0) {
                asked.push(SlotsAsked { limit, most: look.most, kept, wanted });
                gates.push(gate);
            }
        }
        if !is_due {
            asked.clear();
        }
        Question { gates, asked, voids: *voids }
    }

    /// Asks, and sets the gates to the answer. Says when to ask again.
    async fn ask(&self, question: Question, known: &mut BTreeMap<String, Known>) -> Duration {
        let Question { gates, asked, voids } = question;
        let (me, now) = (self.rooms.controller, self.rooms.clock.now());
        let answer = timeout(self.rooms.lease.answer, self.rooms.ledger().slots(me, &asked, now)).await;
        let granted = match answer {
            Ok(Ok(granted)) => granted,
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot ask for slots; those granted stay");
                return self.rooms.lease.beat;
            }
            Err(_) => return self.rooms.lease.beat,
        };
        let now = lock(&self.voids);
        let mut is_soon = *now != voids;
        for ((gate, asked), granted) in gates.iter().zip(asked).zip(granted) {
            let SlotsGranted { slots, part } = granted;
            let size = slots.min(part);
            if *now == voids {
                gate.resize(size);
            }
            is_soon |= slots > part || slots < part.min(asked.wanted) || (slots == 0 && asked.wanted > 0);
            known.insert(asked.limit, Known { granted: slots, wanted: asked.wanted });
        }
        if is_soon { SOON } else { self.rooms.lease.beat }
    }

    fn gates(&self) -> BTreeMap<String, Arc<Gate>> {
        let functions: Vec<_> = lock(&self.targets).values().cloned().collect();
        let functions = functions.into_iter().map(|f| (format!("function {}", f.name), Arc::clone(&f.gate)));
        let bindings = self.roster.all().into_values();
        let bindings = bindings.map(|b| (format!("binding {}", b.name), Arc::clone(&b.gate)));
        functions.chain(bindings).collect()
    }
}

/// What a controller does about one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    /// It shrinks to this at once.
    size: u32,
    /// It needs so many.
    wanted: u32,
}

/// Decides it, after `before` was wanted the last time. With others a controller wants what it used of late, and one for
/// what comes next, where there are plenty. It keeps an equal part beyond that as long as nobody else lacks any.
fn wish(look: Look, before: u32, members: u32, is_ending: bool) -> Wish {
    let Look { most, size, inside, peak, is_short } = look;
    let spare = u32::from(size > 0 && most / members >= 2);
    match (is_ending, is_short) {
        (true, _) => Wish { size: size.min(inside), wanted: inside },
        (_, true) => Wish { size, wanted: most.max(inside) },
        _ if members == 1 => Wish { size, wanted: peak.max(size) },
        _ => {
            let wanted = peak.max((before / 2).min(size)).max(spare);
            Wish { size: size.min(wanted.max(most / members)), wanted }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_asked_for_and_what_is_idle_is_wanted_less_and_less() {
        let look = |size, inside, peak, is_short| Look { most: 10, size, inside, peak, is_short };
        let wish = |look, before, members, is_ending| {
            let Wish { size, wanted } = wish(look, before, members, is_ending);
            (size, wanted)
        };
        assert_eq!(wish(look(10, 0, 1, false), 10, 1, false), (10, 10), "nobody else could use it");
        assert_eq!(wish(look(4, 4, 4, true), 4, 2, false), (4, 10));
        assert_eq!(wish(look(10, 2, 7, false), 10, 2, false), (7, 7));
        let (mut size, mut wanted) = (10, 10);
        let steps = [0; 4].map(|peak| {
            (size, wanted) = wish(look(size, 0, peak, false), wanted, 2, false);
            (size, wanted)
        });
        assert_eq!(steps, [(5, 5), (5, 2), (5, 1), (5, 1)], "one is wanted for what comes next");
        assert_eq!(wish(look(1, 0, 0, false), 1, 11, false), (0, 0), "unless there are few");
        assert_eq!(wish(look(5, 3, 5, true), 9, 2, true), (3, 3), "it ends");
    }
}
