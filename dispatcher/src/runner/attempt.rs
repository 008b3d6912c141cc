//! One attempt, from the event to what follows: load, shape, invoke, decide.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bellwire_ledger::{DeliveryKey, LogEntry, StoredEvent};
use bellwire_schemas::outlet::Outgoing;
use bellwire_schemas::{ErrorInfo, FailureClass, Timestamp, crash_point};
use bellwire_workers::{Consent, Invocation, InvocationResult};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::queue::Job;
use crate::binding::{Pass, Plan};
use crate::decide::{Ended, Next, decide};
use crate::lease::Licence;
use crate::rooms::Rooms;
use crate::shape::{Shaped, constant, shape};

/// How long an attempt rests when the ledger does not give it its event.
const LOAD_REST: Duration = Duration::from_secs(1);

/// The slots an attempt holds while it runs.
#[derive(Debug)]
pub(super) struct Permits {
    pub(super) _binding: OwnedSemaphorePermit,
    pub(super) _function: OwnedSemaphorePermit,
}

/// All that an attempt needs to be allowed to start.
pub(super) struct Right {
    pub(super) licence: Arc<Licence>,
    pub(super) pass: Pass,
    pub(super) permits: Permits,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) struct Landed {
    pub(super) job: Job,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// The function was called.
    Called(Box<Called>),
    /// The ledger could not be read, or the lane is not surely ours any more; nothing was tried.
    Untried,
    /// The ledger does not hold the event any more.
    Missing,
    /// It was too old for another attempt; its event was read to say so.
    Expired,
}

#[derive(Debug)]
pub(super) struct Called {
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Timestamp,
    pub(super) result: InvocationResult,
    pub(super) next: Next,
    /// When the first attempt of the delivery started; known when it died.
    pub(super) first_at: Timestamp,
    /// The invocation's identity.
    pub(super) request_id: String,
}

/// Runs one attempt. The slots are given back before the outcome is looked at.
pub(super) async fn attempt(
    rooms: Arc<Rooms>,
    plan: Arc<Plan>,
    mut job: Job,
    Right { licence, pass, permits }: Right,
    random: f64,
) -> Landed {
    let event = match &job.event {
        Some(event) => Arc::clone(event),
        None => match load(&rooms, &plan, &job).await {
            Ok(event) => event,
            Err(outcome) => return Landed { job, outcome },
        },
    };
    job.event = Some(Arc::clone(&event));
    let mut invocation = invocation(&plan, &job, &event);
    let request_id = invocation.request_id.clone();
    crash_point("dispatch.before");
    if !licence.holds() {
        return Landed { job, outcome: Outcome::Untried };
    }
    // Asked again at the hand-over: until then a worker may have to start, and the process may be stopped meanwhile.
    let untried = Arc::new(AtomicBool::new(false));
    let refused = Arc::clone(&untried);
    invocation.consent = Consent::new(move || {
        let holds = licence.holds();
        refused.store(!holds, Ordering::Relaxed);
        holds
    });
    let started_at = rooms.clock.now();
    let result = rooms.invoker.invoke(invocation).await;
    if untried.load(Ordering::Relaxed) {
        return Landed { job, outcome: Outcome::Untried };
    }
    crash_point("invoke.result");
    let called = conclude(&rooms, &plan, &job, (request_id, result), started_at, pass.waits, random).await;
    pass.report(&called.next, called.result.answer.as_ref().err());
    drop(permits);
    Landed { job, outcome: Outcome::Called(Box::new(called)) }
}

/// Lands the outcome of a broken attempt together with the event that was lost with it.
pub(super) async fn with_event(
    rooms: Arc<Rooms>,
    plan: Arc<Plan>,
    mut job: Job,
    called: Box<Called>,
) -> Landed {
    let outcome = match load(&rooms, &plan, &job).await {
        Ok(event) => {
            job.event = Some(event);
            Outcome::Called(called)
        }
        Err(outcome) => outcome,
    };
    Landed { job, outcome }
}

/// Reads the event of a debt that has become too old, because what is sent about it holds the event.
pub(super) async fn expire(rooms: Arc<Rooms>, plan: Arc<Plan>, mut job: Job) -> Landed {
    let outcome = match load(&rooms, &plan, &job).await {
        Ok(event) => {
            job.event = Some(event);
            Outcome::Expired
        }
        Err(outcome) => outcome,
    };
    Landed { job, outcome }
}

