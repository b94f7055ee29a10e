//! Who may do what. A request and the tokens of the live configuration enter; an actor or a refusal leaves.
//!
//! Without tokens only loopback is served, so the dangers are a browser's: a foreign page that reaches the address by a
//! name of its own (the Host header tells), or that posts a form (its content type tells).

use http::{HeaderMap, Method, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::problem::Problem;
use crate::config::{Live, Role};

/// Who acts: the name of a token, or `local`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Actor {
    pub(super) name: String,
    pub(super) role: Role,
}

impl Actor {
    pub(super) fn may(&self, needed: Role) -> Result<(), Problem> {
        if self.role >= needed {
            return Ok(());
        }
        let word = |role: Role| match role {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        };
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!(
                "the token `{}` has the role {}; this needs {}",
                self.name,
                word(self.role),
                word(needed)
            ),
        ))
    }
}

/// What every request must pass, whoever sends it. `loopback`: the listener is reachable from this machine alone.
pub(super) fn admit(
    live: &Live,
    loopback: bool,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    if live.set.server.admin.tokens.is_empty() {
        // A reload may have taken the last token away from a public listener.
        if !loopback {
            let why = "the admin address is public and no token is configured";
            return Err(Problem::new(StatusCode::FORBIDDEN, why));
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        if !host.is_some_and(is_loopback_host) {
            let why = "the Host header names no loopback address; ask by 127.0.0.1 or localhost";
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, why));
        }
    }
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !safe && !is_json(headers) {
        let why = "send `Content-Type: application/json`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    Ok(())
}

/// The sender of a request, by its bearer token. Every token is compared, in constant time.
pub(super) fn actor(live: &Live, headers: &HeaderMap) -> Result<Actor, Problem> {
    let tokens = &live.set.server.admin.tokens;
    if tokens.is_empty() {
        return Ok(Actor { name: "local".to_owned(), role: Role::Admin });
    }
    let unauthorized = |why: &str| Problem::new(StatusCode::UNAUTHORIZED, why);
    let offered = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty())
        .ok_or_else(|| unauthorized("send a token: `Authorization: Bearer …`"))?;
    // Digests have one length, so the comparison tells nothing of a token's.
    let offered = Sha256::digest(offered.as_bytes());
    let mut found = None;
    for token in tokens {
        let Some(secret) = live.resolved.secret(&token.token) else { continue };
        let usable = Choice::from(u8::from(!secret.expose().is_empty()));
        let same = Sha256::digest(secret.expose().as_bytes()).ct_eq(&offered) & usable;
        if bool::from(same) && found.is_none() {
            found = Some(Actor { name: token.name.clone(), role: token.role });
        }
    }
    found.ok_or_else(|| unauthorized("the token is not known"))
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim)
        // Neither is a type that a form can post.
        .is_some_and(|media| {
            media.eq_ignore_ascii_case("application/json")
                || media.eq_ignore_ascii_case("application/x-ndjson")
        })
}

/// `localhost`, `127.0.0.0/8` or `[::1]`, with or without a port.
fn is_loopback_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    if host.contains('@') {
        return false;
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts() {
        fn check(host: &str, expected: bool) {
            assert_eq!(is_loopback_host(host), expected, "{host}");
        }
        check("127.0.0.1:8081", true);
        check("127.3.2.1", true);
        check("localhost", true);
        check("LOCALHOST:1", true);
        check("[::1]:8081", true);
        check("evil.example", false);
        check("127.0.0.1.evil.example", false);
        check("localhost.evil.example:8081", false);
        check("a@127.0.0.1", false);
        check("10.0.0.1", false);
        check("", false);
    }

    #[test]
    fn roles_grow() {
        fn check(role: Role, needed: Role, expected: bool) {
            assert_eq!(Actor { name: "t".to_owned(), role }.may(needed).is_ok(), expected);
        }
        check(Role::Viewer, Role::Viewer, true);
        check(Role::Viewer, Role::Operator, false);
        check(Role::Operator, Role::Viewer, true);
        check(Role::Admin, Role::Operator, true);
    }
}
