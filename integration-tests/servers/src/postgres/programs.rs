//! Where the server programs are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// The folder with `initdb`, `postgres` and `psql`: `BELLWIRE_TEST_PG_BIN`, else what `pg_config --bindir` names, else
/// the newest version in Debian's `/usr/lib/postgresql/*/bin`.
pub(super) fn find() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("BELLWIRE_TEST_PG_BIN") {
        let folder = PathBuf::from(folder);
        if !complete(&folder) {
            bail!("BELLWIRE_TEST_PG_BIN: no initdb and postgres in {}", folder.display());
        }
        return Ok(folder);
    }
    let named = Command::new("pg_config").arg("--bindir").output().ok();
    let named = named.and_then(|o| Some(PathBuf::from(String::from_utf8(o.stdout).ok()?.trim())));
    named
        .filter(|f| complete(f))
        .or_else(newest_of_debian)
        .context("find the PostgreSQL server programs: install the package postgresql")
}

/// A client program: beside the server's, else by the search path.
pub(super) fn client(folder: &Path, name: &str) -> PathBuf {
    let beside = folder.join(name);
    if beside.exists() { beside } else { name.into() }
}

fn complete(folder: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|p| folder.join(p).exists())
}

fn newest_of_debian() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let version = |path: &Path| path.file_name().and_then(|n| n.to_str()?.parse::<u32>().ok()).unwrap_or(0);
    let best = versions.map(|e| e.path()).filter(|p| complete(&p.join("bin"))).max_by_key(|p| version(p))?;
    Some(best.join("bin"))
}
