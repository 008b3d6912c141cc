//! Why one event was, or was not, delivered: from the ledger's log and debts, and from what the runners do now.
//!
//! It changes nothing and asks no runner: what they do stands on their boards. `waits.rs` finds what
//! holds one back, `words.rs` names what is owed.

mod waits;
mod words;

use std::collections::BTreeMap;

use bellwire_ledger::{
    BindingRecord, DeliveryKey, Error, Ledger, LogEntry, LogOutcome, Owed, OwedReason, StoredEvent,
};
use bellwire_patterns::PatternSet;
use bellwire_schemas::api::{ExplainedAttempt, ExplainedDelivery, ExplainedEvent, Explanation, LaterArrival};
use bellwire_schemas::{Address, BindingId, ErrorInfo, FinalState, Seq, Timestamp};
use serde_json::Value;

use crate::decide::DeadReason;
use crate::handle::Handle;
use crate::status::{BindingLive, pause_detail};
use waits::{Cause, IN_TURN, Place};
pub use words::{held, owed_words, words};

/// Explains one event. Without a handle (a ledger looked at after the fact) what waits is called `waiting`.
/// `Ok(None)`: no event lies there.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn explain(
    ledger: &dyn Ledger,
    handle: Option<&Handle>,
    address: Address,
    now: Timestamp,
) -> Result<Option<Explanation>, Error> {
    let Some(stored) = ledger.event(address).await? else { return Ok(None) };
    let mut logs: BTreeMap<BindingId, Vec<LogEntry>> = BTreeMap::new();
    for (binding, entry) in ledger.log(address, None).await? {
        logs.entry(binding).or_default().push(entry);
    }
    let mut deliveries = Vec::new();
    for record in ledger.bindings().await? {
        let log = logs.remove(&record.id).unwrap_or_default();
        let case = Case { ledger, handle, stored: &stored, record: &record, now };
        deliveries.extend(case.delivery(log).await?);
    }
    deliveries.sort_by(|a, b| a.binding.cmp(&b.binding));
    let duplicates = ledger.duplicates(address).await?;
    let event = ExplainedEvent {
        id: stored.event.id.clone(),
        address,
        source: stored.source.clone(),
        kind: stored.event.kind.clone(),
        subject: stored.event.subject.clone(),
        key: stored.key.clone(),
        accepted_at: stored.accepted_at,
        intake: "accepted".into(),
        duplicates: duplicates.into_iter().map(|d| LaterArrival { at: d.at, id: d.id }).collect(),
    };
    Ok(Some(Explanation { event, deliveries }))
}

/// One event and one binding.
struct Case<'a> {
    ledger: &'a dyn Ledger,
    handle: Option<&'a Handle>,
    stored: &'a StoredEvent,
    record: &'a BindingRecord,
    now: Timestamp,
}

/// The part of an answer that depends on the state.
#[derive(Default)]
struct Finding {
    state: &'static str,
    reason: Option<&'static str>,
    detail: Option<String>,
    ended_at: Option<Timestamp>,
    held_since: Option<Timestamp>,
    next_attempt_at: Option<Timestamp>,
    waits_for: Option<String>,
    group: Option<String>,
    behind: Option<Address>,
    followers: Vec<Address>,
}

/// Debts of a lane that are looked through for others of a key, and followers named.
const NEIGHBOURS: usize = 1_000;
const FOLLOWERS: usize = 100;

