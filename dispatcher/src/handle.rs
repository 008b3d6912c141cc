//! What the controller holds: starts the lanes, puts configurations in force, asks how things stand, ends it all.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwire_ledger::{BindingRecord, BindingRevision, DeliveryKey, Pause, ReplayRecord, ReplayState};
use bellwire_patterns::{PatternError, PatternSet};
use bellwire_schemas::live::Fact;
use bellwire_schemas::service::{BindingSpec, Format, FunctionSpec, Target as FunctionTarget};
use bellwire_schemas::{BindingId, BindingName, Epoch, FunctionName, Lane, ReplayId, Seq, SourceName};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::binding::{Binding, Form, Past, Plan, Target};
use crate::decide::Policy;
use crate::lane::{Roster, Stop};
use crate::lease::{Fence, Keeper, Lead, View, follow_changes, follow_tails};
use crate::replay::Replayer;
use crate::rooms::Rooms;
use crate::shape::Receiver;
use crate::slots::Slots;

/// How long the last flush may take after the grace of a shutdown is over.
const LAST_FLUSH: Duration = Duration::from_secs(5);

/// All functions that were ever defined or bound.
pub(crate) type Targets = Arc<Mutex<BTreeMap<FunctionName, Arc<Target>>>>;

/// What is in force: bindings as declared and as the ledger numbered them, functions, kinds of sources.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// Each binding with the record that `Ledger::declare_bindings` returned for it.
    pub bindings: Vec<(BindingSpec, BindingRecord)>,
    /// The functions by name.
    pub functions: BTreeMap<FunctionName, FunctionSpec>,
    /// The kind word of each source: `s3`, `kafka`, `topic`, `outbox` and so on.
    pub kinds: BTreeMap<SourceName, &'static str>,
}

/// A configuration that cannot be put in force; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A filter is no pattern.
    #[error("filter of binding `{binding}`: {error}")]
    Filter {
        /// The binding.
        binding: BindingName,
        /// What is wrong.
        error: PatternError,
    },
}

/// A running dispatcher. Dropping it without [`Handle::shutdown`] ends everything at once, as a crash would.
pub struct Handle {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) targets: Targets,
    pub(crate) slots: Arc<Slots>,
    pub(crate) epochs: BTreeMap<Lane, watch::Receiver<Option<Epoch>>>,
    pub(crate) fence: Arc<Fence>,
    pub(crate) view: watch::Receiver<View>,
    replayer: Arc<Replayer>,
    stop: watch::Sender<Stop>,
    tasks: Mutex<JoinSet<()>>,
    recovered: Mutex<Option<u64>>,
}

impl Handle {
    /// Takes its share of the lanes. Nothing is delivered before the first [`Handle::apply`].
    pub fn start(rooms: Rooms) -> Self {
        let rooms = Arc::new(rooms);
        let roster = Arc::new(Roster::default());
        let stop = watch::Sender::new(Stop::Run);
        let (lanes, is_shared) = (rooms.ledger().lanes(), rooms.ledger().is_shared());
        let fence = Arc::new(Fence::new(lanes, is_shared));
        let (told, view) = watch::channel(View::default());
        let senders: BTreeMap<_, _> = (1..=lanes).map(|n| (Lane(n), watch::Sender::new(None))).collect();
        let epochs: BTreeMap<_, _> = senders.iter().map(|(lane, epoch)| (*lane, epoch.subscribe())).collect();
        let lead = Lead { fence: Arc::clone(&fence), epoch: lead(&epochs) };
        let replayer = Arc::new(Replayer::new(Arc::clone(&rooms), Arc::clone(&roster), lead));
        let mut tasks = JoinSet::new();
        let (ours, theirs) = (Arc::clone(&rooms), Arc::clone(&roster));
        let targets = Targets::default();
        let slots = Arc::new(Slots::new(Arc::clone(&rooms), Arc::clone(&roster), Arc::clone(&targets)));
        let trust = (Arc::clone(&fence), Arc::clone(&slots));
        tasks.spawn(Keeper::new(ours, theirs, trust, stop.subscribe(), told, senders).run());
        tasks.spawn(Arc::clone(&replayer).run(stop.subscribe()));
        if is_shared {
            tasks.spawn(Arc::clone(&slots).run(view.clone(), stop.subscribe()));
            epochs.keys().for_each(|lane| rooms.feed.forget(*lane));
            tasks.spawn(follow_tails(Arc::clone(&rooms), epochs.clone(), view.clone(), stop.subscribe()));
            let (ours, theirs, replays) = (Arc::clone(&rooms), Arc::clone(&roster), Arc::clone(&replayer));
            tasks.spawn(follow_changes(ours, theirs, replays, view.clone(), stop.subscribe()));
        }
        let (tasks, recovered) = (Mutex::new(tasks), Mutex::default());
        Self { slots, rooms, roster, targets, epochs, fence, view, replayer, stop, tasks, recovered }
    }

