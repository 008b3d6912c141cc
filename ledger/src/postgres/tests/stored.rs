//! What lies in the tables, read without the ledger's own code.

use std::collections::HashMap;

use tokio_postgres::Client;

use crate::Arrival;

/// Every event by its address, with its id; every lane checked for holes and overlaps.
pub(in crate::postgres) struct Stored {
    pub ids: HashMap<(u16, u64), String>,
}

impl Stored {
    /// Reads all generations of a schema.
    pub async fn read(client: &Client, schema: &str) -> Self {
        let sql = format!(
            "select lane::int, first_seq, count, ids, coalesce(part_counts, array[count]), appended_at
             from {schema}.event_batch order by lane, first_seq"
        );
        let mut ids = HashMap::new();
        let mut next: HashMap<i32, i64> = HashMap::new();
        for row in client.query(&sql, &[]).await.unwrap() {
            let (lane, first, count): (i32, i64, i32) = (row.get(0), row.get(1), row.get(2));
            let (names, parts): (Vec<String>, Vec<i32>) = (row.get(3), row.get(4));
            assert_eq!(first, *next.get(&lane).unwrap_or(&1), "lane {lane} has a hole or an overlap");
            assert_eq!(names.len(), count as usize);
            assert_eq!(parts.iter().sum::<i32>(), count);
            for (seq, id) in (first..).zip(names) {
                ids.insert((lane as u16, seq as u64), id);
            }
            next.insert(lane, first + i64::from(count));
        }
        Self { ids }
    }

    /// No id is stored twice.
    pub fn assert_once(&self) {
        let mut seen: HashMap<&str, (u16, u64)> = HashMap::new();
        for (at, id) in &self.ids {
            if let Some(other) = seen.insert(id, *at) {
                panic!("{id} is stored at {at:?} and {other:?}");
            }
        }
    }

    /// What was answered for an id is where it lies.
    pub fn assert_told(&self, id: &str, item: Arrival) {
        let (Arrival::Accepted(address) | Arrival::Duplicate(address)) = item;
        let found = self.ids.get(&(address.lane.0, address.seq.0)).map(String::as_str);
        assert_eq!(found, Some(id), "{id} was said to be {item:?}");
    }
}
