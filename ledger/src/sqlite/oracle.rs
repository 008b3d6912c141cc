//! Random histories: whatever happens, SQLite answers as the model does.
//!
//! Steps are drawn as (verb, seed); what a step does is worked out from the model's state, so that flushes are such as
//! a dispatcher would send, and a history shrinks by leaving steps out.

use std::fmt::Debug;

use bellwire_schemas::selector::Selector;
use bellwire_schemas::service::Start;
use bellwire_schemas::{Address, BindingId, Epoch, FinalState, Lane, ReplayId, Seq};
use futures::FutureExt;
use proptest::prelude::*;

use super::tests::OnDisk;
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::{
    BindingFlush, BindingRecord, DeadLetterQuery, DeliveryKey, Error, EventQuery, Flush, Ledger, ModelLedger,
    Owed, OwedReason, Pause, PositionAdvance, Quarantine, Refusal, ReplayState, StoredEvent,
};

const LANES: u16 = 2;
const SOURCES: [&str; 3] = ["orders", "prices", "hooks"];
const NAMES: [&str; 3] = ["a:orders", "b:orders", "c:prices"];

/// A stream of small numbers (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize].clone()
    }
}

struct Pair {
    model: ModelLedger,
    sqlite: OnDisk,
    dice: Dice,
    now: i64,
    epochs: Vec<Epoch>,
}

fn same<T: PartialEq + Debug>(what: &str, model: Result<T, Error>, sqlite: Result<T, Error>) -> Option<T> {
    match (model, sqlite) {
        (Ok(m), Ok(s)) => {
            assert_eq!(m, s, "{what}");
            Some(m)
        }
        (m, s) => {
            assert_eq!(format!("{:?}", m.err()), format!("{:?}", s.err()), "{what}");
            None
        }
    }
}

/// Asks both and insists on one answer.
macro_rules! both {
    ($pair:expr, $verb:ident($($arg:expr),*)) => {
        same(
            stringify!($verb),
            $pair.model.$verb($($arg),*).await,
            $pair.sqlite.ledger.$verb($($arg),*).await,
        )
    };
}

impl Pair {
    async fn new() -> Self {
        let mut pair = Self {
            model: ModelLedger::new(LANES),
            sqlite: OnDisk::new(LANES).await,
            dice: Dice(0),
            now: 0,
            epochs: Vec::new(),
        };
        pair.own().await;
        pair
    }

    async fn own(&mut self) {
        self.epochs.clear();
        for lane in (1..=LANES).map(Lane) {
            let controller = bellwire_schemas::ControllerId(uuid::Uuid::from_u128(7));
            let epoch = both!(self, acquire(controller, lane, at(self.now))).unwrap().unwrap();
            self.epochs.push(epoch);
        }
    }

    async fn step(&mut self, verb: u8, seed: u64) {
        self.dice = Dice(seed);
        self.now += self.dice.roll(4) as i64;
        match verb {
            0..6 => self.append().await,
            6..8 => self.declare().await,
            8..14 => self.flush().await,
            14..16 => self.redrive_or_discard().await,
            16..18 => self.replay().await,
            18 => self.retain().await,
            19 => self.pause_or_refuse().await,
            20 => self.reopen().await,
            _ => self.stale_flush().await,
        }
        self.check_totals().await;
    }

    fn new_event(&mut self) -> crate::NewEvent {
        let n = self.dice.roll(40);
        let source = self.dice.pick(&SOURCES);
        let lane = Lane(self.dice.roll(u64::from(LANES)) as u16 + 1);
        let mut new = event(&format!("id{n}")).source(source).lane(lane);
        if n.is_multiple_of(3) {
            new = new.key(&format!("key{}", n % 4));
        }
        if n.is_multiple_of(2) {
            new = new.once(&format!("once{}", n % 6), self.dice.roll(30));
        }
        new.with(|e| e.kind = format!("kind{}", n % 3))
    }

    async fn append(&mut self) {
        let events = (0..self.dice.roll(6)).map(|_| self.new_event()).collect();
        let mut append = batch(events);
        if self.dice.roll(3) == 0 {
            let shard = format!("shard{}", self.dice.roll(2));
            let found = self.model.position(&shard).await.unwrap().map_or(0, |p| p.version);
            let expected = if self.dice.roll(4) == 0 { found + 1 } else { found };
            append.positions.push(PositionAdvance { shard, expected, value: format!("{}", self.now) });
        }
        if self.dice.roll(4) == 0 {
            append.quarantined.push(Quarantine {
                source: self.dice.pick(&SOURCES).into(),
                reason: "bad".into(),
                bytes: bytes::Bytes::from_static(&[0, 0xff]),
                meta: "{}".into(),
            });
        }
        let now = at(self.now);
        if self.dice.roll(4) == 0 {
            // The caller goes away: nobody knows whether it was written, so it asks again with the same id.
            let _ = self.sqlite.ledger.append(append.clone(), now).now_or_never();
        }
        both!(self, append(append.clone(), now));
        if self.dice.roll(4) == 0 {
            both!(self, append(append.clone(), at(self.now + 1)));
        }
    }

