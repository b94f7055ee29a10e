//! `handshake` → [`Handshake`]s, of the source before those of its preset.

use http::{HeaderName, StatusCode};
use serde_json::Value as Json;

use super::context::{Checker, json, many};
use super::text::Use;
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::syntax::{Node, Text};
use crate::verify::handshake::{Body, Confirm, Handshake, Tree};
use crate::verify::scheme::{Algorithm, Scheme, Signing};
use crate::verify::text::{Filter, Part};

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

    /// What a handshake brings must be what the scheme verifies by, and the other way round. `source` is the source, `asked` its
    /// handshakes.
    pub(super) fn captures(
        &mut self,
        source: &Node,
        asked: Option<&Node>,
        scheme: &Scheme,
        handshakes: &[Handshake],
    ) {
        let brings = handshakes.iter().any(|handshake| handshake.capture.is_some());
        if brings && !scheme.uses_captured() {
            let place = many(asked).iter().find_map(|handshake| handshake.get("capture_secret"));
            self.error(
                Code::InvalidValue,
                place.unwrap_or(source).span,
                "this would take a secret that nothing verifies by",
                "write `secret: { captured: true }` in `verify`, or in a list beside others",
            );
        }
        if !brings && scheme.uses_captured() {
            let verify = source.get("verify").unwrap_or(source);
            self.error(
                Code::InvalidValue,
                verify.get("secret").unwrap_or(verify).span,
                "no handshake of this source brings a secret, so `captured` would stand for none",
                "add a `handshake` with `verify: false` and `capture_secret: { header: … }`",
            );
        }
    }

    fn handshake(&mut self, node: &Node, scheme: Option<&Scheme>) -> Option<Handshake> {
        let when = node.get("when")?;
        let conditions = self.conditions(when)?;
        if conditions.method.is_none() && conditions.all.is_empty() {
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
            let text = pair.value.as_text()?.clone();
            headers.push((name, self.answer_text(&text, &pair.value, scheme)?));
        }
        let body = match respond.and_then(|respond| respond.get("body")) {
            None => None,
            Some(body) => Some(match body.as_text() {
                Some(text) => Body::Text(self.answer_text(text, body, scheme)?),
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
        let confirm = match node.get("confirm") {
            None => None,
            Some(place) if !verify => {
                self.error(
                    Code::InvalidValue,
                    place.span,
                    "nothing is confirmed for a sender that did not prove itself",
                    "remove `verify: false`",
                );
                return None;
            }
            Some(place) => Some(Confirm {
                url: self.selector(place.get("get")?)?,
                host: self.anchored_text(place.get("host")?)?,
                path: match place.get("path") {
                    Some(path) => Some(self.anchored_text(path)?),
                    None => None,
                },
            }),
        };
        let when = conditions;
        let handshake = Handshake { when, verify, capture, confirm, status, headers, body };
        if !verify
            && let Some(scheme) = scheme
            && let Some(at) = handshake.signs_anything(scheme)
        {
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    respond.unwrap_or(node).span,
                    format!("this would sign whatever a stranger writes in {at}, also the body of an event"),
                )
                .help("let `when` say what a challenge looks like, so that no body is one: `{ match: \"[a-z0-9]{20,32}\" }`"),
            );
            return None;
        }
        Some(handshake)
    }

    fn answer_tree(&mut self, json: &Json, node: &Node, scheme: Option<&Scheme>) -> Option<Tree> {
        Some(match json {
            Json::String(text) => {
                let text = Text { text: text.clone(), quoted: false, places: Vec::new() };
                Tree::Text(self.answer_text(&text, node, scheme)?)
            }
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
    fn answer_text(
        &mut self,
        text: &Text,
        node: &Node,
        scheme: Option<&Scheme>,
    ) -> Option<Vec<Part>> {
        let parts = self.layout_of(text, node, Use::Answer)?;
        let keyed = |part: &Part| match part {
            Part::Filtered(_, filters) => {
                filters.iter().any(|it| matches!(it, Filter::Hmac { .. }))
            }
            _ => false,
        };
        if parts.iter().any(keyed) && scheme.is_some_and(|it| !has_hmac(it)) {
            self.error(
                Code::InvalidValue,
                node.span,
                "`hmac` needs the secret of a scheme that is an `hmac`, too",
                "remove it, or verify with `hmac`",
            );
            return None;
        }
        Some(parts)
    }
}

fn has_hmac(scheme: &Scheme) -> bool {
    match scheme {
        Scheme::Signing(Signing { algorithm, .. }) => matches!(algorithm, Algorithm::Hmac(_)),
        Scheme::AnyOf(schemes) | Scheme::AllOf(schemes) => schemes.iter().any(has_hmac),
        Scheme::ForEach { scheme, .. } => has_hmac(scheme),
        Scheme::Token(_) | Scheme::Jwt(_) | Scheme::Require(_) | Scheme::None { .. } => false,
    }
}
