//! What a flush brings forth: an append without a queue, committed by the call that flushes.

use bellwire_schemas::{Lane, Seq, Timestamp, crash_point};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::group::{Group, Named, Told};
use super::job::{Fate, Job};
use super::settle::names;
use super::tried::Tried;
use crate::postgres::Shared;
use crate::postgres::fault::{Fault, Outcome};
use crate::postgres::flush::Plan;
use crate::postgres::lease::Seen;
use crate::{Append, Error, NewEvent};

/// How often what is there already by its dedup key is taken out; each time there is less.
const ROUNDS: usize = 8;

/// Events on their way with a flush.
pub(in crate::postgres) struct Emission {
    job: [Job; 1],
    names: Named,
}

impl Emission {
    /// Works out what needs no lock: hashes, and the numbers of the sources.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a lane that does not exist, [`Error::Corrupt`] for more than the server can take at once,
    /// or the database cannot be asked.
    pub async fn new(shared: &Shared, events: Vec<NewEvent>, now: Timestamp) -> Result<Self, Error> {
        let append =
            Append { append_id: Uuid::now_v7(), events, positions: Vec::new(), quarantined: Vec::new() };
        // Nobody waits for it: the flush is answered.
        let (reply, _) = oneshot::channel();
        let job = [Job::new(append, now, shared.lanes, reply)?];
        let history = shared.history.newest();
        let names = names(shared, &job, history).await?;
        Ok(Self { job, names })
    }

    /// Sends the flush and these events with it.
    ///
    /// # Errors
    /// As the function of the database refuses, and whatever happens to connections.
    pub async fn send(&mut self, shared: &Shared, generation: i32, flush: &Plan) -> Outcome<()> {
        for _ in 0..ROUNDS {
            let [job] = &self.job;
            let tried = [Tried { generation, now: job.now, known: Vec::new() }];
            let unnamed = |error: Error| Fault::Lost(error.to_string());
            let group = Group::new(&self.job, &tried, &self.names).map_err(unnamed)?;
            crash_point("flush.before");
            let told = group.send_with_flush(shared, flush.params(), generation).await?;
            match told {
                Told::Stored { firsts, .. } => {
                    crash_point("flush.after_commit");
                    for ((lane, count, append), first) in group.rows().zip(&firsts) {
                        let first = Seq(u64::try_from(*first).unwrap_or(0));
                        shared.appenders.memory.grown(Lane(lane), Seq(first.0 + count as u64));
                        shared.leases.saw(Lane(lane), Seen { generation, first, append });
                    }
                    return Ok(());
                }
                Told::Duplicates(found) => {
                    let [job] = &mut self.job;
                    for (_, event, first) in found {
                        job.fates[event] = Fate::Duplicate(first);
                        job.hashes[event] = None;
                    }
                }
                Told::Present(_) => {
                    return Err(Fault::Lost("the answer to a flush cannot be read".into()));
                }
            }
        }
        Err(Fault::Lost("the dedup keys of what a flush emits do not come to rest".into()))
    }
}
