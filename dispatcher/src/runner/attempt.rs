//! One attempt, from the events to what follows: load, shape, invoke, decide. One invocation, one batch of deliveries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bellwire_ledger::{LogEntry, StoredEvent};
use bellwire_schemas::outlet::Outgoing;
use bellwire_schemas::{ErrorInfo, FailureClass, Timestamp, crash_point};
use bellwire_workers::{Consent, Emission, Invocation, InvocationResult};
use uuid::Uuid;

use super::load::load;
use super::queue::{Job, REPORTED};
use crate::binding::{Pass, Plan, Slot};
use crate::decide::{Ended, Next, decide, is_away};
use crate::lease::Licence;
use crate::reply::{Verdict, Verdicts, verdicts};
use crate::rooms::Rooms;
use crate::shape::{Receiver, Shaped, constant, shape, shape_batch};

/// The failure of an answer whose `batchItemFailures` cannot be understood.
const MALFORMED: &str = "Function.MalformedBatchResponse";

/// The slots an attempt holds while it runs.
#[derive(Debug)]
pub(super) struct Permits {
    pub(super) _binding: Slot,
    pub(super) _function: Slot,
}

/// All that an attempt needs to be allowed to start.
pub(super) struct Right {
    pub(super) licence: Arc<Licence>,
    pub(super) pass: Pass,
    pub(super) permits: Permits,
}

/// What came of an attempt.
#[derive(Debug, Default)]
pub(super) struct Landed {
    /// Each delivery of it.
    pub(super) jobs: Vec<(Job, End)>,
    /// The call, when there was one.
    pub(super) called: Option<Box<Called>>,
}

/// How one delivery of an attempt came out of it.
#[derive(Debug)]
pub(super) enum End {
    /// The function was called.
    Next {
        /// What follows.
        next: Next,
        /// Its failure.
        error: Option<ErrorInfo>,
        /// When the first attempt of the delivery started; known when it died.
        first_at: Timestamp,
    },
    /// An earlier delivery of its line failed in the same batch: it was not its turn.
    Behind,
    /// The batch failed as a whole and is tried again in halves.
    Halved,
    /// The ledger could not be read, the lane is not surely ours any more, or it did not fit; nothing was tried.
    Untried,
    /// The ledger does not hold the event any more.
    Missing,
    /// Somebody ended the debt meanwhile.
    Gone,
    /// Somebody asked to give it up, with this reason.
    Cancelled(ErrorInfo),
    /// It was too old for another attempt; its event was read to say so.
    Expired,
}

/// A call of the function.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Timestamp,
    pub(super) result: InvocationResult,
    /// The invocation's identity.
    pub(super) request_id: String,
}

/// Runs one attempt. The slots are given back before the outcome is looked at.
pub(super) async fn attempt(
    rooms: Arc<Rooms>,
    plan: Arc<Plan>,
    jobs: Vec<Job>,
    Right { licence, pass, permits }: Right,
    random: f64,
) -> Landed {
    let (jobs, mut landed) = load(&rooms, &plan, jobs).await;
    if jobs.is_empty() {
        return landed;
    }
    let mut invocation = invocation(&plan, &jobs);
    let request_id = invocation.request_id.clone();
    crash_point("dispatch.before");
    if !licence.holds() {
        landed.jobs.extend(jobs.into_iter().map(|job| (job, End::Untried)));
        return landed;
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
        landed.jobs.extend(jobs.into_iter().map(|job| (job, End::Untried)));
        return landed;
    }
    crash_point("invoke.result");
    let ended_at = rooms.clock.now();
    let called = Called { started_at, ended_at, result, request_id };
    let judge = Judge { rooms: &rooms, plan: &plan, called: &called, pass: Some(&pass), random };
    let ends = judge.conclude(jobs).await;
    pass.report(ends.iter().find_map(|(_, end)| end.next()), called.result.answer.as_ref().err());
    drop(permits);
    landed.jobs.extend(ends);
    landed.called = Some(Box::new(called));
    landed
}

