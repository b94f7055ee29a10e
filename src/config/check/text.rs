//! `{timestamp}.{body}`: texts that a scheme or an answer lays out of a request → [`Text`].

use std::collections::BTreeMap;
use std::ops::Range;

use super::context::Checker;
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::diag::suggest;
use crate::secret::SecretRef;
use crate::syntax::{self, Node};
use crate::verify::canonical::{Canonical, Line};
use crate::verify::scheme::{Hash, SignatureEncoding, json_place, plain_members};
use crate::verify::text::{Filter, Part, Selector, Text};

/// The values of `config` that the source at hand has.
pub(super) type Config = BTreeMap<String, ConfigValue>;

#[derive(Clone, Debug)]
pub(super) enum ConfigValue {
    Text(String),
    /// A default that is a name itself: `{url}`.
    Name(String),
    Secret(SecretRef),
}

/// Where a text stands: not every name makes sense everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// What a signature is over.
    Signed,
    /// What a value of the request must equal.
    Value,
    /// What a handshake answers.
    Answer,
}

impl Use {
    fn names(self) -> &'static str {
        match self {
            Use::Signed => {
                "`{body} {timestamp} {id} {method} {url} {path} {target} {query.N} {header.N} {form.N} {json:$.p} {config.N} {sig.K}`, and in a `digest` `{secret}`"
            }
            Use::Value | Use::Answer => {
                "`{query.N} {header.N} {form.N} {json:$.p} {config.N} {body} {method} {url} {path} {target}`"
            }
        }
    }
}

const FILTERS: &[&str] = &[
    "lower",
    "upper",
    "sha1",
    "sha256",
    "sha512",
    "hmac",
    "crc32",
    "url_decode",
    "with_port",
    "optional",
];
/// What makes a form of its own of a part.
const FORMS: &[&str] = &["sorted", "php_serialize", "lines", "jcs"];

impl Checker {
    /// The text at `node`, in which names stand in braces.
    pub(super) fn layout(&mut self, node: &Node, use_: Use) -> Option<Text> {
        let text = node.as_text()?;
        self.layout_of(text, node, use_)
    }

    /// The same where `text` is only a part of what stands at `node`.
    pub(super) fn layout_of(
        &mut self,
        text: &syntax::Text,
        node: &Node,
        use_: Use,
    ) -> Option<Text> {
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
            match self.part(name, use_) {
                Ok(part) => parts.push(part),
                Err(unknown) => {
                    faulty = true;
                    self.unknown(node, text, range.clone(), unknown, use_);
                }
            }
            at = range.end;
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        (!faulty).then_some(parts)
    }

    fn unknown(
        &mut self,
        node: &Node,
        text: &syntax::Text,
        range: Range<usize>,
        unknown: Unknown,
        use_: Use,
    ) {
        let name = text.text.get(range.clone()).unwrap_or_default().to_owned();
        // Of a text whose places are not known the whole node is shown.
        let span = match text.places.is_empty() {
            true => node.span,
            false => text.span(node.span.file, range),
        };
        let (message, help) = match unknown {
            Unknown::Name => (
                format!("`{name}` names nothing of a request"),
                format!("there are {}", use_.names()),
            ),
            Unknown::Config(wanted) => {
                let known: Vec<&str> = self.config.keys().map(String::as_str).collect();
                let help = match known.is_empty() {
                    true => format!("add `config: {{ {wanted}: … }}` to `verify`"),
                    false => suggest::help(&wanted, known.iter().copied()).unwrap_or_else(|| {
                        format!("there are {}", crate::config::shape::check::listed(&known))
                    }),
                };
                (format!("`config` has no `{wanted}`"), help)
            }
            Unknown::Filter(filter) => {
                let known = FILTERS.iter().chain(FORMS);
                let help = suggest::help(&filter, known.clone().copied()).unwrap_or_else(|| {
                    let known: Vec<&str> = known.copied().collect();
                    format!("there are {}", crate::config::shape::check::listed(&known))
                });
                (format!("`{filter}` cannot be done with a part of a request"), help)
            }
            Unknown::Argument(filter, wanted) => {
                (format!("`{filter}` in `{name}` is not complete"), format!("write `{wanted}`"))
            }
        };
        self.push(Diagnostic::new(Code::UnknownName, span, message).help(help));
    }

    fn part(&self, written: &str, use_: Use) -> Result<Part, Unknown> {
        let mut pieces = written.split('|');
        let name = pieces.next().unwrap_or_default();
        let mut filters: Vec<&str> = pieces.collect();
        let mut part = match filters.first() {
            Some(first) if FORMS.contains(&before_colon(first).0) => {
                let form = form(name, first)?;
                filters.remove(0);
                Part::Canonical(form)
            }
            _ => self.plain(name, use_)?,
        };
        let filters: Vec<Filter> =
            filters.into_iter().map(|text| filter(text, use_)).collect::<Result<_, _>>()?;
        if !filters.is_empty() {
            if part == Part::Secret {
                return Err(Unknown::Name);
            }
            part = Part::Filtered(Box::new(part), filters);
        }
        Ok(part)
    }

