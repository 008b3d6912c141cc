//! Files that are right, and what becomes of them.

use std::path::PathBuf;
use std::time::Duration;

use bellwire_config::{Loaded, Mode, expand};
use bellwire_schemas::service::{
    Auth, Batch, BindingSpec, Debounce, Decode, DedupRule, Format, KeyRule, Missed, Ordering, Rate, Secret,
    Service, Singleton, SourceKind, Start, Target, Verify,
};
use bellwire_schemas::{Address, ByteSize, Exhausted, Lane, Seq};
use serde_json::json;

use crate::world::World;

fn load(name: &str, mode: Mode) -> Loaded {
    let text = std::fs::read_to_string(format!("examples/{name}.yaml")).unwrap();
    World::usual().parse(&text, mode).unwrap_or_else(|report| panic!("{name}:\n{report}"))
}

fn binding<'s>(service: &'s Service, name: &str) -> &'s BindingSpec {
    service.bindings.iter().find(|b| b.name.as_str() == name).unwrap_or_else(|| panic!("no binding {name}"))
}

#[test]
fn hello_is_three_sources_and_three_bindings() {
    let loaded = load("hello", Mode::Run);
    let service = &loaded.services[0];
    assert_eq!((service.name.as_str(), service.namespace.as_str()), ("hello", "default"));
    let sources: Vec<_> = service.sources.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(sources, ["webhook.hello", "schedule.greet", "topic.greetings"]);
    let bindings: Vec<_> = service.bindings.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(bindings, ["greet:webhook.hello", "greet:schedule.greet", "greet:topic.greetings"]);
    let greet = &service.functions[0];
    assert_eq!(greet.target, Target::Python { handler: "hello.handler".into(), version: None });
    assert_eq!(greet.code, PathBuf::from("/srv/app"));
    assert_eq!(
        (greet.timeout, greet.memory, greet.concurrency),
        (Duration::from_secs(30), ByteSize(1 << 30), 10)
    );
    assert_eq!(greet.format, Format::Lambda);
    assert_eq!(loaded.controller.ledger.url.expose(), "sqlite:/srv/app/.bellwire/ledger.db");
    assert_eq!(loaded.controller.ingress, "127.0.0.1:7070");
    assert!(loaded.warnings.is_empty());
}

#[test]
fn thumbnails_filters_by_event_and_suffix() {
    let loaded = load("thumbnails", Mode::Dev);
    assert!(loaded.warnings.is_empty(), "{}", loaded.render_warnings(false));
    let service = &loaded.services[0];
    let thumbnail = binding(service, "thumbnail:s3.photos");
    assert_eq!(
        thumbnail.filter,
        [json!({
            "type": [{ "prefix": "com.amazonaws.s3.ObjectCreated:" }],
            "subject": [{ "suffix": ".jpg" }, { "suffix": ".png" }],
        })]
    );
    assert_eq!(thumbnail.retry.attempts, Some(4));
    assert_eq!(
        (thumbnail.retry.min_delay, thumbnail.retry.max_delay),
        (Duration::from_secs(1), Duration::from_secs(5))
    );
    assert_eq!(service.functions[0].environment["OUT_DIR"], Secret::new("./out"));
    let SourceKind::Webhook(hook) = &service.sources[2].kind else { panic!("{:?}", service.sources[2]) };
    assert_eq!((hook.path.as_str(), &hook.verify), ("/github", &Verify::Github));
    assert_eq!(hook.secrets, [Secret::new("hook-secret")]);
    let report = binding(service, "report:webhook.github");
    assert_eq!(report.filter, [json!({ "type": ["github.push"], "data": { "ref": ["refs/heads/main"] } })]);
}

