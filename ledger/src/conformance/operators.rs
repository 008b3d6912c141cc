//! Operators: bindings, pauses, redrive, discard, replays, refusals.

use bellwire_schemas::service::Start;
use bellwire_schemas::{FinalState, Seq, Timestamp};
use serde_json::json;

use super::Subject;
use super::build::*;
use crate::{
    DeadLetterQuery, Error, LogOutcome, Owed, OwedReason, Pause, Refusal, ReplayRecord, ReplayState,
};

/// New bindings start at the tail, the beginning, a time or an address, and keep their place from then on.
pub async fn bindings_start_where_they_say(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    fill(&ledger, 10, 5).await;
    ledger.append(batch(vec![event("x").lane(L2)]), at(12)).await.unwrap();
    let starts = [
        (Start::Now, [5, 1]),
        (Start::Earliest, [0, 0]),
        (Start::At(at(12)), [2, 0]),
        (Start::At(at(99)), [5, 1]),
        (Start::At(Timestamp::from_micros(at(12).micros() + 1)), [3, 1]),
        (Start::Address(addr(1, 4)), [3, 1]),
        (Start::Address(addr(1, 6)), [5, 1]),
        (Start::Address(addr(2, 0)), [5, 0]),
    ];
    let named = |n: usize| format!("b{n}:orders");
    let all: Vec<_> = starts.iter().enumerate().map(|(n, (s, _))| binding(&named(n), *s)).collect();
    let declared = ledger.declare_bindings(all.clone(), at(99)).await.unwrap();
    let ids: Vec<_> = declared.iter().map(|b| b.id).collect();
    assert_sums(&ledger).await;
    fill(&ledger, 20, 2).await;
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(declare(&ledger, all.clone()).await, ids, "declaring again changes nothing");
    for (id, (start, marks)) in ids.iter().zip(starts) {
        for (lane, mark) in [L1, L2].into_iter().zip(marks) {
            assert_eq!(ledger.checkpoint(lane, *id).await.unwrap().mark, Seq(mark), "{start:?} {lane}");
        }
        let totals = &ledger.totals().await.unwrap()[id];
        assert_eq!((totals.accepted, totals.waiting), (8 - marks[0] - marks[1], 8 - marks[0] - marks[1]));
    }
    let stored = ledger.bindings().await.unwrap();
    assert!(stored.iter().zip(&all).all(|(s, d)| s.start == d.start && s.active && s.revision == 1));
    let nowhere = vec![binding("new:orders", Start::Now), binding("far:orders", Start::Address(addr(3, 1)))];
    assert!(matches!(ledger.declare_bindings(nowhere, at(1)).await, Err(Error::NotFound(_))));
    let twice = vec![binding("new:orders", Start::Now), binding("new:orders", Start::Now)];
    assert!(matches!(ledger.declare_bindings(twice, at(1)).await, Err(Error::Corrupt(_))));
    assert_eq!(ledger.bindings().await.unwrap(), stored);
}

/// A new binding cannot start where nothing will be for a while: it would meet the next event all the same. One that is there
/// is not judged again.
pub async fn starts_beyond_the_end_are_refused(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    fill(&ledger, 10, 2).await;
    let b = binding("b:orders", Start::Address(addr(1, 3)));
    let ids = declare(&ledger, vec![b.clone(), binding("c:orders", Start::Address(addr(2, 1)))]).await;
    let stored = ledger.bindings().await.unwrap();
    let later = Timestamp::from_micros(at(60).micros() + 1);
    let beyond = |start, lane, next| {
        format!(
            "binding `new:orders`: start {start} lies beyond the end of lane {lane}, whose next event will be {next}: name \
             that address or one before it, or `now`"
        )
    };
    let future = |time| {
        format!(
            "binding `new:orders`: start {time} lies in the future: name a time that has passed, or `now`"
        )
    };
    let cases = [
        (Start::Address(addr(1, 4)), beyond("1-4", 1, "1-3")),
        (Start::Address(addr(2, 99_999)), beyond("2-99999", 2, "2-1")),
        (Start::At(later), future(later)),
        (Start::At(at(32_000_000_000)), future(at(32_000_000_000))),
        (Start::Address(addr(3, 1)), "lane 3 does not exist: the ledger has 2".into()),
    ];
    for (start, expected) in cases {
        let all = vec![binding("new:orders", start), binding("far:orders", Start::Address(addr(1, 77)))];
        match ledger.declare_bindings(all, at(60)).await {
            Err(Error::NotFound(text)) => assert_eq!(text, expected),
            other => panic!("{start:?}: {other:?}"),
        }
        assert_eq!(ledger.bindings().await.unwrap(), stored, "{start:?}: nothing was written");
    }
    subject.reopen().await;
    let ledger = subject.ledger();
    let far = [Start::Address(addr(1, 99)), Start::At(later)];
    let again = far.map(|start| binding("b:orders", start));
    for again in again {
        assert_eq!(declare(&ledger, vec![again]).await, ids[..1]);
    }
    fill(&ledger, 12, 1).await;
    assert_eq!(ledger.totals().await.unwrap()[&ids[0]].waiting, 1, "the next event is the first");
    assert_sums(&ledger).await;
}

