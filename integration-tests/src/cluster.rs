//! Several controllers over one ledger, each a process with a state folder and doors of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitStatus;

use anyhow::Context;
use serde_json::{Value, json};

use crate::load::Doors;
use crate::{Oracle, Stack};

/// Controllers that run the same service file. The functions' notes of all of them lie in one folder.
pub struct Cluster {
    /// The folder of the notes: `TEST_DIR` of all controllers.
    pub folder: tempfile::TempDir,
    /// The controllers, running or not.
    pub members: Vec<Stack>,
    /// Where they take events.
    pub doors: Doors,
}

impl Cluster {
    /// One controller per ledger URL, not started yet; they may reach the same ledger on different ways. The service
    /// file finds its own in `LEDGER_URL`, a name of the controller in `WHO` (`c0`, `c1`, …).
    ///
    /// # Errors
    /// When a folder is not writable.
    pub fn new(yaml: &str, files: &[(&str, &str)], ledgers: &[String]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the notes")?;
        let yaml = format!("ledger: ${{env:LEDGER_URL}}\n{yaml}");
        let member = |(number, url): (usize, &String)| {
            let mut stack = Stack::new(&yaml, files)?;
            stack.set_env("LEDGER_URL", url);
            stack.set_env("WHO", &format!("c{number}"));
            stack.set_env("TEST_DIR", &folder.path().display().to_string());
            Ok(stack)
        };
        let members = ledgers.iter().enumerate().map(member).collect::<anyhow::Result<_>>()?;
        Ok(Self { folder, members, doors: Doors::default() })
    }

    /// Where the functions note their calls.
    pub fn notes(&self) -> PathBuf {
        self.folder.path().join("notes")
    }

    /// Starts a controller, armed with crash points if given, and lets senders know its door.
    ///
    /// # Errors
    /// When it does not come up; its log is in the message.
    pub async fn start(&mut self, number: usize, failpoints: Option<&str>) -> anyhow::Result<()> {
        self.members[number].start(failpoints).await.with_context(|| format!("controller c{number}"))?;
        self.doors.set(number, Some(self.members[number].door()));
        Ok(())
    }

    /// Starts all of them.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_all(&mut self) -> anyhow::Result<()> {
        for number in 0..self.members.len() {
            self.start(number, None).await?;
        }
        Ok(())
    }

    /// Ends a controller with SIGKILL. Senders find out by themselves.
    pub async fn kill(&mut self, number: usize) {
        self.members[number].kill().await;
    }

    /// Asks a controller to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(&mut self, number: usize) -> anyhow::Result<ExitStatus> {
        self.members[number].stop().await
    }

    /// A controller that runs.
    ///
    /// # Errors
    /// When none does.
    pub fn any(&self) -> anyhow::Result<&Stack> {
        self.members.iter().find(|m| m.pid().is_some()).context("no controller runs")
    }

    /// Waits until nothing is owed, as every running controller sees it.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn settled(&self) -> anyhow::Result<()> {
        for member in self.members.iter().filter(|m| m.pid().is_some()) {
            member.settled().await?;
        }
        Ok(())
    }

    /// What the controllers logged, for messages.
    pub fn logs(&self) -> String {
        let logs = self.members.iter().enumerate().map(|(n, m)| format!("== c{n}\n{}", m.log()));
        logs.collect::<Vec<_>>().join("\n")
    }

    /// The end of each scenario: waits for peace, then holds what the functions noted and what the ledger stores
    /// against what senders were promised. At most `duplicates` deliveries were repeated.
    ///
    /// # Errors
    /// When an event is lost, invented or stored twice, when more was repeated, or when the ledger's own books do not
    /// add up.
    pub async fn settle_and_count(&self, oracle: &Oracle, duplicates: usize) -> anyhow::Result<()> {
        self.settled().await?;
        let stack = self.any()?;
        let count = oracle.count(&self.notes(), &stack.dead_ids().await?);
        let stored = stack.stored_ids().await?;
        let distinct: BTreeSet<&String> = stored.iter().collect();
        println!(
            "{} acknowledged, {} stored, {} served, {} repeated (at most {duplicates} may be)",
            oracle.acknowledged.len(),
            stored.len(),
            count.served,
            count.duplicates
        );
        anyhow::ensure!(
            count.lost.is_empty(),
            "acknowledged events are lost: {:?}\n{}",
            count.lost,
            self.logs()
        );
        anyhow::ensure!(count.invented.is_empty(), "events were invented: {:?}", count.invented);
        anyhow::ensure!(distinct.len() == stored.len(), "events are stored twice: {:?}", repeated(&stored));
        anyhow::ensure!(
            count.duplicates <= duplicates,
            "{} deliveries repeated: {}",
            count.duplicates,
            self.logs()
        );
        let verified: Value = stack.post("/v1/verifications", &json!({})).await?;
        anyhow::ensure!(verified["complete"] == true, "the books do not add up: {verified}");
        let (code, out, err) = stack.cli(&["verify"]).await?;
        anyhow::ensure!(code == 0, "bellwire verify: {code}\n{out}\n{err}");
        Ok(())
    }
}

fn repeated(ids: &[String]) -> Vec<&String> {
    let mut seen = BTreeSet::new();
    ids.iter().filter(|id| !seen.insert(*id)).collect()
}
