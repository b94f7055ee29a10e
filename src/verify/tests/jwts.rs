//! JSON Web Tokens: what RFC 7515 signed, and every way to get a token wrong.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};

use super::*;
use crate::verify::algorithm::JwtAlgorithm;
use crate::verify::fetched::{Fetched, KeySet, KeysAt, Want};
use crate::verify::jwt::{Claim, ExpectedClaim, Jwt, JwtAt, JwtKeys};
use crate::verify::wants;

/// RFC 7515, A.1 to A.3: one content under three keys.
const CONTENT: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const HS256: (&str, &str) =
    ("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
const HS256_KEY: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ+EstJQLr/T+1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
const RS256: (&str, &str) = (
    "eyJhbGciOiJSUzI1NiJ9",
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
);
const ES256: (&str, &str) = (
    "eyJhbGciOiJFUzI1NiJ9",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
);
const SET: &str = r#"{"keys":[
  {"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
  {"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"},
  {"kty":"oct","k":"AAAA"}, {"kty":"RSA"}, 7
]}"#;

/// Private and public key, in PEM.
fn pair(kind: PublicKey) -> (&'static str, &'static str) {
    match kind {
        PublicKey::Ed25519 => (
            include_str!("../../simulate/stand_in/ed25519.pem"),
            include_str!("../../simulate/stand_in/ed25519.pub.pem"),
        ),
        PublicKey::EcdsaP256Sha256 => (
            include_str!("../../simulate/stand_in/p256.pem"),
            include_str!("../../simulate/stand_in/p256.pub.pem"),
        ),
        PublicKey::RsaSha256 | PublicKey::RsaSha1 => (
            include_str!("../../simulate/stand_in/rsa.pem"),
            include_str!("../../simulate/stand_in/rsa.pub.pem"),
        ),
    }
}

const NOW: i64 = 1_300_819_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn token((header, signature): (&str, &str)) -> String {
    format!("{header}.{CONTENT}.{signature}")
}

fn shared(algorithms: &[JwtAlgorithm], secret_: &str, encoding: SecretEncoding) -> Jwt {
    let form = KeyForm { encoding, ..KeyForm::default() };
    Jwt {
        at: JwtAt::Header { name: "x-token".to_owned(), prefix: String::new() },
        algorithms: algorithms.to_vec(),
        keys: JwtKeys::Secrets { secrets: vec![secret(secret_)].into(), form },
        required: Vec::new(),
        claims: Vec::new(),
        tolerance: None,
    }
}

fn jwks() -> KeysAt {
    KeysAt::Jwks("https://keys.example/set".parse().unwrap())
}

fn fetched(algorithm: JwtAlgorithm) -> Jwt {
    let keys = JwtKeys::Fetched(jwks());
    Jwt { keys, ..shared(&[algorithm], "none", SecretEncoding::Utf8) }
}

fn of_set(text: &str) -> Fetched {
    let mut fetched = Fetched::default();
    fetched.insert(jwks(), std::sync::Arc::new(KeySet::jwks(text.as_bytes()).unwrap()));
    fetched
}

fn judged(jwt: &Jwt, secrets: &[&str], fetched: &Fetched, request: Received) -> Verdict {
    let vault = vault(secrets);
    let keys = Keys { fetched, ..Keys::of(&vault) };
    verify(&Scheme::Jwt(jwt.clone()), request, keys, About::default(), now()).map(drop)
}

fn shown(jwt: &Jwt, secrets: &[&str], fetched: &Fetched, token: &str) -> Verdict {
    judged(jwt, secrets, fetched, bare(&[("x-token", token)], &[], "{}"))
}

/// Signed here by HS256 with `hush`.
fn made(header: Json, claims: Json) -> String {
    let part = |json: Json| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let mac = super::super::algorithm::mac(Hash::Sha256, b"hush", &[signed.as_bytes()]);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
}

fn hush() -> Jwt {
    shared(&[JwtAlgorithm::Hs256], "hush", SecretEncoding::Utf8)
}

fn claims_verdict(jwt: &Jwt, claims: Json) -> Verdict {
    let token = made(json!({ "alg": "HS256" }), claims);
    shown(jwt, &["hush"], &Fetched::default(), &token)
}

