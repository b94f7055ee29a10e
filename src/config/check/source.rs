//! Sources: shared ones of `sources/` and those inline in routes; their paths must not overlap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::context::{Checker, duration, json, many, name, size, string, text};
use super::extraction::At;
use super::provider;
use super::templates::Scope;
use crate::body::BodyRule;
use crate::config::{EventRules, IdRule, MissingId, OnMalformed, Respond, Source, shape};
use crate::diag::code::Code;
use crate::diag::{Diagnostic, FileId, Span};
use crate::envelope::OnConflict;
use crate::extract::jsonpath::JsonPath;
use crate::extract::{Extraction, From};
use crate::files::FileKind;
use crate::name::SourceName;
use crate::syntax::Node;

const MAX_BODY_BYTES: usize = 1 << 20;
const RETAIN: Duration = Duration::from_secs(30 * 24 * 3600);
const DEDUPE: Duration = RETAIN;

/// What the rest of a load knows of a source, even where it did not compile.
#[derive(Debug)]
pub(super) struct KnownSource {
    pub(super) file: FileId,
    pub(super) name_span: Span,
    pub(super) path: Option<(String, Span)>,
    pub(super) path_parts: Vec<String>,
    pub(super) source: Option<Arc<Source>>,
    /// In a file of `sources/`: routes take it by name.
    pub(super) shared: bool,
}

/// By name.
pub(super) type Known = BTreeMap<String, KnownSource>;

impl Checker {
    pub(super) fn shared_sources(&mut self) -> Known {
        let mut known = Known::new();
        for file in self.files.of(FileKind::Source) {
            let Some(node) = self.tree(file, &shape::source::SOURCE_FILE) else { continue };
            let Some((name, span)) = name(&node, "source") else { continue };
            self.source(&node, name, span, true, &mut known);
        }
        known
    }

    pub(super) fn inline_source(&mut self, route: &Node, known: &mut Known) {
        let Some(node) = route.get("source").filter(|node| node.as_map().is_some()) else { return };
        let Some((name, span)) = name(node, "name").or_else(|| name(route, "route")) else {
            return;
        };
        self.source(node, name, span, false, known);
    }

    fn source(
        &mut self,
        node: &Node,
        name: String,
        name_span: Span,
        shared: bool,
        known: &mut Known,
    ) {
        if let Some(first) = known.get(&name) {
            self.push(
                Diagnostic::new(
                    Code::DuplicateName,
                    name_span,
                    format!("a second source is called `{name}`"),
                )
                .label("events of one name would count as the same")
                .help(
                    "give it another `name`, or move it to `sources/` and let both routes name it",
                )
                .related(first.name_span, "the first is here"),
            );
            return;
        }
        let path =
            node.get("path").and_then(|path| Some((path.as_text()?.text.clone(), path.span)));
        let parts = path.as_ref().and_then(|(path, span)| self.path_parts(path, *span));
        let source = self.compiled_source(node, &name, parts.as_deref());
        known.insert(
            name,
            KnownSource {
                file: name_span.file,
                name_span,
                path: path.filter(|_| parts.is_some()),
                path_parts: parts.unwrap_or_default(),
                source: source.map(Arc::new),
                shared,
            },
        );
    }

    /// The `{name}` parts of a path.
    fn path_parts(&mut self, path: &str, span: Span) -> Option<Vec<String>> {
        let fault = |message: String, help: String| {
            Some(Diagnostic::new(Code::InvalidValue, span, message).help(help))
        };
        let mut parts: Vec<String> = Vec::new();
        let found = if !path.starts_with('/') {
            fault(format!("the path `{path}` does not start with `/`"), format!("write `/{path}`"))
        } else if path.chars().any(|c| c.is_whitespace() || c.is_control() || "?#%\\".contains(c)) {
            fault(
                format!("`{path}` is no path"),
                "a path has no spaces, `?`, `#`, `%` or `\\`".to_owned(),
            )
        } else {
            let mut found = None;
            for segment in path.split('/') {
                let inner = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
                match inner {
                    Some(name)
                        if shape::check::is_snake(name)
                            && !parts.iter().any(|part| part == name) =>
                    {
                        parts.push(name.to_owned());
                    }
                    Some(name) => {
                        found = fault(
                            format!("`{{{name}}}` cannot name a part of the path"),
                            "use lower-case letters, digits and `_`, each name once".to_owned(),
                        );
                    }
                    None if segment.contains(['{', '}']) => {
                        found = fault(
                            format!("`{segment}` mixes text and a part"),
                            "a part stands alone between slashes: `/hooks/{shop}`".to_owned(),
                        );
                    }
                    None if segment == "." || segment == ".." => {
                        found = fault(
                            "a path has no `.` or `..`".to_owned(),
                            "write it out".to_owned(),
                        );
                    }
                    None => {}
                }
            }
            found
        };
        match found {
            Some(diagnostic) => {
                self.push(diagnostic);
                None
            }
            None => Some(parts),
        }
    }

