//! The compiled verification language: what a preset or a route's `verify` becomes.

use std::time::Duration;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::certificate::Certificate;
use super::condition::Conditions;
use super::fetched::KeySet;
use super::jwt::{Jwt, JwtKeys};
pub use super::rejection::Rejection;
pub use super::secrets::{ByPlace, KeyForm, SecretEncoding, Secrets};
use super::text::{Selector, Text};
use crate::secret::SecretRef;

#[derive(Clone, Debug)]
pub enum Scheme {
    Signing(Signing),
    Token(Token),
    Jwt(Jwt),
    /// One that verifies is enough.
    AnyOf(Vec<Scheme>),
    /// Each must verify.
    AllOf(Vec<Scheme>),
    /// The request must be so; it proves nothing by itself and stands beside a scheme in `AllOf`.
    Require(Conditions),
    /// Each element of the JSON body must verify by itself, and there must be one.
    ForEach {
        path: Vec<Step>,
        scheme: Box<Scheme>,
    },
    /// Nobody is asked; the reason is the author's.
    None {
        why: String,
    },
}

/// How much a scheme proves, in the words of `check`, `providers show` and the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    Signed,
    Partial,
    Token,
    Open,
}

#[derive(Clone, Debug)]
pub struct Signing {
    pub algorithm: Algorithm,
    /// Any of them verifies: shared secrets, or the public keys of the sender.
    pub secrets: Secrets,
    pub form: KeyForm,
    /// Where the sender's certificate is, which stands for `secrets` where there are none.
    pub certificate: Option<Certificate>,
    /// The signed text.
    pub signed: Text,
    pub signature: Signature,
    /// Where the signed time is, unless `signature.parse` names it.
    pub timestamp: Option<TimestampAt>,
    /// Where the signed id is (`{id}`).
    pub id: Option<Selector>,
    /// Greatest distance between the signed time and now, either way.
    pub tolerance: Option<Duration>,
}

/// One step on the way to the elements of `for_each`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Member(String),
    /// `[*]`
    Each,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Hmac(Hash),
    /// A plain hash of a text in which the secret stands.
    Digest(Hash),
    PublicKey(PublicKey),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// RFC 8032
    Ed25519,
    /// With the signature in DER (SEC 1, C.5).
    EcdsaP256Sha256,
    /// PKCS #1 v1.5 (RFC 8017, 8.2), keys of 2048 bits or more.
    RsaSha256,
    /// The same with SHA-1, for senders that have nothing better.
    RsaSha1,
}

#[derive(Clone, Debug)]
pub struct TimestampAt {
    pub selector: Selector,
    pub unit: TimeUnit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    UnixSeconds,
    UnixMillis,
    Rfc3339,
    /// `Tue, 24 Nov 2026 08:00:00 GMT` (RFC 9110, 5.6.7)
    HttpDate,
}

#[derive(Clone, Debug)]
pub struct Signature {
    pub at: Selector,
    /// Between groups that each are a whole signature with a time of its own; one that verifies is enough.
    pub groups: Option<char>,
    pub encoding: SignatureEncoding,
    pub syntax: SignatureSyntax,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureEncoding {
    Hex,
    Base64,
    /// The alphabet for URLs (RFC 4648, 5), padded or not.
    Base64Url,
}

impl Scheme {
    /// The secrets that no part of the scheme can read, with the reason: `value` gives what a secret holds, where it is
    /// known.
    pub fn unusable<V: AsRef<str>>(
        &self,
        value: impl Fn(&SecretRef) -> Option<V> + Copy,
    ) -> Vec<(&SecretRef, &'static str)> {
        match self {
            Scheme::Signing(signing) => signing
                .secrets
                .named()
                .filter_map(|secret| Some((secret, signing.key(value(secret)?.as_ref()).err()?)))
                .collect(),
            Scheme::AllOf(schemes) => {
                schemes.iter().flat_map(|scheme| scheme.unusable(value)).collect()
            }
            Scheme::ForEach { scheme, .. } => scheme.unusable(value),
            Scheme::Jwt(Jwt { keys: JwtKeys::Secrets { secrets, form }, algorithms, .. }) => {
                let fits = |text: &str| {
                    let mut all = algorithms.iter().map(|it| form.key(text, it.public_key()));
                    match all.clone().any(|key| key.is_ok()) {
                        true => None,
                        false => all.find_map(Result::err),
                    }
                };
                let named = secrets.named();
                named.filter_map(|secret| Some((secret, fits(value(secret)?.as_ref())?))).collect()
            }
            Scheme::Jwt(Jwt { keys: JwtKeys::Pinned(file), .. }) => value(file)
                .filter(|text| KeySet::jwks(text.as_ref().as_bytes()).is_err())
                .map(|_| (file, "it is no JWK set with an RSA, P-256 or Ed25519 key"))
                .into_iter()
                .collect(),
            Scheme::Jwt(_) => Vec::new(),
            Scheme::Token(_) | Scheme::Require(_) | Scheme::None { .. } => Vec::new(),
            Scheme::AnyOf(schemes) => {
                let Some((first, others)) = schemes.split_first() else { return Vec::new() };
                let mut unusable = first.unusable(value);
                for other in others {
                    let also = other.unusable(value);
                    unusable.retain(|(secret, _)| also.iter().any(|(too, _)| too == secret));
                }
                unusable
            }
        }
    }
}

impl Scheme {
    /// Some part of it needs keys that are fetched.
    pub(super) fn fetches(&self) -> bool {
        match self {
            Scheme::Signing(signing) => signing.certificate.is_some(),
            Scheme::Jwt(jwt) => matches!(jwt.keys, JwtKeys::Fetched(_)),
            Scheme::AnyOf(schemes) | Scheme::AllOf(schemes) => schemes.iter().any(Scheme::fetches),
            Scheme::ForEach { scheme, .. } => scheme.fetches(),
            Scheme::Token(_) | Scheme::Require(_) | Scheme::None { .. } => false,
        }
    }

