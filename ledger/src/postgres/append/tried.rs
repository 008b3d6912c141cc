//! Where an append can be that was sent before: in which generation, and from which place of its lanes on.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use bellwire_schemas::{Lane, Seq, Timestamp};
use uuid::Uuid;

use super::job::Job;
use crate::Error;
use crate::postgres::Shared;
use crate::postgres::fault::misread;

/// Appends remembered. Whoever repeats one does so within seconds; at 20,000 appends a second these are the last five.
const REMEMBERED: usize = 100_000;

/// Where an append can be.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    /// The generation in which it was sent first; older ones cannot hold it.
    pub generation: i32,
    /// When it was sent first; repeated with the same, so that windows give the same answer.
    pub now: Timestamp,
    /// For each lane of its events, the first place that it can have.
    pub known: Vec<(u16, i64)>,
}

/// What this handle remembers of lanes and appends.
pub(super) struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    /// By lane, the place that the next event gets unless somebody else appends; index 0 is lane 1.
    next: Vec<i64>,
    tried: HashMap<Uuid, Tried>,
    order: VecDeque<Uuid>,
}

impl Memory {
    pub fn new(lanes: u16) -> Self {
        Self(Mutex::new(State { next: vec![1; lanes.into()], ..State::default() }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds this lock")
    }

    /// Asks where the lanes end; what was sent before can be from there on, and in no newer generation than the open one.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn load_tails(&self, shared: &Shared) -> Result<(), Error> {
        let sql = "select l.lane::int, coalesce(
              (select b.first_seq + b.count from bellwire.event_batch_{g} b where b.lane = l.lane
               order by b.first_seq desc limit 1),
              (select s.first_seq from bellwire.lane_start s where s.lane = l.lane and s.gen = {g}), 1)
            from bellwire.lane l";
        let generation = shared.generation();
        let rows = shared.pool.ask(&shared.sql_in(sql, generation), &[]).await?;
        let mut state = self.state();
        for tried in state.tried.values_mut() {
            tried.generation = tried.generation.min(generation);
        }
        for row in rows {
            let lane: i32 = row.try_get(0).map_err(misread)?;
            let next: i64 = row.try_get(1).map_err(misread)?;
            if let Ok(lane) = u16::try_from(lane) {
                state.rewind(lane, next);
            }
        }
        Ok(())
    }

    /// Whether an append was sent before.
    pub fn knows(&self, id: Uuid) -> bool {
        self.state().tried.contains_key(&id)
    }

    /// Where an append can be; the first time, that is from the ends of its lanes on, as they are known now. Also
    /// says whether it was sent before.
    pub fn begin(&self, job: &Job, generation: i32) -> (Tried, bool) {
        let mut state = self.state();
        if let Some(tried) = state.tried.get(&job.id()) {
            return (tried.clone(), true);
        }
        let next = |lane: &u16| (*lane, state.next.get(usize::from(*lane) - 1).copied().unwrap_or(1));
        let tried = Tried { generation, now: job.now, known: job.lanes.iter().map(next).collect() };
        if state.order.len() >= REMEMBERED
            && let Some(oldest) = state.order.pop_front()
        {
            state.tried.remove(&oldest);
        }
        state.order.push_back(job.id());
        state.tried.insert(job.id(), tried.clone());
        (tried, false)
    }

    /// Notes that an append is in no generation before this one.
    pub fn not_before(&self, id: Uuid, generation: i32) {
        if let Some(tried) = self.state().tried.get_mut(&id) {
            tried.generation = tried.generation.max(generation);
        }
    }

    /// Forgets an append that was refused: its id is free.
    pub fn forget(&self, id: Uuid) {
        let mut state = self.state();
        if state.tried.remove(&id).is_some() {
            // It is nearly always the newest.
            if let Some(at) = state.order.iter().rposition(|known| *known == id) {
                state.order.remove(at);
            }
        }
    }

    /// Notes where a lane ends now.
    pub fn grown(&self, lane: Lane, next: Seq) {
        let next = i64::try_from(next.0).unwrap_or(i64::MAX);
        if let Some(at) = self.state().next.get_mut(usize::from(lane.0) - 1) {
            *at = next.max(*at);
        }
    }

    /// Notes that a lane ends earlier than was known: the database went back to an earlier state. What was sent before
    /// can be from there on.
    pub fn rewound(&self, lane: u16, next: i64) {
        self.state().rewind(lane, next);
    }
}

impl State {
    fn rewind(&mut self, lane: u16, next: i64) {
        if let Some(at) = usize::from(lane).checked_sub(1).and_then(|n| self.next.get_mut(n)) {
            *at = next;
        }
        for tried in self.tried.values_mut() {
            for (at, known) in &mut tried.known {
                if *at == lane {
                    *known = (*known).min(next);
                }
            }
        }
    }
}
