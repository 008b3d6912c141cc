//! Who may call: bearer tokens with roles, compared in constant time as hashes.

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode, header};
use bellwire_schemas::service::{Role, TokenSpec};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::Problem;

/// The tokens that a controller accepts.
#[derive(Debug)]
pub struct Tokens(Vec<Token>);

#[derive(Debug)]
struct Token {
    name: String,
    role: Role,
    digest: [u8; 32],
}

/// Who called.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token's name, for the audit log.
    pub name: String,
    /// Its role.
    pub role: Role,
}

impl Caller {
    /// Checks that the caller may do what `needed` allows.
    ///
    /// # Errors
    /// 403 with the role that is missing.
    pub fn may(&self, needed: Role) -> Result<(), Problem> {
        let allowed = match needed {
            Role::Publish => self.role != Role::Read,
            Role::Read => self.role != Role::Publish,
            Role::Operate => matches!(self.role, Role::Operate | Role::Admin),
            Role::Admin => self.role == Role::Admin,
        };
        if allowed {
            return Ok(());
        }
        let detail =
            format!("token `{}` has role {:?}, this needs {needed:?}", self.name, self.role).to_lowercase();
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
    }
}

impl Tokens {
    /// The configured tokens.
    pub fn new(specs: &[TokenSpec]) -> Self {
        Self(
            specs
                .iter()
                .map(|spec| Token {
                    name: spec.name.clone(),
                    role: spec.role,
                    digest: Sha256::digest(spec.secret.expose()).into(),
                })
                .collect(),
        )
    }

    /// Finds the caller by the `Authorization: Bearer` header.
    ///
    /// # Errors
    /// 401 when there is no token, or none that is known.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let unauthorized = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
        let presented = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| unauthorized("no `Authorization: Bearer` header"))?;
        let digest: [u8; 32] = Sha256::digest(presented).into();
        // Every token is compared, so that the time tells nothing about which one was close.
        let found = self.0.iter().fold(None, |found, token| {
            if bool::from(token.digest.ct_eq(&digest)) { Some(token) } else { found }
        });
        let token = found.ok_or_else(|| unauthorized("this token is not known"))?;
        Ok(Caller { name: token.name.clone(), role: token.role })
    }
}

/// Refuses requests whose `Host` is neither an IP literal, `localhost`, nor the door's own name: a web page that
/// rebinds its DNS name to loopback arrives with its own name.
///
/// # Errors
/// 403 naming the host.
pub fn check_host(headers: &HeaderMap, own: &str) -> Result<(), Problem> {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("");
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(n, _)| n);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let own = own.rsplit_once(':').map_or(own, |(n, _)| n);
    if bare.is_empty()
        || bare == "localhost"
        || bare.parse::<IpAddr>().is_ok()
        || bare.eq_ignore_ascii_case(own)
    {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "bad-host", format!("the Host header says `{host}`")))
}

/// A new random token: 256 bits, hexadecimal, with a prefix that secret scanners can find.
pub fn new_token() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().fold(String::from("bw_"), |mut text, byte| {
        use std::fmt::Write;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use bellwire_schemas::service::Secret;

    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_known_token_is_found_and_its_role_holds() {
        let token = |name: &str, role| TokenSpec {
            name: name.into(),
            role,
            secret: Secret::new(format!("{name}-secret")),
        };
        let tokens =
            Tokens::new(&[token("ana", Role::Read), token("ci", Role::Publish), token("ops", Role::Operate)]);
        let caller = |secret: &str| tokens.caller(&headers(header::AUTHORIZATION, secret));
        let ana = caller("Bearer ana-secret").unwrap();
        assert!(
            ana.may(Role::Read).is_ok() && ana.may(Role::Publish).is_err() && ana.may(Role::Operate).is_err()
        );
        let ci = caller("bearer ci-secret").unwrap();
        assert!(ci.may(Role::Publish).is_ok() && ci.may(Role::Read).is_err());
        let ops = caller("Bearer ops-secret").unwrap();
        assert!(
            ops.may(Role::Publish).is_ok() && ops.may(Role::Read).is_ok() && ops.may(Role::Admin).is_err()
        );
        for bad in ["Bearer nobody", "Basic ana-secret", "ana-secret", "Bearer ", ""] {
            assert!(caller(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_its_own_host_reaches_the_admin_door() {
        for good in ["127.0.0.1:7071", "localhost", "[::1]:7071", "bell.example:7071"] {
            assert!(check_host(&headers(header::HOST, good), "bell.example:7071").is_ok(), "{good}");
        }
        assert!(check_host(&headers(header::HOST, "evil.example:7071"), "127.0.0.1:7071").is_err());
    }
}
