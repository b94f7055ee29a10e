//! Every built-in preset against requests that an independent implementation signed (`tests/vectors`).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may stop at the first surprise"
)]

mod place;
mod vector;

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use jiff::SignedDuration;
use router::config::preset::BUILT_IN;
use router::secret::{SecretRef, SecretValue, Vault};
use router::simulate::stand_in;
use router::verify::canonical::Canonical;
use router::verify::draft::Unsigned;
use router::verify::handshake::{self, Asked};
use router::verify::jwt::JwtAt;
use router::verify::scheme::{Rejection, Scheme, Strength};
use router::verify::sign::{SignError, sign};
use router::verify::text::{Part, Selector};
use router::verify::{About, Keys, Received, verify};

use place::{Place, Role, forged, replaced, set_query};
use vector::{Beside, Vector, at, judged, public_url, received, source, vectors};

fn is_timed(scheme: &Scheme) -> bool {
    match scheme {
        Scheme::Signing(signing) => signing.tolerance.is_some(),
        Scheme::AnyOf(all) | Scheme::AllOf(all) => all.iter().any(is_timed),
        Scheme::ForEach { scheme, .. } => is_timed(scheme),
        Scheme::Jwt(jwt) => jwt.tolerance.is_some() || jwt.required.iter().any(|it| it == "exp"),
        Scheme::Token(_) | Scheme::Require(_) | Scheme::None { .. } => false,
    }
}

/// What is signed is what the JSON says, not how it is written.
fn is_blind_to_blanks(scheme: &Scheme) -> bool {
    match scheme {
        Scheme::Signing(signing) => signing
            .signed
            .iter()
            .any(|part| matches!(part, Part::Canonical(Canonical::Jcs | Canonical::Lines(_)))),
        Scheme::Jwt(jwt) => jwt.at == JwtAt::Body,
        Scheme::AnyOf(all) | Scheme::AllOf(all) => all.iter().any(is_blind_to_blanks),
        _ => false,
    }
}

/// Tokens that say no more than when they end.
const WITHOUT_A_BEGINNING: &[&str] = &["monday"];

#[test]
fn every_preset_has_a_vector() {
    let vectors = vectors();
    for (name, _) in BUILT_IN {
        assert!(vectors.iter().any(|vector| vector.provider == *name), "{name} has no vector");
    }
    assert!(vectors.iter().all(|it| BUILT_IN.iter().any(|(name, _)| *name == it.provider)));
}

