//! `init`: a new service from a template. The templates are the examples of the repository: there is one copy.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::Context;
use crate::cli::exit::{Answer, Exit, Failure};
use crate::cli::later::not_yet;
use crate::cli::out::Out;

/// Flags of `init`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  bellwire init mine && cd mine && bellwire dev\n  bellwire init shots --template thumbnails\n\n\
    Exit code 5: one of the files exists already; nothing was written."
)]
pub struct InitArgs {
    /// The folder, made if need be.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// What to begin with: hello (eight lines) or thumbnails (the example of the manual).
    #[arg(long, value_name = "NAME", default_value = "hello")]
    template: String,
}

/// A file of a template: its path in the new folder, and its bytes.
type Entry = (&'static str, &'static [u8]);

macro_rules! template {
    ($folder:literal: $($path:literal),+ $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../../../examples/", $folder, "/", $path)))),+]
    };
}

const HELLO: &[Entry] = template!("hello": "bellwire.yaml", "hello.py", ".gitignore");

const THUMBNAILS: &[Entry] = template!(
    "thumbnails":
    "bellwire.yaml",
    "thumbnail.py",
    "report.py",
    "image_size.py",
    "README.md",
    ".gitignore",
    "photos/cat.jpg",
    "photos/grey.gif",
    "photos/kitten.png",
    "photos/flaky.jpg",
    "photos/poison.jpg",
    "samples/01-cat.json",
    "samples/02-flaky.json",
    "samples/03-poison.json",
    "samples/04-removed.json",
    "samples/05-push.json",
    "samples/06-tick.json",
);

/// Runs the command.
pub fn run(context: &Context, args: &InitArgs) -> Answer {
    let files = match args.template.as_str() {
        "hello" => HELLO,
        "thumbnails" => THUMBNAILS,
        "orders" => return Err(not_yet("--template orders")),
        other => {
            let failure = Failure::usage(format!("`{other}` is no template"));
            return Err(failure.help("there are `hello` and `thumbnails`"));
        }
    };
    write_all(&args.dir, files)?;
    report(&context.out, &args.dir, files)
}

/// Writes all files, or none when one of them is there already.
fn write_all(dir: &Path, files: &[Entry]) -> Result<(), Failure> {
    let taken: Vec<_> =
        files.iter().map(|(path, _)| dir.join(path)).filter(|path| path.symlink_metadata().is_ok()).collect();
    if let Some(first) = taken.first() {
        let exist = match taken.len() - 1 {
            0 => " exists".into(),
            more => format!(" and {more} more exist"),
        };
        let failure =
            Failure::new(Exit::Conflict, format!("{}{exist} already: nothing was written", first.display()));
        return Err(failure.help("choose another folder: bellwire init FOLDER"));
    }
    files.iter().try_for_each(|(path, bytes)| {
        let path = dir.join(path);
        write(&path, bytes).map_err(|e| Failure::new(Exit::No, format!("write {}: {e}", path.display())))
    })
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // create_new: a file that appeared since the check is not overwritten either.
    fs::OpenOptions::new().write(true).create_new(true).open(path)?.write_all(bytes)
}

fn report(out: &Out, dir: &Path, files: &[Entry]) -> Answer {
    if out.json {
        let files: Vec<_> = files.iter().map(|(path, _)| dir.join(path)).collect();
        out.value(&json!({"files": files}))?;
        return Ok(Exit::Done);
    }
    for (path, _) in files {
        out.line(format!("wrote {}", dir.join(path).display()))?;
    }
    let go = if dir == Path::new(".") { String::new() } else { format!("cd {} && ", dir.display()) };
    out.note(&format!("\nnext: {go}bellwire dev"));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_written_once_and_never_over_anything() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("mine");
        write_all(&dir, HELLO).unwrap();
        fs::write(dir.join("hello.py"), "mine").unwrap();
        fs::remove_file(dir.join("bellwire.yaml")).unwrap();
        let failure = write_all(&dir, HELLO).unwrap_err();
        assert_eq!(failure.exit, Exit::Conflict);
        assert!(failure.message.contains("hello.py"), "{failure}");
        assert_eq!(fs::read_to_string(dir.join("hello.py")).unwrap(), "mine");
        assert!(!dir.join("bellwire.yaml").exists(), "all or nothing");
    }

    #[test]
    fn templates_are_whole() {
        let embedded = |folder: &str| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(folder);
            let mut found = Vec::new();
            let mut open = vec![root.clone()];
            while let Some(next) = open.pop() {
                for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
                    let name = entry.file_name();
                    if [".bellwire", "out", "__pycache__"].iter().any(|skip| name == *skip) {
                        continue;
                    }
                    if entry.path().is_dir() {
                        open.push(entry.path());
                    } else {
                        found.push(entry.path().strip_prefix(&root).unwrap().display().to_string());
                    }
                }
            }
            found.sort();
            found
        };
        for (folder, files) in [("hello", HELLO), ("thumbnails", THUMBNAILS)] {
            let mut names: Vec<_> = files.iter().map(|(path, _)| (*path).to_owned()).collect();
            names.sort();
            assert_eq!(names, embedded(folder), "every file of examples/{folder} belongs to its template");
        }
    }
}
