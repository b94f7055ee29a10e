//! The sender's side of every scheme: what a request must carry so that [`super::verify`] takes it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64_URL};
use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use super::canonical::Canonical;
use super::condition::{Condition, Conditions, Expected};
use super::draft::{Draft, Proof, Unsigned};
use super::jwt::{ExpectedClaim, Jwt, JwtAt, JwtKeys};
use super::request::{Found, Keys, Request};
use super::scheme::{Algorithm, Scheme, Secrets, Signing, Token, TokenAt};
use super::text::{Lack, Layout, Part, Selector};
use super::{algorithm, elements, signature, time};
use crate::secret::SecretValue;

/// How long a token is good.
const TOKEN_LIFE_S: i64 = 300;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("the scheme has no secret number {0} for this request")]
    NoSuchSecret(usize),
    #[error("the secret {0} has no value")]
    MissingSecret(String),
    #[error("the secret {name} cannot be used: {why}")]
    UnusableSecret { name: String, why: String },
    #[error("there is no room for what proves the sender in {0}")]
    Place(String),
    #[error("the sender signs with a private key, and {name} is none: {why}")]
    NoPrivateKey { name: String, why: &'static str },
    #[error("the signed text names {0}, which the request does not have")]
    MissingPart(String),
    #[error("the scheme takes no request with this in {0}")]
    OtherRequest(String),
    #[error("nothing in the request proves the sender, so nothing can be a wrong proof")]
    NothingProved,
}

impl SignError {
    /// Another scheme of `any_of` may still sign.
    fn is_of_this_scheme(&self) -> bool {
        match self {
            // A secret that one scheme cannot read may be another's.
            SignError::UnusableSecret { .. } | SignError::OtherRequest(_) => true,
            SignError::NoSuchSecret(_)
            | SignError::MissingSecret(_)
            | SignError::Place(_)
            | SignError::NoPrivateKey { .. }
            | SignError::MissingPart(_)
            | SignError::NothingProved => false,
        }
    }
}

/// Signs with secret number `which` (from 0) of those that fit the request; of `any_of` the first scheme signs that can.
/// `keys` are what the sender has: for a scheme with public keys the private key, as PKCS#8 in PEM, in the public key's
/// place.
pub fn sign(
    scheme: &Scheme,
    keys: Keys<'_>,
    unsigned: &Unsigned,
    now: Timestamp,
    which: usize,
) -> Result<Proof, SignError> {
    let mut draft = Draft::of(unsigned);
    Signer { keys, now, which, wrongly: false }.sign(scheme, &mut draft)?;
    Ok(draft.proof())
}

/// The same request with a proof of the right form that proves nothing: of every signature and token a byte is another.
pub fn sign_wrongly(
    scheme: &Scheme,
    keys: Keys<'_>,
    unsigned: &Unsigned,
    now: Timestamp,
    which: usize,
) -> Result<Proof, SignError> {
    let mut draft = Draft::of(unsigned);
    Signer { keys, now, which, wrongly: true }.sign(scheme, &mut draft)?;
    let proof = draft.proof();
    // Nothing was there to be spoiled: the router would take it. What cannot be signed well here can be signed wrongly.
    match sign(scheme, keys, unsigned, now, which) {
        Ok(right) if right == proof => Err(SignError::NothingProved),
        _ => Ok(proof),
    }
}

pub(super) struct Signer<'a> {
    pub(super) keys: Keys<'a>,
    pub(super) now: Timestamp,
    pub(super) which: usize,
    /// Every proof is to be a wrong one.
    pub(super) wrongly: bool,
}

