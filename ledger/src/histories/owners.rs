//! Two controllers on one ledger: they take lanes from each other, fall silent, answer late, and act at the same time.

use bellwire_schemas::Lane;

use super::checks::{in_order, unnumbered};
use super::{CONTROLLERS, LANES, Taken, World, both};
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::{Append, DeliveryKey, Flush, Ledger, ModelLedger};

/// Something that a controller does while another one does something else.
#[derive(Clone, Debug)]
enum Act {
    Append(Append),
    Flush(Flush),
    Take(Taken),
    Redrive(Vec<DeliveryKey>),
    Discard(Vec<DeliveryKey>),
    Cancel(Vec<DeliveryKey>),
}

impl Act {
    /// Does it and answers what the ledger said, as text.
    async fn on(&self, ledger: &dyn Ledger, now: i64) -> String {
        let now = at(now);
        match self {
            Self::Append(append) => format!("{:?}", ledger.append(append.clone(), now).await),
            Self::Flush(flush) => format!("{:?}", ledger.flush(flush.clone()).await),
            Self::Take(taken) => {
                format!("{:?}", ledger.acquire(CONTROLLERS[taken.by], taken.lane, now).await)
            }
            Self::Redrive(keys) => format!("{:?}", ledger.redrive(keys, now).await),
            Self::Discard(keys) => format!("{:?}", ledger.discard(keys, "no", "ana", now).await),
            Self::Cancel(keys) => format!("{:?}", ledger.cancel(keys, "no", "ana", now).await),
        }
    }

    /// What this act may also answer when `next` came after it and was told `told`. Who takes a lane gets an epoch first
    /// and learns then whether the last flush of the owner of before is done. If the same controller took the lane again
    /// in between, the epoch is out of date by the second step, and is not handed out.
    fn overtaken_by(&self, next: &Self, told: &str) -> Option<String> {
        let (Self::Take(taken), Self::Take(again)) = (self, next) else { return None };
        (taken.lane == again.lane && told.starts_with("Ok(Some(")).then(|| "Ok(None)".into())
    }
}

impl<S: Subject> World<S> {
    /// Takes every lane, each for one of the two.
    pub(super) async fn own(&mut self) {
        self.zombies.append(&mut self.owners);
        // A restart ends all members of the model, and none of a server.
        let known = beat(CONTROLLERS[1]);
        self.model.heartbeat(&known).await.unwrap();
        self.handles[1].heartbeat(&known).await.unwrap();
        for by in [0, 1] {
            self.beat(by).await;
        }
        for lane in (1..=LANES).map(Lane) {
            let by = if S::IS_SHARED { self.dice.pick(&[0, 1]) } else { 0 };
            self.ledger = self.handles[by].clone();
            let epoch = both!(self, acquire(CONTROLLERS[by], lane, at(self.now))).unwrap().unwrap();
            self.owners.push(Taken { lane, epoch, by });
        }
    }

    /// A sign of life long enough for every test.
    async fn beat(&mut self, by: usize) {
        let beat = beat(CONTROLLERS[by]);
        let model = self.model.heartbeat(&beat).await.unwrap();
        let cluster = self.handles[by].heartbeat(&beat).await.unwrap();
        if S::IS_SHARED {
            assert_eq!(model.lanes, cluster.lanes, "owners: model left, ledger right");
            let ids = |cluster: &crate::Cluster| cluster.controllers.iter().map(|m| m.id).collect::<Vec<_>>();
            assert_eq!(ids(&model), ids(&cluster), "members: model left, ledger right");
            assert_eq!(cluster.rewound, []);
        }
    }

    fn any_lane(&mut self) -> Lane {
        Lane(self.dice.roll(u64::from(LANES)) as u16 + 1)
    }

    /// One of the two wants a lane, or gives one back.
    pub(super) async fn take(&mut self) {
        let (by, lane) = (self.dice.pick(&[0, 1]), self.any_lane());
        self.beat(by).await;
        self.ledger = self.handles[by].clone();
        if self.dice.roll(5) == 0 {
            let all: Vec<_> = self.owners.iter().chain(&self.zombies).copied().collect();
            let given = self.dice.pick(&all);
            both!(self, release(given.lane, given.epoch));
        } else if let Some(Some(epoch)) = both!(self, acquire(CONTROLLERS[by], lane, at(self.now))) {
            self.owned(Taken { lane, epoch, by });
        }
        self.beat(by).await;
    }

    fn owned(&mut self, taken: Taken) {
        let place = usize::from(taken.lane.0) - 1;
        self.zombies.push(std::mem::replace(&mut self.owners[place], taken));
    }

    /// One of the two falls silent or goes. What it had is free; its flushes count until somebody takes the lane.
    pub(super) async fn expire_or_leave(&mut self) {
        let by = self.dice.pick(&[0, 1]);
        if self.dice.roll(3) == 0 {
            both!(self, leave(CONTROLLERS[by]));
        } else {
            self.subject.expire(CONTROLLERS[by]).await;
            self.model.expire(CONTROLLERS[by]);
        }
    }