#[test]
fn every_key_arrives() {
    let loaded = load("everything", Mode::Run);
    let service = &loaded.services[0];
    let source = |name: &str| service.sources.iter().find(|s| s.name.as_str() == name).unwrap();
    assert_eq!(source("photos").key, KeyRule::None);
    assert_eq!((&source("photos").dedup, source("photos").decode), (&DedupRule::Off, Decode::Bytes));
    assert_eq!(source("hook").key, KeyRule::Path("data.order_id".into()));
    assert!(!source("problems").enabled);
    let SourceKind::Schedule(ticks) = &source("ticks").kind else { panic!() };
    assert_eq!((ticks.missed, ticks.expressions.len()), (Missed::All, 2));
    assert_eq!(ticks.end.unwrap().to_string(), "2027-01-31T06:00:00.000Z");

    let names: Vec<_> = service.functions.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["price", "Page_Someone", "web", "own", "listed"]);
    let price = &service.functions[0];
    assert_eq!(price.code, PathBuf::from("/srv/app/app"));
    assert_eq!(
        price.target,
        Target::Python { handler: "price.handler".into(), version: Some("3.12".into()) }
    );
    assert_eq!((price.concurrency, price.warm.min, price.timeout), (7, 2, Duration::from_secs(10)));
    let environment: Vec<_> = price.environment.iter().map(|(k, v)| (k.as_str(), v.expose())).collect();
    assert_eq!(
        environment,
        [
            ("DEBUG", "true"),
            ("LEVEL", "debug"),
            ("NOTE", "in 7 parts"),
            ("PORT", "8080"),
            ("RATIO", "1.10"),
            ("REGION", "eu")
        ]
    );
    let page = &service.functions[1];
    assert_eq!(page.request.auth, Some(Auth::Bearer(Secret::new("from-a-variable"))));
    assert_eq!(page.request.signing_secret, Some(Secret::new("from-a-file")));
    assert_eq!(page.request.headers["X-Team"], Secret::new("alerts"));
    assert!(page.request.allow_private, "the host is listed");
    assert_eq!((page.concurrency, page.format), (50, Format::CloudeventsStructured));
    assert_eq!(
        service.functions[2].target,
        Target::Node { handler: "web/index.handler".into(), version: Some("22".into()) }
    );
    assert_eq!(
        service.functions[3].target,
        Target::Command(vec!["./bootstrap".into(), "--name".into(), "a b".into()])
    );
    assert_eq!(
        service.functions[4].target,
        Target::Command(vec!["/usr/bin/env".into(), "${HOME}/run".into()])
    );

    let first = binding(service, "price:photos");
    assert_eq!((first.retry.attempts, first.retry.min_delay), (Some(10), Duration::from_secs(2)));
    assert_eq!((first.max_age, first.concurrency), (Some(Duration::from_secs(86_400)), Some(3)));
    assert_eq!(first.start, Start::Address(Address::new(Lane(1), Seq(42))));
    assert_eq!(first.filter.len(), 2);
    let again = binding(service, "price:again");
    assert_eq!((again.source.as_str(), again.enabled, again.retry.attempts), ("photos", false, None));
    let raw = binding(service, "price:s3.raw");
    assert_eq!(raw.filter[0]["subject"], json!([{ "wildcard": "in/*.csv" }]));
    assert_eq!(raw.filter[0]["data"], json!({ "size": [{ "numeric": [">", 0] }] }));
    let tick = binding(service, "price:schedule.price");
    assert_eq!(tick.input, Some(json!({ "why": ["new", "year"], "deep": { "at": null } })));

    every_policy_arrives(service);

    let controller = &loaded.controller;
    assert_eq!(controller.ledger.url.expose(), "sqlite:/srv/app/data/ledger.db");
    assert_eq!(
        (controller.ledger.retention, controller.ledger.max_size),
        (Duration::from_secs(14 * 86_400), Some(ByteSize(5 << 30)))
    );
    assert_eq!(
        (controller.tokens.len(), controller.logs_json, controller.log_level.as_str()),
        (2, true, "debug")
    );
}

