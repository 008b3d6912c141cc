//! What random histories ask of the model beyond the contract; see `histories/`.

use std::sync::{Arc, Mutex};

use bellwire_schemas::{Address, ControllerId, Epoch, Lane, Timestamp};

use super::{Inner, ModelLedger};
use crate::Error;
use crate::model::faults::Faults;

impl ModelLedger {
    /// Another ledger with the same in it.
    pub fn fork(&self) -> Self {
        let inner = Inner { state: self.lock().state.clone(), faults: Faults::default() };
        Self { inner: Arc::new(Mutex::new(inner)), ..*self }
    }

    /// The addresses of all events, those beside the lanes included.
    pub fn addresses(&self) -> Vec<Address> {
        let inner = self.lock();
        inner.state.events.keys().chain(inner.state.aside.keys()).copied().collect()
    }

    /// Whether an event was brought back beside its lane.
    pub fn is_aside(&self, address: Address) -> bool {
        self.lock().state.aside.contains_key(&address)
    }

    /// Whether retention may remove an event.
    pub fn may_leave(&self, address: Address, before: Timestamp) -> bool {
        let inner = self.lock();
        inner.state.event(address).is_some_and(|e| e.accepted_at < before) && !inner.state.needed(address)
    }

    /// How many duplicates came at a time or later.
    pub fn duplicates_since(&self, since: Timestamp) -> usize {
        self.lock().state.duplicates.iter().filter(|d| d.at >= since).count()
    }

    /// Who took a lane last and has not given it back.
    pub fn owner(&self, lane: Lane) -> Option<(ControllerId, Epoch)> {
        let inner = self.lock();
        let lane = inner.state.lane(lane).ok()?;
        lane.owner.map(|owner| (owner, lane.epoch))
    }

    /// Retention that has removed these events and no other.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming one that was too young or needed.
    pub fn retain_those(&self, gone: &[Address], before: Timestamp) -> Result<(), Error> {
        if let Some(kept) = gone.iter().find(|address| !self.may_leave(**address, before)) {
            return Err(Error::Corrupt(format!("retention removed {kept}, which it must keep")));
        }
        self.change(|s| {
            gone.iter().for_each(|address| s.forget(*address));
            s.prune(before);
            Ok(())
        })
    }
}
