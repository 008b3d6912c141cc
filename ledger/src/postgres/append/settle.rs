//! Settles a group of appends: sends it until every one of them has its answer, or has waited long enough.

use std::collections::VecDeque;
use std::time::Duration;

use bellwire_schemas::{Lane, Seq, crash_point};
use tokio::time::Instant;

use super::group::{Group, Named, Told};
use super::job::{Fate, Job};
use super::present::find;
use super::tried::Tried;
use crate::Error;
use crate::postgres::Shared;
use crate::postgres::connect::Connection;
use crate::postgres::fault::{Fault, Outcome};
use crate::postgres::lease::Seen;

/// First pause after a lost connection; doubled each time up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A task's connection, made when it is needed.
#[derive(Default)]
pub(super) struct Link {
    connection: Option<Connection>,
    pause: Duration,
}

impl Link {
    async fn take(&mut self, shared: &Shared) -> Outcome<&Connection> {
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            self.connection = None;
            self.connection = Some(shared.connector.connect().await?);
        }
        self.connection.as_ref().ok_or_else(|| Fault::Lost("there is no connection".into()))
    }

    async fn wait(&mut self) {
        self.connection = None;
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        tokio::time::sleep(self.pause).await;
    }
}

/// What is left to do after one call.
enum Next {
    /// Every append has its answer.
    Done,
    /// The same again, at once.
    Again(Vec<Job>),
    /// The same again on another connection, after a pause.
    Later(Vec<Job>),
    /// One of them was refused: each by itself, so that nobody pays for a neighbour.
    Apart(Vec<Job>),
}

/// Sends a group until every one of its appends has an answer.
pub(super) async fn settle(shared: &Shared, link: &mut Link, group: Vec<Job>) {
    let mut groups = VecDeque::from([group]);
    while let Some(group) = groups.pop_front() {
        if group.is_empty() {
            continue;
        }
        match attempt(shared, link, group).await {
            Next::Done => link.pause = Duration::ZERO,
            Next::Again(rest) => groups.push_front(rest),
            Next::Later(rest) => {
                groups.push_front(rest);
                link.wait().await;
            }
            Next::Apart(rest) => {
                for job in rest.into_iter().rev() {
                    groups.push_front(vec![job]);
                }
            }
        }
    }
}

/// One call, with what it needs before and what follows from its answer.
async fn attempt(shared: &Shared, link: &mut Link, group: Vec<Job>) -> Next {
    let (history, generation) = (shared.history.newest(), shared.generation());
    let (mut jobs, tried) = match begin(shared, group, generation).await {
        Ok(begun) => begun,
        Err((jobs, error)) => return later(jobs, &error.to_string()),
    };
    if jobs.is_empty() {
        return Next::Done;
    }
    let names = match names(shared, &jobs, history).await {
        Ok(names) => names,
        Err(error) => return later(jobs, &error.to_string()),
    };
    let prepared = Group::new(&jobs, &tried, &names);
    let group = match prepared {
        Ok(group) => group,
        Err(error) => return later(jobs, &error.to_string()),
    };
    let connection = match link.take(shared).await {
        Ok(connection) => connection,
        Err(fault) => return later(jobs, &Error::from(fault).to_string()),
    };
    crash_point("append.before");
    match group.send(shared, connection, generation).await {
        Ok(Told::Stored { at, firsts }) => {
            crash_point("append.after_commit");
            for ((lane, count, append), first) in group.rows().zip(&firsts) {
                let first = Seq(u64::try_from(*first).unwrap_or(0));
                shared.appenders.memory.grown(Lane(lane), Seq(first.0 + count as u64));
                shared.leases.saw(Lane(lane), Seen { generation, first, append });
            }
            let answers = group.answers(at, &firsts);
            jobs.into_iter().zip(answers).for_each(|(job, answer)| job.answer(answer));
            Next::Done
        }
        Ok(Told::Duplicates(found)) => {
            for (job, event, first) in found {
                jobs[job].fates[event] = Fate::Duplicate(first);
                jobs[job].hashes[event] = None;
            }
            Next::Again(jobs)
        }
        Ok(Told::Present(present)) => answer_present(shared, jobs, &tried, &present).await,
        Err(fault) if fault.code() == "BW002" && jobs.len() == 1 => {
            let conflict = conflict(&group, fault);
            refuse_position(shared, jobs.remove(0), &tried[0], conflict).await
        }
        Err(fault) => refused(shared, jobs, fault).await,
    }
}

