//! Reading and listing against a plain list, over batches of all sizes and generations that come and go.

use std::sync::Arc;

use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, Lane, Seq};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::OnServer;
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::postgres::upkeep;
use crate::{EventQuery, Ledger, NewEvent, StoredEvent};

/// What happens before the questions.
#[derive(Clone, Debug)]
enum Step {
    /// A batch whose events are these numbers; see [`made`].
    Append(Vec<u16>),
    Turn,
    /// Tallies over this many events.
    Tally(i64),
}

#[derive(Clone, Debug)]
struct Question {
    number: u16,
    conditions: u8,
    since: Option<i64>,
    until: Option<i64>,
    ascending: bool,
    limit: usize,
}

/// An event that a number stands for: few sources, types and keys, ids that repeat, texts that Postgres refuses.
fn made(n: u16) -> NewEvent {
    let new = event(&format!("id\u{0}{}", n % 97))
        .lane(Lane(1 + n % 2))
        .source(["orders", "prices", "rare"][usize::from(if n.is_multiple_of(50) { 2 } else { n % 7 / 4 })])
        .with(|e| {
            e.kind = format!("kind {}", n % 3);
            e.data = (!n.is_multiple_of(5)).then(|| vec![b'x'; usize::from(n % 40)].into());
        });
    if n.is_multiple_of(4) { new } else { new.key(&format!("key {}", n % 23)) }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let numbers = |size| proptest::collection::vec(any::<u16>(), size);
    let step = prop_oneof![
        3 => numbers(1..4_usize).prop_map(Step::Append),
        2 => numbers(9..60_usize).prop_map(Step::Append),
        1 => Just(Step::Turn),
        1 => (1..80_i64).prop_map(Step::Tally),
    ];
    proptest::collection::vec(step, 1..25)
}

fn questions() -> impl Strategy<Value = Vec<Question>> {
    let time = || proptest::option::of(0..30_i64);
    let question = (any::<u16>(), any::<u8>(), time(), time(), any::<bool>(), 1..40_usize);
    let question = question.prop_map(|(number, conditions, since, until, ascending, limit)| Question {
        number,
        conditions,
        since,
        until,
        ascending,
        limit,
    });
    proptest::collection::vec(question, 12)
}

impl Question {
    /// The conditions: about half of the questions have one or none.
    fn selector(&self) -> Selector {
        let like = made(self.number);
        let asks = |bit: u8| self.conditions >> bit & 3 == 3;
        Selector {
            source: asks(0).then_some(like.source),
            kind: asks(1).then(|| like.event.kind.clone()),
            ids: if asks(2) { vec![like.event.id.clone(), "no such".into()] } else { Vec::new() },
            key: like.key.filter(|_| asks(3)),
            addresses: match asks(4) {
                true => (0..40).map(|n| addr(1 + n % 3, u64::from(self.number % 50 + n))).collect(),
                false => Vec::new(),
            },
            since: self.since.map(at),
            until: self.until.map(at),
            ..Selector::default()
        }
    }

    fn expects(&self, all: &[StoredEvent]) -> Vec<Address> {
        let s = self.selector();
        let meant = |e: &&StoredEvent| {
            s.source.as_ref().is_none_or(|x| *x == e.source)
                && s.kind.as_ref().is_none_or(|x| *x == e.event.kind)
                && (s.ids.is_empty() || s.ids.contains(&e.event.id))
                && s.key.as_ref().is_none_or(|x| Some(x) == e.key.as_ref())
                && (s.addresses.is_empty() || s.addresses.contains(&e.address))
                && s.since.is_none_or(|x| e.accepted_at >= x)
                && s.until.is_none_or(|x| e.accepted_at < x)
        };
        let mut found: Vec<_> = all.iter().filter(meant).map(|e| (e.accepted_at, e.address)).collect();
        found.sort_unstable();
        if !self.ascending {
            found.reverse();
        }
        found.into_iter().map(|(_, address)| address).collect()
    }

    async fn check(&self, ledger: &Arc<dyn Ledger>, all: &[StoredEvent]) -> Result<(), TestCaseError> {
        let (selector, ascending, limit) = (self.selector(), self.ascending, self.limit);
        let mut query = EventQuery { selector, ascending, after: None, limit };
        let mut found = Vec::new();
        loop {
            let page = ledger.events(&query).await.unwrap();
            prop_assert!(page.items.len() <= self.limit);
            for event in &page.items {
                prop_assert!(all.contains(event), "{event:?}");
            }
            found.extend(page.items.iter().map(|e| e.address));
            match page.next {
                Some(_) => query.after = page.next,
                None => break,
            }
        }
        prop_assert_eq!(found, self.expects(all), "{:?}", self);
        Ok(())
    }

