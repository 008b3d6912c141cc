//! The workers: warm processes behind the Lambda Runtime API, and HTTP endpoints, behind one trait.
//!
//! This room runs one invocation when told to and says how it ended. It knows nothing of bindings, retries or the
//! ledger. Read `invoke.rs` first (the contract), then `pool/` (processes) and `runtime_api/` (what they speak).

pub mod invoke;

pub use invoke::{Answer, Invocation, InvocationResult, Invoker};
