//! The workers: warm processes behind the Lambda Runtime API, and HTTP endpoints, behind one trait.
//!
//! This room runs one invocation when told to and says how it ended. It knows nothing of bindings, retries or the
//! ledger. Read `invoke.rs` first (the contract), then `pool/` (processes) and `runtime_api/` (what they speak);
//! `http/` calls endpoints, `outlet.rs` sends to destinations, `emit.rs` takes events that functions send while they run, `bootstraps/`
//! holds the programs that run plain handlers, `exec.rs` is the last step before a worker's own program. Linux 5.4 or newer.

pub mod bootstraps;
pub mod emit;
pub mod exec;
pub mod http;
pub mod invoke;
pub mod outlet;
pub mod pool;
pub mod runtime_api;

/// Log target of workers that cannot start: `dev` shows the same on its screen, and leaves these lines out.
pub const START_LOG: &str = "bellwire_workers::start";

pub use emit::Emission;
pub use exec::exec_main;
pub use http::tls::tls_config;
pub use invoke::{Answer, Consent, Invocation, InvocationResult, Invoker};
pub use outlet::{DESTINATION_REFUSED, DESTINATION_UNAVAILABLE, Opener};
pub use pool::status::{Condition, FunctionStatus};
pub use pool::{Applied, Workers, WorkersConfig, WorkersError};
