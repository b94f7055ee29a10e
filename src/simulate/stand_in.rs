//! Key pairs that stand in for a provider's own where a signature is only a matter of form (`router try`). They are in
//! everybody's hands and prove nothing.

use crate::secret::{SecretValue, Vault};
use crate::verify::fetched::{Fetched, KeySet};
use crate::verify::scheme::{Algorithm, PublicKey, Scheme, Signing};

pub struct KeyPair {
    /// PKCS#8 in PEM.
    pub private: &'static str,
    /// SubjectPublicKeyInfo in PEM.
    pub public: &'static str,
}

pub fn key_pair(kind: PublicKey) -> KeyPair {
    match kind {
        PublicKey::Ed25519 => KeyPair {
            private: include_str!("stand_in/ed25519.pem"),
            public: include_str!("stand_in/ed25519.pub.pem"),
        },
        PublicKey::EcdsaP256Sha256 => KeyPair {
            private: include_str!("stand_in/p256.pem"),
            public: include_str!("stand_in/p256.pub.pem"),
        },
        PublicKey::RsaSha256 | PublicKey::RsaSha1 => KeyPair {
            private: include_str!("stand_in/rsa.pem"),
            public: include_str!("stand_in/rsa.pub.pem"),
        },
    }
}

/// `scheme` with SHA-256 where RSA has SHA-1, with which nothing here signs.
pub fn scheme(scheme: &Scheme) -> Scheme {
    match scheme {
        Scheme::Signing(signing) => {
            let algorithm = match signing.algorithm {
                Algorithm::PublicKey(PublicKey::RsaSha1) => {
                    Algorithm::PublicKey(PublicKey::RsaSha256)
                }
                other => other,
            };
            Scheme::Signing(Signing { algorithm, ..signing.clone() })
        }
        Scheme::AnyOf(schemes) => Scheme::AnyOf(schemes.iter().map(self::scheme).collect()),
        Scheme::AllOf(schemes) => Scheme::AllOf(schemes.iter().map(self::scheme).collect()),
        Scheme::ForEach { path, scheme } => {
            Scheme::ForEach { path: path.clone(), scheme: Box::new(self::scheme(scheme)) }
        }
        Scheme::Token(_) | Scheme::Jwt(_) | Scheme::Require(_) | Scheme::None { .. } => {
            scheme.clone()
        }
    }
}

/// What signs, and what verifies: `vault` with a pair in the place of each public key of the scheme.
pub fn vaults(scheme: &Scheme, vault: &Vault) -> (Vault, Vault) {
    let (mut signs, mut verifies) = (vault.clone(), vault.clone());
    for (reference, kind) in scheme.public_keys() {
        let pair = key_pair(kind);
        signs.insert(reference.clone(), SecretValue::new(pair.private));
        verifies.insert(reference.clone(), SecretValue::new(pair.public));
    }
    (signs, verifies)
}

/// What signs where the router would fetch the sender's keys, and what it would fetch.
pub fn fetched(scheme: &Scheme) -> (Option<SecretValue>, Fetched) {
    let Some(kind) = scheme.fetched_key() else { return (None, Fetched::default()) };
    let pair = key_pair(kind);
    let fetched = KeySet::of_public_key(kind, pair.public).map(Fetched::everywhere);
    (Some(SecretValue::new(pair.private)), fetched.unwrap_or_default())
}
