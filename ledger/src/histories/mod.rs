//! Random histories: whatever happens, a ledger answers as the model does.
//!
//! Steps are drawn as (verb, seed); what a step does is worked out from the model's state, so that flushes are such as
//! a dispatcher would send, and a history shrinks by leaving steps out. A ledger that several controllers share is used
//! through two handles, by two controllers that take lanes from each other; see `owners.rs`.
//!
//! Read this file first, then `steps.rs`.

mod checks;
mod operators;
mod owners;
mod steps;
mod wrong;

use std::fmt::Debug;
use std::sync::Arc;

use bellwire_schemas::{ControllerId, Epoch, Lane};
use uuid::Uuid;

use crate::conformance::Subject;
use crate::{Error, Ledger, ModelLedger};

use wrong::told;

pub(crate) use wrong::Wrong;

/// Lanes of every ledger here.
const LANES: u16 = 2;
const SOURCES: [&str; 3] = ["orders", "prices", "hooks"];
const NAMES: [&str; 3] = ["a:orders", "b:orders", "c:prices"];
const CONTROLLERS: [ControllerId; 2] = [ControllerId(Uuid::from_u128(7)), ControllerId(Uuid::from_u128(8))];

/// Verbs that every ledger has.
pub(crate) const VERBS: u8 = 22;
/// Those and what only several controllers do.
pub(crate) const SHARED_VERBS: u8 = 34;

/// A stream of small numbers (splitmix64).
pub(crate) struct Dice(pub u64);

impl Dice {
    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize].clone()
    }

    /// A history of this length, which begins with bindings and events.
    pub fn history(&mut self, steps: usize, verbs: u8) -> Vec<(u8, u64)> {
        let verb =
            |dice: &mut Self, step| [6, 0, 1].get(step).copied().unwrap_or(dice.roll(u64::from(verbs)) as u8);
        (0..steps).map(|step| (verb(self, step), self.roll(u64::MAX))).collect()
    }
}

/// A lane as somebody took it: with which epoch, through which handle.
#[derive(Clone, Copy, Debug)]
struct Taken {
    lane: Lane,
    epoch: Epoch,
    by: usize,
}

/// The model and the ledger under test, side by side.
struct World<S: Subject> {
    model: ModelLedger,
    subject: S,
    /// Two handles; the same one twice where a ledger has one only.
    handles: [Arc<dyn Ledger>; 2],
    /// The one that this step uses.
    ledger: Arc<dyn Ledger>,
    dice: Dice,
    now: i64,
    /// Duplicates before this were removed from the model, but a ledger may keep them for a while.
    floor: i64,
    /// The newest owner of each lane, whether or not it still is.
    owners: Vec<Taken>,
    /// All of before.
    zombies: Vec<Taken>,
}

fn same<T: PartialEq + Debug>(what: &str, model: Result<T, Error>, ledger: Result<T, Error>) -> Option<T> {
    match (model, ledger) {
        (Ok(m), Ok(l)) => {
            assert_eq!(m, l, "{what}: model left, ledger right");
            Some(m)
        }
        (m, l) => {
            assert_eq!(
                format!("{:?}", m.err()),
                format!("{:?}", l.err()),
                "{what}: model left, ledger right"
            );
            None
        }
    }
}

/// Asks both and insists on one answer.
macro_rules! both {
    ($world:expr, $verb:ident($($arg:expr),*)) => {
        $crate::histories::same(
            stringify!($verb),
            $world.model.$verb($($arg),*).await,
            $world.ledger.$verb($($arg),*).await,
        )
    };
}
use both;

impl<S: Subject> World<S> {
    async fn new() -> Self {
        let subject = S::new(LANES).await;
        let model = if S::IN_UNITS { ModelLedger::in_units(LANES) } else { ModelLedger::new(LANES) };
        let first = subject.ledger();
        let handles = [first.clone(), subject.beside().await.unwrap_or_else(|| first.clone())];
        let mut world = Self {
            model,
            subject,
            handles,
            ledger: first,
            dice: Dice(0),
            now: 0,
            floor: 0,
            owners: Vec::new(),
            zombies: Vec::new(),
        };
        world.own().await;
        world
    }

    async fn step(&mut self, verb: u8, seed: u64) {
        self.dice = Dice(seed);
        self.now += self.dice.roll(4) as i64;
        let handle = self.dice.pick(&[0, 1]);
        self.ledger = self.handles[handle].clone();
        match verb {
            0..6 => self.append().await,
            6..8 => self.declare().await,
            8..14 => self.flush().await,
            14..16 => self.redrive_or_discard().await,
            16..18 => self.replay().await,
            18 => self.retain().await,
            19 => self.pause_or_refuse().await,
            20 => self.reopen().await,
            21 => self.stale_flush().await,
            22..25 => self.take().await,
            25 => self.expire_or_leave().await,
            26 => self.subject.turn().await,
            27 => self.late_answer().await,
            _ => self.at_once().await,
        }
        self.check_totals().await;
    }
}

/// Runs a history on a new ledger; returns the subject, closed, for whoever wants to look into its files.
///
/// # Errors
/// What the first assertion said that did not hold, and at which step.
pub(crate) async fn run<S: Subject>(steps: &[(u8, u64)]) -> Result<S, String> {
    let mut world = told(World::<S>::new()).await.map_err(|words| format!("before all steps {words}"))?;
    for (n, (verb, seed)) in (1..).zip(steps) {
        let of = steps.len();
        told(world.step(*verb, *seed))
            .await
            .map_err(|words| format!("step {n} of {of}, verb {verb} {words}"))?;
    }
    let ending = async {
        world.check_all().await;
        world.reopen().await;
        world.check_all().await;
        for handle in &world.handles {
            handle.close().await;
        }
    };
    told(ending).await.map_err(|words| format!("after all {} steps {words}", steps.len()))?;
    Ok(world.subject)
}
