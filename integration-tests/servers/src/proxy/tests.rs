#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::*;

const SOON: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that sends back what comes, and counts the bytes that reached it.
struct Echo {
    address: SocketAddr,
    received: watch::Receiver<usize>,
}

async fn echo() -> Echo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, received) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                    count.send_modify(|n| *n += length);
                    if stream.write_all(&bytes[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Echo { address, received }
}

async fn stage() -> (Echo, Proxy) {
    let echo = echo().await;
    let proxy = Proxy::start(echo.address).await.unwrap();
    (echo, proxy)
}

async fn ask(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut answer = vec![0; text.len()];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("an answer or an end")?;
    Ok(String::from_utf8(answer).unwrap())
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

/// Waits for the end of a connection, which must be a reset.
async fn assert_reset(stream: &mut TcpStream) {
    let end = timeout(PATIENCE, stream.read(&mut [0; 16])).await.expect("the connection ends");
    assert_eq!(end.expect_err("a reset, not an orderly end").kind(), ErrorKind::ConnectionReset);
}

async fn assert_silent(stream: &mut TcpStream) {
    assert!(timeout(SOON, stream.read(&mut [0; 16])).await.is_err(), "nothing comes and nothing ends");
}

#[tokio::test]
async fn passes_bytes_and_both_ends() {
    let (_echo, proxy) = stage().await;
    let mut client = connect(&proxy).await;
    assert_eq!(ask(&mut client, "hello").await.unwrap(), "hello");
    let long = "x".repeat(300_000);
    let (mut read, mut write) = client.into_split();
    let sent = tokio::spawn(async move {
        write.write_all(long.as_bytes()).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    timeout(PATIENCE, read.read_to_end(&mut back)).await.unwrap().unwrap();
    sent.await.unwrap();
    assert_eq!(back.len(), 300_000);
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn refuses_new_connections_and_keeps_old_ones() {
    let (_echo, proxy) = stage().await;
    let mut old = connect(&proxy).await;
    ask(&mut old, "a").await.unwrap();
    proxy.set(Mode::Refuse).await;
    let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(ask(&mut old, "b").await.unwrap(), "b");
    proxy.reset_all().await;
    assert_reset(&mut old).await;
    proxy.set(Mode::Pass).await;
    assert_eq!(ask(&mut connect(&proxy).await, "c").await.unwrap(), "c");
}

#[tokio::test]
async fn resets_old_and_new_connections() {
    let (_echo, proxy) = stage().await;
    let mut old = connect(&proxy).await;
    ask(&mut old, "a").await.unwrap();
    proxy.set(Mode::Reset).await;
    assert_reset(&mut old).await;
    // The reset may come before or after connect() returns.
    if let Ok(mut new) = TcpStream::connect(proxy.address()).await {
        assert_reset(&mut new).await;
    }
    proxy.set(Mode::Pass).await;
    assert_eq!(ask(&mut connect(&proxy).await, "c").await.unwrap(), "c");
}

#[tokio::test]
async fn a_black_hole_swallows_and_is_not_healed() {
    let (echo, proxy) = stage().await;
    let mut old = connect(&proxy).await;
    ask(&mut old, "a").await.unwrap();
    proxy.set(Mode::BlackHole).await;
    let mut new = connect(&proxy).await;
    for stream in [&mut old, &mut new] {
        stream.write_all(b"lost").await.unwrap();
        assert_silent(stream).await;
    }
    assert_eq!(*echo.received.borrow(), 1, "nothing reached the server");
    proxy.set(Mode::Pass).await;
    assert_reset(&mut old).await;
    assert_reset(&mut new).await;
    assert_eq!(ask(&mut connect(&proxy).await, "c").await.unwrap(), "c");
}

#[tokio::test]
async fn a_stall_holds_bytes_back_and_heals() {
    let (echo, proxy) = stage().await;
    let mut old = connect(&proxy).await;
    ask(&mut old, "a").await.unwrap();
    proxy.set(Mode::Stall).await;
    let mut new = connect(&proxy).await;
    for stream in [&mut old, &mut new] {
        stream.write_all(b"late").await.unwrap();
        assert_silent(stream).await;
    }
    assert_eq!(*echo.received.borrow(), 1, "nothing reached the server");
    proxy.set(Mode::Pass).await;
    for stream in [&mut old, &mut new] {
        let mut late = [0; 4];
        timeout(PATIENCE, stream.read_exact(&mut late)).await.unwrap().unwrap();
        assert_eq!(&late, b"late");
    }
}

#[tokio::test]
async fn delays_each_direction() {
    let (_echo, proxy) = stage().await;
    let mut client = connect(&proxy).await;
    proxy.set(Mode::Delay(Duration::from_millis(60))).await;
    let start = Instant::now();
    assert_eq!(ask(&mut client, "a").await.unwrap(), "a");
    assert!(start.elapsed() >= Duration::from_millis(120), "{:?}", start.elapsed());
}

#[tokio::test]
async fn cuts_after_so_many_bytes() {
    let (mut echo, proxy) = stage().await;
    let mut client = connect(&proxy).await;
    ask(&mut client, "before").await.unwrap();
    proxy.set(Mode::CutToServer(4)).await;
    assert_eq!(ask(&mut client, "abc").await.unwrap(), "abc");
    client.write_all(b"def").await.unwrap();
    timeout(PATIENCE, echo.received.wait_for(|n| *n == 10)).await.unwrap().unwrap();
    assert_reset(&mut client).await;
    assert_eq!(proxy.cuts(), 1);

    proxy.set(Mode::CutFromServer(4)).await;
    let mut client = connect(&proxy).await;
    client.write_all(b"abcdef").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"abcd");
    assert_eq!(proxy.cuts(), 2);
}

#[tokio::test]
async fn cuts_between_a_request_and_its_answer() {
    let (echo, proxy) = stage().await;
    let (mut victim, mut other) = (connect(&proxy).await, connect(&proxy).await);
    proxy.set(Mode::CutAnswer { request: b"commit".to_vec(), answer: b"t;".to_vec() }).await;
    assert_eq!(ask(&mut victim, "insert;").await.unwrap(), "insert;");
    assert_eq!(ask(&mut victim, "com").await.unwrap(), "com");
    // The pattern ends in a second piece; the answer's end comes in a third.
    victim.write_all(b"mit").await.unwrap();
    victim.write_all(b";").await.unwrap();
    assert_reset(&mut victim).await;
    assert_eq!(*echo.received.borrow(), 14, "the server served the request");
    assert_eq!((proxy.cuts(), proxy.mode()), (1, Mode::Pass));
    assert_eq!(ask(&mut other, "commit;").await.unwrap(), "commit;");
}

#[tokio::test]
async fn names_itself_in_urls() {
    let (_echo, proxy) = stage().await;
    let address = proxy.address();
    assert_eq!(proxy.url("postgres://me:pw@db:5432/x?a=b"), format!("postgres://me:pw@{address}/x?a=b"));
    assert_eq!(proxy.url("amqp://db:5672"), format!("amqp://{address}"));
}

/// A client of a real server: what it was not told has happened all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_insert_whose_answer_is_cut_is_there() {
    let server = crate::Postgres::start(&crate::Options::default()).unwrap();
    let proxy = Proxy::start(server.address()).await.unwrap();
    server.sql("postgres", "create table t (n int)").unwrap();
    proxy.set(Mode::CutAnswer { request: b"insert into t".to_vec(), answer: READY_FOR_QUERY.to_vec() }).await;
    let url = proxy.url(&server.url());
    let insert = tokio::task::spawn_blocking(move || crate::postgres::psql(&url, "insert into t values (1)"));
    assert!(insert.await.unwrap().is_err(), "no answer came");
    assert_eq!(server.sql("postgres", "select count(*) from t").unwrap(), "1");
    assert_eq!(crate::postgres::psql(&proxy.url(&server.url()), "select 1").unwrap(), "1");
}
