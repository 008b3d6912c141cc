//! Who shares the ledger, and who owns which lane.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use bellwire_schemas::api::{ControllerStatus, LaneStatus, List, Problem as Trouble};
use bellwire_schemas::{ControllerId, Lane, Timestamp};

use crate::server::app::{App, Shared};
use crate::server::problem::Problem;

/// `GET /v1/lanes`.
pub async fn lane_list(State(app): State<Shared>) -> Result<Json<List<LaneStatus>>, Problem> {
    Ok(Json(List { items: lanes(&app).await?, next: None }))
}

/// `GET /v1/controllers`: as the last heartbeat showed them.
pub async fn controller_list(State(app): State<Shared>) -> Json<List<ControllerStatus>> {
    Json(List { items: controllers(&app), next: None })
}

/// Every lane with its owner. What this controller owns is known at once, the rest from the last heartbeat.
///
/// # Errors
/// When the ledger does not answer.
pub async fn lanes(app: &App) -> Result<Vec<LaneStatus>, Problem> {
    let tails = app.ledger().tails().await?;
    let owners = owners(app);
    let seen: BTreeMap<_, _> =
        app.dispatcher.cluster().lanes.into_iter().map(|lane| (lane.lane, lane.epoch)).collect();
    let mine: BTreeMap<_, _> = app.dispatcher.lanes().into_iter().map(|l| (l.lane, l.epoch)).collect();
    let lane = |(lane, tail): (Lane, bellwire_schemas::Seq)| {
        let epoch = mine.get(&lane).copied().flatten();
        LaneStatus {
            lane: lane.0,
            tail: tail.0,
            owned: epoch.is_some(),
            epoch: epoch.or_else(|| seen.get(&lane).copied()).map_or(0, |epoch| epoch.0),
            owner: owners.get(&lane).map(|id| id.0.to_string()),
        }
    };
    Ok((1..).map(Lane).zip(tails).map(lane).collect())
}

/// The controllers that are alive.
pub fn controllers(app: &App) -> Vec<ControllerStatus> {
    let cluster = app.dispatcher.cluster();
    let owners = owners(app);
    let status = |member: bellwire_ledger::Member| ControllerStatus {
        id: member.id.0.to_string(),
        lanes: owners.iter().filter(|(_, owner)| **owner == member.id).map(|(lane, _)| lane.0).collect(),
        name: member.name,
        version: member.version,
        since: Some(member.since).filter(|since| *since > Timestamp::default()),
        leaving: member.leaving,
        is_self: member.id == cluster.me,
    };
    cluster.controllers.into_iter().map(status).collect()
}

/// How long the leases of this controller are still believed.
pub fn lease_left_ms(app: &App) -> Option<u64> {
    let left = app.dispatcher.cluster().lease_left?;
    Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
}

/// What is wrong with leases and lanes.
pub fn troubles(app: &App, lanes: &[LaneStatus]) -> Vec<Trouble> {
    let cluster = app.dispatcher.cluster();
    let silent = cluster.trouble.map(|trouble| Trouble {
        subject: "controller".into(),
        code: "ledger-unavailable".into(),
        detail: format!("the ledger does not renew the leases, new attempts wait until it does: {trouble}"),
    });
    let orphans = lanes.iter().filter(|lane| lane.owner.is_none()).map(|lane| Trouble {
        subject: format!("lane {}", lane.lane),
        code: "lane-without-owner".into(),
        detail: "no controller delivers its events; the next one alive takes it within seconds".into(),
    });
    silent.into_iter().chain(orphans).collect()
}

/// Who owns which lane: of ours we know it ourselves.
fn owners(app: &App) -> BTreeMap<Lane, ControllerId> {
    let cluster = app.dispatcher.cluster();
    let others = cluster.lanes.iter().filter_map(|lane| Some((lane.lane, lane.owner?)));
    let mut owners: BTreeMap<_, _> = others.filter(|(_, owner)| *owner != cluster.me).collect();
    for lane in app.dispatcher.lanes().iter().filter(|lane| lane.epoch.is_some()) {
        owners.insert(lane.lane, cluster.me);
    }
    owners
}
