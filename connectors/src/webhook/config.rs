//! A webhook's settings.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwire_schemas::service::{Secret, SourceSpec, Verify, WebhookSpec};

/// Prefix of Standard Webhooks secrets.
pub(super) const WHSEC: &str = "whsec_";

/// A webhook, checked, its secrets as key bytes.
#[derive(Clone)]
pub struct WebhookConfig {
    /// The source.
    pub source: Arc<SourceSpec>,
    /// What the user declared.
    pub spec: WebhookSpec,
    /// The keys of the accepted secrets.
    pub(crate) keys: Vec<Vec<u8>>,
}

impl WebhookConfig {
    /// Checks path and secrets.
    ///
    /// # Errors
    /// When the path has no leading slash, or a secret is missing, empty or of the wrong form.
    pub fn new(source: Arc<SourceSpec>, spec: &WebhookSpec) -> Result<Self, String> {
        let path_fits = spec.path.starts_with('/') && !spec.path.contains(['?', '#', ' ']);
        if !path_fits {
            return Err(format!(
                "path `{}`: write it with a leading slash and without `?`, `#` or blanks",
                spec.path
            ));
        }
        let keys = keys(&spec.verify, &spec.secrets)?;
        let mut spec = spec.clone();
        while spec.path.len() > 1 && spec.path.ends_with('/') {
            spec.path.pop();
        }
        Ok(Self { source, spec, keys })
    }
}

/// The key bytes of the secrets.
pub(super) fn keys(verify: &Verify, secrets: &[Secret]) -> Result<Vec<Vec<u8>>, String> {
    if *verify == Verify::None {
        return Ok(Vec::new());
    }
    if secrets.is_empty() {
        return Err("`verify` needs a `secret`".into());
    }
    secrets.iter().map(|secret| key(verify, secret.expose())).collect()
}

fn key(verify: &Verify, secret: &str) -> Result<Vec<u8>, String> {
    if secret.is_empty() {
        return Err("a secret is empty".into());
    }
    if *verify != Verify::StandardWebhooks {
        return Ok(secret.as_bytes().to_vec());
    }
    let wrong = "a Standard Webhooks secret is `whsec_` followed by base64";
    let key = STANDARD.decode(secret.strip_prefix(WHSEC).unwrap_or(secret)).map_err(|_| wrong.to_owned())?;
    if key.is_empty() { Err(wrong.into()) } else { Ok(key) }
}
