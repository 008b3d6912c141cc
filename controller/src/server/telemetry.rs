//! Logs of the controller itself, on standard error.

use tracing_subscriber::EnvFilter;

/// Starts logging at a level (`error warn info debug trace`), as text or JSON lines. A second call changes nothing.
pub fn init(level: &str, json: bool, color: bool) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    // A log that cannot be written, because its reader has gone, must not take the controller along.
    let builder = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color);
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
}
