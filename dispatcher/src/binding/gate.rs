//! An exact limit of deliveries in flight, which can change while they are.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What "no limit" means to a semaphore; far above what any machine runs at once.
const MOST: u32 = 1_000_000;

/// Slots, handed out in the order they were asked for.
#[derive(Debug)]
pub(crate) struct Gate {
    slots: Arc<Semaphore>,
    size: Mutex<u32>,
}

impl Gate {
    pub(crate) fn new(size: u32) -> Self {
        let size = size.min(MOST);
        Self { slots: Arc::new(Semaphore::new(size as usize)), size: Mutex::new(size) }
    }

    /// Changes the limit. A smaller one takes free slots away at once, and slots in use as they are given back.
    pub(crate) fn resize(&self, size: u32) {
        let size = size.min(MOST);
        let mut now = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if size > *now {
            self.slots.add_permits((size - *now) as usize);
        } else if size < *now {
            let surplus = *now - size;
            let taken = u32::try_from(self.slots.forget_permits(surplus as usize)).unwrap_or(surplus);
            let owed = surplus - taken;
            if owed > 0 {
                let slots = Arc::clone(&self.slots);
                // Waits in line like everybody else, then keeps what it got.
                tokio::spawn(async move {
                    if let Ok(permits) = slots.acquire_many_owned(owed).await {
                        permits.forget();
                    }
                });
            }
        }
        *now = size;
    }

    pub(crate) fn try_enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    /// Waits for a slot. The semaphore is never closed, so there always is one in the end.
    pub(crate) async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_is_exact_while_it_changes() {
        let gate = Gate::new(2);
        let held = [gate.try_enter().unwrap(), gate.try_enter().unwrap()];
        assert!(gate.try_enter().is_none());
        gate.resize(1);
        tokio::task::yield_now().await;
        drop(held);
        tokio::task::yield_now().await;
        let one = gate.try_enter().unwrap();
        assert!(gate.try_enter().is_none());
        gate.resize(3);
        let _more = [gate.try_enter().unwrap(), gate.try_enter().unwrap()];
        assert!(gate.try_enter().is_none());
        drop(one);
        assert!(gate.enter().await.is_some());
    }
}
