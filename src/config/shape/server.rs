//! `router.yaml`.

use super::verify::SECRET_REF;
use super::{DASHED_PATTERN, Mapping, Names, Shape, key, later, word};

pub static CONFIG: Mapping = Mapping {
    name: "router.yaml",
    keys: &[
        key("listen", Shape::Text, "Where webhooks come in.").default("0.0.0.0:8080"),
        key("public_url", Shape::Text, "The URL by which providers reach `listen`."),
        key("admin", Shape::Mapping(&ADMIN), "Health, metrics and the API."),
        key("store", Shape::Text, "The folder that holds the durable state.").default("./data"),
        key("workers", Shape::Count(1, 10_000), "Calls in flight at once.").default("64"),
        key("limits", Shape::Mapping(&LIMITS), "Bounds past which work is refused, not absorbed."),
        key("egress", Shape::Mapping(&EGRESS), "Where calls may go."),
        key("audit", Shape::Mapping(&AUDIT), "The record of what operators did."),
        key("destinations", Shape::Names(&DESTINATIONS), "Downstream APIs by name."),
        later("tls"),
        later("trusted_proxies"),
        later("alerts"),
        later("notify"),
        later("encrypt"),
        later("redact"),
        later("otlp"),
    ],
    one_of: &[],
};

static ADMIN: Mapping = Mapping {
    name: "`admin`",
    keys: &[
        key("listen", Shape::Text, "Where the API listens; a public address needs a token.")
            .default("127.0.0.1:8081"),
        key("tokens", Shape::List(&Shape::Mapping(&TOKEN)), "Who may use the API."),
    ],
    one_of: &[],
};

static TOKEN: Mapping = Mapping {
    name: "an admin token",
    keys: &[
        key("name", Shape::Text, "Whose it is, for the log.").required(),
        key(
            "role",
            Shape::Word(&[
                word("viewer", "may look"),
                word("operator", "may replay"),
                word("admin", "may do everything"),
            ]),
            "What it allows.",
        )
        .required(),
        key("token", Shape::Mapping(&SECRET_REF), "Where the token is.").required(),
    ],
    one_of: &[],
};

static LIMITS: Mapping = Mapping {
    name: "`limits`",
    keys: &[
        key("connections", Shape::Count(1, 1_000_000), "Open connections; more answer 503.")
            .default("4096"),
        key("backlog", Shape::Count(1, 1_000_000_000), "Unfinished deliveries; more answer 503.")
            .default("1_000_000"),
        key(
            "split",
            Shape::Count(1, 50_000),
            "Events of one POST under `event.split`; more answer 413.",
        )
        .default("10_000"),
        key("header_timeout", Shape::Duration, "How long a request's head may take.").default("5s"),
        key("body_timeout", Shape::Duration, "How long a request's body may take.").default("10s"),
        key("min_free_disk", Shape::Size, "Less free space answers 503.").default("512MiB"),
    ],
    one_of: &[],
};

static AUDIT: Mapping = Mapping {
    name: "`audit`",
    keys: &[key(
        "retain",
        Shape::Duration,
        "How long what operators did is kept, also of events that are gone.",
    )
    .default("400d")],
    one_of: &[],
};

static EGRESS: Mapping = Mapping {
    name: "`egress`",
    keys: &[
        key("allow", Shape::List(&Shape::Text), "Private, loopback and link-local addresses that calls may reach: `10.0.0.0/8`, `127.0.0.1:9000`, `localhost:9000`.").default("[]"),
        later("proxy"),
    ],
    one_of: &[],
};

static DESTINATIONS: Names =
    Names { what: "a destination", pattern: DASHED_PATTERN, value: Shape::Mapping(&DESTINATION) };

static DESTINATION: Mapping = Mapping {
    name: "a destination",
    keys: &[
        key(
            "url",
            Shape::Any(&[Shape::Text, Shape::Mapping(&SECRET_REF)]),
            "The base URL; a secret reference hides all of it.",
        )
        .required(),
        key("auth", Shape::Mapping(&AUTH), "How calls prove themselves."),
        key(
            "idempotency",
            Shape::Any(&[
                Shape::Word(&[
                    word("body", "the calls place `{{ idempotency_key }}` themselves"),
                    word("none", "it takes no key"),
                ]),
                Shape::Mapping(&IDEMPOTENCY),
            ]),
            "How it takes the idempotency key.",
        )
        .default("unknown: sent as `Idempotency-Key`"),
        key("timeout", Shape::Duration, "How long one whole call may take.").default("10s"),
        later("rate"),
        later("concurrency"),
        later("circuit"),
        later("retry"),
        later("tls"),
    ],
    one_of: &[],
};

static IDEMPOTENCY: Mapping = Mapping {
    name: "`idempotency`",
    keys: &[key("header", Shape::Text, "The header that carries the key.").required()],
    one_of: &[],
};

static AUTH: Mapping = Mapping {
    name: "`auth`",
    keys: &[
        key("bearer", Shape::Mapping(&SECRET_REF), "`Authorization: Bearer SECRET`"),
        key("basic", Shape::Mapping(&BASIC), "`Authorization: Basic`"),
        key("header", Shape::Text, "The name of a header of its own, whose value is `value`."),
        key("value", Shape::Mapping(&SECRET_REF), "Where the value of `header` is."),
        later("oauth2"),
        later("standard_webhooks"),
        later("mtls"),
    ],
    one_of: &["bearer", "basic", "header"],
};

static BASIC: Mapping = Mapping {
    name: "`basic`",
    keys: &[
        key("user", Shape::Text, "The user.").required(),
        key("password", Shape::Mapping(&SECRET_REF), "Where the password is.").required(),
    ],
    one_of: &[],
};