    async fn check_read(&self, ledger: &Arc<dyn Ledger>, all: &[StoredEvent]) -> Result<(), TestCaseError> {
        let from = Seq(u64::from(self.number % 400));
        let bytes = if self.ascending { usize::MAX } else { 100 };
        let read = ledger.read(L1, from, self.limit, bytes).await.unwrap();
        let ahead = all.iter().filter(|e| e.address.lane == L1 && e.address.seq >= from);
        let expected: Vec<_> = ahead.take(read.len()).cloned().collect();
        prop_assert_eq!(&read, &expected);
        let left = all.iter().any(|e| e.address.lane == L1 && e.address.seq >= from);
        prop_assert_eq!(read.is_empty(), !left);
        Ok(())
    }
}

/// Does the steps; returns what is stored, by address.
async fn lay(subject: &mut OnServer, steps: Vec<Step>) -> Vec<StoredEvent> {
    let ledger = subject.ledger();
    let mut all = Vec::new();
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Turn => subject.turn().await,
            Step::Tally(events) => {
                subject.sql(&format!("select bellwire.tally_lanes({events}, 3)")).await;
            }
            Step::Append(numbers) => {
                let events: Vec<_> = numbers.into_iter().map(made).collect();
                let answer = ledger.append(batch(events.clone()), at(n as i64)).await.unwrap();
                let accepted_at = answer.accepted_at;
                for (new, address) in events.into_iter().zip(accepted(&answer)) {
                    let NewEvent { source, key, event, .. } = new;
                    all.push(StoredEvent { address, source, accepted_at, key, event });
                }
            }
        }
    }
    all.sort_by_key(|e| e.address);
    all
}

fn run<F: Future<Output = Result<(), TestCaseError>>>(test: F) -> Result<(), TestCaseError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn questions_are_answered_as_a_plain_list_would(steps in steps(), questions in questions()) {
        run(async {
            let mut subject = OnServer::new(2).await;
            let all = lay(&mut subject, steps).await;
            let ledger = subject.ledger();
            for question in &questions {
                question.check(&ledger, &all).await?;
                question.check_read(&ledger, &all).await?;
            }
            for event in all.iter().step_by(7) {
                let found = ledger.event(event.address).await.unwrap();
                prop_assert_eq!(found.as_ref(), Some(event));
            }
            Ok(())
        })?;
    }

    #[test]
    fn tallies_and_counts_agree_also_after_some_generations_left(steps in steps(), gone in any::<u16>()) {
        run(async {
            let mut subject = OnServer::new(2).await;
            let mut all = lay(&mut subject, steps).await;
            subject.turn().await;
            check_counts(&subject, &all, &all).await?;
            let ever = all.clone();
            while upkeep::tally(&subject.ledger.shared).await.unwrap() {}
            check_counts(&subject, &all, &ever).await?;
            let newest = subject.number("select max(gen)::bigint from bellwire.generation").await;
            for generation in (1..newest).filter(|g| gone >> (g % 16) & 1 == 1) {
                let places = format!("from bellwire.event_batch_{generation} b");
                for lane in 1..=2_u16 {
                    let bound = |what: &str| format!("select coalesce({what}, 0)::bigint {places} where b.lane = {lane}");
                    let first = subject.number(&bound("min(b.first_seq)")).await as u64;
                    let last = subject.number(&bound("max(b.first_seq + b.count - 1)")).await as u64;
                    all.retain(|e| e.address.lane.0 != lane || e.address.seq.0 < first || e.address.seq.0 > last);
                }
                let drop = format!("select (o_state = 'dropped')::int::bigint
                    from bellwire.drop_generation({generation}, 'infinity')");
                prop_assert_eq!(subject.number(&drop).await, 1);
            }
            check_counts(&subject, &all, &ever).await?;
            let read = subject.ledger().read(L1, Seq(1), usize::MAX, usize::MAX).await.unwrap();
            let left: Vec<_> = all.iter().filter(|e| e.address.lane == L1).cloned().collect();
            prop_assert_eq!(read, left);
            Ok(())
        })?;
    }
}

/// Compares counts by the functions of the database with counts of lists: what is kept, and what ever was.
async fn check_counts(
    subject: &OnServer,
    kept: &[StoredEvent],
    ever: &[StoredEvent],
) -> Result<(), TestCaseError> {
    for (lane, source) in [(1, "orders"), (2, "orders"), (1, "prices"), (1, "rare")] {
        let mine = |e: &&StoredEvent| e.address.lane == Lane(lane) && e.source.as_str() == source;
        let tail = ever.iter().filter(|e| e.address.lane == Lane(lane)).count() as u64;
        let number = format!("coalesce((select id from bellwire.source where name = '{source}'), 0)");
        let counted = subject
            .number(&format!("select bellwire.accepted_upto({lane}::smallint, {number}, {tail})"))
            .await;
        prop_assert_eq!(counted as usize, ever.iter().filter(mine).count());
        for after in (0..tail).step_by(11) {
            let sql = format!("select bellwire.kept_between({lane}::smallint, {number}, {after}, {tail})");
            let ahead = kept.iter().filter(mine).filter(|e| e.address.seq.0 > after).count();
            prop_assert_eq!(subject.number(&sql).await as usize, ahead, "after {}-{}", lane, after);
        }
    }
    Ok(())
}
