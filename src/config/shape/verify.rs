//! `verify` and secret references.

use super::handshake::CONDITIONS;
use super::{Key, Mapping, Names, Shape, key, later, later_word, word};

pub static SECRET_REF: Mapping = Mapping {
    name: "a secret reference",
    keys: &[
        key("env", Shape::Text, "The environment variable that holds it."),
        key(
            "file",
            Shape::Text,
            "The file that holds it, relative to this file; white space around it is trimmed.",
        ),
        key("literal", Shape::Text, "The secret itself: only for demos and tests."),
    ],
    one_of: &["env", "file", "literal"],
};

/// `secret` of a scheme: several verify side by side while one is rotated out.
static SECRETS: Mapping = Mapping {
    name: "a signing secret",
    keys: &[
        key("env", Shape::Text, "The environment variable that holds it."),
        key(
            "file",
            Shape::Text,
            "The file that holds it, relative to this file; white space around it is trimmed.",
        ),
        key("literal", Shape::Text, "The secret itself: only for demos and tests."),
        key(
            "by",
            Shape::Text,
            "The place in the request that names the tenant: `path.shop`, `header.N`, `query.N`, `json:$.p`.",
        ),
        key(
            "of",
            Shape::Names(&TENANTS),
            "The secret, or a list of secrets, of each tenant that `by` may name.",
        ),
        key(
            "captured",
            Shape::True,
            "What handshakes with `capture_secret` brought for this source and these parts of its path; any of them verifies.",
        ),
    ],
    one_of: &["env", "file", "literal", "by", "captured"],
};

static TENANTS: Names =
    Names { what: "a tenant", pattern: "", value: Shape::Many(&Shape::Mapping(&SECRET_REF)) };

const SECRET: Shape = Shape::Many(&Shape::Mapping(&SECRETS));

const TOLERANCE: Key =
    key("tolerance", Shape::Duration, "How far the signed time may be from now, either way.");

/// The keys of every scheme, which also stand beside `provider`, where they win.
macro_rules! scheme_keys {
    ($($extra:expr),* $(,)?) => { &[
        $($extra,)*
        key("secret", SECRET, "Where the secret is; a list while one is rotated out: any of them verifies."),
        key("hmac", Shape::Word(&[word("sha256", "HMAC-SHA256"), word("sha1", "HMAC-SHA1"), word("sha512", "HMAC-SHA512")]), "The sender signs with a shared secret."),
        key("secret_encoding", Shape::Word(&[word("utf8", "the secret's own bytes"), word("base64", "base64, padded or not"), word("hex", "hexadecimal")]), "How the secret is written.").default("utf8"),
        key("strip_prefix", Shape::Text, "Taken off the front of the secret before it is decoded, where it is there (`whsec_`)."),
        key("secret_digest", Shape::Word(&[word("sha1", "SHA-1"), word("sha256", "SHA-256"), word("sha512", "SHA-512")]), "The key is this hash of the secret."),
        key("signed", Shape::Text, "The text that is signed: names in braces (see \"What is signed\") and literal text.").default("{body}"),
        key("signature", Shape::Mapping(&SIGNATURE), "Where the signature is and how it is written."),
        key("timestamp", Shape::Mapping(&TIMESTAMP), "Where the signed time is, unless `signature.parse` names it."),
        key("id", Shape::Mapping(&SELECTOR), "Where the signed id is, for `{id}`."),
        TOLERANCE,
        key("token", Shape::Mapping(&TOKEN), "The sender shows the secret itself."),
        key("digest", Shape::Word(&[word("sha256", "SHA-256"), word("sha1", "SHA-1"), word("sha512", "SHA-512")]), "The sender sends a plain hash of a text in which the secret stands (`{secret}` in `signed`)."),
        key("ed25519", Shape::True, "The sender signs with Ed25519; `secret` is its public key: 32 bytes by `secret_encoding`, or PEM."),
        key("ecdsa", Shape::Word(&[word("p256_sha256", "P-256 with SHA-256, signatures in DER")]), "The sender signs with ECDSA; `secret` is its public key: by `secret_encoding`, or PEM."),
        key("rsa", Shape::Word(&[word("sha256", "PKCS #1 v1.5 with SHA-256, keys of 2048 bits or more"), word("sha1", "PKCS #1 v1.5 with SHA-1, for senders that have nothing better")]), "The sender signs with RSA; `secret` is its public key: by `secret_encoding`, or PEM."),
        key("any_of", Shape::List(&Shape::Mapping(&SCHEME)), "Schemes of which one is enough."),
        key("all_of", Shape::List(&Shape::Mapping(&SCHEME)), "Schemes that must all verify."),
        key("none", Shape::Text, "Nobody is asked; the text says why that is right."),
        key("for_each", Shape::JsonPath, "Each element at this path of the JSON body must verify by itself, and there must be one; `json:` reads the element."),
        key("require", Shape::Mapping(&CONDITIONS), "What the request must be besides; it is looked at before the scheme."),
        key("jwt", Shape::Mapping(&JWT), "The sender shows a JSON Web Token that it signed; `secret` is the shared secret or its public key, unless `jwks` is given."),
        key("jwks", Shape::Any(&[Shape::Text, Shape::Mapping(&JWKS)]), "Where the sender's public keys are, of which the token names one: a URL, or a mapping."),
        key("key", Shape::Mapping(&SECRET_REF), "The sender's public key, in the place of one that would be fetched."),
        key("certificate", Shape::Mapping(&CERTIFICATE), "Where the request says the sender's certificate is; beside `rsa` or `ecdsa`, in the place of `secret`."),
        later("mtls"),
        later("handshake"),
        later("capture_secret"),
    ] };
}

