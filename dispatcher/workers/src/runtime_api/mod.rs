//! The server side of the Lambda Runtime API, one loopback port for each worker.
//!
//! `machine.rs` decides what a call may do and what it is answered (pure); `desk.rs` holds the state that the
//! server and the pool share; `server.rs` speaks HTTP; `body.rs` reads answers and errors; `event.rs` builds what
//! `next` carries. The server refuses to time out `next`, and knows nothing of processes.

pub mod body;
pub mod desk;
pub mod event;
pub mod machine;
pub mod server;

/// Largest answer of a function: 6 MiB plus 100 bytes, as AWS's emulator limits it.
pub const MAX_ANSWER_BYTES: usize = 6 * 1024 * 1024 + 100;