#[test]
fn what_the_standard_signed_verifies() {
    let nothing = Fetched::default();
    let jwt = shared(&[JwtAlgorithm::Hs256], HS256_KEY, SecretEncoding::Base64);
    assert_eq!(shown(&jwt, &[HS256_KEY], &nothing, &token(HS256)), Ok(()));
    let set = of_set(SET);
    for (algorithm, by) in [(JwtAlgorithm::Rs256, RS256), (JwtAlgorithm::Es256, ES256)] {
        let jwt = fetched(algorithm);
        assert_eq!(shown(&jwt, &[], &set, &token(by)), Ok(()), "{algorithm:?}");
        let (header, signature) = by;
        let other = signature.replacen('D', "E", 1).replacen("cC4", "cC5", 1);
        let forged = format!("{header}.{CONTENT}.{other}");
        assert_eq!(shown(&jwt, &[], &set, &forged), Err(Rejection::WrongSignature));
        let changed = token(by).replace("eyJpc3MiOiJqb2Ui", "eyJpc3MiOiJqb2Uj");
        assert!(shown(&jwt, &[], &set, &changed).is_err(), "{algorithm:?}");
        assert_eq!(shown(&jwt, &[], &nothing, &token(by)), Err(Rejection::KeyUnavailable));
    }
}

#[test]
fn the_sender_has_no_say_in_the_algorithm() {
    let nothing = Fetched::default();
    let (_, public) = pair(PublicKey::RsaSha256);
    let jwt = shared(&[JwtAlgorithm::Rs256], public, SecretEncoding::Utf8);
    // By HMAC with the public key as the secret.
    let part = |json: Json| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(json!({ "alg": "HS256" })), part(json!({})));
    let mac = super::super::algorithm::mac(Hash::Sha256, public.as_bytes(), &[signed.as_bytes()]);
    let confused = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&mac));
    assert_eq!(shown(&jwt, &[public], &nothing, &confused), Err(Rejection::WrongAlgorithm));
    let renamed = format!(
        "{}.{}.{}",
        part(json!({ "alg": "RS256" })),
        part(json!({})),
        URL_SAFE_NO_PAD.encode(&mac)
    );
    assert_eq!(shown(&jwt, &[public], &nothing, &renamed), Err(Rejection::WrongSignature));
    for name in ["none", "None", "hs256", "HS512", ""] {
        let token = made(json!({ "alg": name }), json!({}));
        assert_eq!(
            shown(&hush(), &["hush"], &nothing, &token),
            Err(Rejection::WrongAlgorithm),
            "{name}"
        );
    }
    let unsigned = format!("{}.{}.", part(json!({ "alg": "HS256" })), part(json!({})));
    assert!(shown(&hush(), &["hush"], &nothing, &unsigned).is_err());
}

#[test]
fn what_is_no_token_is_malformed() {
    let nothing = Fetched::default();
    let good = made(json!({ "alg": "HS256" }), json!({}));
    assert_eq!(shown(&hush(), &["hush"], &nothing, &good), Ok(()));
    let critical = made(json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), json!({}));
    let list = made(json!({ "alg": "HS256" }), json!([]));
    let long = made(json!({ "alg": "HS256" }), json!({ "a": "a".repeat(20_000) }));
    let malformed = [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "e30.e30.e30",
        good.get(1..).unwrap(),
        &format!("{good}.x"),
        &format!("Bearer {good}"),
        &good.replace('.', " "),
        &critical,
        &list,
        &long,
    ];
    for token in malformed {
        let verdict = shown(&hush(), &["hush"], &nothing, token);
        assert_eq!(verdict, Err(Rejection::MalformedToken), "{token}");
    }
    let verdict = judged(&hush(), &["hush"], &nothing, bare(&[], &[], "{}"));
    assert_eq!(verdict, Err(Rejection::MissingToken));
    let twice = bare(&[("x-token", &good), ("x-token", &good)], &[], "{}");
    assert_eq!(judged(&hush(), &["hush"], &nothing, twice), Err(Rejection::MalformedToken));
    assert_eq!(shown(&hush(), &[], &nothing, &good), Err(Rejection::UnusableSecret));
}

