//! `verify` → [`Scheme`]: a preset's scheme with the source's keys over it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::{Checker, many, string, text};
use crate::config::Verification;
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::syntax::{Node, Pair, Value};
use crate::verify::elements::steps;
use crate::verify::jwt::{Claim, ExpectedClaim, JwtAt};
use crate::verify::scheme::{ByPlace, Scheme, Secrets, Strength, Token, TokenAt};
use crate::verify::text::{Part, Selector};

/// The keys that say of what kind a scheme is.
const KINDS: [&str; 10] =
    ["hmac", "digest", "ed25519", "ecdsa", "rsa", "token", "jwt", "any_of", "all_of", "none"];

impl Checker {
    /// The verification, and the preset's tree where one is named.
    pub(super) fn verification(
        &mut self,
        node: &Node,
    ) -> (Option<Verification>, Option<Arc<Node>>) {
        let Some(own) = node.as_map() else { return (None, None) };
        let mut preset = None;
        if let Some(wanted) = text(node, "provider") {
            let place = node.get("provider").unwrap_or(node);
            match self.preset(wanted, place) {
                Ok(found) => preset = Some(found),
                Err(()) => return (None, None),
            }
        }
        if self.configure(node, preset.as_deref()).is_none() {
            return (None, preset);
        }
        let merged = match preset.as_ref().and_then(|preset| preset.get("verify")) {
            Some(base) => over(base, own, node),
            None => node.clone(),
        };
        let scheme = self.scheme(&merged, node, &Secrets::default());
        let strength = preset
            .as_ref()
            .filter(|_| !KINDS.iter().chain(&["signed"]).any(|key| node.get(key).is_some()))
            .and_then(|preset| string(preset, "strength"))
            .and_then(|word| strength_of(&word));
        let verification = scheme.map(|scheme| Verification {
            strength: strength.unwrap_or_else(|| proves(&scheme)),
            scheme,
            provider: string(node, "provider"),
        });
        (verification, preset)
    }

    /// `place` is where the source's author can mend what is missing; `outer` are the secrets of the scheme around.
    fn scheme(&mut self, node: &Node, place: &Node, outer: &Secrets) -> Option<Scheme> {
        let mut scheme = self.kind(node, place, outer)?;
        if let Some(path) = node.get("for_each") {
            let Some(path) = path.as_text().and_then(|text| steps(&text.text)) else {
                self.error(
                    Code::InvalidValue,
                    path.span,
                    "here a JSONPath has names and `[*]` alone",
                    "write `$.items[*]`",
                );
                return None;
            };
            scheme = Scheme::ForEach { path, scheme: Box::new(scheme) };
        }
        match node.get("require") {
            None => Some(scheme),
            // What is required is looked at first: it says whether the scheme is the one for this request.
            Some(require) => {
                Some(Scheme::AllOf(vec![Scheme::Require(self.conditions(require)?), scheme]))
            }
        }
    }

