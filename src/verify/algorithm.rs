//! What a signature is computed with, and by which key it is judged.

use hmac::{Hmac as Keyed, KeyInit, Mac};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED,
    ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    RsaKeyPair, UnparsedPublicKey,
};
use rsa::pkcs8::DecodePrivateKey;
use rsa::{Pkcs1v15Sign, PrivateKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::scheme::{Algorithm, Hash, PublicKey};

/// One of `candidates` is the signature of `message` by `key`. Which one, and where it differs, does not show in the time.
pub(super) fn is_signed(
    algorithm: Algorithm,
    key: &[u8],
    message: &[&[u8]],
    candidates: &[Vec<u8>],
) -> Choice {
    let among = |expected: Vec<u8>| {
        candidates
            .iter()
            .fold(Choice::from(0), |found, candidate| found | expected.ct_eq(candidate))
    };
    match algorithm {
        Algorithm::Hmac(hash) => among(mac(hash, key, message)),
        Algorithm::Digest(hash) => among(digest(hash, message)),
        // Nothing here is secret.
        Algorithm::PublicKey(kind) => {
            let message = message.concat();
            let is_by = |candidate: &Vec<u8>| match kind {
                PublicKey::Ed25519 => {
                    UnparsedPublicKey::new(&ED25519, key).verify(&message, candidate)
                }
                PublicKey::EcdsaP256Sha256 => {
                    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(&message, candidate)
                }
                PublicKey::RsaSha256 => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
                    .verify(&message, candidate),
                PublicKey::RsaSha1 => {
                    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, key)
                        .verify(&message, candidate)
                }
            };
            Choice::from(u8::from(candidates.iter().any(|candidate| is_by(candidate).is_ok())))
        }
    }
}

/// The algorithms of JSON Web Signatures that are taken (RFC 7518, 3.1; RFC 8037, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtAlgorithm {
    Hs256,
    Hs512,
    Rs256,
    Es256,
    EdDsa,
}

impl JwtAlgorithm {
    pub const ALL: [Self; 5] = [Self::Hs256, Self::Hs512, Self::Rs256, Self::Es256, Self::EdDsa];

    /// As `alg` says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The kind of its keys, where they are public ones.
    pub fn public_key(self) -> Option<PublicKey> {
        match self {
            Self::Hs256 | Self::Hs512 => None,
            Self::Rs256 => Some(PublicKey::RsaSha256),
            Self::Es256 => Some(PublicKey::EcdsaP256Sha256),
            Self::EdDsa => Some(PublicKey::Ed25519),
        }
    }
}

pub(super) fn is_jws(
    algorithm: JwtAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Choice {
    let by =
        |verified: Result<(), ring::error::Unspecified>| Choice::from(u8::from(verified.is_ok()));
    match algorithm {
        JwtAlgorithm::Hs256 => mac(Hash::Sha256, key, &[message]).ct_eq(signature),
        JwtAlgorithm::Hs512 => mac(Hash::Sha512, key, &[message]).ct_eq(signature),
        JwtAlgorithm::Rs256 => {
            by(UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(message, signature))
        }
        // Both numbers side by side, not in DER (RFC 7518, 3.4).
        JwtAlgorithm::Es256 => {
            by(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature))
        }
        JwtAlgorithm::EdDsa => by(UnparsedPublicKey::new(&ED25519, key).verify(message, signature)),
    }
}

/// Signs as the sender of a token; `key` is the shared secret, or the text of a private key.
pub(super) fn sign_jws(
    algorithm: JwtAlgorithm,
    key: &[u8],
    private_key: &str,
    message: &[u8],
) -> Result<Vec<u8>, &'static str> {
    match algorithm {
        JwtAlgorithm::Hs256 => Ok(mac(Hash::Sha256, key, &[message])),
        JwtAlgorithm::Hs512 => Ok(mac(Hash::Sha512, key, &[message])),
        JwtAlgorithm::Rs256 => sign(PublicKey::RsaSha256, private_key, &[message]),
        JwtAlgorithm::EdDsa => sign(PublicKey::Ed25519, private_key, &[message]),
        JwtAlgorithm::Es256 => {
            const REFUSED: &str = "it is not a P-256 private key in PEM (`BEGIN PRIVATE KEY`)";
            let key = PrivatePkcs8KeyDer::from_pem_slice(private_key.as_bytes());
            let (key, random) = (key.map_err(|_| REFUSED)?, SystemRandom::new());
            let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let pair = EcdsaKeyPair::from_pkcs8(signing, key.secret_pkcs8_der(), &random);
            let signature = pair.map_err(|_| REFUSED)?.sign(&random, message);
            Ok(signature.map_err(|_| REFUSED)?.as_ref().to_vec())
        }
    }
}

