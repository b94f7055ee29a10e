//! Extractions: JSONPaths, regexes, maps, zones and formats, each checked where it stands.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde_json::Value as Json;

use super::context::{Checker, json, scalar, string, text};
use super::templates::Scope;
use crate::diag::code::Code;
use crate::diag::{Diagnostic, Severity};
use crate::extract::jsonpath::JsonPath;
use crate::extract::types::Type;
use crate::extract::{Extraction, From, Pattern};
use crate::syntax::Node;

const PATH_FORMS: &str = "a path reads like `$.customer.email`, `$.items[0].id`, `$.items[*].sku` or `$.items[?@.kind == 'gift'].id`";
const PATTERN_FORMS: &str = "a pattern is for the whole value, such as `[0-9]+` or `order-(.*)`; `\\[` is the character itself";

/// Where an extraction stands decides what it can look at.
pub(super) struct At<'a> {
    pub(super) scope: &'a Scope,
    /// The `{name}` parts of the source's path; `None`: not known, or not looked at.
    pub(super) path_parts: Option<&'a [String]>,
    /// `$` is a response's JSON, and there is no query, form or path.
    pub(super) response: bool,
}

impl Checker {
    pub(super) fn extraction(&mut self, node: &Node, at: &At<'_>) -> Option<Extraction> {
        if node.as_text().is_some() {
            let path = self.json_path(node)?;
            self.one_of_many(node, &path);
            return Some(Extraction::plain(From::Path(path)));
        }
        let pairs = node.as_map()?;
        let mut faulty = false;
        let from = self.origin(node, at);

        let type_ = text(node, "type").and_then(|text| type_of(&text.text));
        let pattern =
            text(node, "match").and_then(|text| self.pattern(node, &text.text, &mut faulty));
        let map = node.get("map").and_then(|map| self.code_map(map, &mut faulty));
        let each = node.get("each").and_then(Node::as_map).map(|pairs| {
            pairs
                .iter()
                .filter_map(|pair| match self.extraction(&pair.value, at) {
                    Some(extraction) => Some((pair.key.text.clone(), extraction)),
                    None => {
                        faulty = true;
                        None
                    }
                })
                .collect::<Vec<_>>()
        });
        let all = node.get("all").and_then(Node::as_bool).unwrap_or(false);
        let format = self.format(node, type_, &mut faulty);
        let zone = self.zone(node, &mut faulty);
        let one_of =
            node.get("one_of").and_then(Node::as_list).map(|list| list.iter().map(json).collect());
        let default = node.get("default").map(json);
        let required = node.get("required").and_then(Node::as_bool).unwrap_or(false);
        if required && default.is_some() {
            let place =
                pairs.iter().find(|pair| pair.key.text == "default").map(|pair| pair.key_span)?;
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    place,
                    "a required value never takes its `default`",
                )
                .help("remove `required` or `default`"),
            );
            faulty = true;
        }
        if let Some(From::Path(path)) = &from
            && !all
            && each.is_none()
        {
            let place = node.get("from").unwrap_or(node);
            self.one_of_many(place, path);
        }
        let from = from?;
        (!faulty).then_some(Extraction {
            from,
            type_,
            required,
            default,
            one_of,
            pattern,
            map,
            each,
            all,
            format,
            zone,
        })
    }

    pub(super) fn json_path(&mut self, node: &Node) -> Option<JsonPath> {
        let text = node.as_text()?;
        if !text.text.starts_with('$') {
            return None;
        }
        match JsonPath::parse(&text.text) {
            Ok((path, warnings)) => {
                for warning in warnings {
                    let place = text.span(node.span.file, warning.range);
                    let mut diagnostic =
                        Diagnostic::new(Code::JsonPathSyntax, place, warning.message);
                    diagnostic.severity = Severity::Warning;
                    self.push(diagnostic);
                }
                Some(path)
            }
            Err(fault) => {
                let place = text.span(node.span.file, fault.range);
                self.error(Code::JsonPathSyntax, place, fault.message, PATH_FORMS);
                None
            }
        }
    }

    fn one_of_many(&mut self, node: &Node, path: &JsonPath) {
        if path.may_hit_many() {
            self.push(
                Diagnostic::new(
                    Code::FirstHitOfMany,
                    node.span,
                    format!("`{}` may hit several values, and only the first is taken", path.text),
                )
                .help(format!(
                    "write `{{ from: \"{}\", all: true }}` for a list of all",
                    path.text
                )),
            );
        }
    }

    fn origin(&mut self, node: &Node, at: &At<'_>) -> Option<From> {
        if let Some(path) = node.get("from") {
            return self.json_path(path).map(From::Path);
        }
        if let Some(value) = node.get("value") {
            return self.template(value, at.scope).map(From::Value);
        }
        if let Some(header) = text(node, "header") {
            if http::HeaderName::try_from(header.text.as_str()).is_err() {
                let place = node.get("header")?.span;
                self.error(
                    Code::InvalidValue,
                    place,
                    format!("`{}` is no header name", header.text),
                    "use letters, digits and `-`, such as `X-Signature`",
                );
                return None;
            }
            return Some(From::Header(header.text.clone()));
        }
        for key in ["query", "form", "path"] {
            let Some(name) = string(node, key) else { continue };
            let place = node.get(key)?.span;
            if at.response {
                self.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        place,
                        format!("a response has no `{key}`"),
                    )
                    .help("write `$.…` for its JSON, `{ header: … }` or `{ value: … }`"),
                );
                return None;
            }
            if key == "path"
                && let Some(parts) = at.path_parts
                && !parts.contains(&name)
            {
                let mut diagnostic = Diagnostic::new(
                    Code::UnknownReference,
                    place,
                    format!("the source's path has no part `{{{name}}}`"),
                );
                diagnostic.help =
                    crate::diag::suggest::help(&name, parts.iter().map(String::as_str))
                        .or_else(|| Some(format!("write `{{{name}}}` into the source's `path`")));
                self.push(diagnostic);
                return None;
            }
            return Some(match key {
                "query" => From::Query(name),
                "form" => From::Form(name),
                _ => From::PathPart(name),
            });
        }
        None
    }

    fn pattern(&mut self, node: &Node, pattern: &str, faulty: &mut bool) -> Option<Pattern> {
        match Pattern::parse(pattern) {
            Ok(pattern) => Some(pattern),
            Err(message) => {
                *faulty = true;
                // The parser draws its own picture; its last line says what is wrong.
                let why = message.lines().last().unwrap_or_default();
                let why = why.strip_prefix("error: ").unwrap_or(why);
                let message = format!("`{pattern}` is no regular expression: {why}");
                self.error(Code::RegexSyntax, node.get("match")?.span, message, PATTERN_FORMS);
                None
            }
        }
    }

    /// `{ code: value }` or `{ file: two-columns.csv }`.
    fn code_map(&mut self, node: &Node, faulty: &mut bool) -> Option<BTreeMap<String, Json>> {
        let pairs = node.as_map()?;
        if let [only] = pairs
            && only.key.text == "file"
            && let Some(path) = only.value.as_text()
            && path.text.ends_with(".csv")
        {
            let map = self.csv(&only.value, &path.text);
            *faulty |= map.is_none();
            return map;
        }
        if pairs.is_empty() {
            *faulty = true;
            self.error(
                Code::InvalidValue,
                node.span,
                "an empty `map` knows no code",
                "write `{ code: value }`, or `{ file: codes.csv }`",
            );
            return None;
        }
        Some(pairs.iter().map(|pair| (pair.key.text.clone(), json(&pair.value))).collect())
    }

    fn csv(&mut self, node: &Node, path: &str) -> Option<BTreeMap<String, Json>> {
        let file = match self.files.attach(node.span.file, path) {
            Ok(file) => file,
            Err(error) => {
                self.error(
                    Code::UnreadableFile,
                    node.span,
                    format!("cannot read `{path}`: {error}"),
                    "the path is relative to the file that names it",
                );
                return None;
            }
        };
        self.attached.push(file);
        let content = std::sync::Arc::clone(&self.files.get(file).text);
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(content.as_bytes());
        let mut map = BTreeMap::new();
        let mut faulty = false;
        for record in reader.records() {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    self.error(
                        Code::InvalidValue,
                        node.span,
                        format!("`{path}` is no CSV: {error}"),
                        "write two columns a line: `code,value`",
                    );
                    return None;
                }
            };
            let start = record.position().map_or(0, |position| position.byte());
            let start = usize::try_from(start).unwrap_or(0).min(content.len());
            let line =
                content.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
            let span = crate::diag::Span::new(file, start..start + line.len());
            match (record.get(0), record.get(1), record.len()) {
                (Some(code), Some(value), 2) => {
                    if map.insert(code.to_owned(), Json::String(value.to_owned())).is_some() {
                        faulty = true;
                        self.push(
                            Diagnostic::new(
                                Code::DuplicateKey,
                                span,
                                format!("a second row for `{code}`"),
                            )
                            .help("keep one of the two")
                            .related(node.span, "the file is named here"),
                        );
                    }
                }
                _ => {
                    faulty = true;
                    self.push(
                        Diagnostic::new(
                            Code::InvalidValue,
                            span,
                            format!(
                                "a row has two columns, code and value; this one has {}",
                                record.len()
                            ),
                        )
                        .help("write `code,value`; a value that holds a comma stands in double quotes")
                        .related(node.span, "the file is named here"),
                    );
                }
            }
        }
        (!faulty).then_some(map)
    }

    fn format(&mut self, node: &Node, type_: Option<Type>, faulty: &mut bool) -> Option<String> {
        let format = string(node, "format")?;
        let span = node.get("format")?.span;
        if !matches!(type_, None | Some(Type::Timestamp)) {
            *faulty = true;
            self.error(
                Code::InvalidValue,
                span,
                "`format` belongs to `type: timestamp`",
                "write `type: timestamp`, or remove `format`",
            );
            return None;
        }
        const WORDS: [&str; 2] = ["unix", "unix_ms"];
        let known = if format.contains('%') {
            let sample = jiff::Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC);
            jiff::fmt::strtime::format(&format, &sample)
                .map(drop)
                .map_err(|error| error.to_string())
        } else if WORDS.contains(&format.as_str()) {
            Ok(())
        } else {
            Err("no such format".to_owned())
        };
        if let Err(why) = known {
            *faulty = true;
            self.push(
                Diagnostic::new(Code::InvalidValue, span, format!("`{format}`: {why}")).help(
                    "write `unix`, `unix_ms`, or a strftime pattern such as `%Y-%m-%d %H:%M:%S`",
                ),
            );
            return None;
        }
        Some(format)
    }

    fn zone(&mut self, node: &Node, faulty: &mut bool) -> Option<TimeZone> {
        let zone = scalar(node.get("zone")?)?;
        match TimeZone::get(&zone.text) {
            Ok(found) => Some(found),
            Err(_) => {
                *faulty = true;
                self.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        node.get("zone")?.span,
                        format!("there is no time zone `{}`", zone.text),
                    )
                    .help("write a name such as `Europe/Berlin` or `UTC`"),
                );
                None
            }
        }
    }
}

fn type_of(word: &str) -> Option<Type> {
    Some(match word {
        "string" => Type::String,
        "integer" => Type::Integer,
        "decimal" => Type::Decimal,
        "number" => Type::Number,
        "boolean" => Type::Boolean,
        "timestamp" => Type::Timestamp,
        "json" => Type::Json,
        _ => return None,
    })
}