#[test]
fn vectors_verify_and_no_change_of_them_does() {
    use Rejection as R;
    for vector in vectors() {
        let name = format!("{} {} {}", vector.provider, vector.method, vector.url);
        let (source, resolved) = source(&vector);
        let scheme = &source.verify.scheme;
        let rule = source.body.as_ref();
        let run = |request, now| judged(&vector, &source, &resolved.vault, request, now);
        let original = received(&vector);
        assert_eq!(run(original.clone(), at(&vector)), Ok(()), "{name}");

        let mut places: Vec<(Place, Vec<String>)> = Vec::new();
        for place in Place::of(scheme, &[]) {
            let values = place.values(&original, rule);
            let is_known = places.iter().any(|(known, _)| known.at == place.at);
            if !values.is_empty() && !is_known {
                places.push((place, values));
            }
        }
        let is_token = matches!(scheme, Scheme::Jwt(jwt) if jwt.at == JwtAt::Body);
        let is_shown = places.iter().any(|(_, values)| values.contains(&vector.secret));
        let mut mutations = 0;
        let mut refused = |request: Received, what: &str| {
            let verdict = run(request, at(&vector));
            let unfit = [R::StaleTimestamp, R::FutureTimestamp, R::UnusableSecret, R::NoSecret];
            let is_expected = verdict.is_err_and(|reason| !unfit.contains(&reason));
            assert!(is_expected, "{name}, {what}: {verdict:?}");
            mutations += 1;
        };
        if source.verify.strength == Strength::Signed {
            let mut longer = original.clone();
            longer.body = [&longer.body, &b" "[..]].concat().into();
            if is_blind_to_blanks(scheme) {
                assert_eq!(run(longer, at(&vector)), Ok(()), "{name}");
            } else {
                refused(longer, "a longer body");
            }
            for (from, to) in [('e', "f"), ('e', ""), ('1', "2"), ('a', "A")] {
                let mut other = original.clone();
                other.body = vector.body.replacen(from, to, 1).into();
                if other.body != original.body {
                    refused(other, "another body");
                }
            }
        }
        if is_token {
            let wrong = forged(&vector.body);
            for text in ["", "x", "{}", "a.b.c", "..", "e30.e30.e30", "null", "1", &wrong] {
                let mut other = original.clone();
                other.body = text.to_owned().into();
                refused(other, text);
            }
        }
        let is_proof = |(place, _): &(Place, _)| matches!(place.role, Role::Proof { .. });
        assert!(is_token || places.iter().any(is_proof), "{name}");
        for (place, values) in &places {
            for (which, value) in values.iter().enumerate() {
                refused(place.with(&vector, rule, which, None), &format!("without {}", place.at));
                for text in ["", "x", "====", "sha256=", "v1,", "t=1,v1=", "zz zz", "1", "|", "&"] {
                    if text == value {
                        continue;
                    }
                    let what = format!("{text:?} in {}", place.at);
                    refused(place.with(&vector, rule, which, Some(text)), &what);
                }
                let wrong = forged(value);
                assert_eq!(wrong.len(), value.len());
                let what = format!("{wrong:?} in {}", place.at);
                refused(place.with(&vector, rule, which, Some(&wrong)), &what);
                let lines = matches!(place.role, Role::Proof { list: true })
                    && matches!(place.at, Selector::Header(_));
                for more in [&wrong, value] {
                    let Some(twice) = place.twice(&vector, more).filter(|_| !lines) else {
                        continue;
                    };
                    refused(twice, &format!("{} twice", place.at));
                }
                if lines {
                    let mut twice = place.with(&vector, rule, which, Some(&wrong));
                    let Selector::Header(header) = &place.at else { unreachable!() };
                    let other = HeaderValue::from_str(&wrong.replace('0', "1")).unwrap();
                    twice.headers.append(header.parse::<HeaderName>().unwrap(), other);
                    refused(twice, "two wrong proofs");
                }
            }
        }
        assert!(mutations >= 12, "{name}: {mutations} mutations");

        if is_timed(scheme) && !is_shown {
            let hours = SignedDuration::from_hours(2);
            let old = run(original.clone(), at(&vector) + hours);
            assert_eq!(old, Err(R::StaleTimestamp), "{name}, old");
            let early = run(original.clone(), at(&vector) - hours);
            let begins = !WITHOUT_A_BEGINNING.contains(&vector.provider.as_str());
            let expected = if begins { Err(R::FutureTimestamp) } else { Ok(()) };
            assert_eq!(early, expected, "{name}, early");
        }
    }
}

#[test]
fn another_secret_does_not_verify() {
    let vectors = vectors();
    for vector in &vectors {
        let (source, resolved) = source(vector);
        if vector.secret.is_empty() {
            // Other keys are fetched, and other secrets came.
            let mut other = vector.clone();
            other.jwks = vector
                .jwks
                .as_ref()
                .map(|set| set.replacen("\"k1\"", "\"k2\"", 1).replace("RS256", "RS1"));
            let foreign = include_str!("../../src/verify/tests/certificates/own.pem");
            other.certificate = vector.certificate.as_ref().map(|_| foreign.to_owned());
            other.captured = vec!["another".to_owned()];
            let verdict = judged(&other, &source, &resolved.vault, received(vector), at(vector));
            assert!(
                matches!(
                    verdict,
                    Err(Rejection::UnknownKey
                        | Rejection::WrongSignature
                        | Rejection::BadCertificate)
                ),
                "{}: {verdict:?}",
                vector.provider
            );
            continue;
        }
        // The vault knows another text under the same reference.
        let other = match vector.provider.as_str() {
            "wise" | "paddle-classic" | "wix" => {
                include_str!("../../src/simulate/stand_in/p256.pub.pem").to_owned()
            }
            "discord" => {
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c".to_owned()
            }
            "telnyx" => "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=".to_owned(),
            _ => "ab".repeat(16),
        };
        let mut vault = Vault::default();
        vault.insert(SecretRef::Literal(vector.secret.as_str().into()), SecretValue::new(other));
        let verdict = judged(vector, &source, &vault, received(vector), at(vector));
        let reasons = [
            Rejection::WrongSignature,
            Rejection::WrongToken,
            Rejection::UnusableSecret,
            // Of schemes side by side the one that the request is not for.
            Rejection::MalformedToken,
        ];
        assert!(verdict.is_err_and(|it| reasons.contains(&it)), "{}: {verdict:?}", vector.provider);
    }
    assert!(vectors.len() >= BUILT_IN.len());
}

