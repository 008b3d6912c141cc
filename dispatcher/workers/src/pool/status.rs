//! What the pool says about its functions.

use bellwire_schemas::{ErrorInfo, FunctionName, Timestamp};
use serde::Serialize;

/// One function, now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FunctionStatus {
    /// Its name.
    pub name: FunctionName,
    /// Version that new invocations go to.
    pub version: String,
    /// Invocations allowed at once.
    pub concurrency: u32,
    /// Workers that wait for work; 0 for endpoints.
    pub idle: u32,
    /// Invocations that run, on any version.
    pub busy: u32,
    /// Workers that are starting; 0 for endpoints.
    pub starting: u32,
    /// Invocations that wait for a worker or a place.
    pub waiting: u32,
    /// Whether workers can start.
    pub condition: Condition,
    /// Invocations ended since this process started.
    pub invocations: u64,
    /// Those of them that failed.
    pub failures: u64,
}

/// Whether a function's workers can start.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Condition {
    /// They can, as far as known.
    #[default]
    Ok,
    /// The last start failed; invocations get this error at once until `next_try`.
    CannotStart {
        /// Why.
        error: ErrorInfo,
        /// When it failed for the first time in this row of failures.
        since: Timestamp,
        /// From when an invocation starts a worker again.
        next_try: Timestamp,
    },
}