impl<'a> Signer<'a> {
    pub(super) fn sign(&self, scheme: &Scheme, draft: &mut Draft) -> Result<(), SignError> {
        match scheme {
            Scheme::Signing(signing) => self.sign_text(signing, draft),
            Scheme::Token(token) => self.show_token(token, draft),
            Scheme::Jwt(jwt) => self.show_jwt(jwt, draft),
            Scheme::AnyOf(schemes) => {
                let mut first = Err(SignError::NoSuchSecret(self.which));
                for (number, scheme) in schemes.iter().enumerate() {
                    let mut attempt = draft.clone();
                    match self.sign(scheme, &mut attempt) {
                        Ok(()) => {
                            *draft = attempt;
                            return Ok(());
                        }
                        Err(error) if !error.is_of_this_scheme() => return Err(error),
                        Err(error) if number == 0 => first = Err(error),
                        Err(_) => {}
                    }
                }
                first
            }
            Scheme::AllOf(schemes) => {
                schemes.iter().try_for_each(|scheme| self.sign(scheme, draft))
            }
            Scheme::Require(conditions) => self.meet(conditions, draft),
            Scheme::ForEach { path, scheme } => {
                let no_room = || SignError::Place("a body that is no JSON".to_owned());
                let mut json: Json =
                    serde_json::from_slice(&draft.unsigned.body).map_err(|_| no_room())?;
                elements::change(path, &mut json, &mut |element| {
                    let mut part = draft.clone();
                    part.unsigned.body = element.to_string().into();
                    self.sign(scheme, &mut part)?;
                    *element =
                        serde_json::from_slice(&part.unsigned.body).map_err(|_| no_room())?;
                    Ok(())
                })?;
                draft.unsigned.body = json.to_string().into();
                Ok(())
            }
            Scheme::None { .. } => Ok(()),
        }
    }

    /// Makes the request one that the scheme takes, where it says nothing else yet.
    fn meet(&self, conditions: &Conditions, draft: &mut Draft) -> Result<(), SignError> {
        if let Some(method) = &conditions.method
            && *method != draft.unsigned.method
        {
            return Err(SignError::OtherRequest("its method".to_owned()));
        }
        for condition in &conditions.all {
            self.meet_one(condition, draft)?;
        }
        Ok(())
    }

    pub(super) fn meet_one(
        &self,
        condition: &Condition,
        draft: &mut Draft,
    ) -> Result<(), SignError> {
        let received = draft.received(self.now);
        let request = Request::new(&received, self.keys, draft.about(), self.now);
        let alone = Conditions { method: None, all: vec![condition.clone()] };
        if alone.hold(&request) {
            return Ok(());
        }
        let other = || SignError::OtherRequest(condition.at.to_string());
        let Expected::Equal(text) = &condition.expected else { return Err(other()) };
        if request.find(&condition.at) != Found::Absent {
            return Err(other());
        }
        let value = Layout::of(&request).whole(text).map_err(missing)?;
        let value = String::from_utf8(value).map_err(|_| other())?;
        drop(request);
        // A secret of `config` proves the sender as a token does.
        let proves = text.iter().any(|part| matches!(part.source(), Part::Config(_)));
        match proves {
            true => draft.set(&condition.at, self.shown(value)),
            false => draft.set_plain(&condition.at, value),
        }
    }

    /// A text that proves the sender by being known.
    fn shown(&self, mut value: String) -> String {
        if self.wrongly {
            let last = value.pop();
            value.push(if last == Some('A') { 'B' } else { 'A' });
        }
        value
    }

    /// What a signature is, as bytes. The last one is changed: a signature in DER keeps its form.
    fn signed(&self, mut signature: Vec<u8>) -> Vec<u8> {
        if self.wrongly
            && let Some(last) = signature.last_mut()
        {
            *last ^= 1;
        }
        signature
    }

    fn secret(
        &self,
        secrets: &Secrets,
        request: &Request<'a>,
    ) -> Result<(String, &'a SecretValue), SignError> {
        let references: Vec<_> = secrets.references(request).collect();
        if let Some(reference) = references.get(self.which) {
            let name = format!("{reference:?}");
            return match self.keys.vault.get(reference) {
                Some(value) => Ok((name, value)),
                None => Err(SignError::MissingSecret(name)),
            };
        }
        let captured = self.keys.captured.get(self.which - references.len());
        match captured.filter(|_| secrets.captured) {
            Some(value) => Ok(("that was captured".to_owned(), value)),
            None => Err(SignError::NoSuchSecret(self.which)),
        }
    }

