//! Which bucket belongs to which sources.

use std::collections::HashMap;
use std::sync::Arc;

use bellwire_schemas::service::{Decode, DedupRule, KeyRule, SourceKind, SourceSpec};

/// Name under which records of unknown buckets are kept in quarantine; one for all, because a sender chooses the
/// bucket's name.
pub const STRAY: &str = "s3";

/// The sources by bucket.
#[derive(Clone, Debug)]
pub struct Buckets {
    by_name: HashMap<String, Vec<Arc<SourceSpec>>>,
    stray: Arc<SourceSpec>,
}

impl Buckets {
    /// Sorts the `s3` sources by bucket; others are ignored.
    pub fn new(sources: &[Arc<SourceSpec>]) -> Self {
        let mut by_name: HashMap<String, Vec<_>> = HashMap::new();
        for source in sources {
            if let SourceKind::S3 { bucket, .. } = &source.kind {
                by_name.entry(bucket.clone()).or_default().push(source.clone());
            }
        }
        let stray = SourceSpec {
            name: STRAY.into(),
            kind: SourceKind::S3 { bucket: String::new(), via: None },
            key: KeyRule::Default,
            dedup: DedupRule::Default,
            decode: Decode::Auto,
            enabled: true,
        };
        Self { by_name, stray: Arc::new(stray) }
    }

    /// The sources of a bucket; empty when nobody declared it.
    pub fn of(&self, bucket: &str) -> &[Arc<SourceSpec>] {
        self.by_name.get(bucket).map_or(&[], Vec::as_slice)
    }

    /// The stand-in for records that belong to nobody.
    pub fn stray(&self) -> &Arc<SourceSpec> {
        &self.stray
    }
}
