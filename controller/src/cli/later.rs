//! Words that the surface promises for a later release: refused by name, so that nobody takes them for typos.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::exit::Failure;

/// Commands of later releases; those of two words are subcommands.
const COMMANDS: [&str; 14] = [
    "apply",
    "bench",
    "context",
    "dead-letters edit",
    "functions logs",
    "functions rollback",
    "functions versions",
    "import",
    "lineage",
    "plan",
    "rollback",
    "sources pause",
    "sources resume",
    "workflows",
];

/// Flags of later releases.
const FLAGS: [&str; 6] = ["--against", "--context", "--namespace", "--no-destinations", "--rate", "--record"];

/// Flags that one command will have in a later release, and others have now.
const FLAGS_OF: [(&str, &str); 3] = [("verify", "--since"), ("verify", "--until"), ("verify", "--source")];

/// The refusal of a known word that this release does not have; `None` for every other error of clap.
pub fn refusal(error: &clap::Error, mut args: impl Iterator<Item = String>) -> Option<Failure> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let word = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let last = text(ContextKind::InvalidSubcommand)?;
            let before: Vec<_> =
                args.take_while(|arg| *arg != last).filter(|arg| !arg.starts_with('-')).collect();
            let whole = before.last().map_or_else(|| last.clone(), |parent| format!("{parent} {last}"));
            COMMANDS.into_iter().find(|known| *known == whole || (*known == last && before.is_empty()))?
        }
        ErrorKind::UnknownArgument => {
            let flag = text(ContextKind::InvalidArg)?;
            let flag = flag.split(['=', ' ']).next()?;
            let command = args.find(|arg| !arg.starts_with('-'));
            let mut of_command = FLAGS_OF.into_iter().filter(|(of, _)| command.as_deref() == Some(of));
            let known = FLAGS.into_iter().find(|known| *known == flag);
            known.or_else(|| of_command.find(|(_, known)| *known == flag).map(|(_, known)| known))?
        }
        _ => return None,
    };
    Some(not_yet(word))
}

/// The refusal of a word.
pub fn not_yet(word: &str) -> Failure {
    Failure::usage(format!("`{word}` is not supported yet"))
        .help("`bellwire --help` lists what this release has")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::Cli;

    fn refused(line: &str) -> Option<String> {
        let words = line.split(' ').map(String::from);
        let error = Cli::try_parse_from(std::iter::once("bellwire".into()).chain(words.clone())).unwrap_err();
        refusal(&error, words).map(|f| f.to_string())
    }

    #[test]
    fn later_words_are_told_from_typos() {
        for (line, word) in [
            ("plan", "plan"),
            ("import serverless.yml -o x", "import"),
            ("--json apply --against 24h", "apply"),
            ("functions logs thumbnail", "functions logs"),
            ("dead-letters edit 1-3", "dead-letters edit"),
            ("status --namespace shop", "--namespace"),
            ("replay 1-3 --rate=100/s", "--rate"),
            ("verify --since 24h", "--since"),
        ] {
            assert_eq!(refused(line), Some(format!("`{word}` is not supported yet")), "{line}");
        }
        for line in ["plam", "status --nonsense", "functions frob", "events plan", "send"] {
            assert_eq!(refused(line), None, "{line}");
        }
    }
}