impl Case<'_> {
    /// `None` when the binding never owed the event.
    async fn delivery(&self, log: Vec<LogEntry>) -> Result<Option<ExplainedDelivery>, Error> {
        let key = DeliveryKey { binding: self.record.id, address: self.stored.address };
        let ending = log.iter().rev().find(|entry| matches!(entry.outcome, LogOutcome::Final(_)));
        let finding = if self.handle.is_some_and(|h| h.is_running(self.record.id, self.stored.address)) {
            Finding { state: "running", ..Finding::default() }
        } else if let Some(owed) = self.ledger.owed(key).await? {
            let finding = self.owed(&owed);
            self.neighbours(&owed, finding).await?
        } else if let Some(ending) = ending {
            self.ended(ending, key).await?
        } else {
            let seq = self.stored.address.seq;
            let passed = self.ledger.checkpoint(self.stored.address.lane, self.record.id).await?.passed(seq);
            if passed || self.record.source != self.stored.source {
                return Ok(None);
            }
            self.waiting()
        };
        Ok(Some(self.view(finding, &log)))
    }

    /// What nobody has tried yet.
    fn waiting(&self) -> Finding {
        let finding = Finding { state: "waiting", ..Finding::default() };
        let live = self.live();
        match held(self.record, live.as_ref()) {
            Some(reason) => self.held(reason, finding),
            None => self.because(self.place().and_then(|place| place.cause()), finding),
        }
    }

    fn owed(&self, owed: &Owed) -> Finding {
        let live = self.live();
        let held = held(self.record, live.as_ref());
        let (state, reason) = owed_words(owed, held);
        let detail = owed.error.as_ref().map(ErrorInfo::headline);
        let next_attempt_at = Some(owed.next_at).filter(|at| *at > self.now && state == "paused");
        let finding = Finding { state, reason: Some(reason), detail, next_attempt_at, ..Finding::default() };
        match (&owed.reason, held) {
            (OwedReason::Cancelled, _) => self.cancelled(owed, held),
            (OwedReason::Blocked, _) => finding,
            (_, Some(held)) => self.held(held, finding),
            (OwedReason::Parked, None) => {
                Finding { waits_for: owed.key.as_ref().map(|key| format!("key {key}")), ..finding }
            }
            _ => self.timed(owed.next_at, finding),
        }
    }

    /// A debt that has its time: what is in force then is not known, so only what surely lasts longer is named.
    fn timed(&self, at: Timestamp, finding: Finding) -> Finding {
        let is_due = at <= self.now;
        let cause = self.place().and_then(|place| match is_due {
            true => place.cause().filter(|cause| cause.reason != IN_TURN),
            false => place.condition().filter(|cause| cause.until.is_none_or(|until| until > at)),
        });
        let waits_for = is_due.then(|| self.record.function.to_string());
        self.because(cause, Finding { next_attempt_at: Some(at), waits_for, ..finding })
    }

    fn because(&self, cause: Option<Cause>, finding: Finding) -> Finding {
        let Some(cause) = cause else { return finding };
        Finding {
            reason: Some(cause.reason),
            detail: cause.detail.or(finding.detail),
            held_since: cause.since,
            next_attempt_at: finding.next_attempt_at.max(cause.until),
            waits_for: cause.waits_for,
            behind: cause.behind,
            ..finding
        }
    }

    /// Of a binding that takes nothing on.
    fn held(&self, reason: &'static str, finding: Finding) -> Finding {
        let pause = || self.record.paused.clone().or_else(|| self.live()?.pause);
        let (pause, detail) = match reason {
            "binding-paused" => (pause(), None),
            "binding-disabled" => (None, Some("enabled: false in the configuration".into())),
            _ => (None, Some("the configuration has this binding no more".into())),
        };
        let detail = pause.as_ref().map(pause_detail).or(detail);
        Finding {
            state: "paused",
            reason: Some(reason),
            detail,
            held_since: pause.map(|pause| pause.since),
            waits_for: Some(self.record.name.to_string()),
            ..finding
        }
    }

    /// Given up by an operator, and not ended yet.
    fn cancelled(&self, owed: &Owed, held: Option<&'static str>) -> Finding {
        let (state, reason) = owed_words(owed, held);
        let elsewhere = self.place().and_then(|place| place.elsewhere());
        let ends = match (held, &elsewhere) {
            (Some("binding-paused"), _) => "and ends when the binding is resumed".to_owned(),
            (Some(_), _) => "and ends when the configuration takes the binding up again".to_owned(),
            (None, Some(cause)) => {
                format!("and ends when {} hears of it", cause.waits_for.as_deref().unwrap_or("its lane"))
            }
            (None, None) => "and ends in a moment".to_owned(),
        };
        let why = owed.error.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
        let waits_for = held.map(|_| self.record.name.to_string());
        Finding {
            state,
            reason: Some(reason),
            detail: Some(format!("cancelled at {} {ends}{why}", owed.next_at)),
            held_since: Some(owed.next_at),
            waits_for: waits_for.or_else(|| elsewhere.and_then(|cause| cause.waits_for)),
            ..Finding::default()
        }
    }

    fn live(&self) -> Option<BindingLive> {
        self.handle.and_then(|handle| handle.binding_live(self.record.id))
    }

    fn place(&self) -> Option<Place<'_>> {
        let (address, key) = (self.stored.address, self.stored.key.as_deref());
        self.handle.map(|handle| Place { handle, record: self.record, address, key, now: self.now })
    }

    /// Names the deliveries of the same key that this one waits behind, or that wait behind it.
    async fn neighbours(&self, owed: &Owed, finding: Finding) -> Result<Finding, Error> {
        let (Some(key), lane) = (&owed.key, self.stored.address.lane) else { return Ok(finding) };
        let parked = owed.reason == OwedReason::Parked;
        let after = if parked { Seq(0) } else { owed.seq };
        let debts = self.ledger.debts(lane, self.record.id, after, NEIGHBOURS).await?;
        let alike = debts.iter().filter(|debt| debt.key.as_ref() == Some(key));
        if parked {
            let before = alike.take_while(|debt| debt.seq < owed.seq).last();
            return Ok(Finding { behind: before.map(|debt| Address::new(lane, debt.seq)), ..finding });
        }
        let parked = alike.filter(|debt| debt.reason == OwedReason::Parked).take(FOLLOWERS);
        Ok(Finding { followers: parked.map(|debt| Address::new(lane, debt.seq)).collect(), ..finding })
    }

    async fn ended(&self, ending: &LogEntry, key: DeliveryKey) -> Result<Finding, Error> {
        let state = match ending.outcome {
            LogOutcome::Final(state) => state,
            LogOutcome::Failed => return Ok(Finding::default()),
        };
        let mut finding = Finding {
            state: state.as_str(),
            detail: ending.error.as_ref().map(ErrorInfo::headline),
            ended_at: Some(ending.at.plus(std::time::Duration::from_millis(ending.duration_ms.into()))),
            ..Finding::default()
        };
        match state {
            FinalState::Delivered => {}
            FinalState::Filtered => match ending.error.as_ref().map(|error| error.kind.as_str()) {
                Some("Delivery.debounced") => {
                    finding.reason = Some("debounced");
                    finding.detail = Some("a later event of its key came before the burst was over".into());
                }
                Some("Delivery.singleton") => {
                    finding.reason = Some("singleton");
                    finding.detail = Some("another event of its key was being worked on".into());
                }
                _ => {
                    finding.reason = Some("filter-mismatch");
                    finding.detail = self.clause(ending.revision).await?;
                }
            },
            FinalState::Expired => finding.reason = Some("too-old"),
            FinalState::Discarded => {
                finding.reason = Some(match ending.error.as_ref().map(|error| error.kind.as_str()) {
                    Some("Ledger.EventMissing") => "event-missing",
                    Some("Delivery.singleton") => "singleton",
                    _ => "operator",
                });
            }
            FinalState::Dead => {
                let error = ending.error.as_ref();
                let policy = self.handle.and_then(|h| h.binding(self.record.id)).map(|b| b.plan());
                finding.reason = Some(match (policy, error) {
                    (Some(plan), Some(error)) => DeadReason::of(&plan.policy.retry, error).as_str(),
                    _ => DeadReason::AttemptsExhausted.as_str(),
                });
                finding.group = self.ledger.dead_letter(key).await?.map(|dead| dead.fingerprint);
            }
        }
        Ok(finding)
    }

    /// The clause that said no, by the filter of the revision that was in force.
    async fn clause(&self, revision: u32) -> Result<Option<String>, Error> {
        let Some(filter) = self.ledger.filter_of(self.record.id, revision).await? else { return Ok(None) };
        let Ok(filter) = PatternSet::from_value(&Value::Array(filter)) else { return Ok(None) };
        Ok(filter.explain(&self.stored.event.envelope()).map(|explanation| explanation.to_string()))
    }

    fn view(&self, finding: Finding, log: &[LogEntry]) -> ExplainedDelivery {
        let last = log.last();
        let plan = self.handle.and_then(|h| h.binding(self.record.id)).map(|b| b.plan());
        ExplainedDelivery {
            binding: self.record.name.clone(),
            state: finding.state.into(),
            reason: finding.reason.map(Into::into),
            detail: finding.detail,
            revision: last.map_or(self.record.revision, |entry| entry.revision),
            version: log.iter().rev().map(|e| &e.version).find(|version| !version.is_empty()).cloned(),
            ended_at: finding.ended_at,
            held_since: finding.held_since,
            next_attempt_at: finding.next_attempt_at,
            waits_for: finding.waits_for,
            behind: finding.behind,
            followers: finding.followers,
            attempts_allowed: plan.and_then(|plan| plan.policy.retry.attempts),
            group: finding.group,
            attempts: log.iter().filter(|entry| entry.attempt > 0).map(attempt).collect(),
        }
    }
}

fn attempt(entry: &LogEntry) -> ExplainedAttempt {
    let delivered = entry.outcome == LogOutcome::Final(FinalState::Delivered);
    ExplainedAttempt {
        number: entry.attempt,
        started_at: entry.at,
        duration_ms: entry.duration_ms.into(),
        outcome: if delivered { "success" } else { "failure" }.into(),
        error: entry.error.clone(),
        worker: (!entry.worker.is_empty()).then(|| entry.worker.clone()),
        replay: entry.replay.as_ref().map(ToString::to_string),
    }
}
