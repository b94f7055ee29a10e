//! The verification of a preset in words, and what it needs of a source.

use serde_json::{Value as Json, json};

use super::words::{conditions, many, place, text};

/// What a source verifies by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Shared,
    /// The provider's public key; how `openssl genpkey` makes a pair of this kind.
    Public(&'static str),
    /// What a handshake brings.
    Captured,
    /// The router gets the public keys by itself; as for `Public`.
    Fetched(&'static str),
    None,
}

impl Key {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Key::Shared => "shared",
            Key::Public(_) => "public_key",
            Key::Captured => "captured",
            Key::Fetched(_) => "fetched",
            Key::None => "none",
        }
    }
}

pub(super) struct Needs {
    pub(super) key: Key,
    /// The secret is shown and not signed with.
    pub(super) token: bool,
    /// How the secret is written, where there is one answer.
    pub(super) encoding: Option<String>,
    /// The URL is signed, or looked at.
    pub(super) url: bool,
    /// The time of a request is looked at.
    pub(super) timed: bool,
}

const ED25519: &str = "-algorithm ed25519";
const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";

impl Needs {
    pub(super) fn of(preset: &Json) -> Self {
        let verify = &preset["verify"];
        let schemes = schemes(verify);
        let brings = many(&preset["handshake"]).iter().any(|it| it.get("capture_secret").is_some());
        let keys: Vec<Key> = schemes.iter().map(|scheme| key(scheme)).collect();
        let key = match brings {
            true => Key::Captured,
            false => *keys.iter().find(|key| **key != Key::None).unwrap_or(&Key::None),
        };
        // Of several schemes each may read the secret in its own way.
        let mut encodings: Vec<Option<String>> =
            schemes.iter().map(|it| text(&it["secret_encoding"])).collect();
        encodings.dedup();
        let encoding = match encodings.as_slice() {
            [one] => one.clone().or(Some("utf8".to_owned())),
            _ => None,
        };
        let is_timed = |scheme: &&Json| {
            let required = many(&scheme["jwt"]["required"]);
            scheme.get("tolerance").is_some() || required.iter().any(|claim| claim == "exp")
        };
        Self {
            key,
            token: schemes.iter().all(|scheme| scheme.get("token").is_some()),
            encoding,
            url: any_text(&json!([verify, preset["config"]]), &|text| {
                // The last is a form of which the URL is a part.
                text.contains("{url") || text.contains("{plivo_v3")
            }),
            timed: schemes.iter().any(is_timed),
        }
    }
}

/// The schemes that a verification is made of.
fn schemes(verify: &Json) -> Vec<&Json> {
    let parts: Vec<&Json> =
        ["any_of", "all_of"].iter().flat_map(|key| many(&verify[*key])).collect();
    match parts.is_empty() {
        true => vec![verify],
        false => parts.into_iter().flat_map(schemes).collect(),
    }
}

fn key(scheme: &Json) -> Key {
    let has = |key: &str| scheme.get(key).is_some();
    let pair = match scheme {
        _ if has("ed25519") => Some(ED25519),
        _ if has("ecdsa") => Some(P256),
        _ if has("rsa") => Some(RSA),
        _ => many(&scheme["jwt"]["algorithms"]).iter().find_map(|it| match it.as_str() {
            Some("RS256") => Some(RSA),
            Some("ES256") => Some(P256),
            Some("EdDSA") => Some(ED25519),
            _ => None,
        }),
    };
    match pair {
        Some(pair) if has("certificate") || has("jwks") => Key::Fetched(pair),
        Some(pair) => Key::Public(pair),
        None if has("none") => Key::None,
        None => Key::Shared,
    }
}

