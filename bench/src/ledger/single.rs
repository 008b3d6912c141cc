//! One caller, one event: how long a commit takes, beside that of a bare row.

use std::time::{Duration, Instant};

use bellwire_ledger::Append;
use tokio_postgres::{Client, Statement};

use super::ours::{Ours, append_all};
use super::rounds::{Ran, Round, Whistle, round};
use super::server::Server;
use crate::table::{Report, Row, percentile};

/// Pairs of rounds.
const PAIRS: usize = 4;

/// Latency of the bare insert and of the append, in alternating rounds.
pub async fn measure(server: &Server, length: Duration, report: &mut Report) -> anyhow::Result<Vec<Row>> {
    let ours = Ours::new(server).await?;
    let (mut bare, mut own) = (Vec::new(), Vec::new());
    for pair in 0..=PAIRS {
        let appends = || ours.rings[0].appends(1, false, length, 20_000.0, 1);
        let client = server.connect().await?;
        let insert = prepare(&client).await?;
        let row = appends();
        let bare_round = round(server, length, |w| vec![insert_all(client, insert, row, w.clone())]).await?;
        let prepared = appends();
        let ledger = std::sync::Arc::clone(&ours.ledger);
        let own_round = round(server, length, |w| vec![append_all(ledger, prepared, w.clone())]).await?;
        // The first pair warms up.
        if pair > 0 {
            bare.push(bare_round);
            own.push(own_round);
        }
    }
    ours.ledger.close().await;
    server.clean().await?;
    let (mut bare, mut own) = (Round::median(bare), Round::median(own));
    report.figure("commit_p50_ms", percentile(&mut own.calls_ms, 0.5));
    report.figure("bare_commit_p50_ms", percentile(&mut bare.calls_ms, 0.5));
    let row = |name: &str, round: &mut Round| {
        Row::new(
            name,
            vec![
                ("commit_p50_ms", percentile(&mut round.calls_ms, 0.5)),
                ("commit_p99_ms", percentile(&mut round.calls_ms, 0.99)),
                ("commits_per_s", round.per_s),
                ("wal_bytes_per_event", round.wal_bytes),
                ("pg_cpu_us_per_event", round.cpu_us),
                ("client_cpu_us_per_event", round.client_cpu_us),
            ],
        )
    };
    Ok(vec![row("bare insert of a row", &mut bare), row("append of an event", &mut own)])
}

async fn prepare(client: &Client) -> anyhow::Result<Statement> {
    client
        .batch_execute(
            "drop table if exists bench_single; create table bench_single (lane smallint not null, \
             seq bigint not null, id text not null, type text not null, attributes text not null, data bytea, \
             primary key (lane, seq))",
        )
        .await?;
    Ok(client.prepare("insert into bench_single values (1, $1, $2, $3, $4, $5)").await?)
}

async fn insert_all(
    client: Client,
    insert: Statement,
    events: Vec<Append>,
    whistle: Whistle,
) -> anyhow::Result<Ran> {
    let mut ran = Ran::new();
    for (seq, new) in (1_i64..).zip(events.iter().flat_map(|append| &append.events)) {
        if whistle.blown() {
            break;
        }
        let event = &new.event;
        let attributes = serde_json::to_string(&**event)?;
        let sent = Instant::now();
        client.execute(&insert, &[&seq, &event.id, &event.kind, &attributes, &event.data.as_deref()]).await?;
        ran.call(sent, 1);
    }
    ran.end(events);
    Ok(ran)
}
