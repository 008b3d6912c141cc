//! Senders: several at once, each believing every answer it gets and trying another controller when there is none.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::{bail, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::Oracle;
use crate::stack::PATIENCE;

/// One event in this many asks the function to fail, so that there are retries and dead letters too.
const POISON_EVERY: usize = 50;
/// How long a sender waits after a refusal or a failed connection, as a polite client does.
const PAUSE: Duration = Duration::from_millis(20);

/// Where one controller takes events.
#[derive(Clone, Debug)]
pub struct Door {
    /// Base URL of its ingress door.
    pub ingress: String,
    /// Its token.
    pub token: String,
}

impl Door {
    /// Publishes a CloudEvent to a topic: status and body.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn publish(
        &self,
        http: &reqwest::Client,
        topic: &str,
        body: String,
    ) -> anyhow::Result<(u16, Value)> {
        let request = http.post(format!("{}/topics/{topic}", self.ingress)).bearer_auth(&self.token);
        let answer = request.header("content-type", "application/cloudevents+json").body(body).send().await?;
        let (status, text) = (answer.status().as_u16(), answer.text().await?);
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }
}

/// The doors of a cluster's controllers, by their number; senders see changes at once.
#[derive(Clone, Debug, Default)]
pub struct Doors(Arc<RwLock<Vec<Option<Door>>>>);

impl Doors {
    /// Says where a controller takes events now.
    pub fn set(&self, controller: usize, door: Option<Door>) {
        let mut doors = self.0.write().expect("no code panics while it holds this lock");
        if doors.len() <= controller {
            doors.resize(controller + 1, None);
        }
        doors[controller] = door;
    }

    /// The door of one of them, in turn by number.
    pub fn pick(&self, number: usize) -> Option<Door> {
        let doors = self.0.read().expect("no code panics while it holds this lock");
        doors.get(number % doors.len().max(1)).cloned().flatten()
    }
}

/// Senders at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    senders: JoinSet<anyhow::Result<Oracle>>,
}

/// What senders were told so far.
#[derive(Debug, Default)]
struct Seen {
    accepted: AtomicUsize,
    refused: AtomicUsize,
    unanswered: AtomicUsize,
}

impl Load {
    /// Starts senders to the topic `work`. Ids begin with `name`, so that several loads do not mix.
    pub fn start(doors: &Doors, senders: usize, name: &str) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
        let mut tasks = JoinSet::new();
        for number in 0..senders {
            let sender = Sender {
                http: client(),
                doors: doors.clone(),
                preferred: number,
                stop: Arc::clone(&stop),
                seen: Arc::clone(&seen),
                oracle: Oracle::default(),
            };
            tasks.spawn(sender.run(format!("{name}-{number}")));
        }
        Self { stop, seen, senders: tasks }
    }

    /// Events acknowledged so far.
    pub fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::SeqCst)
    }

    /// Answers so far that told a sender to come back (429, 503).
    pub fn refused(&self) -> usize {
        self.seen.refused.load(Ordering::SeqCst)
    }

    /// Requests so far that got no answer.
    pub fn unanswered(&self) -> usize {
        self.seen.unanswered.load(Ordering::SeqCst)
    }

    /// Waits until so many more events were acknowledged than at this moment.
    ///
    /// # Errors
    /// When it takes longer than [`PATIENCE`].
    pub async fn accepts(&self, more: usize) -> anyhow::Result<()> {
        let goal = self.accepted() + more;
        self.until(|load| load.accepted() >= goal).await
    }

    /// Waits for a condition.
    ///
    /// # Errors
    /// When it takes longer than [`PATIENCE`].
    pub async fn until(&self, holds: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            ensure!(Instant::now() < deadline, "the senders do not get on: {:?}", self.seen);
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Stops the senders and tells what they were promised.
    ///
    /// # Errors
    /// When one got an answer that no sender should get.
    pub async fn finish(mut self) -> anyhow::Result<Oracle> {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Oracle::default();
        while let Some(oracle) = self.senders.join_next().await {
            all.merge(oracle??);
        }
        Ok(all)
    }
}

struct Sender {
    http: reqwest::Client,
    doors: Doors,
    preferred: usize,
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    oracle: Oracle,
}

impl Sender {
    async fn run(mut self, name: String) -> anyhow::Result<Oracle> {
        let mut number = 0;
        while !self.stop.load(Ordering::SeqCst) {
            self.send(format!("{name}-{number}"), number % POISON_EVERY == 7).await?;
            number += 1;
        }
        Ok(self.oracle)
    }

    /// Sends one event until it is acknowledged, under the same id, or until the senders are to stop.
    async fn send(&mut self, id: String, poison: bool) -> anyhow::Result<()> {
        let data = json!({ "poison": poison });
        let body = json!({"specversion": "1.0", "id": id, "source": "/test", "type": "test", "data": data})
            .to_string();
        self.oracle.unknown.insert(id.clone());
        while !self.stop.load(Ordering::SeqCst) {
            let answer = match self.doors.pick(self.preferred) {
                Some(door) => door.publish(&self.http, "work", body.clone()).await.ok(),
                None => None,
            };
            match answer {
                Some((202, _)) => {
                    self.oracle.acknowledged.insert(id);
                    self.seen.accepted.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
                Some((429 | 503, _)) => self.seen.refused.fetch_add(1, Ordering::SeqCst),
                Some((status, body)) => bail!("unexpected answer to {id}: {status} {body}"),
                None => self.seen.unanswered.fetch_add(1, Ordering::SeqCst),
            };
            self.preferred += 1;
            sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// A client of the test's: no proxy, patient enough for a door that waits for its ledger.
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build();
    client.expect("a client without special settings can be built")
}
