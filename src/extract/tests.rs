//! Every sentence of the language's section on extractions, as the YAML writes it.

use serde_json::json;

use super::types::Type;
use super::*;
use crate::template::names::Names;

const PAYLOAD: &str = r#"{
    "id": 1001, "amount": 19.90, "whole": 7.0, "big": 123456789012345678901234567890, "exponent": 1.5e1,
    "text": "Ada", "digits": "007", "empty": "", "null": null, "yes": true, "one": 1, "flag_text": "false",
    "code": "price_1", "ref": "order-77", "at": "2026-03-29 03:30:00", "unix": 1700000000, "unix_ms": 1700000000123,
    "day": "29.03.2026", "object": { "a": 1 }, "list": [3, 1, 2], "none_list": [], "nulls": [null, null], "mixed": [1, null, "x"],
    "lines": [ { "sku": "a", "quantity": "2" }, { "sku": "b" }, { "sku": "c", "quantity": 1.5 } ],
    "form_many": ["x", "y"], "long": "LONG"
}"#;

fn payload() -> Json {
    let mut payload: Json = serde_json::from_str(PAYLOAD).unwrap();
    payload["long"] = Json::from("x".repeat(5000));
    payload
}

fn path(text: &str) -> Extraction {
    Extraction::plain(From::Path(JsonPath::parse(text).unwrap().0))
}

fn typed(text: &str, type_: Type) -> Extraction {
    Extraction { type_: Some(type_), ..path(text) }
}

fn value(template: &str) -> Extraction {
    let names = Names { roots: ["payload"].into(), ..Names::default() };
    Extraction::plain(From::Value(Template::compile(template, &names).unwrap()))
}

/// The value as JSON, `-` for absent, or the fault.
fn apply(extraction: &Extraction) -> String {
    let payload = payload();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut context = Context::new(jiff::Timestamp::UNIX_EPOCH, "");
    context.set("payload", &payload);
    let input = Input {
        payload: &payload,
        envelope_headers: &[pair("x-topic", "orders/paid"), pair("x-topic", "again")],
        query: &[pair("page", "2"), pair("page", "3"), pair("Empty", "")],
        path: &[pair("shop", "north")],
        form: None,
        context: &context,
    };
    match extraction.apply(&input) {
        Ok(Some(json)) => json.to_string(),
        Ok(None) => "-".to_owned(),
        Err(fault) => format!("{}: {fault}", fault.cause),
    }
}

#[track_caller]
fn check(extraction: Extraction, expected: &str) {
    assert_eq!(apply(&extraction), expected, "{extraction:?}");
}