    async fn declare(&mut self) {
        let mut declared = Vec::new();
        for name in NAMES {
            if self.dice.roll(5) == 0 {
                continue;
            }
            let (_, source) = name.split_once(':').unwrap();
            let start = match self.dice.roll(4) {
                0 => Start::Now,
                1 => Start::Earliest,
                2 => Start::At(at(self.dice.roll(self.now as u64 + 1) as i64)),
                _ => Start::Address(addr(self.dice.roll(2) as u16 + 1, self.dice.roll(20))),
            };
            let source = if self.dice.roll(6) == 0 { self.dice.pick(&SOURCES) } else { source };
            let function = if self.dice.roll(4) == 0 { "other" } else { "handle" };
            declared.push(BindingRecord {
                source: source.into(),
                function: function.into(),
                ..binding(name, start)
            });
        }
        both!(self, declare_bindings(declared.clone(), at(self.now)));
    }

    async fn any_binding(&mut self) -> Option<BindingRecord> {
        let all = self.model.bindings().await.unwrap();
        (!all.is_empty()).then(|| self.dice.pick(&all))
    }

    /// What a dispatcher would send: some places passed with their endings, some debts worked off.
    async fn flush(&mut self) {
        let Some(binding) = self.any_binding().await else { return };
        let lane = Lane(self.dice.roll(u64::from(LANES)) as u16 + 1);
        let before = self.model.checkpoint(lane, binding.id).await.unwrap();
        let mut part = share(binding.id, before.version + 1, before.mark.0);
        part.done = before.done.clone();
        let tail = self.model.tail(lane).await.unwrap();
        for seq in before.mark.0 + 1..=tail.0.min(before.mark.0 + 12) {
            if before.done.contains(Seq(seq)) || self.dice.roll(4) == 0 {
                continue;
            }
            part.done.insert(Seq(seq));
            let stored = self.model.event(Address::new(lane, Seq(seq))).await.unwrap();
            match stored {
                Some(stored) if stored.source == binding.source => self.end_or_owe(&mut part, stored),
                _ => {}
            }
        }
        part.mark = part.done.absorb(before.mark);
        self.work_off(&mut part, lane).await;
        self.end_late(&mut part, lane, &binding, &before).await;
        let epoch = self.epochs[usize::from(lane.0) - 1];
        let flush = Flush { lane, epoch, bindings: vec![part] };
        both!(self, flush(flush.clone()));
        if self.dice.roll(4) == 0 {
            both!(self, flush(flush.clone()));
        }
    }

    fn end_or_owe(&mut self, part: &mut BindingFlush, stored: StoredEvent) {
        let seq = stored.address.seq.0;
        let states = [FinalState::Delivered, FinalState::Filtered, FinalState::Expired];
        let taken = std::mem::replace(part, share(part.binding, 0, 0));
        *part = match self.dice.roll(5) {
            0 => taken.owes(seq, self.now + self.dice.roll(9) as i64),
            1 => taken.kills(stored, self.now),
            2 => taken.owes(seq, self.now).settles(seq).ends(seq, FinalState::Delivered),
            _ => taken.ends(seq, self.dice.pick(&states)),
        };
    }

    async fn work_off(&mut self, part: &mut BindingFlush, lane: Lane) {
        let due = self.model.due(lane, part.binding, at(self.now), 5).await.unwrap().due;
        for owed in due {
            let seq = owed.seq.0;
            let stored = self.model.event(Address::new(lane, owed.seq)).await.unwrap().unwrap();
            let taken = std::mem::replace(part, share(part.binding, 0, 0));
            *part = match self.dice.roll(6) {
                0 => taken,
                1 => taken.owes(seq, self.now + 3),
                2 => taken.kills(stored, self.now),
                // Only a delivery that stood ended before may go without a word.
                3 if matches!(owed.reason, OwedReason::Replay(_)) => taken.settles(seq),
                4 => taken.ends(seq, FinalState::Expired),
                _ => taken.settles(seq).ends(seq, FinalState::Delivered),
            };
        }
    }

