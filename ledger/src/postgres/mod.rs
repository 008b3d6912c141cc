//! The ledger in Postgres, for one controller or several.
//!
//! Every write is one call of one function in the database (`migrations/postgres/`), in a transaction of its own: it
//! survives a caller that goes away, a connection that is lost and a pooler in between, and there is one moment only at
//! which its outcome can be unknown. This room keeps no state that the database does not have, but for what it has not
//! confirmed yet and caches that are checked by the functions.
//!
//! Read `migrations/postgres/0001_tables.sql` first, then `append.rs` and `migrations/postgres/0002_append.sql`.

mod append;
mod ask;
mod bindings;
mod codec;
mod connect;
mod deliver;
mod exceptions;
mod fault;
mod flush;
mod history;
mod keep;
mod lease;
mod list;
mod migrate;
mod names;
mod operate;
mod pool;
mod position;
mod reading;
mod retain;
mod schema;
mod slots;
mod tls;
mod totals;
mod upkeep;
mod url;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use postgres_types::Type;
use tokio::task::AbortHandle;

use bellwire_schemas::Lane;

use crate::Error;
use append::Appenders;
use connect::Connector;
use fault::misread;
use flush::Deliveries;
use history::History;
use lease::Leases;
use names::Names;
use pool::Pool;
use reading::Reading;
use schema::Schema;
use slots::Slots;
use url::Target;

pub use migrate::{migrate, schema_status};

/// How a ledger in Postgres is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresOptions {
    /// Number of lanes of a new ledger (1 to 1,024); an old one must have as many.
    pub lanes: u16,
    /// Bytes in use at which appends are refused as [`Error::Full`].
    pub max_bytes: Option<u64>,
    /// The schema that holds the ledger, unless the URL names one by `schema=`; letters, digits and `_`. Several ledgers
    /// may share a database.
    pub schema: String,
    /// Bytes after which a new generation is opened; else a twentieth of `max_bytes`, at most 1 GiB. Retention frees
    /// whole generations.
    pub generation_bytes: Option<u64>,
    /// Age after which a new generation is opened when the one before holds events: a twentieth of what is kept, or less.
    pub generation_age: Duration,
}

impl Default for PostgresOptions {
    /// Eight lanes, no limit, schema `bellwire`, generations of six hours.
    fn default() -> Self {
        Self {
            lanes: 8,
            max_bytes: None,
            schema: "bellwire".into(),
            generation_bytes: None,
            generation_age: Duration::from_secs(6 * 3_600),
        }
    }
}

/// A ledger in Postgres. Clones share it.
#[derive(Clone)]
pub struct PostgresLedger {
    shared: Arc<Shared>,
}

/// What the verbs share.
struct Shared {
    /// For questions and rare writes.
    pool: Pool,
    /// For flushes, so that they never wait for questions.
    flushes: Pool,
    /// For slots, so that they wait for neither.
    slots: Slots,
    /// Flushes that may not be durable yet, and where they left the bindings.
    deliveries: Deliveries,
    /// For whoever needs a connection of its own.
    connector: Arc<Connector>,
    lanes: u16,
    schema: Schema,
    /// What this handle owns, and what it has seen there.
    leases: Leases,
    /// The newest generation that this handle knows of.
    generation: AtomicI32,
    /// The history that all of this was learned in.
    history: History,
    /// Whether it was opened for reading only.
    read_only: bool,
    max_bytes: Option<u64>,
    names: Names,
    appenders: Appenders,
    /// Whether more than `max_bytes` are in use; refreshed by the maintenance.
    full: AtomicBool,
    /// What reading keeps in memory.
    reading: Reading,
    /// The task that keeps the ledger in order, once it runs.
    upkeep: OnceLock<AbortHandle>,
}

impl PostgresLedger {
    /// Opens a ledger, creating it or bringing its schema up to date as needed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the server cannot be reached, [`Error::Incompatible`] when the schema is newer than
    /// this program or has another number of lanes, or the server cannot hold a ledger.
    pub async fn open(url: &str, options: PostgresOptions) -> Result<Self, Error> {
        if options.lanes == 0 || options.lanes > 1_024 {
            return Err(Error::Incompatible(format!("a ledger has 1 to 1024 lanes, not {}", options.lanes)));
        }
        let (connector, schema) = connector_of(url, Some(&options.schema))?;
        let pool = Pool::open(connector.clone()).await?;
        check_server(&pool).await?;
        migrate::bring_up(&pool, &schema).await?;
        let sql = schema.sql("select bellwire.found($1)");
        let rows = pool.query(&sql, &[(&i32::from(options.lanes), Type::INT4)]).await?;
        let lanes: i32 = one(&rows, 0)?;
        if lanes != i32::from(options.lanes) {
            return Err(Error::Incompatible(format!(
                "the ledger in schema `{schema}` was made with {lanes} lanes, which is for ever; the configuration says \
                 {}",
                options.lanes
            )));
        }
        let shared = Arc::new(Shared::new(pool, connector, schema, options.lanes, options.max_bytes, false));
        let history = shared.pool.ask(&shared.sql("select bellwire.history()"), &[]).await?;
        shared.follow(one(&history, 0)?).await?;
        append::start(&shared);
        upkeep::start(&shared, upkeep::Limits::of(&options));
        Ok(Self { shared })
    }

