//! One controller as a child process, in a folder of its own, on ports of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout_at};

use crate::load::{Door, client};

/// How long a condition may take to come true before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a configuration, and the controller that runs it.
pub struct Stack {
    /// The folder.
    pub folder: tempfile::TempDir,
    /// The HTTP client of the test.
    pub http: reqwest::Client,
    child: Option<Child>,
    /// Base URL of the ingress door.
    pub ingress: String,
    /// Base URL of the admin door.
    pub admin: String,
    /// The token made at start.
    pub token: String,
    /// Variables that the controller is started with, beside `PATH` and `TEST_DIR`.
    env: Vec<(String, String)>,
}

/// The `bellwire` program beside the tests, or the one that `BELLWIRE_BIN` names.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("BELLWIRE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a process knows its program");
    let folder = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
    folder.join("bellwire")
}

impl Stack {
    /// Writes `bellwire.yaml` and the other files into a new folder.
    ///
    /// # Errors
    /// When the folder is not writable.
    pub fn new(yaml: &str, files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the test")?;
        fs::write(folder.path().join("bellwire.yaml"), yaml)?;
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().context("a file has a folder")?)?;
            fs::write(path, text)?;
        }
        Ok(Self {
            folder,
            http: client(),
            child: None,
            ingress: String::new(),
            admin: String::new(),
            token: String::new(),
            env: Vec::new(),
        })
    }

    /// Sets a variable for every start from now on, and for the CLI.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.push((name.into(), value.into()));
    }

    /// Where it takes events.
    pub fn door(&self) -> Door {
        Door { ingress: self.ingress.clone(), token: self.token.clone() }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the controller and waits until it answers. `failpoints` arms crash points
    /// (`append.after_commit=3*off->return`).
    ///
    /// # Errors
    /// When it ends, or does not answer in time; its log is in the message.
    pub async fn start(&mut self, failpoints: Option<&str>) -> anyhow::Result<()> {
        ensure!(
            program().exists(),
            "{} is not built: cargo build -p bellwire-controller",
            program().display()
        );
        let log = fs::File::options().create(true).append(true).open(self.path("controller.log"))?;
        let mut command = Command::new(program());
        command
            .args(["run", "-f", "bellwire.yaml", "--ingress", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TEST_DIR", self.folder.path())
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        if let Some(points) = failpoints {
            command.env("FAILPOINTS", points);
        }
        let child = command.spawn().context("start the controller")?;
        let pid = child.id().context("the controller has a pid")?;
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.read_address(pid) && self.get("/healthz/live").await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                bail!("the controller ended with {status}:\n{}", self.log());
            }
            ensure!(Instant::now() < deadline, "the controller does not answer:\n{}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn read_address(&mut self, pid: u32) -> bool {
        let Ok(text) = fs::read_to_string(self.path(".bellwire/controller.json")) else { return false };
        let Ok(file) = serde_json::from_str::<Value>(&text) else { return false };
        if file["pid"] != pid {
            return false;
        }
        let text = |name: &str| file[name].as_str().unwrap_or_default().to_string();
        (self.admin, self.ingress, self.token) = (text("url"), text("ingress"), text("token"));
        true
    }

    /// Everything that the controller logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("controller.log")).unwrap_or_default()
    }

    /// The process id of the controller.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Ends the controller as a power cut would: SIGKILL.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await;
        }
    }

    /// Asks the controller to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("the controller runs")?;
        signal(child.id().context("the controller has a pid")?, "TERM")?;
        Ok(timeout_at(Instant::now() + PATIENCE, child.wait())
            .await
            .context("the controller did not end")??)
    }

    /// Waits until the controller ended by itself.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("the controller runs")?;
        Ok(timeout_at(Instant::now() + PATIENCE, child.wait())
            .await
            .context("the controller did not end")??)
    }

    /// Whether the controller still runs.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| matches!(c.try_wait(), Ok(None)))
    }

    /// `GET` on the admin door.
    ///
    /// # Errors
    /// When there is no answer, or one that is not 2xx.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.http.get(format!("{}{path}", self.admin)).bearer_auth(&self.token).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "GET {path}: {status} {text}");
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// `POST` on the admin door.
    ///
    /// # Errors
    /// When there is no answer, or one that is not 2xx.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}{path}", self.admin)).bearer_auth(&self.token).json(body);
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "POST {path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// A request to the ingress door: status and body.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<(u16, Value)> {
        let mut request = self.http.post(format!("{}{path}", self.ingress)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Publishes to a topic with the token.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn publish(&self, topic: &str, body: impl Into<reqwest::Body>) -> anyhow::Result<(u16, Value)> {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/cloudevents+json")];
        self.send(&format!("/topics/{topic}"), &headers, body).await
    }

    /// The ids of the events that ended as dead letters.
    ///
    /// # Errors
    /// When the controller does not answer.
    pub async fn dead_ids(&self) -> anyhow::Result<BTreeSet<String>> {
        let mut ids = BTreeSet::new();
        for dead in self.pages("/v1/dead-letters?limit=1000").await? {
            let address = dead["address"].as_str().context("a dead letter has an address")?;
            let event = self.get(&format!("/v1/events/{address}")).await?;
            ids.insert(event["id"].as_str().context("an event has an id")?.to_string());
        }
        Ok(ids)
    }

    /// The ids of all stored events, one entry for each place in the ledger.
    ///
    /// # Errors
    /// When the controller does not answer.
    pub async fn stored_ids(&self) -> anyhow::Result<Vec<String>> {
        let events = self.pages("/v1/events?limit=1000").await?;
        events.iter().map(|e| Ok(e["id"].as_str().context("an event has an id")?.to_string())).collect()
    }

    /// All items of a list of the admin API, page after page.
    ///
    /// # Errors
    /// When the controller does not answer.
    pub async fn pages(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let mut page = self.get(&format!("{path}{cursor}")).await?;
            items.append(page["items"].as_array_mut().context("a list has items")?);
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// Runs the CLI in the folder: exit code, stdout, stderr.
    ///
    /// # Errors
    /// When it cannot be started or hangs.
    pub async fn cli(&self, args: &[&str]) -> anyhow::Result<(i32, String, String)> {
        cli(self.folder.path(), args).await
    }

    /// Waits until no binding owes anything: nothing waits, runs or is to be retried.
    ///
    /// # Errors
    /// When it takes longer than [`PATIENCE`]; the last status is in the message.
    pub async fn settled(&self) -> anyhow::Result<Value> {
        self.until("/v1/status", |status| {
            status["bindings"].as_array().is_some_and(|bindings| {
                bindings.iter().all(|b| b["waiting"] == 0 && b["running"] == 0 && b["retrying"] == 0)
            })
        })
        .await
    }

    /// Polls a path of the admin door until the answer satisfies a condition.
    ///
    /// # Errors
    /// When it takes longer than [`PATIENCE`].
    pub async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let last = self.get(path).await;
            if let Ok(value) = &last
                && holds(value)
            {
                return last;
            }
            if Instant::now() >= deadline {
                bail!("{path} never came true; last: {last:?}\n{}", self.log());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Sends a signal (`TERM`, `KILL`, `STOP`, `CONT`) to a process.
///
/// # Errors
/// When the program `kill` is missing or refuses.
pub fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = std::process::Command::new("kill").args(["-s", name, &pid.to_string()]).status()?;
    ensure!(status.success(), "kill -s {name} {pid}: {status}");
    Ok(())
}

/// Runs the CLI in a folder: exit code, stdout, stderr.
///
/// # Errors
/// When it cannot be started or hangs.
pub async fn cli(folder: &Path, args: &[&str]) -> anyhow::Result<(i32, String, String)> {
    let output = Command::new(program())
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout_at(Instant::now() + PATIENCE, output).await.context("the command hangs")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
}