    /// The answer of an attempt whose delivery was ended meanwhile.
    async fn end_late(
        &mut self,
        part: &mut BindingFlush,
        lane: Lane,
        binding: &BindingRecord,
        before: &crate::Checkpoint,
    ) {
        if self.dice.roll(3) > 0 || before.reach().0 == 0 {
            return;
        }
        let seq = self.dice.roll(before.reach().0) + 1;
        let stored = self.model.event(Address::new(lane, Seq(seq))).await.unwrap();
        let known = part.log.iter().any(|l| l.seq.0 == seq);
        let Some(stored) = stored.filter(|s| s.source == binding.source && before.passed(Seq(seq)) && !known)
        else {
            return;
        };
        self.end_or_owe(part, stored);
    }

    async fn stale_flush(&mut self) {
        let Some(binding) = self.any_binding().await else { return };
        let epoch = Epoch(self.epochs[0].0 - 1);
        let flush = Flush { lane: L1, epoch, bindings: vec![share(binding.id, 99, 0)] };
        both!(self, flush(flush.clone()));
        let flush =
            Flush { lane: L1, epoch: self.epochs[0], bindings: vec![share(binding.id, 1 << 40, 1 << 30)] };
        both!(self, flush(flush.clone()));
    }

    async fn deliveries(&mut self, dead_only: bool) -> Vec<DeliveryKey> {
        let query = DeadLetterQuery { limit: 1_000, ..DeadLetterQuery::default() };
        let dead = self.model.dead_letters(&query).await.unwrap().items;
        let mut keys: Vec<_> =
            dead.iter().map(|d| DeliveryKey { binding: d.binding, address: d.event.address }).collect();
        if !dead_only {
            for binding in self.model.bindings().await.unwrap() {
                let due = self.model.due(L1, binding.id, at(1 << 30), 100).await.unwrap().due;
                let address = |o: &Owed| Address::new(L1, o.seq);
                keys.extend(due.iter().map(|o| DeliveryKey { binding: binding.id, address: address(o) }));
            }
        }
        keys.push(delivery(BindingId(1), 9_999));
        keys.retain(|_| self.dice.roll(2) == 0);
        keys
    }

    async fn redrive_or_discard(&mut self) {
        let now = at(self.now);
        if self.dice.roll(2) == 0 {
            let keys = self.deliveries(true).await;
            both!(self, redrive(&keys, now));
        } else {
            let keys = self.deliveries(false).await;
            both!(self, discard(&keys, "no", "ana", now));
        }
    }

    async fn replay(&mut self) {
        let Some(binding) = self.any_binding().await else { return };
        let id = format!("r{}", self.dice.roll(4));
        let mut record = replay(&id, binding.id, self.now);
        let stored = self.model.replay(&record.id).await.unwrap().map_or(0, |r| r.version);
        record.version = stored + self.dice.roll(3);
        record.state = self.dice.pick(&[
            ReplayState::Running,
            ReplayState::Paused,
            ReplayState::Done,
            ReplayState::Cancelled,
        ]);
        let mut owed = Vec::new();
        for lane in (1..=LANES).map(Lane) {
            let tail = self.model.tail(lane).await.unwrap();
            let from = self.dice.roll(tail.0 + 1);
            let until = (from + self.dice.roll(6)).min(tail.0);
            record.cursor.insert(lane, Seq(from));
            record.until.insert(lane, Seq(until));
            for seq in from..=until + 1 {
                let reason = OwedReason::Replay(ReplayId::new(&id));
                owed.push((Address::new(lane, Seq(seq)), Owed { reason, ..debt(seq, self.now) }));
            }
        }
        both!(self, save_replay(&record, &owed));
    }

    async fn retain(&mut self) {
        let before = at(self.dice.roll(self.now as u64 + 2) as i64);
        both!(self, retain(before, at(self.now)));
    }

    async fn pause_or_refuse(&mut self) {
        let Some(binding) = self.any_binding().await else { return };
        let pause = Pause { since: at(self.now), by: "ben".into(), reason: "why".into() };
        let pause = (self.dice.roll(2) == 0).then_some(pause);
        both!(self, set_paused(binding.id, pause.clone()));
        let refusal = Refusal {
            source: self.dice.pick(&SOURCES).into(),
            reason: "bad-signature".into(),
            count: self.dice.roll(3),
            last_at: at(self.now - self.dice.roll(3) as i64),
            last_peer: format!("peer{}", self.dice.roll(3)),
        };
        both!(self, note_refusal(refusal.clone()));
    }

    async fn reopen(&mut self) {
        self.model.reopen();
        self.sqlite.reopen().await;
        self.own().await;
    }

    async fn check_totals(&self) {
        let totals = both!(self, totals()).unwrap();
        for (binding, t) in totals {
            let ended: u64 = t.ended.values().sum();
            assert_eq!(t.accepted + t.outside, ended + t.waiting + t.retrying, "sum of {binding}: {t:?}");
        }
    }

