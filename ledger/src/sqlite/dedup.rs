//! Dedup keys: hashes in groups, so that an insert touches the newest pages only and old keys leave together.

use std::time::Duration;

use bellwire_schemas::{Address, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use super::codec::{address_of, place_of};
use super::fault::Outcome;
use crate::dedup::Hash;

/// Entries after which a new group opens: about 15 MB, which stays in the page cache.
const GROUP_ENTRIES: i64 = 1 << 18;
/// Age after which a new group opens, so that short windows do not wait for a quarter of a million arrivals: 6 h.
const GROUP_AGE: Duration = Duration::from_secs(6 * 3_600);

#[derive(Clone, Copy)]
struct Group {
    id: i64,
    opened_at: i64,
    entries: i64,
    last_end: i64,
}

/// The groups, oldest first; keys go into the last one.
#[derive(Default)]
pub(super) struct Groups(Vec<Group>);

impl Groups {
    pub fn load(conn: &Connection) -> Outcome<Self> {
        let mut statement =
            conn.prepare_cached("SELECT id, opened_at, entries, last_end FROM dedup_group ORDER BY id")?;
        let groups = statement
            .query_map([], |r| {
                Ok(Group { id: r.get(0)?, opened_at: r.get(1)?, entries: r.get(2)?, last_end: r.get(3)? })
            })?
            .collect::<Result<_, _>>()?;
        Ok(Self(groups))
    }

    /// The address stored for a hash, if its window is not over.
    pub fn find(&self, conn: &Connection, hash: &Hash, now: Timestamp) -> Outcome<Option<Address>> {
        let now = now.micros();
        for group in self.0.iter().rev().filter(|g| g.last_end > now && g.entries > 0) {
            let place = conn
                .prepare_cached("SELECT place FROM dedup WHERE grp = ?1 AND hash = ?2 AND until > ?3")?
                .query_row((group.id, hash, now), |r| r.get(0))
                .optional()?;
            if let Some(place) = place {
                return Ok(Some(address_of(place)));
            }
        }
        Ok(None)
    }

    /// Remembers a hash until the end of its window.
    pub fn insert(
        &mut self,
        conn: &Connection,
        hash: &Hash,
        address: Address,
        now: Timestamp,
        window: Duration,
    ) -> Outcome<()> {
        let until = now.plus(window).micros();
        let open = |g: &Group| {
            g.entries < GROUP_ENTRIES && Timestamp::from_micros(g.opened_at).plus(GROUP_AGE) > now
        };
        if !self.0.last().is_some_and(open) {
            let id = self.0.last().map_or(1, |g| g.id + 1);
            conn.prepare_cached(
                "INSERT INTO dedup_group (id, opened_at, entries, last_end) VALUES (?1, ?2, 0, ?2)",
            )?
            .execute((id, now.micros()))?;
            self.0.push(Group { id, opened_at: now.micros(), entries: 0, last_end: now.micros() });
        }
        let Some(group) = self.0.last_mut() else { return Ok(()) };
        // A key whose window is over may still lie in this group.
        conn.prepare_cached(
            "INSERT OR REPLACE INTO dedup (grp, hash, place, until) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((group.id, hash, place_of(address), until))?;
        group.entries += 1;
        group.last_end = group.last_end.max(until);
        Ok(())
    }

    /// Writes what the group in use has grown to; once per append.
    pub fn save(&self, conn: &Connection) -> Outcome<()> {
        let Some(group) = self.0.last() else { return Ok(()) };
        conn.prepare_cached("UPDATE dedup_group SET entries = ?2, last_end = ?3 WHERE id = ?1")?
            .execute((group.id, group.entries, group.last_end))?;
        Ok(())
    }

    /// Removes up to `limit` keys of a group whose windows are all over; false when there are none left.
    pub fn prune(&mut self, conn: &Connection, now: Timestamp, limit: usize) -> Outcome<bool> {
        // The newest group stays, so that numbers are not given twice.
        let older = self.0.len().saturating_sub(1);
        let Some(at) = self.0[..older].iter().position(|g| g.last_end <= now.micros()) else {
            return Ok(false);
        };
        let id = self.0[at].id;
        let removed = conn
            .prepare_cached(
                "DELETE FROM dedup WHERE grp = ?1 AND hash IN
                   (SELECT hash FROM dedup WHERE grp = ?1 ORDER BY hash LIMIT ?2)",
            )?
            .execute((id, limit as i64))?;
        if removed < limit {
            conn.prepare_cached("DELETE FROM dedup_group WHERE id = ?1")?.execute([id])?;
            self.0.remove(at);
        }
        Ok(true)
    }
}
