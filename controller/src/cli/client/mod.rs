//! The CLI's side of `/v1`: one request, one answer, and every way that can fail turned into words and an exit code.

use std::error::Error as _;
use std::time::Duration;

use bellwire_schemas::api::{ErrorBody, List};
use reqwest::{Method, RequestBuilder, Response, StatusCode, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::endpoint::Endpoint;
use super::exit::{Exit, Failure};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A read that scans the ledger may take a while; a controller that is silent for longer hangs.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a stream may be silent: the controller sends a comment every 15 seconds, so that two are missing by then.
pub const STREAM_TIMEOUT: Duration = Duration::from_secs(45);
/// Far above the largest list the API answers.
const MAX_BODY_BYTES: usize = 256 << 20;
/// The most items the API gives in one answer.
const PAGE: usize = 1_000;

/// A connection to one controller.
pub struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    read_timeout: Duration,
}

/// An answer: as it came, and as it is understood.
pub struct Reply<T> {
    /// The body, unchanged.
    pub body: Vec<u8>,
    /// The same, read.
    pub value: T,
}

impl Client {
    /// A client for a controller; nothing is sent yet.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(endpoint: Endpoint) -> Result<Self, Failure> {
        // Fails only when somebody installed a provider before, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("bellwire/", env!("CARGO_PKG_VERSION")));
        if endpoint.loopback {
            http = http.no_proxy();
        }
        let http =
            http.build().map_err(|e| Failure::new(Exit::Internal, format!("set up TLS: {}", chain(&e))))?;
        Ok(Self { http, endpoint, read_timeout: READ_TIMEOUT })
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// With the exit code that the answer, or its absence, stands for.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Reply<T>, Failure> {
        let request = self.request(Method::GET, &with_query(path, query)).timeout(self.read_timeout);
        self.answer(request).await
    }

    /// Reads a list of up to `limit` items, over several pages if need be. Within one page the body is the API's.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
        limit: usize,
    ) -> Result<Reply<List<T>>, Failure> {
        let page = |size: usize, cursor: Option<String>| {
            let mut query = query.to_vec();
            query.push(("limit", size.min(PAGE).to_string()));
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            query
        };
        let mut whole: Reply<List<T>> = self.get(path, &page(limit, None)).await?;
        if limit <= PAGE || whole.value.next.is_none() {
            return Ok(whole);
        }
        let mut raw: Value = serde_json::from_slice(&whole.body)?;
        while whole.value.items.len() < limit
            && let Some(cursor) = whole.value.next.take()
        {
            let size = limit - whole.value.items.len();
            let next: Reply<List<T>> = self.get(path, &page(size, Some(cursor))).await?;
            let mut more: Value = serde_json::from_slice(&next.body)?;
            if let (Some(items), Some(more)) = (raw["items"].as_array_mut(), more["items"].as_array_mut()) {
                items.append(more);
            }
            raw["next"] = json!(next.value.next);
            whole.value.items.extend(next.value.items);
            whole.value.next = next.value.next;
        }
        whole.body = serde_json::to_vec(&raw)?;
        Ok(whole)
    }

    /// Writes: an `Idempotency-Key` goes with it. No time limit, since the function that is called has its own.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Reply<T>, Failure> {
        let key = uuid::Uuid::now_v7().to_string();
        let request = self.request(Method::POST, path).header("idempotency-key", key).json(body);
        self.answer(request).await
    }

    /// Opens a stream of server-sent events.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn stream(
        &self,
        path: &str,
        query: &[(&str, String)],
        last_id: Option<&str>,
    ) -> Result<Response, Failure> {
        let mut request =
            self.request(Method::GET, &with_query(path, query)).header("accept", "text/event-stream");
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.map_err(|e| self.no_answer(&e))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    /// The next bytes of a stream; `None` at its end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn chunk(&self, response: &mut Response) -> Result<Option<Vec<u8>>, Failure> {
        let chunk = response.chunk().await.map_err(|e| self.no_answer(&e))?;
        Ok(chunk.map(|bytes| bytes.to_vec()))
    }

    fn request(&self, method: Method, path_and_query: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path_and_query}", self.endpoint.url));
        match &self.endpoint.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<Reply<T>, Failure> {
        let response = request.send().await.map_err(|e| self.no_answer(&e))?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let body = self.collect(response).await?;
        match serde_json::from_slice(&body) {
            Ok(value) => Ok(Reply { body, value }),
            Err(error) => {
                let message = format!(
                    "{} answered something else than this version expects: {error}",
                    self.endpoint.authority
                );
                Err(Failure::new(Exit::Internal, message)
                    .help("compare `bellwire version` with the controller's version"))
            }
        }
    }

    async fn collect(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.no_answer(&e))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BODY_BYTES {
                return Err(Failure::new(Exit::Internal, "the answer is larger than 256 MB")
                    .help("ask for less: --limit"));
            }
        }
        Ok(body)
    }

    /// An answer that says no: a problem body, or something that is no controller.
    async fn refusal(&self, response: Response) -> Failure {
        let status = response.status();
        let body = match self.collect(response).await {
            Ok(body) => body,
            Err(failure) => return failure,
        };
        let Ok(mut problem) = serde_json::from_slice::<ErrorBody>(&body) else {
            let message =
                format!("{} answered {status}, but not as a controller does", self.endpoint.authority);
            return Failure::new(Exit::Unreachable, message)
                .help("is another program listening there? see --url");
        };
        problem.status = status.as_u16();
        let mut failure = Failure::of_problem(&problem);
        if status == StatusCode::UNAUTHORIZED && failure.help.is_none() {
            failure.help = Some(match &self.endpoint.token {
                None => {
                    "set BELLWIRE_TOKEN, or run the command in the folder of the controller's configuration"
                        .into()
                }
                Some(_) => "the token is not this controller's: check BELLWIRE_TOKEN and --url".into(),
            });
        }
        failure
    }

    fn no_answer(&self, error: &reqwest::Error) -> Failure {
        let place = &self.endpoint.authority;
        if error.is_timeout() && !error.is_connect() {
            let message =
                format!("the controller at {place} did not answer within {} s", self.read_timeout.as_secs());
            return Failure::new(Exit::Unreachable, message);
        }
        if !error.is_connect() {
            return Failure::new(
                Exit::Unreachable,
                format!("the connection to {place} broke: {}", chain(error)),
            );
        }
        if self.endpoint.loopback {
            return Failure::new(
                Exit::Unreachable,
                format!("no controller at {place}. Start one: `bellwire dev`"),
            );
        }
        Failure::new(Exit::Unreachable, format!("no controller at {place}: {}", chain(error)))
    }
}

/// A path segment, percent-encoded.
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' | b':' => {
                encoded.push(byte.into())
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn with_query(path: &str, query: &[(&str, String)]) -> String {
    if query.is_empty() {
        return path.into();
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{query}")
}

/// The causes of an error, outermost left out when it only repeats the URL.
fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    causes.last().cloned().unwrap_or_else(|| error.to_string())
}

#[cfg(test)]
mod tests;
