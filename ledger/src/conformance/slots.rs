//! Slots of limits: lent to whoever can use them, shared out fairly, given in turns, freed by the dead.
//!
//! Where nobody shares the ledger only the first check has something to say.

use std::sync::Arc;

use bellwire_schemas::ControllerId;
use uuid::Uuid;

use super::Subject;
use super::build::*;
use crate::histories::Dice;
use crate::{Ledger, ModelLedger, SlotsAsked, SlotsGranted};

const ANA: ControllerId = ControllerId(Uuid::from_u128(1));
const BEN: ControllerId = ControllerId(Uuid::from_u128(2));
const CAT: ControllerId = ControllerId(Uuid::from_u128(3));
const DAN: ControllerId = ControllerId(Uuid::from_u128(4));

fn limit(name: &str, most: u32, kept: u32, wanted: u32) -> SlotsAsked {
    SlotsAsked { limit: name.into(), most, kept, wanted }
}

/// What somebody gets of one limit, which keeps some and wants some.
async fn granted(
    ledger: &Arc<dyn Ledger>,
    who: ControllerId,
    most: u32,
    (kept, wanted): (u32, u32),
    second: i64,
) -> SlotsGranted {
    let asked = [limit("function price", most, kept, wanted)];
    ledger.slots(who, &asked, at(second)).await.unwrap()[0]
}

/// The slots of that.
async fn ask(ledger: &Arc<dyn Ledger>, who: ControllerId, most: u32, had: (u32, u32), second: i64) -> u32 {
    granted(ledger, who, most, had, second).await.slots
}

/// How many slots somebody gets of several limits.
async fn ask_all(ledger: &Arc<dyn Ledger>, who: ControllerId, asked: &[SlotsAsked], second: i64) -> Vec<u32> {
    let granted = ledger.slots(who, asked, at(second)).await.unwrap();
    granted.into_iter().map(|granted| granted.slots).collect()
}

/// Two handles, and the first three controllers alive; nothing where there is one controller only.
async fn cluster(subject: &impl Subject) -> Option<(Arc<dyn Ledger>, Arc<dyn Ledger>)> {
    let ledger = subject.ledger();
    if !ledger.is_shared() {
        return None;
    }
    for controller in [ANA, BEN, CAT] {
        ledger.heartbeat(&beat(controller)).await.unwrap();
    }
    let other = subject.beside().await.unwrap_or_else(|| ledger.clone());
    Some((ledger, other))
}

/// Whoever is alone gets what it wants up to the limit, and keeps what runs.
pub async fn what_is_wanted_is_granted_up_to_the_limit(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    ledger.heartbeat(&beat(ANA)).await.unwrap();
    assert_eq!(ledger.slots(ANA, &[], at(1)).await.unwrap(), []);
    for (most, had, slots) in [
        (10, (0, 3), 3),
        (10, (3, 20), 10),
        (10, (10, 5), 10),
        (10, (2, 5), 5),
        (10, (12, 0), 12),
        (10, (0, 0), 0),
        (0, (0, 5), 0),
        (0, (1, 5), 1),
        (u32::MAX, (7, u32::MAX), u32::MAX),
        (u32::MAX, (u32::MAX, 0), u32::MAX),
        (1, (0, 1), 1),
    ] {
        let answer = granted(&ledger, ANA, most, had, 1).await;
        let part = had.0.max(had.1).min(most);
        assert_eq!(answer, SlotsGranted { slots, part }, "of {most}, kept and wanted: {had:?}");
    }
    let several = [limit("a", 4, 0, 9), limit("b", 5, 0, 2), limit("c", 6, 7, 9)];
    assert_eq!(ask_all(&ledger, ANA, &several, 2).await, [4, 2, 7]);
}

/// What one controller does not need the others get; where all want more than there is, it is shared out equally.
pub async fn idle_slots_are_lent_and_shared_out(subject: &mut impl Subject) {
    let Some((one, two)) = cluster(subject).await else { return };
    assert_eq!(ask(&one, ANA, 10, (0, 10), 1).await, 10, "nobody else wants any");
    assert_eq!(ask(&two, BEN, 10, (0, 10), 2).await, 0, "none is free");
    let answer = granted(&one, ANA, 10, (8, 10), 3).await;
    assert_eq!(
        answer,
        SlotsGranted { slots: 8, part: 5 },
        "it gives back what it does not keep, and is to go on"
    );
    assert_eq!(ask(&two, BEN, 10, (0, 10), 3).await, 2);
    assert_eq!(ask(&one, ANA, 10, (2, 10), 4).await, 5);
    assert_eq!(ask(&two, BEN, 10, (2, 10), 4).await, 5);
    assert_eq!(ask(&two, CAT, 10, (0, 1), 5).await, 0);
    assert_eq!(ask(&one, ANA, 10, (0, 10), 5).await, 4, "one is for the modest one");
    assert_eq!(ask(&two, CAT, 10, (0, 1), 6).await, 1);
    assert_eq!(ask(&one, ANA, 10, (0, 0), 7).await, 0);
    assert_eq!(ask(&two, BEN, 10, (5, 10), 7).await, 9);
    assert_eq!(ask(&two, CAT, 10, (0, 0), 8).await, 0);
    let answer = granted(&two, BEN, 10, (9, 2), 8).await;
    assert_eq!(answer, SlotsGranted { slots: 9, part: 9 }, "nobody lacks any");
    assert_eq!(ask(&one, ANA, 10, (0, 4), 9).await, 1);
    let answer = granted(&two, BEN, 10, (9, 2), 9).await;
    assert_eq!(answer, SlotsGranted { slots: 9, part: 2 }, "now somebody does");
}

