//! What an operator has to decide about: keys that are blocked for good, and what is owed to bindings that the
//! configuration has no more. Bounded searches, made only where there may be something.

use std::collections::BTreeSet;
use std::time::Duration;

use bellwire_ledger::{BindingRecord, DeliveryQuery, Error, Ledger, OwedDelivery, OwedKind, Page};
use bellwire_schemas::api::Problem as Trouble;
use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, BindingName, Timestamp};

use super::status::count_of;
use crate::cli::times::{age, count};

/// Deliveries that are looked at for one binding.
const MOST: usize = 1_000;

/// Characters of a key that are shown.
const KEY: usize = 60;

/// The blocked keys of a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    binding: BindingName,
    /// How many there are.
    pub keys: u64,
    /// There are others that were not looked at.
    more: bool,
    /// The delivery that blocks its key for the longest time, of those that were looked at.
    oldest: Address,
    key: Option<String>,
    since: Timestamp,
}

impl Blocked {
    /// Those of a binding, if there are any.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn find(ledger: &dyn Ledger, record: &BindingRecord) -> Result<Option<Self>, Error> {
        let page = page(ledger, record, OwedKind::Blocked).await?;
        let Some(oldest) = page.items.iter().min_by_key(|debt| (debt.owed.since, debt.address)) else {
            return Ok(None);
        };
        let keys: BTreeSet<_> = page.items.iter().map(|debt| &debt.owed.key).collect();
        Ok(Some(Self {
            binding: record.name.clone(),
            keys: keys.len() as u64,
            more: page.next.is_some(),
            oldest: oldest.address,
            key: oldest.owed.key.as_ref().map(|key| key.chars().take(KEY).collect()),
            since: oldest.owed.since,
        }))
    }

    /// One line: how many, which one for the longest time, since when.
    pub fn detail(&self) -> String {
        let more = if self.more { " or more" } else { "" };
        let are = if self.keys == 1 && !self.more { "key is" } else { "keys are" };
        let key = self.key.as_ref().map(|key| format!(" (key {key})")).unwrap_or_default();
        let oldest = if self.keys == 1 { "by" } else { "the first by" };
        format!(
            "{}{more} {are} blocked, {oldest} {}{key} since {}",
            count(self.keys),
            self.oldest,
            self.since
        )
    }

    /// The same with what to do.
    pub fn trouble(&self) -> Trouble {
        let Self { binding, oldest, .. } = self;
        let detail = format!(
            "{}\nwhich:   bellwire deliveries list --binding {binding} --state parked\n\
             again:   bellwire dead-letters redrive {oldest}@{binding}\n\
             give up: bellwire deliveries cancel {oldest}@{binding} --reason …",
            self.detail()
        );
        Trouble { subject: binding.to_string(), code: "key-blocked".into(), detail }
    }
}

/// What is owed to a binding that the configuration has no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    binding: BindingName,
    owed: u64,
    /// How many of them were cancelled where its cursor stands before them: nobody will come to end them.
    asked: u64,
    more: bool,
}

impl Orphan {
    /// Looks for what was cancelled of what is owed.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn find(ledger: &dyn Ledger, record: &BindingRecord, owed: u64) -> Result<Self, Error> {
        let page = page(ledger, record, OwedKind::Cancelled).await?;
        let (asked, more) = (page.items.len() as u64, page.next.is_some());
        Ok(Self { binding: record.name.clone(), owed, asked, more })
    }

    /// What to do; `None`: all of it was cancelled. `retention`: how long events are kept.
    pub fn trouble(&self, retention: Duration) -> Option<Trouble> {
        let Self { binding, owed, asked, more } = self;
        if asked >= owed {
            return None;
        }
        let are = if *owed == 1 { "is" } else { "are" };
        let cancelled = match asked {
            0 => String::new(),
            _ if *more => format!(", {} or more of them cancelled", count(*asked)),
            _ => format!(", {} of them cancelled", count(*asked)),
        };
        let detail = format!(
            "{} {are} owed to it{cancelled}, but the configuration has it no more\n\
             go on:   put it back under the same name\n\
             give up: bellwire deliveries cancel --binding {binding} --reason …\n\
             Those that it has not come to leave its accounts with their events, {} after these came.",
            count_of(*owed, "event", "events"),
            age(retention)
        );
        Some(Trouble { subject: binding.to_string(), code: "orphaned".into(), detail })
    }
}

