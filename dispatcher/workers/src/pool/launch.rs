//! From a function's declaration to the command line and environment of its workers.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, PipeReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bellwire_schemas::service::{FunctionSpec, Target};
use bellwire_schemas::{ErrorInfo, FailureClass};

use crate::bootstraps::interpreter::{Interpreters, Language, find_program};
use crate::bootstraps::{NODE, PYTHON};

/// Room above the declared memory for what a process maps but does not use; resident memory is watched apart.
const MEMORY_SLACK_BYTES: u64 = 256 * 1024 * 1024;
/// Region that functions see unless their environment names one.
pub const DEFAULT_REGION: &str = "us-east-1";

/// Folders and programs that all workers share.
#[derive(Debug)]
pub struct Ground {
    launcher: Option<PathBuf>,
    path: OsString,
    python: PathBuf,
    node: PathBuf,
    homes: PathBuf,
    caches: PathBuf,
    /// Interpreters found so far.
    pub interpreters: Interpreters,
}

/// What is run for one version: found once, used for each of its workers.
#[derive(Clone, Debug)]
pub struct Program {
    file: PathBuf,
    args: Vec<OsString>,
    /// Given to the bundled bootstraps; other programs get the function's name unless the user sets another.
    handler: Option<String>,
    path: OsString,
}

impl Ground {
    /// Writes the bootstraps below `state_dir` (folders 0700, files 0600).
    ///
    /// # Errors
    /// When that is not possible.
    pub fn prepare(state_dir: &Path, launcher: Option<PathBuf>, path: OsString) -> io::Result<Self> {
        private_dir(state_dir)?;
        let state_dir = state_dir.canonicalize()?;
        let dir = |name: &str| {
            let dir = state_dir.join(name);
            private_dir(&dir).map(|()| dir)
        };
        let bootstraps = dir("bootstraps")?;
        let (python, node) = (bootstraps.join("bootstrap.py"), bootstraps.join("bootstrap.cjs"));
        write_private(&python, PYTHON)?;
        write_private(&node, NODE)?;
        // Caches of versions that nobody runs any more.
        let _ = fs::remove_dir_all(state_dir.join("caches"));
        let (homes, caches) = (dir("homes")?, dir("caches")?);
        Ok(Self { launcher, path, python, node, homes, caches, interpreters: Interpreters::default() })
    }

    /// Finds what to run for a function.
    ///
    /// # Errors
    /// When the code folder or the program does not exist, or an interpreter is not of the demanded version.
    pub async fn program(&self, spec: &FunctionSpec) -> Result<Program, ErrorInfo> {
        if !spec.code.is_dir() {
            let message = format!("the code folder {} does not exist", spec.code.display());
            return Err(invalid_entry(message));
        }
        let path = self.search_path(&spec.code);
        let bootstrap = |file, script: &Path, handler: &str| {
            let args = vec![script.into()];
            Program { file, args, handler: Some(handler.to_owned()), path: path.clone() }
        };
        match &spec.target {
            Target::Python { handler, version } => {
                let file =
                    self.interpreters.find(Language::Python, version.as_deref(), &spec.code, &path).await?;
                let mut program = bootstrap(file, &self.python, handler);
                program.args.insert(0, "-u".into());
                Ok(program)
            }
            Target::Node { handler, version } => {
                let file =
                    self.interpreters.find(Language::Node, version.as_deref(), &spec.code, &path).await?;
                Ok(bootstrap(file, &self.node, handler))
            }
            Target::Command(words) => {
                let (first, rest) =
                    words.split_first().ok_or_else(|| invalid_entry("the command is empty"))?;
                let file = find_program(first, &spec.code, &path).ok_or_else(|| {
                    invalid_entry(format!(
                        "the program `{first}` was not found in the code folder or the PATH"
                    ))
                })?;
                let args = rest.iter().map(OsString::from).collect();
                Ok(Program { file, args, handler: None, path })
            }
            Target::Url(_) => Err(invalid_entry("an endpoint has no workers")),
            Target::Destination(_) => Err(invalid_entry("a destination has no workers")),
        }
    }

