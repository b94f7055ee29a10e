//! JSONPath (RFC 9535), parsed at load and bounded. The only place that knows jsonpath-rust.

use std::ops::Range;

use jsonpath_rust::parser::model::{
    Comparable, Filter, FilterAtom, FnArg, JpQuery, Segment, Selector, SingularQuerySegment, Test,
    TestFunction,
};
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use serde_json::Value as Json;

const TEXT_BYTES_MAX: usize = 1024;
const DESCENDANTS_MAX: usize = 2;
const SEGMENTS_MAX: usize = 64;
/// Brackets and negations one inside the other: the parser is recursive.
const NESTING_MAX: usize = 32;

/// A compiled JSONPath.
#[derive(Clone, Debug)]
pub struct JsonPath {
    pub text: String,
    how: How,
    many: bool,
}

#[derive(Clone, Debug)]
enum How {
    /// Names and indices alone.
    Plain(Vec<Step>),
    Query(JpQuery),
}

#[derive(Clone, Debug)]
enum Step {
    Name(String),
    Index(i64),
}

/// What is wrong with a JSONPath, in bytes of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathFault {
    pub message: String,
    pub range: Range<usize>,
}

impl JsonPath {
    /// The path and its warnings.
    pub fn parse(text: &str) -> Result<(Self, Vec<PathFault>), PathFault> {
        let fault = |message: String| PathFault { message, range: 0..text.len() };
        if text.len() > TEXT_BYTES_MAX {
            return Err(fault(format!("a JSONPath has at most {TEXT_BYTES_MAX} bytes")));
        }
        if !text.starts_with('$') {
            return Err(fault("a JSONPath starts with `$`".to_owned()));
        }
        if nesting(text) > NESTING_MAX {
            return Err(fault(format!("a JSONPath nests at most {NESTING_MAX} brackets")));
        }
        if let Some(at) = spaced_name(text) {
            let message = "a name with a space in it is written `['a b']`".to_owned();
            return Err(PathFault { message, range: at..at + 1 });
        }
        let query =
            parse_json_path(text).map_err(|error| syntax_fault(text, &error.to_string()))?;
        check(&query.segments, false).map_err(fault)?;
        let plain: Option<Vec<Step>> = query.segments.iter().map(plain).collect();
        let many = !query.segments.iter().all(single);
        let how = plain.map_or(How::Query(query), How::Plain);
        Ok((Self { text: text.to_owned(), how, many }, Vec::new()))
    }

    /// In document order; JSON null is a hit here.
    pub fn hits<'a>(&self, payload: &'a Json) -> Vec<&'a Json> {
        match &self.how {
            How::Plain(steps) => {
                let found = steps.iter().try_fold(payload, |at, step| match step {
                    Step::Name(name) => at.as_object()?.get(name),
                    Step::Index(index) => {
                        let list = at.as_array()?;
                        let from_end = i64::try_from(list.len()).ok()?.checked_add(*index)?;
                        let index = if *index < 0 { from_end } else { *index };
                        list.get(usize::try_from(index).ok()?)
                    }
                });
                found.into_iter().collect()
            }
            How::Query(query) => match js_path_process(query, payload) {
                Ok(hits) => hits.into_iter().map(|hit| hit.val()).collect(),
                Err(_) => Vec::new(),
            },
        }
    }

    /// Where it may hit more than one value: `[*]`, a slice, a filter, several selectors or `..`.
    pub fn may_hit_many(&self) -> bool {
        self.many
    }
}

fn plain(segment: &Segment) -> Option<Step> {
    match segment {
        // Quotes and escapes in names are the library's to read.
        Segment::Selector(Selector::Name(name)) => {
            (!name.contains(['\'', '"', '\\'])).then(|| Step::Name(name.clone()))
        }
        Segment::Selector(Selector::Index(index)) => Some(Step::Index(*index)),
        Segment::Selector(_) | Segment::Selectors(_) | Segment::Descendant(_) => None,
    }
}

/// Where a space stands inside a bare name: the library reads `$.a b` as the one name `a b`.
fn spaced_name(text: &str) -> Option<usize> {
    let outside = text.find('[').unwrap_or(text.len());
    let head = text.get(..outside)?;
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    head.char_indices().find_map(|(at, c)| {
        let (before, after) = (head.get(..at)?, head.get(at..)?.trim_start());
        let inside =
            c.is_ascii_whitespace() && before.ends_with(in_name) && after.starts_with(in_name);
        inside.then_some(at)
    })
}

