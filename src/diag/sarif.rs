//! For code scanning: SARIF 2.1.0, which GitHub, Azure DevOps and editors show.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value as Json, json};

use super::code::Code;
use super::repository::Repository;
use super::{Diagnostic, Severity, Span, place};
use crate::files::Files;

/// What stands in a URI's path as it is. A `:` does not: before the first `/` it would end a scheme.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// One log with one run, also where nothing was found: an upload of it closes what an earlier one reported.
pub fn render(files: &Files, diagnostics: &[Diagnostic], repository: &Repository) -> String {
    let mut codes: Vec<Code> = diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
    codes.sort();
    codes.dedup();
    let rules: Vec<Json> = codes.iter().map(|code| rule(*code)).collect();
    let results: Vec<Json> = diagnostics
        .iter()
        .map(|diagnostic| {
            let index = codes.iter().position(|code| *code == diagnostic.code);
            result(files, diagnostic, index, repository)
        })
        .collect();
    let driver = json!({ "name": "router", "version": env!("CARGO_PKG_VERSION"), "rules": rules });
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": driver },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{log:#}\n")
}

fn rule(code: Code) -> Json {
    json!({
        "id": code.as_str(),
        "name": code.name(),
        "shortDescription": { "text": code.name().replace('-', " ") },
        "defaultConfiguration": { "level": level(code.severity()) },
    })
}

fn result(
    files: &Files,
    diagnostic: &Diagnostic,
    rule: Option<usize>,
    repository: &Repository,
) -> Json {
    let related: Vec<Json> = diagnostic
        .related
        .iter()
        .map(|(span, message)| {
            json!({
                "message": text(message),
                "physicalLocation": physical(files, *span, repository),
            })
        })
        .collect();
    json!({
        "ruleId": diagnostic.code.as_str(),
        "ruleIndex": rule,
        "level": level(diagnostic.severity),
        "message": text(&diagnostic.words()),
        "locations": [{ "physicalLocation": physical(files, diagnostic.span, repository) }],
        "relatedLocations": related,
    })
}

/// A message. The standard (3.11.5) keeps braces for placeholders: one that is meant stands twice, and readers take it back.
fn text(message: &str) -> Json {
    json!({ "text": message.replace('{', "{{").replace('}', "}}") })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn physical(files: &Files, span: Span, repository: &Repository) -> Json {
    let (start, end) = place::of(files, span);
    json!({
        "artifactLocation": { "uri": uri(&repository.path(files, span.file)) },
        "region": {
            "startLine": start.line,
            "startColumn": start.column,
            "endLine": end.line,
            "endColumn": end.column,
        },
    })
}

fn uri(path: &str) -> String {
    let encoded = utf8_percent_encode(path, ENCODED);
    if path.starts_with('/') { format!("file://{encoded}") } else { encoded.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::example::{example, repository};

    /// The log with the same version at every release.
    fn shown(files: &Files, diagnostics: &[Diagnostic]) -> String {
        let mut log: Json =
            serde_json::from_str(&render(files, diagnostics, &repository())).expect("JSON");
        log["runs"][0]["tool"]["driver"]["version"] = json!("VERSION");
        format!("{log:#}\n")
    }

    #[test]
    fn is_one_log() {
        let (files, diagnostics) = example();
        insta::assert_snapshot!(shown(&files, &diagnostics));
    }

    #[test]
    fn holds_a_run_where_nothing_is_found() {
        insta::assert_snapshot!(shown(&Files::new(""), &[]));
    }

    /// What the schema asks of the members that are written here: which there must be and may be, and of what type.
    #[test]
    fn fits_the_schema() {
        fn members(object: &Json, must: &[&str], may: &[&str]) {
            let object = object.as_object().expect("an object");
            for name in must {
                assert!(object.contains_key(*name), "no {name}");
            }
            for name in object.keys() {
                assert!(must.contains(&name.as_str()) || may.contains(&name.as_str()), "{name}");
            }
        }
        fn list(value: &Json) -> &Vec<Json> {
            value.as_array().expect("a list")
        }
        fn message(value: &Json) {
            members(value, &["text"], &[]);
            assert!(!value["text"].as_str().expect("a text").is_empty());
        }
        fn location(value: &Json) {
            members(value, &["physicalLocation"], &["message"]);
            let physical = &value["physicalLocation"];
            members(physical, &["artifactLocation", "region"], &[]);
            members(&physical["artifactLocation"], &["uri"], &[]);
            let uri = physical["artifactLocation"]["uri"].as_str().expect("a text");
            assert!(
                uri.bytes()
                    .all(|byte| { byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte) })
            );
            assert!(!uri.starts_with('/'), "{uri}");
            let numbers = ["startLine", "startColumn", "endLine", "endColumn"]
                .map(|name| physical["region"][name].as_u64().expect("a number"));
            members(
                &physical["region"],
                &["startLine", "startColumn", "endLine", "endColumn"],
                &[],
            );
            assert!(numbers.iter().all(|number| *number >= 1), "{numbers:?}");
            assert!((numbers[0], numbers[1]) <= (numbers[2], numbers[3]), "{numbers:?}");
        }
        let (files, diagnostics) = example();
        for found in [&diagnostics[..], &[]] {
            let log: Json =
                serde_json::from_str(&render(&files, found, &repository())).expect("JSON");
            members(&log, &["$schema", "version", "runs"], &[]);
            assert_eq!(log["version"], "2.1.0");
            assert_eq!(list(&log["runs"]).len(), 1);
            let run = &log["runs"][0];
            members(run, &["tool", "columnKind", "results"], &[]);
            assert_eq!(run["columnKind"], "unicodeCodePoints");
            members(&run["tool"], &["driver"], &[]);
            let driver = &run["tool"]["driver"];
            members(driver, &["name", "version", "rules"], &[]);
            assert!(driver["version"].is_string());
            let rules = list(&driver["rules"]);
            for rule in rules {
                members(rule, &["id", "name", "shortDescription", "defaultConfiguration"], &[]);
                assert!(rule["id"].is_string() && rule["name"].is_string());
                message(&rule["shortDescription"]);
                members(&rule["defaultConfiguration"], &["level"], &[]);
            }
            assert_eq!(list(&run["results"]).len(), found.len());
            for result in list(&run["results"]) {
                let names =
                    ["ruleId", "ruleIndex", "level", "message", "locations", "relatedLocations"];
                members(result, &names, &[]);
                let index = result["ruleIndex"].as_u64().expect("a number");
                assert_eq!(rules[usize::try_from(index).expect("small")]["id"], result["ruleId"]);
                assert!(["error", "warning"].map(Json::from).contains(&result["level"]));
                message(&result["message"]);
                assert_eq!(list(&result["locations"]).len(), 1);
                list(&result["locations"]).iter().for_each(location);
                for related in list(&result["relatedLocations"]) {
                    location(related);
                    message(&related["message"]);
                }
            }
        }
    }

    #[test]
    fn braces_are_doubled() {
        assert_eq!(text("write `{{ a }}`"), json!({ "text": "write `{{{{ a }}}}`" }));
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(uri("eu/a b:%ä.yaml"), "eu/a%20b%3A%25%C3%A4.yaml");
        assert_eq!(uri("/etc/a b.csv"), "file:///etc/a%20b.csv");
    }
}