/// Refuses an append because its position moved, unless an earlier try of which nothing was heard moved it: that may have
/// been committed only after the append was looked for.
async fn refuse_position(shared: &Shared, mut job: Job, tried: &Tried, conflict: Error) -> Next {
    if job.unknown {
        match find(shared, &mut job, tried).await {
            Ok(Some(answer)) => {
                job.answer(Ok(answer));
                return Next::Done;
            }
            Ok(None) => {}
            Err(error) => return later(vec![job], &error.to_string()),
        }
    }
    finish(shared, vec![job], conflict)
}

/// Where each append can be. One whose outcome is unknown is looked for in the generations that have been closed since
/// its first try, and answered if it is there.
async fn begin(
    shared: &Shared,
    group: Vec<Job>,
    generation: i32,
) -> Result<(Vec<Job>, Vec<Tried>), (Vec<Job>, Error)> {
    let memory = &shared.appenders.memory;
    let (mut jobs, mut all) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
    let mut group = group.into_iter();
    while let Some(mut job) = group.next() {
        let (mut tried, again) = memory.begin(&job, generation);
        job.unknown |= again && !job.begun;
        job.begun = true;
        if tried.generation < generation {
            if job.unknown {
                match find(shared, &mut job, &tried).await {
                    Ok(None) => {}
                    Ok(Some(answer)) => {
                        job.answer(Ok(answer));
                        continue;
                    }
                    Err(error) => {
                        jobs.push(job);
                        jobs.extend(group);
                        return Err((jobs, error));
                    }
                }
            }
            memory.not_before(job.id(), generation);
            tried.generation = generation;
        }
        jobs.push(job);
        all.push(tried);
    }
    Ok((jobs, all))
}

/// Numbers for all names in a group.
pub(super) async fn names(shared: &Shared, jobs: &[Job], history: i32) -> Result<Named, Error> {
    let mut sources = Vec::new();
    for job in jobs {
        let events = job.append.events.iter().map(|new| &new.source);
        for name in events.chain(job.append.quarantined.iter().map(|q| &q.source)) {
            if sources.last() != Some(&name) && !sources.contains(&name) {
                sources.push(name);
            }
        }
    }
    let sources = shared.sources_named(&sources).await?;
    let mut shards = Vec::with_capacity(jobs.len());
    for job in jobs {
        let names: Vec<&str> = job.append.positions.iter().map(|p| p.shard.as_str()).collect();
        shards.push(if names.is_empty() { Vec::new() } else { shared.shards_named(&names).await? });
    }
    Ok(Named { history, sources, shards })
}

/// Answers those that are there already; the others go again.
async fn answer_present(shared: &Shared, jobs: Vec<Job>, tried: &[Tried], present: &[usize]) -> Next {
    let mut rest = Vec::new();
    let mut failed = None;
    for (n, (mut job, tried)) in jobs.into_iter().zip(tried).enumerate() {
        if !present.contains(&n) || failed.is_some() {
            rest.push(job);
            continue;
        }
        match find(shared, &mut job, tried).await {
            Ok(Some(answer)) => job.answer(Ok(answer)),
            Ok(None) => {
                failed = Some("an append is there and is not found".to_owned());
                rest.push(job);
            }
            Err(error @ Error::Corrupt(_)) => job.answer(Err(error)),
            Err(error) => {
                failed = Some(error.to_string());
                rest.push(job);
            }
        }
    }
    match failed {
        Some(why) => later(rest, &why),
        None if rest.is_empty() => Next::Done,
        None => Next::Again(rest),
    }
}

