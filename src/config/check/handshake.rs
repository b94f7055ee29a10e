//! `handshake` → [`Handshake`]s, of the source before those of its preset.

use http::{HeaderName, Method, StatusCode};
use serde_json::Value as Json;

use super::context::{Checker, json, many, string};
use super::signing::place;
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::syntax::{Node, Pair};
use crate::verify::handshake::{
    Body, Condition, Expected, Handshake, MacEncoding, Piece, Text, Tree,
};
use crate::verify::scheme::{Algorithm, Hash, Scheme, Selector, Signing};

const NAMES: &str = "`{query.N} {header.N} {form.N} {json:$.p}`, with `|hmac:sha256:hex` or `|hmac:sha256:base64` after the name";

impl Checker {
    pub(super) fn handshakes(
        &mut self,
        node: Option<&Node>,
        scheme: Option<&Scheme>,
    ) -> Option<Vec<Handshake>> {
        // All of them are looked at, and each problem is reported.
        let compiled: Vec<_> = many(node).iter().map(|node| self.handshake(node, scheme)).collect();
        compiled.into_iter().collect()
    }

    fn handshake(&mut self, node: &Node, scheme: Option<&Scheme>) -> Option<Handshake> {
        let when = node.get("when")?;
        let method =
            string(when, "method").and_then(|method| Method::from_bytes(method.as_bytes()).ok());
        let mut conditions = Vec::new();
        for (key, prefix) in [("header", "header."), ("query", "query."), ("json", "json:")] {
            for pair in when.get(key).and_then(Node::as_map).unwrap_or_default() {
                conditions.push(self.expectation(pair, prefix)?);
            }
        }
        if method.is_none() && conditions.is_empty() {
            self.error(
                Code::InvalidValue,
                when.span,
                "this would answer every request, and no event would come in",
                "say what makes a request a challenge: `{ json: { $.type: url_verification } }`",
            );
            return None;
        }
        let respond = node.get("respond");
        let status = respond.and_then(|respond| respond.get("status")?.as_number());
        let status = match status {
            Some(status) => StatusCode::from_u16(status.parse().ok()?).ok()?,
            None => StatusCode::OK,
        };
        let mut headers = Vec::new();
        let given = respond.and_then(|respond| respond.get("headers"));
        for pair in given.and_then(Node::as_map).unwrap_or_default() {
            let name: HeaderName = self.header_name(&pair.key.text, &pair.value)?;
            let text = pair.value.as_text()?.text.clone();
            headers.push((name, self.answer_text(&text, &pair.value, scheme)?));
        }
        let body = match respond.and_then(|respond| respond.get("body")) {
            None => None,
            Some(body) => Some(match body.as_text() {
                Some(text) => Body::Text(self.answer_text(&text.text, body, scheme)?),
                None => Body::Json(self.answer_tree(&json(body), body, scheme)?),
            }),
        };
        let verify = node.get("verify").and_then(Node::as_bool).unwrap_or(true);
        let capture = match node.get("capture_secret") {
            None => None,
            Some(place) if verify => {
                self.error(
                    Code::InvalidValue,
                    place.span,
                    "a handshake that brings the secret cannot be verified by it",
                    "write `verify: false` beside it; a secret is taken only while `router sources arm` waits for one",
                );
                return None;
            }
            Some(place) => Some(self.selector(place)?),
        };
        Some(Handshake { method, when: conditions, verify, capture, status, headers, body })
    }

    fn expectation(&mut self, pair: &Pair, prefix: &str) -> Option<Condition> {
        let Ok(at) = place(&format!("{prefix}{}", pair.key.text)) else {
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    pair.key_span,
                    format!("`{}` is no place in a request", pair.key.text),
                )
                .help("write a header's or a parameter's name, or for `json` a path of names such as `$.type`"),
            );
            return None;
        };
        let expected = match pair.value.as_bool() {
            Some(true) => Expected::Present,
            Some(false) => Expected::Absent,
            None => Expected::Equal(match pair.value.as_text() {
                Some(text) => text.text.clone(),
                None => pair.value.as_number()?.to_owned(),
            }),
        };
        Some(Condition { at, expected })
    }

    fn answer_tree(&mut self, json: &Json, node: &Node, scheme: Option<&Scheme>) -> Option<Tree> {
        Some(match json {
            Json::String(text) => Tree::Text(self.answer_text(text, node, scheme)?),
            Json::Array(items) => Tree::List(
                items
                    .iter()
                    .map(|item| self.answer_tree(item, node, scheme))
                    .collect::<Option<_>>()?,
            ),
            Json::Object(pairs) => Tree::Map(
                pairs
                    .iter()
                    .map(|(name, json)| Some((name.clone(), self.answer_tree(json, node, scheme)?)))
                    .collect::<Option<_>>()?,
            ),
            Json::Null | Json::Bool(_) | Json::Number(_) => Tree::Fixed(json.clone()),
        })
    }

    /// `sha256={query.crc_token|hmac:sha256:base64}`
    fn answer_text(&mut self, text: &str, node: &Node, scheme: Option<&Scheme>) -> Option<Text> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((literal, after)) = rest.split_once('{') {
            let named = after.split_once('}').and_then(|(name, after)| Some((piece(name)?, after)));
            let Some((piece, after)) = named else {
                self.push(
                    Diagnostic::new(
                        Code::UnknownName,
                        node.span,
                        format!("`{text}` takes up something that is nothing of a request"),
                    )
                    .help(format!("there are {NAMES}")),
                );
                return None;
            };
            if matches!(piece, Piece::Hmac { .. }) && scheme.is_some_and(|it| !has_hmac(it)) {
                self.error(
                    Code::InvalidValue,
                    node.span,
                    "`hmac` needs the secret of a scheme that is an `hmac`, too",
                    "remove it, or verify with `hmac`",
                );
                return None;
            }
            pieces.extend((!literal.is_empty()).then(|| Piece::Literal(literal.to_owned())));
            pieces.push(piece);
            rest = after;
        }
        pieces.extend((!rest.is_empty()).then(|| Piece::Literal(rest.to_owned())));
        Some(pieces)
    }
}

fn piece(name: &str) -> Option<Piece> {
    let Some((name, filter)) = name.split_once('|') else {
        return place(name).ok().map(Piece::At);
    };
    let of: Selector = place(name).ok()?;
    let (hash, encoding) = filter.strip_prefix("hmac:")?.split_once(':')?;
    let hash = match hash {
        "sha1" => Hash::Sha1,
        "sha256" => Hash::Sha256,
        "sha512" => Hash::Sha512,
        _ => return None,
    };
    let encoding = match encoding {
        "hex" => MacEncoding::Hex,
        "base64" => MacEncoding::Base64,
        _ => return None,
    };
    Some(Piece::Hmac { hash, encoding, of })
}

fn has_hmac(scheme: &Scheme) -> bool {
    match scheme {
        Scheme::Signing(Signing { algorithm, .. }) => matches!(algorithm, Algorithm::Hmac(_)),
        Scheme::AnyOf(schemes) | Scheme::AllOf(schemes) => schemes.iter().any(has_hmac),
        Scheme::Token(_) | Scheme::None { .. } => false,
    }
}