    async fn check_all(&mut self) {
        let bindings = both!(self, bindings()).unwrap();
        both!(self, arrivals());
        both!(self, replays());
        both!(self, replay(&ReplayId::new("r1")));
        both!(self, refusals(at(3)));
        both!(self, quarantined(None, 100));
        both!(self, quarantined(Some(&"prices".into()), 2));
        both!(self, position("shard0"));
        for lane in (1..=LANES).map(Lane) {
            let tail = both!(self, tail(lane)).unwrap();
            both!(self, read(lane, Seq(0), 1_000, usize::MAX));
            both!(self, read(lane, Seq(3), 5, 30));
            for seq in 0..=tail.0 + 1 {
                let address = Address::new(lane, Seq(seq));
                both!(self, event(address));
                both!(self, log(address, None));
                both!(self, log(address, Some(BindingId(1))));
                both!(self, duplicates(address));
                for binding in &bindings {
                    let key = DeliveryKey { binding: binding.id, address };
                    both!(self, owed(key));
                    both!(self, dead_letter(key));
                }
            }
            for binding in &bindings {
                both!(self, checkpoint(lane, binding.id));
                both!(self, due(lane, binding.id, at(self.now), 3));
                both!(self, filter_of(binding.id, binding.revision));
            }
        }
        for n in 0..40 {
            both!(self, duplicates_of_id(&format!("id{n}"), None));
        }
        both!(self, duplicates_of_id("id6", Some(&orders())));
        self.check_lists(&bindings).await;
    }

    async fn check_lists(&mut self, bindings: &[BindingRecord]) {
        let all = Selector::default;
        let selectors = [
            all(),
            Selector { source: Some("prices".into()), ..all() },
            Selector { kind: Some("kind1".into()), ..all() },
            Selector { key: Some("key3".into()), ..all() },
            Selector { ids: vec!["id1".into(), "id2".into(), "id6".into()], ..all() },
            Selector { addresses: vec![addr(1, 2), addr(2, 1), addr(1, 900)], ..all() },
            Selector { since: Some(at(self.now / 3)), until: Some(at(self.now / 2)), ..all() },
            Selector { binding: Some(NAMES[1].into()), ..all() },
        ];
        for selector in selectors {
            for (ascending, limit) in [(true, 4), (false, 3), (false, 1_000)] {
                let mut query = EventQuery { selector: selector.clone(), ascending, after: None, limit };
                loop {
                    let page = both!(self, events(&query)).unwrap();
                    let Some(next) = page.next else { break };
                    query.after = Some(next);
                }
            }
            let binding = self.dice.pick(&[None, bindings.first().map(|b| b.id)]);
            let mut query = DeadLetterQuery { selector, binding, after: None, limit: 2 };
            loop {
                let page = both!(self, dead_letters(&query)).unwrap();
                let Some(next) = page.next else { break };
                query.after = Some(next);
            }
        }
    }
}

fn run(steps: &[(u8, u64)]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut pair = Pair::new().await;
        for (verb, seed) in steps {
            pair.step(*verb, *seed).await;
        }
        pair.check_all().await;
        pair.reopen().await;
        pair.check_all().await;
        pair.sqlite.ledger.close().await;
        assert_intact(&pair.sqlite.path());
    });
}

/// SQLite's own check of the file, and that nothing outlives what it belongs to.
pub(super) fn assert_intact(path: &std::path::Path) {
    let conn = rusqlite::Connection::open(path).unwrap();
    let verdict: String = conn.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let orphans: u64 = conn
        .query_row("SELECT count(*) FROM log WHERE place NOT IN (SELECT place FROM event)", [], |r| r.get(0))
        .unwrap();
    assert_eq!(orphans, 0, "log lines without their event");
    let unowned: u64 = conn
        .query_row("SELECT count(*) FROM owed WHERE place NOT IN (SELECT place FROM event)", [], |r| r.get(0))
        .unwrap();
    assert_eq!(unowned, 0, "debts without their event");
    let both: u64 = conn
        .query_row("SELECT count(*) FROM owed JOIN dead_letter USING (binding, place)", [], |r| r.get(0))
        .unwrap();
    assert_eq!(both, 0, "deliveries both owed and dead");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_agree(steps in prop::collection::vec((0u8..22, any::<u64>()), 1..70)) {
        run(&steps);
    }
}

/// The same in length, for whoever wants to be sure: `--run-ignored only`.
#[test]
#[ignore = "takes minutes"]
fn long_random_histories_agree() {
    let mut dice = Dice(std::env::var("SEED").map_or(1, |s| s.parse().unwrap()));
    for _ in 0..200 {
        let steps: Vec<_> = (0..300).map(|_| (dice.roll(22) as u8, dice.roll(u64::MAX))).collect();
        run(&steps);
    }
}