#[test]
fn keys_are_found_by_their_name() {
    let named =
        SET.replacen(r#"{"kty":"RSA""#, r#"{"kid":"k1","use":"sig","alg":"RS256","kty":"RSA""#, 1);
    let set = of_set(&named);
    let jwt = fetched(JwtAlgorithm::Rs256);
    // The standard's own token names no key: each that fits is tried.
    assert_eq!(shown(&jwt, &[], &set, &token(RS256)), Ok(()));
    let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "RS256", "kid": "k2" }).to_string());
    let other = token((&header, RS256.1));
    assert_eq!(shown(&jwt, &[], &set, &other), Err(Rejection::UnknownKey));
    // A key that says another algorithm, or another use, is not for this.
    for (from, to) in [("RS256\",\"kty", "RS512\",\"kty"), ("\"sig\"", "\"enc\"")] {
        let set = of_set(&named.replace(from, to));
        assert_eq!(shown(&jwt, &[], &set, &token(RS256)), Err(Rejection::UnknownKey), "{to}");
    }
    let scheme = Scheme::AnyOf(vec![Scheme::Jwt(jwt.clone()), Scheme::Jwt(jwt)]);
    let wanted = |text: &str| {
        let (vault, request) = (Vault::default(), bare(&[("x-token", text)], &[], "{}"));
        wants(&scheme, &request, Keys::of(&vault), About::default(), now())
    };
    assert_eq!(wanted(&other), [Want { at: jwks(), key_id: Some("k2".to_owned()) }]);
    assert_eq!(wanted(&token(RS256)), [Want { at: jwks(), key_id: None }]);
    // Nothing is fetched for what could not verify anyhow.
    for text in ["", "a.b.c", &token(HS256)] {
        assert_eq!(wanted(text), [], "{text}");
    }
}

#[test]
fn claims_and_times() {
    let text = |text: &str| ExpectedClaim::Text(vec![Part::Literal(text.to_owned())]);
    let claim = |name: &str, expected| Claim { name: name.to_owned(), expected };
    let body_hash = ExpectedClaim::Text(vec![Part::Filtered(
        Box::new(Part::Body),
        vec![Filter::Digest { hash: Hash::Sha256, encoding: SignatureEncoding::Hex }],
    )]);
    let jwt = Jwt {
        claims: vec![
            claim("iss", vec![text("a"), text("b")]),
            claim("ok", vec![ExpectedClaim::Bool(true)]),
            claim("hash", vec![body_hash]),
        ],
        required: vec!["exp".to_owned()],
        tolerance: Some(Duration::from_secs(300)),
        ..hush()
    };
    // printf '{}' | sha256sum
    let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let good = json!({ "iss": ["x", "b"], "ok": true, "hash": hash, "exp": NOW + 10, "iat": NOW });
    assert_eq!(claims_verdict(&jwt, good.clone()), Ok(()));
    let check = |name: &str, value: Json, expected: Rejection| {
        let mut claims = good.clone();
        claims[name] = value.clone();
        assert_eq!(claims_verdict(&jwt, claims), Err(expected), "{name} {value}");
    };
    for value in
        [json!("c"), json!(["c"]), json!([]), json!({ "b": "b" }), json!(null), json!(true)]
    {
        check("iss", value, Rejection::WrongClaim);
    }
    check("ok", json!("true"), Rejection::WrongClaim);
    check("ok", json!(false), Rejection::WrongClaim);
    check("hash", json!(hash.replace('4', "5")), Rejection::WrongClaim);
    check("exp", json!(null), Rejection::WrongClaim);
    check("exp", json!(NOW - 60), Rejection::StaleTimestamp);
    check("exp", json!("soon"), Rejection::MalformedTimestamp);
    check("exp", json!(1e300), Rejection::MalformedTimestamp);
    check("nbf", json!(NOW + 61), Rejection::FutureTimestamp);
    check("iat", json!(NOW - 301), Rejection::StaleTimestamp);
    check("iat", json!(NOW + 301), Rejection::FutureTimestamp);
    check("iat", json!(null), Rejection::MissingTimestamp);
    let mut near = good.clone();
    (near["exp"], near["nbf"], near["iat"]) =
        (json!(NOW - 59), json!(NOW + 60), json!(NOW as f64 - 300.0));
    assert_eq!(claims_verdict(&jwt, near), Ok(()));
}