pub(super) fn mac(hash: Hash, key: &[u8], message: &[&[u8]]) -> Vec<u8> {
    match hash {
        Hash::Sha1 => keyed::<Keyed<Sha1>>(key, message),
        Hash::Sha256 => keyed::<Keyed<Sha256>>(key, message),
        Hash::Sha512 => keyed::<Keyed<Sha512>>(key, message),
    }
}

fn keyed<M: Mac + KeyInit>(key: &[u8], message: &[&[u8]]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in message {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

pub(super) fn digest(hash: Hash, message: &[&[u8]]) -> Vec<u8> {
    match hash {
        Hash::Sha1 => digested::<Sha1>(message),
        Hash::Sha256 => digested::<Sha256>(message),
        Hash::Sha512 => digested::<Sha512>(message),
    }
}

fn digested<D: Digest>(message: &[&[u8]]) -> Vec<u8> {
    let mut digest = D::new();
    for part in message {
        digest.update(part);
    }
    digest.finalize().to_vec()
}

const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ID_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

const PEM: &str = "-----BEGIN ";

pub(super) fn is_pem(text: &str) -> bool {
    text.trim_start().starts_with(PEM)
}

/// A PEM text as the bytes of its SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
pub(super) fn pem(text: &str) -> Result<Vec<u8>, &'static str> {
    let key = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes());
    Ok(key.map_err(|_| "it is not a public key in PEM (`BEGIN PUBLIC KEY`)")?.to_vec())
}

/// The key alone, out of what a provider shows: the bare key, or a SubjectPublicKeyInfo around it.
pub(super) fn public_key(kind: PublicKey, bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    const POINT_BYTES: usize = 65;
    let bare = match kind {
        PublicKey::Ed25519 => bytes.len() == 32,
        PublicKey::EcdsaP256Sha256 => bytes.len() == POINT_BYTES && bytes.starts_with(&[4]),
        PublicKey::RsaSha256 | PublicKey::RsaSha1 => false,
    };
    if bare {
        return Ok(bytes.to_vec());
    }
    let (id, other) = match kind {
        PublicKey::Ed25519 => (ID_ED25519, "it is not an Ed25519 public key"),
        PublicKey::EcdsaP256Sha256 => (ID_EC_PUBLIC_KEY, "it is not a P-256 public key"),
        PublicKey::RsaSha256 | PublicKey::RsaSha1 => {
            (ID_RSA, "it is not an RSA public key of 2048 bits or more")
        }
    };
    let info = SubjectPublicKeyInfoRef::try_from(bytes).map_err(|_| other)?;
    let key = info.subject_public_key.as_bytes().ok_or(other)?;
    let fits = match kind {
        PublicKey::Ed25519 => key.len() == 32,
        PublicKey::EcdsaP256Sha256 => key.len() == POINT_BYTES,
        PublicKey::RsaSha256 | PublicKey::RsaSha1 => key.len() > 2048 / 8,
    };
    if info.algorithm.oid == id && fits { Ok(key.to_vec()) } else { Err(other) }
}

/// Signs with a private key (PKCS#8 in PEM), which only the sender has. ECDSA needs randomness, and ring takes none from
/// outside: of these signatures no test may expect the bytes.
pub(super) fn sign(
    kind: PublicKey,
    private_key: &str,
    message: &[&[u8]],
) -> Result<Vec<u8>, &'static str> {
    const REFUSED: &str = "it is not a private key of this algorithm in PEM (`BEGIN PRIVATE KEY`)";
    let key = PrivatePkcs8KeyDer::from_pem_slice(private_key.as_bytes()).map_err(|_| REFUSED)?;
    let key = key.secret_pkcs8_der();
    let (message, random) = (message.concat(), SystemRandom::new());
    Ok(match kind {
        PublicKey::Ed25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(key)
            .map_err(|_| REFUSED)?
            .sign(&message)
            .as_ref()
            .to_vec(),
        PublicKey::EcdsaP256Sha256 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key, &random);
            let signature = pair.map_err(|_| REFUSED)?.sign(&random, &message);
            signature.map_err(|_| REFUSED)?.as_ref().to_vec()
        }
        PublicKey::RsaSha256 => {
            let pair = RsaKeyPair::from_pkcs8(key).map_err(|_| REFUSED)?;
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &random, &message, &mut signature).map_err(|_| REFUSED)?;
            signature
        }
        // ring signs nothing with SHA-1. Here a test key signs on the machine of who tries a source out, so it matters to
        // nobody how long that takes.
        PublicKey::RsaSha1 => PrivateKey::from_pkcs8_der(key)
            .map_err(|_| REFUSED)?
            .sign(Pkcs1v15Sign::new::<Sha1>(), &Sha1::digest(&message))
            .map_err(|_| REFUSED)?,
    })
}
