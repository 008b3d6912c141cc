//! Controllers and the lanes they own.
//!
//! Signs of life go over a connection of their own, so that nothing slow is before them. Taking a lane is two calls: the
//! first fences the owner of before, the second waits for its last flush; see `migrations/postgres/0005_cluster.sql`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bellwire_schemas::{ControllerId, Epoch, Lane, Seq, Timestamp};
use postgres_types::Type;
use tokio_postgres::Row;
use uuid::Uuid;

use super::codec::{Time, escape, unescape};
use super::connect::{Connection, Param};
use super::fault::Fault;
use super::{Shared, one};
use crate::cluster::FIRST_LEASE;
use crate::{Cluster, Error, Heartbeat, LaneOwner, Member};

/// What a handle owns, and the newest row of events it has seen in each lane.
#[derive(Default)]
pub(super) struct Leases {
    owned: Mutex<BTreeMap<Lane, (ControllerId, Epoch)>>,
    seen: Mutex<BTreeMap<Lane, Seen>>,
    /// Taken out while it is in use, so that a call that is dropped takes it along.
    connection: Mutex<Option<Connection>>,
    closed: AtomicBool,
}

/// A row of `event_batch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The generation it lies in.
    pub generation: i32,
    /// The place of its first event.
    pub first: Seq,
    /// Its append id.
    pub append: Uuid,
}

impl Leases {
    /// Notes that a row of events was read or written here. When a server takes over that lacks the newest one, the
    /// next heartbeat says that the lane was rewound.
    pub fn saw(&self, lane: Lane, row: Seen) {
        let mut seen = lock(&self.seen);
        let newest = seen.entry(lane).or_insert(row);
        if newest.first <= row.first {
            *newest = row;
        }
    }

    fn seen_of(&self, controller: ControllerId) -> Vec<(Lane, Seen)> {
        let owned = lock(&self.owned);
        let mine = |lane: &Lane| owned.get(lane).is_some_and(|(owner, _)| *owner == controller);
        lock(&self.seen).iter().filter(|(lane, _)| mine(lane)).map(|(lane, seen)| (*lane, *seen)).collect()
    }