/// How deep brackets, parentheses and `!` nest, quoted texts apart.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut quote, mut escaped) = (0_usize, 0, None, false);
    let mut nots = 0;
    for c in text.chars() {
        match (quote, c) {
            (Some(_), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), c) if c == open && !escaped => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => depth = depth.saturating_sub(1),
            (None, '!') => nots += 1,
            (None, _) => {}
        }
        escaped = false;
        deepest = deepest.max(depth);
    }
    deepest.max(nots)
}

/// Pest's message, cut to what a user needs, at the place it names (` --> 1:7`).
fn syntax_fault(text: &str, message: &str) -> PathFault {
    let column = message.split_once("--> 1:").and_then(|(_, rest)| {
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok()
    });
    let at = column
        .and_then(|column| text.char_indices().nth(column.saturating_sub(1)))
        .map_or(text.len(), |(at, _)| at);
    let end = text.get(at..).and_then(|rest| rest.chars().next()).map_or(at, |c| at + c.len_utf8());
    let message = match text.get(at..).filter(|rest| !rest.is_empty() && column.is_some()) {
        Some(rest) => format!("not a JSONPath from `{}` on", crate::template::shorten(rest)),
        None if column.is_some() => "the JSONPath is not complete".to_owned(),
        None => format!("not a JSONPath: {message}"),
    };
    PathFault { message, range: at..end }
}

/// Refuses what would explode, and what the library is known to get wrong.
fn check(segments: &[Segment], in_filter: bool) -> Result<(), String> {
    if segments.len() > SEGMENTS_MAX {
        return Err(format!("a JSONPath has at most {SEGMENTS_MAX} segments"));
    }
    let descendants =
        segments.iter().filter(|segment| matches!(segment, Segment::Descendant(_))).count();
    if descendants > DESCENDANTS_MAX {
        return Err(format!("a JSONPath has at most {DESCENDANTS_MAX} `..`"));
    }
    segments.iter().try_for_each(|segment| check_segment(segment, in_filter))
}

fn check_segment(segment: &Segment, in_filter: bool) -> Result<(), String> {
    match segment {
        Segment::Descendant(_) if in_filter => Err("`..` cannot stand inside a filter".to_owned()),
        Segment::Descendant(inner) => check_segment(inner, in_filter),
        Segment::Selector(selector) => check_selector(selector, in_filter),
        Segment::Selectors(selectors) => {
            selectors.iter().try_for_each(|selector| check_selector(selector, in_filter))
        }
    }
}

fn check_selector(selector: &Selector, in_filter: bool) -> Result<(), String> {
    match selector {
        Selector::Filter(_) if in_filter => {
            Err("a filter inside a filter is not supported".to_owned())
        }
        Selector::Filter(filter) => check_filter(filter),
        Selector::Name(_) | Selector::Wildcard | Selector::Index(_) | Selector::Slice(..) => Ok(()),
    }
}

fn check_filter(filter: &Filter) -> Result<(), String> {
    match filter {
        Filter::Or(parts) | Filter::And(parts) => parts.iter().try_for_each(check_filter),
        Filter::Atom(FilterAtom::Filter { expr, .. }) => check_filter(expr),
        Filter::Atom(FilterAtom::Test { expr, .. }) => match &**expr {
            Test::RelQuery(segments) => check(segments, true),
            Test::AbsQuery(query) => check(&query.segments, true),
            Test::Function(function) if function.is_comparable() => {
                Err("`count`, `length` and `value` must be compared: `count(@.a) > 1`".to_owned())
            }
            Test::Function(function) => check_function(function),
        },
        Filter::Atom(FilterAtom::Comparison(comparison)) => {
            let (left, right) = comparison.vals();
            [left, right].into_iter().try_for_each(|side| match side {
                Comparable::Function(function) if !function.is_comparable() => {
                    Err("`match` and `search` are true or false and cannot be compared".to_owned())
                }
                Comparable::Function(function) => check_function(function),
                Comparable::Literal(_) => Ok(()),
                Comparable::SingularQuery(query) => {
                    use jsonpath_rust::parser::model::SingularQuery::{Current, Root};
                    let (Current(segments) | Root(segments)) = query;
                    let named = |segment: &SingularQuerySegment| match segment {
                        SingularQuerySegment::Name(_) | SingularQuerySegment::Index(_) => Ok(()),
                    };
                    segments.iter().try_for_each(named)
                }
            })
        }
    }
}

