//! Wrong files: each `tests/bad/<name>.yaml` is refused with exactly the text of `<name>.txt`.
//!
//! Names that begin with `dev-` are read as `dev` does. After a wanted change of wording, run once with
//! `BELLWIRE_WRITE_EXPECTED=1` and read the difference.

use std::fs;
use std::path::Path;

use bellwire_config::Mode;

use crate::world::World;

#[test]
fn every_wrong_file_is_refused_in_these_words() {
    let write = std::env::var_os("BELLWIRE_WRITE_EXPECTED").is_some();
    let mut names: Vec<_> = fs::read_dir("tests/bad").unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    names.sort();
    assert!(names.len() >= 30, "only {} wrong files", names.len());
    let mut different = Vec::new();
    for path in &names {
        let said = say(path);
        let expected = path.with_extension("txt");
        if write {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            different.push(format!("{}\n{said}", path.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

fn say(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let dev = path.file_name().unwrap().to_string_lossy().starts_with("dev-");
    match World::usual().parse(&text, if dev { Mode::Dev } else { Mode::Run }) {
        Ok(loaded) => format!("{}fine\n", loaded.render_warnings(false)),
        Err(report) => format!("{}{}\n", report.render(false), report.tally()),
    }
}