#[test]
fn another_setting_does_not_verify() {
    let mut found = 0;
    for vector in vectors() {
        // It is of the handshake, or says where the keys are.
        let other = ["verify_token", "domain"].iter().any(|it| vector.config.contains_key(*it));
        if vector.config.is_empty() || other {
            continue;
        }
        let mut other = vector.clone();
        other.config.values_mut().for_each(|value| value.push('x'));
        let (source, resolved) = source(&other);
        let verdict = judged(&vector, &source, &resolved.vault, received(&vector), at(&vector));
        assert!(verdict.is_err(), "{}: {verdict:?}", vector.provider);
        found += 1;
    }
    assert!(found > 10);
}

#[test]
fn what_is_signed_by_a_preset_verifies_by_it() {
    for vector in vectors() {
        let name = &vector.provider;
        let (source, resolved) = source(&vector);
        let scheme = &source.verify.scheme;
        let (keys, verifies) = stand_in::vaults(scheme, &resolved.vault);
        let (private, fetched) = stand_in::fetched(scheme);
        let captured = Beside::of(&vector, &source).captured;
        let signs = Keys { captured: &captured, private: private.as_ref(), ..Keys::of(&keys) };
        let verifies = Keys { captured: &captured, fetched: &fetched, ..Keys::of(&verifies) };
        let mut bare = received(&vector);
        for place in Place::of(scheme, &[]).iter().filter(|it| it.role != Role::Part) {
            match &place.at {
                Selector::Header(header) => drop(bare.headers.remove(header.as_str())),
                Selector::Query(parameter) => {
                    replaced(&mut bare.query, parameter, None);
                    set_query(&mut bare);
                }
                _ => {}
            }
        }
        let unsigned = Unsigned {
            method: bare.method.clone(),
            url: vector.url().join(&bare.target).unwrap(),
            path: Vec::new(),
            headers: bare.headers.clone(),
            body: match matches!(scheme, Scheme::Jwt(jwt) if jwt.at == JwtAt::Body) {
                true => br#"{"a":1}"#.as_slice().into(),
                false => bare.body.clone(),
            },
            id: "msg_2".to_owned(),
            body_rule: source.body.clone(),
        };
        let proof = match sign(scheme, signs, &unsigned, at(&vector), 0) {
            Err(SignError::Place(_)) if vector.body.starts_with("--") => continue,
            proof => proof.unwrap_or_else(|error| panic!("{name}: {error}")),
        };
        let mut request = bare;
        for (header, value) in &proof.headers {
            request.headers.insert(header.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        if !proof.query.is_empty() {
            request.query.extend(proof.query);
            set_query(&mut request);
        }
        request.body = proof.body;
        let url = public_url(&vector);
        let about = About { public_url: Some(&url), body: source.body.as_ref() };
        let verdict = verify(scheme, request, verifies, about, at(&vector)).map(drop);
        assert_eq!(verdict, Ok(()), "{name}");
    }
}

/// The answer to a challenge, where it is one and its sender did not have to prove itself.
fn answered(vector: &Vector) -> Option<(u16, String, BTreeMap<String, String>)> {
    let (source, resolved) = source(vector);
    let (received, url) = (received(vector), public_url(vector));
    let asked = Asked {
        received: &received,
        scheme: &source.verify.scheme,
        keys: Keys::of(&resolved.vault),
        about: About { public_url: Some(&url), body: source.body.as_ref() },
        now: at(vector),
    };
    let found = handshake::find(&source.handshakes, asked)?;
    if found.verify {
        assert_eq!(
            judged(vector, &source, &resolved.vault, received.clone(), at(vector)),
            Ok(()),
            "{}",
            vector.provider
        );
    }
    let answer = found.answer(asked).unwrap();
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    Some((answer.status.as_u16(), body, headers.collect()))
}

#[test]
fn challenges_are_answered() {
    let ask =
        |provider: &str, method: &str, query: &str, headers: &[(&str, &str)], body: &str| Vector {
            provider: provider.to_owned(),
            secret: "a private key".to_owned(),
            method: method.to_owned(),
            url: format!("https://hooks.example.com/r{query}"),
            body: body.to_owned(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            config: match provider {
                "meta" => [("verify_token".to_owned(), "chosen".to_owned())].into(),
                "braintree" => [("public_key".to_owned(), "a_public_key".to_owned())].into(),
                _ => BTreeMap::new(),
            },
            jwks: None,
            certificate: None,
            captured: Vec::new(),
            at: 1_700_000_000,
        };
    let check = |vector: Vector, expected: Option<(u16, &str)>| {
        let answer = answered(&vector);
        let answer = answer.as_ref().map(|(status, body, _)| (*status, body.as_str()));
        assert_eq!(answer, expected, "{} {} {}", vector.provider, vector.method, vector.url);
    };
    let token = "hub.mode=subscribe&hub.challenge=115";
    check(
        ask("meta", "GET", &format!("?{token}&hub.verify_token=chosen"), &[], ""),
        Some((200, "115")),
    );
    check(ask("meta", "GET", &format!("?{token}&hub.verify_token=Chosen"), &[], ""), None);
    check(ask("meta", "GET", &format!("?{token}"), &[], ""), None);
    check(ask("meta", "POST", &format!("?{token}&hub.verify_token=chosen"), &[], ""), None);
    // What braintree's own library answers.
    check(
        ask("braintree", "GET", "?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53", &[], ""),
        Some((200, "a_public_key|a92c40e39e263b1763729354195a35830e167837")),
    );
    for challenge in
        ["", "20F9f8ed05f77439fe955c977e4c8a53", "20f9", "20f9f8ed05f77439fe955c977e4c8a53%0A"]
    {
        check(ask("braintree", "GET", &format!("?bt_challenge={challenge}"), &[], ""), None);
    }
    let challenge = [("X-Okta-Verification-Challenge", "a \"b\"")];
    check(ask("okta", "GET", "", &challenge, ""), Some((200, r#"{"verification":"a \"b\""}"#)));
    check(ask("okta", "POST", "", &challenge, ""), None);
    check(
        ask("microsoft-graph", "POST", "?validationToken=a%20%26b", &[], ""),
        Some((200, "a &b")),
    );
    let validation = [("aeg-event-type", "SubscriptionValidation")];
    check(
        ask(
            "event-grid",
            "POST",
            "?code=a+private+key",
            &validation,
            r#"[{"data":{"validationCode":"c-1"}}]"#,
        ),
        Some((200, r#"{"validationResponse":"c-1"}"#)),
    );
    check(ask("cloudevents", "OPTIONS", "", &[], ""), None);
    let (_, _, headers) = answered(&ask(
        "cloudevents",
        "OPTIONS",
        "",
        &[("WebHook-Request-Origin", "a.example")],
        "",
    ))
    .unwrap();
    assert_eq!(headers["webhook-allowed-origin"], "a.example");
    check(ask("mailchimp", "GET", "?key=a+private+key", &[], ""), Some((200, "")));
    check(ask("mandrill", "HEAD", "", &[], ""), Some((200, "")));
}

/// What would be a payload of Braintree's could be asked for as a challenge.
#[test]
fn an_answered_challenge_is_no_payload() {
    let challenge = "20f9f8ed05f77439fe955c977e4c8a53";
    let signature = "a92c40e39e263b1763729354195a35830e167837";
    let vector =
        vectors().into_iter().find(|it| it.provider == "braintree" && it.secret == "a private key");
    let mut vector = vector.unwrap();
    vector.body = format!("bt_signature=a_public_key|{signature}&bt_payload={challenge}");
    let (source, resolved) = source(&vector);
    let verdict = judged(&vector, &source, &resolved.vault, received(&vector), at(&vector));
    assert_eq!(verdict, Err(Rejection::WrongValue));
}

/// A body that is not what the URL says, and a form that pretends to be something else.
#[test]
fn no_body_goes_uncovered_where_the_url_is_signed() {
    let of_twilio = |holds: &dyn Fn(&Vector) -> bool| {
        vectors().into_iter().find(|it| it.provider == "twilio" && holds(it)).unwrap()
    };
    let refused = |vector: &Vector| {
        let (source, resolved) = source(vector);
        let verdict = judged(vector, &source, &resolved.vault, received(vector), at(vector));
        assert!(verdict.is_err(), "{} {}: {verdict:?}", vector.method, vector.url);
    };
    let of_url = of_twilio(&|it| it.url.contains("bodySHA256"));
    for content_type in ["application/json", "application/x-www-form-urlencoded", "text/plain"] {
        for body in ["", "{}", "a=b"] {
            let mut other = of_url.clone();
            other.body = body.to_owned();
            other.headers.insert("Content-Type".to_owned(), content_type.to_owned());
            refused(&other);
        }
    }
    let mut asked = of_twilio(&|it| it.method == "GET");
    asked.body = "{}".to_owned();
    refused(&asked);
    asked.body = String::new();
    asked.method = "POST".to_owned();
    refused(&asked);
    let plivo = |it: &Vector| it.provider == "plivo" && it.method == "GET";
    let mut asked = vectors().into_iter().find(plivo).unwrap();
    asked.body = "{}".to_owned();
    refused(&asked);
    let mut as_text = of_twilio(&|it| it.body.starts_with("MessageSid"));
    as_text.headers.insert("Content-Type".to_owned(), "application/json".to_owned());
    refused(&as_text);
}
