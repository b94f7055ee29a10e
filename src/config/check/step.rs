//! One step: its guards, its call, and what it keeps.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;

use super::call::{destination_name, mentions_key, method_span};
use super::context::{Checker, count, duration, scalar, string, text};
use super::destination;
use super::extraction::At;
use super::key::KeyContext;
use super::templates::Scope;
use crate::config::shape::check::status;
use crate::config::{Call, Idempotency, RetryOn, StatusMatch, Step, Success};
use crate::delivery::policy::{Jitter, Retry};
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::diag::suggest;
use crate::name::StepName;
use crate::syntax::{Node, Value};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What a step takes from its route.
pub(super) struct Around<'a> {
    pub(super) route: &'a Node,
    pub(super) destinations: &'a destination::Known,
    pub(super) key: KeyContext<'a>,
    pub(super) needs: BTreeSet<usize>,
    /// For templates before the call.
    pub(super) scope: Scope,
}

impl Checker {
    pub(super) fn step(&mut self, node: &Node, around: Around<'_>) -> Option<Step> {
        let scope = &around.scope;
        let in_call = scope.with(&["idempotency_key"]);
        let on_response = scope.with(&["idempotency_key", "response"]);

        let when = node.get("when").map(|node| self.condition(node, scope));
        let call = node.get("call").filter(|node| node.as_map().is_some());
        let compiled_call = call.and_then(|node| self.call(node, &in_call, around.destinations));
        let idempotency_key =
            node.get("idempotency_key").map(|node| self.idempotency_key(node, scope, &around.key));
        let success = self.success(node.get("success"), &on_response);
        let retry = merged_retry(&[node.get("retry"), around.route.get("retry")]);
        let retry_on_node = [Some(node), Some(around.route)]
            .into_iter()
            .flatten()
            .find_map(|holder| holder.get("retry")?.get("on"));
        // The route's own `on` is checked where it stands, once.
        let own_retry_on = node.get("retry").and_then(|retry| retry.get("on")).is_some();
        let retry_on = match retry_on_node {
            None => Some(default_retry_on()),
            Some(list) => self.retry_on(list, &on_response, own_retry_on),
        };
        let timeout = duration(node, "timeout")
            .or_else(|| duration(around.route, "timeout"))
            .or_else(|| compiled_call.as_ref().and_then(|call| call.to.as_ref()?.timeout))
            .unwrap_or(TIMEOUT);
        if timeout.is_zero()
            && let Some(place) = node.get("timeout")
        {
            self.error(
                Code::InvalidValue,
                place.span,
                "no call is that fast",
                "write at least `1ms`; `10s` is what a step has without it",
            );
            return None;
        }
        let mut saved = Vec::new();
        let mut save_faulty = false;
        let at = At { scope: &on_response, path_parts: None, response: true };
        for pair in node.get("save").and_then(Node::as_map).unwrap_or_default() {
            if pair.key.text == "status" {
                save_faulty = true;
                self.push(
                    Diagnostic::new(
                        Code::DuplicateName,
                        pair.key_span,
                        "`status` is the step's own: `steps.X.status`",
                    )
                    .help("call it otherwise, such as `http_status`"),
                );
            }
            match self.extraction(&pair.value, &at) {
                Some(extraction) => saved.push((pair.key.text.clone(), extraction)),
                None => save_faulty = true,
            }
        }
        let repeat_ok = text(node, "repeat").is_some_and(|text| text.text == "ok");
        if let (Some(call_node), Some(call)) = (call, &compiled_call)
            && !repeat_ok
        {
            self.repeats(call_node, call);
        }
        let when = match when {
            Some(when) => Some(when?),
            None => None,
        };
        let idempotency_key = match idempotency_key {
            Some(key) => Some(key?),
            None => None,
        };
        (!save_faulty).then_some(())?;
        Some(Step {
            name: StepName::new(string(node, "name")?),
            was: string(node, "was").map(StepName::new),
            call: compiled_call?,
            when,
            needs: around.needs,
            idempotency_key,
            success: success?,
            retry: retry?,
            retry_on: retry_on?,
            timeout,
            save: saved,
            repeat_ok,
        })
    }

