//! The exact limit of invocations at once, across versions of a function; may be changed while it is in use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A first-come-first-served gate.
#[derive(Debug)]
pub struct Gate {
    permits: Arc<Semaphore>,
    size: Mutex<Size>,
}

#[derive(Debug)]
struct Size {
    limit: usize,
    /// Permits that are out and must not come back, because the limit shrank.
    debt: usize,
}

/// One place behind the gate; free again when dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// Opens a gate with `limit` places, at least one.
    pub fn new(limit: u32) -> Self {
        let limit = (limit as usize).clamp(1, Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(limit)), size: Mutex::new(Size { limit, debt: 0 }) }
    }

    /// Waits for a place.
    pub async fn enter(self: &Arc<Self>) -> Pass {
        let permit = self.permits.clone().acquire_owned().await.ok();
        Pass { gate: self.clone(), permit }
    }

    /// Changes the number of places. Passes that are out stay valid; fewer come back.
    pub fn resize(&self, limit: u32) {
        let limit = (limit as usize).clamp(1, Semaphore::MAX_PERMITS);
        let mut size = self.lock();
        if limit > size.limit {
            let forgiven = size.debt.min(limit - size.limit);
            size.debt -= forgiven;
            self.permits.add_permits(limit - size.limit - forgiven);
        } else {
            let taken = self.permits.forget_permits(size.limit - limit);
            size.debt += size.limit - limit - taken;
        }
        size.limit = limit;
    }

    fn lock(&self) -> MutexGuard<'_, Size> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // The permit goes back under the lock, so that no resize sees it neither in nor out.
        let mut size = self.gate.lock();
        match self.permit.take() {
            Some(permit) if size.debt > 0 => {
                size.debt -= 1;
                permit.forget();
            }
            permit => drop(permit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shrinking_takes_effect_as_passes_come_back() {
        let gate = Arc::new(Gate::new(3));
        let mut out = vec![gate.enter().await, gate.enter().await, gate.enter().await];
        gate.resize(1);
        out.pop();
        out.pop();
        assert_eq!(gate.permits.available_permits(), 0);
        out.pop();
        assert_eq!(gate.permits.available_permits(), 1);
        gate.resize(2);
        assert_eq!(gate.permits.available_permits(), 2);
    }

    #[tokio::test]
    async fn growing_forgives_what_shrinking_owed() {
        let gate = Arc::new(Gate::new(2));
        let out = (gate.enter().await, gate.enter().await);
        gate.resize(1);
        gate.resize(3);
        assert_eq!(gate.permits.available_permits(), 1);
        drop(out);
        assert_eq!(gate.permits.available_permits(), 3);
    }
}