/// A change makes a new revision; a binding that is dropped rests with its cursor and comes back to it.
pub async fn bindings_revise_and_rest(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let old = binding("b:orders", Start::Now);
    let id = declare(&ledger, vec![old.clone()]).await[0];
    fill(&ledger, 0, 2).await;
    let mut new = old.clone();
    new.filter = vec![json!({"type": ["x"]}), json!({})];
    new.start = Start::Earliest;
    let declared = ledger.declare_bindings(vec![binding("a:orders", Start::Now), new.clone()], at(1)).await;
    let declared = declared.unwrap();
    assert_eq!(declared[1].id, id);
    assert_eq!((declared[1].revision, &declared[1].filter, declared[1].start), (2, &new.filter, Start::Now));
    assert_eq!(declared[0].name.as_str(), "a:orders");
    assert_ne!(declared[0].id, id);
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(ledger.filter_of(id, 1).await.unwrap(), Some(old.filter.clone()));
    assert_eq!(ledger.filter_of(id, 2).await.unwrap(), Some(new.filter.clone()));
    assert_eq!(ledger.filter_of(id, 3).await.unwrap(), None);
    assert_eq!(declare(&ledger, vec![binding("a:orders", Start::Now)]).await.len(), 1);
    assert!(!ledger.bindings().await.unwrap()[0].active);
    fill(&ledger, 5, 1).await;
    let mut moved = new.clone();
    moved.function = "other".into();
    let back = ledger.declare_bindings(vec![moved.clone()], at(9)).await.unwrap();
    assert_eq!((back[0].id, back[0].revision, back[0].active), (id, 3, true));
    assert_eq!(ledger.checkpoint(L1, id).await.unwrap().mark, Seq(0), "it keeps its place");
    assert_sums(&ledger).await;
    // Another source: the account begins anew at the cursor.
    moved.source = "prices".into();
    ledger.declare_bindings(vec![moved], at(10)).await.unwrap();
    let totals = &ledger.totals().await.unwrap()[&id];
    assert_eq!((totals.accepted, totals.waiting), (0, 0));
    ledger.append(batch(vec![event("p").source("prices")]), at(11)).await.unwrap();
    let totals = &ledger.totals().await.unwrap()[&id];
    assert_eq!((totals.accepted, totals.waiting), (1, 1));
    assert_sums(&ledger).await;
}