    fn sign_text(&self, scheme: &Signing, draft: &mut Draft) -> Result<(), SignError> {
        let time = time::write(self.now, scheme.time_unit());
        if let (Some(at), false) = (&scheme.timestamp, scheme.signature.syntax.names_time()) {
            draft.set(&at.selector, time.clone())?;
        }
        if let Some(at) = &scheme.id {
            let received = draft.received(self.now);
            let request = Request::new(&received, self.keys, draft.about(), self.now);
            if request.find(at) == Found::Absent {
                draft.set(at, draft.unsigned.id.clone())?;
            }
        }
        let listed = scheme.signed.iter().find_map(|part| match part {
            Part::Canonical(Canonical::SignedHeaders { required }) => Some(required),
            _ => None,
        });
        if let Some(listed) = listed
            && listed.iter().any(|name| name == "host")
            && !draft.unsigned.headers.contains_key(http::header::HOST)
        {
            let url = &draft.unsigned.url;
            let host = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
            draft.set(&Selector::Header("host".to_owned()), host)?;
        }
        let mut value = {
            let received = draft.received(self.now);
            let request = Request::new(&received, self.keys, draft.about(), self.now);
            self.signature(scheme, &request, &time)?
        };
        if let Some(listed) = listed {
            value = format!("{value},headers=\"{}\"", listed.join(" "));
        }
        draft.set(&scheme.signature.at, value)
    }

    fn signature(
        &self,
        scheme: &Signing,
        request: &Request<'_>,
        time: &str,
    ) -> Result<String, SignError> {
        let (name, value) = match (scheme.certificate.is_some(), self.keys.private) {
            (true, Some(private)) => ("of the sender".to_owned(), private),
            _ => self.secret(&scheme.secrets, request)?,
        };
        let key = match scheme.algorithm {
            Algorithm::PublicKey(_) => None,
            Algorithm::Hmac(_) | Algorithm::Digest(_) => {
                let key = scheme.key(value.expose());
                Some(key.map_err(|why| SignError::UnusableSecret {
                    name: name.clone(),
                    why: why.to_owned(),
                })?)
            }
        };
        let key: &[u8] = key.as_ref().map_or(&[], |key| key);
        let layout =
            Layout { timestamp: Some(time), id: scheme.id.as_ref(), ..Layout::of(request) };
        let message = layout.pieces(&scheme.signed).map_err(missing)?;
        let message: Vec<&[u8]> = message.iter().map(|piece| piece.bytes(key)).collect();
        let signed = match scheme.algorithm {
            Algorithm::Hmac(hash) => algorithm::mac(hash, key, &message),
            Algorithm::Digest(hash) => algorithm::digest(hash, &message),
            Algorithm::PublicKey(kind) => algorithm::sign(kind, value.expose(), &message)
                .map_err(|why| SignError::NoPrivateKey { name, why })?,
        };
        Ok(signature::write(&self.signed(signed), &scheme.signature, Some(time)))
    }

    fn show_jwt(&self, jwt: &Jwt, draft: &mut Draft) -> Result<(), SignError> {
        let token = {
            let received = draft.received(self.now);
            let request = Request::new(&received, self.keys, draft.about(), self.now);
            self.jwt(jwt, &request)?
        };
        match &jwt.at {
            JwtAt::Header { name, prefix } => {
                draft.set(&Selector::Header(name.clone()), format!("{prefix}{token}"))
            }
            JwtAt::Detached { name } => draft.set(&Selector::Header(name.clone()), token),
            JwtAt::Bearer => {
                draft.set(&Selector::Header("authorization".to_owned()), format!("Bearer {token}"))
            }
            JwtAt::At(selector) => draft.set(selector, token),
            JwtAt::Body => {
                draft.unsigned.body = token.into();
                Ok(())
            }
        }
    }

