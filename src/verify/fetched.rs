//! Keys that a verification needs and the configuration does not hold: which ones, and what came. Fetching is not done here.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use url::{Host, Url};
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{Encode, Header, Tag};

use super::algorithm::{self, JwtAlgorithm};
use super::scheme::{BASE64_URL, PublicKey};
use base64::Engine;

/// Where keys are fetched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeysAt {
    /// A JSON Web Key Set (RFC 7517).
    Jwks(Url),
    /// An issuer that says under `/.well-known/openid-configuration` where its key set is (OpenID Connect Discovery 1.0).
    Issuer(Url),
    /// A certificate in PEM, its issuers' after it.
    Certificate(Url),
}

/// What one request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    pub at: KeysAt,
    /// The key that it names; a set that has none of this name may be an old one.
    pub key_id: Option<String>,
}

/// What is at one place.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySet {
    Keys(Vec<Jwk>),
    /// The first is the sender's, and each next one its issuer's.
    Chain(Vec<CertificateDer<'static>>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Jwk {
    pub id: Option<String>,
    /// The one algorithm that it is for, where it says so.
    pub algorithm: Option<String>,
    pub key: PublicKeyBytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKeyBytes {
    /// RSAPublicKey in DER (RFC 8017, A.1.1).
    Rsa(Vec<u8>),
    /// A point, uncompressed.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// How many keys of a set are looked at.
const KEYS_MAX: usize = 100;
const CHAIN_MAX: usize = 10;

impl KeySet {
    /// Reads a JWK set. Keys of other kinds than ours are passed over, as the standard asks (RFC 7517, 5).
    pub fn jwks(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set =
            serde_json::from_slice(text).map_err(|error| format!("it is no JWK set: {error}"))?;
        let keys: Vec<Jwk> = set.keys.into_iter().take(KEYS_MAX).filter_map(jwk).collect();
        match keys.is_empty() {
            true => Err("the JWK set has no RSA, P-256 or Ed25519 key for signatures".to_owned()),
            false => Ok(Self::Keys(keys)),
        }
    }

    /// One key without a name, from its PEM.
    pub fn of_public_key(kind: PublicKey, pem: &str) -> Result<Self, &'static str> {
        let key = algorithm::public_key(kind, &algorithm::pem(pem)?)?;
        let key = match kind {
            PublicKey::Ed25519 => PublicKeyBytes::Ed25519(key),
            PublicKey::EcdsaP256Sha256 => PublicKeyBytes::P256(key),
            PublicKey::RsaSha256 | PublicKey::RsaSha1 => PublicKeyBytes::Rsa(key),
        };
        Ok(Self::Keys(vec![Jwk { id: None, algorithm: None, key }]))
    }

    /// Reads certificates in PEM.
    pub fn chain(text: &[u8]) -> Result<Self, String> {
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(text).take(CHAIN_MAX).collect();
        match chain {
            Ok(chain) if !chain.is_empty() => Ok(Self::Chain(chain)),
            Ok(_) => Err("there is no certificate in it".to_owned()),
            Err(_) => Err("it is no certificate in PEM".to_owned()),
        }
    }

    /// There is a key of this name, or none is named.
    pub fn knows(&self, key_id: Option<&str>) -> bool {
        match (self, key_id) {
            (Self::Keys(keys), Some(id)) => keys.iter().any(|key| key.id.as_deref() == Some(id)),
            (Self::Keys(_) | Self::Chain(_), _) => true,
        }
    }
}

fn jwk(json: serde_json::Value) -> Option<Jwk> {
    #[derive(Deserialize)]
    struct Written {
        kty: String,
        kid: Option<String>,
        alg: Option<String>,
        #[serde(rename = "use")]
        use_: Option<String>,
        crv: Option<String>,
        n: Option<String>,
        e: Option<String>,
        x: Option<String>,
        y: Option<String>,
    }
    let written: Written = serde_json::from_value(json).ok()?;
    if written.use_.as_deref().is_some_and(|use_| use_ != "sig") {
        return None;
    }
    let bytes = |text: &Option<String>| BASE64_URL.decode(text.as_deref()?).ok();
    let key = match (written.kty.as_str(), written.crv.as_deref()) {
        ("RSA", _) => PublicKeyBytes::Rsa(rsa(&bytes(&written.n)?, &bytes(&written.e)?)?),
        ("EC", Some("P-256")) => {
            let (x, y) = (bytes(&written.x)?, bytes(&written.y)?);
            if x.len() != 32 || y.len() != 32 {
                return None;
            }
            PublicKeyBytes::P256([&[4], &x[..], &y[..]].concat())
        }
        ("OKP", Some("Ed25519")) => {
            PublicKeyBytes::Ed25519(bytes(&written.x).filter(|x| x.len() == 32)?)
        }
        _ => return None,
    };
    Some(Jwk { id: written.kid, algorithm: written.alg, key })
}

/// Modulus and exponent as an RSAPublicKey.
fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let numbers = [UintRef::new(modulus).ok()?, UintRef::new(exponent).ok()?];
    let numbers: Vec<u8> =
        numbers.iter().map(|number| number.to_der().ok()).collect::<Option<Vec<_>>>()?.concat();
    let header = Header::new(Tag::Sequence, numbers.len().try_into().ok()?);
    Some([header.to_der().ok()?, numbers].concat())
}

impl PublicKeyBytes {
    pub(super) fn of_kind(&self, kind: PublicKey) -> Option<&[u8]> {
        match (self, kind) {
            (Self::Rsa(bytes), PublicKey::RsaSha256 | PublicKey::RsaSha1)
            | (Self::P256(bytes), PublicKey::EcdsaP256Sha256)
            | (Self::Ed25519(bytes), PublicKey::Ed25519) => Some(bytes),
            _ => None,
        }
    }

    /// The bytes, where the key is one of this algorithm.
    pub(super) fn of(&self, algorithm: JwtAlgorithm) -> Option<&[u8]> {
        match (self, algorithm) {
            (Self::Rsa(bytes), JwtAlgorithm::Rs256)
            | (Self::P256(bytes), JwtAlgorithm::Es256)
            | (Self::Ed25519(bytes), JwtAlgorithm::EdDsa) => Some(bytes),
            _ => None,
        }
    }
}

/// What was fetched for one request.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    sets: BTreeMap<KeysAt, Arc<KeySet>>,
    otherwise: Option<Arc<KeySet>>,
}

impl Fetched {
    /// Nothing, for schemes that need nothing.
    pub const NOTHING: &'static Self = &Self { sets: BTreeMap::new(), otherwise: None };

    pub fn insert(&mut self, at: KeysAt, set: Arc<KeySet>) {
        self.sets.insert(at, set);
    }

    /// The same keys wherever they are looked for: a stand-in.
    pub fn everywhere(set: KeySet) -> Self {
        Self { sets: BTreeMap::new(), otherwise: Some(Arc::new(set)) }
    }

    pub(super) fn get(&self, at: &KeysAt) -> Option<&KeySet> {
        self.sets.get(at).or(self.otherwise.as_ref()).map(|set| &**set)
    }
}

/// Keys come over TLS alone; of this machine also without.
pub fn is_safe(url: &Url) -> bool {
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let is_plain = url.username().is_empty() && url.password().is_none();
    is_plain && (url.scheme() == "https" || (url.scheme() == "http" && is_here))
}
