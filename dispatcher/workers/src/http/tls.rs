//! TLS for everything that calls out: ring's ciphers, the system's certificates, nothing process-wide.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// A client configuration that trusts what the machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured).
/// Certificates that cannot be read are left out with a warning.
///
/// # Errors
/// When the ciphers offer no safe protocol version, which no build does.
pub fn tls_config() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a system certificate was left out");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::warn!("the system has no certificates: no https endpoint will be trusted");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(config.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}
