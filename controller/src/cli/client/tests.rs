use std::path::Path as FsPath;

use axum::extract::{Path, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response as AxumResponse};
use axum::routing::{get, post};
use axum::{Json, Router};
use bellwire_schemas::api::Changed;
use tokio::net::TcpListener;

use super::*;

/// A door that answers a path like `/409` with that status and a problem body.
async fn fake() -> String {
    let app = Router::new()
        .route("/status/{status}", get(problem))
        .route("/garbage", get(|| async { "not json" }))
        .route("/hello", get(|| async { (StatusCode::NOT_FOUND, "<html>") }))
        .route("/slow", get(std::future::pending::<String>))
        .route("/broken", get(broken))
        .route("/token", get(echo_token))
        .route("/write", post(echo_write))
        .route("/items", get(items))
        .route("/name/{name}", get(|Path(name): Path<String>| async move { Json(json!(name)) }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    url
}

async fn problem(Path(status): Path<u16>) -> AxumResponse {
    let body = json!({
        "type": "/e/x", "title": "a title", "status": status, "code": "x", "detail": "a detail",
        "hint": if status == 401 { Value::Null } else { json!("a hint") }, "request_id": "r1"
    });
    let status = StatusCode::from_u16(status).unwrap();
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

async fn broken() -> AxumResponse {
    let head = axum::body::Bytes::from_static(b"{\"count\"");
    let chunks = futures::stream::iter([Ok(head), Err(std::io::Error::other("gone"))]);
    axum::body::Body::from_stream(chunks).into_response()
}

async fn echo_token(request: Request) -> Json<Value> {
    let token = request.headers().get(header::AUTHORIZATION).map(|t| t.to_str().unwrap().to_owned());
    Json(json!(token))
}

async fn echo_write(request: Request) -> Json<Value> {
    assert!(request.headers().contains_key("idempotency-key"));
    Json(json!({"count": 3, "dry_run": false, "later_field": true}))
}

async fn items(uri: axum::http::Uri) -> Json<Value> {
    let pairs: std::collections::BTreeMap<_, _> =
        form_urlencoded::parse(uri.query().unwrap_or("").as_bytes()).into_owned().collect();
    let start: usize = pairs.get("cursor").map_or(0, |c| c.parse().unwrap());
    let end = (start + pairs["limit"].parse::<usize>().unwrap()).min(2_500);
    let next = (end < 2_500).then(|| end.to_string());
    Json(json!({"items": (start..end).collect::<Vec<_>>(), "next": next}))
}

fn client(url: &str, token: Option<&str>) -> Client {
    let vars = |name: &str| token.filter(|_| name == "BELLWIRE_TOKEN").map(String::from);
    let endpoint = Endpoint::find(Some(url), vars, FsPath::new("/nowhere")).unwrap();
    Client::new(endpoint).unwrap()
}

async fn fails(client: &Client, path: &str) -> (Exit, String, Option<String>) {
    let failure = client.get::<Changed>(path, &[]).await.map(|r| r.value).unwrap_err();
    (failure.exit, failure.message, failure.help)
}

#[tokio::test]
async fn problems_become_exit_codes_with_their_words() {
    let client = client(&fake().await, Some("bw_x"));
    for (status, exit) in [
        (400, Exit::Usage),
        (403, Exit::Refused),
        (404, Exit::No),
        (409, Exit::Conflict),
        (503, Exit::Unreachable),
    ] {
        let (code, message, help) = fails(&client, &format!("/status/{status}")).await;
        assert_eq!(
            (code, message.as_str(), help.as_deref()),
            (exit, "a title: a detail", Some("a hint")),
            "{status}"
        );
    }
    let (code, message, _) = fails(&client, "/status/500").await;
    assert_eq!((code, message.as_str()), (Exit::Internal, "a title: a detail (report id r1)"));
    let (code, _, help) = fails(&client, "/status/401").await;
    assert!(code == Exit::Refused && help.unwrap().contains("BELLWIRE_TOKEN"));
}

#[tokio::test]
async fn a_missing_controller_says_how_to_start_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (code, message, _) = fails(&client(&format!("http://{address}"), None), "/v1/status").await;
    assert_eq!(code, Exit::Unreachable);
    assert_eq!(message, format!("no controller at {address}. Start one: `bellwire dev`"));
}

#[tokio::test]
async fn answers_that_are_no_answers_are_told_apart() {
    let mut client = client(&fake().await, None);
    assert_eq!(fails(&client, "/garbage").await.0, Exit::Internal);
    assert_eq!(fails(&client, "/hello").await.0, Exit::Unreachable);
    assert_eq!(fails(&client, "/broken").await.0, Exit::Unreachable);
    client.read_timeout = Duration::from_millis(50);
    let (code, message, _) = fails(&client, "/slow").await;
    assert!(code == Exit::Unreachable && message.contains("did not answer"), "{message}");
}

#[tokio::test]
async fn the_token_goes_along_and_unknown_fields_are_fine() {
    let url = fake().await;
    let token: Reply<Option<String>> = client(&url, Some("bw_x")).get("/token", &[]).await.unwrap();
    assert_eq!(token.value.as_deref(), Some("Bearer bw_x"));
    let none: Reply<Option<String>> = client(&url, None).get("/token", &[]).await.unwrap();
    assert_eq!(none.value, None);
    let changed: Reply<Changed> = client(&url, None).post("/write", &json!({})).await.unwrap();
    assert_eq!(changed.value.count, 3);
    assert_eq!(changed.body, br#"{"count":3,"dry_run":false,"later_field":true}"#);
}

#[tokio::test]
async fn long_lists_are_read_page_by_page() {
    let client = client(&fake().await, None);
    for (limit, items, next) in [(7, 7, Some("7")), (1_500, 1_500, Some("1500")), (9_999, 2_500, None)] {
        let list: Reply<List<u32>> = client.list("/items", &[], limit).await.unwrap();
        assert_eq!((list.value.items.len(), list.value.next.as_deref()), (items, next), "{limit}");
        let raw: List<u32> = serde_json::from_slice(&list.body).unwrap();
        assert_eq!((raw.items, raw.next), (list.value.items, list.value.next));
    }
}

#[tokio::test]
async fn names_survive_the_path() {
    let client = client(&fake().await, None);
    for name in ["a/b c?d#e%2F", "é@x:y", "~.._-"] {
        let back: Reply<String> = client.get(&format!("/name/{}", segment(name)), &[]).await.unwrap();
        assert_eq!(back.value, name);
    }
}