/// A revision begins at the tails of the moment at which it is declared; what stays as it is keeps its own.
pub async fn revisions_begin_at_the_tails(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    fill(&ledger, 0, 2).await;
    let mut b = binding("b:orders", Start::Earliest);
    let declared = ledger.declare_bindings(vec![b.clone()], at(5)).await.unwrap().remove(0);
    let since = |one, two| std::collections::BTreeMap::from([(L1, Seq(one)), (L2, Seq(two))]);
    assert_eq!(declared.since, since(2, 0));
    fill(&ledger, 2, 1).await;
    ledger.append(batch(vec![event("x").lane(L2)]), at(4)).await.unwrap();
    let again = ledger.declare_bindings(vec![b.clone()], at(6)).await.unwrap().remove(0);
    assert_eq!((again.revision, again.since), (1, since(2, 0)));
    b.filter = vec![json!({"type": ["x"]})];
    let changed = vec![b.clone(), binding("c:orders", Start::Now)];
    let changed = ledger.declare_bindings(changed, at(7)).await.unwrap();
    assert_eq!((changed[0].revision, &changed[0].since, &changed[1].since), (2, &since(3, 1), &since(3, 1)));
    b.function = "other".into();
    fill(&ledger, 3, 1).await;
    ledger.declare_bindings(vec![b.clone()], at(8)).await.unwrap();
    subject.reopen().await;
    let ledger = subject.ledger();
    let stored = ledger.bindings().await.unwrap().remove(0);
    assert_eq!((stored.revision, stored.since), (3, since(4, 1)));
    let old = crate::BindingRevision {
        revision: 1,
        source: orders(),
        function: "handle".into(),
        filter: declared.filter,
        at: at(5),
        since: since(2, 0),
    };
    let middle = crate::BindingRevision {
        revision: 2,
        filter: b.filter.clone(),
        at: at(7),
        since: since(3, 1),
        ..old.clone()
    };
    let new = crate::BindingRevision {
        revision: 3,
        function: "other".into(),
        at: at(8),
        since: since(4, 1),
        ..middle.clone()
    };
    assert_eq!(ledger.revisions(stored.id).await.unwrap(), [old, middle, new]);
    assert_eq!(ledger.revisions(bellwire_schemas::BindingId(99)).await.unwrap(), []);
    for n in 0..105 {
        b.function = format!("f{n}").as_str().into();
        ledger.declare_bindings(vec![b.clone()], at(10 + n)).await.unwrap();
    }
    let newest: Vec<_> = ledger.revisions(stored.id).await.unwrap().iter().map(|r| r.revision).collect();
    assert_eq!(newest, (9..=108).collect::<Vec<_>>());
}

/// A pause is kept until it is lifted.
pub async fn pauses_are_kept(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let one = binding("b:orders", Start::Now);
    let id = declare(&ledger, vec![one.clone()]).await[0];
    let since = Timestamp::from_micros(at(5).micros() + 123);
    let pause = Pause { since, by: "ana".into(), reason: "db migration".into() };
    ledger.set_paused(id, Some(pause.clone())).await.unwrap();
    subject.reopen().await;
    let ledger = subject.ledger();
    declare(&ledger, vec![one]).await;
    assert_eq!(ledger.bindings().await.unwrap()[0].paused, Some(pause));
    ledger.set_paused(id, None).await.unwrap();
    assert_eq!(ledger.bindings().await.unwrap()[0].paused, None);
    let unknown = bellwire_schemas::BindingId(99);
    assert!(matches!(ledger.set_paused(unknown, None).await, Err(Error::NotFound(_))));
}