    /// Puts a configuration in force. Bindings that did not change go on undisturbed; those that did take their new
    /// filter for events accepted after the change, and their new policy and function for every delivery that has not
    /// started; those that are gone finish what is in
    /// flight and keep their position. A changed function is tried again at once.
    ///
    /// # Errors
    /// [`ApplyError`]; then everything stays as it was.
    pub async fn apply(&self, configuration: Configuration) -> Result<(), ApplyError> {
        let filters = filters(&configuration)?;
        self.recover(&configuration).await;
        let known = self.roster.all();
        let Configuration { bindings, functions, kinds } = configuration;
        let functions: BTreeMap<_, _> = functions.into_iter().map(|(name, f)| (name, Arc::new(f))).collect();
        let targets = self.define(&functions, &bindings);
        let mut roster = BTreeMap::new();
        for ((spec, record), filter) in bindings.into_iter().zip(filters) {
            let past = Arc::new(self.past(&record).await);
            let Some(target) = targets.get(&spec.function) else { continue };
            let form = form(&spec, &record, functions.get(&spec.function).map(AsRef::as_ref), &kinds);
            let policy = Policy::of(&spec);
            let plan = Plan {
                policy: if form.outlet { policy.for_destination() } else { policy },
                filter: Arc::new(filter),
                past,
                target: Arc::clone(target),
                form,
                pause: record.paused.clone(),
                active: true,
                spec,
                record,
            };
            let binding = match known.get(&plan.record.id) {
                Some(binding) => {
                    binding.replace(plan);
                    Arc::clone(binding)
                }
                None => Arc::new(Binding::new(plan, self.rooms.ledger().lanes(), self.slots.hungry())),
            };
            roster.insert(binding.id, binding);
        }
        for (id, binding) in known {
            if let Entry::Vacant(gone) = roster.entry(id) {
                binding.replace(Plan { active: false, ..Plan::clone(&binding.plan()) });
                gone.insert(binding);
            }
        }
        self.roster.replace(roster);
        Ok(())
    }

    /// How many deliveries the ledger owed when the first configuration was put in force.
    pub fn recovered(&self) -> Option<u64> {
        *lock(&self.recovered)
    }

    /// Pauses or resumes a binding; the caller has told the ledger.
    pub fn set_paused(&self, name: &BindingName, pause: Option<Pause>) {
        if let Some(binding) = self.binding_named(name) {
            binding.set_pause(pause);
        }
    }

    /// Tells that debts or replays in the ledger changed: after a redrive, a discard, a new replay.
    pub fn poke(&self) {
        self.replayer.wake();
        for binding in self.roster.all().values() {
            binding.poke();
        }
    }

    /// Breaks off what runs of deliveries that were cancelled in the ledger; a repeat does no harm.
    pub fn cancel(&self, deliveries: &[DeliveryKey]) {
        for delivery in deliveries {
            if let Some(binding) = self.binding(delivery.binding) {
                binding.give_up(delivery.address);
            }
        }
        self.poke();
    }

    /// Ends the wait of a function, after its code was mended: the next delivery tries it.
    pub fn retry_function(&self, name: &FunctionName) {
        if let Some(target) = lock(&self.targets).get(name) {
            target.retry_now();
        }
    }

    /// Pauses, resumes or cancels a replay. Unlike a direct write, it cannot cross a step of the replay. What a
    /// cancelled replay has put into the debts (at most 1,000) is still delivered.
    ///
    /// # Errors
    /// When the ledger refuses. `Ok(None)`: no such replay, or it has ended.
    pub async fn change_replay(
        &self,
        id: &ReplayId,
        state: ReplayState,
    ) -> Result<Option<ReplayRecord>, bellwire_ledger::Error> {
        self.replayer.change(id, state).await
    }

    /// Ends: takes nothing on, lets attempts end within `grace`, gives the others up, flushes, releases the lanes.
    /// Attempts that were given up are repeated after the next start.
    pub async fn shutdown(&self, grace: Duration) {
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        self.stop.send_replace(Stop::Drain);
        if tokio::time::timeout(grace, join(&mut tasks)).await.is_ok() {
            return;
        }
        tracing::warn!("attempts still run after the grace: giving them up");
        self.stop.send_replace(Stop::Now);
        if tokio::time::timeout(LAST_FLUSH, join(&mut tasks)).await.is_err() {
            tracing::error!("the last flush did not commit: its deliveries will be repeated");
        }
    }

    /// Whether this controller does what must be done once in the whole cluster: retention, and the steps of replays.
    pub fn leads(&self) -> bool {
        Lead { fence: Arc::clone(&self.fence), epoch: lead(&self.epochs) }.is_ours()
    }