    /// Builds the command of one worker, and the read end of its output pipe.
    ///
    /// # Errors
    /// When folders or pipes cannot be made.
    pub fn command(
        &self,
        spec: &FunctionSpec,
        program: &Program,
        seat: &Seat<'_>,
    ) -> io::Result<(Command, PipeReader)> {
        let home = self.homes.join(spec.name.as_str());
        private_dir(&home)?;
        let mut command = match &self.launcher {
            None => Command::new(&program.file),
            Some(launcher) => {
                let memory = spec.memory.0.saturating_mul(2).saturating_add(MEMORY_SLACK_BYTES);
                let mut command = Command::new(launcher);
                command.args(["__exec", "--parent", &std::process::id().to_string()]);
                command.args(["--memory-bytes", &memory.to_string(), "--"]).arg(&program.file);
                command
            }
        };
        let (output, input) = io::pipe()?;
        command.args(&program.args).current_dir(&spec.code).process_group(0);
        command.env_clear().envs(self.environment(spec, program, seat, &home));
        command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
        Ok((command, output))
    }

    /// The whole environment of a worker. The user's values win over the defaults, the protocol's over both.
    fn environment(
        &self,
        spec: &FunctionSpec,
        program: &Program,
        seat: &Seat<'_>,
        home: &Path,
    ) -> BTreeMap<OsString, OsString> {
        let mut all: BTreeMap<OsString, OsString> = BTreeMap::new();
        let mut set = |name: &str, value: &OsStr| {
            all.insert(name.into(), value.to_owned());
        };
        set("PATH", &program.path);
        set("HOME", home.as_os_str());
        set("LANG", "C.UTF-8".as_ref());
        set("TZ", ":UTC".as_ref());
        set("AWS_REGION", DEFAULT_REGION.as_ref());
        set("AWS_DEFAULT_REGION", region(spec).as_ref());
        // A cache of its own for each version: Python compares whole seconds and sizes only, so a quick edit of the
        // same length would run the old code.
        set("PYTHONPYCACHEPREFIX", self.caches.join(seat.version).as_os_str());
        set("_HANDLER", spec.name.as_str().as_ref());
        for (name, value) in &spec.environment {
            set(name, value.expose().as_ref());
        }
        if let Some(handler) = &program.handler {
            set("_HANDLER", handler.as_ref());
        }
        let megabytes = spec.memory.0.div_ceil(1024 * 1024).to_string();
        let stream = format!("{}/{}", seat.version, seat.number);
        set("AWS_LAMBDA_RUNTIME_API", seat.address.to_string().as_ref());
        set("LAMBDA_TASK_ROOT", spec.code.as_os_str());
        set("AWS_LAMBDA_FUNCTION_NAME", spec.name.as_str().as_ref());
        set("AWS_LAMBDA_FUNCTION_VERSION", seat.version.as_ref());
        set("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", megabytes.as_ref());
        set("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", spec.name).as_ref());
        set("AWS_LAMBDA_LOG_STREAM_NAME", stream.as_ref());
        set("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".as_ref());
        // Would make clients expect what is not served: several events at once, framed logs.
        all.remove(OsStr::new("AWS_LAMBDA_MAX_CONCURRENCY"));
        all.remove(OsStr::new("_LAMBDA_TELEMETRY_LOG_FD"));
        all
    }

    /// The controller's PATH, behind what is installed beside the code.
    fn search_path(&self, code: &Path) -> OsString {
        let beside = [code.join(".venv/bin"), code.join("node_modules/.bin")];
        let beside = beside.into_iter().filter(|dir| dir.is_dir());
        let all = beside.chain(std::env::split_paths(&self.path).filter(|dir| dir.is_absolute()));
        std::env::join_paths(all).unwrap_or_else(|_| self.path.clone())
    }
}

/// Which worker a command is for.
pub struct Seat<'a> {
    /// Its number.
    pub number: u32,
    /// Its function's version.
    pub version: &'a str,
    /// Where its Runtime API listens.
    pub address: SocketAddr,
}

/// The region a function sees.
pub fn region(spec: &FunctionSpec) -> &str {
    spec.environment.get("AWS_REGION").map_or(DEFAULT_REGION, |region| region.expose())
}

/// A worker that cannot be started as declared.
pub fn invalid_entry(message: impl Into<String>) -> ErrorInfo {
    ErrorInfo::platform(FailureClass::CannotStart, "Runtime.InvalidEntrypoint", message)
}

fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}