#[test]
fn a_body_may_be_the_token_or_its_content() {
    let nothing = Fetched::default();
    let good = made(json!({ "alg": "HS256" }), json!({ "a": 1 }));
    let jwt = Jwt { at: JwtAt::Body, ..hush() };
    let body = format!("\n{good}\n");
    assert_eq!(judged(&jwt, &["hush"], &nothing, bare(&[], &[], &body)), Ok(()));
    assert_eq!(
        judged(&jwt, &["hush"], &nothing, bare(&[], &[], "{}")),
        Err(Rejection::MalformedToken)
    );

    let jwt = Jwt { at: JwtAt::Detached { name: "x-token".to_owned() }, ..hush() };
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#);
    let mac =
        super::super::algorithm::mac(Hash::Sha256, b"hush", &[header.as_bytes(), b".", b"{}"]);
    let detached = format!("{header}..{}", URL_SAFE_NO_PAD.encode(mac));
    assert_eq!(shown(&jwt, &["hush"], &nothing, &detached), Ok(()));
    let other = bare(&[("x-token", &detached)], &[], "{ }");
    assert_eq!(judged(&jwt, &["hush"], &nothing, other), Err(Rejection::WrongSignature));
    // A whole token proves nothing of the body.
    assert_eq!(shown(&jwt, &["hush"], &nothing, &good), Err(Rejection::MalformedToken));
}

#[test]
fn what_sign_makes_verifies_by_every_algorithm() {
    for algorithm in JwtAlgorithm::ALL {
        let (private, public) = match algorithm.public_key() {
            None => ("hush", "hush"),
            Some(kind) => pair(kind),
        };
        let reference = secret("key");
        let holding = |text: &str| {
            let mut vault = Vault::default();
            vault.insert(reference.clone(), SecretValue::new(text));
            vault
        };
        for at in [
            JwtAt::Bearer,
            JwtAt::Header { name: "x-token".to_owned(), prefix: "JWT ".to_owned() },
            JwtAt::Body,
            JwtAt::Detached { name: "x-token".to_owned() },
            JwtAt::At(Selector::Json("$.token".to_owned())),
        ] {
            let jwt = Jwt {
                at: at.clone(),
                required: vec!["exp".to_owned()],
                tolerance: Some(Duration::from_secs(300)),
                ..shared(&[algorithm], "key", SecretEncoding::Utf8)
            };
            let jwt = match at {
                JwtAt::Detached { .. } => Jwt { required: Vec::new(), tolerance: None, ..jwt },
                _ => jwt,
            };
            let scheme = Scheme::Jwt(jwt);
            let unsigned = Unsigned {
                method: Method::POST,
                url: "https://hooks.example/hooks/a".parse().unwrap(),
                path: Vec::new(),
                headers: HeaderMap::new(),
                body: Bytes::from_static(b"{}"),
                id: String::new(),
                body_rule: None,
            };
            let proof = sign(&scheme, Keys::of(&holding(private)), &unsigned, now(), 0).unwrap();
            let headers: Vec<(&str, &str)> =
                proof.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            let received = bare(&headers, &[], std::str::from_utf8(&proof.body).unwrap());
            let vault = holding(public);
            let verdict = verify(&scheme, received, Keys::of(&vault), About::default(), now());
            assert_eq!(verdict.map(drop), Ok(()), "{algorithm:?} {at:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_token_and_no_set_of_keys_is_a_surprise(
        token in "[A-Za-z0-9_.-]{0,120}|.*", header in ".{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let nothing = Fetched::default();
        let framed = format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(&header), URL_SAFE_NO_PAD.encode(&bytes));
        for text in [&token, &framed] {
            let mut received = bare(&[], &[], text);
            if let Ok(value) = HeaderValue::from_str(text) {
                received.headers.insert("x-token", value);
            }
            for at in [JwtAt::Body, JwtAt::Header { name: "x-token".to_owned(), prefix: String::new() }] {
                let jwt = Jwt { at, ..hush() };
                prop_assert!(judged(&jwt, &["hush"], &nothing, received.clone()).is_err());
            }
        }
        drop(KeySet::jwks(&bytes));
        drop(KeySet::jwks(format!(r#"{{"keys":[{{"kty":"RSA","n":"{token}","e":"AQAB"}}]}}"#).as_bytes()));
        drop(KeySet::chain(&bytes));
    }
}
