//! The router's own calls: intended requests in, outcomes out. The only room that knows reqwest. It adds what the
//! destination demands (its static credentials), and knows nothing of routes, templates or retries.

pub mod api;
pub mod egress;
pub mod http;
pub mod keys;

use std::sync::Arc;

use ::http::header::AUTHORIZATION;
use ::http::{HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::config::{Auth, Destination, DestinationUrl};
use crate::delivery::outcome::Outcome;
use crate::render::OutgoingRequest;
use crate::secret::{SecretRef, Vault};
use crate::store::Intended;
use crate::world::transport::{NotSentKind, Sent, Transport, WireRequest};

/// More of an answer than this is not read.
pub const RESPONSE_BYTES_MAX: usize = 1024 * 1024;

/// Carries intended requests out over a [`Transport`].
#[derive(Clone)]
pub struct Caller {
    transport: Arc<dyn Transport>,
}

impl Caller {
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// Sends one step's request. Only a recorded intent can be sent.
    pub async fn send_step(&self, intended: Intended<OutgoingRequest>, vault: &Vault) -> Outcome {
        let request = intended.into_request();
        let destination = request.destination.as_deref();
        let mut headers = request.headers;
        match destination.and_then(|destination| destination.auth.as_ref()) {
            None => {}
            Some(auth) => match credentials(auth, vault) {
                Ok((name, value)) => drop(headers.insert(name, value)),
                Err(why) => return Outcome::NotSent { why, kind: NotSentKind::Refused },
            },
        }
        let host = request.url.host_str().map(str::to_owned);
        let wire = WireRequest {
            method: request.method,
            url: request.url,
            headers,
            body: request.body,
            response_bytes_max: RESPONSE_BYTES_MAX,
        };
        // The transport's words may name host or address; of a destination whose URL is a secret neither is shown.
        let hidden = host.filter(|_| destination.is_some_and(is_secret));
        let shown = |why: String| match &hidden {
            Some(host) => why.replace(host.trim_matches(['[', ']']), "[secret]"),
            None => why,
        };
        match self.transport.send(wire, request.timeout).await {
            Sent::NotSent { kind: NotSentKind::Refused, .. } if hidden.is_some() => {
                let why = "the egress fence refused this destination's address; list it in `egress.allow`";
                Outcome::NotSent { why: why.to_owned(), kind: NotSentKind::Refused }
            }
            Sent::NotSent { why, kind } => Outcome::NotSent { why: shown(why), kind },
            Sent::NoAnswer { why, timed_out } => {
                Outcome::SentNoAnswer { why: shown(why), timed_out }
            }
            Sent::Answered(response) => Outcome::Answered(response),
        }
    }
}

fn is_secret(destination: &Destination) -> bool {
    matches!(destination.url, DestinationUrl::Secret(_))
}

/// The header that proves the router to a destination.
fn credentials(auth: &Auth, vault: &Vault) -> Result<(HeaderName, HeaderValue), String> {
    let secret = |reference: &SecretRef| match vault.get(reference) {
        Some(value) => Ok(value.clone()),
        None => Err(format!("the destination's secret ({reference:?}) has no value")),
    };
    let (name, value) = match auth {
        Auth::Bearer(token) => (AUTHORIZATION, format!("Bearer {}", secret(token)?.expose())),
        Auth::Basic { user, password } => {
            let pair = format!("{user}:{}", secret(password)?.expose());
            (AUTHORIZATION, format!("Basic {}", BASE64.encode(pair)))
        }
        Auth::Header { name, value } => (name.clone(), secret(value)?.expose().to_owned()),
    };
    let mut value = HeaderValue::try_from(value).map_err(|_| {
        "the destination's secret holds characters that no header may hold".to_owned()
    })?;
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretValue;

    fn check(auth: &Auth, expected: Result<(&str, &str), &str>) {
        let mut vault = Vault::default();
        for (name, value) in [("T", "tok"), ("BAD", "a\nb")] {
            vault.insert(SecretRef::Env(name.to_owned()), SecretValue::new(value));
        }
        let made = credentials(auth, &vault);
        match (made, expected) {
            (Ok((name, value)), Ok((wanted, text))) => {
                assert_eq!((name.as_str(), value.to_str().unwrap()), (wanted, text));
                assert!(!format!("{value:?}").contains("tok"));
            }
            (Err(why), Err(part)) => assert!(why.contains(part) && !why.contains("a\n"), "{why}"),
            (made, expected) => panic!("{made:?}, not {expected:?}"),
        }
    }

    #[test]
    fn destinations_get_their_credentials() {
        let env = |name: &str| SecretRef::Env(name.to_owned());
        check(&Auth::Bearer(env("T")), Ok(("authorization", "Bearer tok")));
        let basic = |password| Auth::Basic { user: "me".to_owned(), password };
        check(&basic(env("T")), Ok(("authorization", "Basic bWU6dG9r")));
        let name = HeaderName::from_static("x-api-key");
        check(&Auth::Header { name, value: env("T") }, Ok(("x-api-key", "tok")));
        check(&Auth::Bearer(env("GONE")), Err("GONE"));
        check(&Auth::Bearer(env("BAD")), Err("no header"));
    }
}
