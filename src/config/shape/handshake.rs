//! `handshake`: challenges and their answers.

use super::source::RESPOND_HEADERS;
use super::verify::SELECTOR;
use super::{Key, Mapping, Names, Shape, key, word};

pub(super) const HANDSHAKE: Key = key(
    "handshake",
    Shape::Many(&ONE),
    "Challenges that are answered and are no events; of several the first that fits.",
);

static ONE: Shape = Shape::Mapping(&CHALLENGE);

static CHALLENGE: Mapping = Mapping {
    name: "a handshake",
    keys: &[
        key("when", Shape::Mapping(&CONDITIONS), "What makes a request this challenge: all of it.")
            .required(),
        key("verify", Shape::Bool, "The sender must prove itself first.").default("true"),
        key("respond", Shape::Mapping(&ANSWER), "The answer.").default("200, empty"),
        key(
            "capture_secret",
            Shape::Mapping(&SELECTOR),
            "Where the secret stands that this handshake brings: it is kept for `secret: { captured: true }`, while `router sources arm` waits for it. With `verify: false`.",
        ),
        key(
            "confirm",
            Shape::Mapping(&CONFIRM),
            "A URL that is asked for, by a GET, before the answer leaves; the sender has proved itself.",
        ),
    ],
    one_of: &[],
};

/// `when` of a handshake, `require` of a scheme.
pub(super) static CONDITIONS: Mapping = Mapping {
    name: "a condition on a request",
    keys: &[
        key(
            "method",
            Shape::Word(&[
                word("GET", ""),
                word("POST", ""),
                word("HEAD", ""),
                word("OPTIONS", ""),
                word("PUT", ""),
                word("PATCH", ""),
                word("DELETE", ""),
            ]),
            "Its method; for a handshake the source takes it for this alone.",
        ),
        key("header", Shape::Names(&EXPECTED), "Headers, by name."),
        key("query", Shape::Names(&EXPECTED), "Query parameters, by name."),
        key("form", Shape::Names(&EXPECTED), "Fields of a form, by name."),
        key("json", Shape::Names(&EXPECTED), "Values of the JSON body, by paths such as `$.type`."),
        key(
            "content_type",
            Shape::Text,
            "The media type, such as `application/json`; what may follow it is not looked at.",
        ),
    ],
    one_of: &[],
};

/// `true` there, `false` not there, anything else equal.
static EXPECTED: Names = Names {
    what: "a place",
    pattern: "",
    value: Shape::Any(&[Shape::Scalar, Shape::Mapping(&MATCH)]),
};

static MATCH: Mapping = Mapping {
    name: "an expected value",
    keys: &[key("match", Shape::Text, "A regular expression for the whole value.").required()],
    one_of: &[],
};

static CONFIRM: Mapping = Mapping {
    name: "a confirmation",
    keys: &[
        key("get", Shape::Mapping(&SELECTOR), "The place in the challenge that holds the URL.")
            .required(),
        key("host", Shape::Text, "A regular expression for the whole host: no other is asked.")
            .required(),
        key("path", Shape::Text, "A regular expression for the whole path."),
    ],
    one_of: &[],
};

static ANSWER: Mapping = Mapping {
    name: "`respond` of a handshake",
    keys: &[
        key("status", Shape::Count(200, 299), "The status code.").default("200"),
        key(
            "headers",
            Shape::Names(&RESPOND_HEADERS),
            "Headers; their values may take up `{query.N} {header.N} {form.N} {json:$.p} {config.N}`.",
        ),
        key(
            "body",
            Shape::Any(&[Shape::Text, Shape::Json]),
            "Text, or anything else as JSON; its texts may take up `{query.N} {header.N} {form.N} {json:$.p} {config.N}`, and their HMAC by the source's secret: `{json:$.p|hmac:sha256:hex}`.",
        ),
    ],
    one_of: &[],
};
