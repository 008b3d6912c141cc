use std::sync::Arc;
use std::time::Duration;

use bellwire_schemas::service::{HmacAlgorithm, HmacEncoding, HmacRule, SourceKind, SourceSpec, Verify};
use http::{Method, StatusCode};
use serde_json::json;

use super::*;
use crate::suite::{START, post, webhook};
use crate::{Admitted, Content, Door, DoorRequest, Draft, Refused};

const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const JSON: (&str, &str) = ("content-type", "application/json");

fn config(spec: &SourceSpec) -> WebhookConfig {
    let SourceKind::Webhook(webhook) = &spec.kind else { panic!() };
    WebhookConfig::new(Arc::new(spec.clone()), webhook).unwrap()
}

fn signed(verify: Verify, secret: &str, mut request: DoorRequest) -> (WebhookDoor, DoorRequest) {
    let config = config(&webhook("/w", verify, &[secret]));
    sign(&config, &mut request, START);
    (WebhookDoor::new(config), request)
}

fn drafts(result: Result<Admitted, Refused>) -> Vec<Draft> {
    let Ok(Admitted::Parcels(parcels)) = result else { panic!("{result:?}") };
    let draft = |content| match content {
        Content::Event(draft) => *draft,
        other => panic!("{other:?}"),
    };
    parcels.into_iter().map(|p| draft(p.content)).collect()
}

fn code(result: Result<Admitted, Refused>) -> (StatusCode, &'static str) {
    let refused = result.unwrap_err();
    (refused.status, refused.code)
}

const BAD: (StatusCode, &str) = (StatusCode::UNAUTHORIZED, "bad-signature");

fn hmac(algorithm: HmacAlgorithm, encoding: HmacEncoding) -> Verify {
    Verify::Hmac(HmacRule { header: "x-sig".into(), algorithm, encoding, prefix: "v=".into() })
}

fn every_scheme() -> Vec<(Verify, &'static str)> {
    vec![
        (Verify::Github, "it's a secret"),
        (Verify::Stripe, "whsec_stripe"),
        (Verify::Slack, "8f742231b10e8888abcd99yyyzzz85a5"),
        (Verify::StandardWebhooks, WHSEC),
        (Verify::Token, "t0ken"),
        (hmac(HmacAlgorithm::Sha1, HmacEncoding::Hex), "k"),
        (hmac(HmacAlgorithm::Sha256, HmacEncoding::Base64), "k"),
        (hmac(HmacAlgorithm::Sha512, HmacEncoding::Hex), "k"),
    ]
}

#[test]
fn a_signed_request_passes_and_any_change_is_refused() {
    for (verify, secret) in every_scheme() {
        let (door, request) = signed(verify.clone(), secret, post("/hooks/w", &[JSON], "{\"a\":1}"));
        assert_eq!(drafts(door.admit(&request, START)).len(), 1, "{verify:?}");

        if verify != Verify::Token {
            let changed = DoorRequest { body: "{\"a\":2}".into(), ..request.clone() };
            assert_eq!(code(door.admit(&changed, START)), BAD, "{verify:?}: body");
        }
        assert_eq!(
            code(door.admit(&post("/hooks/w", &[JSON], "{\"a\":1}"), START)),
            BAD,
            "{verify:?}: unsigned"
        );
        let other =
            signed(verify.clone(), if secret == WHSEC { "whsec_AAAA" } else { "other" }, request.clone()).1;
        assert_eq!(code(door.admit(&other, START)), BAD, "{verify:?}: secret");

        for name in
            ["x-hub-signature-256", "stripe-signature", "x-slack-signature", "webhook-signature", "x-sig"]
        {
            if let Some(value) = request.headers.get(name).cloned() {
                let mut twice = request.clone();
                twice.headers.append(name, value);
                assert_eq!(code(door.admit(&twice, START)), BAD, "{verify:?}: header twice");
            }
        }
    }
}

#[test]
fn old_and_future_timestamps_are_refused() {
    for (verify, secret) in every_scheme() {
        let timed = matches!(verify, Verify::Stripe | Verify::Slack | Verify::StandardWebhooks);
        let (door, request) = signed(verify, secret, post("/hooks/w", &[], "x"));
        for (now, fits) in [
            (START.plus(Duration::from_secs(300)), true),
            (START.minus(Duration::from_secs(300)), true),
            (START.plus(Duration::from_secs(302)), !timed),
            (START.minus(Duration::from_secs(302)), !timed),
        ] {
            assert_eq!(door.admit(&request, now).is_ok(), fits, "{now}");
        }
    }
}