fn check_function(function: &TestFunction) -> Result<(), String> {
    let singular = |argument: &FnArg, name: &str| match argument {
        FnArg::Literal(_) => Ok(()),
        FnArg::Test(test) => match &**test {
            Test::RelQuery(segments) if segments.iter().all(single) => Ok(()),
            Test::AbsQuery(query) if query.segments.iter().all(single) => Ok(()),
            Test::Function(inner) if inner.is_comparable() => check_function(inner),
            Test::RelQuery(_) | Test::AbsQuery(_) | Test::Function(_) => {
                Err(format!("`{name}` takes one value: a path without `*`, slices and `..`"))
            }
        },
        FnArg::Filter(_) => Err(format!("`{name}` takes a value, not a condition")),
    };
    let nodes = |argument: &FnArg, name: &str| match argument {
        FnArg::Test(test) => match &**test {
            Test::RelQuery(segments) => check(segments, true),
            Test::AbsQuery(query) => check(&query.segments, true),
            Test::Function(_) => Err(format!("`{name}` takes a path")),
        },
        FnArg::Literal(_) | FnArg::Filter(_) => Err(format!("`{name}` takes a path")),
    };
    match function {
        TestFunction::Custom(name, _) => Err(format!("`{name}` is not a function of RFC 9535")),
        TestFunction::Length(argument) => singular(argument, "length"),
        TestFunction::Value(argument) => nodes(argument, "value"),
        TestFunction::Count(argument) => nodes(argument, "count"),
        TestFunction::Search(value, pattern) => {
            singular(value, "search").and_then(|()| singular(pattern, "search"))
        }
        TestFunction::Match(value, pattern) => {
            singular(value, "match").and_then(|()| singular(pattern, "match"))
        }
    }
}

fn single(segment: &Segment) -> bool {
    matches!(segment, Segment::Selector(Selector::Name(_) | Selector::Index(_)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check_hits(path: &str, expected: Json) {
        let payload = json!({
            "id": 1001, "a b": 1, "é": 2,
            "lines": [{ "sku": "x", "n": 1 }, { "sku": "y", "n": 2 }, { "n": 3 }],
        });
        let (path, _) = JsonPath::parse(path).unwrap();
        let hits: Vec<Json> = path.hits(&payload).into_iter().cloned().collect();
        assert_eq!(Json::from(hits), expected, "{}", path.text);
    }

    #[test]
    fn finds() {
        check_hits("$.id", json!([1001]));
        check_hits("$['a b']", json!([1]));
        check_hits("$[\"a b\"]", json!([1]));
        check_hits("$['é']", json!([2]));
        check_hits("$.lines[0].sku", json!(["x"]));
        check_hits("$.lines[-1].n", json!([3]));
        check_hits("$.lines[*].sku", json!(["x", "y"]));
        check_hits("$.lines[?@.n > 1].n", json!([2, 3]));
        check_hits("$..sku", json!(["x", "y"]));
        check_hits("$.lines[?count(@.*) == 1].n", json!([3]));
        check_hits("$.none.at.all", json!([]));
    }

    #[test]
    fn refuses() {
        for path in [
            "",
            "id",
            "$.",
            "$[",
            "$.a b",
            "$..*..*..*",
            "$[?count(1) > 1]",
            "$[?length(@.*) > 1]",
            "$[?length(@.a)]",
            "$[?@.a[?@.b]]",
            "$[?in(@.a, 'x')]",
            "$[?match(@.a, 'x') == true]",
        ] {
            let Err(fault) = JsonPath::parse(path) else { panic!("taken: {path}") };
            assert!(path.get(fault.range.clone()).is_some(), "{path}: {fault:?}");
        }
        assert_eq!(JsonPath::parse("$.a.[").unwrap_err().range.start, 4);
        let deep = format!("$[?{}@.a]", "!".repeat(10_000));
        assert!(JsonPath::parse(&deep).is_err());
        let deep = format!("$[?{}@.a{}]", "(".repeat(400), ")".repeat(400));
        assert!(JsonPath::parse(&deep).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\$\\.\\[\\]\\?@a-b0-9'\"\\*:, ()!=&|\\\\-]{0,40}", any in "\\PC{0,20}") {
            let payload = json!({ "a": [{ "b": 1 }, { "b": [null, "a"] }], "b": "a" });
            for text in [format!("${text}"), format!("$[?{text}]"), any] {
                if let Ok((path, _)) = JsonPath::parse(&text) {
                    path.hits(&payload);
                }
            }
        }
    }
}
