use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::model::ModelLedger;
use bellwire_ledger::{Error, EventQuery, Feed, Ledger};
use bellwire_schemas::api::SendRequest;
use bellwire_schemas::live::Fact;
use bellwire_schemas::service::{Missed, SourceKind, SourceSpec, Verify};
use bellwire_schemas::{Clock, SourceName};
use bytes::Bytes;
use http::header::RETRY_AFTER;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::{Intake, Limits, Route};
use crate::suite::{START, bucket, post, schedule, source, topic, webhook};
use crate::{Content, DoorResponse, Draft, Parcel};

struct Rig {
    intake: Arc<Intake>,
    ledger: ModelLedger,
    clock: Clock,
    live: broadcast::Receiver<Fact>,
}

async fn rig(limits: Limits, sources: Vec<SourceSpec>) -> Rig {
    rig_over(ModelLedger::new(4), Clock::manual(START), limits, sources).await
}

/// The intake of one of several controllers.
async fn rig_over(ledger: ModelLedger, clock: Clock, limits: Limits, sources: Vec<SourceSpec>) -> Rig {
    let (sender, live) = broadcast::channel(10_000);
    let feed = Feed::new(Arc::new(ledger.clone()), clock.clone()).await.unwrap();
    let intake = Arc::new(Intake::new(Arc::new(feed), sender, clock.clone(), limits, "one".into()));
    intake.apply(sources).await.unwrap();
    Rig { intake, ledger, clock, live }
}

async fn default_rig() -> Rig {
    let sources = vec![
        topic("t"),
        bucket("photos"),
        webhook("/open", Verify::None, &[]),
        webhook("/gh", Verify::Github, &["s"]),
    ];
    rig(Limits::default(), sources).await
}

fn event(id: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t","partitionkey":"{id}","data":{data}}}"#
    )
}

const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json");
const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");

impl Rig {
    async fn publish(&self, id: &str) -> DoorResponse {
        self.intake.handle(post("/topics/t", &[STRUCTURED], event(id, "1"))).await
    }

    async fn stored(&self) -> Vec<String> {
        let query = EventQuery { limit: 1_000, ascending: true, ..EventQuery::default() };
        let page = self.ledger.events(&query).await.unwrap();
        page.items.into_iter().map(|e| e.event.id.clone()).collect()
    }
}

fn body(response: &DoorResponse) -> &Value {
    response.body.as_ref().unwrap()
}

#[tokio::test(start_paused = true)]
async fn accepted_means_stored_and_a_repeat_is_told_so() {
    let mut rig = default_rig().await;
    let first = rig.publish("a").await;
    assert_eq!(first.status, 202);
    assert_eq!(body(&first)["accepted"], 1);
    assert_eq!(body(&first)["items"][0]["status"], "accepted");
    let address = body(&first)["items"][0]["address"].clone();
    let again = rig.publish("a").await;
    assert_eq!(body(&again)["items"][0], json!({ "status": "duplicate", "id": "a", "address": address }));
    assert_eq!(rig.stored().await, ["a"]);
    assert!(matches!(rig.live.recv().await.unwrap(), Fact::Accepted { .. }));
    assert!(
        matches!(rig.live.recv().await.unwrap(), Fact::NotAccepted { arrival, .. } if arrival == "duplicate")
    );
    let report = &rig.intake.status()[0];
    assert_eq!((report.state, report.counts.accepted, report.counts.duplicate), ("ok", 1, 1));
    assert_eq!(report.entrance, "POST /topics/t");
}