#[test]
fn both_secrets_of_a_rotation_are_accepted() {
    for (verify, secret) in every_scheme() {
        let other = if secret == WHSEC { "whsec_AAAA" } else { "new" };
        let both = WebhookDoor::new(config(&webhook("/w", verify.clone(), &[other, secret])));
        let request = signed(verify, secret, post("/hooks/w", &[], "x")).1;
        assert!(both.admit(&request, START).is_ok());
    }
}

#[test]
fn published_signatures_hold() {
    // GitHub docs, "Validating webhook deliveries": their test values.
    let github = WebhookDoor::new(config(&webhook("/w", Verify::Github, &["It's a Secret to Everybody"])));
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let request = post("/hooks/w", &[("x-hub-signature-256", signature)], "Hello, World!");
    assert!(github.admit(&request, START).is_ok());

    // Slack docs, "Verifying requests from Slack": their test values.
    let slack =
        WebhookDoor::new(config(&webhook("/w", Verify::Slack, &["8f742231b10e8888abcd99yyyzzz85a5"])));
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let headers = [
        ("x-slack-request-timestamp", "1531420618"),
        ("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
    ];
    let at = bellwire_schemas::Timestamp::from_millis(1_531_420_618_000);
    assert!(slack.admit(&post("/hooks/w", &headers, body), at).is_ok());

    // Standard Webhooks specification, "Verifying webhook authenticity": its test values.
    let standard = WebhookDoor::new(config(&webhook("/w", Verify::StandardWebhooks, &[WHSEC])));
    let headers = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v2,x"),
    ];
    let at = bellwire_schemas::Timestamp::from_millis(1_614_265_330_000);
    let events = drafts(standard.admit(&post("/hooks/w", &headers, "{\"test\": 2432232314}"), at));
    assert_eq!(events[0].dedup.as_deref(), Some("msg_p5jXN8AQM9LWM0D4loKWxJek"));
}

#[test]
fn the_public_library_of_standard_webhooks_agrees() {
    let peer = standardwebhooks::Webhook::new(WHSEC).unwrap();
    let seconds = START.millis() / 1_000;
    let body = "{\"a\": [1, \"ü\"]}";
    let signature = peer.sign("msg_1", seconds, body.as_bytes()).unwrap();
    let headers = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", &seconds.to_string()),
        ("webhook-signature", signature.as_str()),
    ];
    let named = post("/hooks/w", &[("webhook-id", "msg_1")], body);
    let (door, ours) = signed(Verify::StandardWebhooks, WHSEC, named.clone());
    assert!(door.admit(&post("/hooks/w", &headers, body), START).is_ok());
    assert_eq!(ours.header("webhook-signature"), Some(signature.as_str()));
    // The library compares with the machine's clock.
    let mut now = named;
    let at = bellwire_schemas::Clock::system().now();
    sign(&config(&webhook("/w", Verify::StandardWebhooks, &[WHSEC])), &mut now, at);
    peer.verify(&now.body, &now.headers).unwrap();
}

#[test]
fn a_dot_cannot_move_the_border_of_the_signed_text() {
    let (door, request) =
        signed(Verify::StandardWebhooks, WHSEC, post("/hooks/w", &[("webhook-id", "a.b")], "x"));
    assert_eq!(code(door.admit(&request, START)), BAD);
}

