//! Which history the server's data has, and what a handle forgets when another server took over.
//!
//! A standby that takes over may lack what was committed last. Then places, generations and the numbers of names are
//! given again for something else, so nothing that was learned before may be used after. Appends name the history that
//! they were worked out in (BW008), leases hold in the one in which they were taken; see `bellwire.history()` in
//! `migrations/postgres/0002_append.sql`. A server of an earlier history than one that was seen is not believed.

use std::sync::atomic::{AtomicI32, Ordering};

use super::{Shared, one};
use crate::Error;

/// Before the first one: less than any that a server names.
const NONE: i32 = -1;

/// The newest history seen.
pub(super) struct History {
    newest: AtomicI32,
    /// Held by whoever forgets; one is enough.
    turn: tokio::sync::Mutex<()>,
}

impl Default for History {
    fn default() -> Self {
        Self { newest: AtomicI32::new(NONE), turn: tokio::sync::Mutex::default() }
    }
}

impl History {
    /// The newest history seen; what was learned before it was set is of an earlier one.
    pub fn newest(&self) -> i32 {
        self.newest.load(Ordering::Acquire)
    }
}

impl Shared {
    /// Takes note of the history that a server named: forgets what was learned in an earlier one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is older than one that was seen, or the server that took over cannot be asked yet;
    /// then the next call does it.
    pub(super) async fn follow(&self, history: i32) -> Result<(), Error> {
        if history == self.history.newest() {
            return Ok(());
        }
        let _turn = self.history.turn.lock().await;
        let newest = self.history.newest();
        if history < newest {
            return Err(Error::Unavailable(format!(
                "the server has history {history}, and one with history {newest} took over from it: stop the older server"
            )));
        }
        if history == newest {
            return Ok(());
        }
        // Connections kept may lead to the server of before.
        self.pool.renew();
        self.flushes.renew();
        self.slots.pool.renew();
        let found: i32 = one(&self.pool.ask(&self.sql("select bellwire.history()"), &[]).await?, 0)?;
        if found != history {
            return Err(Error::Unavailable(format!("not every connection leads to history {history} yet")));
        }
        self.names.forget();
        self.reading.forget();
        self.refresh_generation().await?;
        self.load_ranges().await?;
        self.appenders.rewind(self).await?;
        if newest != NONE {
            tracing::warn!(
                before = newest,
                now = history,
                "another server took over from the database's: lanes are taken anew, and what was not flushed is delivered \
                 again; events that it lacked are gone"
            );
        }
        self.history.newest.store(history, Ordering::Release);
        Ok(())
    }
}
