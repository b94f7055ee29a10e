//! Every built-in preset against requests that an independent implementation signed (`tests/vectors/make.py`).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop at the first surprise"
)]

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::{SignedDuration, Timestamp};
use router::config::check::load;
use router::config::preset::BUILT_IN;
use router::config::resolve::{Process, resolve};
use router::config::{Resolved, Source};
use router::diag::Severity;
use router::files::Files;
use router::secret::{SecretRef, SecretValue, Vault};
use router::simulate::stand_in;
use router::verify::jwt::JwtAt;
use router::verify::scheme::{Rejection, Scheme, Strength, TokenAt};
use router::verify::sign::{Unsigned, sign};
use router::verify::text::Selector;
use router::verify::{About, Keys, Received, verify};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

const URL: &str = "https://hooks.example.com/r";

#[derive(Deserialize)]
struct Vector {
    provider: String,
    secret: String,
    url: String,
    body: String,
    headers: BTreeMap<String, String>,
    at: i64,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("vectors/presets.json")).unwrap()
}

fn source(provider: &str, secret: &str) -> (Arc<Source>, Resolved) {
    let mut files = Files::new("/nowhere");
    let secret = serde_json::to_string(secret).unwrap();
    files.add("router.yaml", "public_url: https://hooks.example.com\n");
    files.add(
        "routes/r.yaml",
        format!(
            "route: r\nsource: {{ path: /r, verify: {{ provider: {provider}, secret: {{ literal: {secret} }} }} }}\n\
             steps: [ {{ name: s, call: {{ get: https://a.example/ }} }} ]\n"
        ),
    );
    let loaded = load(files);
    let errors: Vec<_> =
        loaded.diagnostics.iter().filter(|it| it.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{provider}: {errors:?}");
    let set = loaded.set.unwrap();
    let (resolved, problems) = resolve(&set, &Process);
    assert!(problems.is_empty(), "{provider}: {problems:?}");
    (set.sources.values().next().unwrap().clone(), resolved)
}

fn received(vector: &Vector) -> Received {
    let mut headers = HeaderMap::new();
    for (name, value) in &vector.headers {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    Received {
        method: Method::POST,
        target: "/r".to_owned(),
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

fn judged(
    source: &Source,
    vault: &Vault,
    request: Received,
    now: Timestamp,
) -> Result<(), Rejection> {
    let url = URL.parse().unwrap();
    verify(
        &source.verify.scheme,
        request,
        Keys::of(vault),
        About { public_url: Some(&url), body: source.body.as_ref() },
        now,
    )
    .map(drop)
}

/// The headers in which the scheme looks for a proof, and whether it looks at the time.
fn proofs(scheme: &Scheme) -> (Vec<String>, bool) {
    match scheme {
        Scheme::Signing(signing) => match &signing.signature.at {
            Selector::Header(name) => (vec![name.clone()], signing.tolerance.is_some()),
            _ => (Vec::new(), signing.tolerance.is_some()),
        },
        Scheme::Jwt(jwt) => match &jwt.at {
            JwtAt::Header { name, .. } | JwtAt::Detached { name } => (
                vec![name.clone()],
                jwt.tolerance.is_some() || jwt.required.iter().any(|it| it == "exp"),
            ),
            JwtAt::Bearer => (vec!["authorization".to_owned()], jwt.tolerance.is_some()),
            JwtAt::At(_) | JwtAt::Body => (Vec::new(), jwt.tolerance.is_some()),
        },
        Scheme::Token(token) => match &token.at {
            TokenAt::Header(name) => (vec![name.clone()], false),
            _ => (Vec::new(), false),
        },
        Scheme::AnyOf(all) | Scheme::AllOf(all) => {
            all.iter().map(proofs).fold((Vec::new(), false), |(mut names, timed), (more, too)| {
                names.extend(more);
                (names, timed || too)
            })
        }
        Scheme::ForEach { scheme, .. } => proofs(scheme),
        Scheme::Require(_) | Scheme::None { .. } => (Vec::new(), false),
    }
}

/// Another text of the same length: the last signature's middle is changed.
fn forged(text: &str) -> String {
    let end = text.find(",v0=0").or(text.find(",v2=")).or(text.find(",h=")).unwrap_or(text.len());
    let mut bytes = text.as_bytes().to_vec();
    let place = end - 10;
    bytes[place] = if bytes[place] == b'0' { b'1' } else { b'0' };
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_preset_has_a_vector() {
    let vectors = vectors();
    for (name, _) in BUILT_IN {
        assert!(vectors.iter().any(|vector| vector.provider == *name), "{name} has no vector");
    }
    assert!(vectors.iter().all(|it| BUILT_IN.iter().any(|(name, _)| *name == it.provider)));
    assert!(vectors.iter().all(|it| it.url == URL));
}

#[test]
fn vectors_verify_and_no_change_of_them_does() {
    use Rejection as R;
    for vector in vectors() {
        let name = &vector.provider;
        let (source, resolved) = source(name, &vector.secret);
        let run = |request, now| judged(&source, &resolved.vault, request, now);
        assert_eq!(run(received(&vector), at(&vector)), Ok(()), "{name}");

        let (places, timed) = proofs(&source.verify.scheme);
        let present: Vec<HeaderName> = places
            .iter()
            .map(|name| name.parse().unwrap())
            .filter(|name| received(&vector).headers.contains_key(name))
            .collect();
        let is_token = present.iter().any(|name| {
            vector.headers.iter().any(|(it, value)| {
                it.eq_ignore_ascii_case(name.as_str()) && *value == vector.secret
            })
        });
        let mut mutations = 0;
        let mut refused = |request, now, reasons: &[R], what: &str| {
            let verdict = run(request, now);
            let is_expected = verdict.is_err_and(|reason| reasons.contains(&reason));
            assert!(is_expected, "{name}, {what}: {verdict:?}, expected one of {reasons:?}");
            mutations += 1;
        };
        if source.verify.strength == Strength::Signed {
            let mut longer = received(&vector);
            longer.body = [&longer.body, &b" "[..]].concat().into();
            refused(longer, at(&vector), &[R::WrongSignature], "a longer body");
            let mut other = received(&vector);
            other.body = vector.body.replacen('e', "f", 1).into();
            let reasons = [R::WrongSignature, R::MissingTimestamp];
            refused(other, at(&vector), &reasons, "another body");
        }
        if timed && !is_token {
            let hours = SignedDuration::from_hours(2);
            refused(received(&vector), at(&vector) + hours, &[R::StaleTimestamp], "old");
            refused(received(&vector), at(&vector) - hours, &[R::FutureTimestamp], "early");
        }
        let malformed = [
            R::MalformedSignature,
            R::MalformedToken,
            R::WrongToken,
            R::WrongSignature,
            R::MissingTimestamp,
            R::MalformedTimestamp,
        ];
        for place in &present {
            let with = |text: &str| {
                let mut request = received(&vector);
                request.headers.insert(place, HeaderValue::from_str(text).unwrap());
                request
            };
            let mut without = received(&vector);
            without.headers.remove(place);
            let missing = [R::MissingSignature, R::MissingToken, R::MissingTimestamp];
            refused(without, at(&vector), &missing, "no proof");
            for text in ["", "x", "====", "sha256=", "v1,", "t=1,v1=", "zz zz"] {
                refused(with(text), at(&vector), &malformed, text);
            }
            let right = received(&vector).headers[place].to_str().unwrap().to_owned();
            let wrong = if is_token { "another token".to_owned() } else { forged(&right) };
            refused(with(&wrong), at(&vector), &[R::WrongSignature, R::WrongToken], "forged");
            let mut twice = with(&wrong);
            twice.headers.append(place, HeaderValue::from_str(&wrong.replace('0', "1")).unwrap());
            refused(twice, at(&vector), &malformed, "two wrong proofs");
        }
        if present.is_empty() {
            // What proves the sender stands in the body.
            for (from, to) in [
                ("\"signature\":\"", "\"signature\":\"00"),
                ("\"signature\":\"", "\"other\":\""),
                ("\"token\":\"", "\"token\":\"0"),
                ("\"token\":\"", "\"other\":\""),
                ("\"timestamp\":\"17", "\"timestamp\":\"x"),
                ("\"timestamp\":\"", "\"other\":\""),
                ("\"passcode\": \"", "\"passcode\": \"0"),
                ("\"passcode\"", "\"other\""),
                ("a secret as text", ""),
                ("a secret as text", "a secret as texT"),
                ("a secret as text", "a secret as text "),
                ("{", "["),
            ] {
                if !vector.body.contains(from) {
                    continue;
                }
                let mut request = received(&vector);
                request.body = vector.body.replacen(from, to, 1).into();
                let mut reasons = malformed.to_vec();
                reasons.extend([R::MissingSignature, R::MissingToken]);
                refused(request, at(&vector), &reasons, to);
            }
        }
        assert!(mutations > 5, "{name}: {mutations} mutations");
    }
}

#[test]
fn another_secret_does_not_verify() {
    let vectors = vectors();
    for vector in &vectors {
        let (source, _) = source(&vector.provider, &vector.secret);
        // The vault knows another text under the same reference.
        let other = match vector.provider.as_str() {
            "wise" => include_str!("../src/simulate/stand_in/p256.pub.pem").to_owned(),
            "discord" => {
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c".to_owned()
            }
            "telnyx" => "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=".to_owned(),
            _ => "ab".repeat(16),
        };
        let mut vault = Vault::default();
        vault.insert(SecretRef::Literal(vector.secret.as_str().into()), SecretValue::new(other));
        let verdict = judged(&source, &vault, received(vector), at(vector));
        let reasons = [Rejection::WrongSignature, Rejection::WrongToken, Rejection::UnusableSecret];
        assert!(verdict.is_err_and(|it| reasons.contains(&it)), "{}: {verdict:?}", vector.provider);
    }
    assert!(vectors.len() >= BUILT_IN.len());
}

#[test]
fn what_is_signed_by_a_preset_verifies_by_it() {
    for vector in vectors() {
        let name = &vector.provider;
        let (source, resolved) = source(name, &vector.secret);
        let (keys, verifies) = stand_in::vaults(&source.verify.scheme, &resolved.vault);
        let unsigned = Unsigned {
            method: Method::POST,
            url: vector.url.parse().unwrap(),
            path: Vec::new(),
            headers: HeaderMap::new(),
            body: vector.body.clone().into(),
            id: "msg_2".to_owned(),
            body_rule: source.body.clone(),
        };
        let proof = sign(&source.verify.scheme, Keys::of(&keys), &unsigned, at(&vector), 0)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut request = received(&vector);
        request.headers = HeaderMap::new();
        for (header, value) in &proof.headers {
            request.headers.append(header.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        request.body = proof.body;
        assert_eq!(judged(&source, &verifies, request, at(&vector)), Ok(()), "{name}");
    }
}
