//! One route: its source, what it wants, its fields, and its steps.

use std::collections::{BTreeMap, BTreeSet};

use super::context::{Checker, many, name, scalar, string};
use super::destination;
use super::extraction::At;
use super::key::KeyContext;
use super::needs::StepHead;
use super::secret::is_variable;
use super::source::{Known, KnownSource};
use super::step::Around;
use super::templates::Scope;
use crate::config::{EnvVar, EventFilter, Route};
use crate::diag::code::Code;
use crate::diag::{Diagnostic, FileId, suggest};
use crate::name::{RouteName, SourceName};
use crate::syntax::Node;

impl Checker {
    pub(super) fn route(
        &mut self,
        file: FileId,
        node: &Node,
        sources: &Known,
        destinations: &destination::Known,
    ) -> Option<Route> {
        self.attached.clear();
        let source_name = self.source_of(node, sources);
        let source = source_name.as_ref().and_then(|name| sources.get(name));
        let parts: &[String] = source.map_or(&[], |source| &source.path_parts);
        let known_parts = source.filter(|source| source.path.is_some()).map(|_| parts);

        let on = self.on(node.get("on"));
        let secrets = self.route_secrets(node);
        let env = self.route_env(node);

        let when_scope = {
            let mut scope = Scope::of(&["event", "payload", "headers", "query", "path", "env"]);
            scope.names.env = names_of(node, "env");
            scope
        };
        let when = node.get("when").map(|node| self.condition(node, &when_scope));

        let mut scope = when_scope.with(&["secrets", "delivery"]);
        scope.names.secrets = names_of(node, "secrets");
        scope.doubtful = ["fields", "secrets", "env"]
            .iter()
            .any(|key| node.get(key).is_some_and(|node| node.as_map().is_none()));
        let at = At { scope: &scope, path_parts: known_parts, response: false };
        let mut fields = Vec::new();
        let mut faulty = false;
        for pair in node.get("fields").and_then(Node::as_map).unwrap_or_default() {
            match self.extraction(&pair.value, &at) {
                Some(extraction) => fields.push((pair.key.text.clone(), extraction)),
                None => faulty = true,
            }
        }
        let mut scope = scope.with(&["fields", "steps"]);
        scope.names.fields = names_of(node, "fields");
        let steps = self.steps(node, scope, parts, &fields, destinations);

        let when = match when {
            Some(when) => Some(when?),
            None => None,
        };
        let labels = node
            .get("labels")
            .and_then(Node::as_map)
            .unwrap_or_default()
            .iter()
            .filter_map(|pair| Some((pair.key.text.clone(), scalar(&pair.value)?.text)))
            .collect();
        let (revision, revision_text) = self.revision(file, source.filter(|source| source.shared));
        (!faulty).then_some(())?;
        Some(Route {
            name: RouteName::new(string(node, "route")?),
            description: string(node, "description"),
            owner: string(node, "owner"),
            docs: string(node, "docs"),
            labels,
            source: SourceName::new(source_name?),
            on: on?,
            when,
            fields,
            secrets: secrets?,
            env: env?,
            steps: steps?,
            revision,
            revision_text,
        })
    }

    /// The name of the route's source, where it exists; a name of none is reported.
    fn source_of(&mut self, node: &Node, sources: &Known) -> Option<String> {
        let source = node.get("source")?;
        let Some(text) = source.as_text() else {
            return name(source, "name").or_else(|| name(node, "route")).map(|(name, _)| name);
        };
        if sources.contains_key(&text.text) {
            return Some(text.text.clone());
        }
        let shared: Vec<&str> = sources
            .iter()
            .filter(|(_, source): &(&String, &KnownSource)| source.shared)
            .map(|(name, _)| name.as_str())
            .collect();
        let help = suggest::help(&text.text, shared.iter().copied()).unwrap_or_else(|| {
            format!("add `sources/{0}.yaml` that starts with `source: {0}`", text.text)
        });
        self.push(
            Diagnostic::new(
                Code::UnknownReference,
                source.span,
                format!("there is no source `{}`", text.text),
            )
            .help(help),
        );
        None
    }

