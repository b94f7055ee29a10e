//! `hmac`, `digest` and the public keys, with the keys that say what is signed, where the signature stands and how it is
//! written → [`Signing`].

use std::time::Duration;

use super::context::{Checker, duration, string, text};
use super::scheme::first_key;
use super::text::{Use, hash};
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::syntax::Node;
use crate::verify::canonical::Canonical;
use crate::verify::scheme::{
    Algorithm, KeyForm, PublicKey, SecretEncoding, Secrets, Signature, SignatureEncoding,
    SignatureSyntax, Signing, TimeUnit, TimestampAt, plain_members,
};
use crate::verify::text::{Part, Selector};

/// Taken where a time is signed and nothing says how old it may be.
const TOLERANCE: Duration = Duration::from_secs(300);

fn algorithm(node: &Node) -> Option<Algorithm> {
    if let Some(name) = string(node, "hmac") {
        return hash(&name).map(Algorithm::Hmac);
    }
    if let Some(name) = string(node, "digest") {
        return hash(&name).map(Algorithm::Digest);
    }
    let kind = match (string(node, "ecdsa").as_deref(), string(node, "rsa").as_deref()) {
        (Some("p256_sha256"), _) => PublicKey::EcdsaP256Sha256,
        (_, Some("sha256")) => PublicKey::RsaSha256,
        (_, Some("sha1")) => PublicKey::RsaSha1,
        _ => node.get("ed25519")?.as_bool().filter(|it| *it).map(|_| PublicKey::Ed25519)?,
    };
    Some(Algorithm::PublicKey(kind))
}

impl Checker {
    pub(super) fn signing(
        &mut self,
        node: &Node,
        place: &Node,
        secrets: Secrets,
    ) -> Option<Signing> {
        let algorithm = algorithm(node)?;
        let form = self.key_form(node)?;
        let certificate = self.certificate_of(node)?;
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
        let covered = timestamp.as_ref().is_some_and(|at| covers(&signed, &at.selector));
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
            form,
            certificate,
            signed,
            signature,
            timestamp,
            id,
            tolerance: timed.then(|| tolerance.unwrap_or(TOLERANCE)),
        })
    }

    /// How the text of a secret becomes a key.
    pub(super) fn key_form(&mut self, node: &Node) -> Option<KeyForm> {
        let encoding = match string(node, "secret_encoding").as_deref() {
            None | Some("utf8") => SecretEncoding::Utf8,
            Some("base64") => SecretEncoding::Base64,
            Some("hex") => SecretEncoding::Hex,
            Some(_) => return None,
        };
        Some(KeyForm {
            encoding,
            strip_prefix: string(node, "strip_prefix"),
            digest: string(node, "secret_digest").and_then(|name| hash(&name)),
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
        let separator = self.character(node, "separator")?;
        let groups = self.character(node, "group_separator")?;
        let syntax = match node.get("parse") {
            None => Some(SignatureSyntax::Prefix(String::new())),
            Some(parse) => {
                let written = parse.as_text()?;
                let known = self.with_config(&written.text, parse)?;
                let syntax = signature_syntax(&known, separator);
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
        Some(Signature { at, groups, encoding, syntax: syntax? })
    }

    /// A key that is one character. `None`: it is there and is not, which is reported.
    #[expect(clippy::option_option, reason = "absent and faulty differ")]
    fn character(&mut self, node: &Node, key: &str) -> Option<Option<char>> {
        let Some(text) = text(node, key) else { return Some(None) };
        let mut chars = text.text.chars();
        if let (Some(character), None) = (chars.next(), chars.next()) {
            return Some(Some(character));
        }
        self.error(
            Code::InvalidValue,
            node.get(key)?.span,
            format!("`{key}` is one character"),
            "write `\",\"`, `\";\"` or `\" \"`",
        );
        None
    }

    /// `v0:{timestamp}:{body}`
    fn signed(&mut self, node: &Node) -> Option<Vec<Part>> {
        let parts = self.layout(node, Use::Signed)?;
        if parts.is_empty() {
            self.error(
                Code::InvalidValue,
                node.span,
                "nothing is signed",
                "write what the sender signs, such as `{timestamp}.{body}`",
            );
            return None;
        }
        Some(parts)
    }
}

/// What stands at `at` is a part of what is signed: itself, or in a body that is signed whole.
fn covers(signed: &[Part], at: &Selector) -> bool {
    let in_body = matches!(at, Selector::Json(_) | Selector::Form(_));
    signed.iter().any(|part| match part.source() {
        Part::At(signed) => signed == at,
        Part::Body => in_body,
        Part::Canonical(form) => match (form, at) {
            (Canonical::SortedForm | Canonical::PlivoV3, Selector::Form(_))
            | (Canonical::Jcs, Selector::Json(_)) => true,
            (Canonical::PhpSerialize { without }, Selector::Form(name)) => without != name,
            (Canonical::Lines(lines), Selector::Json(path)) => {
                lines.iter().any(|line| format!("$.{}", line.name) == *path)
            }
            (Canonical::HeaderLines { required, .. }, Selector::Header(name)) => {
                required.contains(name)
            }
            _ => false,
        },
        _ => false,
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
