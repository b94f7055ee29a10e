//! Which secrets verify a request, and how the text of one becomes a key.

use std::collections::BTreeMap;

use base64::Engine;
use zeroize::Zeroizing;

use super::algorithm;
use super::rejection::Rejection;
use super::request::{Found, Request};
use super::scheme::{BASE64, Hash, PublicKey};
use super::text::Selector;
use crate::secret::{SecretRef, SecretValue};

/// Whose secrets verify a request: all of these are tried.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Secrets {
    pub always: Vec<SecretRef>,
    /// Those of the tenant that the request names.
    pub by: Option<ByPlace>,
    /// What a handshake brought for the source and path.
    pub captured: bool,
}

/// `secret: { by: path.shop, of: { acme: … } }`
#[derive(Clone, Debug, PartialEq)]
pub struct ByPlace {
    pub at: Selector,
    pub of: BTreeMap<String, Vec<SecretRef>>,
}

impl Secrets {
    /// Those that the configuration names, in order.
    pub fn named(&self) -> impl Iterator<Item = &SecretRef> {
        let of = self.by.iter().flat_map(|by| by.of.values().flatten());
        self.always.iter().chain(of)
    }

    pub(super) fn path_part(&self) -> Option<&str> {
        match &self.by.as_ref()?.at {
            Selector::PathPart(name) => Some(name),
            _ => None,
        }
    }

    /// The values that may verify `request`; at least one.
    pub(super) fn values<'a>(
        &self,
        request: &Request<'a>,
    ) -> Result<Vec<&'a SecretValue>, Rejection> {
        let mut values: Vec<&SecretValue> =
            self.references(request).filter_map(|secret| request.secret(secret)).collect();
        if self.captured {
            values.extend(request.keys.captured);
        }
        match (values.is_empty(), self.references(request).next()) {
            (false, _) => Ok(values),
            (true, Some(_)) => Err(Rejection::UnusableSecret),
            (true, None) if self.captured => Err(Rejection::NoSecretCaptured),
            (true, None) => Err(Rejection::NoSecret),
        }
    }

    /// Those of the configuration that fit `request`.
    pub(super) fn references(&self, request: &Request<'_>) -> impl Iterator<Item = &SecretRef> {
        let of = self.by.as_ref().and_then(|by| match request.find(&by.at) {
            Found::Once(name) => by.of.get(std::str::from_utf8(&name).ok()?),
            Found::Absent | Found::Repeated => None,
        });
        self.always.iter().chain(of.into_iter().flatten())
    }
}

impl From<Vec<SecretRef>> for Secrets {
    fn from(always: Vec<SecretRef>) -> Self {
        Self { always, by: None, captured: false }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretEncoding {
    #[default]
    Utf8,
    Base64,
    Hex,
}

/// How the text of a secret becomes a key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyForm {
    pub encoding: SecretEncoding,
    /// Taken off the front of the secret before decoding, where it is there.
    pub strip_prefix: Option<String>,
    /// The key is this hash of the secret.
    pub digest: Option<Hash>,
}

impl KeyForm {
    /// The key bytes behind the text of a secret, or why there are none; of a public key those of this kind. The same reading
    /// as at verification, so a configuration whose secret cannot be read is refused before it runs.
    pub(super) fn key(
        &self,
        secret: &str,
        public: Option<PublicKey>,
    ) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let Some(kind) = public else { return self.bytes(secret) };
        let bytes = match algorithm::is_pem(secret) {
            true => algorithm::pem(secret)?.into(),
            false => self.bytes(secret)?,
        };
        algorithm::public_key(kind, &bytes).map(Zeroizing::new)
    }

    fn bytes(&self, secret: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let text = self
            .strip_prefix
            .as_deref()
            .and_then(|prefix| secret.strip_prefix(prefix))
            .unwrap_or(secret);
        let key = match self.encoding {
            SecretEncoding::Utf8 => text.as_bytes().to_vec(),
            SecretEncoding::Base64 => BASE64.decode(text).map_err(|_| "it is not base64")?,
            SecretEncoding::Hex => hex::decode(text).map_err(|_| "it is not hexadecimal")?,
        };
        if key.is_empty() {
            return Err("it is empty");
        }
        let key = Zeroizing::new(key);
        Ok(match self.digest {
            Some(hash) => Zeroizing::new(algorithm::digest(hash, &[&key])),
            None => key,
        })
    }
}