/// What to do about a fault. Codes: `migrations/postgres/0002_append.sql`, and the server's manual, appendix A.
async fn refused(shared: &Shared, mut jobs: Vec<Job>, fault: Fault) -> Next {
    let text = Error::from(fault.clone()).to_string();
    match fault.code() {
        // Another generation is open, another bucket: ask which, and again.
        "BW001" => match shared.refresh_generation().await {
            Ok(_) => again(jobs, &text),
            Err(error) => later(jobs, &error.to_string()),
        },
        // The tables or the function of the generation that this handle knows are gone: it was dropped since, or a server
        // that took over never had it.
        "42883" | "42P01" => match shared.refresh_generation().await {
            Ok(_) => later(jobs, &text),
            Err(error) => later(jobs, &error.to_string()),
        },
        "BW003" => match shared.appenders.buckets.load(shared).await {
            Ok(()) => again(jobs, &text),
            Err(error) => later(jobs, &error.to_string()),
        },
        "BW008" => match shared.follow(fault.detail().parse().unwrap_or(0)).await {
            Ok(()) => again(jobs, &text),
            Err(error) => later(jobs, &error.to_string()),
        },
        "BW007" => {
            went_back(shared, fault.detail());
            again(jobs, &text)
        }
        // Somebody else brought in the same identity, position or append at the same moment; or a deadlock.
        "23505" | "40001" | "40P01" => {
            jobs.iter_mut().for_each(|job| job.unknown = true);
            again(jobs, &text)
        }
        _ if fault.is_passing() => {
            jobs.iter_mut().for_each(|job| job.unknown = true);
            later(jobs, &text)
        }
        _ if jobs.len() > 1 => Next::Apart(jobs),
        _ => finish(shared, jobs, fault.into()),
    }
}

/// The lanes end earlier than this handle has seen: events that were accepted are gone.
fn went_back(shared: &Shared, detail: &str) {
    let mut words = detail.split(' ').map(str::parse::<i64>);
    if let (Some(Ok(lane)), Some(Ok(next))) = (words.next(), words.next())
        && let Ok(lane) = u16::try_from(lane)
    {
        tracing::error!(
            lane,
            next,
            "the database went back to an earlier state: events that were accepted are gone; was it restored, or failed \
             over to a server that lacked them?"
        );
        shared.appenders.memory.rewound(lane, next);
    }
}

/// The position that a refusal is about.
fn conflict(group: &Group<'_>, fault: Fault) -> Error {
    let mut words = fault.detail().split(' ');
    let sent = words.next().and_then(|word| word.parse().ok());
    let found = words.next().and_then(|word| word.parse().ok());
    match (sent.and_then(|sent| group.position(sent)), found) {
        (Some(advance), Some(found)) => {
            Error::PositionConflict { shard: advance.shard.clone(), expected: advance.expected, found }
        }
        _ => fault.into(),
    }
}

/// Answers the only append of a group with a refusal; its id is free.
fn finish(shared: &Shared, jobs: Vec<Job>, error: Error) -> Next {
    let mut error = Some(error);
    for job in jobs {
        shared.appenders.memory.forget(job.id());
        job.answer(Err(error.take().unwrap_or_else(|| Error::Unavailable("refused".into()))));
    }
    Next::Done
}

/// The same again, but for those that have waited long enough.
fn again(jobs: Vec<Job>, why: &str) -> Next {
    Next::Again(patient(jobs, why))
}

fn later(jobs: Vec<Job>, why: &str) -> Next {
    Next::Later(patient(jobs, why))
}

fn patient(jobs: Vec<Job>, why: &str) -> Vec<Job> {
    let now = Instant::now();
    let (rest, over): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.deadline > now);
    for job in over {
        job.answer(Err(Error::Unavailable(why.to_owned())));
    }
    rest
}
