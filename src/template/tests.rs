//! Templates and conditions as authors write them.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::secret::SecretValue;

fn names() -> Names {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Names {
        roots: [
            "event", "payload", "headers", "query", "path", "fields", "steps", "secrets", "env",
            "delivery", "response",
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
    let payload = r#"{ "id": 1001, "price": 19.90, "whole": 3.0, "prices": [1.50, 2, 1e2], "huge": 1e400, "tiny": 1.234567890123456789, "big": 123456789012345678901234567890,
        "name": "Ada & Co/..", "dots": "..", "empty": "", "lines": [{ "sku": "x", "price": 0.10 }, { "sku": "y" }],
        "flag": true, "nothing": null, "crlf": "a\r\nb" }"#;
    context.set("payload", &serde_json::from_str(payload).unwrap());
    context.set("fields", &json!({ "order_id": 7, "email": null, "items": [1, 2], "price": 1 }));
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
fn numbers_that_are_only_shown_stay_exact() {
    check("{{ payload.price if payload.flag else 0 }}", "19.90");
    check("{{ payload.nothing | default(payload.price) }}", "19.90");
    check("{{ payload.nothing or payload.price }}", "19.90");
    check("{{ [payload.price, {'p': payload.price}] }}", r#"[19.90,{"p":19.90}]"#);
    check("{{ payload.prices | first }} {{ payload.prices | last }}", "\"1.50 1e+2\"");
    check("{{ payload.prices | join('/') }}", "\"1.50/2/1e+2\"");
    check("{{ payload.price ~ ' EUR' }}", "\"19.90 EUR\"");
    check("{{ payload['price'] | string }}", "\"19.90\"");
    check("{{ payload[['price'][0]] }}", "19.90");
    check("{{ payload.big | default(0) | string }}", "\"123456789012345678901234567890\"");
    check("{{ payload.huge if true }}", "1e+400");
    check("{% if payload.flag %}{{ payload.price }}{% endif %}", "\"19.90\"");
    check("{% set p = payload.price %}{{ p }} {{ p * 2 }}", "\"19.90 39.8\"");
    check(
        "{% for p in payload.prices %}{{ p }},{{ p + 1 }} {% endfor %}",
        "\"1.50,2.5 2,3 1e+2,101.0 \"",
    );
    check("{% for l in payload.lines %}{{ l.price | default('-') }};{% endfor %}", "\"0.10;-;\"");
    check("{% with p = payload.price %}{{ p if p > 1 else 0 }}{% endwith %}", "\"19.90\"");
    check("{{ payload.price | minor_units(2) }}", "1990");
    check("{{ (payload.price if payload.flag else 0) | minor_units(2) | money(2) }}", "\"19.90\"");
    check("{{ payload.tiny | minor_units(18) }}", "1234567890123456789");
}

#[test]
fn numbers_compute_and_compare_as_numbers() {
    check("{{ payload.price * 2 }}", "39.8");
    check("{{ (payload.price if payload.flag else 0) + 1 }}", "20.9");
    check("{{ -payload.price }}", "-19.9");
    check("{{ payload.price == 19.9 and payload.price > 19 and 20 > payload.price }}", "true");
    check("{{ 2 in payload.prices and 1.5 in payload.prices and 100 in payload.prices }}", "true");
    check("{{ payload.prices == [1.5, 2, 100] }}", "true");
    check("{{ payload.prices | sum }}", "103.5");
    check("{{ payload.prices | sort | last }}", "100.0");
    check("{{ payload.prices | max }} {{ payload.prices | min }}", "\"100.0 1.5\"");
    check("{{ (payload.prices | first) + 1 }}", "2.5");
    check("{{ payload.price | round }} {{ payload.price | int }}", "\"20.0 19\"");
    check("{{ payload.price is number and payload.price is gt(19) }}", "true");
    check("{{ payload.lines | map(attribute='price') | first }}", "0.1");
    check("{{ [payload.price] | sum }}", "19.9");
    check(
        "{% set n = namespace(t=0) %}{% for p in payload.prices %}{% set n.t = n.t + p %}{% endfor %}{{ n.t }}",
        "\"103.5\"",
    );
}

#[test]
fn joining_spells_as_json_does() {
    check(
        "{{ payload.flag ~ ' ' ~ payload.lines[1] ~ 1.0 ~ 'x' }}",
        r#""true {\"sku\":\"y\"}1.0x""#,
    );
    check("{{ [true, 1, 'a'] | join(', ') }}", "\"true, 1, a\"");
    check("{{ payload.name | join('-') | length }}", "21");
    for text in
        ["{{ 'a' ~ payload.nothing }}", "{{ ['a', none] | join }}", "{{ payload.no | join }}"]
    {
        assert!(render(text).contains("is none"), "{text}: {}", render(text));
    }
}

#[test]
fn a_template_means_what_is_written() {
    check(
        "{{ 1 - (2 - 3) }} {{ 1 - 2 - 3 }} {{ 2 * (3 + 4) }} {{ 2 ** 3 ** 2 }}",
        "\"2 -4 14 64\"",
    );
    check("{{ not (true and false) }} {{ 1 < 2 < 3 }} {{ 1 not in [2] }}", "\"true true true\"");
    check("{{ ('a' ~ 1 + 1) if false else 'b' }}", "\"b\"");
    check("{{ [1, 2, 3][1:] }} {{ 'abc'[::-1] }} {{ [1, 2, 3][:-1] }}", "\"[2,3] cba [1,2]\"");
    check("{{ 'q\"\\'\\\\\\n{{ é\\u0001' }}", r#""q\"'\\\n{{ é\u0001""#);
    check(
        "{{ 1e3 }} {{ 1.0 }} {{ 0.0000001 }} {{ 170141183460469231731687303715884105727 }}",
        "\"1000.0 1.0 1e-7 170141183460469231731687303715884105727\"",
    );
    check("{{ {'a': {'b': [1, (2, 3)]}}.a.b[1][0] }}", "2");
    check("{{ dict(a=1, **{'b': 2}) }}", r#"{"a":1,"b":2}"#);
    check("{{ 'x' if payload.no }}", "null");
    check(
        "{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{{ loop.index }}{% else %}x{% endfor %}",
        "\"1231\"",
    );
    check(
        "{% for a in [1, 2, 3] if a is odd %}{{ a }}{% endfor %}{% for a in [] %}{% else %}x{% endfor %}",
        "\"13x\"",
    );
    check("{% if false %}a{% elif payload.flag %}b{% else %}c{% endif %}", "\"b\"");
    check(
        "{% filter upper | replace('A', 'x') %}abc{{ payload.id }}{% endfilter %}",
        "\"xBC1001\"",
    );
    check("{% set a | upper %}b{{ 1 }}{% endset %}{{ a }}", "\"B1\"");
    check("{% set a, b = [1, 2] %}{{ a }}{{ b }}", "\"12\"");
    check(
        "{% raw %}{{ x }}{% endraw %} {% if true -%}  {\"a\": 1}{% endif %}",
        r#""{{ x }} {\"a\": 1}""#,
    );
    assert!(render("a\n{{ 1 }}\n{% if true %}\n{{ {}.x }}{% endif %}").contains("(line 4)"));
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
    assert!(render("a {{ payload.a.b }}").contains("none"), "{}", render("a {{ payload.a.b }}"));
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
    check("{{ payload.lines | tojson }}", r#""[{\"sku\":\"x\",\"price\":0.10},{\"sku\":\"y\"}]""#);
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

/// Rendered for this payload.
fn render_for(text: &str, payload: &Json) -> String {
    let template = match Template::compile(text, &names()) {
        Ok(template) => template,
        Err(faults) => return format!("fault: {}", faults[0].message),
    };
    let mut context = context();
    context.set("payload", payload);
    match template.render(&context) {
        Ok(Some(json)) => json.to_string(),
        Ok(None) => "left out".to_owned(),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn members_win_over_whatever_the_engine_calls_so() {
    for name in ["items", "keys", "values", "get", "__class__", "__get", "length", "loop", "self"] {
        let text = format!("{{{{ payload.{name} }}}}");
        let in_engine = format!("{{{{ payload.{name} if true else 1 }}}}");
        for text in [text, in_engine] {
            assert_eq!(render_for(&text, &json!({ name: "mine" })), "\"mine\"", "{text}");
            assert_eq!(render_for(&text, &json!({})), "null", "{text}");
            assert_eq!(render_for(&text, &json!([1])), "null", "{text}");
            assert_eq!(render_for(&text, &json!("text")), "null", "{text}");
        }
    }
    let odd = json!({ "a b": 1, "": 2, "0": 3, "é\u{0}": 4 });
    assert_eq!(render_for("{{ payload['a b'] + payload[''] + payload['0'] }}", &odd), "6");
    assert_eq!(render_for("{{ payload['é\\u0000'] ~ '' }}", &odd), "\"4\"");
    assert_eq!(render_for("{{ payload[0] }}", &odd), "null");
}

#[test]
fn hostile_values_stay_values() {
    let control = "{{ secrets.token }}{% if x %}\u{0}\u{1b}[31m\r\n\u{202e}\"'<>";
    let payload = json!({ "text": control });
    let expected = Json::from(control).to_string();
    for text in [
        "{{ payload.text }}",
        "{{ payload.text ~ '' }}",
        "{% if true %}{{ payload.text }}{% endif %}",
    ] {
        assert_eq!(render_for(text, &payload), expected, "{text}");
    }
    let mut deep = json!(1);
    for _ in 0..120 {
        deep = json!([deep]);
    }
    for text in [
        "{{ payload }}",
        "{{ payload == payload }}",
        "{{ payload ~ '' }}",
        "{{ payload | tojson }}",
        "{{ [payload] | unique | length }}",
    ] {
        let rendered = render_for(text, &deep);
        assert!(!rendered.contains("panic"), "{rendered}");
    }
    let huge = json!({ "text": "é".repeat(1 << 20), "list": vec![1; 100_000] });
    for text in [
        "{% for a in range(90000) %}{{ payload.text }}{% endfor %}",
        "{{ [payload.text, payload.text, payload.text, payload.text, payload.text] }}",
        "{{ payload.text ~ payload.text ~ payload.text ~ payload.text ~ payload.text }}",
        "{{ payload.text | replace('é', payload.text) }}",
        "{{ payload.list | join(payload.text) }}",
        "{% for a in payload.list %}{% for b in payload.list %}{% endfor %}{% endfor %}",
    ] {
        let rendered = render_for(text, &huge);
        assert!(rendered.starts_with("error:") && rendered.len() < 1000, "{text}");
    }
}

#[test]
fn greedy_templates_end_soon() {
    for text in [
        "{{ range(1000000000) }}",
        "{{ range(0, 1000000000) | list | length }}",
        "{{ 'x' * 1000000000 }}",
        "{{ ('x' * 90000000) * 90000000 }}",
        "{{ ([1] * 90000000) | last }}",
        "{{ ([1] * 90000000) | join }}",
        "{{ ([1] * 90000000) | length | string ~ ([1] * 90000000) }}",
        "{{ 'x' * 8000000 ~ 'x' * 8000000 }}",
        "{{ 'x' | indent(900000000) }}",
        "{{ '%900000000d' | format(1) }}",
        "{{ [1] | batch(900000000, 0) | list }}",
        "{{ 2 ** 100000 }}",
        "{% set ns = namespace(x='x') %}{% for a in range(90000) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[]) %}{% for a in range(90000) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=1) %}{% set (ns.x, b), c = [[[ns.x], 1], 2] %}{{ ns.x }}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ loop([1]) }}",
        "{{ uuid(1, 2) * 100000000 }}",
    ] {
        let rendered = render(text);
        let refused = rendered.starts_with("error:") || rendered.starts_with("fault:");
        assert!(refused && rendered.len() < 1000, "{text}: {}", shorten(&rendered));
    }
    let sum = format!("{{{{ {}0 }}}}", "payload.id + ".repeat(90));
    check(&sum, &(90 * 1001).to_string());
}

#[test]
fn what_is_long_does_not_nest() {
    check(&format!("{{{{ 'a'{} }}}}", " | trim".repeat(180)), "\"a\"");
    let elifs = "{% elif payload.id == 2 %}b".repeat(180);
    check(&format!("{{% if false %}}a{elifs}{{% else %}}c{{% endif %}}"), "\"c\"");
    check(&format!("{{{{ 'a'{} }}}}", " ~ 1".repeat(150)), &format!("\"a{}\"", "1".repeat(150)));
    check(&format!("{{{{ false{} }}}}", " or payload.flag".repeat(90)), "true");
}