/// What follows an attempt whose task broke down: a failure like any other.
pub(super) async fn broken(rooms: Arc<Rooms>, plan: Arc<Plan>, jobs: Vec<Job>, cause: String) -> Landed {
    let (jobs, mut landed) = load(&rooms, &plan, jobs).await;
    let now = rooms.clock.now();
    let result = InvocationResult {
        answer: Err(ErrorInfo::platform(FailureClass::Crash, "Dispatcher.Broken", cause)),
        duration: Duration::ZERO,
        init: None,
        worker: String::new(),
        version: String::new(),
        logs: Vec::new(),
        retry_after: None,
    };
    let called = Called { started_at: now, ended_at: now, result, request_id: Uuid::new_v4().to_string() };
    let judge = Judge { rooms: &rooms, plan: &plan, called: &called, pass: None, random: 1.0 };
    landed.jobs.extend(judge.conclude(jobs).await);
    landed.called = Some(Box::new(called));
    landed
}

/// Reads the event of a debt that has become too old, because what is sent about it holds the event.
pub(super) async fn expire(rooms: Arc<Rooms>, plan: Arc<Plan>, job: Job) -> Landed {
    let (jobs, mut landed) = load(&rooms, &plan, vec![job]).await;
    landed.jobs.extend(jobs.into_iter().map(|job| (job, End::Expired)));
    landed
}

impl End {
    fn next(&self) -> Option<&Next> {
        match self {
            Self::Next { next, .. } => Some(next),
            _ => None,
        }
    }
}

impl Called {
    /// What the function sent while it worked.
    pub(super) fn emitted(&self) -> Vec<Emission> {
        self.result.answer.as_ref().map(|answer| answer.emitted.clone()).unwrap_or_default()
    }
}

/// Decides what a call means for each delivery of its batch.
struct Judge<'a> {
    rooms: &'a Rooms,
    plan: &'a Plan,
    called: &'a Called,
    pass: Option<&'a Pass>,
    random: f64,
}

impl Judge<'_> {
    async fn conclude(&self, jobs: Vec<Job>) -> Vec<(Job, End)> {
        let failure = match &self.called.result.answer {
            Err(error) => Err(error.clone()),
            Ok(_) if self.plan.form.outlet => Ok(vec![Verdict::Delivered; jobs.len()]),
            Ok(answer) => {
                let events: Vec<&StoredEvent> = jobs.iter().filter_map(|job| job.event.as_deref()).collect();
                let kind = self.plan.form.kind.as_deref();
                match verdicts(&answer.payload, &events, kind, self.plan.is_ordered()) {
                    Verdicts::All => Ok(vec![Verdict::Delivered; jobs.len()]),
                    Verdicts::Each(each) => Ok(each),
                    Verdicts::Malformed(reason) => {
                        Err(ErrorInfo::platform(FailureClass::BadResponse, MALFORMED, reason))
                    }
                }
            }
        };
        let is_away = self.is_away(&jobs, failure.as_ref().err());
        let halves = self.plan.spec.batch.bisect && jobs.len() > 1;
        let mut ends = Vec::with_capacity(jobs.len());
        for (at, job) in jobs.into_iter().enumerate() {
            let end = match &failure {
                Err(error) if halves && error.class.burns_attempt() && !is_away => End::Halved,
                Err(error) => self.end(&job, Some(error.clone()), is_away).await,
                Ok(verdicts) => match verdicts.get(at) {
                    Some(Verdict::Behind) => End::Behind,
                    Some(Verdict::Failed) => self.end(&job, Some(reported()), false).await,
                    _ => self.end(&job, None, false).await,
                },
            };
            ends.push((job, end));
        }
        ends
    }

    /// Whether the target, and not the events, is at fault.
    fn is_away(&self, jobs: &[Job], error: Option<&ErrorInfo>) -> bool {
        let is_endpoint = self.plan.form.receiver == Receiver::Endpoint;
        let Some(pass) = self.pass else { return false };
        match error {
            Some(error) if is_away(error, is_endpoint) => {
                jobs.first().is_some_and(|job| pass.is_away(job.address))
            }
            _ => false,
        }
    }

    async fn end(&self, job: &Job, error: Option<ErrorInfo>, is_away: bool) -> End {
        let next = decide(
            &self.plan.policy,
            &Ended {
                attempt: job.attempts.saturating_add(1),
                failure: error.as_ref(),
                is_away,
                retry_after: self.called.result.retry_after,
                since: job.since,
                now: self.called.ended_at,
                waits: self.pass.map_or(0, |pass| pass.waits),
                random: self.random,
                is_in_line: job.key().is_some() && job.is_in_line(),
            },
        );
        let first_at = match next {
            Next::Dead(_) if job.attempts > 0 => self.first_attempt(job).await.unwrap_or(job.since),
            _ => self.called.started_at,
        };
        End::Next { next, error, first_at }
    }

    /// The start of attempt 1 of the current run: the last one logged, because a redrive counts from 1 again.
    async fn first_attempt(&self, job: &Job) -> Option<Timestamp> {
        let log = self.rooms.ledger().log(job.address, Some(self.plan.record.id)).await.ok()?;
        let first = |(_, entry): &(_, LogEntry)| (entry.attempt == 1).then_some(entry.at);
        log.iter().rev().find_map(first)
    }
}