    fn jwt(&self, jwt: &Jwt, request: &Request<'_>) -> Result<String, SignError> {
        let none = || SignError::NoSuchSecret(self.which);
        let algorithm = *jwt.algorithms.first().ok_or_else(none)?;
        let (name, value) = match &jwt.keys {
            JwtKeys::Secrets { secrets, .. } => self.secret(secrets, request)?,
            JwtKeys::Fetched(_) | JwtKeys::Pinned(_) => {
                ("of the sender".to_owned(), self.keys.private.ok_or_else(none)?)
            }
        };
        let key = match (&jwt.keys, algorithm.public_key()) {
            (JwtKeys::Secrets { form, .. }, None) => {
                Some(form.key(value.expose(), None).map_err(|why| SignError::UnusableSecret {
                    name: name.clone(),
                    why: why.to_owned(),
                })?)
            }
            _ => None,
        };
        let detached = matches!(jwt.at, JwtAt::Detached { .. });
        let header = match detached {
            true => json!({ "alg": algorithm.name(), "b64": false, "crit": ["b64"] }),
            false => json!({ "alg": algorithm.name(), "typ": "JWT" }),
        };
        let header = BASE64_URL.encode(header.to_string());
        let (content, signed) = match detached {
            true => {
                let body = &request.received.body;
                (String::new(), [header.as_bytes(), b".", body].concat())
            }
            false => {
                let content = BASE64_URL.encode(self.claims(jwt, request)?.to_string());
                let signed = format!("{header}.{content}").into_bytes();
                (content, signed)
            }
        };
        let key = key.as_ref().map_or(&[][..], |key| &key[..]);
        let signature = algorithm::sign_jws(algorithm, key, value.expose(), &signed)
            .map_err(|why| SignError::NoPrivateKey { name, why })?;
        Ok(format!("{header}.{content}.{}", BASE64_URL.encode(self.signed(signature))))
    }

    /// What the body says, where it is to be the token, and what the scheme asks for.
    fn claims(&self, jwt: &Jwt, request: &Request<'_>) -> Result<Json, SignError> {
        let mut claims = match jwt.at {
            JwtAt::Body => serde_json::from_slice(&request.received.body)
                .map_err(|_| SignError::Place("a body that is no JSON object".to_owned()))?,
            _ => Map::new(),
        };
        let (now, soon) = (self.now.as_second(), self.now.as_second() + TOKEN_LIFE_S);
        for name in &jwt.required {
            let value = match name.as_str() {
                "exp" => json!(soon),
                "nbf" => json!(now),
                _ => json!("1"),
            };
            claims.entry(name.clone()).or_insert(value);
        }
        claims.insert("iat".to_owned(), json!(now));
        for claim in &jwt.claims {
            let value = match claim.expected.first() {
                None => continue,
                Some(ExpectedClaim::Bool(flag)) => json!(flag),
                Some(ExpectedClaim::Text(text)) => {
                    let text = Layout::of(request).whole(text).map_err(missing)?;
                    json!(String::from_utf8_lossy(&text))
                }
            };
            claims.insert(claim.name.clone(), value);
        }
        Ok(Json::Object(claims))
    }

    fn show_token(&self, token: &Token, draft: &mut Draft) -> Result<(), SignError> {
        let value = {
            let received = draft.received(self.now);
            let request = Request::new(&received, self.keys, draft.about(), self.now);
            let (_, value) = self.secret(&token.secrets, &request)?;
            self.shown(value.expose().to_owned())
        };
        let authorization = Selector::Header("authorization".to_owned());
        match &token.at {
            TokenAt::Header(name) => draft.set(&Selector::Header(name.clone()), value),
            TokenAt::Query(name) => draft.set(&Selector::Query(name.clone()), value),
            TokenAt::Bearer => draft.set(&authorization, format!("Bearer {value}")),
            TokenAt::Basic { user } => {
                let credentials = STANDARD.encode(format!("{user}:{value}"));
                draft.set(&authorization, format!("Basic {credentials}"))
            }
            TokenAt::Json(path) => draft.set(&Selector::Json(path.clone()), value),
            TokenAt::Form(name) => draft.set(&Selector::Form(name.clone()), value),
        }
    }
}

pub(super) fn missing(lack: Lack<'_>) -> SignError {
    SignError::MissingPart(match lack {
        Lack::Absent(part) | Lack::Unclear(part) => match part.source() {
            Part::At(at) => at.to_string(),
            Part::Sig(name) => format!("{{sig.{name}}}"),
            Part::Id => "{id}".to_owned(),
            Part::Url => "the public URL".to_owned(),
            Part::Canonical(_) => "a form of the body that it has not".to_owned(),
            part => format!("{part:?}"),
        },
        Lack::Time => "{timestamp}".to_owned(),
        Lack::Key => "the secret".to_owned(),
    })
}