#[test]
fn providers_name_type_and_delivery() {
    let github = [JSON, ("x-github-event", "push"), ("x-github-delivery", "d-1"), ("cookie", "c")];
    let (door, request) = signed(Verify::Github, "s", post("/hooks/w?a=b+c", &github, "{ \"x\": 1 }"));
    let draft = &drafts(door.admit(&request, START))[0];
    assert_eq!((draft.event.kind.as_str(), draft.event.source.as_str()), ("github.push", "webhook:/w"));
    assert_eq!((draft.event.id.as_str(), draft.dedup.as_deref()), ("d-1", Some("d-1")));
    assert_eq!(draft.event.data.as_deref(), Some(&b"{ \"x\": 1 }"[..]));
    assert_eq!(draft.event.meta["query"], json!({ "a": "b c" }));
    let names: Vec<_> = draft.event.meta["headers"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["content-type", "x-github-delivery", "x-github-event"]);

    let body = r#"{"id":"evt_1","type":"invoice.paid","data":{"id":"no"}}"#;
    let (door, request) = signed(Verify::Stripe, "s", post("/hooks/w", &[JSON], body));
    let draft = &drafts(door.admit(&request, START))[0];
    assert_eq!((draft.event.kind.as_str(), draft.event.id.as_str()), ("stripe.invoice.paid", "evt_1"));

    let (door, request) = signed(Verify::Slack, "s", post("/hooks/w", &[JSON], r#"{"event_id":"Ev1"}"#));
    let draft = &drafts(door.admit(&request, START))[0];
    assert_eq!((draft.event.kind.as_str(), draft.dedup.as_deref()), ("webhook.request", Some("Ev1")));

    let (door, request) = signed(Verify::Token, "s", post("/hooks/w", &[], "text"));
    let draft = &drafts(door.admit(&request, START))[0];
    assert_eq!((draft.event.id.as_str(), &draft.dedup), ("", &None));
}

#[test]
fn cloudevents_keep_their_own_attributes() {
    let headers = [
        JSON,
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-partitionkey", "k"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let door = WebhookDoor::new(config(&webhook("/w", Verify::None, &[])));
    let draft = &drafts(door.admit(&post("/hooks/w", &headers, "{}"), START))[0];
    assert_eq!((draft.event.id.as_str(), draft.event.kind.as_str()), ("7", "t"));
    assert_eq!((draft.key.as_deref(), draft.dedup.as_deref()), (Some("k"), Some("/s 7")));
    assert!(draft.event.traceparent().is_some());

    let batch = r#"[{"specversion":"1.0","id":"1","source":"/s","type":"t"},{"id":"2"}]"#;
    let kind = [("content-type", "application/cloudevents-batch+json")];
    let Ok(Admitted::Parcels(parcels)) = door.admit(&post("/hooks/w", &kind, batch), START) else { panic!() };
    assert!(matches!(&parcels[0].content, Content::Event(_)));
    assert!(matches!(&parcels[1].content, Content::Refused { code: "bad-cloudevent", .. }));
    let broken = post("/hooks/w", &[("content-type", "application/cloudevents+json")], "[".repeat(10_000));
    assert_eq!(code(door.admit(&broken, START)), (StatusCode::BAD_REQUEST, "bad-cloudevent"));
    let zipped = post("/hooks/w", &[("content-encoding", "gzip")], "x");
    assert_eq!(code(door.admit(&zipped, START)).0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[test]
fn handshakes_are_answered() {
    let door = WebhookDoor::new(config(&webhook("/w", Verify::Github, &["s"])));
    let asks = [("webhook-request-origin", "eventemitter.example.com"), ("webhook-request-rate", "120")];
    let options = DoorRequest { method: Method::OPTIONS, ..post("/hooks/w", &asks, "") };
    let Ok(Admitted::Reply(reply)) = door.admit(&options, START) else { panic!() };
    let value = |name: &str| reply.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.to_str().unwrap());
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(value("webhook-allowed-origin"), Some("eventemitter.example.com"));
    assert_eq!(value("webhook-allowed-rate"), Some("120"));

    let challenge = r#"{"token":"x","challenge":"3eZbrw1a","type":"url_verification"}"#;
    let (door, request) = signed(Verify::Slack, "s", post("/hooks/w", &[JSON], challenge));
    let Ok(Admitted::Reply(reply)) = door.admit(&request, START) else { panic!() };
    assert_eq!(reply.body, Some(json!({ "challenge": "3eZbrw1a" })));
    assert!(door.admit(&post("/hooks/w", &[JSON], challenge), START).is_err());
}

#[test]
fn wrong_settings_are_refused() {
    for spec in [
        webhook("/w", Verify::Github, &[]),
        webhook("/w", Verify::Github, &[""]),
        webhook("/w", Verify::StandardWebhooks, &["whsec_"]),
        webhook("/w", Verify::StandardWebhooks, &["not base64!"]),
        webhook("w", Verify::None, &[]),
        webhook("/w?x", Verify::None, &[]),
    ] {
        let SourceKind::Webhook(webhook) = &spec.kind else { panic!() };
        assert!(WebhookConfig::new(Arc::new(spec.clone()), webhook).is_err(), "{webhook:?}");
    }
}
