//! What an endpoint's refusal means.

use std::time::Duration;

use bellwire_schemas::{ErrorInfo, FailureClass, Timestamp};
use http::StatusCode;
use jiff::fmt::rfc2822::DateTimeParser;

use crate::Answer;
use crate::runtime_api::body::cut;

/// Longest pause that a target may ask for; more is taken as this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// An answer judged.
#[derive(Debug)]
pub struct Verdict {
    /// The answer, or the failure.
    pub answer: Result<Answer, ErrorInfo>,
    /// The pause asked for.
    pub retry_after: Option<Duration>,
}

impl Verdict {
    /// A failure.
    pub fn failed(class: FailureClass, kind: &str, message: String) -> Self {
        Self { answer: Err(ErrorInfo::platform(class, kind, message)), retry_after: None }
    }
}

/// Judges a status that is not 2xx: 429, and 503 with `Retry-After`, ask for less; everything else is an error
/// `HTTP.<status>`, and `Retry-After` says how long to wait at least. Redirects are not followed.
pub fn refusal(
    status: StatusCode,
    retry_after: Option<&str>,
    location: Option<&str>,
    body: &[u8],
    now: Timestamp,
) -> Verdict {
    let retry_after = retry_after.and_then(|text| pause(text, now));
    let throttled = match status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::SERVICE_UNAVAILABLE => retry_after.is_some(),
        _ => false,
    };
    let class = if throttled { FailureClass::Throttled } else { FailureClass::Function };
    let body = String::from_utf8_lossy(body);
    let message = match location.filter(|_| status.is_redirection()) {
        Some(location) => format!("redirects are not followed: {}", cut(location, 1024)),
        None if body.trim().is_empty() => status.canonical_reason().unwrap_or("no message").to_owned(),
        None => body.into_owned(),
    };
    Verdict { retry_after, ..Verdict::failed(class, &format!("HTTP.{}", status.as_u16()), message) }
}

/// Reads `Retry-After`: seconds, or an HTTP date.
fn pause(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Timestamp::from_jiff(DateTimeParser::new().parse_timestamp(text).ok()?).since(now),
    };
    Some(pause.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, retry_after: Option<&str>, class: FailureClass, pause: Option<u64>) {
        let status = StatusCode::from_u16(status).unwrap();
        let now = Timestamp::parse("1994-11-06T08:49:00Z").unwrap();
        let verdict = refusal(status, retry_after, None, b"no", now);
        let error = verdict.answer.unwrap_err();
        assert_eq!((error.class, verdict.retry_after), (class, pause.map(Duration::from_secs)));
        assert_eq!((error.kind, error.message), (format!("HTTP.{}", status.as_u16()), "no".to_owned()));
    }

    #[test]
    fn throttling_and_failure_are_told_apart() {
        use FailureClass::{Function, Throttled};
        check(429, None, Throttled, None);
        check(429, Some("120"), Throttled, Some(120));
        check(503, Some("Sun, 06 Nov 1994 08:49:37 GMT"), Throttled, Some(37));
        check(503, Some("Sun, 06 Nov 1994 08:00:00 GMT"), Throttled, Some(0));
        check(429, Some("99999999999"), Throttled, Some(86_400));
        check(503, None, Function, None);
        check(503, Some("soon"), Function, None);
        check(500, Some("120"), Function, Some(120));
        check(409, Some("99999999999"), Function, Some(86_400));
        check(404, None, Function, None);
        check(302, None, Function, None);
    }
}
