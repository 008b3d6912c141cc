//! A connection that is being opened, whoever waits for it.
//!
//! The intake drops a pending `receive` every few seconds to look around. An opening that ended with it would begin
//! anew each time: a broker that answers slowly would never be reached, and one that never answers would never be
//! complained of.

use tokio::task::JoinHandle;

/// An attempt to open something, in the background; dropping this ends the attempt.
#[derive(Debug)]
pub(crate) struct Opening<T>(Option<JoinHandle<T>>);

impl<T> Default for Opening<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> Opening<T> {
    /// Waits for the attempt that is under way, or begins one. Cancel-safe.
    ///
    /// # Errors
    /// When the attempt breaks down.
    pub(crate) async fn wait<F>(&mut self, begin: impl FnOnce() -> F) -> Result<T, String>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let task = self.0.get_or_insert_with(|| tokio::spawn(begin()));
        let ended = task.await;
        self.0 = None;
        ended.map_err(|error| format!("connecting broke down: {error}"))
    }
}

impl<T> Drop for Opening<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_attempt_outlives_those_who_wait_for_it() {
        let mut opening = Opening::default();
        let slow = |answer: u8| async move {
            tokio::time::sleep(Duration::from_secs(9)).await;
            answer
        };
        let soon = Duration::from_secs(4);
        assert!(tokio::time::timeout(soon, opening.wait(|| slow(1))).await.is_err());
        assert!(tokio::time::timeout(soon, opening.wait(|| slow(2))).await.is_err());
        assert_eq!(tokio::time::timeout(soon, opening.wait(|| slow(3))).await, Ok(Ok(1)));
        assert_eq!(opening.wait(|| slow(4)).await, Ok(4), "then another one begins");
        assert!(opening.wait(|| async { panic!("a test said so") }).await.is_err());
    }
}
