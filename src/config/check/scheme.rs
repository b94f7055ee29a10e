//! `verify` → [`Scheme`]: a preset's scheme with the source's keys over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::context::{Checker, duration, many, string, text};
use crate::config::Verification;
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::secret::SecretRef;
use crate::syntax::{Node, Pair, Text, Value};
use crate::verify::scheme::{
    Hmac, HmacAlgorithm, Part, Scheme, SecretEncoding, Selector, Signature, SignatureEncoding,
    SignatureSyntax, Strength, TimeUnit, TimestampAt, Token, TokenAt,
};

/// Taken where a time is signed and nothing says how old it may be.
const TOLERANCE: Duration = Duration::from_secs(300);

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
        let merged = match preset.as_ref().and_then(|preset| preset.get("verify")) {
            Some(base) => over(base, own, node),
            None => node.clone(),
        };
        let scheme = self.scheme(&merged, node, &[]);
        let strength = preset
            .as_ref()
            .filter(|_| {
                !["hmac", "signed", "token", "any_of", "none"]
                    .iter()
                    .any(|key| node.get(key).is_some())
            })
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
    fn scheme(&mut self, node: &Node, place: &Node, outer: &[SecretRef]) -> Option<Scheme> {
        let kinds: Vec<&Pair> = node
            .as_map()?
            .iter()
            .filter(|pair| ["hmac", "token", "any_of", "none"].contains(&pair.key.text.as_str()))
            .collect();
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
        let given: Vec<Option<SecretRef>> =
            many(node.get("secret")).iter().map(|secret| self.secret_ref(secret)).collect();
        let secrets: Vec<SecretRef> = if node.get("secret").is_some() {
            if given.is_empty() {
                self.error(
                    Code::InvalidValue,
                    node.get("secret")?.span,
                    "a list of no secrets verifies nothing",
                    "add one: `{ env: NAME }`",
                );
            }
            given.into_iter().collect::<Option<_>>()?
        } else {
            outer.to_vec()
        };
        if let Some(alternatives) = node.get("any_of") {
            let alternatives = alternatives.as_list()?;
            if alternatives.is_empty() {
                self.error(
                    Code::InvalidValue,
                    node.get("any_of")?.span,
                    "a list of no schemes verifies nothing",
                    "add one, such as `{ token: { bearer: true } }`",
                );
                return None;
            }
            let missing = alternatives
                .iter()
                .any(|it| it.get("secret").is_none() && it.get("none").is_none());
            if secrets.is_empty() && missing {
                self.no_secret(place);
                return None;
            }
            let compiled: Vec<_> =
                alternatives.iter().map(|it| self.scheme(it, it, &secrets)).collect();
            return Some(Scheme::AnyOf(compiled.into_iter().collect::<Option<_>>()?));
        }
        if secrets.is_empty() {
            if node.get("secret").is_none() {
                self.no_secret(place);
            }
            return None;
        }
        match node.get("token") {
            Some(token) => Some(Scheme::Token(Token { at: self.token_at(token)?, secrets })),
            None => self.hmac(node, place, secrets).map(Scheme::Hmac),
        }
    }

    fn no_secret(&mut self, place: &Node) {
        self.push(
            Diagnostic::new(Code::MissingKey, first_key(place), "the verification needs `secret`")
                .help("add `secret: { env: NAME }`"),
        );
    }

    fn token_at(&mut self, node: &Node) -> Option<TokenAt> {
        if let Some(name) = string(node, "header") {
            self.header_name(&name, node.get("header")?)?;
            return Some(TokenAt::Header(name.to_ascii_lowercase()));
        }
        if let Some(name) = string(node, "query") {
            return Some(TokenAt::Query(name));
        }
        if let Some(path) = node.get("json") {
            return Some(TokenAt::Json(self.json_path(path)?.text));
        }
        if let Some(user) = string(node, "basic") {
            return Some(TokenAt::Basic { user });
        }
        node.get("bearer")?.as_bool().filter(|bearer| *bearer).map(|_| TokenAt::Bearer)
    }

    fn hmac(&mut self, node: &Node, place: &Node, secrets: Vec<SecretRef>) -> Option<Hmac> {
        let algorithm = match text(node, "hmac")?.text.as_str() {
            "sha1" => HmacAlgorithm::Sha1,
            "sha256" => HmacAlgorithm::Sha256,
            "sha512" => HmacAlgorithm::Sha512,
            _ => return None,
        };
        let secret_encoding = match string(node, "secret_encoding").as_deref() {
            None | Some("utf8") => SecretEncoding::Utf8,
            Some("base64") => SecretEncoding::Base64,
            Some("hex") => SecretEncoding::Hex,
            Some(_) => return None,
        };
        let Some(signature_node) = node.get("signature") else {
            self.push(
                Diagnostic::new(Code::MissingKey, first_key(place), "an `hmac` needs `signature`")
                    .help("add `signature: { header: X-Signature }`"),
            );
            return None;
        };
        let signature = self.signature(signature_node);
        let signed = match node.get("signed") {
            Some(signed) => self.signed(signed),
            None => Some(vec![Part::Body]),
        };
        let timestamp = node.get("timestamp").map(|node| {
            let unit = match string(node, "format").as_deref() {
                None | Some("unix") => TimeUnit::UnixSeconds,
                Some("unix_ms") => TimeUnit::UnixMillis,
                Some("rfc3339") => TimeUnit::Rfc3339,
                Some(_) => return None,
            };
            Some(TimestampAt { selector: self.selector(node)?, unit })
        });
        let id = node.get("id").map(|node| self.selector(node));
        let (signature, signed) = (signature?, signed?);
        let timestamp = match timestamp {
            Some(found) => Some(found?),
            None => None,
        };
        let id = match id {
            Some(found) => Some(found?),
            None => None,
        };
        let timed = timestamp.is_some()
            || matches!(&signature.syntax, SignatureSyntax::Pairs { timestamp_key: Some(_), .. });
        let signed_place = node.get("signed").map_or(first_key(place), |node| node.span);
        if signed.contains(&Part::Timestamp) && !timed {
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    signed_place,
                    "`{timestamp}` is signed, and nothing says where it is",
                )
                .help("add `timestamp: { header: … }`, or name it in `signature.parse`"),
            );
            return None;
        }
        if timed && !signed.contains(&Part::Timestamp) {
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    signed_place,
                    "the time is not signed: anyone could write a fresh one",
                )
                .help("add `{timestamp}` to `signed`, or remove `timestamp`"),
            );
            return None;
        }
        if signed.contains(&Part::Id) && id.is_none() {
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    signed_place,
                    "`{id}` is signed, and nothing says where it is",
                )
                .help("add `id: { header: … }`"),
            );
            return None;
        }
        let tolerance = duration(node, "tolerance");
        if tolerance.is_some() && !timed {
            let place = node.get("tolerance").map_or(first_key(place), |node| node.span);
            self.push(
                Diagnostic::new(Code::InvalidValue, place, "`tolerance` has no time to look at")
                    .help("the scheme signs no time: remove it"),
            );
            return None;
        }
        Some(Hmac {
            algorithm,
            secrets,
            secret_encoding,
            strip_prefix: string(node, "strip_prefix"),
            signed,
            signature,
            timestamp,
            id,
            tolerance: timed.then(|| tolerance.unwrap_or(TOLERANCE)),
        })
    }

    fn selector(&mut self, node: &Node) -> Option<Selector> {
        if let Some(name) = string(node, "header") {
            self.header_name(&name, node.get("header")?)?;
            return Some(Selector::Header(name.to_ascii_lowercase()));
        }
        string(node, "query").map(Selector::Query)
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

    fn signature(&mut self, node: &Node) -> Option<Signature> {
        let at = self.selector(node)?;
        let encoding = match string(node, "encoding").as_deref() {
            None | Some("hex") => SignatureEncoding::Hex,
            Some("base64") => SignatureEncoding::Base64,
            Some(_) => return None,
        };
        let separator = match text(node, "separator") {
            None => None,
            Some(text) => {
                let mut chars = text.text.chars();
                match (chars.next(), chars.next()) {
                    (Some(separator), None) => Some(separator),
                    _ => {
                        self.error(
                            Code::InvalidValue,
                            node.get("separator")?.span,
                            "`separator` is one character",
                            "write `\",\"`, `\";\"` or `\" \"`",
                        );
                        return None;
                    }
                }
            }
        };
        let syntax = match node.get("parse") {
            None => Some(SignatureSyntax::Prefix(String::new())),
            Some(parse) => {
                let written = parse.as_text()?;
                let syntax = signature_syntax(&written.text, separator);
                if syntax.is_none() {
                    self.push(
                        Diagnostic::new(
                            Code::InvalidValue,
                            parse.span,
                            format!("`{}` does not say where the signature stands", written.text),
                        )
                        .help("write `sha256={signature}`, `t={timestamp},v1={signature}`, or `v1,{signature}` with `separator: \" \"`"),
                    );
                }
                syntax
            }
        };
        Some(Signature { at, encoding, syntax: syntax? })
    }

    /// `v0:{timestamp}:{body}`
    fn signed(&mut self, node: &Node) -> Option<Vec<Part>> {
        let text = node.as_text()?;
        let mut parts = Vec::new();
        let mut rest = text.text.as_str();
        let mut at = 0;
        let mut faulty = false;
        while let Some((literal, after)) = rest.split_once('{') {
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let open = at + literal.len();
            let Some((name, after)) = after.split_once('}') else {
                self.error(
                    Code::InvalidValue,
                    text.span(node.span.file, open..text.text.len()),
                    "this `{` is never closed",
                    "close the name: `{body}`",
                );
                return None;
            };
            let range = open..open + name.len() + 2;
            match part(name) {
                Ok(part) => parts.push(part),
                Err(unknown) => {
                    faulty = true;
                    self.unknown_part(node, text, range.clone(), unknown);
                }
            }
            at = range.end;
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        if parts.is_empty() && !faulty {
            self.error(
                Code::InvalidValue,
                node.span,
                "nothing is signed",
                "write what the sender signs, such as `{timestamp}.{body}`",
            );
            return None;
        }
        (!faulty).then_some(parts)
    }

    fn unknown_part(
        &mut self,
        node: &Node,
        text: &Text,
        range: std::ops::Range<usize>,
        unknown: Unknown,
    ) {
        let span = text.span(node.span.file, range.clone());
        let name = text.text.get(range).unwrap_or_default().to_owned();
        self.push(match unknown {
            Unknown::Later => Diagnostic::new(
                Code::NotBuiltYet,
                span,
                format!("`{name}` in `signed` is part of the language, but this version does not carry it out"),
            )
            .label("not built yet")
            .help(format!("this version knows {SIGNED_NAMES}")),
            Unknown::Name => Diagnostic::new(Code::UnknownName, span, format!("`{name}` names nothing of a request"))
                .help(format!("there are {SIGNED_NAMES}")),
        });
    }
}

const SIGNED_NAMES: &str =
    "`{body} {timestamp} {id} {method} {url} {path} {query.N} {header.N} {sig.K}`";

enum Unknown {
    Later,
    Name,
}

fn part(name: &str) -> Result<Part, Unknown> {
    Ok(match name {
        "body" => Part::Body,
        "method" => Part::Method,
        "url" => Part::Url,
        "path" => Part::Path,
        "timestamp" => Part::Timestamp,
        "id" => Part::Id,
        "secret" => return Err(Unknown::Later),
        _ if name.contains('|') => return Err(Unknown::Later),
        _ if name.starts_with("json:") => return Err(Unknown::Later),
        _ => match name.split_once('.') {
            Some(("query", name)) if !name.is_empty() => Part::Query(name.to_owned()),
            Some(("header", name)) if http::HeaderName::try_from(name).is_ok() => {
                Part::Header(name.to_ascii_lowercase())
            }
            Some(("sig", name)) if !name.is_empty() => Part::Sig(name.to_owned()),
            Some(("form" | "config", _)) => return Err(Unknown::Later),
            _ => return Err(Unknown::Name),
        },
    })
}

/// How `parse` and `separator` say that signatures stand in the header.
pub(super) fn signature_syntax(parse: &str, separator: Option<char>) -> Option<SignatureSyntax> {
    if parse.matches("{signature}").count() != 1 {
        return None;
    }
    if !parse.contains("{timestamp}") && separator.is_none() {
        let prefix = parse.strip_suffix("{signature}")?;
        return (!prefix.contains(['{', '}'])).then(|| SignatureSyntax::Prefix(prefix.to_owned()));
    }
    if let Some(tag) = parse.strip_suffix(",{signature}")
        && separator.is_some_and(|separator| separator != ',')
        && !tag.is_empty()
        && !tag.contains(['{', '}', '=', ','])
    {
        return Some(SignatureSyntax::Tagged { separator: separator?, tag: tag.to_owned() });
    }
    let separator = separator.unwrap_or(',');
    let mut signature_key = None;
    let mut timestamp_key = None;
    for item in parse.split(separator) {
        let (key, value) = item.trim().split_once('=')?;
        if key.is_empty() || key.contains(['{', '}']) {
            return None;
        }
        match value {
            "{signature}" => signature_key = Some(key.to_owned()),
            "{timestamp}" if timestamp_key.is_none() => timestamp_key = Some(key.to_owned()),
            _ => return None,
        }
    }
    Some(SignatureSyntax::Pairs {
        separator,
        assign: '=',
        signature_key: signature_key?,
        timestamp_key,
    })
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
        Scheme::Hmac(hmac) if hmac.signed.contains(&Part::Body) => Strength::Signed,
        Scheme::Hmac(_) => Strength::Partial,
        Scheme::Token(_) => Strength::Token,
        Scheme::AnyOf(all) => all.iter().map(proves).max().unwrap_or(Strength::Open),
        Scheme::None { .. } => Strength::Open,
    }
}

/// The preset's keys with the author's over them. One that says another kind of scheme takes the preset's kind away.
fn over(base: &Node, own: &[Pair], place: &Node) -> Node {
    const KINDS: [&str; 4] = ["hmac", "token", "any_of", "none"];
    let other_kind = own.iter().any(|pair| KINDS.contains(&pair.key.text.as_str()));
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for pair in base.as_map().unwrap_or_default() {
        if !(other_kind && KINDS.contains(&pair.key.text.as_str())) {
            pairs.insert(pair.key.text.clone(), pair.clone());
        }
    }
    for pair in own.iter().filter(|pair| pair.key.text != "provider") {
        pairs.insert(pair.key.text.clone(), pair.clone());
    }
    Node { value: Value::Map(pairs.into_values().collect()), span: place.span }
}

fn first_key(node: &Node) -> crate::diag::Span {
    node.as_map().and_then(<[Pair]>::first).map_or(node.span, |pair| pair.key_span)
}
