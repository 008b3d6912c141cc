//! One connection: made to the first host that will do, watched, and closed for good when it does not answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postgres_types::{ToSql, Type};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, Row, Statement};
use tokio_util::either::Either;

use super::fault::{Fault, Outcome, chain};
use super::tls::Tls;
use super::url::{Target, TlsMode};
use crate::Error;

/// A value and the type it is sent as; naming the type saves a round trip and works behind a pooler.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// The oldest server that this program is tested against in its statements: 13.
const OLDEST: i32 = 130_000;
/// Statements prepared per connection; beyond that all are forgotten. Those of dropped generations pile up otherwise.
const STATEMENTS: usize = 200;
/// A peer that says nothing is asked whether it lives after this long.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
/// And again after this long, three times.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// Bytes sent that nobody acknowledges end the connection after this long (Linux).
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);

/// Makes connections to one database.
pub(super) struct Connector {
    target: Target,
    tls: Tls,
}

type Stream = Either<TcpStream, UnixStream>;

impl Connector {
    /// Reads what the target's TLS needs; connects nowhere yet.
    ///
    /// # Errors
    /// [`Error::Incompatible`] when certificates cannot be read.
    pub fn new(target: Target) -> Result<Self, Error> {
        let tls = Tls::new(target.tls, target.root.as_deref())?;
        Ok(Self { target, tls })
    }

    /// Connects to the first host that is there and, unless the URL says otherwise, takes writes.
    ///
    /// # Errors
    /// [`Fault::Lost`] naming every host and why it did not do; a refusal of the server when there is one host only.
    pub async fn connect(&self) -> Outcome<Connection> {
        let hosts = self.hosts();
        let alone = hosts.len() == 1;
        let mut reasons = Vec::new();
        for (host, port, address) in hosts {
            let attempt = self.connect_to(&host, port, address);
            let fault = match tokio::time::timeout(self.target.patience * 2, attempt).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(fault)) => fault,
                Err(_) => Fault::Lost("it does not answer".into()),
            };
            let reason = match &fault {
                Fault::Server { .. } if alone => return Err(fault),
                Fault::Server { message, code, .. } => format!("{message} ({code})"),
                Fault::Lost(why) | Fault::Late(why) => why.clone(),
            };
            reasons.push(format!("{}: {reason}", name_of(&host, port)));
        }
        Err(Fault::Lost(format!("connect to {}", reasons.join("; "))))
    }

    /// Hosts with their ports and, where the URL gives them, their addresses.
    fn hosts(&self) -> Vec<(Host, u16, Option<std::net::IpAddr>)> {
        let config = &self.target.config;
        let ports = config.get_ports();
        let port = |n: usize| ports.get(n).or(ports.first()).copied().unwrap_or(5432);
        let addresses = config.get_hostaddrs();
        config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(n, host)| (host.clone(), port(n), addresses.get(n).copied()))
            .collect()
    }

    async fn connect_to(
        &self,
        host: &Host,
        port: u16,
        address: Option<std::net::IpAddr>,
    ) -> Outcome<Connection> {
        let (name, local, stream): (_, _, Stream) = match host {
            Host::Tcp(name) => {
                let stream = self.tcp(name, port, address).await?;
                (name.clone(), stream.local_addr().ok().map(|a| a.port()), Either::Left(stream))
            }
            Host::Unix(folder) => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                let stream = UnixStream::connect(path).await.map_err(|e| Fault::Lost(e.to_string()))?;
                (String::new(), None, Either::Right(stream))
            }
        };
        let mut config = self.target.config.clone();
        config.ssl_mode(match (host, self.target.tls) {
            (Host::Unix(_), _) | (_, TlsMode::Disable) => SslMode::Disable,
            (_, TlsMode::Prefer) => SslMode::Prefer,
            _ => SslMode::Require,
        });
        self.greet(config, stream, &name, local).await
    }

    /// Opens a TCP connection to the first address of a host that takes one.
    async fn tcp(&self, name: &str, port: u16, address: Option<std::net::IpAddr>) -> Outcome<TcpStream> {
        let lost = |e: std::io::Error| Fault::Lost(e.to_string());
        let addresses: Vec<SocketAddr> = match address {
            Some(address) => vec![(address, port).into()],
            None => tokio::net::lookup_host((name, port)).await.map_err(lost)?.collect(),
        };
        let mut why = Fault::Lost("its name has no address".into());
        for address in addresses {
            match tokio::time::timeout(self.target.patience, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    watch(&stream).map_err(lost)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => why = lost(error),
                Err(_) => why = Fault::Lost("it does not answer".into()),
            }
        }
        Err(why)
    }

    /// Logs in and looks at whom we are talking to.
    async fn greet(
        &self,
        config: Config,
        stream: Stream,
        name: &str,
        local: Option<u16>,
    ) -> Outcome<Connection> {
        let (client, connection) = config.connect_raw(stream, self.tls.to(name)).await?;
        // It ends with the connection, or when the client is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %chain(&error), "a connection to the database ended");
            }
        });
        let rows = client
            .query_typed(
                "select inet_client_port(), current_setting('server_version_num')::int,
                   pg_is_in_recovery() or current_setting('transaction_read_only')::boolean",
                &[],
            )
            .await?;
        let row = rows.first().ok_or_else(|| Fault::Lost("the server answers nothing".into()))?;
        let (port, version, reads): (Option<i32>, i32, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if version < OLDEST {
            return Err(refusal(format!("Postgres {} is too old: 13 or newer is needed", version / 10_000)));
        }
        if reads && self.target.writable {
            return Err(Fault::Lost("it is a standby or only reads".into()));
        }
        // A pooler or proxy between us has a port of its own, and may hand the next statement to another server
        // process, which knows nothing of a statement prepared in the first.
        let direct = port.is_some() && port == local.map(i32::from);
        let statements = direct.then(Mutex::default);
        Ok(Connection { client: Arc::new(client), statements })
    }
}