    /// Two sources must never want the same request.
    pub(super) fn paths(&mut self, known: &Known) {
        let mut router = matchit::Router::new();
        let mut places: BTreeMap<&str, (&str, Span)> = BTreeMap::new();
        let mut sources: Vec<_> = known.iter().collect();
        sources.sort_by_key(|(_, source)| (source.name_span.file, source.name_span.start));
        for (name, source) in sources {
            let Some((path, span)) = &source.path else { continue };
            match router.insert(path.clone(), ()) {
                Ok(()) => {
                    places.insert(path, (name, *span));
                }
                Err(matchit::InsertError::Conflict { with }) => {
                    let mut diagnostic = Diagnostic::new(
                        Code::PathConflict,
                        *span,
                        format!("`{path}` and `{with}` would take the same requests"),
                    )
                    .help("give each source a path of its own, or move one source to `sources/` and let both routes name it");
                    if let Some((other, place)) = places.get(with.as_str()) {
                        diagnostic = diagnostic.related(*place, format!("source `{other}` has it"));
                    }
                    self.push(diagnostic);
                }
                Err(error) => self.error(
                    Code::InvalidValue,
                    *span,
                    format!("`{path}` is no path: {error}"),
                    "write one such as `/hooks/store`",
                ),
            }
        }
    }

    pub(super) fn compiled_source(
        &mut self,
        node: &Node,
        name: &str,
        parts: Option<&[String]>,
    ) -> Option<Source> {
        let (verification, preset) = match node.get("verify") {
            Some(verify) => self.verification(verify),
            None => (None, None),
        };
        let preset = preset.as_deref();
        let event = self.event_rules(node, preset, parts);
        let respond = self.respond(layered(node, preset, "respond"));
        let respond = respond.and_then(|respond| {
            // What the provider's protocol wants of a refusal stays, whatever answer the source gives.
            let of_preset = preset.and_then(|preset| preset.get("respond"));
            let unverified = [node.get("respond"), of_preset]
                .into_iter()
                .find_map(|respond| respond?.get("unverified")?.as_number());
            match unverified {
                None => Some(respond),
                Some(status) => {
                    let unverified = http::StatusCode::from_u16(status.parse().ok()?).ok()?;
                    Some(Respond { unverified, ..respond })
                }
            }
        });
        let scheme = verification.as_ref().map(|it| &it.scheme);
        let asked = layered(node, preset, "handshake");
        let handshakes = self.handshakes(asked, scheme);
        if let (Some(scheme), Some(handshakes)) = (scheme, &handshakes) {
            self.captures(node, asked, scheme, handshakes);
        }
        let public_url = match node.get("public_url") {
            Some(url) => self.url(url),
            None => None,
        };
        let retain = duration(node, "retain").unwrap_or(RETAIN);
        let dedupe = duration(node, "dedupe").unwrap_or(DEDUPE);
        if let Some(preset) = preset
            && let Some(span) = provider::retry_span(preset)
            && span > dedupe
            && let Some(place) = node.get("dedupe")
        {
            let title = provider::title(preset).unwrap_or_default();
            self.push(
                Diagnostic::new(
                    Code::ShortDedupe,
                    place.span,
                    format!("{title} resends for longer than ids are remembered"),
                )
                .label("a late resend would count as new")
                .help(format!("write at least `{}h`", span.as_secs().div_ceil(3600))),
            );
        }
        let methods = match layered(node, preset, "methods") {
            Some(list) => list
                .as_list()?
                .iter()
                .filter_map(|method| Method::from_bytes(method.as_text()?.text.as_bytes()).ok())
                .collect(),
            None => vec![Method::POST],
        };
        if methods.is_empty() {
            let place = layered(node, preset, "methods").unwrap_or(node).span;
            self.error(
                Code::InvalidValue,
                place,
                "a source without methods takes nothing",
                "leave `methods` out for `[POST]`",
            );
        }
        let splits = event.as_ref().is_some_and(|event| event.split.is_some());
        let body = match layered(node, preset, "body") {
            None => Some(splits.then_some(BodyRule::Json)),
            Some(body) => self.body_rule(body).map(Some),
        };
        let max_body_bytes = match layered_in(node, preset, "max_body") {
            Some(holder) => size(holder, "max_body")?,
            None => MAX_BODY_BYTES,
        };
        let on_malformed = match string(node, "on_malformed").as_deref() {
            Some("reject") => OnMalformed::Reject,
            _ => OnMalformed::Review,
        };
        let parts = parts?;
        let scheme = &verification.as_ref()?.scheme;
        for part in scheme.path_parts().iter().filter(|part| !parts.iter().any(|it| it == *part)) {
            let message = format!("the path has no part `{part}` to choose a secret by");
            let help = format!("write `path: {}/{{{part}}}`", string(node, "path")?);
            self.error(Code::UnknownName, key_span(node, "verify"), message, help);
        }
        Some(Source {
            name: SourceName::new(name),
            path: string(node, "path")?,
            methods,
            verify: verification?,
            event: event?,
            body: body?,
            max_body_bytes,
            respond: respond?,
            handshakes: handshakes?,
            on_malformed,
            retain,
            // What is stored is known.
            dedupe: dedupe.max(retain),
            public_url,
        })
    }

