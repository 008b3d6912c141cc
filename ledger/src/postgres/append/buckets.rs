//! The dedup buckets that can hold a hash whose window is not over.

use std::sync::{Arc, RwLock};

use crate::Error;
use crate::postgres::Shared;
use crate::postgres::fault::misread;

/// The buckets as last seen, the newest last. The function that appends refuses to work with an old list (BW003);
/// one that names a bucket dropped since does no harm.
#[derive(Default)]
pub(super) struct Buckets(RwLock<Arc<[i32]>>);

impl Buckets {
    /// The buckets as last seen.
    pub fn live(&self) -> Arc<[i32]> {
        self.0.read().expect("no code panics while it holds this lock").clone()
    }

    /// Asks for the buckets.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn load(&self, shared: &Shared) -> Result<(), Error> {
        let sql = shared.sql("select bucket from bellwire.dedup_bucket order by bucket");
        let rows = shared.pool.ask(&sql, &[]).await?;
        let buckets: Result<Vec<i32>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        *self.0.write().expect("no code panics while it holds this lock") = buckets.map_err(misread)?.into();
        Ok(())
    }
}
