//! A world for tests: variables, files and folders that exist only here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bellwire_config::{Env, FileText, Loaded, Mode, Report};

/// Where the files of these tests lie.
pub const BASE: &str = "/srv/app";

/// Variables and files, by absolute path.
#[derive(Clone, Debug, Default)]
pub struct World {
    vars: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, FileText>,
}

impl World {
    /// A world with the handlers that the examples name.
    pub fn usual() -> Self {
        let mut world = Self::default();
        for handler in [
            "hello.py",
            "thumbnail.py",
            "report.py",
            "app/price.py",
            "app/ship.py",
            "app/invoice.py",
            "web/index.mjs",
            "both.py",
            "both.js",
            "typed.ts",
        ] {
            world = world.file(handler, "", false);
        }
        world
            .file("secrets/own", "from-a-file\n", false)
            .file("secrets/open", "too-open", true)
            .file("/run/secrets/alerts", "signing", false)
            .var("LEDGER_URL", "postgres://bellwire:pw@db/bellwire")
            .file("certs/ca.pem", "-----BEGIN CERTIFICATE-----\nroot\n", true)
            .file("certs/own.pem", "-----BEGIN CERTIFICATE-----\nown\n", true)
            .file("certs/own.key", "-----BEGIN PRIVATE KEY-----\nown\n", false)
            .var("AMQP_URL", "amqp://mq")
            .var("UPLOADS_QUEUE_URL", "https://sqs.eu-central-1.amazonaws.com/123456789012/uploads")
            .var("DB_URL", "postgres://db/orders")
            .var("TOKEN", "from-a-variable")
            .var("COUNT", "7")
            .var("GITHUB_SECRET", "hook-secret")
    }

    /// Adds a variable.
    pub fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    /// Adds a file below [`BASE`].
    pub fn file(mut self, path: &str, text: &str, others_can_read: bool) -> Self {
        let file = FileText { bytes: text.into(), others_can_read };
        self.files.insert(Path::new(BASE).join(path), file);
        self
    }

    /// Adds a file that is no text.
    pub fn bytes(mut self, path: &str, bytes: Vec<u8>) -> Self {
        self.files.insert(Path::new(BASE).join(path), FileText { bytes, others_can_read: false });
        self
    }

    /// Reads a text as `bellwire.yaml` of [`BASE`].
    pub fn parse(&self, text: &str, mode: Mode) -> Result<Loaded, Report> {
        bellwire_config::parse(text, "bellwire.yaml", Path::new(BASE), mode, self)
    }
}

impl Env for World {
    fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).cloned()
    }

    fn read_file(&self, path: &Path) -> io::Result<FileText> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn is_file(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    fn is_folder(&self, path: &Path) -> bool {
        path == Path::new(BASE) || self.files.keys().any(|file| file.starts_with(path) && file != path)
    }
}
