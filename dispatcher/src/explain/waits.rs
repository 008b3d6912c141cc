//! What holds back a delivery that is due and that nobody paused: worked out from the boards of the runners, the gates,
//! the rate and the condition of the function. Of several causes it names the one that lets go last, as far as that can
//! be known.

use std::sync::Arc;

use bellwire_ledger::BindingRecord;
use bellwire_schemas::{Address, Span, Timestamp};

use crate::binding::{Binding, Face, Full, Hold, Plan};
use crate::handle::Handle;
use crate::runner::line_of;

/// A delivery that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) handle: &'a Handle,
    pub(super) record: &'a BindingRecord,
    pub(super) address: Address,
    pub(super) key: Option<&'a str>,
    pub(super) now: Timestamp,
}

/// Nothing holds it back but those before it.
pub(super) const IN_TURN: &str = "in-turn";

/// What it waits for.
#[derive(Clone, Debug, Default)]
pub(super) struct Cause {
    pub(super) reason: &'static str,
    pub(super) detail: Option<String>,
    /// Since when it holds back whatever comes, where that is known.
    pub(super) since: Option<Timestamp>,
    /// When it lets go, or is asked again.
    pub(super) until: Option<Timestamp>,
    pub(super) waits_for: Option<String>,
    pub(super) behind: Option<Address>,
}