    fn on(&mut self, node: Option<&Node>) -> Option<EventFilter> {
        let Some(node) = node else {
            return Some(EventFilter { all: true, ..EventFilter::default() });
        };
        let mut filter = EventFilter::default();
        let items = many(Some(node));
        if items.is_empty() {
            self.push(
                Diagnostic::new(Code::InvalidValue, node.span, "an empty `on` takes no event")
                    .help("leave `on` out for all events, or name some"),
            );
            return None;
        }
        for item in items {
            let text = &item.as_text()?.text;
            let glob = text.strip_prefix('!').unwrap_or(text);
            if glob.is_empty() || glob.trim() != glob {
                self.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        item.span,
                        format!("`{text}` names no event type"),
                    )
                    .help("write a type or a glob such as `orders/*`; leave `on` out for all"),
                );
                return None;
            }
            match text.strip_prefix('!') {
                Some(glob) => filter.exclude.push(glob.to_owned()),
                None => filter.include.push(text.clone()),
            }
        }
        Some(filter)
    }

    fn route_secrets(&mut self, node: &Node) -> Option<BTreeMap<String, crate::secret::SecretRef>> {
        let pairs = node.get("secrets").and_then(Node::as_map).unwrap_or_default();
        let read: Vec<_> = pairs
            .iter()
            .map(|pair| Some((pair.key.text.clone(), self.secret_ref(&pair.value)?)))
            .collect();
        read.into_iter().collect()
    }

    fn route_env(&mut self, node: &Node) -> Option<BTreeMap<String, EnvVar>> {
        let pairs = node.get("env").and_then(Node::as_map).unwrap_or_default();
        let mut faulty = false;
        let mut env = BTreeMap::new();
        for pair in pairs {
            let variable = pair
                .value
                .as_text()
                .map(|text| text.text.clone())
                .or_else(|| string(&pair.value, "env"));
            let Some(variable) = variable else {
                faulty = true;
                continue;
            };
            if !is_variable(&variable) {
                self.bad_variable(&pair.value, &variable);
                faulty = true;
                continue;
            }
            let default = pair.value.get("default").and_then(scalar).map(|text| text.text);
            let references = &mut self.references;
            if default.is_none() {
                references.optional_variables.remove(&variable);
                references.variables.entry(variable.clone()).or_insert(pair.value.span);
            } else if !references.variables.contains_key(&variable) {
                references.optional_variables.insert(variable.clone());
            }
            env.insert(pair.key.text.clone(), EnvVar { variable, default });
        }
        (!faulty).then_some(env)
    }

    fn steps(
        &mut self,
        route: &Node,
        scope: Scope,
        path_parts: &[String],
        fields: &[(String, crate::extract::Extraction)],
        destinations: &destination::Known,
    ) -> Option<Vec<crate::config::Step>> {
        let list = route.get("steps")?;
        let nodes = list.as_list()?;
        if nodes.is_empty() {
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    list.span,
                    "a route without steps does nothing",
                )
                .help("add a step: `- name: …` with a `call`"),
            );
            return None;
        }
        let heads: Vec<StepHead<'_>> = nodes
            .iter()
            .map(|node| StepHead {
                name: node.get("name").and_then(Node::as_text).map(|text| text.text.as_str()),
                node,
            })
            .collect();
        self.step_names(nodes);
        let order = self.order(&heads);
        let mut scope = scope.steps(
            heads
                .iter()
                .filter_map(|head| Some((head.name?.to_owned(), names_of(head.node, "save"))))
                .collect(),
        );
        scope.doubtful |= heads.iter().any(|head| {
            head.name.is_none() || head.node.get("save").is_some_and(|save| save.as_map().is_none())
        });
        // `retry.on` of the route is checked once, as any step would read it.
        if let Some(on) = route.get("retry").and_then(|retry| retry.get("on")) {
            let scope = scope.with(&["response", "idempotency_key"]);
            self.retry_on(on, &scope, true);
        }
        let mut steps = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let mut scope = scope.clone();
            let named = |indices: &BTreeSet<usize>| -> Vec<String> {
                indices.iter().filter_map(|index| heads[*index].name.map(str::to_owned)).collect()
            };
            scope.reachable = Some(named(&order.before[index]).into_iter().collect());
            scope.needs = named(&order.needs[index]);
            let around = Around {
                route,
                destinations,
                key: KeyContext { path_parts, fields },
                needs: order.needs[index].clone(),
                scope,
            };
            steps.push(self.step(node, around));
        }
        steps.into_iter().collect()
    }

    fn step_names(&mut self, nodes: &[Node]) {
        let mut places = BTreeMap::new();
        for node in nodes {
            let Some((name, span)) = name(node, "name") else { continue };
            if let Some(first) = places.get(&name) {
                self.push(
                    Diagnostic::new(
                        Code::DuplicateName,
                        span,
                        format!("a second step is called `{name}`"),
                    )
                    .help("give each step a name of its own")
                    .related(*first, "the first is here"),
                );
            } else {
                places.insert(name, span);
            }
        }
        let mut former = BTreeMap::new();
        for node in nodes {
            let Some((was, span)) = name(node, "was") else { continue };
            if let Some(other) = places.get(&was) {
                self.push(
                    Diagnostic::new(
                        Code::DuplicateName,
                        span,
                        format!("`{was}` is a step of this route still"),
                    )
                    .help("`was` names a step that is gone")
                    .related(*other, "here"),
                );
            } else if let Some(other) = former.insert(was.clone(), span) {
                self.push(
                    Diagnostic::new(Code::DuplicateName, span, format!("two steps were `{was}`"))
                        .help("keep `was` on the one that goes on with its work")
                        .related(other, "the other is here"),
                );
            }
        }
    }
}

/// The keys under `key`: what templates may read, whether or not their values are sound.
fn names_of(node: &Node, key: &str) -> BTreeSet<String> {
    node.get(key)
        .and_then(Node::as_map)
        .unwrap_or_default()
        .iter()
        .map(|pair| pair.key.text.clone())
        .collect()
}