    /// A controller that lost its lane flushes what it still holds.
    pub(super) async fn late_answer(&mut self) {
        let Some(zombie) = (!self.zombies.is_empty()).then(|| self.dice.pick(&self.zombies)) else { return };
        if let Some(flush) = self.new_flush(zombie).await {
            self.ledger = self.handles[zombie.by].clone();
            both!(self, flush(flush.clone()));
        }
    }

    async fn new_act(&mut self) -> Option<Act> {
        let owner = self.dice.pick(&self.owners);
        Some(match self.dice.roll(8) {
            0..3 => {
                let mut append = self.new_append().await;
                append.append_id = uuid::Uuid::now_v7();
                Act::Append(append)
            }
            3..5 => Act::Flush(self.new_flush(owner).await?),
            5 => Act::Take(Taken { by: self.dice.pick(&[0, 1]), ..owner }),
            6 if self.dice.roll(2) == 0 => Act::Cancel(self.some_ahead().await),
            6 => Act::Redrive(self.deliveries(true).await),
            _ => Act::Discard(self.deliveries(false).await),
        })
    }

    /// Both act at the same moment: the ledger answers as if one had been first.
    pub(super) async fn at_once(&mut self) {
        let (Some(one), Some(two)) = (self.new_act().await, self.new_act().await) else { return };
        for by in [0, 1] {
            self.beat(by).await;
        }
        let answers = tokio::join!(
            one.on(self.handles[0].as_ref(), self.now),
            two.on(self.handles[1].as_ref(), self.now)
        );
        let mut orders = Vec::new();
        for first in [true, false] {
            let model = self.model.fork();
            let told = if first {
                let told = one.on(&model, self.now).await;
                (told, two.on(&model, self.now).await)
            } else {
                let told = two.on(&model, self.now).await;
                (one.on(&model, self.now).await, told)
            };
            let late = if first { one.overtaken_by(&two, &told.1) } else { two.overtaken_by(&one, &told.0) };
            if let Some(late) = late {
                let told = if first { (late, told.1.clone()) } else { (told.0.clone(), late) };
                orders.push((told, model.fork()));
            }
            orders.push((told, model));
        }
        self.adopt(&one, &two, answers, orders).await;
    }

    /// Goes on with the model of the order that the ledger has taken. Where both tell the same, its state decides.
    async fn adopt(
        &mut self,
        one: &Act,
        two: &Act,
        answers: (String, String),
        orders: Vec<((String, String), ModelLedger)>,
    ) {
        let told: Vec<_> = orders.iter().map(|(told, _)| told.clone()).collect();
        let mut fitting: Vec<_> = orders.into_iter().filter(|(told, _)| *told == answers).collect();
        assert!(
            !fitting.is_empty(),
            "{one:?} and {two:?} at once answered {answers:?}, one after the other {told:?}"
        );
        let mut agrees = Vec::new();
        for (_, model) in &fitting {
            agrees.push(self.is_like(model).await);
        }
        let place = agrees.iter().position(|agrees| *agrees).unwrap_or(0);
        self.model = fitting.swap_remove(place).1;
        for lane in (1..=LANES).map(Lane) {
            let owner = self.model.owner(lane);
            let known = self.owners[usize::from(lane.0) - 1];
            if let Some((controller, epoch)) = owner.filter(|(_, epoch)| *epoch != known.epoch) {
                let by = CONTROLLERS.iter().position(|c| *c == controller).unwrap_or(0);
                self.owned(Taken { lane, epoch, by });
            }
        }
    }

    /// Whether the ledger stands as a model does, in what two orders of the same acts may differ in.
    async fn is_like(&self, model: &ModelLedger) -> bool {
        for lane in (1..=LANES).map(Lane) {
            let left = model.read(lane, bellwire_schemas::Seq(0), 10_000, usize::MAX).await.unwrap();
            if left != self.ledger.read(lane, bellwire_schemas::Seq(0), 10_000, usize::MAX).await.unwrap() {
                return false;
            }
            for event in left {
                let (left, right) =
                    (model.log(event.address, None).await, self.ledger.log(event.address, None).await);
                if in_order(left.unwrap()) != in_order(right.unwrap()) {
                    return false;
                }
            }
            for binding in model.bindings().await.unwrap() {
                let left = model.checkpoint(lane, binding.id).await.unwrap();
                if left != self.ledger.checkpoint(lane, binding.id).await.unwrap()
                    || model.debts(lane, binding.id, bellwire_schemas::Seq(0), 10_000).await.unwrap()
                        != self
                            .ledger
                            .debts(lane, binding.id, bellwire_schemas::Seq(0), 10_000)
                            .await
                            .unwrap()
                {
                    return false;
                }
            }
        }
        let (left, right) =
            (model.quarantined(None, 1_000).await, self.ledger.quarantined(None, 1_000).await);
        unnumbered(left.unwrap()) == unnumbered(right.unwrap())
            && model.totals().await.unwrap() == self.ledger.totals().await.unwrap()
    }
}