    /// Opens a ledger for reading, whether or not controllers run on it; every write is refused.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the server cannot be reached, [`Error::Incompatible`] when there is no ledger or it
    /// has another schema than this program reads.
    pub async fn open_read_only(url: &str, schema: &str) -> Result<Self, Error> {
        let (connector, schema) = reader_of(url, Some(schema))?;
        let pool = Pool::open(connector.clone()).await?;
        migrate::check_readable(&pool, &schema).await?;
        let rows = pool.ask(&schema.sql("select lanes::int from bellwire.ledger"), &[]).await?;
        let empty = || Error::Incompatible(format!("schema `{schema}` was never opened by a controller"));
        let lanes: i32 = rows.first().ok_or_else(empty)?.try_get(0).map_err(misread)?;
        let lanes = u16::try_from(lanes).map_err(|_| empty())?;
        let shared = Shared::new(pool, connector, schema, lanes, None, true);
        shared.refresh_generation().await?;
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Shared {
    fn new(
        pool: Pool,
        connector: Arc<Connector>,
        schema: Schema,
        lanes: u16,
        max_bytes: Option<u64>,
        read_only: bool,
    ) -> Self {
        let (generation, full) = (AtomicI32::new(0), AtomicBool::new(false));
        let leases = Leases::default();
        let names = Names::default();
        let reading = Reading::default();
        let (flushes, deliveries) = (Pool::later(connector.clone()), Deliveries::default());
        let slots = Slots::new(Pool::later(connector.clone()));
        let appenders = Appenders::new(lanes);
        Self {
            pool,
            flushes,
            slots,
            deliveries,
            connector,
            lanes,
            schema,
            leases,
            names,
            appenders,
            reading,
            upkeep: OnceLock::new(),
            generation,
            history: History::default(),
            read_only,
            max_bytes,
            full,
        }
    }

    /// A statement with `bellwire.` replaced by the schema; cached.
    fn sql(&self, text: &'static str) -> Arc<str> {
        self.schema.sql(text)
    }

    /// The same, with `{g}` replaced by a generation.
    fn sql_in(&self, text: &'static str, generation: i32) -> Arc<str> {
        self.schema.sql_in(text, generation)
    }

    /// The newest generation that this handle knows of. Another controller may have opened a newer one: functions that
    /// need the open one say so (BW001), then [`Shared::refresh_generation`].
    fn generation(&self) -> i32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Asks for the open generation.
    async fn refresh_generation(&self) -> Result<i32, Error> {
        let sql = self.sql("select max(gen) from bellwire.generation");
        let newest: i32 = one(&self.pool.ask(&sql, &[]).await?, 0)?;
        // Also backwards: a server that took over may lack the newest.
        self.generation.store(newest, Ordering::Release);
        Ok(newest)
    }

    /// Refuses to write where the ledger was opened for reading.
    fn check_writable(&self) -> Result<(), Error> {
        if self.read_only {
            return Err(Error::Incompatible("the ledger was opened for reading only".into()));
        }
        Ok(())
    }

    /// Refuses a lane that does not exist.
    fn check_lane(&self, lane: Lane) -> Result<(), Error> {
        if lane.0 == 0 || lane.0 > self.lanes {
            return Err(Error::NotFound(format!(
                "lane {lane} does not exist: the ledger has {}",
                self.lanes
            )));
        }
        Ok(())
    }

    async fn close(&self) {
        self.appenders.close().await;
        if let Some(task) = self.upkeep.get() {
            task.abort();
        }
        lease::give_back(self).await;
        self.flushes.close();
        self.slots.pool.close();
        self.pool.close();
    }
}

/// What a URL and a schema lead to.
fn connector_of(url: &str, schema: Option<&str>) -> Result<(Arc<Connector>, Schema), Error> {
    connector_to(Target::parse(url)?, schema)
}

/// The same for whoever only reads: a standby will do.
fn reader_of(url: &str, schema: Option<&str>) -> Result<(Arc<Connector>, Schema), Error> {
    connector_to(Target { writable: false, ..Target::parse(url)? }, schema)
}

fn connector_to(target: Target, schema: Option<&str>) -> Result<(Arc<Connector>, Schema), Error> {
    let schema = Schema::new(target.schema.as_deref().or(schema).unwrap_or("bellwire"))?;
    Ok((Arc::new(Connector::new(target)?), schema))
}

/// A column of the only row.
fn one<'a, T: postgres_types::FromSql<'a>>(
    rows: &'a [tokio_postgres::Row],
    column: usize,
) -> Result<T, Error> {
    let row =
        rows.first().ok_or_else(|| Error::Corrupt("a question about the ledger has no answer".into()))?;
    row.try_get(column).map_err(misread)
}

/// Refuses a server that cannot keep the promises, and warns of what makes it worse.
async fn check_server(pool: &Pool) -> Result<(), Error> {
    let sql = "select current_setting('transaction_isolation') = 'read committed', current_setting('fsync')::boolean,
        current_setting('full_page_writes')::boolean,
        exists (select from pg_settings where name = 'default_toast_compression' and 'lz4' = any(enumvals))";
    let rows = pool.ask(sql, &[]).await?;
    if !one::<bool>(&rows, 0)? {
        return Err(Error::Incompatible(
            "the database's default transaction isolation is not `read committed`, which the ledger needs: set \
             default_transaction_isolation for its role"
                .into(),
        ));
    }
    if !one::<bool>(&rows, 1)? || !one::<bool>(&rows, 2)? {
        tracing::warn!(
            "fsync or full_page_writes is off in the database: events are lost when its machine stops"
        );
    }
    if !one::<bool>(&rows, 3)? {
        tracing::warn!("the database cannot compress by lz4: events cost it more time and space");
    }
    Ok(())
}
