//! A step's call: destination, URL, headers, parameters, body.

use http::{HeaderName, Method, header};

use super::context::{Checker, scalar, text};
use super::destination;
use super::templates::Scope;
use crate::config::{Auth, Call, Idempotency};
use crate::diag::code::Code;
use crate::diag::{Diagnostic, suggest};
use crate::syntax::{Node, Pair};
use crate::template::Template;
use crate::template::body::BodyTemplate;
use crate::template::url::UrlTemplate;

const METHODS: [(&str, Method); 5] = [
    ("get", Method::GET),
    ("post", Method::POST),
    ("put", Method::PUT),
    ("patch", Method::PATCH),
    ("delete", Method::DELETE),
];

const BODIES: [&str; 4] = ["json", "form", "text", "raw"];

/// Headers that frame a message: whoever sets them by hand breaks it.
pub(super) fn is_framing(name: &HeaderName) -> bool {
    const OTHERS: [&str; 4] = ["keep-alive", "proxy-connection", "expect", "trailer"];
    [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
    ]
    .contains(name)
        || OTHERS.contains(&name.as_str())
}

impl Checker {
    pub(super) fn call(
        &mut self,
        node: &Node,
        scope: &Scope,
        destinations: &destination::Known,
    ) -> Option<Call> {
        let (target, method) =
            METHODS.iter().find_map(|(key, method)| Some((node.get(key)?, method.clone())))?;
        let known = node.get("to").map(|to| self.known_destination(to, destinations));
        let to = match &known {
            None => None,
            Some(Some(found)) => found.clone(),
            Some(None) => None,
        };
        let url = self.url_template(target, scope);
        let url = url.filter(|url| self.target(url, target, known.is_some()));
        let idempotency_header = match (&to, &known) {
            (Some(to), _) => match &to.idempotency {
                Idempotency::Header(name) => Some(name.clone()),
                Idempotency::Unknown => Some(HeaderName::from_static("idempotency-key")),
                Idempotency::Body | Idempotency::None => None,
            },
            (None, None) => Some(HeaderName::from_static("idempotency-key")),
            (None, Some(_)) => None,
        };
        let auth_header = to.as_ref().and_then(|to| match &to.auth {
            Some(Auth::Bearer(_) | Auth::Basic { .. }) => Some(header::AUTHORIZATION),
            Some(Auth::Header { name, .. }) => Some(name.clone()),
            None => None,
        });
        let headers = self.headers(node, scope, idempotency_header.as_ref(), auth_header.as_ref());
        let query = self.parameters(node.get("query"), scope);
        let body = self.body(node, &method, scope);
        let (url, headers, query, body) = (url?, headers?, query?, body?);
        if known.is_some() && to.is_none() {
            return None;
        }
        Some(Call { method, to, url, headers, query, body })
    }

    /// `None`: there is none of that name, which is reported. `Some(None)`: it did not compile, which was.
    fn known_destination(
        &mut self,
        node: &Node,
        destinations: &destination::Known,
    ) -> Option<Option<std::sync::Arc<crate::config::Destination>>> {
        let name = &node.as_text()?.text;
        if let Some(found) = destinations.get(name) {
            return Some(found.clone());
        }
        let help =
            suggest::help(name, destinations.keys().map(String::as_str)).unwrap_or_else(|| {
                format!("add it to router.yaml: `destinations: {{ {name}: {{ url: https://… }} }}`")
            });
        self.push(
            Diagnostic::new(
                Code::UnknownReference,
                node.span,
                format!("there is no destination `{name}`"),
            )
            .help(help),
        );
        None
    }

    /// A path where there is a destination, a whole URL where there is none.
    fn target(&mut self, url: &UrlTemplate, node: &Node, with_destination: bool) -> bool {
        let start = url.literal_start();
        let whole = start.starts_with("https://") || start.starts_with("http://");
        let (message, help) = match (with_destination, whole) {
            (true, true) => (
                "a call to a destination takes a path, not a whole URL".to_owned(),
                "remove `to`, or write the path alone".to_owned(),
            ),
            (true, false) if url.text().is_empty() || start.starts_with(['/', '?']) => return true,
            (true, false) => (
                format!("the path `{}` does not start with `/`", url.text()),
                format!("write `/{}`", url.text()),
            ),
            (false, true) => return true,
            (false, false) => (
                "without `to` the URL must be whole".to_owned(),
                "start it with `https://`, or add `to: DESTINATION`".to_owned(),
            ),
        };
        self.push(Diagnostic::new(Code::InvalidValue, node.span, message).help(help));
        false
    }

