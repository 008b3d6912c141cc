//! What identifies an arrival: the hash that every implementation keeps.

use bellwire_schemas::SourceName;
use sha2::{Digest, Sha256};

/// 128 bits of SHA-256 over source and value.
pub(crate) type Hash = [u8; 16];

/// The identity of an arrival within its source.
pub(crate) fn hash(source: &SourceName, value: &str) -> Hash {
    let mut digest = Sha256::new();
    digest.update((source.as_str().len() as u64).to_be_bytes());
    digest.update(source.as_str());
    digest.update(value);
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest.finalize()[..16]);
    hash
}
