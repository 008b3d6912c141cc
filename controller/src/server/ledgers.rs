//! The ledger that the settings name: a file, or a database that several controllers share.
//!
//! The only place that knows which kinds there are. What it says about a database never holds its password.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bellwire_ledger::sqlite::{self, SchemaStatus, SqliteLedger, SqliteOptions};
use bellwire_ledger::{Error as LedgerError, Ledger, PostgresLedger, PostgresOptions, postgres};
use bellwire_schemas::LedgerUrl;
use bellwire_schemas::service::LedgerSpec;

/// Ends with the reason when the ledger's own disk failed; never for a database, whose failures pass.
pub type Failed = Pin<Box<dyn Future<Output = String> + Send>>;

/// A generation is open for this share of the retention at most: events stay that much longer than asked, and there are
/// some twenty generations at a time.
const GENERATIONS: u32 = 20;
/// The shortest life of a generation; each is six tables to make and to drop.
const SHORTEST_GENERATION: Duration = Duration::from_secs(60);

/// Opens the ledger of a controller. A database that does not answer is an error at once: what is wrong at the start is
/// seldom mended by waiting.
///
/// # Errors
/// When it is locked, cannot be reached, is newer than this program, or is no ledger.
pub async fn open(spec: &LedgerSpec) -> anyhow::Result<(Arc<dyn Ledger>, Failed)> {
    let max_bytes = spec.max_size.map(|size| size.0);
    if spec.url.is_postgres() {
        let generation_age = (spec.retention / GENERATIONS).max(SHORTEST_GENERATION);
        let options =
            PostgresOptions { lanes: spec.lanes, max_bytes, generation_age, ..PostgresOptions::default() };
        let opened = PostgresLedger::open(spec.url.expose(), options).await;
        let ledger = opened.with_context(|| format!("open the ledger {}", spec.url))?;
        return Ok((Arc::new(ledger), Box::pin(pending())));
    }
    let path = file(&spec.url)?;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("make the folder {}", parent.display()))?;
    }
    let options = SqliteOptions { lanes: spec.lanes, max_bytes };
    let ledger = tokio::task::spawn_blocking(move || SqliteLedger::open(&path, options)).await??;
    let failed = Box::pin(ledger.failed());
    Ok((Arc::new(ledger), failed))
}

/// Opens a ledger for reading, beside its controllers or after them.
///
/// # Errors
/// When there is none, or it cannot be read.
pub async fn open_read_only(url: &LedgerUrl) -> anyhow::Result<Arc<dyn Ledger>> {
    if url.is_postgres() {
        let schema = PostgresOptions::default().schema;
        let opened = PostgresLedger::open_read_only(url.expose(), &schema).await;
        return Ok(Arc::new(opened.with_context(|| format!("read the ledger {url}"))?));
    }
    let path = file(url)?;
    anyhow::ensure!(Path::new(&path).is_file(), "there is no ledger at {}", path.display());
    Ok(Arc::new(tokio::task::spawn_blocking(move || SqliteLedger::open_read_only(&path)).await??))
}

/// Removes a ledger in a file, with its companions.
///
/// # Errors
/// When a file cannot be removed, or the ledger is a database: others may use it.
pub fn reset(url: &LedgerUrl) -> anyhow::Result<()> {
    if url.is_postgres() {
        bail!(
            "`--reset` empties a ledger in a file; {url} may be shared by others: to empty it, end all its controllers and \
             drop its schema, such as with `psql -c 'drop schema bellwire cascade'`"
        );
    }
    let path = file(url)?;
    for end in ["", "-wal", "-shm"] {
        let file = PathBuf::from(format!("{}{end}", path.display()));
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Brings the tables to what this program writes; says what they were before.
///
/// # Errors
/// When they are newer, or the ledger cannot be reached.
pub async fn migrate(url: &LedgerUrl) -> Result<SchemaStatus, LedgerError> {
    match url.sqlite_path() {
        Some(path) => sqlite::migrate(Path::new(path)),
        None => postgres::migrate(url.expose()).await,
    }
}

/// How the tables stand.
///
/// # Errors
/// When the ledger cannot be reached.
pub async fn schema_status(url: &LedgerUrl) -> Result<SchemaStatus, LedgerError> {
    match url.sqlite_path() {
        Some(path) => sqlite::schema_status(Path::new(path)),
        None => postgres::schema_status(url.expose()).await,
    }
}

fn file(url: &LedgerUrl) -> anyhow::Result<PathBuf> {
    match url.sqlite_path() {
        Some(path) => Ok(PathBuf::from(path)),
        None => bail!("`{url}` is no ledger: write sqlite:<path> or postgres://host/database"),
    }
}