fn any_text(json: &Json, wanted: &dyn Fn(&str) -> bool) -> bool {
    match json {
        Json::String(text) => wanted(text),
        Json::Array(items) => items.iter().any(|item| any_text(item, wanted)),
        Json::Object(map) => map.values().any(|value| any_text(value, wanted)),
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}

/// Sentences, those of a part one step further in.
pub(super) fn words(verify: &Json, depth: usize) -> Vec<String> {
    let indent = " ".repeat(depth * 2);
    let mut lines = Vec::new();
    if let Some(path) = text(&verify["for_each"]) {
        lines.push(format!(
            "{indent}Each element at `{path}` proves itself, and there must be one; what is said of the body is of the element."
        ));
    }
    if let Some(required) = verify.get("require") {
        lines.push(format!("{indent}It must be {}.", conditions(required)));
    }
    for (key, says) in
        [("any_of", "One of these is enough:"), ("all_of", "All of these must hold:")]
    {
        let parts = many(&verify[key]);
        if !parts.is_empty() {
            lines.push(format!("{indent}{says}"));
            for part in parts {
                let mut inner = words(part, depth + 1).into_iter();
                lines.extend(
                    inner.next().map(|first| format!("{indent}  - {}", first.trim_start())),
                );
                lines.extend(inner.map(|line| format!("  {line}")));
            }
            return lines;
        }
    }
    if let Some(sentence) = one(verify) {
        lines.push(format!("{indent}{sentence}"));
    }
    if let Some(rest) = time(verify) {
        lines.push(format!("{indent}{rest}"));
    }
    lines
}

fn one(verify: &Json) -> Option<String> {
    let named = |key: &str| text(&verify[key]);
    if let Some(token) = verify.get("token") {
        return Some(format!("The secret itself stands in {}.", place(token)));
    }
    if let Some(why) = named("none") {
        return Some(format!("Nobody is asked: {why}."));
    }
    if let Some(jwt) = verify.get("jwt") {
        let algorithms: Vec<String> = many(&jwt["algorithms"]).iter().filter_map(text).collect();
        let keys = match &verify["jwks"] {
            Json::Null => String::new(),
            at => {
                let url = text(at).or(text(&at["url"])).or(text(&at["issuer"]));
                format!(", by a key that is found at `{}`", url.unwrap_or_default())
            }
        };
        return Some(format!(
            "A JSON Web Token, signed by {}{keys}, stands in {}.{}",
            algorithms.join(" or "),
            place(jwt),
            claims(jwt)
        ));
    }
    let how = match () {
        () if named("hmac").is_some() => {
            format!("HMAC-{}", named("hmac").unwrap_or_default().to_uppercase())
        }
        () if named("digest").is_some() => {
            format!("The {} hash", named("digest").unwrap_or_default().to_uppercase())
        }
        () if verify.get("ed25519").is_some() => "The Ed25519 signature".to_owned(),
        () if verify.get("ecdsa").is_some() => "The ECDSA signature (P-256)".to_owned(),
        () if named("rsa").is_some() => {
            format!("The RSA signature ({})", named("rsa").unwrap_or_default().to_uppercase())
        }
        () => return None,
    };
    let signed = named("signed").unwrap_or_else(|| "{body}".to_owned());
    let signature = &verify["signature"];
    let encoding = text(&signature["encoding"]).unwrap_or_else(|| "hex".to_owned());
    let written = match text(&signature["parse"]) {
        Some(parse) => format!("written `{parse}`, in {encoding}"),
        None => format!("in {encoding}"),
    };
    let certificate = match verify.get("certificate") {
        None => String::new(),
        Some(certificate) => format!(
            " The certificate is fetched from the URL in {}, of the host `{}` alone.",
            place(&certificate["url"]),
            text(&certificate["host"]).unwrap_or_default()
        ),
    };
    Some(format!("{how} of `{signed}` stands in {}, {written}.{certificate}", place(signature)))
}

fn claims(jwt: &Json) -> String {
    let claims: Vec<String> = jwt["claims"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, expected)| {
            let expected: Vec<String> = many(expected).iter().filter_map(text).collect();
            format!("`{name}` is `{}`", expected.join("` or `"))
        })
        .collect();
    match claims.is_empty() {
        true => String::new(),
        false => format!(" Of its claims {}.", claims.join(", ")),
    }
}

fn time(verify: &Json) -> Option<String> {
    let tolerance = text(&verify["tolerance"])?;
    let stands = match verify.get("timestamp") {
        Some(at) => format!("The time of sending stands in {}", place(at)),
        None => "The time of sending stands beside the signature".to_owned(),
    };
    let stands = if verify.get("jwt").is_some() {
        "Its claim `iat` says when it was made".to_owned()
    } else {
        stands
    };
    Some(format!("{stands}; a request that is older or newer than {tolerance} is refused."))
}