impl Place<'_> {
    /// What holds it back now. `None`: the binding is not known here.
    pub(super) fn cause(&self) -> Option<Cause> {
        self.elsewhere().or_else(|| self.condition()).or_else(|| self.turn())
    }

    /// The lane is not delivered here.
    pub(super) fn elsewhere(&self) -> Option<Cause> {
        let lane = self.address.lane;
        if self.handle.epochs.get(&lane).is_some_and(|epoch| epoch.borrow().is_some()) {
            return None;
        }
        let cluster = self.handle.cluster();
        let owner = cluster.lanes.iter().find(|seen| seen.lane == lane).and_then(|seen| seen.owner);
        let Some(owner) = owner.filter(|owner| *owner != cluster.me) else {
            return Some(Cause {
                reason: "lane-unowned",
                detail: Some(format!("no controller has lane {lane} at the moment")),
                waits_for: Some(format!("lane {lane}")),
                ..Cause::default()
            });
        };
        let name = cluster.controllers.iter().find(|member| member.id == owner).map(|m| m.name.as_str());
        let name = name.filter(|name| !name.is_empty()).map_or_else(|| owner.0.to_string(), str::to_owned);
        Some(Cause {
            reason: "other-controller",
            detail: Some(format!("controller {name} delivers lane {lane}: it knows what this waits for")),
            waits_for: Some(format!("controller {name}")),
            ..Cause::default()
        })
    }

    /// The whole binding stands still.
    pub(super) fn condition(&self) -> Option<Cause> {
        let live = self.handle.binding_live(self.record.id)?;
        let reason = live.reason.filter(|_| matches!(live.state, "waiting" | "stalled"))?;
        let waits_for = match reason {
            // These hold back the reader alone.
            "cursor-span" | "parked-limit"
                if self.address.seq <= self.face(self.binding()?.as_ref()).read =>
            {
                return None;
            }
            "ledger-unavailable" => "ledger".to_owned(),
            "cursor-span" | "parked-limit" | "no-progress" => self.record.name.to_string(),
            _ => self.record.function.to_string(),
        };
        Some(Cause {
            reason,
            detail: live.detail,
            since: live.open_since,
            until: live.next_probe_at,
            waits_for: Some(waits_for),
            behind: None,
        })
    }

    /// The binding goes on, and this delivery has not had its turn.
    fn turn(&self) -> Option<Cause> {
        let binding = self.binding()?;
        let (plan, face) = (binding.plan(), self.face(&binding));
        let rated = self.rated(&binding, &plan, &face);
        if let Some(other) = self.key_in_flight(&plan, &face) {
            let ends_at = plan.target.timeout().map(|most| self.now.plus(most));
            if rated.is_none_or(|at| ends_at.is_none_or(|ends_at| at <= ends_at)) {
                return Some(Cause {
                    reason: "key-in-flight",
                    detail: Some(format!("{other} of the same key runs")),
                    waits_for: self.key.map(|key| format!("key {key}")),
                    behind: Some(other),
                    ..Cause::default()
                });
            }
        }
        Some(match (face.hold, rated) {
            (Some(Hold::Unflushed), _) => self.unflushed(&face),
            (Some(Hold::Slots), _) => self.slots(&binding, &plan),
            (Some(Hold::Function), _) => self.ramp(&plan),
            (Some(Hold::Window(over)), rated) if rated.is_none_or(|at| at <= over) => {
                self.window(&plan, over)
            }
            (_, Some(at)) => self.rate(&plan, at),
            (_, None) => self.in_turn(&face),
        })
    }

    /// When the rate allows another, where it allows none now.
    fn rated(&self, binding: &Binding, plan: &Plan, face: &Face) -> Option<Timestamp> {
        let rate = plan.spec.rate?;
        let noted = match face.hold {
            Some(Hold::Rate(at)) => Some(at),
            _ => None,
        };
        let asked = binding.meter.peek(rate, binding.share(), plan.spec.batch.size as usize, self.now);
        asked.err().or(noted)
    }

    /// Another delivery of its key that runs, where those of a key wait for each other.
    fn key_in_flight(&self, plan: &Plan, face: &Face) -> Option<Address> {
        let (lane, seq) = (self.address.lane, self.address.seq);
        let line = line_of(self.key, seq);
        let others = face.running.iter().filter(|(other, of)| **of == line && **other != seq);
        others
            .map(|(other, _)| Address::new(lane, *other))
            .next()
            .filter(|_| plan.is_ordered() || plan.spec.singleton.is_some())
    }

    fn rate(&self, plan: &Plan, at: Timestamp) -> Cause {
        let rate = plan.spec.rate.map(|rate| rate.to_string()).unwrap_or_default();
        Cause {
            reason: "rate",
            detail: Some(format!("limited by rate {rate}, the next one may start at {at}")),
            waits_for: Some(self.record.name.to_string()),
            ..Cause::default()
        }
    }

    fn window(&self, plan: &Plan, over: Timestamp) -> Cause {
        let batch = plan.spec.batch;
        let whole = format!("a batch of {} that is not full waits {}", batch.size, Span(batch.window));
        Cause {
            reason: "batch-window",
            detail: Some(whole),
            until: Some(over),
            waits_for: Some(self.record.name.to_string()),
            ..Cause::default()
        }
    }

    fn slots(&self, binding: &Binding, plan: &Plan) -> Cause {
        let (name, function) = (&self.record.name, &self.record.function);
        let full = binding.gate.full().map(|full| (full, format!("binding {name}")));
        let full = full.or_else(|| Some((plan.target.gate.full()?, format!("function {function}"))));
        let detail = match full {
            Some((Full { size: 0, most }, of)) => {
                format!("other controllers have the slots of {of}, {most} in all")
            }
            Some((Full { size, most }, of)) if size < most => {
                format!("the {size} of {most} slots of {of} that this controller has are taken")
            }
            Some((Full { most: 1, .. }, of)) => format!("the only slot of {of} is taken"),
            Some((Full { most, .. }, of)) => format!("all {most} slots of {of} are taken"),
            None => format!("it stands in line for a slot of function {function}"),
        };
        self.concurrency(detail)
    }

    /// The function has just come back, or somebody else asks whether it has.
    fn ramp(&self, plan: &Plan) -> Cause {
        let function = &self.record.function;
        self.concurrency(match plan.target.limit() {
            Some(most) => {
                format!("function {function} comes back: {most} at once until it has answered more")
            }
            None => format!("it stands in line for a slot of function {function}"),
        })
    }

    fn concurrency(&self, detail: String) -> Cause {
        let waits_for = Some(self.record.function.to_string());
        Cause { reason: "concurrency", detail: Some(detail), waits_for, ..Cause::default() }
    }

    fn unflushed(&self, face: &Face) -> Cause {
        let many = face.unflushed;
        Cause {
            reason: "backpressure",
            detail: Some(format!(
                "{many} outcomes wait for the ledger, and nothing starts before it has them"
            )),
            waits_for: Some("ledger".into()),
            ..Cause::default()
        }
    }

    fn in_turn(&self, face: &Face) -> Cause {
        let before = self.address.seq.0.saturating_sub(face.read.0);
        let detail = match before {
            0 | 1 => "nothing holds it back: its turn comes now".into(),
            _ => format!("{} events of its lane are read before it", before - 1),
        };
        let waits_for = Some(self.record.function.to_string());
        Cause { reason: IN_TURN, detail: Some(detail), waits_for, ..Cause::default() }
    }

    fn binding(&self) -> Option<Arc<Binding>> {
        self.handle.binding(self.record.id)
    }

    fn face(&self, binding: &Binding) -> Face {
        let mine = binding.boards().into_iter().find(|(lane, _)| *lane == self.address.lane);
        mine.map(|(_, board)| board.face()).unwrap_or_default()
    }
}