/// Where fewer slots are than controllers that want one, each has its turn, and who waits longest is next.
pub async fn slots_go_in_turns(subject: &mut impl Subject) {
    let Some((one, two)) = cluster(subject).await else { return };
    assert_eq!(ask(&one, ANA, 1, (0, 1), 0).await, 1);
    assert_eq!(ask(&two, CAT, 1, (0, 1), 1).await, 0);
    assert_eq!(ask(&one, BEN, 1, (0, 1), 2).await, 0);
    assert_eq!(ask(&two, ANA, 1, (0, 1), 4).await, 1, "its turn is not over");
    let answer = granted(&two, ANA, 1, (1, 1), 5).await;
    assert_eq!(answer, SlotsGranted { slots: 1, part: 0 }, "what it keeps is not taken away");
    assert_eq!(ask(&two, ANA, 1, (0, 1), 5).await, 0, "its turn is over");
    assert_eq!(ask(&one, BEN, 1, (0, 1), 5).await, 0, "the other one has waited longer");
    assert_eq!(ask(&one, CAT, 1, (0, 1), 6).await, 1);
    assert_eq!(ask(&one, BEN, 1, (0, 1), 12).await, 0, "it was not given back yet");
    assert_eq!(ask(&two, CAT, 1, (0, 1), 12).await, 0);
    assert_eq!(ask(&two, ANA, 1, (0, 1), 12).await, 0);
    assert_eq!(ask(&two, BEN, 1, (0, 1), 12).await, 1);
}

/// Limits are told apart by every character of their names, and answered in the order asked.
pub async fn limits_have_nothing_to_do_with_each_other(subject: &mut impl Subject) {
    let Some((one, two)) = cluster(subject).await else { return };
    let names =
        ["", " ", "a", "A", "a'\"\\{}$1", "\u{0}", "\u{10ffff}0", "bellwire.slot", "\u{1f30a}", "NULL"];
    let asks = |wanted: u32| -> Vec<SlotsAsked> {
        (1..).zip(names).map(|(most, name)| limit(name, most, 0, wanted.min(most))).collect()
    };
    let all: Vec<u32> = (1..).take(names.len()).collect();
    assert_eq!(ask_all(&one, ANA, &asks(99), 1).await, all);
    let mut backwards = asks(99);
    backwards.reverse();
    assert_eq!(ask_all(&two, BEN, &backwards, 1).await, vec![0; names.len()]);
    let one_less: Vec<u32> = all.iter().map(|most| most - 1).collect();
    let with_less: Vec<SlotsAsked> =
        asks(99).into_iter().map(|asked| SlotsAsked { kept: asked.most - 1, wanted: 0, ..asked }).collect();
    assert_eq!(ask_all(&one, ANA, &with_less, 2).await, one_less);
    assert_eq!(ask_all(&two, BEN, &backwards, 2).await, vec![1; names.len()]);
    // Asked twice in one call: the second says how it stands after the first.
    let twice = [limit("x", 4, 0, 4), limit("y", 4, 0, 1), limit("x", 4, 0, 2)];
    assert_eq!(ask_all(&one, ANA, &twice, 3).await, [4, 1, 2]);
    assert_eq!(ask_all(&two, BEN, &[limit("x", 4, 0, 4)], 3).await, [2]);
}

/// Whoever is not alive has what it keeps and nothing else, and what it had is given to others.
pub async fn the_dead_have_no_slots(subject: &mut impl Subject) {
    let Some((one, two)) = cluster(subject).await else { return };
    assert_eq!(ask(&one, DAN, 4, (0, 3), 1).await, 0, "it never gave a sign of life");
    assert_eq!(granted(&one, DAN, 4, (2, 3), 1).await, SlotsGranted { slots: 2, part: 0 });
    assert_eq!(ask(&one, ANA, 4, (0, 4), 2).await, 4);
    assert_eq!(ask(&two, BEN, 4, (0, 4), 2).await, 0);
    assert!(subject.expire(ANA).await);
    assert_eq!(ask(&one, ANA, 4, (1, 4), 3).await, 1);
    assert_eq!(ask(&two, BEN, 4, (0, 4), 3).await, 4);
    assert_eq!(ask(&one, ANA, 4, (2, 4), 4).await, 2);
    assert_eq!(ask(&two, BEN, 4, (4, 4), 4).await, 4);
    one.heartbeat(&beat(ANA)).await.unwrap();
    assert_eq!(ask(&one, ANA, 4, (1, 4), 5).await, 1, "it lives again, and what it keeps counts");
    assert_eq!(ask(&two, BEN, 4, (3, 4), 5).await, 3);
    assert_eq!(ask(&one, ANA, 4, (0, 4), 6).await, 1);
    assert_eq!(ask(&two, BEN, 4, (0, 4), 6).await, 2);
    assert_eq!(ask(&one, ANA, 4, (0, 4), 6).await, 2);
}

