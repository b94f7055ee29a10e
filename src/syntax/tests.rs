//! The tree, its places and the faults, from texts as people write them and from any text.

use proptest::prelude::*;

use super::*;
use crate::diag::human;
use crate::files::Files;

/// The tree in one line: texts in quotes, the rest bare.
fn show(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.clone(),
        Value::Text(text) => format!("{:?}", text.text),
        Value::List(items) => {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
        }
        Value::Map(pairs) => {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|pair| format!("{}: {}", pair.key.text, show(&pair.value)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

fn check(yaml: &str, expected: &str) {
    let parsed = parse(FileId(0), yaml);
    assert!(parsed.diagnostics.is_empty(), "{yaml:?}: {:?}", parsed.diagnostics);
    assert_eq!(show(&parsed.node.unwrap()), expected, "{yaml:?}");
}

/// The value of `path` (keys, or numbers into lists) covers `expected` in the file.
fn check_span(yaml: &str, path: &[&str], expected: &str) {
    let parsed = parse(FileId(0), yaml);
    let mut node = parsed.node.as_ref().unwrap();
    for part in path {
        node = match (part.parse::<usize>(), &node.value) {
            (Ok(index), Value::List(items)) => &items[index],
            _ => node.get(part).unwrap(),
        };
    }
    assert_eq!(yaml.get(node.span.range()), Some(expected), "{yaml:?}");
}

#[test]
fn values() {
    check("", "null");
    check("# only a note\n", "null");
    check("on: [yes, no, on]\nyes: true", r#"{on: ["yes", "no", "on"], yes: true}"#);
    check("a: 1_000\nb: '1'\nc: ~\nd:\ne: 1.10", r#"{a: 1000, b: "1", c: null, d: null, e: 1.10}"#);
    check("- a\n- - b\n  - c: d\n", r#"["a", ["b", {c: "d"}]]"#);
    check("200: a\ntrue: b\n1_0: c\n", r#"{200: "a", true: "b", 1_0: "c"}"#);
    check("a: !!str 12", r#"{a: "12"}"#);
    check("---\na: 1\n...\n", "{a: 1}");
    check("a: |\n  x\n  y\nb: >-\n  x\n  y\n", r#"{a: "x\ny\n", b: "x y"}"#);
    check("a: 2026-11-23T10:00:00Z", r#"{a: "2026-11-23T10:00:00Z"}"#);
    check("path: $.line_items[*]", r#"{path: "$.line_items[*]"}"#);
}

#[test]
fn aliases_and_merges() {
    check("a: &x {b: 1}\nc: *x", "{a: {b: 1}, c: {b: 1}}");
    check("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", "{a: {b: 1, c: 2}, d: {c: 3, b: 1}}");
    check(
        "- &x {b: 1}\n- &y {b: 2, c: 3}\n- {<<: [*x, *y], d: 4}",
        "[{b: 1}, {b: 2, c: 3}, {d: 4, b: 1, c: 3}]",
    );
    check("'<<': 1", "{<<: 1}");
}

#[test]
fn spans() {
    check_span("a:\n  b: 1\n  c: [2, 3]\nd: 4\n", &["a"], "b: 1\n  c: [2, 3]");
    check_span("a:\n  b: 1\n  c: [2, 3]\nd: 4\n", &["a", "c"], "[2, 3]");
    check_span("a:\n  - x\n  - y: z\n\n# note\nb: 1", &["a"], "- x\n  - y: z");
    check_span("a:\n  - x\n  - y: z\n", &["a", "1"], "y: z");
    check_span("a: 'x'\n", &["a"], "'x'");
    check_span("a:\nb: 1\n", &["a"], "a");
    check_span("a: |\n  x\n\nb: 1\n", &["a"], "x");
}

/// What a person sees for each text.
#[test]
fn faults() {
    let deep = "[".repeat(100);
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n\
                c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n\
                e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: [*e, *e]\n";
    let texts = [
        "route: a\nroute: b\n",
        "a:\n\tb: 1\n",
        "a:\n  b: 1\n c: 2\n",
        "a: b\n  c: d\n",
        "summary: error: it broke\n",
        "to: {{ fields.id }}/x\n",
        "json: { id: {{ fields[\"id\"] }} }\n",
        "on: [orders/*, *.paid, !orders/test]\n",
        "on: *\n",
        "text: Order #{{ fields.number }} is paid\n",
        "a:\n  path:/hooks\n  b: 1\n",
        "a:\n  - name:ship\n    call: 1\n",
        "a: \"{{ b }\n",
        "a: “b: c”\n",
        "- a\nb: 1\n",
        "a: - b\n",
        "a\nb: 1\n",
        "a: 1\nb\nc: 2\n",
        "a: 'x' y\n",
        "a: \"open\nb: 1\n",
        "match: \"\\d+\"\n",
        "a: { from: $.items[0].id }\n",
        "a: [1, 2\nb: 3\n",
        "a: [1}\n",
        "a: ]\n",
        "a: @here\n",
        "a: .inf\n",
        "a: 1\n---\nb: 2\n",
        "? [a]\n: b\n",
        ": b\n",
        "a: &x [*x]\n",
        "a: { <<: 1 }\n",
        &deep,
        bomb,
    ];
    let mut shown = String::new();
    for text in texts {
        let mut files = Files::new("");
        let file = files.add("routes/a.yaml", text);
        let parsed = parse(file, text);
        assert!(!parsed.diagnostics.is_empty(), "{text}");
        shown += &human::render(&files, &parsed.diagnostics, false);
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn too_large() {
    let parsed = parse(FileId(0), &"#".repeat(build::BYTES_MAX + 1));
    assert!(parsed.node.is_none());
    let many = "- 1\n".repeat(100_001);
    assert!(parse(FileId(0), &many).diagnostics[0].message.contains("more than 100000 values"));
}

/// All texts of the tree, with their spans inside the file.
fn walk(node: &Node, yaml: &str) {
    let inside = |span: Span| {
        assert!(span.start <= span.end && span.end <= yaml.len(), "{span:?} in {yaml:?}");
    };
    inside(node.span);
    match &node.value {
        Value::Text(text) => {
            for (offset, character) in text.text.char_indices() {
                inside(text.span(FileId(0), offset..offset + character.len_utf8()));
            }
            inside(text.span(FileId(0), 0..usize::MAX));
        }
        Value::List(items) => items.iter().for_each(|item| walk(item, yaml)),
        Value::Map(pairs) => {
            for pair in pairs {
                inside(pair.key_span);
                walk(&pair.value, yaml);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn survives(yaml: &str) {
    let mut files = Files::new("");
    let file = files.add("a.yaml", yaml);
    let parsed = parse(file, yaml);
    if let Some(node) = &parsed.node {
        walk(node, yaml);
    }
    human::render(&files, &parsed.diagnostics, true);
    crate::diag::json::render(&files, &parsed.diagnostics);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_is_survived(yaml in ".{0,200}") {
        survives(&yaml);
    }

    #[test]
    fn anything_like_yaml_is_survived(parts in prop::collection::vec(
        prop::sample::select(vec![
            "a", "b: ", "- ", "\n", "\n  ", "\n    ", "\t", "{", "}", "[", "]", ", ", "'", "\"", "\\", "\\u00", "|", ">-", "&x ",
            "*x", "!t ", "<<: ", "? ", ": ", "#", "---", "...", "{{ x }}", "é", "\r\n", "~", "1_0", "%", "@", "\u{feff}", "0x",
        ]), 0..40)) {
        survives(&parts.concat());
    }

    /// A visible character of a text stands in the file where the text says.
    #[test]
    fn places_are_exact(text in "[a-zé{}'\"\\\\\n ]{0,40}", style in 0..3) {
        let yaml = match style {
            0 => format!("a: '{}'", text.replace('\'', "''").replace('\n', " ")),
            1 => format!("a: {}", serde_json::to_string(&text).unwrap()),
            _ => format!("a: |2\n  {}\n", text.replace('\n', "\n  ")),
        };
        let parsed = parse(FileId(0), &yaml);
        prop_assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        let node = parsed.node.unwrap();
        let value = node.get("a").unwrap().as_text().unwrap();
        for (offset, character) in value.text.char_indices().filter(|(_, character)| !character.is_whitespace()) {
            let span = value.span(FileId(0), offset..offset + character.len_utf8());
            let written = yaml.get(span.range()).unwrap_or("");
            prop_assert!(written.ends_with(character) || written.starts_with(['\\', '\'']), "{character:?} is {written:?} in {yaml:?}");
        }
    }
}
