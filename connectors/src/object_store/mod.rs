//! `s3`: notifications of object stores, posted to `/s3` or read out of a broker: one event per record, routed by bucket.
//!
//! The HTTP server checks the token. `envelope.rs` reads what AWS, MinIO, RustFS and Ceph send, also wrapped by SNS,
//! and EventBridge's own form; `door.rs` routes what is posted, `carrier.rs` what comes in messages; `sequencer.rs` orders records of one key. Bytes of a record are
//! never touched.

mod carrier;
mod config;
mod door;
pub mod envelope;
mod eventbridge;
mod sequencer;

#[cfg(test)]
mod tests;

pub(crate) use carrier::{Carried, Carriers};
pub use config::Buckets;
pub use door::StoreDoor;
pub use sequencer::compare_sequencers;
