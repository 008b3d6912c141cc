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
/// An equal part of a limit of which one slot may lie idle.
const PLENTY: u32 = 8;
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
    /// Why the last question was not answered.
    trouble: Mutex<Option<String>>,
}

/// When a question is asked.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Controllers alive.
    members: u32,
    /// It is time to say how all limits stand.
    is_beat: bool,
    is_ending: bool,
}

/// A question under way.
struct Question {
    gates: Vec<Arc<Gate>>,
    asked: Vec<SlotsAsked>,
    voids: u64,
}

/// What the ledger has on record for this controller, by limit.
#[derive(Debug, Default)]
struct Known {
    limits: BTreeMap<String, Record>,
    /// As of so many voids.
    voids: u64,
}

/// What it has of one limit.
#[derive(Clone, Copy, Debug)]
struct Record {
    granted: u32,
    wanted: u32,
    /// The answer was not the last word.
    is_soon: bool,
}

impl Slots {
    pub(crate) fn new(rooms: Arc<Rooms>, roster: Arc<Roster>, targets: Targets) -> Self {
        Self {
            rooms,
            roster,
            targets,
            hungry: Arc::default(),
            voids: Mutex::default(),
            trouble: Mutex::default(),
        }
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
        let mut known = Known::default();
        let (mut beat_at, mut next) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.hungry.notified() => {}
                changed = view.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
            // Between two beats only those ask that wait for an answer.
            let is_beat = Instant::now() >= beat_at;
            if is_beat {
                beat_at = Instant::now() + self.rooms.lease.beat;
            }
            let members = u32::try_from(view.borrow().cluster.controllers.len()).unwrap_or(u32::MAX).max(1);
            let case = Case { members, is_beat, is_ending: *stop.borrow() != Stop::Run };
            let question = self.question(case, &mut known);
            let is_soon = !question.asked.is_empty() && self.ask(question, &mut known).await;
            next = if is_soon { beat_at.min(Instant::now() + SOON) } else { beat_at };
            tokio::time::sleep(REST).await;
        }
    }

    /// Gathers what there is to ask; nothing when nobody could tell the difference.
    fn question(&self, case: Case, known: &mut Known) -> Question {
        let voids = lock(&self.voids);
        if known.voids != *voids {
            *known = Known { voids: *voids, limits: BTreeMap::new() };
        }
        let known = &mut known.limits;
        let (mut gates, mut asked, mut is_due) = (Vec::new(), Vec::new(), false);
        let all = self.gates();
        known.retain(|limit, _| all.contains_key(limit));
        for (limit, gate) in all {
            let before = known.get(&limit).copied();
            if !case.is_beat
                && before.is_some_and(|record| !record.is_soon && !gate.lacks_more(record.wanted))
            {
                continue;
            }
            // What the ledger does not surely know is told.
            let is_told = before.is_some_and(|record| record.granted == 0 && record.wanted == 0);
            let Some(look) = gate.look() else {
                // Its limit was taken away: so is what the ledger has on record.
                if before.is_some() && !is_told {
                    asked.push(SlotsAsked { limit, most: 0, kept: 0, wanted: 0 });
                    gates.push(gate);
                    is_due = true;
                }
                continue;
            };
            let Wish { size, wanted } = wish(look, before.map_or(0, |record| record.wanted), case);
            gate.resize(size);
            let kept = gate.inside().max(size);
            let is_idle = kept == 0 && wanted == 0 && is_told;
            is_due |= before.is_none() || wanted > size || kept > size || (case.members > 1 && !is_idle);
            if !is_idle {
                asked.push(SlotsAsked { limit, most: look.most, kept, wanted });
                gates.push(gate);
            }
        }
        if !is_due {
            asked.clear();
        }
        Question { gates, asked, voids: *voids }
    }

    /// Asks, and sets the gates to the answer. Says whether to ask again soon.
    async fn ask(&self, question: Question, known: &mut Known) -> bool {
        let Question { gates, asked, voids } = question;
        let (me, now) = (self.rooms.controller, self.rooms.clock.now());
        let limit = self.rooms.lease.answer;
        let granted = match timeout(limit, self.rooms.ledger().slots(me, &asked, now)).await {
            Ok(Ok(granted)) => granted,
            Ok(Err(error)) => {
                self.unanswered(error.to_string(), &asked, known);
                return false;
            }
            Err(_) => {
                self.unanswered(format!("no answer within {limit:?}"), &asked, known);
                return false;
            }
        };
        if lock(&self.trouble).take().is_some() {
            tracing::info!("the ledger answers for slots again");
        }
        let now = lock(&self.voids);
        let mut is_any_soon = *now != voids;
        for ((gate, asked), granted) in gates.iter().zip(asked).zip(granted) {
            let SlotsGranted { slots, part } = granted;
            if *now == voids {
                gate.resize(slots.min(part));
            }
            let is_soon = slots > part || slots < part.min(asked.wanted) || (slots == 0 && asked.wanted > 0);
            is_any_soon |= is_soon;
            known.limits.insert(asked.limit, Record { granted: slots, wanted: asked.wanted, is_soon });
        }
        is_any_soon
    }

    /// Nobody knows what the ledger has on record now: it is told again.
    fn unanswered(&self, error: String, asked: &[SlotsAsked], known: &mut Known) {
        for asked in asked {
            known.limits.remove(&asked.limit);
        }
        let mut trouble = lock(&self.trouble);
        if trouble.is_none() {
            tracing::warn!(%error, "the ledger does not answer for slots; those granted stay");
        }
        *trouble = Some(error);
    }

    /// Why no slots are granted, while that is so.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
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
/// what comes next, where there are plenty. It keeps an equal part beyond that as long as nobody else lacks any. Where
/// there are fewer than controllers, it keeps none that is idle.
fn wish(look: Look, before: u32, case: Case) -> Wish {
    let Look { most, size, inside, peak, is_short } = look;
    let equal = most / case.members;
    let spare = u32::from(size > 0 && equal >= PLENTY);
    match (case.is_ending, is_short) {
        (true, _) => Wish { size: size.min(inside), wanted: inside },
        (_, true) => Wish { size, wanted: most.max(inside) },
        _ if case.members == 1 => Wish { size, wanted: peak.max(size) },
        _ if equal == 0 => Wish { size: size.min(inside), wanted: inside },
        _ => {
            let wanted = peak.max((before / 2).min(size)).max(spare);
            Wish { size: size.min(wanted.max(equal)), wanted }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_asked_for_and_what_is_idle_is_wanted_less_and_less() {
        let look = |size, inside, peak, is_short| Look { most: 16, size, inside, peak, is_short };
        let wish = |look, before, members, is_ending| {
            let Wish { size, wanted } = wish(look, before, Case { members, is_beat: true, is_ending });
            (size, wanted)
        };
        assert_eq!(wish(look(16, 0, 1, false), 16, 1, false), (16, 16), "nobody else could use it");
        assert_eq!(wish(look(4, 4, 4, true), 4, 2, false), (4, 16));
        assert_eq!(wish(look(16, 2, 11, false), 16, 2, false), (11, 11));
        let (mut size, mut wanted) = (16, 16);
        let steps = [0; 5].map(|peak| {
            (size, wanted) = wish(look(size, 0, peak, false), wanted, 2, false);
            (size, wanted)
        });
        assert_eq!(steps, [(8, 8), (8, 4), (8, 2), (8, 1), (8, 1)], "one is wanted for what comes next");
        assert_eq!(wish(look(4, 0, 0, false), 1, 4, false), (4, 0), "unless there are few");
        assert_eq!(wish(look(1, 0, 1, false), 1, 17, false), (0, 0), "or fewer than controllers");
        assert_eq!(wish(look(5, 3, 5, true), 9, 2, true), (3, 3), "it ends");
    }
}
