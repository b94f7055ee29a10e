//! What every scheme takes and refuses, on vectors that others made (`tests/vectors`).

mod handshakes;
mod jwts;
mod public_keys;
mod syntaxes;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde::Deserialize;

use super::draft::Unsigned;
use super::scheme::*;
use super::sign::sign;
use super::text::*;
use super::{About, Keys, Received, Verified, verify};
use crate::secret::{SecretRef, SecretValue, Vault};

#[derive(Clone, Deserialize)]
struct Vector {
    provider: String,
    secret: String,
    body: String,
    headers: BTreeMap<String, String>,
    at: i64,
}

fn vectors() -> Vec<Vector> {
    [
        include_str!("../../tests/vectors/published.json"),
        include_str!("../../tests/vectors/computed.json"),
    ]
    .into_iter()
    .flat_map(|text| serde_json::from_str::<Vec<Vector>>(text).unwrap())
    // Those of more than a body and headers are the presets' (`tests/presets`).
    .filter(|vector| !["twilio", "adyen", "sanity"].contains(&&*vector.provider))
    .collect()
}

fn secret(text: &str) -> SecretRef {
    SecretRef::Literal(text.into())
}

fn vault(secrets: &[&str]) -> Vault {
    let mut vault = Vault::default();
    for text in secrets {
        vault.insert(secret(text), SecretValue::new(*text));
    }
    vault
}

fn header(name: &str) -> Selector {
    Selector::Header(name.to_owned())
}

/// HMAC-SHA256 in hex of the body alone, in `X-Signature`.
fn plain(secrets: &[&str]) -> Signing {
    Signing {
        algorithm: Algorithm::Hmac(Hash::Sha256),
        secrets: secrets.iter().copied().map(secret).collect::<Vec<_>>().into(),
        form: KeyForm::default(),
        certificate: None,
        signed: vec![Part::Body],
        signature: Signature {
            at: header("X-Signature"),
            groups: None,
            encoding: SignatureEncoding::Hex,
            syntax: SignatureSyntax::Prefix(String::new()),
        },
        timestamp: None,
        id: None,
        tolerance: None,
    }
}

fn timed(hmac: Signing, signed: Vec<Part>) -> Signing {
    Signing { signed, tolerance: Some(Duration::from_secs(300)), ..hmac }
}

fn scheme(provider: &str, secrets: &[&str]) -> Signing {
    let base = plain(secrets);
    let literal = |text: &str| Part::Literal(text.to_owned());
    let signature = |name: &str, encoding, syntax| Signature {
        at: header(name),
        groups: None,
        encoding,
        syntax,
    };
    let seconds =
        |name: &str| Some(TimestampAt { selector: header(name), unit: TimeUnit::UnixSeconds });
    match provider {
        "github" => Signing {
            signature: signature(
                "X-Hub-Signature-256",
                SignatureEncoding::Hex,
                SignatureSyntax::Prefix("sha256=".to_owned()),
            ),
            ..base
        },
        "shopify" => Signing {
            signature: signature(
                "X-Shopify-Hmac-Sha256",
                SignatureEncoding::Base64,
                SignatureSyntax::Prefix(String::new()),
            ),
            ..base
        },
        "slack" => Signing {
            signature: signature(
                "X-Slack-Signature",
                SignatureEncoding::Hex,
                SignatureSyntax::Prefix("v0=".to_owned()),
            ),
            timestamp: seconds("X-Slack-Request-Timestamp"),
            ..timed(base, vec![literal("v0:"), Part::Timestamp, literal(":"), Part::Body])
        },
        "stripe" => Signing {
            signature: signature(
                "Stripe-Signature",
                SignatureEncoding::Hex,
                SignatureSyntax::Pairs {
                    separator: ',',
                    assign: '=',
                    signature_key: "v1".to_owned(),
                    timestamp_key: Some("t".to_owned()),
                },
            ),
            ..timed(base, vec![Part::Timestamp, literal("."), Part::Body])
        },
        "standard-webhooks" | "svix" | "gitlab" => {
            let prefix = if provider == "svix" { "svix" } else { "webhook" };
            let parts = vec![Part::Id, literal("."), Part::Timestamp, literal("."), Part::Body];
            Signing {
                form: KeyForm {
                    encoding: SecretEncoding::Base64,
                    strip_prefix: Some("whsec_".to_owned()),
                    digest: None,
                },
                signature: signature(
                    &format!("{prefix}-signature"),
                    SignatureEncoding::Base64,
                    SignatureSyntax::Tagged { separator: ' ', tag: "v1".to_owned() },
                ),
                timestamp: seconds(&format!("{prefix}-timestamp")),
                id: Some(header(&format!("{prefix}-id"))),
                ..timed(base, parts)
            }
        }
        "plain-sha1" => Signing { algorithm: Algorithm::Hmac(Hash::Sha1), ..base },
        "plain-sha512" => Signing { algorithm: Algorithm::Hmac(Hash::Sha512), ..base },
        other => panic!("no scheme for {other}"),
    }
}