/// Dead letters go back into the debts or end for good; each is counted by its last ending.
pub async fn redrive_and_discard(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    fill(&ledger, 0, 5).await;
    let epoch = own(&ledger, L1).await;
    let mut part = share(b, 1, 5).owes(4, 9).ends(5, FinalState::Delivered);
    for seq in 1..=3 {
        part = part.kills(stored(&ledger, seq).await, 50);
    }
    flush(&ledger, epoch, part).await;
    let keys = [delivery(b, 1), delivery(b, 1), delivery(b, 2), delivery(b, 4), delivery(b, 77)];
    assert_eq!(ledger.redrive(&keys, at(60)).await.unwrap(), 2);
    subject.reopen().await;
    let ledger = subject.ledger();
    let expected =
        Owed { attempts: 0, next_at: at(60), since: at(60), reason: OwedReason::Redrive, ..debt(1, 0) };
    assert_eq!(ledger.owed(delivery(b, 1)).await.unwrap(), Some(expected));
    assert_eq!(ledger.dead_letter(delivery(b, 1)).await.unwrap(), None);
    assert_eq!(ledger.owed(delivery(b, 4)).await.unwrap(), Some(debt(4, 9)), "owed already: left alone");
    assert_sums(&ledger).await;
    let epoch = own(&ledger, L1).await;
    flush(&ledger, epoch, share(b, 2, 5).settles(1).ends(1, FinalState::Delivered)).await;
    let keys = [delivery(b, 3), delivery(b, 2), delivery(b, 4), delivery(b, 5), delivery(b, 3)];
    assert_eq!(ledger.discard(&keys, "spam", "ana", at(70)).await.unwrap(), 3);
    let totals = &ledger.totals().await.unwrap()[&b];
    assert_eq!(totals.ended, [(FinalState::Delivered, 2), (FinalState::Discarded, 3)].into());
    assert_eq!((totals.dead_letters, totals.retrying), (0, 0));
    assert_sums(&ledger).await;
    let log = ledger.log(addr(1, 3), None).await.unwrap();
    let last = log.iter().find(|(_, l)| l.outcome == LogOutcome::Final(FinalState::Discarded)).unwrap();
    assert_eq!((last.1.at, last.1.attempt), (at(70), 0));
    assert_eq!(last.1.error.as_ref().unwrap().headline(), "Operator.Discarded: spam (by ana)");
    // An attempt that was under way when its debt was discarded: its own ending counts.
    flush(&ledger, epoch, share(b, 3, 5).settles(4).ends(4, FinalState::Delivered)).await;
    let totals = &ledger.totals().await.unwrap()[&b];
    assert_eq!(totals.ended, [(FinalState::Delivered, 3), (FinalState::Discarded, 2)].into());
    assert_sums(&ledger).await;
}

/// A dead letter outlives its event, and a redrive brings the event back to its address.
pub async fn redrive_after_retention(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    fill(&ledger, 0, 3).await;
    let epoch = own(&ledger, L1).await;
    let event = stored(&ledger, 2).await;
    let part = share(b, 1, 3).ends(1, FinalState::Delivered).kills(event.clone(), 5);
    flush(&ledger, epoch, part.ends(3, FinalState::Delivered)).await;
    let late = declare(&ledger, vec![binding("b:orders", Start::Now)]).await;
    assert_eq!(late, [b]);
    assert_eq!(ledger.retain(at(100), at(100)).await.unwrap().events, 3);
    assert_eq!(ledger.event(addr(1, 2)).await.unwrap(), None);
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(ledger.dead_letter(delivery(b, 2)).await.unwrap().unwrap().event, event);
    assert_eq!(ledger.redrive(&[delivery(b, 2)], at(101)).await.unwrap(), 1);
    assert_eq!(ledger.event(addr(1, 2)).await.unwrap(), Some(event.clone()));
    assert_eq!(ledger.retain(at(100), at(102)).await.unwrap().events, 0, "it is owed");
    assert_sums(&ledger).await;
    let epoch = own(&ledger, L1).await;
    flush(&ledger, epoch, share(b, 2, 3).settles(2).ends(2, FinalState::Delivered)).await;
    assert_eq!(ledger.totals().await.unwrap()[&b].ended, [(FinalState::Delivered, 3)].into());
    assert_eq!(ledger.retain(at(100), at(103)).await.unwrap().events, 1);
    assert_eq!(ledger.tail(L1).await.unwrap(), Seq(3));
    assert_sums(&ledger).await;
}

