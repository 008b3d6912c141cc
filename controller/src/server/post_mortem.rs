//! `--ledger`: the reading part of `/v1` over a ledger whose controller is gone, or is not asked.

use std::sync::Arc;

use bellwire_schemas::service::{Role, Secret, TokenSpec};
use bellwire_schemas::{LedgerUrl, Span};
use tokio_util::sync::CancellationToken;

use super::auth::{Tokens, new_token};
use super::reads::Reads;
use super::{admin, doors, ledgers};

/// Retention is a setting of the controller, which is not here: the documented default stands in.
const RETENTION: &str = "7d";

/// Opens a ledger for reading and serves it on a loopback port of its own until this process ends; answers with the
/// base URL and the token.
///
/// # Errors
/// When the URL names no ledger, or it cannot be read.
pub async fn open(url: &str) -> anyhow::Result<(String, String)> {
    let retention = RETENTION.parse::<Span>().map_err(anyhow::Error::msg)?.0;
    let ledger = ledgers::open_read_only(&LedgerUrl::new(url)).await?;
    let token = new_token();
    let tokens = Tokens::new(&[TokenSpec {
        name: "post-mortem".into(),
        role: Role::Operate,
        secret: Secret::new(token.clone()),
    }]);
    let (listener, address) = doors::bind("127.0.0.1:0", "admin").await?;
    let router = admin::reading_router(Reads::post_mortem(ledger, retention), Arc::new(tokens));
    tokio::spawn(doors::serve(listener, router, CancellationToken::new()));
    Ok((format!("http://{address}"), token))
}