    /// Earlier revisions of a binding that read the same source: what lies before a change is judged as it was then.
    async fn past(&self, record: &BindingRecord) -> Vec<Past> {
        if record.revision <= 1 {
            return Vec::new();
        }
        let revisions = match self.rooms.ledger().revisions(record.id).await {
            Ok(revisions) => revisions,
            Err(error) => {
                tracing::warn!(binding = %record.name, %error, "cannot read earlier revisions");
                return Vec::new();
            }
        };
        let next = revisions.iter().skip(1).map(|next| next.since.clone());
        let same = |(revision, until): (&BindingRevision, BTreeMap<Lane, Seq>)| {
            let filter = PatternSet::from_value(&Value::Array(revision.filter.clone())).ok()?;
            let is_same = revision.source == record.source;
            is_same.then_some(Past { revision: revision.revision, filter, until })
        };
        revisions.iter().zip(next).filter_map(same).collect()
    }

    pub(crate) fn binding(&self, id: BindingId) -> Option<Arc<Binding>> {
        self.roster.all().get(&id).cloned()
    }

    fn binding_named(&self, name: &BindingName) -> Option<Arc<Binding>> {
        self.roster.all().into_values().find(|binding| binding.name == *name)
    }

    /// Makes a target for every function that is defined or bound; an undefined one waits.
    fn define(
        &self,
        functions: &BTreeMap<FunctionName, Arc<FunctionSpec>>,
        bindings: &[(BindingSpec, BindingRecord)],
    ) -> BTreeMap<FunctionName, Arc<Target>> {
        let mut targets = lock(&self.targets);
        let bound = bindings.iter().map(|(spec, _)| &spec.function);
        for name in functions.keys().chain(bound) {
            targets.entry(name.clone()).or_insert_with(|| {
                let (clock, live) = (self.rooms.clock.clone(), self.rooms.live.clone());
                Arc::new(Target::new(name.clone(), clock, live, self.slots.hungry()))
            });
        }
        for (name, target) in targets.iter() {
            target.define(functions.get(name).cloned());
        }
        targets.clone()
    }

    /// Counts, once, what a former run left owed, and says so.
    async fn recover(&self, configuration: &Configuration) {
        if lock(&self.recovered).is_some() {
            return;
        }
        let totals = match self.rooms.ledger().totals().await {
            Ok(totals) => totals,
            Err(error) => {
                tracing::warn!(%error, "cannot count what is owed");
                return;
            }
        };
        let ours = configuration.bindings.iter().filter_map(|(_, record)| totals.get(&record.id));
        let owed = ours.map(|t| t.waiting + t.retrying).sum::<u64>();
        *lock(&self.recovered) = Some(owed);
        if owed > 0 {
            let detail = format!("recovered: {owed} owed deliveries, 0 lost");
            tracing::info!(owed, "recovered owed deliveries");
            let (at, subject) = (self.rooms.clock.now(), "dispatcher".to_owned());
            let _ = self.rooms.live.send(Fact::Condition { at, subject, state: "recovered".into(), detail });
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("rooms", &self.rooms).finish_non_exhaustive()
    }
}

fn filters(configuration: &Configuration) -> Result<Vec<PatternSet>, ApplyError> {
    let compile = |(spec, record): &(BindingSpec, BindingRecord)| {
        PatternSet::from_value(&Value::Array(spec.filter.clone()))
            .map_err(|error| ApplyError::Filter { binding: record.name.clone(), error })
    };
    configuration.bindings.iter().map(compile).collect()
}

fn form(
    spec: &BindingSpec,
    record: &BindingRecord,
    function: Option<&FunctionSpec>,
    kinds: &BTreeMap<SourceName, &'static str>,
) -> Form {
    let receiver = function.map_or(Receiver::Worker, |f| Receiver::of(&f.target));
    Form {
        kind: kinds.get(&record.source).map(|kind| (*kind).to_owned()),
        format: function.map_or(Format::Lambda, |f| f.format),
        receiver,
        input: spec.input.clone(),
        outlet: function.is_some_and(|f| matches!(f.target, FunctionTarget::Destination(_))),
    }
}

impl Receiver {
    /// Who receives the events of a function.
    pub const fn of(target: &FunctionTarget) -> Self {
        match target {
            FunctionTarget::Url(_) | FunctionTarget::Destination(_) => Self::Endpoint,
            FunctionTarget::Python { .. } | FunctionTarget::Node { .. } | FunctionTarget::Command(_) => {
                Self::Worker
            }
        }
    }
}

/// The epoch of the first lane, whose owner leads.
fn lead(epochs: &BTreeMap<Lane, watch::Receiver<Option<Epoch>>>) -> watch::Receiver<Option<Epoch>> {
    epochs.get(&Lane(1)).cloned().unwrap_or_else(|| watch::channel(None).1)
}

async fn join(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