#[test]
fn without_a_type_the_value_stays_as_it_is() {
    check(path("$.id"), "1001");
    check(path("$.amount"), "19.90");
    check(path("$.big"), "123456789012345678901234567890");
    check(path("$.object"), r#"{"a":1}"#);
    check(path("$.list"), "[3,1,2]");
    check(path("$.yes"), "true");
}

#[test]
fn no_hit_and_null_are_absent_and_the_empty_text_is_not() {
    for absent in ["$.nothing", "$.null", "$.null.deeper", "$.none_list[0]", "$.nulls[0]"] {
        check(path(absent), "-");
        check(Extraction { default: Some(json!("d")), ..path(absent) }, "\"d\"");
        let fault = format!("missing_field: required, but {absent} has no value");
        check(Extraction { required: true, ..path(absent) }, &fault);
        // A default is a value: then nothing is missing.
        check(Extraction { required: true, default: Some(json!(0)), ..path(absent) }, "0");
    }
    check(path("$.empty"), "\"\"");
    check(Extraction { required: true, default: Some(json!("d")), ..path("$.empty") }, "\"\"");
    check(Extraction { default: Some(json!(1)), ..path("$.one") }, "1");
}

#[test]
fn types() {
    for (text, type_, expected) in [
        ("$.text", Type::String, "\"Ada\""),
        ("$.id", Type::String, "\"1001\""),
        ("$.amount", Type::String, "\"19.90\""),
        ("$.yes", Type::String, "\"true\""),
        ("$.id", Type::Integer, "1001"),
        ("$.whole", Type::Integer, "7"),
        ("$.exponent", Type::Integer, "15"),
        ("$.digits", Type::Integer, "7"),
        ("$.amount", Type::Decimal, "\"19.90\""),
        ("$.id", Type::Decimal, "\"1001\""),
        ("$.amount", Type::Number, "19.90"),
        ("$.one", Type::Boolean, "true"),
        ("$.flag_text", Type::Boolean, "false"),
        ("$.yes", Type::Boolean, "true"),
        ("$.unix", Type::Timestamp, "\"2023-11-14T22:13:20Z\""),
        ("$.unix_ms", Type::Timestamp, "\"2023-11-14T22:13:20.123Z\""),
        ("$.at", Type::Timestamp, "\"2026-03-29T03:30:00Z\""),
        ("$.object", Type::Json, r#"{"a":1}"#),
        ("$.null", Type::Integer, "-"),
    ] {
        check(typed(text, type_), expected);
    }
}

#[test]
fn a_bad_value_is_told_with_its_path_and_a_default_never_hides_it() {
    for (text, type_, found) in [
        ("$.object", Type::String, r#"{"a":1}"#),
        ("$.amount", Type::Integer, "19.90"),
        ("$.text", Type::Integer, "\"Ada\""),
        ("$.empty", Type::Integer, "\"\""),
        ("$.yes", Type::Integer, "true"),
        ("$.text", Type::Decimal, "\"Ada\""),
        ("$.yes", Type::Number, "true"),
        ("$.id", Type::Boolean, "1001"),
        ("$.text", Type::Timestamp, "\"Ada\""),
    ] {
        let article = type_.as_str();
        let fault = format!("wrong_type: {text} must be {article}, found {found}");
        check(typed(text, type_), &fault);
        check(Extraction { default: Some(json!(0)), ..typed(text, type_) }, &fault);
    }
    let long = apply(&typed("$.long", Type::Integer));
    assert!(long.chars().count() < 200 && long.ends_with("xx…"), "{long}");
}

#[test]
fn timestamps_with_a_format_and_a_zone() {
    let berlin = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    let at = |text: &str, format: Option<&str>, zone: bool| Extraction {
        format: format.map(str::to_owned),
        zone: zone.then(|| berlin.clone()),
        ..typed(text, Type::Timestamp)
    };
    // Summer time began that night at 02:00; what has its own zone keeps it.
    check(at("$.at", None, true), "\"2026-03-29T01:30:00Z\"");
    check(at("$.day", Some("%d.%m.%Y"), false), "\"2026-03-29T00:00:00Z\"");
    check(at("$.day", Some("%d.%m.%Y"), true), "\"2026-03-28T23:00:00Z\"");
    check(at("$.unix", None, true), "\"2023-11-14T22:13:20Z\"");
    check(at("$.unix", Some("unix"), false), "\"2023-11-14T22:13:20Z\"");
    check(at("$.unix_ms", Some("unix_ms"), false), "\"2023-11-14T22:13:20.123Z\"");
    check(
        at("$.at", Some("%d.%m.%Y"), false),
        "wrong_type: $.at must be timestamp, found \"2026-03-29 03:30:00\"",
    );
}

#[test]
fn one_of() {
    let one_of = |text: &str, allowed: Json| Extraction {
        one_of: allowed.as_array().cloned(),
        default: Some(json!("d")),
        ..path(text)
    };
    check(one_of("$.text", json!(["Bob", "Ada"])), "\"Ada\"");
    check(one_of("$.whole", json!([7])), "7.0");
    check(one_of("$.null", json!(["x"])), "\"d\"");
    let fault = "not_one_of: $.text must be one of \"Bob\", 1, found \"Ada\"";
    check(one_of("$.text", json!(["Bob", 1])), fault);
    check(one_of("$.empty", json!(["x"])), "not_one_of: $.empty must be one of \"x\", found \"\"");
}

#[test]
fn match_is_anchored_and_a_group_is_the_value() {
    let matching = |text: &str, pattern: &str| Extraction {
        pattern: Some(Pattern::parse(pattern).unwrap()),
        default: Some(json!("d")),
        ..path(text)
    };
    check(matching("$.ref", "order-[0-9]+"), "\"order-77\"");
    check(matching("$.ref", "order-([0-9]+)"), "\"77\"");
    check(matching("$.ref", "(?:order|ref)-([0-9]+)"), "\"77\"");
    check(matching("$.ref", "x|order-77"), "\"order-77\"");
    check(matching("$.id", "1(.*)"), "\"001\"");
    check(matching("$.null", "x"), "\"d\"");
    let fault = "no_match: $.ref must match `[0-9]+`, found \"order-77\"";
    check(matching("$.ref", "[0-9]+"), fault);
    // A group that took no part has no value.
    let fault = "no_match: $.ref must match `order-77|x(y)`, found \"order-77\"";
    check(matching("$.ref", "order-77|x(y)"), fault);
    check(matching("$.object", ".*"), "no_match: $.object must match `.*`, found {\"a\":1}");
    assert!(Pattern::parse("(a)(b)").is_err());
    assert!(Pattern::parse("(").is_err());
    assert!(Pattern::parse("a{1000}{1000}").is_err());
}

#[test]
fn map_turns_codes_into_values() {
    let mapped = |text: &str, default: Option<Json>| Extraction {
        map: Some([("price_1".to_owned(), json!("pro")), ("1001".to_owned(), json!(1))].into()),
        default,
        ..path(text)
    };
    check(mapped("$.code", None), "\"pro\"");
    check(mapped("$.id", None), "1");
    check(mapped("$.ref", Some(json!("basic"))), "\"basic\"");
    check(mapped("$.null", None), "-");
    check(mapped("$.ref", None), "missing_mapping: missing mapping for \"order-77\" at $.ref");
    check(mapped("$.object", None), "missing_mapping: missing mapping for {\"a\":1} at $.object");
}

#[test]
fn match_before_map_before_one_of() {
    let extraction = |allowed: &str| Extraction {
        pattern: Some(Pattern::parse("order-([0-9]+)").unwrap()),
        map: Some([("77".to_owned(), json!("seven"))].into()),
        one_of: Some(vec![json!(allowed)]),
        ..typed("$.ref", Type::String)
    };
    check(extraction("seven"), "\"seven\"");
    assert!(apply(&extraction("77")).starts_with("not_one_of"));
}

#[test]
fn all_gives_every_hit_and_else_the_first_counts() {
    check(path("$.lines[*].sku"), "\"a\"");
    check(Extraction { all: true, ..path("$.lines[*].sku") }, r#"["a","b","c"]"#);
    check(Extraction { all: true, ..path("$.list") }, "[[3,1,2]]");
    check(Extraction { all: true, ..path("$.none_list[*]") }, "-");
    check(Extraction { all: true, ..path("$.nulls[*]") }, "-");
    check(Extraction { all: true, ..typed("$.list[*]", Type::String) }, r#"["3","1","2"]"#);
    check(Extraction { all: true, ..path("$.mixed[*]") }, r#"[1,null,"x"]"#);
    check(
        Extraction { all: true, ..typed("$.mixed[*]", Type::Integer) },
        "wrong_type: $.mixed[*] (hit 3) must be integer, found \"x\"",
    );
}

#[test]
fn each_maps_every_element() {
    let each = |from: &str, required: bool, type_| Extraction {
        each: Some(vec![
            ("sku".to_owned(), Extraction { required: true, ..path("$.sku") }),
            ("quantity".to_owned(), Extraction { required, ..typed("$.quantity", type_) }),
            ("shop".to_owned(), Extraction::plain(From::PathPart("shop".to_owned()))),
        ]),
        ..path(from)
    };
    let lines = r#"[{"sku":"a","quantity":"2","shop":"north"},{"sku":"b","quantity":null,"shop":"north"},{"sku":"c","quantity":"1.5","shop":"north"}]"#;
    check(each("$.lines[*]", false, Type::String), lines);
    check(each("$.lines", false, Type::String), lines);
    check(each("$.lines[0]", false, Type::Integer), r#"[{"sku":"a","quantity":2,"shop":"north"}]"#);
    check(each("$.nothing[*]", false, Type::Integer), "-");
    check(each("$.none_list", false, Type::Integer), "[]");
    check(
        each("$.lines[*]", true, Type::String),
        "missing_field: element 2 of $.lines[*], `quantity`: required, but $.quantity has no value",
    );
    check(
        each("$.lines[*]", false, Type::Integer),
        "wrong_type: element 3 of $.lines[*], `quantity`: $.quantity must be integer, found 1.5",
    );
    check(
        each("$.list", false, Type::Integer),
        "missing_field: element 1 of $.list, `sku`: required, but $.sku has no value",
    );
}

#[test]
fn other_places() {
    let header = |name: &str| Extraction::plain(From::Header(name.to_owned()));
    let query = |name: &str| Extraction::plain(From::Query(name.to_owned()));
    let form = |name: &str| Extraction::plain(From::Form(name.to_owned()));
    let part = |name: &str| Extraction::plain(From::PathPart(name.to_owned()));
    check(header("X-Topic"), "\"orders/paid\"");
    check(Extraction { all: true, ..header("x-topic") }, r#"["orders/paid","again"]"#);
    check(header("x-other"), "-");
    check(
        Extraction { required: true, ..header("X-Other") },
        "missing_field: required, but header X-Other has no value",
    );
    check(query("page"), "\"2\"");
    check(Extraction { type_: Some(Type::Integer), ..query("page") }, "2");
    check(Extraction { all: true, type_: Some(Type::Integer), ..query("page") }, "[2,3]");
    check(query("Page"), "-");
    check(query("Empty"), "\"\"");
    check(form("text"), "\"Ada\"");
    check(form("form_many"), "\"x\"");
    check(Extraction { all: true, ..form("form_many") }, r#"["x","y"]"#);
    check(form("none_list"), "-");
    check(part("shop"), "\"north\"");
    check(part("other"), "-");
}

#[test]
fn values_are_templates() {
    check(value("{{ payload.id }}"), "1001");
    check(value("{{ payload.amount }}"), "19.90");
    check(value("n-{{ payload.id }}"), "\"n-1001\"");
    check(value("{{ payload.nothing }}"), "-");
    check(value("n-{{ payload.nothing | optional }}"), "-");
    check(Extraction { default: Some(json!(1)), ..value("{{ payload.null }}") }, "1");
    check(Extraction { type_: Some(Type::Integer), ..value("{{ payload.digits }}") }, "7");
    let fault = apply(&value("n-{{ payload.nothing }}"));
    assert!(fault.starts_with("template:") && fault.contains("`payload.nothing`"), "{fault}");
}

#[test]
fn fields_are_null_where_absent_and_a_fault_names_its_field() {
    let payload = payload();
    let context = Context::new(jiff::Timestamp::UNIX_EPOCH, "");
    let input = Input {
        payload: &payload,
        envelope_headers: &[],
        query: &[],
        path: &[],
        form: None,
        context: &context,
    };
    let field = |name: &str, extraction| (name.to_owned(), extraction);
    let mut fields = vec![field("id", path("$.id")), field("no", path("$.nothing"))];
    let mapped = map_fields(&fields, &input).unwrap();
    assert_eq!(Json::Object(mapped.fields).to_string(), r#"{"id":1001,"no":null}"#);
    fields.push(field("email", typed("$.list", Type::String)));
    let fault = map_fields(&fields, &input).unwrap_err();
    assert_eq!((fault.field.as_str(), fault.fault.path.as_str()), ("email", "$.list"));
    assert_eq!(fault.to_string(), "field `email`: $.list must be string, found [3,1,2]");
}
