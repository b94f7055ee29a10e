//! For machines: `router check --format json`.

use serde_json::{Value as Json, json};

use super::{Diagnostic, Span, count, place};
use crate::files::Files;

/// One object, as the language's last section gives it.
pub fn render(files: &Files, diagnostics: &[Diagnostic]) -> String {
    let (errors, warnings) = count(diagnostics);
    let found: Vec<Json> = diagnostics.iter().map(|diagnostic| one(files, diagnostic)).collect();
    let root = files.root.display().to_string();
    let object =
        json!({ "root": root, "diagnostics": found, "errors": errors, "warnings": warnings });
    format!("{object:#}\n")
}

fn one(files: &Files, diagnostic: &Diagnostic) -> Json {
    let mut object = json!({
        "code": diagnostic.code.as_str(),
        "name": diagnostic.code.name(),
        "severity": diagnostic.severity,
        "message": diagnostic.message,
    });
    add(&mut object, located(files, diagnostic.span));
    let fix = diagnostic.fix.as_ref().map(|fix| {
        let mut object = located(files, fix.span);
        add(&mut object, json!({ "replacement": fix.replacement }));
        object
    });
    let related: Vec<Json> = diagnostic
        .related
        .iter()
        .map(|(span, message)| {
            let mut object = json!({ "message": message });
            add(&mut object, located(files, *span));
            object
        })
        .collect();
    add(&mut object, json!({ "help": diagnostic.help, "fix": fix, "related": related }));
    object
}

fn located(files: &Files, span: Span) -> Json {
    let (start, end) = place::of(files, span);
    json!({
        "file": files.get(span.file).name,
        "line": start.line,
        "column": start.column,
        "endLine": end.line,
        "endColumn": end.column,
    })
}

fn add(object: &mut Json, more: Json) {
    if let (Json::Object(object), Json::Object(more)) = (object, more) {
        object.extend(more);
    }
}