/// The outcome of an attempt whose task broke down: a failure like any other.
pub(super) fn broken(plan: &Plan, job: &Job, cause: &str, now: Timestamp) -> Called {
    let error = ErrorInfo::platform(FailureClass::Crash, "Dispatcher.Broken", cause);
    let next = decide(&plan.policy, &ended(job, Some(&error), None, now, 0, 1.0));
    let result = InvocationResult {
        answer: Err(error),
        duration: Duration::ZERO,
        init: None,
        worker: String::new(),
        version: String::new(),
        logs: Vec::new(),
        retry_after: None,
    };
    let request_id = Uuid::new_v4().to_string();
    Called { started_at: now, ended_at: now, result, next, first_at: now, request_id }
}

async fn conclude(
    rooms: &Rooms,
    plan: &Plan,
    job: &Job,
    (request_id, result): (String, InvocationResult),
    started_at: Timestamp,
    waits: u32,
    random: f64,
) -> Called {
    let ended_at = rooms.clock.now();
    let failure = result.answer.as_ref().err();
    let next = decide(&plan.policy, &ended(job, failure, result.retry_after, ended_at, waits, random));
    let first_at = match next {
        Next::Dead(_) if job.attempts > 0 => first_attempt(rooms, plan, job).await.unwrap_or(job.since),
        _ => started_at,
    };
    Called { started_at, ended_at, result, next, first_at, request_id }
}

fn ended<'a>(
    job: &Job,
    failure: Option<&'a ErrorInfo>,
    retry_after: Option<Duration>,
    now: Timestamp,
    waits: u32,
    random: f64,
) -> Ended<'a> {
    let attempt = job.attempts.saturating_add(1);
    Ended { attempt, failure, retry_after, since: job.since, now, waits, random }
}

/// The start of attempt 1 of the current run: the last one logged, because a redrive counts from 1 again.
async fn first_attempt(rooms: &Rooms, plan: &Plan, job: &Job) -> Option<Timestamp> {
    let log = rooms.ledger().log(job.address, Some(plan.record.id)).await.ok()?;
    let first = |(_, entry): &(_, LogEntry)| (entry.attempt == 1).then_some(entry.at);
    log.iter().rev().find_map(first)
}

/// Reads the event of a debt; what is not there or cannot be read is the outcome.
async fn load(rooms: &Rooms, plan: &Plan, job: &Job) -> Result<Arc<StoredEvent>, Outcome> {
    match find(rooms, plan, job).await {
        Ok(Some(event)) => Ok(Arc::new(event)),
        Ok(None) => Err(Outcome::Missing),
        Err(error) => {
            tracing::warn!(address = %job.address, %error, "cannot read the event of a debt");
            tokio::time::sleep(LOAD_REST).await;
            Err(Outcome::Untried)
        }
    }
}

async fn find(rooms: &Rooms, plan: &Plan, job: &Job) -> Result<Option<StoredEvent>, bellwire_ledger::Error> {
    if let Some(event) = rooms.ledger().event(job.address).await? {
        return Ok(Some(event));
    }
    let key = DeliveryKey { binding: plan.record.id, address: job.address };
    Ok(rooms.ledger().dead_letter(key).await?.map(|dead| dead.event))
}

fn invocation(plan: &Plan, job: &Job, stored: &StoredEvent) -> Invocation {
    let Shaped { payload, content_type, headers } = shaped(plan, stored);
    let outgoing =
        plan.form.outlet.then(|| Outgoing { event: Arc::clone(&stored.event), key: stored.key.clone() });
    Invocation {
        function: plan.spec.function.clone(),
        request_id: Uuid::new_v4().to_string(),
        idempotency_key: idempotency_key(plan, job, stored),
        payload,
        content_type,
        headers,
        traceparent: stored.event.traceparent().map(str::to_owned),
        outgoing,
        consent: Consent::default(),
    }
}

/// What the function receives.
pub(super) fn shaped(plan: &Plan, stored: &StoredEvent) -> Shaped {
    match &plan.form.input {
        Some(input) => constant(input),
        None => shape(stored, plan.form.kind.as_deref(), plan.form.format, plan.form.receiver),
    }
}

/// The same for every attempt of one delivery, also over restarts and redrives; another one for each replay, which
/// asks on purpose for a new delivery.
pub(super) fn idempotency_key(plan: &Plan, job: &Job, stored: &StoredEvent) -> String {
    let event = &stored.event;
    let replay = job.replay().map_or("", |id| id.as_str());
    let parts = [event.source.as_str(), event.id.as_str(), plan.record.name.as_str(), replay];
    Uuid::new_v5(&Uuid::NAMESPACE_URL, parts.join("\n").as_bytes()).to_string()
}