fn received(vector: &Vector) -> Received {
    let mut headers = HeaderMap::new();
    for (name, value) in &vector.headers {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    Received {
        method: Method::POST,
        target: "/hooks/a".to_owned(),
        path: Vec::new(),
        query: Vec::new(),
        headers,
        body: vector.body.clone().into(),
        received_at: at(vector),
    }
}

fn at(vector: &Vector) -> Timestamp {
    Timestamp::from_second(vector.at).unwrap()
}

type Verdict = Result<(), Rejection>;

fn run(hmac: &Signing, received: Received, vault: &Vault, now: Timestamp) -> Verdict {
    verify(&Scheme::Signing(hmac.clone()), received, Keys::of(vault), About::default(), now)
        .map(drop)
}

/// The verdict on `vector` after `change`.
fn changed(vector: &Vector, change: impl Fn(&mut Received)) -> Verdict {
    let mut received = received(vector);
    change(&mut received);
    let hmac = scheme(&vector.provider, &[&vector.secret]);
    run(&hmac, received, &vault(&[&vector.secret]), at(vector))
}

fn signature_name(vector: &Vector) -> HeaderName {
    match scheme(&vector.provider, &[]).signature.at {
        Selector::Header(name) => name.parse().unwrap(),
        other => panic!("{other:?} is no header"),
    }
}

#[test]
fn the_vectors_verify_and_any_change_does_not() {
    for vector in vectors() {
        let name = &vector.provider;
        let signature = signature_name(&vector);
        let text = vector
            .headers
            .iter()
            .find(|(name, _)| signature.as_str().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.clone())
            .unwrap();
        let set = |text: &str| {
            let value: HeaderValue = text.parse().unwrap();
            changed(&vector, |received| {
                received.headers.insert(signature.clone(), value.clone());
            })
        };

        assert_eq!(changed(&vector, |_| {}), Ok(()), "{name}");
        let tampered = changed(&vector, |received| {
            let mut body = received.body.to_vec();
            body[0] ^= 1;
            received.body = body.into();
        });
        assert_eq!(tampered, Err(Rejection::WrongSignature), "{name}");
        let longer = changed(&vector, |received| {
            received.body = [&received.body, &b" "[..]].concat().into();
        });
        assert_eq!(longer, Err(Rejection::WrongSignature), "{name}");
        let without = changed(&vector, |received| {
            received.headers.remove(&signature);
        });
        assert_eq!(without, Err(Rejection::MissingSignature), "{name}");
        let doubled = changed(&vector, |received| {
            let value = received.headers.get(&signature).unwrap().clone();
            received.headers.append(&signature, value);
        });
        // Stripe's syntax is a list split by commas: two lines are one list, and that has two times.
        let expected = if name == "stripe" {
            Rejection::MalformedTimestamp
        } else {
            Rejection::MalformedSignature
        };
        assert_eq!(doubled, Err(expected), "{name}");
        for text in ["", "x", "v1=", "v1,", "sha256=", "v0=zz", "t=1,v1=", "===="] {
            assert_eq!(set(text), Err(Rejection::MalformedSignature), "{name} {text:?}");
        }
        // The right length, other bytes: the last letter or digit before the padding is another one.
        let wrong: String = {
            let v0 = text.find(",v0=").unwrap_or(text.len());
            let (head, tail) = text.split_at(v0);
            let digit = head.trim_end_matches('=').len() - 2;
            let mut bytes = head.as_bytes().to_vec();
            bytes[digit] = if bytes[digit] == b'0' { b'1' } else { b'0' };
            String::from_utf8(bytes).unwrap() + tail
        };
        assert_eq!(set(&wrong), Err(Rejection::WrongSignature), "{name} {wrong}");
    }
}

#[test]
fn secrets_rotate_and_wrong_ones_do_not_verify() {
    let other = "whsec_b3RoZXJvdGhlcm90aGVy";
    for vector in vectors() {
        let check = |secrets: &[&str], known: &[&str], expected: Verdict| {
            let hmac = scheme(&vector.provider, secrets);
            let verdict = run(&hmac, received(&vector), &vault(known), at(&vector));
            assert_eq!(verdict, expected, "{} {}", vector.provider, secrets.len());
        };
        let right = vector.secret.as_str();
        check(&[other], &[other], Err(Rejection::WrongSignature));
        check(&[other, right], &[other, right], Ok(()));
        check(&[right, other], &[other, right], Ok(()));
        check(&[right, other], &[right], Ok(()));
        check(&[right], &[], Err(Rejection::UnusableSecret));
        check(&[], &[right], Err(Rejection::NoSecret));
        check(&[""], &[""], Err(Rejection::UnusableSecret));
    }
}

#[test]
fn what_handshakes_brought_verifies_where_the_scheme_says_so() {
    for vector in vectors() {
        let check = |secrets: Secrets, captured: &[&str], expected: Verdict| {
            let hmac = Signing { secrets, ..scheme(&vector.provider, &[]) };
            let captured: Vec<SecretValue> =
                captured.iter().map(|text| SecretValue::new(*text)).collect();
            let vault = vault(&[&vector.secret]);
            let keys = Keys { captured: &captured, ..Keys::of(&vault) };
            let scheme = Scheme::Signing(hmac);
            let verdict = verify(&scheme, received(&vector), keys, About::default(), at(&vector));
            assert_eq!(verdict.map(drop), expected, "{} {captured:?}", vector.provider);
        };
        let right = vector.secret.as_str();
        let other = "whsec_b3RoZXJvdGhlcm90aGVy";
        let captured = || Secrets { captured: true, ..Secrets::default() };
        check(captured(), &[right], Ok(()));
        check(captured(), &[other, right], Ok(()));
        check(captured(), &[other], Err(Rejection::WrongSignature));
        check(captured(), &[], Err(Rejection::NoSecretCaptured));
        let both = |named: &str| Secrets { always: vec![secret(named)], ..captured() };
        check(both(right), &[], Ok(()));
        check(both(right), &[other], Ok(()));
        check(both("unset"), &[right], Ok(()));
        check(both("unset"), &[], Err(Rejection::UnusableSecret));
        check(Secrets::from(vec![secret("unset")]), &[right], Err(Rejection::UnusableSecret));
    }
}

#[test]
fn times_too_far_away_are_refused_on_either_side() {
    for vector in vectors() {
        let hmac = scheme(&vector.provider, &[&vector.secret]);
        if hmac.tolerance.is_none() {
            continue;
        }
        let check = |seconds: i64, expected: Verdict| {
            let now = at(&vector) + SignedDuration::from_secs(seconds);
            let verdict = run(&hmac, received(&vector), &vault(&[&vector.secret]), now);
            assert_eq!(verdict, expected, "{} {seconds}", vector.provider);
        };
        check(300, Ok(()));
        check(301, Err(Rejection::StaleTimestamp));
        check(-300, Ok(()));
        check(-301, Err(Rejection::FutureTimestamp));

        let Some(TimestampAt { selector: Selector::Header(name), .. }) = &hmac.timestamp else {
            continue;
        };
        let name: HeaderName = name.parse().unwrap();
        let set = |values: &[&str], expected: Rejection| {
            let verdict = changed(&vector, |received| {
                received.headers.remove(&name);
                for value in values {
                    received.headers.append(&name, value.parse().unwrap());
                }
            });
            assert_eq!(verdict, Err(expected), "{} {values:?}", vector.provider);
        };
        let right = vector.at.to_string();
        let later = (vector.at + 1).to_string();
        set(&[], Rejection::MissingTimestamp);
        set(&["soon"], Rejection::MalformedTimestamp);
        set(&["-1"], Rejection::MalformedTimestamp);
        set(&[&right, &right], Rejection::MalformedTimestamp);
        set(&[&later], Rejection::WrongSignature);
    }
}

#[test]
fn stripe_takes_any_of_several_signatures_and_no_second_time() {
    let vector = vectors().into_iter().find(|vector| vector.provider == "stripe").unwrap();
    let text = vector.headers["Stripe-Signature"].clone();
    let zeros = "0".repeat(64);
    let check = |text: String, expected: Verdict| {
        let value: HeaderValue = text.parse().unwrap();
        let verdict = changed(&vector, |received| {
            received.headers.insert("stripe-signature", value.clone());
        });
        assert_eq!(verdict, expected, "{text}");
    };
    check(format!("v1={zeros},{text}"), Ok(()));
    check(format!("{text},v1=not hex"), Ok(()));
    check(text.replace(',', ", "), Ok(()));
    check(text.to_uppercase().replace("T=", "t=").replace("V1=", "v1="), Ok(()));
    check(format!("{text},t=1"), Err(Rejection::MalformedTimestamp));
    check(text.replace("t=", "x="), Err(Rejection::MissingTimestamp));
    check(text.replace("v1=", "v0="), Err(Rejection::MalformedSignature));
}

#[test]
fn base64_signatures_may_lack_their_padding() {
    for vector in vectors().iter().filter(|vector| vector.provider == "shopify") {
        let verdict = changed(vector, |received| {
            let text = vector.headers["X-Shopify-Hmac-Sha256"].trim_end_matches('=');
            received.headers.insert("x-shopify-hmac-sha256", text.parse().unwrap());
        });
        assert_eq!(verdict, Ok(()));
    }
}

#[test]
fn an_empty_scheme_takes_nothing() {
    let vector = &vectors()[0];
    let verdict = verify(
        &Scheme::AnyOf(vec![]),
        received(vector),
        Keys::of(&vault(&[])),
        About::default(),
        at(vector),
    );
    assert_eq!(verdict.map(drop), Err(Rejection::MissingSignature));
}

fn bare(headers: &[(&str, &str)], query: &[(&str, &str)], body: &str) -> Received {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    Received {
        method: Method::POST,
        target: "/".to_owned(),
        path: Vec::new(),
        query: query.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        headers: map,
        body: Bytes::copy_from_slice(body.as_bytes()),
        received_at: Timestamp::UNIX_EPOCH,
    }
}

fn show(at: TokenAt, received: Received) -> Result<Verified, Rejection> {
    let scheme = Scheme::Token(Token {
        at,
        secrets: vec![secret("s3cret"), secret("n3w"), secret("")].into(),
    });
    verify(
        &scheme,
        received,
        Keys::of(&vault(&["s3cret", "n3w", ""])),
        About::default(),
        Timestamp::UNIX_EPOCH,
    )
}

#[test]
fn tokens() {
    use Rejection::{MalformedToken as Malformed, MissingToken as Missing, WrongToken as Wrong};
    let check = |at: TokenAt, received: Received, expected: Verdict| {
        let said =
            format!("{at:?} {:?} {:?} {:?}", received.headers, received.query, received.body);
        assert_eq!(show(at, received).map(drop), expected, "{said}");
    };
    let in_header = || TokenAt::Header("X-Token".to_owned());
    check(in_header(), bare(&[("x-token", "s3cret")], &[], ""), Ok(()));
    check(in_header(), bare(&[("x-token", "n3w")], &[], ""), Ok(()));
    check(in_header(), bare(&[("x-token", "s3cre")], &[], ""), Err(Wrong));
    check(in_header(), bare(&[("x-token", "s3cret!")], &[], ""), Err(Wrong));
    check(in_header(), bare(&[("x-token", "")], &[], ""), Err(Wrong));
    check(in_header(), bare(&[], &[], ""), Err(Missing));
    check(
        in_header(),
        bare(&[("x-token", "s3cret"), ("x-token", "s3cret")], &[], ""),
        Err(Malformed),
    );

    let in_query = || TokenAt::Query("key".to_owned());
    check(in_query(), bare(&[], &[("key", "s3cret")], ""), Ok(()));
    check(in_query(), bare(&[], &[("key", "")], ""), Err(Wrong));
    check(in_query(), bare(&[], &[("key", "s3cret"), ("key", "x")], ""), Err(Malformed));

    let in_body = || TokenAt::Json("$.auth.token".to_owned());
    check(in_body(), bare(&[], &[], r#"{"auth":{"token":"s3cret"}}"#), Ok(()));
    check(in_body(), bare(&[], &[], r#"{"auth":{"token":["s3cret"]}}"#), Err(Malformed));
    check(in_body(), bare(&[], &[], r#"{"auth":{}}"#), Err(Missing));
    check(in_body(), bare(&[], &[], "{"), Err(Malformed));
    check(
        TokenAt::Json("$..token".to_owned()),
        bare(&[], &[], r#"{"token":"s3cret"}"#),
        Err(Missing),
    );

    let authorization = |value: &'static str| bare(&[("authorization", value)], &[], "");
    check(TokenAt::Bearer, authorization("Bearer s3cret"), Ok(()));
    check(TokenAt::Bearer, authorization("bearer  s3cret"), Ok(()));
    check(TokenAt::Bearer, authorization("Bearer other"), Err(Wrong));
    check(TokenAt::Bearer, authorization("Bearer"), Err(Malformed));
    check(TokenAt::Bearer, authorization("s3cret"), Err(Malformed));
    check(TokenAt::Bearer, authorization("Basic s3cret"), Err(Malformed));
    check(TokenAt::Bearer, bare(&[], &[], ""), Err(Missing));

    let basic = || TokenAt::Basic { user: "ada".to_owned() };
    // ada:s3cret, ada:, bob:s3cret, ada
    check(basic(), authorization("Basic YWRhOnMzY3JldA=="), Ok(()));
    check(basic(), authorization("Basic YWRhOnMzY3JldA"), Ok(()));
    check(basic(), authorization("Basic YWRhOg=="), Err(Wrong));
    check(basic(), authorization("Basic Ym9iOnMzY3JldA=="), Err(Wrong));
    check(basic(), authorization("Basic YWRh"), Err(Malformed));
    check(basic(), authorization("Basic !"), Err(Malformed));
}

#[test]
fn credentials_are_named_also_where_another_branch_verified() {
    let scheme = Scheme::AnyOf(vec![
        Scheme::Token(Token {
            at: TokenAt::Header("X-Token".to_owned()),
            secrets: vec![secret("a")].into(),
        }),
        Scheme::Token(Token {
            at: TokenAt::Query("key".to_owned()),
            secrets: vec![secret("a")].into(),
        }),
    ]);
    let check = |received, expected: Verdict| {
        let verdict = verify(
            &scheme,
            received,
            Keys::of(&vault(&["a"])),
            About::default(),
            Timestamp::UNIX_EPOCH,
        );
        if let Ok(verified) = &verdict {
            assert!(verified.secret_headers().iter().any(|name| name == "x-token"));
            assert!(verified.secret_headers().iter().any(|name| name == "cookie"));
            assert_eq!(verified.secret_query(), ["key"]);
        }
        assert_eq!(verdict.map(drop), expected);
    };
    check(bare(&[("x-token", "a")], &[], ""), Ok(()));
    check(bare(&[], &[("key", "a")], ""), Ok(()));
    check(bare(&[("x-token", "b")], &[], ""), Err(Rejection::WrongToken));
    check(bare(&[], &[], ""), Err(Rejection::MissingToken));
}

/// What `sign` makes, `verify` takes.
fn signed(scheme: &Scheme, known: &Vault, which: usize, body: &[u8], now: Timestamp) -> Verdict {
    let unsigned = Unsigned {
        method: Method::POST,
        url: "https://hooks.example/hooks/a?b=c%20d".parse().unwrap(),
        path: Vec::new(),
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body),
        id: "msg_1".to_owned(),
        body_rule: None,
    };
    let proof = sign(scheme, Keys::of(known), &unsigned, now, which).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in &proof.headers {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let received = Received {
        method: Method::POST,
        target: "/hooks/a?b=c%20d".to_owned(),
        path: Vec::new(),
        query: [vec![("b".to_owned(), "c d".to_owned())], proof.query].concat(),
        headers,
        body: proof.body,
        received_at: now,
    };
    let public_url = "https://hooks.example/hooks/a".parse().unwrap();
    verify(
        scheme,
        received,
        Keys::of(known),
        About { public_url: Some(&public_url), body: None },
        now,
    )
    .map(drop)
}

fn all_schemes() -> Vec<Scheme> {
    let names =
        ["github", "shopify", "slack", "stripe", "svix", "gitlab", "plain-sha1", "plain-sha512"];
    let mut schemes: Vec<Scheme> = names
        .into_iter()
        .map(|name| Scheme::Signing(scheme(name, &["whsec_b2xkb2xkb2xk", "whsec_bmV3bmV3bmV3"])))
        .collect();
    let everything = Signing {
        signed: vec![
            Part::Method,
            Part::Url,
            Part::Path,
            Part::At(Selector::Query("b".to_owned())),
            Part::Body,
        ],
        ..plain(&["whsec_b2xkb2xkb2xk", "whsec_bmV3bmV3bmV3"])
    };
    schemes.push(Scheme::Signing(everything));
    for at in [
        TokenAt::Header("X-Token".to_owned()),
        TokenAt::Query("key".to_owned()),
        TokenAt::Bearer,
        TokenAt::Basic { user: "ada".to_owned() },
        TokenAt::Json("$.auth.token".to_owned()),
    ] {
        schemes.push(Scheme::Token(Token {
            at,
            secrets: vec![secret("whsec_b2xkb2xkb2xk"), secret("whsec_bmV3bmV3bmV3")].into(),
        }));
    }
    schemes.push(Scheme::None { why: "a test".to_owned() });
    schemes.push(Scheme::AnyOf(schemes.clone()));
    schemes
}

#[test]
fn what_sign_makes_verifies_with_every_secret() {
    let known = vault(&["whsec_b2xkb2xkb2xk", "whsec_bmV3bmV3bmV3"]);
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    for scheme in all_schemes() {
        for which in 0..2 {
            assert_eq!(signed(&scheme, &known, which, b"{}", now), Ok(()), "{scheme:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_at_random_verifies_or_panics(
        value in proptest::collection::vec(any::<u8>(), 0..200),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let known = vault(&["whsec_b2xkb2xkb2xk", "whsec_bmV3bmV3bmV3"]);
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        for scheme in all_schemes().into_iter().filter(|s| matches!(s, Scheme::Signing(_) | Scheme::Token(_))) {
            let mut received = bare(&[], &[], "");
            received.body = body.clone().into();
            for name in [
                "x-signature", "stripe-signature", "x-hub-signature-256", "x-slack-signature", "svix-signature",
                "svix-id", "svix-timestamp", "webhook-signature", "authorization", "x-token",
            ] {
                received.headers.insert(name, value.clone());
            }
            prop_assert!(verify(&scheme, received, Keys::of(&known), About::default(), Timestamp::UNIX_EPOCH).is_err());
        }
    }
}

#[test]
fn a_secret_in_an_error_or_debug_text_is_never_shown() {
    let text = format!("{:?}", scheme("stripe", &["whsec_hidden"]));
    assert!(!text.contains("hidden"), "{text}");
}
