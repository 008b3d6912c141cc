//! Connections: a few, shared by questions and cold writes; lost ones are replaced.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_postgres::Row;

use super::connect::{Connection, Connector};
use super::fault::{Fault, Outcome};
use super::reading::is_gone;
use crate::Error;

pub(super) use super::connect::Param;

/// Connections at a time; a question beyond that waits for one.
const CONNECTIONS: usize = 4;
/// How long a question waits for a connection.
const TURN: Duration = Duration::from_secs(10);
/// How long a statement may take unless its caller says otherwise.
const STATEMENT: Duration = Duration::from_secs(30);

/// Connections to one database, made when they are needed.
pub(super) struct Pool {
    connector: Arc<Connector>,
    idle: Mutex<Vec<Connection>>,
    turns: Semaphore,
    /// Connections made before the last change are not used again.
    age: AtomicU64,
}

impl Pool {
    /// Connects once, to know that the server is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is not, [`Error::Incompatible`] when it is too old.
    pub async fn open(connector: Arc<Connector>) -> Result<Self, Error> {
        let first = connector.connect().await?;
        let (idle, turns) = (Mutex::new(vec![first]), Semaphore::new(CONNECTIONS));
        Ok(Self { connector, idle, turns, age: AtomicU64::new(0) })
    }

    /// Connects when it is first asked.
    pub fn later(connector: Arc<Connector>) -> Self {
        let turns = Semaphore::new(CONNECTIONS);
        Self { connector, idle: Mutex::default(), turns, age: AtomicU64::new(0) }
    }

    /// Runs one statement, which is its own transaction, once. For whoever minds the code of a refusal.
    ///
    /// # Errors
    /// As in [`Fault`]; when the connection was lost, a write may have happened.
    pub async fn call(&self, sql: &str, params: &[Param<'_>]) -> Outcome<Vec<Row>> {
        self.call_within(sql, params, STATEMENT).await
    }

    /// The same with a limit of its own.
    ///
    /// # Errors
    /// As [`Pool::call`].
    pub async fn call_within(&self, sql: &str, params: &[Param<'_>], limit: Duration) -> Outcome<Vec<Row>> {
        let _turn = self.turn().await?;
        let age = self.age.load(Ordering::Acquire);
        let connection = self.take().await?;
        let result = connection.query(sql, params, limit).await;
        self.put_back(connection, age, &result);
        result
    }

    /// The same with its error sorted; for writes, and reads that need not be repeated.
    ///
    /// # Errors
    /// As the conversion from [`Fault`] sorts them; [`Error::Unavailable`] leaves open whether a write happened.
    pub async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        Ok(self.call(sql, params).await?)
    }

    /// Runs one statement that only reads; once more when its connection was lost, or a generation that it reads was
    /// dropped meanwhile.
    ///
    /// # Errors
    /// As [`Pool::query`].
    pub async fn ask(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        match self.call(sql, params).await {
            Err(Fault::Server { code, .. }) if code.starts_with("57P") || code == "0A000" => {}
            Err(Fault::Lost(_)) => {}
            Err(fault) if is_gone(&fault) => {}
            other => return Ok(other?),
        }
        Ok(self.call(sql, params).await?)
    }

    /// Runs several statements without parameters as one transaction: all or none.
    ///
    /// # Errors
    /// As [`Pool::call`].
    pub async fn batch(&self, sql: &str, limit: Duration) -> Outcome<()> {
        let _turn = self.turn().await?;
        let age = self.age.load(Ordering::Acquire);
        let connection = self.take().await?;
        let result = connection.batch(sql, limit).await;
        self.put_back(connection, age, &result);
        result
    }

    /// Closes what is idle now, and what is in use as soon as it has answered; later questions get new connections.
    pub fn renew(&self) {
        let mut idle = self.idle();
        self.age.fetch_add(1, Ordering::AcqRel);
        idle.clear();
    }

    /// Refuses further questions and closes what is idle.
    pub fn close(&self) {
        self.turns.close();
        self.idle().clear();
    }

    async fn turn(&self) -> Outcome<tokio::sync::SemaphorePermit<'_>> {
        match tokio::time::timeout(TURN, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) => Err(Fault::Lost("it was closed".into())),
            Err(_) => Err(Fault::Lost(format!("{CONNECTIONS} other questions are still being answered"))),
        }
    }

    async fn take(&self) -> Outcome<Connection> {
        loop {
            let idle = self.idle().pop();
            match idle {
                Some(connection) if connection.is_closed() => {}
                Some(connection) => return Ok(connection),
                None => return self.connector.connect().await,
            }
        }
    }

    fn put_back<T>(&self, connection: Connection, age: u64, result: &Outcome<T>) {
        let spoilt = result.as_ref().is_err_and(Fault::ends_connection);
        let mut idle = self.idle();
        if !spoilt && !self.turns.is_closed() && age == self.age.load(Ordering::Acquire) {
            idle.push(connection);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().expect("no code panics while it holds this lock")
    }
}