    fn take(&self) -> Option<Connection> {
        lock(&self.connection).take().filter(|connection| !connection.is_closed())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}

/// Says that a controller is alive; see [`crate::Ledger::heartbeat`].
pub(super) async fn heartbeat(shared: &Shared, beat: &Heartbeat) -> Result<Cluster, Error> {
    shared.check_writable()?;
    let seen = shared.leases.seen_of(beat.controller);
    let lanes: Vec<i16> = seen.iter().map(|(lane, _)| number(*lane)).collect();
    let generations: Vec<i32> = seen.iter().map(|(_, seen)| seen.generation).collect();
    let firsts: Vec<i64> =
        seen.iter().map(|(_, seen)| i64::try_from(seen.first.0).unwrap_or(i64::MAX)).collect();
    let appends: Vec<Uuid> = seen.iter().map(|(_, seen)| seen.append).collect();
    let ttl = milliseconds(beat.ttl);
    let (name, version) = (escape(&beat.name), escape(&beat.version));
    let params: [Param<'_>; 9] = [
        (&beat.controller.0, Type::UUID),
        (&name, Type::TEXT),
        (&version, Type::TEXT),
        (&ttl, Type::INT8),
        (&beat.leaving, Type::BOOL),
        (&lanes, Type::INT2_ARRAY),
        (&generations, Type::INT4_ARRAY),
        (&firsts, Type::INT8_ARRAY),
        (&appends, Type::UUID_ARRAY),
    ];
    let sql = shared
        .sql("select h.*, bellwire.history() from bellwire.heartbeat($1, $2, $3, $4, $5, $6, $7, $8, $9) h");
    let rows = beat_once(shared, &sql, &params, beat).await?;
    let history = one(&rows, 9)?;
    if history < shared.history.newest() {
        drop(shared.leases.take());
    }
    shared.follow(history).await?;
    let cluster = cluster_of(&rows)?;
    if !cluster.rewound.is_empty() {
        shared.reading.forget();
    }
    Ok(cluster)
}

/// Sends it over the own connection, and over a new one when that was lost: a sign of life may be given twice.
async fn beat_once(
    shared: &Shared,
    sql: &str,
    params: &[Param<'_>],
    beat: &Heartbeat,
) -> Result<Vec<Row>, Error> {
    for kept in [shared.leases.take(), None] {
        if shared.leases.closed.load(Ordering::Acquire) {
            return Err(Error::Unavailable("it was closed".into()));
        }
        let is_kept = kept.is_some();
        let connection = match kept {
            Some(connection) => connection,
            None => shared.connector.connect().await?,
        };
        let result = connection.query(sql, params, beat.ttl).await;
        match result {
            Err(fault) if fault.ends_connection() && is_kept && !matches!(fault, Fault::Late(_)) => {}
            Err(fault) => return Err(fault.into()),
            Ok(rows) => {
                *lock(&shared.leases.connection) = Some(connection);
                return Ok(rows);
            }
        }
    }
    Err(Error::Unavailable("the connection to the database was lost".into()))
}

fn cluster_of(rows: &[Row]) -> Result<Cluster, Error> {
    let ids: Vec<Uuid> = one(rows, 0)?;
    let names: Vec<String> = one(rows, 1)?;
    let versions: Vec<String> = one(rows, 2)?;
    let since: Vec<Time> = one(rows, 3)?;
    let leaving: Vec<bool> = one(rows, 4)?;
    let epochs: Vec<i64> = one(rows, 5)?;
    let owners: Vec<Option<Uuid>> = one(rows, 6)?;
    let rewound: Vec<i16> = one(rows, 8)?;
    let text = |text: &str| unescape(text).into_owned();
    let members = ids.into_iter().zip(names).zip(versions).zip(since).zip(leaving);
    let controllers = members.map(|((((id, name), version), since), leaving)| Member {
        id: ControllerId(id),
        name: text(&name),
        version: text(&version),
        since: since.0,
        leaving,
    });
    let lanes = (1..).zip(epochs.into_iter().zip(owners)).map(|(lane, (epoch, owner))| {
        let epoch =
            u32::try_from(epoch).map_err(|_| Error::Corrupt(format!("epoch of lane {lane}: {epoch}")))?;
        Ok(LaneOwner { lane: Lane(lane), epoch: Epoch(epoch), owner: owner.map(ControllerId) })
    });
    Ok(Cluster {
        controllers: controllers.collect(),
        lanes: lanes.collect::<Result<_, Error>>()?,
        changes: u64::try_from(one::<i64>(rows, 7)?).unwrap_or(0),
        rewound: rewound.into_iter().filter_map(|lane| u16::try_from(lane).ok().map(Lane)).collect(),
    })
}

/// Takes a controller out of the cluster; see [`crate::Ledger::leave`].
pub(super) async fn leave(shared: &Shared, controller: ControllerId) -> Result<(), Error> {
    shared.check_writable()?;
    shared.pool.query(&shared.sql("select bellwire.leave($1)"), &[(&controller.0, Type::UUID)]).await?;
    lock(&shared.leases.owned).retain(|_, (owner, _)| *owner != controller);
    Ok(())
}

/// Takes a lane; see [`crate::Ledger::acquire`]. Whether it is free is for the database's clock to say.
pub(super) async fn acquire(
    shared: &Shared,
    controller: ControllerId,
    lane: Lane,
    _now: Timestamp,
) -> Result<Option<Epoch>, Error> {
    shared.check_writable()?;
    shared.check_lane(lane)?;
    let ttl = milliseconds(FIRST_LEASE);
    let sql = shared.sql("select bellwire.take_lane($1, $2, $3)");
    let lane_number = number(lane);
    let params: [Param<'_>; 3] =
        [(&controller.0, Type::UUID), (&lane_number, Type::INT2), (&ttl, Type::INT8)];
    let Some(epoch) = one::<Option<i64>>(&shared.pool.query(&sql, &params).await?, 0)? else {
        return Ok(None);
    };
    let sql = shared.sql("select bellwire.hold_lane($1, $2), bellwire.history()");
    let params: [Param<'_>; 2] = [(&lane_number, Type::INT2), (&epoch, Type::INT8)];
    let rows = shared.pool.query(&sql, &params).await?;
    shared.follow(one(&rows, 1)?).await?;
    if !one::<bool>(&rows, 0)? {
        return Ok(None);
    }
    // Read under an earlier lease; a server that took over meanwhile may hold other events at the same places.
    shared.reading.forget();
    let epoch =
        Epoch(u32::try_from(epoch).map_err(|_| Error::Corrupt(format!("epoch of lane {lane}: {epoch}")))?);
    lock(&shared.leases.seen).remove(&lane);
    lock(&shared.leases.owned).insert(lane, (controller, epoch));
    Ok(Some(epoch))
}

/// Gives a lane back; see [`crate::Ledger::release`].
pub(super) async fn release(shared: &Shared, lane: Lane, epoch: Epoch) -> Result<(), Error> {
    shared.check_writable()?;
    shared.check_lane(lane)?;
    let sql = shared.sql("select bellwire.release_lane($1, $2)");
    let params: [Param<'_>; 2] = [(&number(lane), Type::INT2), (&i64::from(epoch.0), Type::INT8)];
    shared.pool.query(&sql, &params).await?;
    let mut owned = lock(&shared.leases.owned);
    if owned.get(&lane).is_some_and(|(_, own)| *own == epoch) {
        owned.remove(&lane);
    }
    Ok(())
}

/// Gives back every lane that was taken through this handle, as far as the database can be reached, and gives no further
/// sign of life.
pub(super) async fn give_back(shared: &Shared) {
    shared.leases.closed.store(true, Ordering::Release);
    let owned: Vec<_> = lock(&shared.leases.owned).iter().map(|(lane, (_, epoch))| (*lane, *epoch)).collect();
    for (lane, epoch) in owned {
        if let Err(error) = release(shared, lane, epoch).await {
            tracing::warn!(%lane, %error, "the lane could not be given back: it is free when the lease ends");
            break;
        }
    }
    drop(shared.leases.take());
}

/// A lease's length, at most a day, which an interval of the database holds.
fn milliseconds(ttl: Duration) -> i64 {
    ttl.as_millis().min(86_400_000) as i64
}

/// The number of a lane in the tables.
fn number(lane: Lane) -> i16 {
    i16::try_from(lane.0).unwrap_or(i16::MAX)
}
