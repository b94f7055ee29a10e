//! Templates and conditions: compiled at load, strict, native types, bounded. The only place that knows minijinja.

pub mod body;
pub mod context;
mod environment;
mod filters;
mod look;
pub mod names;
mod piece;
pub(crate) mod time;
pub mod url;
mod value;

use std::collections::BTreeSet;

use serde_json::Value as Json;

use context::Context;
use names::{Fault, FaultKind, Names, Reads};
use piece::{Body, Compiled, Piece};

/// One compiled template. One whole `{{ expression }}` keeps the type of its value; anything else is text.
#[derive(Debug)]
pub struct Template {
    text: String,
    reads: Reads,
    body: Body,
}

impl Template {
    pub fn compile(text: &str, names: &Names) -> Result<Self, Vec<Fault>> {
        let cut = piece::cut(text, names)?;
        let template = Self { text: text.to_owned(), reads: cut.reads, body: cut.body };
        template.refuse_raw_url()?;
        Ok(template)
    }

    fn refuse_raw_url(&self) -> Result<(), Vec<Fault>> {
        let Body::Pieces(pieces) = &self.body else { return Ok(()) };
        let faults: Vec<_> = pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Compiled(compiled) if compiled.raw_url => Some(Fault {
                    kind: FaultKind::Syntax,
                    message: "`raw_url` has a meaning in URLs alone".to_owned(),
                    range: compiled.range.clone(),
                    help: Some("leave it out: nothing is encoded here".to_owned()),
                }),
                Piece::Compiled(_) | Piece::Literal(_) => None,
            })
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Names of the secrets that it reads.
    pub fn secrets(&self) -> &BTreeSet<String> {
        &self.reads.secrets
    }

    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// `None`: left out by `optional`.
    pub fn render(&self, context: &Context) -> Result<Option<Json>, RenderError> {
        guarded(&self.reads, context, |context| match self.whole() {
            Some(compiled) => match compiled.eval(context)? {
                Json::Null if compiled.optional => Ok(None),
                json => Ok(Some(json)),
            },
            None => Ok(self.joined(context)?.map(Json::from)),
        })
    }

    /// The value as text, for headers, parameters and keys; `none` is an error.
    pub fn render_text(&self, context: &Context) -> Result<Option<String>, RenderError> {
        guarded(&self.reads, context, |context| match self.whole() {
            Some(compiled) => compiled.eval_text(context),
            None => self.joined(context),
        })
    }

    /// The text of a value that this template gave.
    pub(crate) fn text_of(&self, json: &Json) -> Result<String, RenderError> {
        value::text_of(json)
            .map_err(|message| RenderError { message, expression: self.text.clone() })
    }

    fn joined(&self, context: &Context) -> Result<Option<String>, RenderError> {
        match &self.body {
            Body::Blocks(blocks) => blocks.render(context).map(Some),
            Body::Pieces(pieces) => piece::join(pieces, context, |_, text, out| {
                out.push_str(&text);
                Ok(())
            }),
        }
    }

    fn whole(&self) -> Option<&Compiled> {
        let Body::Pieces(pieces) = &self.body else { return None };
        let mut whole = None;
        for piece in pieces {
            match piece {
                Piece::Literal(text) if text.trim().is_empty() => {}
                Piece::Literal(_) => return None,
                Piece::Compiled(_) if whole.is_some() => return None,
                Piece::Compiled(compiled) => whole = Some(compiled),
            }
        }
        whole
    }
}

/// `a == 1`, or one whole `{{ a == 1 }}`.
#[derive(Debug)]
pub struct Condition {
    text: String,
    reads: Reads,
    compiled: Compiled,
}