fn refusal(message: String) -> Fault {
    Fault::Server { code: "BW000".into(), message, detail: None }
}

fn name_of(host: &Host, port: u16) -> String {
    match host {
        Host::Tcp(name) => format!("{name}:{port}"),
        Host::Unix(folder) => format!("{}:{port}", folder.display()),
    }
}

/// Small packets leave at once; a peer that vanished is noticed.
fn watch(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

/// A connection. Statements sent together are answered in order.
pub(super) struct Connection {
    client: Arc<Client>,
    /// Prepared statements, where there is nobody between us and the server.
    statements: Option<Mutex<HashMap<Box<str>, Statement>>>,
}

impl Connection {
    /// Whether it is known to be gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs one statement, which is its own transaction, within a time.
    ///
    /// # Errors
    /// As in [`Fault`]. After [`Fault::ends_connection`], and when its future was dropped, the connection must be
    /// dropped too.
    pub async fn query(&self, sql: &str, params: &[Param<'_>], limit: Duration) -> Outcome<Vec<Row>> {
        tokio::time::timeout(limit, self.run(sql, params)).await.unwrap_or_else(|_| Err(late(limit)))
    }

    /// Runs several statements given as text, in one transaction: all or none.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn batch(&self, sql: &str, limit: Duration) -> Outcome<()> {
        match tokio::time::timeout(limit, self.client.batch_execute(sql)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(late(limit)),
        }
    }

    async fn run(&self, sql: &str, params: &[Param<'_>]) -> Outcome<Vec<Row>> {
        let Some(statement) = self.statement(sql, params).await? else {
            return Ok(self.client.query_typed(sql, params).await?);
        };
        let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
        Ok(self.client.query(&statement, &values).await?)
    }

    async fn statement(&self, sql: &str, params: &[Param<'_>]) -> Outcome<Option<Statement>> {
        let Some(statements) = &self.statements else { return Ok(None) };
        let known = statements.lock().expect("no code panics while it holds this lock").get(sql).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let types: Vec<_> = params.iter().map(|(_, kind)| kind.clone()).collect();
        let statement = self.client.prepare_typed(sql, &types).await?;
        let mut statements = statements.lock().expect("no code panics while it holds this lock");
        if statements.len() >= STATEMENTS {
            statements.clear();
        }
        statements.insert(sql.into(), statement.clone());
        Ok(Some(statement))
    }
}

fn late(limit: Duration) -> Fault {
    Fault::Late(format!("the database did not answer within {limit:?}"))
}
