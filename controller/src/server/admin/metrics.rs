//! `GET /metrics`: the Prometheus text format.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::status::collect;
use crate::server::app::Shared;
use crate::server::metrics::render;
use crate::server::problem::Problem;

/// `GET /metrics`.
pub async fn metrics(State(app): State<Shared>) -> Result<impl IntoResponse, Problem> {
    let text = render(&collect(&app).await?, &app.observed);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