    fn event_rules(
        &mut self,
        node: &Node,
        preset: Option<&Node>,
        parts: Option<&[String]>,
    ) -> Option<EventRules> {
        let own = node.get("event");
        let base = preset.and_then(|preset| preset.get("event"));
        let find = |key: &str| {
            own.and_then(|own| own.get(key)).or_else(|| base.and_then(|base| base.get(key)))
        };
        // The id, type and time are found before there is an event to speak of; only `same_as` may read it.
        let raw = Scope::of(&["payload", "headers", "query", "path"]);
        let with_event = raw.with(&["event"]);
        let at = At { scope: &raw, path_parts: parts, response: false };

        let mut faulty = false;
        let mut id = Vec::new();
        for rule in many(find("id")) {
            match self.id_rule(rule, &at) {
                Some(rule) => id.push(rule),
                None => faulty = true,
            }
        }
        if find("id").is_none() && self.complete(node) {
            let place =
                node.get("event").map_or_else(|| key_span(node, "verify"), |event| event.span);
            let splits = find("split").is_some_and(|split| split.as_bool().is_none());
            let hashed = if splits { "element" } else { "body" };
            self.push(
                Diagnostic::new(Code::DerivedEventId, place, format!("no event id is named: the hash of the {hashed} stands for it"))
                    .label(format!("best effort: two real events with the same {hashed} are one, a resend that differs is two"))
                    .help("add `event: { id: $.id }` with the place of the provider's own id"),
            );
            id.push(IdRule::HashBody);
        }
        let same_as_at = At { scope: &with_event, path_parts: parts, response: false };
        let same_as = self.all_of(many(find("same_as")), &same_as_at, &mut faulty);
        let split = match find("split").filter(|split| split.as_bool().is_none()) {
            None => None,
            Some(path) => {
                let split = self.split(path, node, preset);
                // A rule that is faulty itself is reported for that.
                let sound = !faulty;
                let same = |extraction: &Extraction| !differs_by_element(extraction);
                let rules = many(find("id")).iter().zip(&id).filter(|_| sound);
                let id_of_all = rules.filter(|(_, rule)| match rule {
                    IdRule::Extract(extraction) => same(extraction),
                    IdRule::Hash(extractions) => extractions.iter().all(same),
                    IdRule::HashBody | IdRule::Arrival => false,
                });
                let same_as_all = many(find("same_as")).iter().zip(&same_as).filter(|_| sound);
                let of_all = id_of_all.map(|(node, _)| ("id", node)).chain(
                    same_as_all.filter(|(_, it)| same(it)).map(|(node, _)| ("same_as", node)),
                );
                for (key, rule) in of_all.collect::<Vec<_>>() {
                    faulty = true;
                    self.one_for_all(key, rule, path, own);
                }
                faulty |= split.is_none();
                split
            }
        };
        let mut volatile = Vec::new();
        for path in find("volatile").and_then(Node::as_list).unwrap_or_default() {
            match self.json_path(path) {
                Some(path) => volatile.push(path),
                None => faulty = true,
            }
        }
        let mut one = |checker: &mut Self, key: &str| -> Option<Extraction> {
            let extraction = checker.extraction(find(key)?, &at);
            faulty |= extraction.is_none();
            extraction
        };
        let type_ = one(self, "type");
        let mut occurred_at = one(self, "occurred_at");
        if let Some(time) = &mut occurred_at {
            time.type_ = Some(crate::extract::types::Type::Timestamp);
        }
        let word = |key: &str| find(key).and_then(Node::as_text).map(|text| text.text.as_str());
        let missing_id = match word("missing_id") {
            Some("review") => MissingId::Review,
            Some("reject") => MissingId::Reject,
            _ => MissingId::Derive,
        };
        let on_conflict = match word("on_conflict") {
            Some("ignore") => OnConflict::Ignore,
            Some("new_event") => OnConflict::NewEvent,
            _ => OnConflict::Review,
        };
        (!faulty).then_some(EventRules {
            id,
            missing_id,
            same_as,
            volatile,
            on_conflict,
            split,
            type_,
            occurred_at,
        })
    }

