//! Schedules and webhooks: what needs more than one key, or a second look at one.

use bellwire_schedules::{Schedule as Expression, time_zone};
use bellwire_schemas::Timestamp;
use bellwire_schemas::service::{
    HmacAlgorithm, HmacEncoding, HmacRule, Missed, ScheduleSpec, Secret, SourceKind, Verify, WebhookSpec,
};

use crate::context::Context;
use crate::diagnostic::Code;
use crate::shape::{
    Hmac, HmacAlgorithmWord, HmacEncodingWord, MissedWord, Schedule, Verify as VerifyShape, VerifyWord,
    Webhook,
};
use crate::tree::{At, join};

/// Judges a schedule.
pub(super) fn schedule(spec: &Schedule, at: &At<'_>, cx: &mut Context<'_>) -> Option<SourceKind> {
    let mut good = true;
    for (i, expression) in spec.expression.iter().enumerate() {
        if let Err(e) = Expression::parse(&expression.0) {
            good = false;
            let at = at.key("expression").item(i);
            cx.error(Code::BadValue, at.node.at, &at.within, e.to_string());
        }
    }
    if let Err(e) = time_zone(&spec.timezone.0) {
        good = false;
        let at = at.key("timezone");
        cx.error(Code::BadValue, at.node.at, &at.within, e.to_string()).help =
            Some("write an IANA name such as `Europe/Berlin`".into());
    }
    let mut moment = |key: &str, text: Option<&str>| match text.map(Timestamp::parse) {
        Some(Err(e)) => {
            good = false;
            let at = at.key(key);
            cx.error(Code::BadValue, at.node.at, &at.within, e);
            None
        }
        Some(Ok(time)) => Some(time),
        None => None,
    };
    let start = moment("start", spec.start.as_ref().map(|m| m.0.as_str()));
    let end = moment("end", spec.end.as_ref().map(|m| m.0.as_str()));
    if let (Some(start), Some(end)) = (start, end)
        && end <= start
    {
        good = false;
        let at = at.key("end");
        cx.error(Code::Conflict, at.node.at, &at.within, "`end` is not after `start`".into());
    }
    good.then(|| {
        SourceKind::Schedule(ScheduleSpec {
            expressions: spec.expression.iter().map(|e| e.0.clone()).collect(),
            timezone: spec.timezone.0.clone(),
            missed: match spec.missed {
                MissedWord::Last => Missed::Last,
                MissedWord::None => Missed::None,
                MissedWord::All => Missed::All,
            },
            jitter: spec.jitter.0,
            start,
            end,
        })
    })
}

/// Judges a webhook.
pub(super) fn webhook(spec: &Webhook, at: &At<'_>, cx: &mut Context<'_>) -> Option<SourceKind> {
    let verify = match &spec.verify {
        VerifyShape::Word(VerifyWord::Github) => Verify::Github,
        VerifyShape::Word(VerifyWord::Stripe) => Verify::Stripe,
        VerifyShape::Word(VerifyWord::Slack) => Verify::Slack,
        VerifyShape::Word(VerifyWord::StandardWebhooks) => Verify::StandardWebhooks,
        VerifyShape::Word(VerifyWord::Token) => Verify::Token,
        VerifyShape::Word(VerifyWord::None) => Verify::None,
        VerifyShape::Hmac { hmac } => Verify::Hmac(hmac_rule(hmac)),
    };
    match (verify == Verify::None, spec.secret.is_empty()) {
        (true, false) => {
            let at = at.key("secret");
            cx.error(Code::Conflict, at.key, &at.within, "`verify: none` asks for no secret".into()).help =
                Some("take `secret` out, or say how it is checked, such as `verify: token`".into());
            None
        }
        (false, true) if !cx.dropped(&join(&at.path, "secret")) => {
            let at = at.key("verify");
            cx.error(Code::MissingKey, at.key, &at.within, "`secret` is missing".into()).help =
                Some("`verify` checks each request against it: write `secret: ${env:NAME}`".into());
            None
        }
        _ => Some(SourceKind::Webhook(WebhookSpec {
            path: spec.path.0.clone(),
            verify,
            secrets: spec.secret.iter().map(|s| Secret::new(&*s.0)).collect(),
            tolerance: spec.tolerance.0,
        })),
    }
}

fn hmac_rule(hmac: &Hmac) -> HmacRule {
    HmacRule {
        header: hmac.header.0.clone(),
        algorithm: match hmac.algorithm {
            HmacAlgorithmWord::Sha1 => HmacAlgorithm::Sha1,
            HmacAlgorithmWord::Sha256 => HmacAlgorithm::Sha256,
            HmacAlgorithmWord::Sha512 => HmacAlgorithm::Sha512,
        },
        encoding: match hmac.encoding {
            HmacEncodingWord::Hex => HmacEncoding::Hex,
            HmacEncodingWord::Base64 => HmacEncoding::Base64,
        },
        prefix: hmac.prefix.0.clone(),
    }
}
