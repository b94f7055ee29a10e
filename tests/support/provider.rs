//! A provider that signs as Stripe documents it, written apart from the router's own code.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// `Stripe-Signature` for `body`, signed at `at` (Unix seconds) with `secret`.
pub(crate) fn stripe_signature(secret: &str, body: &str, at: u64) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length of key");
    mac.update(format!("{at}.{body}").as_bytes());
    format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[expect(clippy::disallowed_methods, reason = "the provider's own clock")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// One signed notification, ready to be sent any number of times.
#[derive(Clone)]
pub(crate) struct Notification {
    pub(crate) body: String,
    pub(crate) signature: String,
}

impl Notification {
    pub(crate) fn new(secret: &str, body: impl Into<String>) -> Self {
        let body = body.into();
        let signature = stripe_signature(secret, &body, now());
        Self { body, signature }
    }

    /// Sends it once; the status, or why there was no answer.
    pub(crate) async fn send(
        &self,
        client: &reqwest::Client,
        url: &str,
    ) -> Result<u16, reqwest::Error> {
        let answer = client
            .post(url)
            .header("content-type", "application/json")
            .header("stripe-signature", &self.signature)
            .body(self.body.clone())
            .send()
            .await?;
        Ok(answer.status().as_u16())
    }
}
