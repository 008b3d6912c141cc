//! How a controller is started.

use std::path::PathBuf;

/// What `dev` and `run` were told on the command line.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Reload, samples and warnings of `dev`, or the strictness of `run`.
    pub mode: bellwire_config::Mode,
    /// The service files.
    pub files: Vec<PathBuf>,
    /// Address of the ingress door, over the file's.
    pub ingress: Option<String>,
    /// Address of the admin door, over the file's.
    pub admin: Option<String>,
    /// Start with an empty ledger.
    pub reset: bool,
    /// Send the example's samples once the controller is ready.
    pub samples: bool,
    /// Colours on the screen.
    pub color: bool,
    /// Facts as JSON lines instead of the screen.
    pub json: bool,
}