impl Condition {
    pub fn compile(text: &str, names: &Names) -> Result<Self, Vec<Fault>> {
        let mut reads = Reads::default();
        let compiled = if text.contains("{{") || text.contains("{%") {
            let template = Template::compile(text, names)?;
            let whole = template.whole().is_some();
            reads = template.reads;
            let piece = match template.body {
                Body::Pieces(pieces) if whole => pieces.into_iter().find_map(|piece| match piece {
                    Piece::Compiled(compiled) => Some(compiled),
                    Piece::Literal(_) => None,
                }),
                Body::Pieces(_) | Body::Blocks(_) => None,
            };
            piece.ok_or_else(|| {
                vec![Fault {
                    kind: FaultKind::Syntax,
                    message: "a condition is one expression".to_owned(),
                    range: 0..text.len(),
                    help: Some("write `a == 1` or one whole `{{ a == 1 }}`".to_owned()),
                }]
            })?
        } else {
            piece::compile_bare(text, names, &mut reads)?
        };
        if compiled.optional || compiled.raw_url {
            return Err(vec![Fault {
                kind: FaultKind::Syntax,
                message: "a condition yields true or false; `optional` and `raw_url` do not"
                    .to_owned(),
                range: compiled.range,
                help: None,
            }]);
        }
        Ok(Self { text: text.to_owned(), reads, compiled })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// An error where the value is not a boolean.
    pub fn holds(&self, context: &Context) -> Result<bool, RenderError> {
        guarded(&self.reads, context, |context| match self.compiled.eval(context)? {
            Json::Bool(holds) => Ok(holds),
            other => {
                let found = shorten(&other.to_string());
                let message = format!("a condition must yield true or false, found {found}");
                Err(self.compiled.error(message))
            }
        })
    }
}

/// An error of an expression that reads secrets is told with the redacted values, so that no part of a secret, however
/// it was transformed, gets into a message.
fn guarded<T>(
    reads: &Reads,
    context: &Context,
    render: impl Fn(&Context) -> Result<T, RenderError>,
) -> Result<T, RenderError> {
    render(context).map_err(|error| {
        if reads.secrets.is_empty() || context.is_redacted() {
            let message = context.without_secrets(error.message);
            return RenderError { message, expression: error.expression };
        }
        match render(&context.redacted()) {
            Err(told) => told,
            Ok(_) => RenderError {
                message: "it fails with the values of its secrets, which are not shown".to_owned(),
                expression: error.expression,
            },
        }
    })
}

/// Permanent: the same values would fail again. Names the expression, never a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} in `{expression}`")]
pub struct RenderError {
    pub message: String,
    pub expression: String,
}

/// What was found, short enough for a message.
pub(crate) fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 100;
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::secret::SecretValue;

    fn names() -> Names {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names {
            roots: [
                "event", "payload", "headers", "query", "path", "fields", "steps", "secrets",
                "env", "delivery", "response",
            ]
            .into(),
            fields: set(&["order_id", "email", "price", "items"]),
            steps: [("ship".to_owned(), set(&["shipment_id"]))].into(),
            secrets: set(&["token"]),
            env: set(&["region"]),
        }
    }