#[tokio::test(start_paused = true)]
async fn a_batch_answers_item_by_item() {
    let limits = Limits { event_bytes: 1_000, ..Limits::default() };
    let rig = rig(limits, vec![topic("t")]).await;
    let large = format!("\"{}\"", "x".repeat(2_000));
    let items = [event("a", "1"), event("b", &large), "{}".into(), event("a", "2")].join(",");
    let answer = rig.intake.handle(post("/topics/t", &[BATCH], format!("[{items}]"))).await;
    assert_eq!((answer.status.as_u16(), &body(&answer)["accepted"]), (202, &json!(2)));
    let seen: Vec<_> = body(&answer)["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| (i["status"].as_str().unwrap(), i["code"].as_str()))
        .collect();
    let expected = [
        ("accepted", None),
        ("refused", Some("event-too-large")),
        ("refused", Some("bad-cloudevent")),
        ("duplicate", None),
    ];
    assert_eq!(seen, expected);
    let none = rig.intake.handle(post("/topics/t", &[STRUCTURED], event("b", &large))).await;
    assert_eq!(
        (none.status.as_u16(), body(&none)["items"][0]["code"].as_str()),
        (413, Some("event-too-large"))
    );
    let none = rig.intake.handle(post("/topics/t", &[BATCH], "[{}]")).await;
    assert_eq!((none.status.as_u16(), body(&none)["code"].as_str()), (400, Some("bad-cloudevent")));
    let empty = rig.intake.handle(post("/topics/t", &[BATCH], "[]")).await;
    assert_eq!((empty.status.as_u16(), body(&empty)), (202, &json!({ "accepted": 0, "items": [] })));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_repeated_with_the_same_append() {
    let rig = default_rig().await;
    rig.ledger.commit_then_fail_append(Error::Unavailable("cut".into()));
    rig.ledger.fail_next_append(Error::Unavailable("down".into()));
    assert_eq!(rig.publish("a").await.status, 202);
    assert_eq!(rig.stored().await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_or_absent_ledger_is_an_answer_and_nothing_is_acknowledged() {
    let rig = default_rig().await;
    rig.ledger.set_full(true);
    let full = rig.publish("a").await;
    assert_eq!((full.status.as_u16(), body(&full)["code"].as_str()), (429, Some("ledger-full")));
    assert!(full.headers.iter().any(|(name, _)| name == RETRY_AFTER));
    let report = &rig.intake.status()[0];
    assert_eq!((report.state, report.since), ("paused", Some(START)));
    assert!(report.reason.as_ref().unwrap().starts_with("ledger-full: "), "{report:?}");
    rig.ledger.set_full(false);
    for _ in 0..100 {
        rig.ledger.fail_next_append(Error::Unavailable("down".into()));
    }
    let down = rig.publish("b").await;
    assert_eq!((down.status.as_u16(), body(&down)["code"].as_str()), (503, Some("ledger-unavailable")));
    assert_eq!(rig.stored().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_says_busy() {
    let limits = Limits { queue_requests: 2, ..Limits::default() };
    let rig = rig(limits, vec![topic("t")]).await;
    for _ in 0..1_000 {
        rig.ledger.fail_next_append(Error::Unavailable("down".into()));
    }
    let mut waiting = tokio::task::JoinSet::new();
    for id in 0..10 {
        let intake = rig.intake.clone();
        waiting.spawn(async move {
            intake.handle(post("/topics/t", &[STRUCTURED], event(&id.to_string(), "1"))).await
        });
    }
    let mut codes: Vec<_> = waiting.join_all().await.iter().map(|r| r.status.as_u16()).collect();
    codes.sort_unstable();
    assert!(codes.contains(&429) && codes.contains(&503), "{codes:?}");
}

#[tokio::test(start_paused = true)]
async fn memory_bounds_the_waiting_bytes() {
    let limits = Limits { memory_bytes: 64 << 10, ..Limits::default() };
    let rig = rig(limits, vec![topic("t")]).await;
    let answer = rig.intake.handle(post("/topics/t", &[], vec![b'x'; 100 << 10])).await;
    assert_eq!((answer.status.as_u16(), body(&answer)["code"].as_str()), (429, Some("busy")));
    assert!(answer.headers.iter().any(|(name, _)| name == RETRY_AFTER));
    let report = &rig.intake.status()[0];
    assert!(
        report.state == "paused" && report.reason.as_ref().unwrap().starts_with("memory: "),
        "{report:?}"
    );
    let mut room = rig.intake.room("/topics/t");
    assert!(room.grow(50 << 10).is_ok());
    assert_eq!(room.grow(20 << 10).unwrap_err().code, "busy", "bodies that are read count as well");
    let small = || post("/topics/t", &[], vec![b'x'; 10 << 10]);
    assert_eq!(rig.intake.handle(small()).await.status, 202);
    let full = rig.intake.room("/topics/t").grow(20 << 10);
    assert_eq!(full.unwrap_err().code, "busy");
    drop(room);
    assert_eq!(rig.intake.handle(small()).await.status, 202);
    assert_eq!(rig.intake.status()[0].state, "ok");
}

/// A ledger that refuses every append which holds an event with a certain id.
struct Picky(ModelLedger);

mod hold;
mod picky;
mod pull;
mod stall;

#[tokio::test(start_paused = true)]
async fn one_bad_event_does_not_block_the_others() {
    let ledger = ModelLedger::new(2);
    let clock = Clock::manual(START);
    let feed = Feed::new(Arc::new(Picky(ledger.clone())), clock.clone()).await.unwrap();
    let intake =
        Intake::new(Arc::new(feed), broadcast::channel(10).0, clock, Limits::default(), "one".into());
    intake.apply(vec![topic("t")]).await.unwrap();
    let items: Vec<_> =
        ["a", "b", "poison", "c", "d", "poison", "e"].iter().map(|id| event(id, "1")).collect();
    let answer = intake.handle(post("/topics/t", &[BATCH], format!("[{}]", items.join(",")))).await;
    assert_eq!((answer.status.as_u16(), &body(&answer)["accepted"]), (202, &json!(5)));
    let states: Vec<_> =
        body(&answer)["items"].as_array().unwrap().iter().map(|i| i["status"].as_str().unwrap()).collect();
    assert_eq!(states[2], "quarantined");
    assert_eq!(states.iter().filter(|s| **s == "accepted").count(), 5);
    let kept = ledger.quarantined(None, 10).await.unwrap();
    assert_eq!(kept.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_together_share_an_append() {
    let rig = rig(Limits::default(), vec![topic("t")]).await;
    rig.ledger.fail_next_append(Error::Unavailable("down".into()));
    let mut waiting = tokio::task::JoinSet::new();
    for id in 0..50 {
        let intake = rig.intake.clone();
        let request = post("/topics/t", &[("content-type", "text/plain")], id.to_string());
        waiting.spawn(async move { intake.handle(request).await });
    }
    let answers = waiting.join_all().await;
    let mut lanes: Vec<String> = answers
        .iter()
        .map(|a| body(a)["items"][0]["address"].as_str().unwrap().split('-').next().unwrap().to_owned())
        .collect();
    lanes.sort_unstable();
    lanes.dedup();
    assert!(lanes.len() <= 2, "unkeyed events of one append stay in one lane: {lanes:?}");
}

#[tokio::test(start_paused = true)]
async fn notifications_are_routed_and_strays_kept() {
    let rig = default_rig().await;
    let record = |bucket: &str| {
        json!({ "eventName": "ObjectCreated:Put", "awsRegion": "r",
            "s3": { "bucket": { "name": bucket }, "object": { "key": "a+b.jpg", "sequencer": "1" } } })
    };
    let both = json!({ "Records": [record("photos"), record("others")] }).to_string();
    let answer = rig.intake.handle(post("/s3", &[], both)).await;
    assert_eq!((answer.status.as_u16(), &body(&answer)["accepted"]), (202, &json!(1)));
    assert_eq!(body(&answer)["items"][1]["status"], "quarantined");
    let only = json!({ "Records": [record("others")] }).to_string();
    assert_eq!(rig.intake.handle(post("/s3", &[], only)).await.status, 202, "kept is durable");
    assert_eq!(rig.ledger.quarantined(Some(&SourceName::new("s3")), 10).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_summed_up_and_noted() {
    let rig = default_rig().await;
    for _ in 0..3 {
        assert_eq!(rig.intake.handle(post("/hooks/gh", &[], "x")).await.status, 401);
        assert_eq!(rig.intake.handle(post("/hooks/who?knows", &[], "x")).await.status, 404);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut noted = rig.ledger.refusals(START).await.unwrap();
    noted.sort_by(|a, b| a.source.cmp(&b.source));
    let seen: Vec<_> = noted.iter().map(|r| (r.source.as_str(), r.reason.as_str(), r.count)).collect();
    assert_eq!(seen, [("/hooks", "not-found", 3), ("webhook.gh", "bad-signature", 3)]);
    assert_eq!(noted[0].last_peer, "203.0.113.9");
    let reports = rig.intake.status();
    let hooked = reports.iter().find(|r| r.name.as_str() == "webhook.gh").unwrap();
    assert_eq!(hooked.counts.refused, 3);
}

#[tokio::test(start_paused = true)]
async fn routes_say_who_checks_before_the_body_is_read() {
    let rig = default_rig().await;
    for (path, expected) in [
        ("/topics/t", Some(Route::Token)),
        ("/topics/t/", Some(Route::Token)),
        ("/s3", Some(Route::Token)),
        ("/hooks/gh", Some(Route::Door)),
        ("/hooks/nope", None),
        ("/topics", None),
        ("/", None),
        ("", None),
    ] {
        assert_eq!(rig.intake.route(path), expected, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_can_be_sent_by_hand() {
    let spec = schedule("0 0 1 1 *", Missed::Last);
    let timer = source("schedule.r", SourceKind::Schedule(spec));
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let sources = vec![
        topic("t"),
        bucket("photos"),
        timer,
        webhook("/gh", Verify::Github, &["s"]),
        webhook("/stripe", Verify::Stripe, &["s"]),
        webhook("/slack", Verify::Slack, &["s"]),
        webhook("/std", Verify::StandardWebhooks, &[secret]),
        webhook("/open", Verify::None, &[]),
    ];
    let rig = rig(Limits::default(), sources.clone()).await;
    for spec in &sources {
        let items = rig.intake.send(&spec.name, &SendRequest::default()).await.unwrap().unwrap();
        assert_eq!((items.len(), items[0].status.as_str()), (1, "accepted"), "{}: {items:?}", spec.name);
        rig.clock.advance(Duration::from_millis(7));
        let numbered = SendRequest { sample: Some(1), ..SendRequest::default() };
        let items = rig.intake.send(&spec.name, &numbered).await.unwrap().unwrap();
        assert_eq!(items[0].status, "accepted", "{}", spec.name);
    }
    let data = SendRequest { data: Some("[7]".into()), ..SendRequest::default() };
    let items = rig.intake.send(&"webhook.gh".into(), &data).await.unwrap().unwrap();
    assert_eq!(items[0].status, "accepted");
    let bad = rig.intake.send(&"s3.photos".into(), &data).await.unwrap_err();
    assert_eq!(bad.code, "bad-request");
    assert!(rig.intake.send(&"nobody".into(), &data).await.unwrap().is_none());
}

async fn ticks(rig: &Rig, count: usize) -> Vec<String> {
    let wait = async {
        loop {
            let stored = rig.stored().await;
            if stored.len() >= count {
                return stored;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the ticks come")
}

async fn positioned(rig: &Rig) {
    let wait = async {
        while rig.ledger.position("schedule.t").await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the position is written");
}

fn minutely(missed: Missed) -> SourceSpec {
    source("schedule.t", SourceKind::Schedule(schedule("* * * * *", missed)))
}

#[tokio::test(start_paused = true)]
async fn a_timer_ticks_once_over_restarts_controllers_and_jumps() {
    let rig = rig(Limits::default(), vec![minutely(Missed::All)]).await;
    positioned(&rig).await;
    rig.clock.advance(Duration::from_secs(60));
    let stored = ticks(&rig, 1).await;
    assert_eq!(stored, ["schedule.t/2026-01-01T00:01:00Z"]);

    // A second controller on the same ledger.
    let feed = Feed::new(Arc::new(rig.ledger.clone()), rig.clock.clone()).await.unwrap();
    let second = Intake::new(
        Arc::new(feed),
        broadcast::channel(10).0,
        rig.clock.clone(),
        Limits::default(),
        "one".into(),
    );
    second.apply(vec![minutely(Missed::All)]).await.unwrap();
    for _ in 0..5 {
        rig.clock.advance(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    rig.clock.set(START);
    tokio::time::sleep(Duration::from_secs(5)).await;
    rig.clock.set(START.plus(Duration::from_secs(360)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let expected: Vec<_> = (1..=6).map(|n| format!("schedule.t/2026-01-01T00:0{n}:00Z")).collect();
    assert_eq!(rig.stored().await, expected);
    second.shutdown(Duration::from_secs(1)).await;

    // Stopped for ten minutes, then started again.
    rig.intake.shutdown(Duration::from_secs(1)).await;
    rig.clock.advance(Duration::from_secs(600));
    let feed = Feed::new(Arc::new(rig.ledger.clone()), rig.clock.clone()).await.unwrap();
    let third = Intake::new(
        Arc::new(feed),
        broadcast::channel(10).0,
        rig.clock.clone(),
        Limits::default(),
        "one".into(),
    );
    third.apply(vec![minutely(Missed::All)]).await.unwrap();
    assert_eq!(ticks(&rig, 16).await.len(), 16);
}

#[tokio::test(start_paused = true)]
async fn a_changed_rule_begins_now_and_an_unchanged_one_goes_on() {
    let rig = rig(Limits::default(), vec![minutely(Missed::All)]).await;
    positioned(&rig).await;
    rig.intake.apply(vec![]).await.unwrap();
    rig.clock.advance(Duration::from_secs(3_600));
    let hourly = source("schedule.t", SourceKind::Schedule(schedule("*/2 * * * *", Missed::All)));
    rig.intake.apply(vec![hourly]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.stored().await, [""; 0], "a new rule makes no ticks for the time before it");
    rig.clock.advance(Duration::from_secs(120));
    assert_eq!(ticks(&rig, 1).await, ["schedule.t/2026-01-01T01:02:00Z"]);
}

#[tokio::test(start_paused = true)]
async fn a_timer_waits_for_a_full_ledger_and_loses_nothing() {
    let rig = rig(Limits::default(), vec![minutely(Missed::Last)]).await;
    positioned(&rig).await;
    rig.ledger.set_full(true);
    rig.clock.advance(Duration::from_secs(60));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(rig.intake.status()[0].state, "paused");
    rig.ledger.set_full(false);
    assert_eq!(ticks(&rig, 1).await.len(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.intake.status()[0].state, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_cannot_run_changes_nothing() {
    let rig = default_rig().await;
    let wrong = vec![
        topic("t"),
        topic("t"),
        SourceSpec { enabled: false, ..topic("t") },
        webhook("/x", Verify::Github, &[]),
        source("schedule.x", SourceKind::Schedule(schedule("nonsense", Missed::Last))),
    ];
    let error = rig.intake.apply(wrong).await.unwrap_err();
    assert_eq!(error.0.len(), 3, "{error}");
    assert_eq!(rig.publish("a").await.status, 202);
    assert_eq!(rig.intake.status().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_source_says_when_to_come_again() {
    let off = SourceSpec { enabled: false, ..topic("t") };
    let rig = rig(Limits::default(), vec![off]).await;
    let answer = rig.publish("a").await;
    assert_eq!((answer.status.as_u16(), body(&answer)["code"].as_str()), (503, Some("source-disabled")));
    assert_eq!(rig.intake.status()[0].state, "paused");
}

#[tokio::test(start_paused = true)]
async fn after_shutdown_doors_say_so() {
    let rig = default_rig().await;
    rig.intake.shutdown(Duration::from_secs(1)).await;
    let answer = rig.publish("a").await;
    assert_eq!((answer.status.as_u16(), body(&answer)["code"].as_str()), (503, Some("shutting-down")));
}
