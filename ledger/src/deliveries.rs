//! Deliveries that are owed, as people list them: which ones, in pages, with the head of their event.

use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, BindingId, SourceName, Timestamp};

use crate::flush::fingerprint;
use crate::{Cursor, Owed, OwedReason, Page};

/// Most items on a page, whatever was asked.
const PAGE: usize = 10_000;
/// Rows looked at for one page at most: beyond that it ends early, and the next one goes on.
const LOOKED: usize = 20_000;
/// Rows looked at in one step when not all of them need be meant.
const STEP: usize = 200;

/// Which owed deliveries to list: addresses, ids, source, binding, type, key (of the debt), error (of the last failure) and
/// times (when the event was accepted); other conditions of the selector are ignored.
#[derive(Clone, Debug, Default)]
pub struct DeliveryQuery {
    /// The conditions.
    pub selector: Selector,
    /// Only this binding, when the selector's name was resolved.
    pub binding: Option<BindingId>,
    /// Only those owed for one of these reasons; empty for all.
    pub reasons: Vec<OwedKind>,
    /// Continue after this place.
    pub after: Option<Cursor>,
    /// At most this many, and those owed to other bindings of the last address: a cursor names moment and address only.
    /// A page may hold fewer although others follow: then it says where to go on.
    pub limit: usize,
}

/// An [`OwedReason`] by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OwedKind {
    /// See [`OwedReason::Retry`].
    Retry,
    /// See [`OwedReason::Redrive`].
    Redrive,
    /// See [`OwedReason::Replay`].
    Replay,
    /// See [`OwedReason::Parked`].
    Parked,
    /// See [`OwedReason::Blocked`].
    Blocked,
    /// See [`OwedReason::Delayed`].
    Delayed,
    /// See [`OwedReason::Debounced`].
    Debounced,
    /// See [`OwedReason::Cancelled`].
    Cancelled,
}

impl OwedKind {
    /// The word for tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Redrive => "redrive",
            Self::Replay => "replay",
            Self::Parked => "parked",
            Self::Blocked => "blocked",
            Self::Delayed => "delayed",
            Self::Debounced => "debounced",
            Self::Cancelled => "cancelled",
        }
    }

    /// The numbers that stand for it in tables.
    pub(crate) const fn codes(self) -> &'static [i16] {
        match self {
            Self::Retry => &[0],
            Self::Redrive => &[1],
            Self::Replay => &[2],
            Self::Parked => &[3],
            Self::Blocked => &[4],
            Self::Delayed => &[5],
            Self::Debounced => &[6],
            Self::Cancelled => &[7, 8],
        }
    }
}

impl OwedReason {
    /// Its name, without what belongs to it.
    pub const fn kind(&self) -> OwedKind {
        match self {
            Self::Retry => OwedKind::Retry,
            Self::Redrive => OwedKind::Redrive,
            Self::Replay(_) => OwedKind::Replay,
            Self::Parked => OwedKind::Parked,
            Self::Blocked => OwedKind::Blocked,
            Self::Delayed => OwedKind::Delayed,
            Self::Debounced => OwedKind::Debounced,
            Self::Cancelled => OwedKind::Cancelled,
        }
    }
}

/// A delivery that has a debt row, or a request to cancel it.
#[derive(Clone, Debug, PartialEq)]
pub struct OwedDelivery {
    /// The binding.
    pub binding: BindingId,
    /// The event.
    pub address: Address,
    /// When it was accepted: what pages are ordered by, newest first.
    pub accepted_at: Timestamp,
    /// The debt.
    pub owed: Owed,
    /// What names the event for people.
    pub event: Option<EventHead>,
}

/// The names of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHead {
    /// Its CloudEvents id.
    pub id: String,
    /// Its CloudEvents type.
    pub kind: String,
    /// The source it came by.
    pub source: SourceName,
}

impl DeliveryQuery {
    /// Whether a delivery is meant, as far as its event and its last failure say.
    pub(crate) fn means(&self, delivery: &OwedDelivery) -> bool {
        let Selector { ids, source, kind, error, .. } = &self.selector;
        let head = delivery.event.as_ref();
        (ids.is_empty() || head.is_some_and(|e| ids.contains(&e.id)))
            && source.as_ref().is_none_or(|s| head.is_some_and(|e| e.source == *s))
            && kind.as_ref().is_none_or(|k| head.is_some_and(|e| e.kind == *k))
            && error
                .as_ref()
                .is_none_or(|f| delivery.owed.error.as_ref().is_some_and(|e| fingerprint(e) == *f))
    }

    /// Whether its rows alone do not say whether a delivery is meant.
    fn is_open(&self) -> bool {
        let Selector { ids, source, kind, error, .. } = &self.selector;
        !ids.is_empty() || source.is_some() || kind.is_some() || error.is_some()
    }
}

/// A page that is gathered from steps of rows, newest first.
pub(crate) struct Gathering<'a> {
    query: &'a DeliveryQuery,
    limit: usize,
    items: Vec<OwedDelivery>,
    /// Where the next step begins.
    pub after: Option<Cursor>,
    looked: usize,
}

impl<'a> Gathering<'a> {
    pub fn new(query: &'a DeliveryQuery) -> Self {
        let limit = query.limit.min(PAGE);
        Self { query, limit, items: Vec::new(), after: query.after, looked: 0 }
    }

    /// How many rows to look at next. The implementation fetches one more, and as many as there are bindings: no more
    /// than these share an address.
    pub fn room(&self) -> usize {
        let rest = self.limit + 1 - self.items.len().min(self.limit);
        if self.query.is_open() { rest.max(STEP) } else { rest }
    }

    /// The rows of this step out of those that were fetched, and whether there are more behind them.
    pub fn step(&mut self, mut rows: Vec<OwedDelivery>) -> (Vec<OwedDelivery>, bool) {
        let more = cut(&mut rows, self.room());
        self.after = rows.last().map(spot).or(self.after);
        self.looked += rows.len();
        (rows, more)
    }

    /// Takes those that are meant; answers the page once it is whole.
    pub fn take(&mut self, rows: Vec<OwedDelivery>, more: bool) -> Option<Page<OwedDelivery>> {
        self.items.extend(rows.into_iter().filter(|row| self.query.means(row)));
        let full = cut(&mut self.items, self.limit);
        let next = match (full, more) {
            (true, _) => self.items.last().map(spot),
            (false, true) if self.looked >= LOOKED => self.after,
            (false, true) => return None,
            (false, false) => None,
        };
        Some(Page { items: std::mem::take(&mut self.items), next })
    }
}

fn spot(delivery: &OwedDelivery) -> Cursor {
    Cursor { at: delivery.accepted_at, address: delivery.address }
}

/// Keeps so many, and those that share the address of the last one; says whether that left some out.
fn cut(items: &mut Vec<OwedDelivery>, count: usize) -> bool {
    let mut end = count.min(items.len());
    while end > 0 && end < items.len() && spot(&items[end]) == spot(&items[end - 1]) {
        end += 1;
    }
    let more = items.len() > end;
    items.truncate(end);
    more
}