    fn kind(&mut self, node: &Node, place: &Node, outer: &Secrets) -> Option<Scheme> {
        let kinds: Vec<&Pair> =
            node.as_map()?.iter().filter(|pair| KINDS.contains(&pair.key.text.as_str())).collect();
        match kinds.as_slice() {
            [] => {
                // An unknown or unbuilt key is reported already and may be the very one that says the kind.
                let all_known = place.as_map()?.iter().all(|pair| {
                    crate::config::shape::verify::VERIFY
                        .keys
                        .iter()
                        .any(|key| key.built && key.name == pair.key.text)
                });
                if all_known {
                    self.push(
                        Diagnostic::new(Code::MissingKey, first_key(place), "a verification says how the sender proves itself")
                            .help("write `provider: NAME`, `hmac: sha256`, `token: { header: … }`, or `none: \"why\"`"),
                    );
                }
                return None;
            }
            [first, second, ..] => {
                self.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        second.key_span,
                        format!(
                            "a scheme is `{}` or `{}`, not both",
                            first.key.text, second.key.text
                        ),
                    )
                    .help("write `any_of: [ … ]` where one of several is enough")
                    .related(first.key_span, "the other is here"),
                );
                return None;
            }
            [_] => {}
        }
        if let Some(why) = node.get("none") {
            let reason = why.as_text()?.text.clone();
            self.push(
                Diagnostic::new(Code::UnverifiedSource, why.span, "nobody checks who sends here")
                    .label("anyone who knows the URL is believed")
                    .help("use a scheme of the provider, or a `token` at least"),
            );
            return Some(Scheme::None { why: reason });
        }
        let secrets = match (node.get("secret"), node.get("key")) {
            (Some(secret), _) => self.secrets(secret)?,
            // A key that would be fetched, pinned.
            (None, Some(key)) => vec![self.secret_ref(key)?].into(),
            (None, None) => outer.clone(),
        };
        if let Some(list) = node.get("any_of").or_else(|| node.get("all_of")) {
            let schemes = list.as_list()?;
            if schemes.is_empty() {
                self.error(
                    Code::InvalidValue,
                    list.span,
                    "a list of no schemes verifies nothing",
                    "add one, such as `{ token: { bearer: true } }`",
                );
                return None;
            }
            let has_keys = ["secret", "none", "key", "jwks", "certificate", "any_of", "all_of"];
            let missing = schemes.iter().any(|it| has_keys.iter().all(|key| it.get(key).is_none()));
            if secrets == Secrets::default() && missing {
                self.no_secret(place);
                return None;
            }
            let compiled: Vec<_> = schemes.iter().map(|it| self.scheme(it, it, &secrets)).collect();
            let schemes: Vec<Scheme> = compiled.into_iter().collect::<Option<_>>()?;
            return Some(match node.get("any_of") {
                Some(_) => Scheme::AnyOf(schemes),
                None => Scheme::AllOf(schemes),
            });
        }
        if node.get("jwt").is_some() {
            return self.jwt(node, place, secrets).map(Scheme::Jwt);
        }
        if secrets == Secrets::default() && node.get("certificate").is_none() {
            self.no_secret(place);
            return None;
        }
        match node.get("token") {
            Some(token) => Some(Scheme::Token(Token { at: self.token_at(token)?, secrets })),
            None => self.signing(node, place, secrets).map(Scheme::Signing),
        }
    }

    /// `secret`: one, or a list of which any verifies.
    fn secrets(&mut self, node: &Node) -> Option<Secrets> {
        let mut secrets = Secrets::default();
        let mut faulty = false;
        for secret in many(Some(node)) {
            if secret.get("by").is_some() || secret.get("of").is_some() {
                let by = self.by_place(secret);
                faulty |= by.is_none() || secrets.by.is_some();
                if by.is_some() && secrets.by.is_some() {
                    self.error(
                        Code::InvalidValue,
                        secret.span,
                        "a second `by` in one list",
                        "put all secrets under the `of` of one",
                    );
                }
                secrets.by = by;
            } else if secret.get("captured").is_some() {
                secrets.captured = true;
            } else {
                match self.secret_ref(secret) {
                    Some(secret) => secrets.always.push(secret),
                    None => faulty = true,
                }
            }
        }
        if !faulty && secrets == Secrets::default() {
            self.error(
                Code::InvalidValue,
                node.span,
                "a list of no secrets verifies nothing",
                "add one: `{ env: NAME }`",
            );
            return None;
        }
        (!faulty).then_some(secrets)
    }

    /// `{ by: path.shop, of: { acme: { env: … } } }`
    fn by_place(&mut self, node: &Node) -> Option<ByPlace> {
        const HELP: &str = "write `{ by: path.shop, of: { acme: { env: ACME_SECRET } } }`";
        let (Some(by), Some(of)) = (node.get("by"), node.get("of")) else {
            self.error(Code::MissingKey, node.span, "`by` and `of` stand together", HELP);
            return None;
        };
        let name = &by.as_text()?.text;
        let part = name.strip_prefix("path.").filter(|part| !part.is_empty());
        let at = match part {
            Some(part) => Some(Selector::PathPart(part.to_owned())),
            None => super::text::place(name),
        };
        let Some(at) = at else {
            self.error(
                Code::InvalidValue,
                by.span,
                format!("`{name}` is no place in a request"),
                "write `path.N`, `header.N`, `query.N`, `form.N` or `json:$.p`",
            );
            return None;
        };
        let mut secrets = BTreeMap::new();
        let mut faulty = false;
        for pair in of.as_map()? {
            let named: Vec<_> =
                many(Some(&pair.value)).iter().map(|secret| self.secret_ref(secret)).collect();
            match named.into_iter().collect::<Option<Vec<_>>>() {
                Some(named) => drop(secrets.insert(pair.key.text.clone(), named)),
                None => faulty = true,
            }
        }
        if secrets.is_empty() && !faulty {
            self.error(Code::InvalidValue, of.span, "`of` names no secret", HELP);
            return None;
        }
        (!faulty).then_some(ByPlace { at, of: secrets })
    }

    pub(super) fn no_secret(&mut self, place: &Node) {
        self.push(
            Diagnostic::new(Code::MissingKey, first_key(place), "the verification needs `secret`")
                .help("add `secret: { env: NAME }`"),
        );
    }

    fn token_at(&mut self, node: &Node) -> Option<TokenAt> {
        if let Some(name) = self.configured(node, "header")? {
            self.header_name(&name, node.get("header")?)?;
            return Some(TokenAt::Header(name.to_ascii_lowercase()));
        }
        if let Some(name) = self.configured(node, "query")? {
            return Some(TokenAt::Query(name));
        }
        if let Some(name) = string(node, "form") {
            return Some(TokenAt::Form(name));
        }
        if let Some(path) = node.get("json") {
            return Some(TokenAt::Json(self.json_path(path)?.text));
        }
        if let Some(user) = self.configured(node, "basic")? {
            return Some(TokenAt::Basic { user });
        }
        node.get("bearer")?.as_bool().filter(|bearer| *bearer).map(|_| TokenAt::Bearer)
    }

    /// The text of a key, in which `{config.N}` stands for what the source gives. The outer `None`: it cannot be used, which
    /// is reported.
    #[expect(clippy::option_option, reason = "absent and faulty differ")]
    fn configured(&mut self, node: &Node, key: &str) -> Option<Option<String>> {
        match string(node, key) {
            None => Some(None),
            Some(text) => self.with_config(&text, node.get(key)?).map(Some),
        }
    }

    pub(super) fn header_name(&mut self, name: &str, node: &Node) -> Option<http::HeaderName> {
        match http::HeaderName::try_from(name) {
            Ok(name) => Some(name),
            Err(_) => {
                self.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        node.span,
                        format!("`{name}` is no header name"),
                    )
                    .help("use letters, digits and `-`, such as `X-Signature`"),
                );
                None
            }
        }
    }
}

