//! What is said when the broker refuses.

use bellwire_schemas::brokers::{QueueType, RabbitmqDeclare, Tls, TlsFiles};
use bellwire_schemas::service::Secret;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::contract::Limit;

const LIMIT: Limit = Limit { items: 10, bytes: 1 << 20 };

async fn refusal(settings: &RabbitmqSource) -> String {
    let mut connector = RabbitmqConnector::new(Arc::new(plan(settings).unwrap()), "test");
    let error = connector.receive(LIMIT).await.unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_what_to_do() {
    let publisher = Publisher::new().await;
    let queue = publisher.declare("quorum").await;
    let good = settings(&url(), &queue);
    let with = |change: &dyn Fn(&mut RabbitmqSource)| {
        let mut settings = good.clone();
        change(&mut settings);
        settings
    };
    let declare = |queue_type, exchange: &str| {
        Some(RabbitmqDeclare { queue_type, exchange: Some(exchange.into()), routing_keys: Vec::new() })
    };
    for (settings, expected) in [
        (
            with(&|s| s.url = Secret::new(url().replace("guest:guest", "guest:hunter2"))),
            "check user and password",
        ),
        (with(&|s| s.url = Secret::new(url().replace("/%2f", "/nowhere"))), "virtual host `nowhere`"),
        (with(&|s| s.queue = "no-such-queue".into()), "`declare: {}`"),
        (with(&|s| s.declare = declare(QueueType::Classic, "")), "other arguments"),
        (with(&|s| s.declare = declare(QueueType::Quorum, "no-such-exchange")), "create it first"),
        (with(&|s| s.url = Secret::new("amqp://guest:hunter2@127.0.0.1:1/")), "cannot be reached"),
    ] {
        let error = refusal(&settings).await;
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// Ends TLS before the broker, for one connection after the other.
async fn tls_door(config: ServerConfig) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = url().rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(mut client) = acceptor.accept(client).await else { continue };
            let mut server = TcpStream::connect(&broker).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqps_trusts_the_given_certificate_only() {
    let (cert, key) = (include_str!("localhost.pem"), include_str!("localhost.key"));
    let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let port = tls_door(config).await;
    let mut rig = BrokerRig::new("quorum", None).await;
    rig.produce(3).await;

    let mut settings = settings(&format!("amqps://guest:guest@localhost:{port}/%2f"), &rig.queue);
    let error = refusal(&settings).await;
    assert!(error.contains("no TLS"), "{error}");
    settings.tls = Tls::On(TlsFiles { ca: Some(cert.into()), ..TlsFiles::default() });
    let mut connector = RabbitmqConnector::new(Arc::new(plan(&settings).unwrap()), "test");
    let mut seen = 0;
    while seen < 3 {
        let batch = connector.receive(LIMIT).await.unwrap();
        seen += batch.parcels.len();
        let committed = rig.commit(&batch).await;
        connector.confirm(batch.receipt, &committed).await.unwrap();
    }
}