    /// A POST whose receiver is not known to notice a repeat.
    fn repeats(&mut self, node: &Node, call: &Call) {
        if call.method != Method::POST && call.method != Method::PATCH {
            return;
        }
        let name = destination_name(node);
        let (message, help) = match (call.to.as_ref().map(|to| &to.idempotency), name) {
            (Some(Idempotency::Header(_)), _) => return,
            (Some(Idempotency::Body), name) => {
                if mentions_key(node) {
                    return;
                }
                (
                    format!("`{}` takes its key in the body, and this call places none", name.unwrap_or_default()),
                    "put `{{ idempotency_key }}` where it looks for it, or say `repeat: ok`".to_owned(),
                )
            }
            (Some(Idempotency::None), name) => (
                format!("`{}` takes no idempotency key: a repeat may do it twice", name.unwrap_or_default()),
                "say `repeat: ok` if doing it twice does no harm".to_owned(),
            ),
            (Some(Idempotency::Unknown), name) => (
                "whether a repeat does it twice is not known".to_owned(),
                format!(
                    "say how `{}` takes its key (`idempotency: {{ header: Idempotency-Key }}`, `body` or `none`), or `repeat: ok`",
                    name.unwrap_or_default()
                ),
            ),
            (None, _) => (
                "whether a repeat does it twice is not known".to_owned(),
                "make it a destination of router.yaml and say its `idempotency`, or say `repeat: ok`".to_owned(),
            ),
        };
        self.push(Diagnostic::new(Code::UnsafeRepeat, method_span(node), message).help(help));
    }

    fn success(&mut self, node: Option<&Node>, scope: &Scope) -> Option<Success> {
        let Some(node) = node else { return Some(Success::Statuses(vec![StatusMatch::Class(2)])) };
        let Some(items) = node.as_list() else {
            return self.condition(node, scope).map(Success::Condition);
        };
        if items.is_empty() {
            self.error(
                Code::InvalidValue,
                node.span,
                "a step that no answer satisfies can only fail",
                "leave `success` out for `[2xx]`, or name the statuses that mean done",
            );
            return None;
        }
        let statuses: Vec<Option<StatusMatch>> =
            items.iter().map(|item| status(&scalar(item)?.text)).collect();
        statuses.into_iter().collect::<Option<_>>().map(Success::Statuses)
    }

    /// `tell`: whether faults are reported, or were where the route's own list was checked.
    pub(super) fn retry_on(
        &mut self,
        node: &Node,
        scope: &Scope,
        tell: bool,
    ) -> Option<Vec<RetryOn>> {
        let before = self.diagnostics.len();
        let compiled: Vec<Option<RetryOn>> =
            node.as_list()?.iter().map(|item| self.retry_reason(item, scope)).collect();
        if !tell {
            self.diagnostics.truncate(before);
        }
        compiled.into_iter().collect()
    }

    fn retry_reason(&mut self, node: &Node, scope: &Scope) -> Option<RetryOn> {
        let written = scalar(node)?;
        let text = written.text.as_str();
        match text {
            "network" => return Some(RetryOn::Network),
            "timeout" => return Some(RetryOn::Timeout),
            _ => {}
        }
        if let Some(status) = status(text) {
            return Some(RetryOn::Status(status));
        }
        let bare = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if bare || matches!(node.value, Value::Number(_) | Value::Bool(_)) {
            let mut diagnostic = Diagnostic::new(
                Code::InvalidValue,
                node.span,
                format!("`{text}` is nothing that is tried again"),
            );
            diagnostic.help = suggest::help(text, ["network", "timeout"]).or_else(|| {
                Some("write `network`, `timeout`, a status such as `429` or `5xx`, or a condition on `response`".to_owned())
            });
            self.push(diagnostic);
            return None;
        }
        self.condition(node, scope).map(RetryOn::Condition)
    }
}

fn default_retry_on() -> Vec<RetryOn> {
    vec![
        RetryOn::Network,
        RetryOn::Timeout,
        RetryOn::Status(StatusMatch::Code(408)),
        RetryOn::Status(StatusMatch::Code(425)),
        RetryOn::Status(StatusMatch::Code(429)),
        RetryOn::Status(StatusMatch::Class(5)),
    ]
}

/// Key by key: the first layer that has it wins, then the built-in.
fn merged_retry(layers: &[Option<&Node>]) -> Option<Retry> {
    let built_in = Retry::default();
    let holder =
        |key: &str| layers.iter().flatten().copied().find(|layer| layer.get(key).is_some());
    let time = |key: &str, default: Duration| match holder(key) {
        Some(layer) => duration(layer, key),
        None => Some(default),
    };
    Some(Retry {
        within: time("for", built_in.within)?,
        attempts: match holder("attempts") {
            Some(layer) => u32::try_from(count(layer, "attempts")?).ok()?,
            None => built_in.attempts,
        },
        first: time("first", built_in.first)?,
        factor: match holder("factor") {
            Some(layer) => layer.get("factor")?.as_number()?.parse().ok()?,
            None => built_in.factor,
        },
        max: time("max", built_in.max)?,
        jitter: match holder("jitter").and_then(|layer| string(layer, "jitter")).as_deref() {
            Some("none") => Jitter::None,
            _ => built_in.jitter,
        },
    })
}
