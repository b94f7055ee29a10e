//! A source: one ingress path, its verification, and how an event's id, type and time are found. Extractions too.

use super::handshake::HANDSHAKE;
use super::verify::VERIFY;
use super::{DASHED, Key, Mapping, Names, Shape, key, later, word};

/// A JSONPath, or a mapping with the ways to find and to check a value. (A `static`, as constants may not form a circle.)
static EXTRACTION_FORMS: [Shape; 2] = [Shape::JsonPath, Shape::Mapping(&EXTRACTION_KEYS)];

pub static EXTRACTION_KEYS: Mapping = Mapping {
    name: "an extraction",
    keys: extraction_keys!(),
    one_of: &["from", "header", "query", "form", "path", "value"],
};

macro_rules! extraction_keys {
    ($($extra:expr),* $(,)?) => { &[
        key("from", Shape::JsonPath, "A JSONPath (RFC 9535) into the payload: `$.customer.email`."),
        key("header", Shape::Text, "A request header."),
        key("query", Shape::Text, "A query parameter."),
        key("form", Shape::Text, "A form field."),
        key("path", Shape::Text, "A `{name}` part of the source's path."),
        key("value", Shape::Scalar, "A template: `{{ payload.a }}-{{ payload.b }}`."),
        $($extra,)*
        key("type", Shape::Word(TYPES), "The type that the value must take; a value that cannot sends the delivery to review."),
        key("required", Shape::Bool, "Absent: the delivery goes to review.").default("false"),
        key("default", Shape::Json, "Taken where the value is absent or null; it never hides a value of a wrong type."),
        key("one_of", Shape::List(&Shape::Json), "The values that are allowed."),
        key("match", Shape::Text, "A regular expression for the whole value; with one capture group the group is the value."),
        key("map", Shape::Any(&[Shape::Names(&MAP)]), "A code becomes a value: `{ price_1: pro }` or `{ file: skus.csv }`; an unknown one goes to review unless there is a `default`."),
        key("each", Shape::Names(&EACH), "Maps every hit to an object of these extractions, as a list."),
        key("all", Shape::Bool, "Every hit, as a list; without it the first.").default("false"),
        key("format", Shape::Text, "How a timestamp is written: `unix`, `unix_ms`, or a strftime pattern; left out: RFC 3339, RFC 2822, Unix seconds or milliseconds."),
        key("zone", Shape::Text, "The time zone of timestamps that name none: `Europe/Berlin`.").default("UTC"),
    ] };
}
use extraction_keys;

const TYPES: &[super::Word] = &[
    word("string", "takes text, numbers, true and false"),
    word("integer", "takes whole numbers and texts of digits"),
    word("decimal", "takes numbers and their texts; every digit is kept"),
    word("number", "takes numbers and their texts"),
    word("boolean", "takes true, false and their texts, 1 and 0"),
    word("timestamp", "takes RFC 3339, RFC 2822, Unix seconds or milliseconds, or `format`"),
    word("json", "takes anything"),
];

static MAP: Names = Names { what: "a code", pattern: "", value: Shape::Json };

static EACH: Names =
    Names { what: "a field", pattern: super::SNAKE_PATTERN, value: Shape::Any(&EXTRACTION_FORMS) };

/// `fields`, `save`
pub static FIELDS: Names =
    Names { what: "a field", pattern: super::SNAKE_PATTERN, value: Shape::Any(&EXTRACTION_FORMS) };

/// `event.id`: an extraction, or one derived from the body.
static EVENT_ID_FORMS: [Shape; 2] = [Shape::JsonPath, Shape::Mapping(&EVENT_ID_KEYS)];

static EVENT_ID_KEYS: Mapping = Mapping {
    name: "an event id",
    keys: extraction_keys!(
        key(
            "hash",
            Shape::Any(&[
                Shape::Word(&[word("body", "the body, less `volatile`")]),
                Shape::List(&Shape::Any(&EXTRACTION_FORMS))
            ]),
            "Derived (best effort): the hash of the `body`, or of the values of these extractions.",
        ),
        key(
            "arrival",
            Shape::True,
            "Every arrival is an event of its own, a resend too: for notices that say only that something changed.",
        )
    ),
    one_of: &["from", "header", "query", "form", "path", "value", "hash", "arrival"],
};

pub static EVENT: Mapping = Mapping {
    name: "`event`",
    keys: &[
        key(
            "id",
            Shape::Many(&Shape::Any(&EVENT_ID_FORMS)),
            "The provider's id of the event; of several the first that yields.",
        ),
        key(
            "missing_id",
            Shape::Word(&[
                word("derive", "the hash of the body stands for it"),
                word("review", "the event goes to review"),
                word("reject", "the sender gets 400"),
            ]),
            "What to do with an event without an id.",
        )
        .default("derive"),
        key(
            "same_as",
            Shape::Many(&Shape::Any(&EXTRACTION_FORMS)),
            "Further identities: a known one makes the event a duplicate.",
        ),
        key(
            "volatile",
            Shape::List(&Shape::JsonPath),
            "What the provider changes when it resends: left out when bodies are hashed or compared.",
        ),
        key(
            "on_conflict",
            Shape::Word(&[
                word("review", "kept, counted and shown to a person"),
                word("ignore", "counted"),
                word("new_event", "taken in as an event of its own"),
            ]),
            "Same id, really different body.",
        )
        .default("review"),
        key("type", Shape::Any(&EXTRACTION_FORMS), "The event's type, for `on`."),
        key("occurred_at", Shape::Any(&EXTRACTION_FORMS), "When it happened at the provider."),
        key(
            "split",
            Shape::Any(&[Shape::JsonPath, Shape::False]),
            "A path whose hits become events of their own: each is the payload of its event everywhere; `false` turns a preset's off.",
        )
        .default("one POST is one event"),
    ],
    one_of: &[],
};