    /// The private key that a sender needs where the router fetches the public one.
    pub fn fetched_key(&self) -> Option<PublicKey> {
        match self {
            Scheme::Signing(Signing {
                algorithm: Algorithm::PublicKey(kind),
                certificate: Some(_),
                secrets,
                ..
            }) if *secrets == Secrets::default() => Some(*kind),
            Scheme::Jwt(Jwt {
                keys: JwtKeys::Fetched(_) | JwtKeys::Pinned(_), algorithms, ..
            }) => algorithms.iter().find_map(|algorithm| algorithm.public_key()),
            Scheme::AnyOf(schemes) | Scheme::AllOf(schemes) => {
                schemes.iter().find_map(Scheme::fetched_key)
            }
            Scheme::ForEach { scheme, .. } => scheme.fetched_key(),
            _ => None,
        }
    }

    /// The `{name}` parts of the source's path that choose secrets.
    pub fn path_parts(&self) -> Vec<&str> {
        match self {
            Scheme::Signing(Signing { secrets, .. }) | Scheme::Token(Token { secrets, .. }) => {
                secrets.path_part().into_iter().collect()
            }
            Scheme::AnyOf(schemes) | Scheme::AllOf(schemes) => {
                schemes.iter().flat_map(Scheme::path_parts).collect()
            }
            Scheme::ForEach { scheme, .. } => scheme.path_parts(),
            Scheme::Jwt(Jwt { keys: JwtKeys::Secrets { secrets, .. }, .. }) => {
                secrets.path_part().into_iter().collect()
            }
            Scheme::Jwt(_) | Scheme::Require(_) | Scheme::None { .. } => Vec::new(),
        }
    }

    /// Some part of it verifies by what handshakes brought.
    pub fn uses_captured(&self) -> bool {
        match self {
            Scheme::Signing(Signing { secrets, .. }) | Scheme::Token(Token { secrets, .. }) => {
                secrets.captured
            }
            Scheme::AnyOf(schemes) | Scheme::AllOf(schemes) => {
                schemes.iter().any(Scheme::uses_captured)
            }
            Scheme::ForEach { scheme, .. } => scheme.uses_captured(),
            Scheme::Jwt(Jwt { keys: JwtKeys::Secrets { secrets, .. }, .. }) => secrets.captured,
            Scheme::Jwt(_) | Scheme::Require(_) | Scheme::None { .. } => false,
        }
    }

    /// The secrets that are public keys of the sender.
    pub fn public_keys(&self) -> Vec<(&SecretRef, PublicKey)> {
        match self {
            Scheme::Signing(Signing { algorithm: Algorithm::PublicKey(kind), secrets, .. }) => {
                secrets.named().map(|secret| (secret, *kind)).collect()
            }
            Scheme::ForEach { scheme, .. } => scheme.public_keys(),
            Scheme::Jwt(Jwt { keys: JwtKeys::Secrets { secrets, .. }, algorithms, .. }) => {
                let kind = algorithms.iter().find_map(|algorithm| algorithm.public_key());
                kind.into_iter()
                    .flat_map(|kind| secrets.named().map(move |secret| (secret, kind)))
                    .collect()
            }
            Scheme::Jwt(_) => Vec::new(),
            Scheme::AnyOf(schemes) | Scheme::AllOf(schemes) => {
                schemes.iter().flat_map(Scheme::public_keys).collect()
            }
            Scheme::Signing(_) | Scheme::Token(_) | Scheme::Require(_) | Scheme::None { .. } => {
                Vec::new()
            }
        }
    }
}

impl Signing {
    pub(super) fn key(&self, secret: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let public = match self.algorithm {
            Algorithm::PublicKey(kind) => Some(kind),
            Algorithm::Hmac(_) | Algorithm::Digest(_) => None,
        };
        self.form.key(secret, public)
    }

