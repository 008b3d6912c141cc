//! The webhook's door: verify, then translate; and the two handshakes.

use bellwire_schemas::Timestamp;
use bellwire_schemas::service::Verify;
use http::header::ALLOW;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::json;

use super::envelope::{contents, slack_challenge};
use super::{WebhookConfig, verify};
use crate::{Admitted, Door, DoorRequest, DoorResponse, Parcel, Refused};

const METHODS: &str = "POST, OPTIONS";
const REQUEST_ORIGIN: &str = "webhook-request-origin";
const REQUEST_RATE: &str = "webhook-request-rate";
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// Takes requests in at `/hooks/<path>`.
pub struct WebhookDoor(WebhookConfig);

impl WebhookDoor {
    /// The door of a webhook.
    pub fn new(config: WebhookConfig) -> Self {
        Self(config)
    }
}

impl Door for WebhookDoor {
    fn admit(&self, request: &DoorRequest, now: Timestamp) -> Result<Admitted, Refused> {
        if request.method == Method::OPTIONS {
            return Ok(Admitted::Reply(handshake(request)));
        }
        if request.method != Method::POST {
            return Err(Refused::method(&request.method, METHODS));
        }
        let verified = verify(&self.0, request, now)
            .map_err(|why| Refused::new(StatusCode::UNAUTHORIZED, "bad-signature", why))?;
        if self.0.spec.verify == Verify::Slack
            && let Some(challenge) = slack_challenge(&request.body)
        {
            return Ok(Admitted::Reply(DoorResponse::json(
                StatusCode::OK,
                json!({ "challenge": challenge }),
            )));
        }
        let parcel = |content| Parcel { source: self.0.source.clone(), content };
        Ok(Admitted::Parcels(contents(&self.0, request, verified)?.into_iter().map(parcel).collect()))
    }
}

/// The validation request of CloudEvents' HTTP webhooks (section 4): whoever asks may send, at the rate asked for.
/// Signatures still decide about every request.
fn handshake(request: &DoorRequest) -> DoorResponse {
    let mut response = DoorResponse::empty(StatusCode::OK);
    response.headers.push((ALLOW, HeaderValue::from_static(METHODS)));
    if let Some(origin) = request.headers.get(REQUEST_ORIGIN) {
        let asked = request.headers.get(REQUEST_RATE).filter(|rate| is_rate(rate));
        let rate = asked.cloned().unwrap_or(HeaderValue::from_static("*"));
        response.headers.push((ALLOWED_ORIGIN, origin.clone()));
        response.headers.push((ALLOWED_RATE, rate));
    }
    response
}

/// A positive number of requests a minute.
fn is_rate(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| text.parse::<u32>().is_ok_and(|rate| rate > 0))
}
