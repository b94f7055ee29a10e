//! Templates, conditions and URLs inside scalars: compiled, their faults put in their places.

use std::collections::{BTreeMap, BTreeSet};

use super::context::{Checker, json, number_json, scalar};
use crate::diag::code::Code;
use crate::diag::{Diagnostic, FileId};
use crate::syntax::{Node, Text, Value};
use crate::template::body::JsonTemplate;
use crate::template::names::{Fault, FaultKind, Names, Reads};
use crate::template::url::UrlTemplate;
use crate::template::{Condition, Template};

const EXPRESSION_FORMS: &str = "an expression reads like `fields.order_id`, `fields.name | default('x')`, `fields.total > 100` or `fields.email is not none`";

/// What templates may read at one place of a route.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    pub(super) names: Names,
    /// The steps that this place may read; `None`: all of `names.steps`. A step that exists and is not among them gets
    /// a message of its own.
    pub(super) reachable: Option<BTreeSet<String>>,
    /// What `needs` would have to say, for the help.
    pub(super) needs: Vec<String>,
    /// A part of the route that declares names is broken: an unknown name may be an echo of that.
    pub(super) doubtful: bool,
}

impl Scope {
    pub(super) fn of(roots: &[&'static str]) -> Self {
        Self {
            names: Names { roots: roots.iter().copied().collect(), ..Names::default() },
            ..Self::default()
        }
    }

    pub(super) fn with(&self, roots: &[&'static str]) -> Self {
        let mut scope = self.clone();
        scope.names.roots.extend(roots);
        scope
    }

    pub(super) fn steps(mut self, steps: BTreeMap<String, BTreeSet<String>>) -> Self {
        self.names.steps = steps;
        self
    }
}

impl Checker {
    pub(super) fn template(&mut self, node: &Node, scope: &Scope) -> Option<Template> {
        let text = scalar(node)?;
        let result = Template::compile(&text.text, &scope.names);
        let template = self.compiled(result, &text, node, scope)?;
        self.reach(template.reads(), &text, node, scope)?;
        Some(template)
    }

    pub(super) fn condition(&mut self, node: &Node, scope: &Scope) -> Option<Condition> {
        let text = scalar(node)?;
        let result = Condition::compile(&text.text, &scope.names);
        let condition = self.compiled(result, &text, node, scope)?;
        self.reach(condition.reads(), &text, node, scope)?;
        Some(condition)
    }

    pub(super) fn url_template(&mut self, node: &Node, scope: &Scope) -> Option<UrlTemplate> {
        let text = scalar(node)?;
        let result = UrlTemplate::compile(&text.text, &scope.names);
        let (url, warnings) = self.compiled(result, &text, node, scope)?;
        self.faults(warnings, &text, node.span.file, scope);
        self.reach(url.reads(), &text, node, scope)?;
        Some(url)
    }

    /// A JSON tree whose texts are templates. A fault in one place does not hide those in others.
    pub(super) fn json_template(&mut self, node: &Node, scope: &Scope) -> Option<JsonTemplate> {
        Some(match &node.value {
            Value::Null | Value::Bool(_) => JsonTemplate::Literal(json(node)),
            Value::Number(number) => JsonTemplate::Literal(number_json(number)),
            Value::Text(text) if !text.text.contains('{') => JsonTemplate::Literal(json(node)),
            Value::Text(_) => JsonTemplate::Template(self.template(node, scope)?),
            Value::List(items) => {
                let compiled: Vec<_> =
                    items.iter().map(|item| self.json_template(item, scope)).collect();
                JsonTemplate::List(compiled.into_iter().collect::<Option<_>>()?)
            }
            Value::Map(pairs) => {
                let compiled: Vec<_> = pairs
                    .iter()
                    .map(|pair| {
                        Some((pair.key.text.clone(), self.json_template(&pair.value, scope)?))
                    })
                    .collect();
                JsonTemplate::Object(compiled.into_iter().collect::<Option<_>>()?)
            }
        })
    }

    fn compiled<T>(
        &mut self,
        result: Result<T, Vec<Fault>>,
        text: &Text,
        node: &Node,
        scope: &Scope,
    ) -> Option<T> {
        match result {
            Ok(compiled) => Some(compiled),
            Err(faults) => {
                self.faults(faults, text, node.span.file, scope);
                None
            }
        }
    }

    fn faults(&mut self, faults: Vec<Fault>, text: &Text, file: FileId, scope: &Scope) {
        for fault in faults {
            let code = match fault.kind {
                FaultKind::Syntax => Code::TemplateSyntax,
                FaultKind::UnknownName if scope.doubtful => continue,
                FaultKind::UnknownName => Code::UnknownName,
                FaultKind::RawUrl => Code::RawUrl,
            };
            let mut diagnostic = Diagnostic::new(code, text.span(file, fault.range), fault.message);
            diagnostic.help = fault
                .help
                .or_else(|| (code == Code::TemplateSyntax).then(|| EXPRESSION_FORMS.to_owned()));
            self.push(diagnostic);
        }
    }

    /// Steps that are read and exist, but that nothing makes finish before this place.
    fn reach(&mut self, reads: &Reads, text: &Text, node: &Node, scope: &Scope) -> Option<()> {
        let Some(reachable) = &scope.reachable else { return Some(()) };
        let steps: BTreeSet<&String> = reads.steps.iter().map(|(step, _)| step).collect();
        let mut all_reached = true;
        for step in steps {
            if reachable.contains(step) || !scope.names.steps.contains_key(step) {
                continue;
            }
            all_reached = false;
            let wanted = format!("steps.{step}");
            let range =
                text.text.find(&wanted).map_or(0..text.text.len(), |at| at..at + wanted.len());
            let mut needs = scope.needs.clone();
            needs.push(step.clone());
            self.push(
                Diagnostic::new(
                    Code::UnknownName,
                    text.span(node.span.file, range),
                    format!("`{wanted}` is read here, but this step does not need `{step}`"),
                )
                .label("may not have run yet")
                .help(format!("write `needs: [{}]`", needs.join(", "))),
            );
        }
        all_reached.then_some(())
    }
}
