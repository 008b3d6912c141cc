//! Events that cursors have not come to: looked through in the order of time, from the first one of any lane on.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bellwire_ledger::{
    BindingRecord, Checkpoint, Cursor, DeliveryKey, DeliveryQuery, EventQuery, Ledger, OwedKind,
};
use bellwire_schemas::selector::Selector;
use bellwire_schemas::{BindingId, Lane, Seq, Timestamp};

use super::search::{Found, Search, is_running};
use super::view;
use crate::server::problem::Problem;
use crate::server::reads::Reads;

/// The clock of a controller may have been put back between two events of a lane, by no more than this.
const SLACK: Duration = Duration::from_secs(60);

/// Requests to cancel that are read at once, and remembered at most.
const REQUESTS: (usize, usize) = (5_000, 100_000);

/// The events that some bindings have not come to, in pages.
pub struct Ahead {
    bindings: Vec<(BindingRecord, BTreeMap<Lane, Checkpoint>)>,
    query: EventQuery,
    requested: HashSet<DeliveryKey>,
}

impl Ahead {
    /// Begins where the first of the bindings stands; `None`: nothing lies ahead of any of them.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn new(
        app: &Reads,
        search: &Search,
        chosen: Vec<BindingRecord>,
        ascending: bool,
        after: Option<Cursor>,
    ) -> Result<Option<Self>, Problem> {
        let ledger = app.ledger();
        let totals = ledger.totals().await?;
        let asked = &search.selector;
        let meant = |record: &BindingRecord| {
            asked.source.as_ref().is_none_or(|source| *source == record.source)
                && totals.get(&record.id).is_some_and(|totals| totals.waiting > 0)
        };
        let (mut bindings, mut marks) = (Vec::new(), BTreeMap::<Lane, Seq>::new());
        for record in chosen.into_iter().filter(meant) {
            let checkpoints = checkpoints(ledger.as_ref(), record.id).await?;
            for (lane, checkpoint) in &checkpoints {
                let mark = marks.entry(*lane).or_insert(checkpoint.mark);
                *mark = checkpoint.mark.min(*mark);
            }
            bindings.push((record, checkpoints));
        }
        let Some(first) = first(ledger.as_ref(), marks).await? else { return Ok(None) };
        let Some((one, rest)) = bindings.split_first() else { return Ok(None) };
        let source = rest.iter().all(|(other, _)| other.source == one.0.source).then(|| one.0.source.clone());
        let since = asked.since.max(Some(first.minus(SLACK)));
        let selector = Selector { source, since, binding: None, state: None, filter: None, ..asked.clone() };
        let query = EventQuery { selector, ascending, after, limit: 0 };
        Ok(Some(Self { bindings, query, requested: HashSet::new() }))
    }

    /// Finds out what was asked to end before: the first [`REQUESTS`] of it.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn mark(&mut self, app: &Reads) -> Result<(), Problem> {
        let (limit, most) = REQUESTS;
        for (record, _) in &self.bindings {
            let (binding, reasons) = (Some(record.id), vec![OwedKind::Cancelled]);
            let selector = Selector::default();
            let mut query = DeliveryQuery { selector, binding, reasons, after: None, limit };
            loop {
                let page = app.ledger().deliveries(&query).await?;
                let keys = page.items.iter();
                let keys = keys.map(|d| DeliveryKey { binding: d.binding, address: d.address });
                self.requested.extend(keys);
                query.after = page.next;
                if query.after.is_none() || self.requested.len() >= most {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Looks at up to so many events: what is meant of them, and how many there were. [`Ahead::after`] says where the
    /// next page begins.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn page(
        &mut self,
        app: &Reads,
        search: &Search,
        limit: usize,
    ) -> Result<(Vec<Found>, usize), Problem> {
        self.query.limit = limit;
        let page = app.ledger().events(&self.query).await?;
        let mut all = Vec::new();
        for stored in &page.items {
            let address = stored.address;
            for (record, checkpoints) in &self.bindings {
                let passed = checkpoints.get(&address.lane).is_none_or(|c| c.passed(address.seq));
                if passed || record.source != stored.source {
                    continue;
                }
                let key = DeliveryKey { binding: record.id, address };
                let mut found = view::ahead(stored, record, search.live(record.id), is_running(app, key));
                found.requested = self.requested.contains(&key);
                if search.means(&found, stored) {
                    all.push(found);
                }
            }
        }
        self.query.after = page.next;
        Ok((all, page.items.len()))
    }

    /// Where the next page begins; `None` behind the last one.
    pub fn after(&self) -> Option<Cursor> {
        self.query.after
    }
}

async fn checkpoints(ledger: &dyn Ledger, binding: BindingId) -> Result<BTreeMap<Lane, Checkpoint>, Problem> {
    let mut all = BTreeMap::new();
    for lane in (1..=ledger.lanes()).map(Lane) {
        all.insert(lane, ledger.checkpoint(lane, binding).await?);
    }
    Ok(all)
}

/// When the first event beyond these places was accepted.
async fn first(ledger: &dyn Ledger, marks: BTreeMap<Lane, Seq>) -> Result<Option<Timestamp>, Problem> {
    let mut first: Option<Timestamp> = None;
    for (lane, mark) in marks {
        let next = ledger.read(lane, Seq(mark.0.saturating_add(1)), 1, 1).await?;
        let at = next.first().map(|stored| stored.accepted_at);
        first = [first, at].into_iter().flatten().min();
    }
    Ok(first)
}
