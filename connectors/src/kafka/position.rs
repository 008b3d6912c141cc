//! What the ledger keeps of a topic: how far each partition was read, and how many partitions it had at first. Pure.

/// The position of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The offset to be read next.
    pub(super) next: i64,
    /// The time of the record before it, in milliseconds since 1970: by it a partition that was made anew is told
    /// from the one that was read.
    pub(super) witness: Option<i64>,
}

impl Mark {
    /// As the ledger keeps it: `1742`, or `1742 1767225600000`.
    pub(super) fn text(self) -> String {
        self.witness.map_or_else(|| self.next.to_string(), |witness| format!("{} {witness}", self.next))
    }

    /// Reads it back.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (next, witness) = match text.split_once(' ') {
            None => (text, None),
            Some((next, witness)) => (next, Some(witness.parse().ok()?)),
        };
        let next = next.parse().ok().filter(|next| *next >= 0)?;
        Some(Self { next, witness })
    }
}

/// The shard of a partition; topic names hold no slash.
pub(super) fn shard(source: &str, topic: &str, partition: i32) -> String {
    format!("{source}/{topic}/{partition}")
}

/// The shard of a topic: the number of its partitions when it was first seen. Those that come later are read from
/// their first record.
pub(super) fn topic_shard(source: &str, topic: &str) -> String {
    format!("{source}/{topic}")
}

/// A topic's record as the ledger keeps it.
pub(super) fn topic_text(partitions: i32) -> String {
    format!("partitions {partitions}")
}

/// Reads it back.
pub(super) fn parse_topic(text: &str) -> Option<i32> {
    text.strip_prefix("partitions ")?.parse().ok()
}