/// `verify` of a source.
pub static VERIFY: Mapping = Mapping {
    name: "a verification",
    keys: scheme_keys![
        key(
            "provider",
            Shape::Text,
            "The preset that knows how this provider signs: see `router providers list`."
        ),
        key(
            "config",
            Shape::Names(&CONFIG),
            "What the provider needs besides, by the names that its preset declares: a text, or a secret reference."
        ),
    ],
    one_of: &[],
};

static CONFIG: Names = Names {
    what: "a setting",
    pattern: super::SNAKE_PATTERN,
    value: Shape::Any(&[Shape::Text, Shape::Mapping(&SECRET_REF)]),
};

/// One scheme, in a preset or under `any_of`.
pub static SCHEME: Mapping = Mapping {
    name: "a verification scheme",
    keys: scheme_keys![],
    one_of: &[
        "hmac", "digest", "ed25519", "ecdsa", "rsa", "token", "jwt", "any_of", "all_of", "none",
    ],
};

/// The keys of a mapping that says where something stands in a request.
macro_rules! place_keys {
    ($($extra:expr),* $(,)?) => { &[
        key("header", Shape::Text, "The header that holds it."),
        key("query", Shape::Text, "The query parameter that holds it."),
        key("form", Shape::Text, "The field of the form that holds it."),
        key("json", Shape::JsonPath, "The text or number of the JSON body that holds it, as `$.a.b`."),
        $($extra,)*
    ] };
}

static SIGNATURE: Mapping = Mapping {
    name: "a signature",
    keys: place_keys![
        key("encoding", Shape::Word(&[word("hex", "hexadecimal"), word("base64", "base64"), word("base64url", "base64 with the alphabet for URLs")]), "How its bytes are written.").default("hex"),
        key("parse", Shape::Text, "How it stands in the header: `sha256={signature}`, `t={timestamp},v1={signature}`, `v1,{signature}`, `{timestamp},{signature}`.").default("{signature}"),
        key("separator", Shape::Text, "The one character between several (`,`, `;`, a space).").default(","),
        key("group_separator", Shape::Text, "The one character between groups that each are such a text with a time of its own."),
    ],
    one_of: &["header", "query", "form", "json"],
};

static TIMESTAMP: Mapping = Mapping {
    name: "a signed time",
    keys: place_keys![
        key(
            "format",
            Shape::Word(&[
                word("unix", "seconds since 1970"),
                word("unix_ms", "milliseconds since 1970"),
                word("rfc3339", "2026-11-23T08:00:00Z"),
                word("http_date", "Mon, 23 Nov 2026 08:00:00 GMT"),
            ]),
            "How it is written.",
        )
        .default("unix"),
    ],
    one_of: &["header", "query", "form", "json"],
};

