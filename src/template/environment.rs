//! The one minijinja environment: which filters, tests and functions there are, fuel, spelling. Built once.

use std::sync::LazyLock;

use minijinja::value::{Rest, Value};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior};

use super::context::{NOW, UUID, step};
use super::filters;
use super::lower::{GET, ITEMS, ORDER, PLAIN, SCALAR, TEXT};
use super::value::{PathKey, is_scalar, items, plain, text_of, to_json};

/// Instructions, bytes and list slots that one rendering may cost.
const FUEL: u64 = 2_000_000;

pub(super) const FILTERS: [&str; 55] = [
    "abs",
    "attr",
    "b64decode",
    "b64encode",
    "batch",
    "bool",
    "capitalize",
    "chain",
    "count",
    "d",
    "default",
    "dictsort",
    "first",
    "float",
    "format",
    "groupby",
    "hmac_sha256",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "minor_units",
    "money",
    "optional",
    "raw_url",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sha256",
    "slice",
    "slug",
    "sort",
    "split",
    "string",
    "sum",
    "timestamp",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "urlencode",
    "zip",
];
pub(super) const TESTS: [&str; 38] = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "even",
    "false",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
];
pub(super) const FUNCTIONS: [&str; 5] = ["dict", "namespace", "now", "range", "uuid"];

pub(super) static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Chainable);
    env.set_debug(false);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(64);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_syntax(syntax());
    env.remove_global("debug");
    for name in ["pprint", "safe", "escape", "e"] {
        env.remove_filter(name);
    }
    env.set_formatter(|out, _, value| {
        let text = to_json(value).and_then(|json| text_of(&json));
        let text = text.map_err(|why| Error::new(ErrorKind::InvalidOperation, why))?;
        out.write_str(&text).map_err(Error::from)
    });
    env.add_filter(GET, get);
    env.add_filter(PLAIN, plain);
    env.add_filter(ITEMS, items);
    env.add_filter(ORDER, order);
    env.add_filter(TEXT, argument_text);
    env.add_filter(SCALAR, |value: &Value| match is_scalar(value) {
        true => Ok(value.clone()),
        false => {
            let why =
                "a namespace keeps texts, numbers and booleans; lists and objects it does not";
            Err(Error::new(ErrorKind::InvalidOperation, why))
        }
    });
    env.add_test("none", |value: &Value| value.is_none() || value.is_undefined());
    env.add_filter("default", default);
    env.add_filter("d", default);
    env.add_filter("optional", |value: &Value| value.clone());
    env.add_filter("raw_url", |value: &Value| value.clone());
    filters::add(&mut env);
    env.add_function("now", |state: &State| state.lookup(NOW));
    env.add_function("uuid", |state: &State| state.lookup(UUID));
    env
});

/// A template keeps its last newline.
pub(super) fn syntax() -> minijinja::syntax::SyntaxConfig {
    minijinja::syntax::SyntaxConfig::builder()
        .keep_trailing_newline(true)
        .build()
        .expect("the default delimiters with another newline rule are a valid syntax")
}

fn get(value: &Value, key: &Value) -> Result<Value, Error> {
    let found = match (key.as_str(), key.as_i64()) {
        (Some(name), _) => step(value, &PathKey::Name(name.to_owned())),
        (None, Some(at)) => step(value, &PathKey::Index(at)),
        (None, None) => Ok(plain(&value.get_item(key).unwrap_or_default())),
    };
    found.map_err(|why| Error::new(ErrorKind::UndefinedError, why))
}

/// MiniJinja sets every text above every number, so `"19.90" > 100` would hold. What cannot be compared is an error.
fn order(left: &Value, operator: &str, right: &Value) -> Result<bool, Error> {
    use minijinja::value::ValueKind;
    let word = |value: &Value| match value.kind() {
        ValueKind::String => "a text",
        ValueKind::Number => "a number",
        ValueKind::Bool => "a boolean",
        ValueKind::None | ValueKind::Undefined => "none",
        _ => "a list or an object",
    };
    if word(left) != word(right) {
        let message = format!(
            "{} and {} cannot be compared by `{operator}`; `| float` or `| int` makes a text a number",
            word(left),
            word(right)
        );
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    Ok(match operator {
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        _ => left >= right,
    })
}

/// `default(x)` replaces `none` too; `default(x, true)` also what is false.
fn default(value: &Value, args: Rest<Value>) -> Result<Value, Error> {
    if args.len() > 2 {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let lax = args.get(1).is_some_and(Value::is_true);
    if value.is_undefined() || value.is_none() || (lax && !value.is_true()) {
        Ok(args.first().cloned().unwrap_or_else(|| Value::from("")))
    } else {
        Ok(value.clone())
    }
}

/// For filters: the argument's text, where `none` has none.
pub(super) fn argument_text(value: &Value) -> Result<String, Error> {
    to_json(value)
        .and_then(|json| text_of(&json))
        .map_err(|why| Error::new(ErrorKind::InvalidOperation, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::value::short;

    #[test]
    fn every_listed_name_exists() {
        for name in FILTERS {
            let error = ENVIRONMENT.empty_state().apply_filter(name, &[Value::from("x")]).err();
            let unknown = error.filter(|error| error.kind() == ErrorKind::UnknownFilter);
            assert!(unknown.is_none(), "filter {name}: {}", short(&unknown.unwrap()));
        }
        for name in TESTS {
            let error = ENVIRONMENT.empty_state().perform_test(name, &[Value::from("x")]).err();
            let unknown = error.filter(|error| error.kind() == ErrorKind::UnknownTest);
            assert!(unknown.is_none(), "test {name}: {}", short(&unknown.unwrap()));
        }
        for name in FUNCTIONS {
            assert!(ENVIRONMENT.globals().any(|(global, _)| global == name), "{name}");
        }
    }
}
