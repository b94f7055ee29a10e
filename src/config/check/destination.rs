//! Destinations of `router.yaml`.

use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

use super::context::{Checker, duration, string, text};
use crate::config::{Auth, Destination, DestinationUrl, Idempotency};
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::name::Lane;
use crate::syntax::Node;

/// By name; `None` where one did not compile, which was reported.
pub(super) type Known = BTreeMap<String, Option<Arc<Destination>>>;

impl Checker {
    pub(super) fn destinations(&mut self, node: Option<&Node>) -> Known {
        let Some(pairs) = node.and_then(Node::as_map) else { return Known::new() };
        pairs
            .iter()
            .map(|pair| {
                let name = pair.key.text.clone();
                let destination = self.destination(&name, &pair.value).map(Arc::new);
                (name, destination)
            })
            .collect()
    }

    fn destination(&mut self, name: &str, node: &Node) -> Option<Destination> {
        let url = node.get("url").and_then(|url| {
            if url.as_map().is_some() {
                self.secret_ref(url).map(DestinationUrl::Secret)
            } else {
                self.url(url).map(DestinationUrl::Plain)
            }
        });
        let auth = node.get("auth").map(|auth| self.auth(auth));
        let idempotency = match node.get("idempotency") {
            None => Some(Idempotency::Unknown),
            Some(it) => match it.as_text().map(|text| text.text.as_str()) {
                Some("body") => Some(Idempotency::Body),
                Some("none") => Some(Idempotency::None),
                Some(_) => None,
                None => string(it, "header").and_then(|name| {
                    let name = self.header_name(&name, it.get("header")?)?;
                    self.free_header(&name, it.get("header")?).then_some(Idempotency::Header(name))
                }),
            },
        };
        let auth = match auth {
            Some(compiled) => Some(compiled?),
            None => None,
        };
        Some(Destination {
            lane: Lane::new(name),
            url: url?,
            auth,
            idempotency: idempotency?,
            timeout: duration(node, "timeout"),
        })
    }

    fn auth(&mut self, node: &Node) -> Option<Auth> {
        if let (None, Some(value)) = (node.get("header"), node.pair("value")) {
            self.push(
                Diagnostic::new(Code::InvalidValue, value.key_span, "`value` belongs to `header`")
                    .help("remove it"),
            );
            return None;
        }
        if let Some(token) = node.get("bearer") {
            return self.secret_ref(token).map(Auth::Bearer);
        }
        if let Some(basic) = node.get("basic") {
            let user = text(basic, "user")?;
            if user.text.contains(':') {
                self.error(
                    Code::InvalidValue,
                    basic.get("user")?.span,
                    "a user of Basic authentication has no `:`",
                    "write the user alone; what follows the `:` is the `password`",
                );
                return None;
            }
            let user = user.text.clone();
            return Some(Auth::Basic { user, password: self.secret_ref(basic.get("password")?)? });
        }
        let place = node.get("header")?;
        let name = self.header_name(&place.as_text()?.text, place)?;
        if !self.free_header(&name, place) {
            return None;
        }
        let Some(value) = node.get("value") else {
            self.push(
                Diagnostic::new(
                    Code::MissingKey,
                    place.span,
                    "`auth` with a `header` needs `value`",
                )
                .help("add `value: { env: NAME }`"),
            );
            return None;
        };
        Some(Auth::Header { name, value: self.secret_ref(value)? })
    }

    /// Whether a header may be set at all; one that frames the request may not.
    pub(super) fn free_header(&mut self, name: &http::HeaderName, place: &Node) -> bool {
        let framing = super::call::is_framing(name);
        if framing {
            self.error(
                Code::InvalidValue,
                place.span,
                format!("`{name}` is set by the router itself"),
                "name a header of the receiver's own, such as `X-Api-Key`",
            );
        }
        !framing
    }

    /// An absolute `http` or `https` URL without user, password and fragment.
    pub(super) fn url(&mut self, node: &Node) -> Option<Url> {
        let text = node.as_text()?;
        let (message, help) = match Url::parse(&text.text) {
            Ok(url) if !["http", "https"].contains(&url.scheme()) => (
                format!("`{}:` is no scheme for a call", url.scheme()),
                "write `https://…` or `http://…`",
            ),
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                ("a URL here holds no user and no password".to_owned(), "use `auth: { basic: … }`")
            }
            Ok(url) if url.fragment().is_some() => {
                ("a `#` part is never sent".to_owned(), "remove it")
            }
            Ok(url) => return Some(url),
            Err(error) => (
                format!("`{}` is no URL: {error}", text.text),
                "write it whole: `https://api.example.com`",
            ),
        };
        self.push(Diagnostic::new(Code::InvalidValue, node.span, message).help(help));
        None
    }
}
