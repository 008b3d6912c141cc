//! Killed, starved and failing: a child process works on a ledger until the parent ends it, or its disk does.
//!
//! The child is this test program again, at [`child`]. It prints a line for every answer it got; after its end the
//! parent opens the ledger and insists on each of them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bellwire_schemas::service::Start;
use bellwire_schemas::{Address, FinalState, Lane, Seq};

use super::oracle::assert_intact;
use super::tests::options;
use crate::conformance::build::*;
use crate::{Flush, FlushOutcome, Ledger, SqliteLedger};

const LANES: u16 = 2;
const FOLDER: &str = "BELLWIRE_TEST_LEDGER";

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

/// Not a test of its own: what the killed process runs.
#[test]
#[ignore = "the child of the tests in this file"]
fn child() {
    let Some(path) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let ledger = SqliteLedger::open(Path::new(&path), options(LANES)).unwrap();
        let ledger: Arc<dyn Ledger> = Arc::new(ledger);
        declare(&ledger, vec![binding("b:orders", Start::Earliest)]).await;
        let mut tasks = tokio::task::JoinSet::new();
        for caller in 0..4 {
            tasks.spawn(append_on_and_on(ledger.clone(), caller));
        }
        tasks.spawn(flush_on_and_on(ledger));
        tasks.join_all().await;
    });
}

async fn append_on_and_on(ledger: Arc<dyn Ledger>, caller: u64) {
    for n in 0u64.. {
        let ids: Vec<_> =
            (0..n % 5 + 1).map(|i| format!("{}-{caller}-{n}-{i}", std::process::id())).collect();
        let lane = |i: usize| Lane((i as u64 + caller) as u16 % LANES + 1);
        let events = ids.iter().enumerate().map(|(i, id)| event(id).lane(lane(i)).once(id, 3_600));
        match ledger.append(batch(events.collect()), at(n as i64)).await {
            Ok(answer) => {
                let told: Vec<_> = ids
                    .iter()
                    .zip(accepted(&answer))
                    .map(|(id, address)| format!("{id}={address}"))
                    .collect();
                say(&format!("appended {}", told.join(" ")));
            }
            Err(error) => {
                let again = ledger.append(batch(vec![event("after")]), at(0)).await;
                say(&format!("refused {error:?} then {again:?}"));
                return;
            }
        }
    }
}

async fn flush_on_and_on(ledger: Arc<dyn Ledger>) {
    let binding = ledger.bindings().await.unwrap()[0].id;
    let mut epochs = HashMap::new();
    for lane in (1..=LANES).map(Lane) {
        epochs.insert(lane, own(&ledger, lane).await);
    }
    loop {
        for (lane, epoch) in &epochs {
            let before = ledger.checkpoint(*lane, binding).await.unwrap();
            let tail = ledger.tail(*lane).await.unwrap().0.min(before.mark.0 + 50);
            let mut part = share(binding, before.version + 1, tail);
            for seq in before.mark.0 + 1..=tail {
                part = match seq % 7 {
                    0 => part.owes(seq, 1),
                    // Some bring forth one event more; fewer than end, so that the flushes keep up.
                    _ if seq % 3 > 0 => {
                        let other = Lane(LANES + 1 - lane.0);
                        let id = format!("of-{lane}-{seq}");
                        part.ends(seq, FinalState::Delivered).emits(event(&id).lane(other))
                    }
                    _ => part.ends(seq, FinalState::Delivered),
                };
            }
            let flush = Flush { lane: *lane, epoch: *epoch, at: at(0), bindings: vec![part] };
            match ledger.flush(flush).await {
                Ok(FlushOutcome::Flushed) => say(&format!("flushed {lane} {} {tail}", before.version + 1)),
                Ok(FlushOutcome::Fenced) => panic!("nobody else owns the lane"),
                Err(_) => return,
            }
        }
    }
}

