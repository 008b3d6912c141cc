//! The settings of a source or destination, checked: where the broker is, and how to trust it.

use std::sync::Arc;

use bellwire_schemas::brokers::{RabbitmqDeclare, RabbitmqSource, Tls, TlsFiles};
use bellwire_schemas::service::{Secret, SourceSpec};
use lapin::uri::{AMQPScheme, AMQPUri};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// Seconds between signs of life that we ask of the broker, and give. RabbitMQ's own default is 60; a dead
/// connection is given up after two and a half of ours.
pub(super) const HEARTBEAT_SECONDS: u16 = 10;
/// Longest queue, exchange and routing key, in bytes (AMQP 0-9-1, "short string").
const MAX_NAME_BYTES: usize = 255;

/// A broker, ready to be connected. Its credentials never appear in `Debug` or in an error.
#[derive(Clone)]
pub struct Broker {
    uri: AMQPUri,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.place(), self.vhost())
    }
}

impl Broker {
    /// Reads `amqp(s)://user:password@host:port/vhost` and the certificates.
    ///
    /// # Errors
    /// When the URL or a certificate cannot be read; the URL is not repeated.
    pub fn new(url: &Secret, tls: &Tls) -> Result<Self, String> {
        let form = "write `url` as amqp://user:password@host:5672/vhost, the virtual host `/` as %2f";
        let mut uri: AMQPUri = url.expose().parse().map_err(|_| format!("the url cannot be read: {form}"))?;
        if let Some(host) = bracketed(url.expose()) {
            host.clone_into(&mut uri.authority.host);
        }
        if uri.authority.host.is_empty() {
            return Err(format!("the url names no host: {form}"));
        }
        uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
        let files = match tls {
            Tls::Off => TlsFiles::default(),
            Tls::On(files) => files.clone(),
        };
        let tls = match (&uri.scheme, tls) {
            (AMQPScheme::AMQPS, _) => {
                let name = ServerName::try_from(uri.authority.host.clone())
                    .map_err(|_| "the url's host cannot be the name in a certificate".to_owned())?;
                Some((Arc::new(client_config(&files)?), name))
            }
            (AMQPScheme::AMQP, Tls::On(_)) => {
                return Err("`tls` needs an `amqps` url, this one is `amqp`".into());
            }
            (AMQPScheme::AMQP, Tls::Off) => None,
        };
        Ok(Self { uri, tls })
    }

    /// Host and port.
    pub fn place(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }

    /// The virtual host.
    pub fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    pub(super) fn user(&self) -> &str {
        &self.uri.authority.userinfo.username
    }

    pub(super) fn host(&self) -> &str {
        &self.uri.authority.host
    }

    pub(super) fn port(&self) -> u16 {
        self.uri.authority.port
    }

    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }

    pub(super) fn tls(&self) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        self.tls.clone()
    }
}

/// A source, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The source.
    pub source: Arc<SourceSpec>,
    /// Where.
    pub broker: Broker,
    /// The queue.
    pub queue: String,
    /// Messages that the broker may hand over ahead; `None`: chosen by what messages weigh.
    pub prefetch: Option<u16>,
    /// What is declared first.
    pub declare: Option<RabbitmqDeclare>,
}

impl Plan {
    /// Checks a source; nothing is reached yet.
    ///
    /// # Errors
    /// Says which setting cannot work.
    pub fn new(source: Arc<SourceSpec>, settings: &RabbitmqSource) -> Result<Self, String> {
        let broker = Broker::new(&settings.url, &settings.tls)?;
        if settings.queue.is_empty() {
            return Err("`queue` is empty: name the queue to read".into());
        }
        fits("queue", &settings.queue)?;
        if settings.prefetch == Some(0) {
            return Err("`prefetch: 0` would mean no bound: write 1 to 65535, or `auto`".into());
        }
        if let Some(declare) = &settings.declare {
            fits("declare.exchange", declare.exchange.as_deref().unwrap_or_default())?;
            for key in &declare.routing_keys {
                fits("declare.routing_keys", key)?;
            }
            if declare.exchange.as_deref().is_none_or(str::is_empty) && !declare.routing_keys.is_empty() {
                return Err(
                    "`declare.routing_keys` need `declare.exchange`, to which the queue is bound".into()
                );
            }
        }
        let (queue, declare) = (settings.queue.clone(), settings.declare.clone());
        Ok(Self { source, broker, queue, prefetch: settings.prefetch, declare })
    }
}

/// A name that AMQP can carry.
pub(super) fn fits(what: &str, name: &str) -> Result<(), String> {
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("`{what}` has {} bytes, AMQP carries {MAX_NAME_BYTES}", name.len()));
    }
    Ok(())
}

/// An IPv6 address in brackets, which the parser of URLs that we use takes for no host at all.
fn bracketed(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(host.strip_prefix('[')?.split_once(']')?.0)
}

fn client_config(files: &TlsFiles) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("set up TLS: {e}"))?
        .with_root_certificates(roots(files.ca.as_deref())?);
    let (cert, key) = match (&files.cert, &files.key) {
        (None, None) => return Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => (cert, key),
        _ => return Err("`tls.cert` and `tls.key` come together".into()),
    };
    let chain = CertificateDer::pem_slice_iter(cert.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| format!("`tls.cert` cannot be read as PEM: {e}"))?;
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
        .map_err(|e| format!("`tls.key` cannot be read as PEM: {e}"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|e| format!("`tls.cert` and `tls.key` do not work: {e}"))
}

fn roots(ca: Option<&str>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let Some(ca) = ca else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(store);
    };
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        let certificate = certificate.map_err(|e| format!("`tls.ca` cannot be read as PEM: {e}"))?;
        store.add(certificate).map_err(|e| format!("`tls.ca` cannot be used: {e}"))?;
    }
    if store.is_empty() {
        return Err("`tls.ca` holds no certificate".into());
    }
    Ok(store)
}
