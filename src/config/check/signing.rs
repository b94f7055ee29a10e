//! `hmac`, `digest` and the public keys, with the keys that say what is signed, where the signature stands and how it is
//! written → [`Signing`].

use std::time::Duration;

use super::context::{Checker, duration, string, text};
use super::scheme::first_key;
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::secret::SecretRef;
use crate::syntax::{Node, Text};
use crate::verify::scheme::{
    Algorithm, Hash, Part, PublicKey, SecretEncoding, Selector, Signature, SignatureEncoding,
    SignatureSyntax, Signing, TimeUnit, TimestampAt, plain_members,
};

/// Taken where a time is signed and nothing says how old it may be.
const TOLERANCE: Duration = Duration::from_secs(300);

fn algorithm(node: &Node) -> Option<Algorithm> {
    let hash = |name: &str| match name {
        "sha1" => Some(Hash::Sha1),
        "sha256" => Some(Hash::Sha256),
        "sha512" => Some(Hash::Sha512),
        _ => None,
    };
    if let Some(name) = string(node, "hmac") {
        return hash(&name).map(Algorithm::Hmac);
    }
    if let Some(name) = string(node, "digest") {
        return hash(&name).map(Algorithm::Digest);
    }
    let kind = match (string(node, "ecdsa").as_deref(), string(node, "rsa").as_deref()) {
        (Some("p256_sha256"), _) => PublicKey::EcdsaP256Sha256,
        (_, Some("sha256")) => PublicKey::RsaSha256,
        _ => node.get("ed25519")?.as_bool().filter(|it| *it).map(|_| PublicKey::Ed25519)?,
    };
    Some(Algorithm::PublicKey(kind))
}

impl Checker {
    pub(super) fn signing(
        &mut self,
        node: &Node,
        place: &Node,
        secrets: Vec<SecretRef>,
    ) -> Option<Signing> {
        let algorithm = algorithm(node)?;
        let secret_encoding = match string(node, "secret_encoding").as_deref() {
            None | Some("utf8") => SecretEncoding::Utf8,
            Some("base64") => SecretEncoding::Base64,
            Some("hex") => SecretEncoding::Hex,
            Some(_) => return None,
        };
        let Some(signature_node) = node.get("signature") else {
            self.push(
                Diagnostic::new(
                    Code::MissingKey,
                    first_key(place),
                    "a scheme that signs needs `signature`",
                )
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
        let timed = timestamp.is_some() || signature.syntax.names_time();
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
        // A time in a body that is signed whole is signed, too.
        let in_body = timestamp.as_ref().is_some_and(|at: &TimestampAt| {
            matches!(at.selector, Selector::Json(_) | Selector::Form(_))
        });
        let covered = in_body && signed.contains(&Part::Body);
        if timed && !covered && !signed.contains(&Part::Timestamp) {
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
        let is_digest = matches!(algorithm, Algorithm::Digest(_));
        if is_digest != signed.contains(&Part::Secret) {
            let (what, help) = match is_digest {
                true => (
                    "a plain hash proves nothing without the secret in it",
                    "write `{secret}` where the sender has it, such as `{secret}{body}`",
                ),
                false => (
                    "`{secret}` is no part of what is signed: it is the key",
                    "remove it, or write `digest:` for a plain hash",
                ),
            };
            self.push(Diagnostic::new(Code::InvalidValue, signed_place, what).help(help));
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
        Some(Signing {
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

    pub(super) fn selector(&mut self, node: &Node) -> Option<Selector> {
        if let Some(name) = string(node, "header") {
            self.header_name(&name, node.get("header")?)?;
            return Some(Selector::Header(name.to_ascii_lowercase()));
        }
        if let Some(name) = string(node, "query") {
            return Some(Selector::Query(name));
        }
        if let Some(name) = string(node, "form") {
            return Some(Selector::Form(name));
        }
        let path = node.get("json")?;
        let text = self.json_path(path)?.text;
        if plain_members(&text).is_none() {
            self.error(
                Code::InvalidValue,
                path.span,
                "here a JSONPath has names alone",
                "write `$.a.b`",
            );
            return None;
        }
        Some(Selector::Json(text))
    }

    fn signature(&mut self, node: &Node) -> Option<Signature> {
        let at = self.selector(node)?;
        let encoding = match string(node, "encoding").as_deref() {
            None | Some("hex") => SignatureEncoding::Hex,
            Some("base64") => SignatureEncoding::Base64,
            Some("base64url") => SignatureEncoding::Base64Url,
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
                        .help("write `sha256={signature}`, `t={timestamp},v1={signature}`, `v1,{signature}` with `separator: \" \"`, or `{timestamp},{signature}`"),
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

const SIGNED_NAMES: &str = "`{body} {timestamp} {id} {method} {url} {path} {query.N} {header.N} {form.N} {json:$.p} {sig.K}`, in a `digest` `{secret}`, and `{query.N|lower}`";

pub(super) enum Unknown {
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
        "secret" => Part::Secret,
        _ => match name.split_once('|') {
            Some((name, "lower")) => Part::Lower(place(name)?),
            Some(_) => return Err(Unknown::Later),
            None => match name.split_once('.') {
                Some(("sig", name)) if !name.is_empty() => Part::Sig(name.to_owned()),
                Some(("config", _)) => return Err(Unknown::Later),
                _ => Part::At(place(name)?),
            },
        },
    })
}

pub(super) fn place(name: &str) -> Result<Selector, Unknown> {
    if let Some(path) = name.strip_prefix("json:") {
        return match plain_members(path) {
            Some(_) => Ok(Selector::Json(path.to_owned())),
            None => Err(Unknown::Name),
        };
    }
    match name.split_once('.') {
        Some(("query", name)) if !name.is_empty() => Ok(Selector::Query(name.to_owned())),
        Some(("form", name)) if !name.is_empty() => Ok(Selector::Form(name.to_owned())),
        Some(("header", name)) if http::HeaderName::try_from(name).is_ok() => {
            Ok(Selector::Header(name.to_ascii_lowercase()))
        }
        _ => Err(Unknown::Name),
    }
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
    if let Some((first, last)) = parse.split_once(separator.unwrap_or(','))
        && first.trim() == "{timestamp}"
        && last.trim() == "{signature}"
    {
        return Some(SignatureSyntax::Positional { separator: separator.unwrap_or(',') });
    }
    if let (Some(separator), Some(prefix)) = (separator, parse.strip_suffix("{signature}"))
        && !prefix.contains(['{', '}', separator])
        && !is_one_key(prefix)
    {
        return Some(SignatureSyntax::List { separator, prefix: prefix.to_owned() });
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

/// `v1=`: one key of pairs, of which others may follow.
fn is_one_key(prefix: &str) -> bool {
    prefix.strip_suffix('=').is_some_and(|key| !key.is_empty() && !key.contains('='))
}