fn every_policy_arrives(service: &Service) {
    let plain = binding(service, "Page_Someone:problems");
    assert_eq!((plain.batch, plain.ordering), (Batch::default(), Ordering::None));
    assert_eq!(plain.rate, Some(Rate { events: 60, per: Duration::from_secs(60) }));
    assert_eq!(plain.debounce, Some(Debounce { wait: Duration::from_secs(5), max_wait: None }));
    assert_eq!((plain.singleton, plain.retry.exhausted), (Some(Singleton::Skip), Exhausted::SkipEvent));
    let full = binding(service, "Page_Someone:hook");
    let window = Duration::from_millis(200);
    assert_eq!(full.batch, Batch { size: 20, bytes: ByteSize(256 << 10), window, bisect: false });
    assert_eq!((full.ordering, full.retry.exhausted), (Ordering::Key, Exhausted::BlockKey));
    assert_eq!(full.rate, Some(Rate { events: 5, per: Duration::from_secs(3600) }));
    let max_wait = Some(Duration::from_secs(7 * 86_400));
    assert_eq!(full.debounce, Some(Debounce { wait: Duration::from_secs(1), max_wait }));
    assert_eq!(full.singleton, Some(Singleton::Cancel));
}

#[test]
fn batches_and_order_follow_the_source() {
    let text = "service: a\nsources:\n  k: { kafka: { bootstrap_servers: \"k:1\", topic: t } }\n  \
                free: { kafka: { bootstrap_servers: \"k:1\", topic: u, key: none } }\n  \
                path: { kafka: { bootstrap_servers: \"k:1\", topic: v, key: data.id } }\n  \
                q: { rabbitmq: { url: \"${env:AMQP_URL}\", queue: q, key: data.id } }\n  \
                s: { sqs: \"${env:UPLOADS_QUEUE_URL}\" }\n  \
                f: { sqs: \"https://sqs.eu-central-1.amazonaws.com/123456789012/jobs.fifo\" }\n  \
                o: { s3: { bucket: files, via: s } }\n\
                functions:\n  h:\n    handler: hello.handler\n    events:\n";
    let cases: &[(&str, &str, u32, Ordering)] = &[
        ("{ source: k }", "h:k", 100, Ordering::Key),
        ("{ source: k, ordering: none }", "h:k", 100, Ordering::None),
        ("{ source: k, batch: 7 }", "h:k", 7, Ordering::Key),
        ("{ source: k, batch: { window: 1s } }", "h:k", 100, Ordering::Key),
        ("{ source: k, input: 5 }", "h:k", 1, Ordering::Key),
        ("{ source: free }", "h:free", 100, Ordering::None),
        ("{ source: path }", "h:path", 100, Ordering::Key),
        ("{ source: q }", "h:q", 100, Ordering::None),
        ("{ source: q, ordering: key }", "h:q", 100, Ordering::Key),
        ("{ source: s }", "h:s", 10, Ordering::None),
        ("{ source: f }", "h:f", 10, Ordering::Key),
        ("{ source: o }", "h:o", 1, Ordering::None),
        ("{ source: o, ordering: key }", "h:o", 1, Ordering::Key),
        ("{ s3: raw }", "h:s3.raw", 1, Ordering::None),
        ("{ topic: x, ordering: key }", "h:topic.x", 1, Ordering::Key),
        ("{ webhook: { path: /x, verify: none } }", "h:webhook.x", 1, Ordering::None),
        ("{ schedule: rate(1 minute) }", "h:schedule.h", 1, Ordering::None),
        (
            "{ sqs: \"https://sqs.eu-west-1.amazonaws.com/123456789012/i.fifo\" }",
            "h:sqs.i.fifo",
            10,
            Ordering::Key,
        ),
        (
            "{ sqs: { queue: \"https://sqs.eu-west-1.amazonaws.com/123456789012/i.fifo\", key: none } }",
            "h:sqs.i.fifo",
            10,
            Ordering::None,
        ),
    ];
    for (entry, name, size, ordering) in cases {
        let file = format!("{text}      - {entry}\n");
        let loaded = World::usual().parse(&file, Mode::Run).unwrap_or_else(|r| panic!("{entry}\n{r}"));
        let binding = binding(&loaded.services[0], name);
        assert_eq!((binding.batch.size, binding.ordering), (*size, *ordering), "{entry}");
    }
    let shared = format!(
        "{text}      - {{ source: k }}\n      - {{ source: s, batch: {{ bisect: false }} }}\n      \
                          - {{ schedule: rate(1 minute), input: 1 }}\ndefaults: {{ event: {{ batch: 50 }} }}\n"
    );
    let loaded = World::usual().parse(&shared, Mode::Run).unwrap();
    let size = |name: &str| binding(&loaded.services[0], name).batch.size;
    assert_eq!((size("h:k"), size("h:s"), size("h:schedule.h")), (50, 10, 1));
}

