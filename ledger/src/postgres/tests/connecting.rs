//! Whom we connect to: the first host that takes writes, under the TLS that the URL asks for.

use std::path::Path;
use std::process::Command;

use bellwire_test_servers::{Options, Postgres};

use super::server;
use crate::Error;
use crate::postgres::connector_of;
use crate::postgres::migrate::schema_status;

/// Connects as a ledger would and says whether TLS is in use.
async fn connect(url: &str) -> Result<bool, Error> {
    let (connector, _) = connector_of(url, None)?;
    let connection = connector.connect().await?;
    let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    Ok(connection.query(sql, &[], std::time::Duration::from_secs(10)).await?[0].get(0))
}

#[tokio::test]
async fn a_server_that_only_reads_is_passed_over() {
    let reads = Postgres::start(&Options::default().set("default_transaction_read_only", "on")).unwrap();
    let error = connect(&reads.url()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(ref why) if why.contains("only reads")), "{error}");
    connect(&format!("{}?target_session_attrs=any", reads.url())).await.unwrap();
    assert_eq!(schema_status(&reads.url()).await.unwrap().current, 0);
    let writes = Postgres::start(&Options::default()).unwrap();
    let both = format!("postgres://postgres@{},{}/postgres", reads.address(), writes.address());
    connect(&both).await.unwrap();
    let absent = format!("postgres://postgres@127.0.0.1:1,{}/postgres", writes.address());
    connect(&absent).await.unwrap();
}

fn openssl(folder: &Path, words: &str) {
    let output = Command::new("openssl").args(words.split(' ')).current_dir(folder).output();
    let output = output.expect("openssl is installed: Postgres itself needs it on Debian");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A certificate for `localhost` and the authority that signed it.
fn certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        folder.path(),
        &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"),
    );
    openssl(
        folder.path(),
        &format!("req -x509 {key} -keyout other.key -out other.pem -days 2 -subj /CN=other"),
    );
    openssl(folder.path(), &format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
    let sign = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
    openssl(folder.path(), &format!("{sign} -out server.crt"));
    folder
}

/// Puts a file into the server's data folder, as its own user.
fn install(server: &Postgres, folder: &Path, name: &str) {
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    let sql = format!(
        "copy (select unnest(string_to_array('{}', E'\\n'))) to program 'umask 077; cat > {name}'",
        text.trim()
    );
    server.sql("postgres", &sql).unwrap();
}

#[tokio::test]
async fn tls_is_what_sslmode_says() {
    let server = Postgres::start(&Options::default()).unwrap();
    let url = |host: &str, rest: &str| {
        format!("postgres://postgres@{host}:{}/postgres?sslmode={rest}", server.address().port())
    };
    assert!(!connect(&url("localhost", "prefer")).await.unwrap());
    assert!(matches!(connect(&url("localhost", "require")).await, Err(Error::Unavailable(_))));
    let folder = certificates();
    install(&server, folder.path(), "server.key");
    install(&server, folder.path(), "server.crt");
    server.sql("postgres", "alter system set ssl = on").unwrap();
    server.sql("postgres", "select pg_reload_conf()").unwrap();
    // The server takes note when it gets to it.
    while connect(&url("localhost", "require")).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(!connect(&url("localhost", "disable")).await.unwrap());
    assert!(connect(&url("127.0.0.1", "prefer")).await.unwrap());
    let root = |name: &str| format!("&sslrootcert={}", folder.path().join(name).display());
    for (host, mode, good) in [
        ("localhost", format!("verify-full{}", root("ca.pem")), true),
        ("localhost", format!("verify-ca{}", root("ca.pem")), true),
        ("127.0.0.1", format!("verify-ca{}", root("ca.pem")), true),
        ("127.0.0.1", format!("verify-full{}", root("ca.pem")), false),
        ("localhost", format!("verify-ca{}", root("other.pem")), false),
        ("localhost", format!("require{}", root("other.pem")), false),
        ("localhost", "verify-full".into(), false),
        ("localhost", format!("verify-full{}", root("absent.pem")), false),
    ] {
        let told = connect(&url(host, &mode)).await;
        assert_eq!(told.as_ref().ok(), good.then_some(&true), "{host} {mode}: {told:?}");
    }
}

#[tokio::test]
async fn a_closed_ledger_answers_nothing_more() {
    let options = crate::PostgresOptions {
        schema: format!("t_{}", uuid::Uuid::new_v4().simple()),
        ..Default::default()
    };
    let ledger = crate::PostgresLedger::open(&server(), options.clone()).await.unwrap();
    let subject = super::OnServer { url: server(), ledger: ledger.clone(), options };
    crate::Ledger::close(&ledger).await;
    let append = crate::conformance::build::batch(vec![]);
    let answer = crate::Ledger::append(&ledger, append, crate::conformance::build::at(0)).await;
    assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    drop(subject);
}
