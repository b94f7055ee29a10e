//! A provider preset: how a provider signs and where it puts id, type and time.

use super::handshake::HANDSHAKE;
use super::source::{BODY, EVENT, MAX_BODY, RESPOND};
use super::verify::{SCHEME, STRENGTH};
use super::{DASHED, Mapping, Names, Shape, key, later, word};

pub static PROVIDER: Mapping = Mapping {
    name: "a provider preset",
    keys: &[
        key("provider", DASHED, "The name by which `verify.provider` takes it.").required(),
        key("title", Shape::Text, "The provider's own spelling of its name."),
        key("docs", Shape::Text, "The provider's own page on its webhooks."),
        key("strength", STRENGTH, "What the scheme proves.").default("by the scheme"),
        key(
            "verify",
            Shape::Mapping(&SCHEME),
            "How the provider proves itself; `secret` is left to the source.",
        )
        .required(),
        key("event", Shape::Mapping(&EVENT), "Where the event's id, type and time are."),
        key(
            "retries",
            Shape::Mapping(&RETRIES),
            "How long the provider resends, and how long it waits for an answer.",
        ),
        key("body", BODY, "What the body is.").default("by Content-Type"),
        MAX_BODY,
        key("respond", Shape::Mapping(&RESPOND), "The answer that the provider expects.")
            .default("200, empty"),
        key(
            "methods",
            Shape::List(&Shape::Word(&[
                word("POST", ""),
                word("PUT", ""),
                word("PATCH", ""),
                word("GET", ""),
                word("DELETE", ""),
            ])),
            "Methods that the provider uses.",
        )
        .default("[POST]"),
        key(
            "config",
            Shape::Names(&SETTINGS),
            "What the source must give under `verify.config`, by name: what it is, in words.",
        ),
        HANDSHAKE,
        later("allow_ips"),
    ],
    one_of: &[],
};

static SETTINGS: Names = Names {
    what: "a setting",
    pattern: super::SNAKE_PATTERN,
    value: Shape::Any(&[Shape::Text, Shape::Mapping(&SETTING)]),
};

static SETTING: Mapping = Mapping {
    name: "a setting",
    keys: &[
        key("about", Shape::Text, "What it is and where the provider shows it.").required(),
        key(
            "default",
            Shape::Text,
            "Taken where the source gives none; one name in braces, such as `{url}`, stands for what it names.",
        ),
    ],
    one_of: &[],
};

static RETRIES: Mapping = Mapping {
    name: "`retries`",
    keys: &[
        key("span", Shape::Duration, "From the first sending to the last."),
        key("timeout", Shape::Duration, "How long it waits for the answer."),
    ],
    one_of: &[],
};
