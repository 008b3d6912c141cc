//! Signatures: whether a request comes from whom it says. Pure; compares in constant time; never says which part of
//! a signature was wrong, nor prints a secret.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwire_schemas::Timestamp;
use bellwire_schemas::service::{HmacAlgorithm, HmacEncoding, HmacRule, Verify};
use hmac::{Hmac, Mac};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::WebhookConfig;
use crate::DoorRequest;

/// A request whose signature holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The delivery id that the signature scheme carries (`webhook-id`).
    pub id: Option<String>,
}

/// Checks a request against the accepted secrets.
///
/// # Errors
/// What is missing or wrong, in words that help its sender and no forger.
pub fn verify(config: &WebhookConfig, request: &DoorRequest, now: Timestamp) -> Result<Verified, String> {
    let tolerance = config.spec.tolerance;
    let keys = &config.keys;
    match &config.spec.verify {
        Verify::None => Ok(Verified::default()),
        Verify::Token => token(keys, request),
        Verify::Github => {
            let given = header(request, "x-hub-signature-256")?;
            let given = given.strip_prefix("sha256=").and_then(|hex| hex::decode(hex).ok());
            check(HmacAlgorithm::Sha256, keys, &[&request.body], given.into_iter())
        }
        Verify::Stripe => stripe(keys, request, tolerance, now),
        Verify::Slack => {
            let at = header(request, "x-slack-request-timestamp")?;
            recent(at, tolerance, now)?;
            let given = header(request, "x-slack-signature")?;
            let given = given.strip_prefix("v0=").and_then(|hex| hex::decode(hex).ok());
            let parts: [&[u8]; 4] = [b"v0:", at.as_bytes(), b":", &request.body];
            check(HmacAlgorithm::Sha256, keys, &parts, given.into_iter())
        }
        Verify::StandardWebhooks => standard_webhooks(keys, request, tolerance, now),
        Verify::Hmac(rule) => generic(keys, request, rule),
    }
}

/// Adds the headers that make a request pass [`verify`], signed with the first secret.
pub fn sign(config: &WebhookConfig, request: &mut DoorRequest, now: Timestamp) {
    let Some(key) = config.keys.first() else { return };
    let seconds = (now.millis() / 1_000).to_string();
    let body = request.body.clone();
    let sha256 = |parts: &[&[u8]]| mac(HmacAlgorithm::Sha256, key, parts);
    match &config.spec.verify {
        Verify::None => {}
        Verify::Token => {
            set(request, AUTHORIZATION.as_str(), &format!("Bearer {}", String::from_utf8_lossy(key)))
        }
        Verify::Github => {
            set(request, "x-hub-signature-256", &format!("sha256={}", hex::encode(sha256(&[&body]))));
        }
        Verify::Stripe => {
            let signature = hex::encode(sha256(&[seconds.as_bytes(), b".", &body]));
            set(request, "stripe-signature", &format!("t={seconds},v1={signature}"));
        }
        Verify::Slack => {
            let signature = hex::encode(sha256(&[b"v0:", seconds.as_bytes(), b":", &body]));
            set(request, "x-slack-request-timestamp", &seconds);
            set(request, "x-slack-signature", &format!("v0={signature}"));
        }
        Verify::StandardWebhooks => {
            let id = request
                .header("webhook-id")
                .map_or_else(|| format!("msg_{}", uuid::Uuid::now_v7().simple()), str::to_owned);
            let parts: [&[u8]; 5] = [id.as_bytes(), b".", seconds.as_bytes(), b".", &body];
            let signature = STANDARD.encode(sha256(&parts));
            set(request, "webhook-id", &id);
            set(request, "webhook-timestamp", &seconds);
            set(request, "webhook-signature", &format!("v1,{signature}"));
        }
        Verify::Hmac(rule) => {
            let signature = mac(rule.algorithm, key, &[&body]);
            let text = match rule.encoding {
                HmacEncoding::Hex => hex::encode(signature),
                HmacEncoding::Base64 => STANDARD.encode(signature),
            };
            set(request, &rule.header, &format!("{}{text}", rule.prefix));
        }
    }
}

/// The headers that carry signatures and tokens, which no event keeps.
pub(super) fn signature_headers(verify: &Verify) -> Vec<&str> {
    match verify {
        Verify::Github => vec!["x-hub-signature-256", "x-hub-signature"],
        Verify::Stripe => vec!["stripe-signature"],
        Verify::Slack => vec!["x-slack-signature"],
        Verify::StandardWebhooks => vec!["webhook-signature"],
        Verify::Hmac(rule) => vec![&rule.header],
        Verify::Token | Verify::None => Vec::new(),
    }
}

fn token(keys: &[Vec<u8>], request: &DoorRequest) -> Result<Verified, String> {
    let given = header(request, AUTHORIZATION.as_str())?;
    let scheme_and_token = given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (_, given) = scheme_and_token.ok_or("`Authorization: Bearer` is missing")?;
    // Hashes have one length, so the comparison says nothing about that of the secret.
    let given = Sha256::digest(given.trim().as_bytes());
    let hit = keys.iter().fold(0, |hit, key| hit | Sha256::digest(key).ct_eq(&given).unwrap_u8());
    if hit == 1 { Ok(Verified::default()) } else { Err("the token is wrong".into()) }
}