fn spawn(path: &Path, wrap: &[&str]) -> Child {
    let program = std::env::current_exe().unwrap();
    let mut words: Vec<_> = wrap.iter().map(std::ffi::OsString::from).collect();
    words.push(program.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["--exact", "sqlite::crash::child", "--ignored", "--nocapture"]);
    command.env(FOLDER, path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// What the child was told before it ended.
#[derive(Default)]
struct Told {
    events: HashMap<String, Address>,
    marks: HashMap<Lane, (u64, u64)>,
}

impl Told {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        match words.next() {
            Some("appended") => {
                for (id, address) in words.filter_map(|w| w.split_once('=')) {
                    // A line cut short by the kill may end in half an address; it was never finished saying so.
                    if let Ok(address) = address.parse() {
                        self.events.insert(id.into(), address);
                    }
                }
            }
            Some("flushed") => {
                let numbers: Vec<u64> = words.filter_map(|w| w.parse().ok()).collect();
                if let [lane, version, mark] = numbers[..] {
                    self.marks.insert(Lane(lane as u16), (version, mark));
                }
            }
            _ => {}
        }
    }
}

async fn assert_kept(path: &Path, told: &Told) {
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(path, options(LANES)).unwrap());
    let binding = ledger.bindings().await.unwrap()[0].id;
    let mut ids = HashMap::new();
    for lane in (1..=LANES).map(Lane) {
        let tail = ledger.tail(lane).await.unwrap();
        let events = ledger.read(lane, Seq(1), usize::MAX, usize::MAX).await.unwrap();
        assert_eq!(events.len() as u64, tail.0, "no gap in lane {lane}");
        for (n, event) in events.iter().enumerate() {
            assert_eq!(event.address.seq.0, n as u64 + 1);
            assert_eq!(ids.insert(event.event.id.clone(), event.address), None, "no event twice");
        }
        let checkpoint = ledger.checkpoint(lane, binding).await.unwrap();
        let (version, mark) = told.marks.get(&lane).copied().unwrap_or_default();
        assert!(checkpoint.version >= version && checkpoint.mark.0 >= mark, "an answered flush is there");
        for seq in 1..=checkpoint.mark.0 {
            let lines = ledger.log(Address::new(lane, Seq(seq)), None).await.unwrap();
            assert_eq!(lines.len(), 1, "{lane}-{seq} is logged once");
        }
    }
    for lane in (1..=LANES).map(Lane) {
        let mark = ledger.checkpoint(lane, binding).await.unwrap().mark.0;
        let wanted = (1..=mark).filter(|seq| seq % 7 > 0 && seq % 3 > 0);
        assert!(
            wanted.clone().all(|seq| ids.contains_key(&format!("of-{lane}-{seq}"))),
            "each outcome brought forth its event"
        );
        let there = ids.keys().filter(|id| id.starts_with(&format!("of-{lane}-"))).count();
        assert_eq!(there, wanted.count(), "no event without its outcome");
    }
    for (id, address) in &told.events {
        assert_eq!(ids.get(id), Some(address), "an answered append is there");
    }
    assert_sums(&ledger).await;
    ledger.close().await;
    assert_intact(path);
}

/// Killed at a random answer, again and again, on one ledger.
#[tokio::test]
async fn what_was_answered_survives_sigkill() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("ledger.db");
    let mut told = Told::default();
    for round in 0u64..8 {
        let mut child = spawn(&path, &[]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let until = 20 + round * 2_654_435_761 % 97;
        let mut answers = 0;
        while answers < until {
            let line = lines.next().expect("the child runs until it is killed").unwrap();
            answers += u64::from(line.starts_with("appended"));
            told.hear(&line);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.map_while(Result::ok).for_each(|line| told.hear(&line));
        assert_kept(&path, &told).await;
    }
}

/// The disk answers EIO to `fdatasync`: the ledger stops writing and says so, and nothing it answered is lost.
#[tokio::test]
async fn a_failed_sync_stops_the_ledger() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("skipped: strace is not installed");
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("ledger.db");
    let inject = "inject=fsync,fdatasync:error=EIO:when=40+";
    let mut child = spawn(&path, &["strace", "-f", "-o", "/dev/null", "-e", inject]);
    let mut told = Told::default();
    let mut refused = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        told.hear(&line);
        if line.starts_with("refused") {
            refused += 1;
            assert!(line.contains("then Err(Failed("), "{line}");
        }
    }
    child.wait().unwrap();
    if refused == 0 && told.events.is_empty() {
        eprintln!("skipped: strace may not trace here");
        return;
    }
    assert_eq!(refused, 4, "every caller was told");
    assert!(!told.events.is_empty(), "it worked until then");
    assert_kept(&path, &told).await;
}
