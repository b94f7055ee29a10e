//! `hmac` and its keys → [`Hmac`]: what is signed, where the signature stands and how it is written.

use std::time::Duration;

use super::context::{Checker, duration, string, text};
use super::scheme::first_key;
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::secret::SecretRef;
use crate::syntax::{Node, Text};
use crate::verify::scheme::{
    Hmac, HmacAlgorithm, Part, SecretEncoding, Selector, Signature, SignatureEncoding,
    SignatureSyntax, TimeUnit, TimestampAt,
};

/// Taken where a time is signed and nothing says how old it may be.
const TOLERANCE: Duration = Duration::from_secs(300);

impl Checker {
    pub(super) fn hmac(
        &mut self,
        node: &Node,
        place: &Node,
        secrets: Vec<SecretRef>,
    ) -> Option<Hmac> {
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
