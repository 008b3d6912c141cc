//! How a command ends: the exit codes of the CLI, and the failures that lead to them.

use std::fmt;
use std::io;
use std::process::ExitCode;

use bellwire_schemas::api::ErrorBody;

/// The exit codes, stable since 0.1 (`docs/cli.md` lists them for users).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, the answer is yes.
    Done = 0,
    /// Done, the answer is no: errors found, the function failed, nothing matched, never seen.
    No = 1,
    /// A wrong flag or argument.
    Usage = 2,
    /// No controller or ledger can be reached.
    Unreachable = 3,
    /// Refused: the token or its role.
    Refused = 4,
    /// The state does not allow it.
    Conflict = 5,
    /// Something broke that should not.
    Internal = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The exit code of an HTTP status of the API.
    pub const fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Refused,
            404 => Self::No,
            409 | 412 => Self::Conflict,
            429 | 502 | 503 | 504 => Self::Unreachable,
            400..=499 => Self::Usage,
            _ => Self::Internal,
        }
    }
}

/// What a command comes to.
pub type Answer = Result<Exit, Failure>;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What failed and where; empty: nothing is printed.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Failure {
    /// A failure with its exit code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), help: None }
    }

    /// A wrong argument that clap cannot see.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Adds what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The failure that an error body of the API stands for.
    pub fn of_problem(body: &ErrorBody) -> Self {
        let exit = Exit::of_status(body.status);
        let mut message = body.title.clone();
        if !body.detail.is_empty() && body.detail != body.title {
            message =
                if message.is_empty() { body.detail.clone() } else { format!("{message}: {}", body.detail) };
        }
        if exit == Exit::Internal && !body.request_id.is_empty() {
            message.push_str(&format!(" (report id {})", body.request_id));
        }
        Self { exit, message, help: body.hint.clone() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<io::Error> for Failure {
    /// Errors of writing the answer: a reader that went away (`| head`) has seen enough.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Done, "");
        }
        Self::new(Exit::Internal, format!("write the answer: {error}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(Exit::Internal, format!("write the answer as JSON: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_exit_codes() {
        let codes = [
            (400, 2),
            (401, 4),
            (403, 4),
            (404, 1),
            (405, 2),
            (409, 5),
            (413, 2),
            (429, 3),
            (500, 6),
            (503, 3),
            (504, 3),
        ];
        for (status, code) in codes {
            assert_eq!(Exit::of_status(status) as i32, code, "{status}");
        }
    }

    #[test]
    fn a_problem_reads_as_title_detail_and_hint() {
        let body = ErrorBody {
            title: "there is no such thing".into(),
            status: 404,
            detail: "no binding is called `x`".into(),
            hint: Some("bellwire bindings list".into()),
            ..ErrorBody::default()
        };
        let failure = Failure::of_problem(&body);
        assert_eq!(failure.to_string(), "there is no such thing: no binding is called `x`");
        assert_eq!((failure.exit, failure.help.as_deref()), (Exit::No, Some("bellwire bindings list")));
        let internal =
            ErrorBody { status: 500, title: "broke".into(), request_id: "r1".into(), ..ErrorBody::default() };
        assert_eq!(Failure::of_problem(&internal).to_string(), "broke (report id r1)");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Done, ""));
    }
}