    /// The unit of the signed time: seconds where only `signature.parse` names it.
    pub fn time_unit(&self) -> TimeUnit {
        self.timestamp.as_ref().map_or(TimeUnit::UnixSeconds, |at| at.unit)
    }
}

/// Standard alphabet; padding may be there or not, as senders differ.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How signatures stand in the header.
#[derive(Clone, Debug, PartialEq)]
pub enum SignatureSyntax {
    /// The whole value, after a fixed prefix (`sha256=`), which may be empty.
    Prefix(String),
    /// `parse: "t={timestamp},v1={signature}"`: pairs split by `separator`; every pair whose key is one of
    /// `signature_keys` is tried; others are kept for `{timestamp}` and `{sig.K}`.
    Pairs { separator: char, assign: char, signature_key: String, timestamp_key: Option<String> },
    /// `parse: "v1,{signature}"` with `separator: " "`: a list in which every item with this tag is tried.
    Tagged { separator: char, tag: String },
    /// `parse: "{signature}"` with a `separator`: a list in which every item with this prefix, which may be empty, is tried.
    List { separator: char, prefix: String },
    /// `parse: "{timestamp},{signature}"`: the time stands first, and every item after it is tried.
    Positional { separator: char },
}

impl SignatureSyntax {
    /// The signed time stands in the signature.
    pub fn names_time(&self) -> bool {
        match self {
            SignatureSyntax::Pairs { timestamp_key, .. } => timestamp_key.is_some(),
            SignatureSyntax::Positional { .. } => true,
            SignatureSyntax::Prefix(_)
            | SignatureSyntax::Tagged { .. }
            | SignatureSyntax::List { .. } => false,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Token {
    pub at: TokenAt,
    pub secrets: Secrets,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TokenAt {
    Header(String),
    Query(String),
    /// A string in the JSON body, by a path of plain members (`$.auth.token`; see [`plain_members`]).
    Json(String),
    /// A field of a body that is a form.
    Form(String),
    /// `Authorization: Bearer …`
    Bearer,
    /// `Authorization: Basic …` with this user; the secret is the password.
    Basic {
        user: String,
    },
}

/// The names along a path of plain members, `$.auth.token`; `None` for any other JSONPath, which cannot say where a
/// sender would put its token.
pub fn plain_members(path: &str) -> Option<Vec<&str>> {
    let names: Vec<&str> = path.strip_prefix("$.")?.split('.').collect();
    names.iter().all(|name| is_plain_name(name)).then_some(names)
}

/// One step on the way to a value of a JSON body that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonStep<'a> {
    Name(&'a str),
    /// `[0]`: the first of a list.
    Index(usize),
}

/// The steps of a path to one value, `$.auth.token` or `$[0].data.code`; `None` for any other JSONPath, which may have several
/// hits.
pub fn json_place(path: &str) -> Option<Vec<JsonStep<'_>>> {
    let mut steps = Vec::new();
    for (number, segment) in path.strip_prefix('$')?.split('.').enumerate() {
        let (name, mut rest) = segment.split_at(segment.find('[').unwrap_or(segment.len()));
        match (number, is_plain_name(name)) {
            (0, _) if name.is_empty() => {}
            (0, _) | (_, false) => return None,
            (_, true) => steps.push(JsonStep::Name(name)),
        }
        while !rest.is_empty() {
            let (index, after) = rest.strip_prefix('[')?.split_once(']')?;
            // As RFC 9535 writes one: no sign, no zeros before it.
            let plain = index.chars().all(|c| c.is_ascii_digit());
            let short = index == "0" || !index.starts_with('0');
            steps.push(JsonStep::Index(index.parse().ok().filter(|_| plain && short)?));
            rest = after;
        }
    }
    (!steps.is_empty()).then_some(steps)
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_to_one_value() {
        use JsonStep::{Index, Name};
        let check = |path: &str, expected: &[JsonStep<'_>]| {
            assert_eq!(json_place(path).as_deref(), Some(expected), "{path}");
        };
        check("$.a", &[Name("a")]);
        check("$.a-1.b_2", &[Name("a-1"), Name("b_2")]);
        check("$[0].data.code", &[Index(0), Name("data"), Name("code")]);
        check("$.a[10][0]", &[Name("a"), Index(10), Index(0)]);
        for path in [
            "",
            "$",
            "a",
            "a.b",
            "$.",
            "$a",
            "$.a.",
            "$..a",
            "$.a[]",
            "$.a[*]",
            "$.a[-1]",
            "$.a[+1]",
            "$.a[01]",
            "$.a[0",
            "$.a[0]b",
            "$.a[?@.b]",
            "$['a']",
            "$.a b",
            "$[99999999999999999999]",
        ] {
            assert_eq!(json_place(path), None, "{path}");
        }
    }
}