    fn context() -> Context {
        let mut context = Context::new("2026-11-23T10:00:00Z".parse().unwrap(), "seed");
        let payload = r#"{ "id": 1001, "price": 19.90, "whole": 3.0, "big": 123456789012345678901234567890,
            "name": "Ada & Co/..", "dots": "..", "empty": "", "lines": [{ "sku": "x", "price": 0.10 }, { "sku": "y" }],
            "flag": true, "nothing": null, "crlf": "a\r\nb" }"#;
        context.set("payload", &serde_json::from_str(payload).unwrap());
        context
            .set("fields", &json!({ "order_id": 7, "email": null, "items": [1, 2], "price": 1 }));
        context.set("steps", &json!({ "ship": { "status": "succeeded", "shipment_id": "s1" } }));
        context.set("env", &json!({ "region": "eu" }));
        context.set("event", &json!({ "id": "evt_1", "type": "order.paid" }));
        context.set_secret("token", SecretValue::new("s3cr3t-value"));
        context
    }

    /// The rendered value, `left out`, or the error.
    fn render(text: &str) -> String {
        match Template::compile(text, &names()) {
            Err(faults) => format!("fault: {}", faults[0].message),
            Ok(template) => match template.render(&context()) {
                Ok(Some(json)) => json.to_string(),
                Ok(None) => "left out".to_owned(),
                Err(error) => format!("error: {error}"),
            },
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(render(text), expected, "{text}");
    }

    #[test]
    fn one_whole_expression_keeps_its_type_and_its_exact_number() {
        check("plain", "\"plain\"");
        check("", "\"\"");
        check("{{ payload.id }}", "1001");
        check("{{ payload.price }}", "19.90");
        check("{{ payload.whole }}", "3.0");
        check("{{ payload.big }}", "123456789012345678901234567890");
        check("{{ payload.lines }}", r#"[{"sku":"x","price":0.10},{"sku":"y"}]"#);
        check("{{ payload.lines | first }}", r#"{"sku":"x","price":0.10}"#);
        check("{{ payload.lines[0].price }}", "0.10");
        check("{{ payload.lines[-1].sku }}", "\"y\"");
        check("{{ payload.price | default(0) }}", "19.90");
        check("{{ payload.id + 1 }}", "1002");
        check("{{ payload.flag }}", "true");
        check("{{ payload.nothing }}", "null");
        check("{{ {'a': payload.id, 'b': [1, true, none]} }}", r#"{"a":1001,"b":[1,true,null]}"#);
        check("{{ fields.items }}", "[1,2]");
    }

    #[test]
    fn anything_else_is_text_in_json_spelling() {
        check("id {{ payload.id }} {{ payload.flag }}", "\"id 1001 true\"");
        check("{{ payload.price }} EUR", "\"19.90 EUR\"");
        check("a {{ fields.items }}\n", "\"a [1,2]\\n\"");
        check("{% if payload.flag %}{{ payload.flag }}{% endif %}\n", "\"true\\n\"");
        check("{% for l in payload.lines %}{{ l.sku }},{% endfor %}", "\"x,y,\"");
        check("{% set a = payload.id %}{{ a }}", "\"1001\"");
    }

    #[test]
    fn missing_data_is_none_and_none_has_no_text() {
        check("{{ payload.a.b.c }}", "null");
        check("{{ payload.a.b.c is none }}", "true");
        check("{{ payload.a.b == none }}", "true");
        check("{{ payload.a == none }}", "true");
        check("{{ payload.a.b[0].c == none and payload.id == 1001 }}", "true");
    }

    #[test]
    fn none_in_text() {
        assert!(
            render("a {{ payload.a.b }}").contains("none"),
            "{}",
            render("a {{ payload.a.b }}")
        );
        assert!(render("a {{ payload.a.b }}").contains("`payload.a.b`"));
        check("a {{ payload.a.b | default('x') }}", "\"a x\"");
        check("a {{ fields.email | default('x') }}", "\"a x\"");
        check("{{ fields.email | optional }}", "left out");
        check("{{ payload.id | optional }}", "1001");
        check("a {{ payload.a | optional }}", "left out");
        assert!(render("{% if true %}{{ payload.a }}{% endif %}").starts_with("error:"));
    }

    #[test]
    fn unknown_names_are_faults() {
        for (text, part, help) in [
            ("{{ feilds.order_id }}", "feilds", "did you mean `fields`?"),
            ("x {{ fields.order_ld }}", "fields.order_ld", "did you mean `order_id`?"),
            ("{{ steps.shop.shipment_id }}", "steps.shop", "did you mean `ship`?"),
            ("{{ steps.ship.shipmentid }}", "steps.ship.shipmentid", "did you mean `shipment_id`?"),
            ("{{ secrets.tokn }}", "secrets.tokn", "did you mean `token`?"),
            ("{{ payload.a | uper }}", "", "did you mean `upper`?"),
            ("{{ payload.a is nome }}", "", "did you mean `none`?"),
            ("{{ nou() }}", "nou", "did you mean `now`?"),
            ("é {% if feilds.a %}{% endif %}", "feilds", "did you mean `fields`?"),
        ] {
            let faults = Template::compile(text, &names()).unwrap_err();
            assert_eq!(faults[0].kind, FaultKind::UnknownName, "{text}");
            assert_eq!(faults[0].help.as_deref(), Some(help), "{text}");
            let at = text.get(faults[0].range.clone()).unwrap();
            assert!(part.is_empty() || at == part, "{text}: {at}");
        }
        for text in [
            "{{ debug() }}",
            "{{ payload.a.b() }}",
            "{% macro m() %}{{ m() }}{% endmacro %}",
            "{% include 'x' %}",
            "{{",
            "{{ a b }}",
            "{{ payload.a | optional | upper }}",
            "{{ payload.a | raw_url }}",
            "{{ secrets }}",
            "{{ secrets[payload.id] }}",
        ] {
            assert!(Template::compile(text, &names()).is_err(), "{text}");
        }
    }

    #[test]
    fn bounded() {
        let deep = format!("{{{{ {}1 }}}}", "-".repeat(10_000));
        assert!(Template::compile(&deep, &names()).is_err());
        let deep = format!("{{{{ {}1 }}}}", "not ".repeat(390));
        assert!(Template::compile(&deep, &names()).is_ok() || cfg!(debug_assertions));
        assert!(Template::compile(&"x".repeat(20_000), &names()).is_err());
        for text in [
            "{{ 'x' * 1000000000 }}",
            "{{ [1] * 1000000000 }}",
            "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        ] {
            assert!(render(text).starts_with("error:"), "{text}");
        }
    }

    #[test]
    fn filters() {
        check("{{ payload.name | urlencode }}", "\"Ada%20%26%20Co%2F..\"");
        check(
            "{{ payload.lines | tojson }}",
            r#""[{\"sku\":\"x\",\"price\":0.10},{\"sku\":\"y\"}]""#,
        );
        check("{{ 'a' | b64encode | b64decode }}", "\"a\"");
        check(
            "{{ 'a' | sha256 }}",
            "\"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb\"",
        );
        check("{{ payload.price | minor_units(2) }}", "1990");
        check("{{ 1990 | money(2) }}", "\"19.90\"");
        check("{{ 1700000000 | timestamp('%Y-%m-%d') }}", "\"2023-11-14\"");
        check("{{ 1700000000 | timestamp }}", "\"2023-11-14T22:13:20+00:00\"");
        check("{{ now() }}", "\"2026-11-23T10:00:00Z\"");
        assert_eq!(render("{{ uuid() }}"), render("{{ uuid() }}"));
    }

    #[test]
    fn secrets_stay_out_of_messages() {
        for text in [
            "{{ secrets.token | int }}",
            "{{ secrets.token | b64decode }}",
            "{{ secrets.token | upper | int }}",
        ] {
            let shown = render(text).to_lowercase();
            assert!(shown.starts_with("error:") && !shown.contains("s3cr3t"), "{shown}");
        }
        let template = Template::compile("Bearer {{ secrets.token }}", &names()).unwrap();
        let real = template.render_text(&context()).unwrap();
        assert_eq!(real.as_deref(), Some("Bearer s3cr3t-value"));
        let shown = template.render_text(&context().redacted()).unwrap();
        assert_eq!(shown.as_deref(), Some("Bearer [secret token]"));
    }

    #[test]
    fn conditions() {
        for (text, expected) in [
            ("payload.id == 1001", Ok(true)),
            ("{{ payload.id == 1002 }}", Ok(false)),
            ("fields.email is not none", Ok(false)),
            ("payload.lines | length > 1", Ok(true)),
            ("payload.a.b is none", Ok(true)),
            ("payload.id", Err(())),
        ] {
            let condition = Condition::compile(text, &names()).unwrap();
            assert_eq!(condition.holds(&context()).map_err(|_| ()), expected, "{text}");
        }
        for text in ["", "a {{ payload.id == 1 }}", "{% if true %}x{% endif %}", "order.id == 1"] {
            assert!(Condition::compile(text, &names()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[{}%a-c .|()'\\[\\]0-9~*+!-]{0,40}", any in "\\PC{0,30}") {
            for text in [format!("{{{{ {text} }}}}"), format!("{{{{ payload.{text} }}}}"), text, any] {
                if let Ok(template) = Template::compile(&text, &names()) {
                    let rendered = template.render(&context());
                    prop_assert!(rendered.is_ok() || rendered.is_err());
                }
                let _condition = Condition::compile(&text, &names()).map(|c| c.holds(&context()));
            }
        }
    }
}