#[test]
fn expanding_twice_changes_nothing() {
    for name in ["hello", "thumbnails", "everything", "brokers"] {
        let once = expand(&load(name, Mode::Dev));
        let again = World::usual().parse(&once, Mode::Dev).unwrap_or_else(|r| panic!("{r}\n{once}"));
        assert_eq!(expand(&again), once, "{name}");
    }
}

#[test]
fn expanding_shows_defaults_and_no_secret() {
    let text = expand(&load("thumbnails", Mode::Dev))
        + &expand(&load("everything", Mode::Dev))
        + &expand(&load("brokers", Mode::Dev));
    for part in ["timeout: 30s", "timezone: Europe/Berlin", "${env:GITHUB_SECRET, '***'}", "retention: 7d"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    for secret in ["only-for-dev", "hook-secret", "from-a-file", "from-a-variable", "./out"] {
        assert!(!text.contains(secret), "{secret} is in\n{text}");
    }
}

#[test]
fn values_behind_references_are_in_no_message() {
    let world = World::usual().var("WHERE", "nowhere-to-be-shown");
    let text = "service: a\nledger: ${env:WHERE}\nfunctions:\n  f: { handler: \"${env:WHERE}\" }\n  \
                g: { command: ./x, events: [{ schedule: \"${env:WHERE}\" }] }\n";
    let report = world.parse(text, Mode::Run).unwrap_err();
    assert_eq!(report.errors(), 3, "{report}");
    assert!(!report.render(true).contains("nowhere-to-be-shown"), "{report}");
}

#[test]
fn what_is_wrong_can_be_read_by_machines() {
    let report = World::usual().parse("service: a\nfunctoins: {}\n", Mode::Run).unwrap_err();
    assert_eq!(
        serde_json::to_value(&report.diagnostics).unwrap(),
        json!([{
            "severity": "error", "code": "unknown-key", "message": "unknown key `functoins`", "file": "bellwire.yaml",
            "line": 2, "column": 1, "length": 9, "in": "", "help": "did you mean `functions`?",
        }])
    );
    assert!(report.render(true).contains("\u{1b}[1;31merror\u{1b}[0m"));
}

#[test]
fn a_ledger_in_postgres_takes_its_password_by_reference_and_never_shows_it() {
    let world = World::usual().var("DB_PASSWORD", "s3cret-word");
    for (url, full) in [
        ("\"${env:LEDGER_URL}\"", "postgres://bellwire:pw@db/bellwire"),
        ("postgres:///bellwire?host=/run/postgresql", "postgres:///bellwire?host=/run/postgresql"),
        (
            "\"postgres://bell:${env:DB_PASSWORD}@db/bell?schema=other&sslmode=verify-full&sslrootcert=ca.pem\"",
            "postgres://bell:s3cret-word@db/bell?schema=other&sslmode=verify-full&sslrootcert=/srv/app/ca.pem",
        ),
    ] {
        let loaded = world.parse(&format!("service: a\nledger: {url}\n"), Mode::Run).unwrap();
        let ledger = &loaded.controller.ledger;
        assert_eq!((ledger.url.expose(), ledger.lanes), (full, 8));
        let said = format!("{}{:?}{}", bellwire_config::expand(&loaded), ledger, ledger.url);
        assert!(!said.contains("s3cret-word") && !said.contains(":pw@"), "{said}");
        assert!(bellwire_config::expand(&loaded).contains("lanes: 8"));
    }
    let literal = "service: a\nledger: postgres://bell:s3cret-word@db/bell\n";
    let loaded = world.parse(literal, Mode::Dev).unwrap();
    let said = format!("{}{}", bellwire_config::expand(&loaded), loaded.render_warnings(false));
    assert!(!said.contains("s3cret-word"), "{said}");
    assert!(said.contains("the password is written into the file"));
}