    /// The path of `event.split`, where the body can be taken apart by it.
    fn split(&mut self, path: &Node, source: &Node, preset: Option<&Node>) -> Option<JsonPath> {
        let split = self.json_path(path)?;
        if !split.may_hit_many() {
            let text = &split.text;
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    path.span,
                    format!("`{text}` hits one value at most, so it splits nothing"),
                )
                .label("a list is one value, too")
                .help(format!("write `{text}[*]` for each element of the list")),
            );
            return None;
        }
        if let Some(body) = layered(source, preset, "body")
            && let Some(kind) = without_json(body)
        {
            let own = source.get("body").is_some();
            let mut diagnostic = Diagnostic::new(
                Code::InvalidValue,
                if own { body.span } else { path.span },
                format!("`split` takes JSON apart, and the body is `{kind}`"),
            )
            .help(
                "write `body: json`, `jwt`, `{ json_in: FIELD }` or `{ base64_in: PATH }`, or `split: false` in `event`",
            );
            if own {
                diagnostic = diagnostic.related(path.span, "`split` is here");
            }
            self.push(diagnostic);
            return None;
        }
        Some(split)
    }

    /// A rule for `key` that gives one value for all elements of a POST: all but the first would count as known.
    fn one_for_all(&mut self, key: &str, rule: &Node, split: &Node, own: Option<&Node>) {
        let is_own = own.and_then(|own| own.get(key)).is_some();
        let mut diagnostic = Diagnostic::new(
            Code::InvalidValue,
            // What a preset says is no slip of whoever splits.
            if is_own { rule.span } else { split.span },
            format!("`event.{key}` is the same for all events of a POST that `split` takes apart"),
        )
        .label("all but the first would count as known")
        .help(match key {
            "id" => "write the place of the id in the element, such as `id: $.id`, or `id: { hash: body }`: the element",
            _ => "name a place in the element, such as `$.id`",
        });
        if is_own {
            diagnostic = diagnostic.related(split.span, "`split` is here");
        }
        self.push(diagnostic);
    }

    /// Whether a source's verification is there and sound enough to know what a preset would have said.
    fn complete(&self, node: &Node) -> bool {
        let Some(verify) = node.get("verify") else { return false };
        verify.as_map().is_some()
            && text(verify, "provider").is_none_or(|name| self.presets.contains_key(&name.text))
    }

    fn all_of(&mut self, nodes: &[Node], at: &At<'_>, faulty: &mut bool) -> Vec<Extraction> {
        let mut all = Vec::new();
        for node in nodes {
            match self.extraction(node, at) {
                Some(extraction) => all.push(extraction),
                None => *faulty = true,
            }
        }
        all
    }

    fn id_rule(&mut self, node: &Node, at: &At<'_>) -> Option<IdRule> {
        if node.get("arrival").is_some() {
            self.push(
                Diagnostic::new(Code::DerivedEventId, node.span, "every arrival is an event of its own")
                    .label("best effort: a resend is carried out again")
                    .help("name the provider's own id where it has one; steps behind it must bear a repeat"),
            );
            return Some(IdRule::Arrival);
        }
        let Some(hash) = node.get("hash") else {
            return self.extraction(node, at).map(IdRule::Extract);
        };
        self.push(
            Diagnostic::new(Code::DerivedEventId, node.span, "the event id is derived")
                .label("best effort: as good as what is hashed")
                .help("name the provider's own id where it has one"),
        );
        if hash.as_text().is_some_and(|text| text.text == "body") {
            return Some(IdRule::HashBody);
        }
        let items = hash.as_list()?;
        if items.is_empty() {
            self.error(
                Code::InvalidValue,
                hash.span,
                "a hash of nothing is the same for every event",
"write `{ hash: body }`, or name what makes an event: `{ hash: [$.order, $.status] }`",
            );
            return None;
        }
        let mut faulty = false;
        let all = self.all_of(items, at, &mut faulty);
        (!faulty).then_some(IdRule::Hash(all))
    }

    fn respond(&mut self, node: Option<&Node>) -> Option<Respond> {
        let mut respond = Respond {
            status: http::StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
            unverified: http::StatusCode::UNAUTHORIZED,
        };
        let Some(node) = node else { return Some(respond) };
        if let Some(status) = node.get("status").and_then(Node::as_number) {
            respond.status = http::StatusCode::from_u16(status.parse().ok()?).ok()?;
        }
        if let Some(body) = node.get("body").filter(|body| !body.is_null()) {
            match body.as_text() {
                Some(text) => {
                    respond.body = text.text.clone().into();
                    respond.headers.insert(
                        http::header::CONTENT_TYPE,
                        http::HeaderValue::from_static("text/plain; charset=utf-8"),
                    );
                }
                None => {
                    respond.body = json(body).to_string().into();
                    respond.headers.insert(
                        http::header::CONTENT_TYPE,
                        http::HeaderValue::from_static("application/json"),
                    );
                }
            }
        }
        if let Some(pairs) = node.get("headers").and_then(Node::as_map) {
            for pair in pairs {
                let Ok(name) = http::HeaderName::try_from(pair.key.text.as_str()) else {
                    self.error(
                        Code::InvalidValue,
                        pair.key_span,
                        format!("`{}` is no header name", pair.key.text),
                        "use letters, digits and `-`, such as `X-Signature`",
                    );
                    return None;
                };
                if super::call::is_framing(&name) {
                    self.error(
                        Code::InvalidValue,
                        pair.key_span,
                        format!("`{name}` is set by the server"),
                        "remove it",
                    );
                    return None;
                }
                let Ok(value) = http::HeaderValue::try_from(pair.value.as_text()?.text.as_str())
                else {
                    self.error(
                        Code::InvalidValue,
                        pair.value.span,
                        "a header's value is one line of visible characters",
                        "write it on one line",
                    );
                    return None;
                };
                respond.headers.insert(name, value);
            }
        }
        Some(respond)
    }
}

