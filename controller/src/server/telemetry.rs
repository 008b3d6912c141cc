//! Logs of the controller itself, on standard error.

use tracing_subscriber::EnvFilter;

/// Starts logging at a level (`error warn info debug trace`), as text or JSON lines. A second call changes nothing.
pub fn init(level: &str, json: bool, color: bool) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color);
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
}
