//! The sender's side: signs a notification by a source's own scheme and POSTs it, again and again where that is asked for,
//! as providers do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use url::Url;

use crate::body::BodyRule;
use crate::call::api::{self, ApiError};
use crate::verify::Keys;
use crate::verify::draft::{Proof, Unsigned};
use crate::verify::scheme::Scheme;
use crate::verify::sign::{SignError, sign, sign_wrongly};
use crate::world::clock::Clock;
use crate::world::transport::WireResponse;

/// One notification before it is signed.
#[derive(Clone, Debug)]
pub struct Notification {
    pub method: Method,
    /// The `{name}` parts of the source's path.
    pub path: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The id to sign, where the scheme signs one that no header gives.
    pub id: String,
}

/// A signed request, ready to leave.
#[derive(Clone, Debug)]
pub struct Signed {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What signs for one source.
pub struct Provider<'a> {
    pub scheme: &'a Scheme,
    pub keys: Keys<'a>,
    /// How the source reads bodies.
    pub body: Option<&'a BodyRule>,
    /// The source's URL as the provider knows it: what schemes that sign the URL sign.
    pub public_url: Url,
    /// Where it POSTs.
    pub to: Url,
    pub clock: Arc<dyn Clock>,
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("cannot sign: {0}")]
    Sign(#[from] SignError),
    #[error("the signature cannot be placed in the request: {0}")]
    Unplaceable(String),
    #[error(transparent)]
    Unreachable(#[from] ApiError),
}

/// How long a provider waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

impl Provider<'_> {
    /// Signs now, with secret number `which` (from 0) of the scheme.
    pub fn sign(&self, notification: &Notification, which: usize) -> Result<Signed, SendError> {
        let unsigned = self.unsigned(notification);
        let proof = sign(self.scheme, self.keys, &unsigned, self.clock.now(), which)?;
        self.placed(notification, proof)
    }

    /// The same with a proof that is of the right form and wrong.
    pub fn sign_wrongly(
        &self,
        notification: &Notification,
        which: usize,
    ) -> Result<Signed, SendError> {
        let unsigned = self.unsigned(notification);
        let proof = sign_wrongly(self.scheme, self.keys, &unsigned, self.clock.now(), which)?;
        self.placed(notification, proof)
    }

    /// The notification as the source will see it.
    pub fn unsigned(&self, notification: &Notification) -> Unsigned {
        Unsigned {
            method: notification.method.clone(),
            url: self.public_url.clone(),
            path: notification.path.clone(),
            headers: notification.headers.clone(),
            body: notification.body.clone(),
            id: notification.id.clone(),
            body_rule: self.body.cloned(),
        }
    }

    /// The notification with what proves its sender.
    pub fn placed(&self, notification: &Notification, proof: Proof) -> Result<Signed, SendError> {
        let mut headers = notification.headers.clone();
        for (name, value) in proof.headers {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| SendError::Unplaceable(format!("`{name}` is no header name")))?;
            let value = HeaderValue::from_str(&value)
                .map_err(|_| SendError::Unplaceable(format!("the value of {name}")))?;
            headers.insert(name, value);
        }
        let mut url = self.to.clone();
        if !proof.query.is_empty() {
            url.query_pairs_mut().extend_pairs(proof.query);
        }
        Ok(Signed { method: notification.method.clone(), url, headers, body: proof.body })
    }

    /// Signs and sends once.
    pub async fn send(&self, notification: &Notification) -> Result<WireResponse, SendError> {
        self.sign(notification, 0)?.send().await
    }

    /// Signs and sends until a 2xx comes back, at most `attempts` times with `pause` between them. Answers how many it
    /// took, or the last failure.
    pub async fn send_until_accepted(
        &self,
        notification: &Notification,
        attempts: u32,
        pause: Duration,
    ) -> Result<u32, String> {
        let mut last = "no attempt was allowed".to_owned();
        for attempt in 1..=attempts {
            match self.send(notification).await {
                Ok(answer) if (200..300).contains(&answer.status) => return Ok(attempt),
                Ok(answer) => last = format!("answered {}", answer.status),
                Err(error) => last = error.to_string(),
            }
            if attempt < attempts {
                self.clock.sleep(pause).await;
            }
        }
        Err(last)
    }
}

impl Signed {
    pub async fn send(&self) -> Result<WireResponse, SendError> {
        let (url, headers, body) = (&self.url, self.headers.clone(), self.body.clone());
        Ok(api::send(self.method.clone(), url, headers, body, PATIENCE).await?)
    }
}
