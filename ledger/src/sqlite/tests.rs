//! The contract, kept by SQLite, and what is SQLite's own: locks, schemas, limits.

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;

use super::*;
use crate::Ledger;
use crate::conformance::Subject;

/// A ledger in a folder that goes with it.
pub(super) struct OnDisk {
    folder: TempDir,
    pub ledger: SqliteLedger,
    options: SqliteOptions,
}

impl OnDisk {
    pub fn with(options: SqliteOptions) -> Self {
        let folder = TempDir::new().unwrap();
        let ledger = SqliteLedger::open(&folder.path().join("ledger.db"), options).unwrap();
        Self { folder, ledger, options }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ledger.db")
    }
}

#[async_trait]
impl Subject for OnDisk {
    async fn new(lanes: u16) -> Self {
        Self::with(SqliteOptions { lanes, ..SqliteOptions::default() })
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::new(self.ledger.clone())
    }

    async fn reopen(&mut self) {
        self.ledger.close().await;
        self.ledger = SqliteLedger::open(&self.path(), self.options).unwrap();
    }
}

crate::conformance::suite!(OnDisk);
