//! Refused requests, summed up in memory and noted in the ledger at most once a second, so that a flood of bad
//! requests costs no writes. The keys are sources and fixed words: nothing a stranger sends makes the sum grow.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};

use bellwire_ledger::{Ledger, Refusal};
use bellwire_schemas::Timestamp;

/// Refusals not yet noted.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<(String, &'static str), Sum>>);

#[derive(Debug)]
struct Sum {
    count: u64,
    last_at: Timestamp,
    last_peer: String,
}

impl Refusals {
    /// Adds one.
    pub(crate) fn add(&self, source: &str, reason: &'static str, peer: Option<SocketAddr>, now: Timestamp) {
        let peer = peer.map(|p| p.ip().to_string()).unwrap_or_default();
        let mut all = self.lock();
        let sum = all.entry((source.to_owned(), reason)).or_insert(Sum {
            count: 0,
            last_at: now,
            last_peer: String::new(),
        });
        sum.count += 1;
        sum.last_at = now;
        sum.last_peer = peer;
    }

    /// Notes all sums in the ledger; what it cannot take now is kept for the next time.
    pub(crate) async fn flush(&self, ledger: &dyn Ledger) {
        let taken = std::mem::take(&mut *self.lock());
        for ((source, reason), sum) in taken {
            let refusal = Refusal {
                source: source.clone(),
                reason: reason.to_owned(),
                count: sum.count,
                last_at: sum.last_at,
                last_peer: sum.last_peer.clone(),
            };
            if let Err(error) = ledger.note_refusal(refusal).await {
                tracing::debug!(%error, "refusals are not noted yet");
                self.put_back(source, reason, sum);
            }
        }
    }

    fn put_back(&self, source: String, reason: &'static str, sum: Sum) {
        let mut all = self.lock();
        let now = all.entry((source, reason)).or_insert_with(|| Sum {
            count: 0,
            last_at: sum.last_at,
            last_peer: sum.last_peer.clone(),
        });
        now.count += sum.count;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, &'static str), Sum>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}