/// What a body is called that is no JSON, nor holds any.
fn without_json(body: &Node) -> Option<&str> {
    match body.as_text() {
        Some(word) => Some(word.text.as_str()).filter(|word| !["json", "jwt"].contains(word)),
        None => body.get("xml").map(|_| "xml"),
    }
}

/// Whether the value can differ between the elements of one POST.
fn differs_by_element(extraction: &Extraction) -> bool {
    match &extraction.from {
        From::Path(_) => true,
        // An element is no form: the fields around it are those of the POST.
        From::Form(_) | From::Header(_) | From::Query(_) | From::PathPart(_) => false,
        From::Value(template) => {
            ["payload", "event"].iter().any(|root| template.reads().roots.contains(*root))
        }
    }
}

/// The source's value of a key, or the preset's.
fn layered<'a>(node: &'a Node, preset: Option<&'a Node>, key: &str) -> Option<&'a Node> {
    node.get(key).or_else(|| preset.and_then(|preset| preset.get(key)))
}

fn layered_in<'a>(node: &'a Node, preset: Option<&'a Node>, key: &str) -> Option<&'a Node> {
    if node.get(key).is_some() {
        return Some(node);
    }
    preset.filter(|preset| preset.get(key).is_some())
}

fn key_span(node: &Node, key: &str) -> Span {
    node.pair(key).map_or(node.span, |pair| pair.key_span)
}
