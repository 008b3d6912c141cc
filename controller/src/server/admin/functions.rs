//! `/v1/functions`: what they are, and a call right now.

use axum::Json;
use axum::extract::{Path, State};
use bellwire_dispatcher::shape::{self, Receiver};
use bellwire_schemas::FunctionName;
use bellwire_schemas::api::{FunctionStatus, InvocationRequest, InvocationView, List};
use bellwire_workers::{Invocation, Invoker};
use serde_json::Value;
use uuid::Uuid;

use super::status::collect;
use crate::server::app::Shared;
use crate::server::problem::Problem;

/// `GET /v1/functions`.
pub async fn list(State(app): State<Shared>) -> Result<Json<List<FunctionStatus>>, Problem> {
    Ok(Json(List { items: collect(&app).await?.functions, next: None }))
}

/// `GET /v1/functions/{function}`.
pub async fn show(
    State(app): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<FunctionStatus>, Problem> {
    let found = collect(&app).await?.functions.into_iter().find(|f| f.name.as_str() == name);
    found.map(Json).ok_or_else(|| unknown(&name))
}

/// `POST /v1/functions/{function}/invocations`: calls it now, outside any binding, and answers with the result.
pub async fn invoke(
    State(app): State<Shared>,
    Path(name): Path<String>,
    Json(request): Json<InvocationRequest>,
) -> Result<Json<InvocationView>, Problem> {
    let name = FunctionName::new(name);
    let spec = app.function(&name).ok_or_else(|| unknown(name.as_str()))?;
    let (format, receiver) = (spec.format, Receiver::of(&spec.target));
    let id = Uuid::now_v7().to_string();
    let shaped = match request {
        InvocationRequest { event: Some(event), address: None, sample: None } => shape::constant(&event),
        InvocationRequest { event: None, address: Some(address), sample: None } => {
            let stored = app.ledger().event(address).await?;
            let stored = stored.ok_or_else(|| Problem::not_found(format!("no event lies at {address}")))?;
            shape::shape(&stored, app.source_kind(&stored.source), format, receiver)
        }
        InvocationRequest { event: None, address: None, sample: Some(kind) } => {
            let stored = app.intake.sample_event(&kind).ok_or_else(|| {
                Problem::bad_request(format!(
                    "`{kind}` has no sample: kafka, rabbitmq, sqs, s3, schedule, webhook or topic"
                ))
                .pointer("/sample")
            })?;
            shape::shape(&stored, Some(kind.as_str()), format, receiver)
        }
        _ => return Err(Problem::bad_request("give exactly one of event, address and sample")),
    };
    let result = app
        .workers
        .invoke(Invocation {
            function: name,
            request_id: id.clone(),
            idempotency_key: id,
            payload: shaped.payload,
            content_type: shaped.content_type,
            headers: shaped.headers,
            traceparent: None,
            outgoing: None,
            consent: bellwire_workers::Consent::default(),
        })
        .await;
    let (answer, error) = match result.answer {
        Ok(answer) => (Some(answer), None),
        Err(error) => (None, Some(error)),
    };
    let json: Option<Value> = answer.as_ref().and_then(|a| serde_json::from_slice(&a.payload).ok());
    let text = answer.filter(|_| json.is_none()).map(|a| String::from_utf8_lossy(&a.payload).into_owned());
    Ok(Json(InvocationView {
        ok: error.is_none(),
        result: json,
        text,
        error,
        logs: result.logs,
        duration_ms: millis(result.duration),
        init_ms: result.init.map(millis),
        version: result.version,
    }))
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unknown(name: &str) -> Problem {
    Problem::not_found(format!("no function is called `{name}`")).hint("bellwire functions list")
}