pub(super) static SELECTOR: Mapping = Mapping {
    name: "a place in the request",
    keys: place_keys![],
    one_of: &["header", "query", "form", "json"],
};

static JWT: Mapping = Mapping {
    name: "a token that is signed",
    keys: place_keys![
        key("prefix", Shape::Text, "What stands before it in `header`, such as `JWT `.")
            .default("nothing"),
        key("bearer", Shape::True, "`Authorization: Bearer TOKEN`"),
        key("body", Shape::True, "The body is the token; see also `body: jwt` of the source."),
        key(
            "detached",
            Shape::Text,
            "The header with a token without content, for which the body stands (RFC 7797).",
        ),
        key(
            "algorithms",
            Shape::Many(&Shape::Word(&[
                word("HS256", "HMAC-SHA256"),
                word("HS512", "HMAC-SHA512"),
                word("RS256", "RSA with SHA-256"),
                word("ES256", "ECDSA P-256 with SHA-256"),
                word("EdDSA", "Ed25519"),
            ])),
            "The only ones that are taken; the token has no say in it.",
        )
        .required(),
        key(
            "required",
            Shape::List(&Shape::Text),
            "Claims that must be there, such as `exp`. `exp` and `nbf` are looked at wherever they are; `iat` where `tolerance` is given.",
        ),
        key(
            "claims",
            Shape::Names(&CLAIMS),
            "What claims must say: a text with names as in `signed`, true or false, or a list of which one is enough.",
        ),
    ],
    one_of: &["header", "bearer", "query", "form", "json", "body", "detached"],
};

static CLAIMS: Names = Names { what: "a claim", pattern: "", value: Shape::Many(&Shape::Scalar) };

static JWKS: Mapping = Mapping {
    name: "a key set",
    keys: &[
        key("url", Shape::Text, "Its https URL."),
        key(
            "issuer",
            Shape::Text,
            "An issuer that says under `/.well-known/openid-configuration` where it is.",
        ),
        key(
            "file",
            Shape::Text,
            "The file that holds it, relative to this file: nothing is fetched.",
        ),
    ],
    one_of: &["url", "issuer", "file"],
};

static CERTIFICATE: Mapping = Mapping {
    name: "a certificate to fetch",
    keys: &[
        key("url", Shape::Mapping(&SELECTOR), "The place in the request that holds its URL.")
            .required(),
        key(
            "host",
            Shape::Text,
            "A regular expression for the whole host: nothing is fetched from any other.",
        )
        .required(),
        key("path", Shape::Text, "A regular expression for the whole path."),
        key(
            "name",
            Shape::Text,
            "The name for which a public authority must have issued it; left out: the host proves itself by TLS.",
        ),
    ],
    one_of: &[],
};

static TOKEN: Mapping = Mapping {
    name: "a token",
    keys: &[
        key(
            "header",
            Shape::Text,
            "The header that equals the secret; `{config.N}` in its name is what the source gives.",
        ),
        key(
            "query",
            Shape::Text,
            "The query parameter that equals the secret; `{config.N}` in its name is what the source gives.",
        ),
        key("json", Shape::JsonPath, "The text of the JSON body that equals the secret."),
        key("bearer", Shape::True, "`Authorization: Bearer SECRET`"),
        key(
            "basic",
            Shape::Text,
            "`Authorization: Basic` with this user, which may be `{config.N}`; the secret is the password.",
        ),
        key("form", Shape::Text, "The field of the form that equals the secret."),
    ],
    one_of: &["header", "query", "form", "json", "bearer", "basic"],
};

/// How much a scheme proves.
pub const STRENGTH: Shape = Shape::Word(&[
    word("signed", "the body is covered by a signature"),
    word("partial", "the origin is proved, the body not or in part"),
    word("token", "authenticated by a shared token, not signed"),
    word("open", "nothing is proved"),
    later_word("peer"),
]);