async fn page(
    ledger: &dyn Ledger,
    record: &BindingRecord,
    kind: OwedKind,
) -> Result<Page<OwedDelivery>, Error> {
    let (binding, reasons) = (Some(record.id), vec![kind]);
    let selector = Selector::default();
    ledger.deliveries(&DeliveryQuery { selector, binding, reasons, after: None, limit: MOST }).await
}

#[cfg(test)]
mod tests {
    use bellwire_ledger::{DeliveryKey, OwedReason};
    use bellwire_schemas::{Lane, Seq};

    use super::super::testing::{World, at};
    use super::*;

    #[tokio::test]
    async fn blocked_keys_are_told_with_what_to_do() {
        let world = World::new(&["b:orders"]).await;
        world.events(8, "k").await;
        let record = world.record("b:orders").await;
        assert_eq!(Blocked::find(world.ledger.as_ref(), &record).await.unwrap(), None);
        world
            .owes(
                "b:orders",
                &[OwedReason::Retry, OwedReason::Blocked, OwedReason::Blocked, OwedReason::Parked],
            )
            .await;
        let found = Blocked::find(world.ledger.as_ref(), &record).await.unwrap().unwrap();
        let first = "2 keys are blocked, the first by 1-2 (key k2) since 2026-01-01T00:00:02.000Z";
        assert_eq!((found.keys, found.detail().as_str()), (2, first));
        let told = found.trouble().detail;
        assert_eq!(
            told.lines().collect::<Vec<_>>(),
            [
                first,
                "which:   bellwire deliveries list --binding b:orders --state parked",
                "again:   bellwire dead-letters redrive 1-2@b:orders",
                "give up: bellwire deliveries cancel 1-2@b:orders --reason …",
            ]
        );
        let one = Blocked { keys: 1, ..found.clone() };
        assert!(one.detail().starts_with("1 key is blocked, by 1-2"), "{}", one.detail());
        let many = Blocked { keys: 1_000, more: true, ..found };
        assert!(many.detail().starts_with("1,000 or more keys are blocked"), "{}", many.detail());
    }

    #[tokio::test]
    async fn what_is_owed_to_a_binding_that_is_gone_is_told_until_it_is_cancelled() {
        let world = World::new(&["b:orders", "gone:orders"]).await;
        world.events(3, "k").await;
        world.declare(&["b:orders"]).await;
        let record = world.record("gone:orders").await;
        let orphan = Orphan::find(world.ledger.as_ref(), &record, 3).await.unwrap();
        let told = orphan.trouble(Duration::from_secs(7 * 86_400)).unwrap().detail;
        assert!(
            told.starts_with("3 events are owed to it, but the configuration has it no more\n"),
            "{told}"
        );
        assert!(told.contains("bellwire deliveries cancel --binding gone:orders"), "{told}");
        assert!(told.ends_with("leave its accounts with their events, 7 d after these came."), "{told}");
        let cancel = async |lane, seq| {
            let key = DeliveryKey { binding: record.id, address: Address::new(Lane(lane), Seq(seq)) };
            assert_eq!(world.ledger.cancel(&[key], "gone", "ana", at(9)).await.unwrap(), 1);
            Orphan::find(world.ledger.as_ref(), &record, 3).await.unwrap().trouble(Duration::ZERO)
        };
        let told = cancel(1, 1).await.unwrap().detail;
        assert!(told.starts_with("3 events are owed to it, 1 of them cancelled, but"), "{told}");
        cancel(1, 2).await;
        assert!(cancel(2, 1).await.is_none(), "all of it was given up");
    }
}
