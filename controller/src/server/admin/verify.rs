//! `POST /v1/verifications`: does every accepted event have an ending or a debt?

use axum::Json;
use axum::extract::State;
use bellwire_schemas::FinalState;
use bellwire_schemas::api::{BindingSum, SourceSum, Verification};

use crate::server::problem::Problem;
use crate::server::reads::Reads;

/// `POST /v1/verifications`.
pub async fn verify(State(app): State<Reads>) -> Result<Json<Verification>, Problem> {
    Ok(Json(sums(&app).await?))
}

/// Adds up deliveries per binding, all of one moment of the ledger, and arrivals per source, of the moment after.
///
/// # Errors
/// When the ledger does not answer.
pub async fn sums(app: &Reads) -> Result<Verification, Problem> {
    let totals = app.ledger().totals().await?;
    let bindings: Vec<_> = app
        .ledger()
        .bindings()
        .await?
        .into_iter()
        .filter_map(|record| {
            let totals = totals.get(&record.id)?;
            let ended = |state: FinalState| totals.ended.get(&state).copied().unwrap_or(0);
            // A redrive or replay of an event that was counted before adds a debt, but no event.
            let owed = (totals.waiting + totals.retrying).saturating_sub(totals.outside);
            let found: u64 = totals.ended.values().sum::<u64>() + owed;
            Some(BindingSum {
                binding: record.name,
                accepted: totals.accepted,
                delivered: ended(FinalState::Delivered),
                filtered: ended(FinalState::Filtered),
                expired: ended(FinalState::Expired),
                dead: ended(FinalState::Dead),
                discarded: ended(FinalState::Discarded),
                owed,
                gap: i64::try_from(totals.accepted).unwrap_or(i64::MAX)
                    - i64::try_from(found).unwrap_or(i64::MAX),
            })
        })
        .collect();
    let sources = app.ledger().arrivals().await?.into_iter().map(|(source, arrivals)| SourceSum {
        source,
        received: arrivals.accepted + arrivals.duplicate + arrivals.quarantined,
        accepted: arrivals.accepted,
        duplicate: arrivals.duplicate,
        quarantined: arrivals.quarantined,
    });
    Ok(Verification { complete: bindings.iter().all(|b| b.gap == 0), sources: sources.collect(), bindings })
}