    fn headers(
        &mut self,
        node: &Node,
        scope: &Scope,
        idempotency: Option<&HeaderName>,
        auth: Option<&HeaderName>,
    ) -> Option<Vec<(HeaderName, Template)>> {
        let Some(pairs) = node.get("headers").and_then(Node::as_map) else {
            return Some(Vec::new());
        };
        let mut faulty = false;
        let mut headers: Vec<(HeaderName, Template)> = Vec::new();
        for pair in pairs {
            let value = self.template(&pair.value, scope);
            let written = pair.key.text.as_str();
            let Ok(name) = HeaderName::try_from(written) else {
                faulty = true;
                self.error(
                    Code::InvalidValue,
                    pair.key_span,
                    format!("`{written}` is no header name"),
                    "use letters, digits and `-`, such as `X-Signature`",
                );
                continue;
            };
            let refused = if is_framing(&name) {
                Some(("is set by the router itself", "remove it"))
            } else if idempotency == Some(&name) {
                Some(("carries the idempotency key", "write it as the step's `idempotency_key`"))
            } else if auth == Some(&name) {
                Some(("is set by the destination's `auth`", "remove it here or there"))
            } else if headers.iter().any(|(other, _)| *other == name) {
                Some(("is given twice", "header names are the same in upper and lower case"))
            } else {
                None
            };
            if let Some((why, help)) = refused {
                faulty = true;
                self.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        pair.key_span,
                        format!("`{written}` {why}"),
                    )
                    .help(help),
                );
                continue;
            }
            if scalar(&pair.value).is_some_and(|text| text.text.contains(['\n', '\r'])) {
                faulty = true;
                self.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        pair.value.span,
                        "a header's value is one line",
                    )
                    .help("write it on one line, or fold it with `>-`"),
                );
                continue;
            }
            match value {
                Some(value) => headers.push((name, value)),
                None => faulty = true,
            }
        }
        (!faulty).then_some(headers)
    }

    fn parameters(
        &mut self,
        node: Option<&Node>,
        scope: &Scope,
    ) -> Option<Vec<(String, Template)>> {
        let pairs = node.and_then(Node::as_map).unwrap_or_default();
        let compiled: Vec<_> = pairs
            .iter()
            .map(|pair| Some((pair.key.text.clone(), self.template(&pair.value, scope)?)))
            .collect();
        compiled.into_iter().collect()
    }

    fn body(&mut self, node: &Node, method: &Method, scope: &Scope) -> Option<BodyTemplate> {
        let given: Vec<&Pair> =
            node.as_map()?.iter().filter(|pair| BODIES.contains(&pair.key.text.as_str())).collect();
        let [first, rest @ ..] = given.as_slice() else { return Some(BodyTemplate::None) };
        if let [second, ..] = rest {
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    second.key_span,
                    format!(
                        "a call has one body, not `{}` and `{}`",
                        first.key.text, second.key.text
                    ),
                )
                .help("remove one of them")
                .related(first.key_span, "the other is here"),
            );
            return None;
        }
        if *method == Method::GET {
            self.push(
                Diagnostic::new(Code::InvalidValue, first.key_span, "a GET has no body")
                    .help("use `query`, or another method"),
            );
            return None;
        }
        let value = &first.value;
        Some(match first.key.text.as_str() {
            "json" => BodyTemplate::Json(self.json_template(value, scope)?),
            "form" => BodyTemplate::Form(self.parameters(Some(value), scope)?),
            "text" => BodyTemplate::Text(self.template(value, scope)?),
            _ => {
                value.as_bool().filter(|raw| *raw)?;
                BodyTemplate::Raw
            }
        })
    }
}

/// Whether any template of the call's body or URL places the idempotency key.
pub(super) fn mentions_key(node: &Node) -> bool {
    match &node.value {
        crate::syntax::Value::Text(text) => text.text.contains("idempotency_key"),
        crate::syntax::Value::List(items) => items.iter().any(mentions_key),
        crate::syntax::Value::Map(pairs) => pairs.iter().any(|pair| mentions_key(&pair.value)),
        crate::syntax::Value::Null
        | crate::syntax::Value::Bool(_)
        | crate::syntax::Value::Number(_) => false,
    }
}

/// The place of the call's method, for warnings about it.
pub(super) fn method_span(node: &Node) -> crate::diag::Span {
    METHODS.iter().find_map(|(key, _)| node.pair(key)).map_or(node.span, |pair| pair.key_span)
}

/// The name of the destination, for messages.
pub(super) fn destination_name(node: &Node) -> Option<String> {
    text(node, "to").map(|text| text.text.clone())
}