fn strength_of(word: &str) -> Option<Strength> {
    Some(match word {
        "signed" => Strength::Signed,
        "partial" => Strength::Partial,
        "token" => Strength::Token,
        "open" => Strength::Open,
        _ => return None,
    })
}

/// What a scheme proves; of alternatives the weakest.
fn proves(scheme: &Scheme) -> Strength {
    match scheme {
        Scheme::Signing(signing) if signing.signed.iter().any(is_whole_body) => Strength::Signed,
        Scheme::Signing(_) => Strength::Partial,
        Scheme::Token(_) => Strength::Token,
        Scheme::Jwt(jwt) => match &jwt.at {
            JwtAt::Body | JwtAt::Detached { .. } => Strength::Signed,
            _ if jwt.claims.iter().any(binds_body) => Strength::Signed,
            _ => Strength::Partial,
        },
        Scheme::ForEach { scheme, .. } => proves(scheme).max(Strength::Partial),
        Scheme::Require(_) => Strength::Open,
        Scheme::AnyOf(all) => all.iter().map(proves).max().unwrap_or(Strength::Open),
        // What one does not prove another may.
        Scheme::AllOf(all) => all.iter().map(proves).min().unwrap_or(Strength::Open),
        Scheme::None { .. } => Strength::Open,
    }
}

/// The claim says what the body is.
fn binds_body(claim: &Claim) -> bool {
    let by = |expected: &ExpectedClaim| match expected {
        ExpectedClaim::Text(text) => text.iter().any(is_whole_body),
        ExpectedClaim::Bool(_) => false,
    };
    !claim.expected.is_empty() && claim.expected.iter().all(by)
}

fn is_whole_body(part: &Part) -> bool {
    match part.source() {
        Part::Body => true,
        Part::Canonical(form) => form.has_body(),
        _ => false,
    }
}

/// The preset's keys with the author's over them. One that says another kind of scheme takes the preset's kind away.
fn over(base: &Node, own: &[Pair], place: &Node) -> Node {
    let other_kind = own.iter().any(|pair| KINDS.contains(&pair.key.text.as_str()));
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for pair in base.as_map().unwrap_or_default() {
        if !(other_kind && KINDS.contains(&pair.key.text.as_str())) {
            pairs.insert(pair.key.text.clone(), pair.clone());
        }
    }
    for pair in own.iter().filter(|pair| !["provider", "config"].contains(&pair.key.text.as_str()))
    {
        pairs.insert(pair.key.text.clone(), pair.clone());
    }
    Node { value: Value::Map(pairs.into_values().collect()), span: place.span }
}

pub(super) fn first_key(node: &Node) -> crate::diag::Span {
    node.as_map().and_then(<[Pair]>::first).map_or(node.span, |pair| pair.key_span)
}
