//! Positions of sources.

use postgres_types::Type;

use super::Shared;
use super::codec::{escape, unescape};
use super::fault::misread;
use crate::{Error, Position};

/// The newest position of a shard; see [`crate::Ledger::position`].
pub(super) async fn position(shared: &Shared, shard: &str) -> Result<Option<Position>, Error> {
    // All generations, because another controller may have opened a newer one than this handle knows of.
    let sql = shared.sql(
        "select p.ver, p.position from bellwire.shard s join bellwire.source_position p on p.shard = s.id
         where s.name = $1 order by p.ver desc limit 1",
    );
    let rows = shared.pool.ask(&sql, &[(&escape(shard), Type::TEXT)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let version: i64 = row.try_get(0).map_err(misread)?;
    let value: &str = row.try_get(1).map_err(misread)?;
    let version = u64::try_from(version).unwrap_or(0);
    Ok(Some(Position { version, value: unescape(value).into_owned() }))
}
