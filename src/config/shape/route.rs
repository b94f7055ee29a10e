//! A route and its steps.

use super::source::{FIELDS, SOURCE};
use super::verify::SECRET_REF;
use super::{DASHED, Key, Mapping, Names, SNAKE, SNAKE_PATTERN, Shape, key, later, word};

/// A file of `routes/`.
pub static ROUTE: Mapping = Mapping {
    name: "a route",
    keys: &[
        key("route", DASHED, "The route's name, unique.").required(),
        key("description", Shape::Text, "What it does, for people."),
        key("owner", Shape::Text, "Who answers for it."),
        key("docs", Shape::Text, "Where its runbook is."),
        key("labels", Shape::Names(&LABELS), "For people: shown, never read."),
        key(
            "source",
            Shape::Any(&[Shape::Text, Shape::Mapping(&SOURCE)]),
            "Where events come from: a mapping, or the name of a file in `sources/`.",
        )
        .required(),
        key(
            "on",
            Shape::Many(&Shape::Text),
            "Event types or globs (`*` is any run of characters); a leading `!` excludes. Left out: all.",
        ),
        key(
            "when",
            Shape::Condition,
            "Worked on only where this holds; it reads event, payload, headers, query, path and env.",
        ),
        key("fields", Shape::Names(&FIELDS), "Names for what the steps need of the payload."),
        key(
            "secrets",
            Shape::Names(&SECRETS),
            "Secrets that templates may read, as `secrets.NAME`.",
        ),
        key("env", Shape::Names(&ENV), "Variables that templates may read, as `env.NAME`."),
        key("steps", Shape::List(&Shape::Mapping(&STEP)), "Calls, in order.").required(),
        RETRY,
        TIMEOUT,
        later("payload_schema"),
        later("order"),
        later("paused"),
        later("dry_run"),
        later("on_failure"),
    ],
    one_of: &[],
};

static LABELS: Names = Names { what: "a label", pattern: "", value: Shape::Scalar };

static SECRETS: Names =
    Names { what: "a secret", pattern: SNAKE_PATTERN, value: Shape::Mapping(&SECRET_REF) };

static ENV: Names = Names {
    what: "a variable",
    pattern: SNAKE_PATTERN,
    value: Shape::Any(&[Shape::Text, Shape::Mapping(&VARIABLE)]),
};

static VARIABLE: Mapping = Mapping {
    name: "a variable",
    keys: &[
        key("env", Shape::Text, "The environment variable.").required(),
        key("default", Shape::Scalar, "Taken where it is not set."),
    ],
    one_of: &[],
};

const RETRY: Key = key(
    "retry",
    Shape::Mapping(&RETRY_KEYS),
    "When and how often a failed attempt is repeated; step over route over built-in, key by key.",
);

const TIMEOUT: Key =
    key("timeout", Shape::Duration, "How long one whole call may take.").default("10s");

pub static STEP: Mapping = Mapping {
    name: "a step",
    keys: &[
        key("name", SNAKE, "Unique in the route.").required(),
        key("was", Shape::Any(&[Shape::Text]), "The name it had before."),
        key("when", Shape::Condition, "Skipped where this does not hold."),
        key("needs", Shape::Many(&Shape::Text), "Steps that come first; `[]`: at once.")
            .default("the step written above"),
        key("call", Shape::Mapping(&CALL), "The HTTP call.").required(),
        key(
            "idempotency_key",
            Shape::Scalar,
            "What makes two calls the same action, here and downstream.",
        )
        .default("derived from source, event, route and step"),
        key("success", SUCCESS, "Which answers mean done.").default("[2xx]"),
        RETRY,
        TIMEOUT,
        key(
            "save",
            Shape::Names(&FIELDS),
            "Names for what later steps need of the answer; `$` is its JSON.",
        ),
        key(
            "repeat",
            Shape::Word(&[word("ok", "repeating the call does no harm")]),
            "Says that repeating this call does no harm.",
        ),
        later("for_each"),
        later("lookup"),
        later("at_most_once"),
        later("approve"),
        later("delay"),
        later("undoes"),
    ],
    one_of: &[],
};

const STATUS_OR_CONDITION: Shape = Shape::Any(&[Shape::Condition, Shape::List(&Shape::Status)]);
const SUCCESS: Shape = STATUS_OR_CONDITION;

pub static CALL: Mapping = Mapping {
    name: "a call",
    keys: &[
        key("to", Shape::Text, "A destination of router.yaml; without it the URL is whole."),
        key("get", Shape::Text, "GET this URL or path."),
        key("post", Shape::Text, "POST to this URL or path."),
        key("put", Shape::Text, "PUT to this URL or path."),
        key("patch", Shape::Text, "PATCH this URL or path."),
        key("delete", Shape::Text, "DELETE this URL or path."),
        key("headers", Shape::Names(&CALL_HEADERS), "Headers; templates."),
        key("query", Shape::Names(&CALL_QUERY), "Query parameters; templates."),
        key(
            "json",
            Shape::Json,
            "The body as JSON; a text that is one whole `{{ expression }}` keeps its type.",
        ),
        key("form", Shape::Names(&CALL_QUERY), "The body as a form."),
        key("text", Shape::Scalar, "The body as text."),
        key("raw", Shape::True, "Forwards the event's body as it came."),
    ],
    one_of: &["get", "post", "put", "patch", "delete"],
};

static CALL_HEADERS: Names = Names { what: "a header", pattern: "", value: Shape::Scalar };
static CALL_QUERY: Names = Names { what: "a parameter", pattern: "", value: Shape::Scalar };

pub static RETRY_KEYS: Mapping = Mapping {
    name: "`retry`",
    keys: &[
        key("for", Shape::Duration, "No attempt starts later than this after the first one.").default("24h"),
        key("attempts", Shape::Count(1, 1000), "How many attempts at most.").default("100"),
        key("first", Shape::Duration, "The first pause.").default("1s"),
        key("factor", Shape::Factor(1.0), "Each pause is this much longer.").default("2"),
        key("max", Shape::Duration, "The longest pause.").default("1h"),
        key("jitter", Shape::Word(&[word("full", "anywhere between nothing and the pause"), word("none", "exactly the pause")]), "How pauses are scattered.").default("full"),
        key("on", Shape::List(&Shape::Scalar), "What is worth another attempt: `network`, `timeout`, codes, classes (`5xx`), conditions on `response`.").default("[network, timeout, 408, 425, 429, 5xx]"),
    ],
    one_of: &[],
};