    fn plain(&self, name: &str, use_: Use) -> Result<Part, Unknown> {
        let signed = use_ == Use::Signed;
        Ok(match name {
            "body" => Part::Body,
            "method" => Part::Method,
            "url" => Part::Url,
            "path" => Part::Path,
            "target" => Part::Target,
            "atlassian_request" => Part::Canonical(Canonical::AtlassianRequest),
            "plivo_v3" => Part::Canonical(Canonical::PlivoV3),
            "timestamp" if signed => Part::Timestamp,
            "id" if signed => Part::Id,
            "secret" if signed => Part::Secret,
            _ => match name.split_once('.') {
                Some(("sig", name)) if signed && !name.is_empty() => Part::Sig(name.to_owned()),
                Some(("config", name)) => match self.config.get(name) {
                    Some(ConfigValue::Text(text)) => Part::Literal(text.clone()),
                    Some(ConfigValue::Name(name)) => self.plain(name, use_)?,
                    Some(ConfigValue::Secret(secret)) => Part::Config(secret.clone()),
                    None => return Err(Unknown::Config(name.to_owned())),
                },
                _ => match before_colon(name) {
                    ("header_lines", arguments) => header_lines(arguments)?,
                    _ => Part::At(place(name).ok_or(Unknown::Name)?),
                },
            },
        })
    }
}

enum Unknown {
    Name,
    Config(String),
    Filter(String),
    /// A filter, and how it is written.
    Argument(&'static str, &'static str),
}

fn before_colon(text: &str) -> (&str, &str) {
    text.split_once(':').unwrap_or((text, ""))
}

/// `query.N`, `header.N`, `form.N`, `json:$.p`
pub(super) fn place(name: &str) -> Option<Selector> {
    if let Some(path) = name.strip_prefix("json:") {
        json_place(path)?;
        return Some(Selector::Json(path.to_owned()));
    }
    match name.split_once('.')? {
        ("query", name) if !name.is_empty() => Some(Selector::Query(name.to_owned())),
        ("form", name) if !name.is_empty() => Some(Selector::Form(name.to_owned())),
        ("header", name) if http::HeaderName::try_from(name).is_ok() => {
            Some(Selector::Header(name.to_ascii_lowercase()))
        }
        _ => None,
    }
}

pub(super) fn hash(name: &str) -> Option<Hash> {
    match name {
        "sha1" => Some(Hash::Sha1),
        "sha256" => Some(Hash::Sha256),
        "sha512" => Some(Hash::Sha512),
        _ => None,
    }
}

fn encoding(name: &str) -> Option<SignatureEncoding> {
    match name {
        "" | "hex" => Some(SignatureEncoding::Hex),
        "base64" => Some(SignatureEncoding::Base64),
        "base64url" => Some(SignatureEncoding::Base64Url),
        _ => None,
    }
}

fn filter(written: &str, use_: Use) -> Result<Filter, Unknown> {
    let (name, arguments) = before_colon(written);
    Ok(match name {
        "lower" => Filter::Lower,
        "upper" => Filter::Upper,
        "crc32" => Filter::Crc32,
        "with_port" => Filter::WithPort,
        "sha1" | "sha256" | "sha512" => {
            let wanted = Unknown::Argument("sha256", "{body|sha256:hex}");
            let (Some(hash), Some(encoding)) = (hash(name), encoding(arguments)) else {
                return Err(wanted);
            };
            Filter::Digest { hash, encoding }
        }
        "hmac" if use_ == Use::Answer => {
            let (name, after) = before_colon(arguments);
            let (Some(hash), Some(encoding)) = (hash(name), encoding(after)) else {
                return Err(Unknown::Argument("hmac", "{query.challenge|hmac:sha256:hex}"));
            };
            Filter::Hmac { hash, encoding }
        }
        "url_decode" => match arguments {
            "" => return Err(Unknown::Argument("url_decode", "{url|url_decode::/?@}")),
            set => Filter::UrlDecode(set.to_owned()),
        },
        "optional" => {
            let (before, after) = arguments.split_once(',').unwrap_or((arguments, ""));
            Filter::Optional { before: before.to_owned(), after: after.to_owned() }
        }
        _ => return Err(Unknown::Filter(name.to_owned())),
    })
}

/// `form|sorted`, `form|php_serialize:FIELD`, `body|lines:A,B?`, `body|jcs`
fn form(of: &str, written: &str) -> Result<Canonical, Unknown> {
    let (name, arguments) = before_colon(written);
    match (of, name) {
        ("form", "sorted") => Ok(Canonical::SortedForm),
        ("form", "php_serialize") => Ok(Canonical::PhpSerialize { without: arguments.to_owned() }),
        ("body", "jcs") => Ok(Canonical::Jcs),
        ("body", "lines") if !arguments.is_empty() => {
            let lines = arguments.split(',').map(|name| {
                let optional = name.ends_with('?');
                Line { name: name.trim_end_matches('?').to_owned(), optional }
            });
            let lines: Vec<Line> = lines.collect();
            let plain = lines.iter().all(|it| plain_members(&format!("$.{}", it.name)).is_some());
            match plain {
                true => Ok(Canonical::Lines(lines)),
                false => Err(Unknown::Argument("lines", "{body|lines:Message,Subject?}")),
            }
        }
        ("body", "lines") => Err(Unknown::Argument("lines", "{body|lines:Message,Subject?}")),
        (_, "sorted") => Err(Unknown::Argument("sorted", "{form|sorted}")),
        (_, "php_serialize") => {
            Err(Unknown::Argument("php_serialize", "{form|php_serialize:p_signature}"))
        }
        _ => Err(Unknown::Argument("jcs", "{body|jcs}")),
    }
}

/// `header_lines:LIST,REQUIRED,REQUIRED`
fn header_lines(arguments: &str) -> Result<Part, Unknown> {
    let names: Vec<String> =
        arguments.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    match names.split_first() {
        Some((list, required))
            if names.iter().all(|name| http::HeaderName::try_from(name).is_ok()) =>
        {
            Ok(Part::Canonical(Canonical::HeaderLines {
                list: list.clone(),
                required: required.to_vec(),
            }))
        }
        _ => Err(Unknown::Argument("header_lines", "{header_lines:X-Signed-Headers,X-Timestamp}")),
    }
}