/// `t=<seconds>,v1=<hex>[,v1=<hex>]` over `<seconds>.<body>`.
fn stripe(
    keys: &[Vec<u8>],
    request: &DoorRequest,
    tolerance: Duration,
    now: Timestamp,
) -> Result<Verified, String> {
    let given = header(request, "stripe-signature")?;
    let parts = || given.split(',').filter_map(|part| part.trim().split_once('='));
    let at = parts()
        .find(|(name, _)| *name == "t")
        .map(|(_, at)| at)
        .ok_or("`t=` is missing in stripe-signature")?;
    recent(at, tolerance, now)?;
    let signatures = parts().filter(|(name, _)| *name == "v1").filter_map(|(_, hex)| hex::decode(hex).ok());
    check(HmacAlgorithm::Sha256, keys, &[at.as_bytes(), b".", &request.body], signatures)
}

/// Standard Webhooks 1.0: base64 of the HMAC over `<id>.<timestamp>.<body>`, several signatures with blanks between.
fn standard_webhooks(
    keys: &[Vec<u8>],
    request: &DoorRequest,
    tolerance: Duration,
    now: Timestamp,
) -> Result<Verified, String> {
    let id = header(request, "webhook-id")?;
    let at = header(request, "webhook-timestamp")?;
    // A dot would let the border between id, time and body be moved without a change of the signed text.
    if id.is_empty() || id.contains('.') || at.contains('.') {
        return Err("webhook-id and webhook-timestamp must not be empty or hold a dot".into());
    }
    recent(at, tolerance, now)?;
    let given = header(request, "webhook-signature")?;
    let signatures = given
        .split_ascii_whitespace()
        .filter_map(|one| one.split_once(','))
        .filter(|(version, _)| *version == "v1")
        .filter_map(|(_, text)| STANDARD.decode(text).ok());
    let parts: [&[u8]; 5] = [id.as_bytes(), b".", at.as_bytes(), b".", &request.body];
    check(HmacAlgorithm::Sha256, keys, &parts, signatures)?;
    Ok(Verified { id: Some(id.to_owned()) })
}

fn generic(keys: &[Vec<u8>], request: &DoorRequest, rule: &HmacRule) -> Result<Verified, String> {
    let given = header(request, &rule.header)?;
    let text = given.strip_prefix(rule.prefix.as_str());
    let text =
        text.ok_or_else(|| format!("header `{}` does not begin with `{}`", rule.header, rule.prefix))?;
    let signature = match rule.encoding {
        HmacEncoding::Hex => hex::decode(text).ok(),
        HmacEncoding::Base64 => STANDARD.decode(text).ok(),
    };
    check(rule.algorithm, keys, &[&request.body], signature.into_iter())
}

/// A header that must be there exactly once: two would let a proxy and this program read different ones.
fn header<'a>(request: &'a DoorRequest, name: &str) -> Result<&'a str, String> {
    request.header(name).ok_or_else(|| format!("header `{name}` is missing, or there more than once"))
}

/// The most signatures looked at: senders in a rotation send two, the rest is noise that costs hashing.
const MAX_SIGNATURES: usize = 8;

fn check(
    algorithm: HmacAlgorithm,
    keys: &[Vec<u8>],
    parts: &[&[u8]],
    given: impl Iterator<Item = Vec<u8>>,
) -> Result<Verified, String> {
    let given: Vec<_> = given.take(MAX_SIGNATURES).collect();
    let hit = keys.iter().fold(0, |hit, key| {
        let expected = mac(algorithm, key, parts);
        given.iter().fold(hit, |hit, given| hit | expected.as_slice().ct_eq(given).unwrap_u8())
    });
    if hit == 1 {
        Ok(Verified::default())
    } else {
        Err("the signature does not match body and secret".into())
    }
}

fn mac(algorithm: HmacAlgorithm, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    match algorithm {
        HmacAlgorithm::Sha1 => digest::<Hmac<Sha1>>(key, parts),
        HmacAlgorithm::Sha256 => digest::<Hmac<Sha256>>(key, parts),
        HmacAlgorithm::Sha512 => digest::<Hmac<Sha512>>(key, parts),
    }
}

fn digest<M: Mac + hmac::digest::KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = <M as Mac>::new_from_slice(key).expect("an HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

fn recent(seconds: &str, tolerance: Duration, now: Timestamp) -> Result<(), String> {
    let digits = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
    let at = digits.then(|| seconds.parse::<i64>().ok()).flatten().and_then(|s| s.checked_mul(1_000_000));
    let at = Timestamp::from_micros(at.ok_or("the signed timestamp is not a number of seconds")?);
    if now.since(at).max(at.since(now)) > tolerance {
        return Err("the signed timestamp is too old or too far ahead (tolerance)".into());
    }
    Ok(())
}

fn set(request: &mut DoorRequest, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        request.headers.insert(name, value);
    }
}