/// `respond`
pub static RESPOND: Mapping = Mapping {
    name: "`respond`",
    keys: &[
        key("status", Shape::Count(200, 299), "The status code.").default("200"),
        key("headers", Shape::Names(&RESPOND_HEADERS), "Headers, as they are."),
        key(
            "body",
            Shape::Any(&[Shape::Text, Shape::Json]),
            "Text as it is; anything else as JSON.",
        ),
        key(
            "unverified",
            Shape::Count(400, 499),
            "The status code for a sender that did not prove itself; the answer has no body.",
        )
        .default("401"),
    ],
    one_of: &[],
};

pub(super) static RESPOND_HEADERS: Names =
    Names { what: "a header", pattern: "", value: Shape::Text };

pub const BODY: Shape = Shape::Any(&[
    Shape::Word(&[
        word("json", "JSON"),
        word(
            "form",
            "a form, multipart too: a name's text, or a list where it is repeated; of a file that is no text `filename`, `content_type`, `size` and `sha256`",
        ),
        word("text", "UTF-8 text"),
        word("binary", "bytes, forwarded by `raw: true` alone"),
        word("jwt", "a JSON Web Token: its claims"),
    ]),
    Shape::Mapping(&BODY_IN),
]);

static BODY_IN: Mapping = Mapping {
    name: "a body",
    keys: &[
        key(
            "json_in",
            Shape::Text,
            "The field of a form, multipart too, that holds the payload as JSON; the other fields are read by `form`, unless `event.split` takes the payload apart.",
        ),
        key(
            "base64_in",
            Shape::JsonPath,
            "The place of base64 in JSON or in a form, as a path of plain members: what it holds stands in the payload at that place. Absent, null or empty: the payload stays as it is.",
        ),
        key(
            "as",
            Shape::Any(&[
                Shape::Word(&[word("json", "JSON"), word("text", "UTF-8 text")]),
                Shape::Mapping(&BASE64_DOCUMENT),
            ]),
            "What the base64 of `base64_in` holds.",
        )
        .default("json"),
        key("xml", Shape::Names(&XML), XML_DOC),
    ],
    one_of: &["json_in", "base64_in", "xml"],
};

static BASE64_DOCUMENT: Mapping = Mapping {
    name: "a document in base64",
    keys: &[key("xml", Shape::Names(&XML), XML_DOC).required()],
    one_of: &[],
};

const XML_DOC: &str = "What is read of XML, by the name that it gets in the payload: the text that stands in an element itself, `/notification/kind`, or an attribute, `/notification/@id`, without blanks at the ends; a list where there are several, left out where there is none. Names of elements are compared without their namespaces. A document type makes the event malformed. Without `volatile` events are told apart by all of the XML, not only by what is read.";

static XML: Names = Names { what: "a text", pattern: super::SNAKE_PATTERN, value: Shape::Text };

pub const MAX_BODY: Key = key("max_body", Shape::Size, "More answers 413.").default("1MiB");

macro_rules! source_keys {
    ($($extra:expr),* $(,)?) => { &[
        $($extra,)*
        key("path", Shape::Text, "Where the provider POSTs: `/hooks/store`; `{name}` parts are read as `path.name`.").required(),
        key("methods", Shape::List(&Shape::Word(&[word("POST", ""), word("PUT", ""), word("PATCH", ""), word("GET", ""), word("DELETE", "")])), "Methods that are taken.").default("[POST]"),
        key("verify", Shape::Mapping(&VERIFY), "How the sender proves itself.").required(),
        key("event", Shape::Mapping(&EVENT), "Where the event's id, type and time are; a preset knows its own, and what is given here wins."),
        key("body", BODY, "What the body is.").default("by Content-Type"),
        MAX_BODY,
        key("respond", Shape::Mapping(&RESPOND), "The answer on acceptance and on a duplicate.").default("200, empty"),
        key("on_malformed", Shape::Word(&[word("review", "kept and shown to a person: it is authentic"), word("reject", "the sender gets 400")]), "What to do with a body that cannot be read.").default("review"),
        key("public_url", Shape::Text, "The URL as the provider knows it, for schemes that sign it.").default("`public_url` of router.yaml and the path"),
        key("retain", Shape::Duration, "How long finished events keep their payload; what is in review stays.")
            .default("30d"),
        key("dedupe", Shape::Duration, "How long ids and explicit idempotency keys are remembered after that they were finished; at least `retain`.")
            .default("30d"),
        later("allow_ips"),
        later("rate_limit"),
        later("reconcile"),
        HANDSHAKE,
    ] };
}

/// Inline in a route.
pub static SOURCE: Mapping = Mapping {
    name: "a source",
    keys: source_keys![
        key("name", DASHED, "Events are unique per source name.").default("the route's name")
    ],
    one_of: &[],
};

/// A file of `sources/`.
pub static SOURCE_FILE: Mapping = Mapping {
    name: "a shared source",
    keys: source_keys![key("source", DASHED, "The name by which routes take it.").required()],
    one_of: &[],
};