fn reported() -> ErrorInfo {
    ErrorInfo::platform(FailureClass::Function, REPORTED, "the function reported this event as failed")
}

fn invocation(plan: &Plan, jobs: &[Job]) -> Invocation {
    let events: Vec<&StoredEvent> = jobs.iter().filter_map(|job| job.event.as_deref()).collect();
    let Shaped { payload, content_type, headers } = shaped(plan, &events);
    let first = events.first();
    let outgoing = first
        .filter(|_| plan.form.outlet)
        .map(|stored| Outgoing { event: Arc::clone(&stored.event), key: stored.key.clone() });
    Invocation {
        function: plan.spec.function.clone(),
        request_id: Uuid::new_v4().to_string(),
        idempotency_key: batch_key(plan, jobs),
        payload,
        content_type,
        headers,
        traceparent: first.and_then(|stored| stored.event.traceparent()).map(str::to_owned),
        outgoing,
        consent: Consent::default(),
    }
}

/// What the function receives.
pub(super) fn shaped(plan: &Plan, events: &[&StoredEvent]) -> Shaped {
    let (kind, format, receiver) = (plan.form.kind.as_deref(), plan.form.format, plan.form.receiver);
    match (&plan.form.input, events) {
        (Some(input), _) => constant(input),
        (None, [event]) if plan.spec.batch.size == 1 => shape(event, kind, format, receiver),
        (None, events) => shape_batch(events, kind, format, receiver),
    }
}

/// The key of a batch: that of its one delivery, or made of all of theirs.
fn batch_key(plan: &Plan, jobs: &[Job]) -> String {
    let mut keys: Vec<String> = jobs
        .iter()
        .filter_map(|job| job.event.as_ref().map(|stored| idempotency_key(plan, job, stored)))
        .collect();
    if keys.len() == 1 {
        return keys.remove(0);
    }
    Uuid::new_v5(&Uuid::NAMESPACE_URL, keys.join("\n").as_bytes()).to_string()
}

/// The same for every attempt of one delivery, also over restarts and redrives; another one for each replay, which
/// asks on purpose for a new delivery.
pub(super) fn idempotency_key(plan: &Plan, job: &Job, stored: &StoredEvent) -> String {
    let event = &stored.event;
    let replay = job.replay().map_or("", |id| id.as_str());
    let parts = [event.source.as_str(), event.id.as_str(), plan.record.name.as_str(), replay];
    Uuid::new_v5(&Uuid::NAMESPACE_URL, parts.join("\n").as_bytes()).to_string()
}
