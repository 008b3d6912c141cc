//! Signs requests by Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp`, `webhook-signature` with `v1`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwire_schemas::Timestamp;
use bellwire_schemas::service::Secret;
use hmac::{Hmac, Mac as _};
use http::header::{HeaderName, HeaderValue};
use sha2::Sha256;

/// A signing key.
pub struct Signer(Vec<u8>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(***)")
    }
}

impl Signer {
    /// Reads `whsec_` plus base64; any other text is taken as the key itself.
    pub fn new(secret: &Secret) -> Self {
        let text = secret.expose();
        let encoded = text.strip_prefix("whsec_").and_then(|rest| STANDARD.decode(rest).ok());
        Self(encoded.unwrap_or_else(|| text.as_bytes().to_vec()))
    }

    /// The three headers for a body. The id is the same for each attempt.
    pub fn headers(&self, id: &str, now: Timestamp, body: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
        // The signed text is `id.timestamp.body`: a dot within the id would make it ambiguous.
        let id = header_safe(id).replace('.', "_");
        let time = now.millis().div_euclid(1_000).to_string();
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return Vec::new() };
        mac.update(format!("{id}.{time}.").as_bytes());
        mac.update(body);
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let all = [("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signature)];
        let header = |(name, value): (&'static str, String)| {
            Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
        };
        all.into_iter().filter_map(header).collect()
    }
}

/// Percent-encodes what is not visible ASCII.
pub fn header_safe(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'!'..=b'~' if byte != b'%' => (byte as char).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification() {
        let signer = Signer::new(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        let now = Timestamp::from_millis(1_614_265_330_000);
        let headers = signer.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", now, br#"{"test": 2432232314}"#);
        let text = |at: usize| headers[at].1.to_str().unwrap();
        assert_eq!(text(0), "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(text(1), "1614265330");
        assert_eq!(text(2), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_id_is_made_safe() {
        let headers = Signer(vec![1]).headers("1-42@a:s3.ü", Timestamp::from_millis(0), b"");
        assert_eq!(headers[0].1, "1-42@a:s3_%C3%BC");
    }
}