/// A replay is stored with the debts it enqueues; what is owed or waiting is left alone.
pub async fn replays_are_saved(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    fill(&ledger, 0, 2).await;
    let b = declare(&ledger, vec![binding("b:orders", Start::Now)]).await[0];
    fill(&ledger, 2, 5).await;
    let epoch = own(&ledger, L1).await;
    let part = share(b, 1, 6).ends(3, FinalState::Delivered).owes(4, 9).ends(5, FinalState::Filtered);
    flush(&ledger, epoch, part.kills(stored(&ledger, 6).await, 50)).await;
    let mut record = replay("r-17", b, 5);
    record.created_at = Timestamp::from_micros(at(5).micros() + 7);
    record.selector.since = Some(Timestamp::from_micros(at(0).micros() + 1));
    record.cursor = [(L1, Seq(3))].into();
    record.until = [(L1, Seq(7)), (L2, Seq(0))].into();
    let again = |seq: u64| {
        let owed = Owed { reason: OwedReason::Replay("r-17".into()), error: None, ..debt(seq, 80) };
        (addr(1, seq), owed)
    };
    let owed: Vec<_> = (1..=9).map(again).collect();
    // 4 is owed, 7 waits, 8 and 9 do not exist.
    assert_eq!(ledger.save_replay(&record, &owed).await.unwrap(), 5);
    assert_eq!(ledger.save_replay(&record, &owed).await.unwrap(), 0, "a repeat");
    subject.reopen().await;
    let ledger = subject.ledger();
    assert_eq!(ledger.replay(&record.id).await.unwrap(), Some(record.clone()));
    assert_eq!(ledger.owed(delivery(b, 3)).await.unwrap(), Some(again(3).1));
    assert_eq!(ledger.dead_letter(delivery(b, 6)).await.unwrap(), None);
    let totals = &ledger.totals().await.unwrap()[&b];
    assert_eq!((totals.retrying, totals.outside, totals.waiting, totals.accepted), (6, 2, 1, 5));
    assert!(totals.ended.values().all(|n| *n == 0), "{totals:?}");
    assert_sums(&ledger).await;
    let epoch = own(&ledger, L1).await;
    let part =
        share(b, 2, 6).settles(1).ends(1, FinalState::Delivered).settles(3).ends(3, FinalState::Expired);
    flush(&ledger, epoch, part).await;
    let ended = &ledger.totals().await.unwrap()[&b].ended;
    assert_eq!(*ended, [(FinalState::Expired, 1)].into(), "1 is from before its start");
    // Another controller has read the same version and changed it first: what comes late changes nothing.
    let first = ReplayRecord { version: 2, enqueued: 6, ..record.clone() };
    assert_eq!(ledger.save_replay(&first, &[]).await.unwrap(), 0);
    let late = ReplayRecord { version: 2, state: ReplayState::Paused, ..record.clone() };
    assert_eq!(ledger.save_replay(&late, &owed).await.unwrap(), 0);
    assert_eq!(ledger.replay(&record.id).await.unwrap(), Some(first));
    record.version = 3;
    record.state = ReplayState::Done;
    ledger.save_replay(&record, &[]).await.unwrap();
    let newer = replay("r-18", b, 6);
    ledger.save_replay(&newer, &[]).await.unwrap();
    assert_eq!(ledger.replays().await.unwrap(), [newer, record]);
    assert_eq!(ledger.replay(&"r-19".into()).await.unwrap(), None);
    let nobody = replay("r-20", bellwire_schemas::BindingId(99), 6);
    assert!(matches!(ledger.save_replay(&nobody, &[]).await, Err(Error::NotFound(_))));
    assert_sums(&ledger).await;
}

/// Refusals add up per source, hour and reason.
pub async fn refusals_add_up(subject: &mut impl Subject) {
    let ledger = subject.ledger();
    let refusal = |source: &str, reason: &str, count: u64, seconds: i64, peer: &str| Refusal {
        source: source.into(),
        reason: reason.into(),
        count,
        last_at: at(seconds),
        last_peer: peer.into(),
    };
    for one in [
        refusal("hook", "bad-signature", 1, 10, "a"),
        refusal("hook", "bad-signature", 2, 30, "b"),
        refusal("hook", "bad-signature", 1, 20, "c"),
        refusal("hook", "too-large", 1, 40, "d"),
        refusal("hook", "bad-signature", 1, 7_200, "e"),
    ] {
        ledger.note_refusal(one).await.unwrap();
    }
    subject.reopen().await;
    let ledger = subject.ledger();
    let all = vec![
        refusal("hook", "bad-signature", 1, 7_200, "e"),
        refusal("hook", "too-large", 1, 40, "d"),
        refusal("hook", "bad-signature", 4, 30, "b"),
    ];
    assert_eq!(ledger.refusals(at(0)).await.unwrap(), all);
    assert_eq!(ledger.refusals(at(40)).await.unwrap(), all[..2]);
    assert!(ledger.dead_letters(&DeadLetterQuery::default()).await.unwrap().items.is_empty());
}