/// Who leaves gives back all it had, of every limit.
pub async fn leaving_frees_slots(subject: &mut impl Subject) {
    let Some((one, two)) = cluster(subject).await else { return };
    let asked = [limit("a", 2, 0, 2), limit("b", 3, 0, 3)];
    assert_eq!(ask_all(&one, ANA, &asked, 1).await, [2, 3]);
    assert_eq!(ask_all(&two, BEN, &asked, 1).await, [0, 0]);
    one.leave(ANA).await.unwrap();
    assert_eq!(ask_all(&two, BEN, &asked, 2).await, [2, 3]);
    assert_eq!(ask_all(&one, ANA, &asked, 2).await, [0, 0], "it is not alive");
    one.heartbeat(&beat(ANA)).await.unwrap();
    assert_eq!(ask_all(&one, ANA, &asked, 2).await, [0, 0], "none is free");
    two.leave(BEN).await.unwrap();
    assert_eq!(ask_all(&one, ANA, &asked, 3).await, [2, 3]);
}

/// A limit that shrinks takes nothing away that is kept, and gives nothing new before there is room.
pub async fn what_is_kept_is_not_taken_away(subject: &mut impl Subject) {
    let Some((one, two)) = cluster(subject).await else { return };
    assert_eq!(ask(&one, ANA, 8, (0, 5), 1).await, 5);
    assert_eq!(ask(&two, BEN, 8, (0, 8), 1).await, 3);
    assert_eq!(ask(&one, ANA, 2, (5, 5), 2).await, 5);
    assert_eq!(ask(&two, BEN, 2, (1, 8), 2).await, 1);
    assert_eq!(ask(&two, CAT, 2, (0, 1), 2).await, 0);
    assert_eq!(ask(&one, ANA, 2, (1, 5), 3).await, 1);
    assert_eq!(ask(&two, BEN, 2, (0, 8), 3).await, 1, "its turn is not over");
    assert_eq!(ask(&two, CAT, 2, (0, 1), 3).await, 0);
    assert_eq!(ask(&one, ANA, 2, (0, 0), 4).await, 0);
    assert_eq!(ask(&two, CAT, 2, (0, 1), 4).await, 1);
    assert_eq!(ask(&two, BEN, 1, (0, 8), 5).await, 0, "the limit is full");
}

/// Four controllers ask at random, die and come back; every answer is the model's.
pub async fn slots_are_granted_as_by_the_model(subject: &mut impl Subject) {
    let Some((one, two)) = cluster(subject).await else { return };
    let (model, mut dice) = (ModelLedger::new(2), Dice(14));
    for controller in [ANA, BEN, CAT] {
        model.heartbeat(&beat(controller)).await.unwrap();
    }
    let mut most = [1, 3, 10];
    let (mut now, mut granted_any) = (100, 0);
    for step in 0..400 {
        let controller = [ANA, BEN, CAT, DAN][dice.roll(4) as usize];
        let ledger = if dice.roll(2) == 0 { &one } else { &two };
        match dice.roll(24) {
            0 => {
                subject.expire(controller).await;
                model.expire(controller);
            }
            1 => {
                ledger.leave(controller).await.unwrap();
                model.leave(controller).await.unwrap();
            }
            2..5 => {
                ledger.heartbeat(&beat(controller)).await.unwrap();
                model.heartbeat(&beat(controller)).await.unwrap();
            }
            5 => most[dice.roll(3) as usize] = dice.roll(8) as u32,
            _ => {
                // Clocks differ.
                now += dice.roll(3) as i64;
                let now = at(now + dice.roll(3) as i64 - 1);
                let asked: Vec<_> = (0..=dice.roll(3))
                    .map(|_| {
                        let which = dice.roll(3) as usize;
                        let kept = dice.roll(3).saturating_sub(1) as u32 * dice.roll(4) as u32;
                        limit(["a", "b", "c"][which], most[which], kept, dice.roll(8) as u32)
                    })
                    .collect();
                let answer = ledger.slots(controller, &asked, now).await.unwrap();
                let right = model.slots(controller, &asked, now).await.unwrap();
                assert_eq!(answer, right, "step {step}: {controller:?} asks {asked:?}");
                granted_any += u32::from(answer.iter().any(|granted| granted.slots > 0));
            }
        }
    }
    assert!(granted_any > 100, "{granted_any} answers grant something");
}
