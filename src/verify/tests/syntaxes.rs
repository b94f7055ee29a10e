//! Digests, schemes of several, places in the body, and lists without tags.

use super::*;

const FORM: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];

const NOW: i64 = 1_700_000_000;

fn verdict(scheme: &Scheme, received: Received) -> Verdict {
    let now = Timestamp::from_second(NOW).unwrap();
    verify(scheme, received, Keys::of(&vault(&["hush"])), About::default(), now).map(drop)
}

fn hex_mac(message: &str) -> String {
    hex::encode(crate::verify::algorithm::mac(Hash::Sha256, b"hush", &[message.as_bytes()]))
}

/// `printf 'hush{}' | sha256sum`
const DIGEST: &str = "5178f5203c3826aaa016dd6d3a27d037b55afc6be7d8af2f185a4fb51bb93c32";

#[test]
fn a_digest_has_the_secret_in_its_text() {
    let scheme = Scheme::Signing(Signing {
        algorithm: Algorithm::Digest(Hash::Sha256),
        signed: vec![Part::Secret, Part::Body],
        ..plain(&["hush"])
    });
    let of = |text: &str| bare(&[("x-signature", text)], &[], "{}");
    assert_eq!(verdict(&scheme, of(DIGEST)), Ok(()));
    // Of the body alone.
    let bare_digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    assert_eq!(verdict(&scheme, of(bare_digest)), Err(Rejection::WrongSignature));
    assert_eq!(verdict(&scheme, bare(&[], &[], "{}")), Err(Rejection::MissingSignature));
}

#[test]
fn of_all_each_must_verify() {
    let token = Scheme::Token(Token {
        at: TokenAt::Header("x-token".to_owned()),
        secrets: vec![secret("hush")].into(),
    });
    let scheme = Scheme::AllOf(vec![Scheme::Signing(plain(&["hush"])), token]);
    let mac = hex_mac("{}");
    let check = |headers: &[(&str, &str)], expected: Verdict| {
        assert_eq!(verdict(&scheme, bare(headers, &[], "{}")), expected, "{headers:?}");
    };
    check(&[("x-signature", &mac), ("x-token", "hush")], Ok(()));
    check(&[("x-signature", &mac)], Err(Rejection::MissingToken));
    check(&[("x-token", "hush")], Err(Rejection::MissingSignature));
    check(&[("x-signature", &mac), ("x-token", "hash")], Err(Rejection::WrongToken));
    check(&[("x-signature", &hex_mac("")), ("x-token", "hush")], Err(Rejection::WrongSignature));
}

#[test]
fn signature_time_and_text_may_stand_in_the_body() {
    let json = |path: &str| Selector::Json(path.to_owned());
    let at = |unit| Some(TimestampAt { selector: json("$.sig.time"), unit });
    let inside = Scheme::Signing(Signing {
        signature: Signature {
            at: json("$.sig.mac"),
            groups: None,
            encoding: SignatureEncoding::Hex,
            syntax: SignatureSyntax::Prefix(String::new()),
        },
        timestamp: at(TimeUnit::UnixSeconds),
        ..timed(plain(&["hush"]), vec![Part::Timestamp, Part::At(json("$.sig.token"))])
    });
    let body = |time: &str, mac: &str| {
        bare(&[], &[], &format!(r#"{{"sig":{{"time":{time},"token":"t1","mac":"{mac}"}}}}"#))
    };
    let mac = hex_mac("1700000000t1");
    assert_eq!(verdict(&inside, body("1700000000", &mac)), Ok(()));
    assert_eq!(verdict(&inside, body("\"1700000000\"", &mac)), Ok(()));
    assert_eq!(verdict(&inside, body("1700000001", &mac)), Err(Rejection::WrongSignature));
    assert_eq!(verdict(&inside, body("null", &mac)), Err(Rejection::MissingTimestamp));
    assert_eq!(verdict(&inside, bare(&[], &[], "{")), Err(Rejection::MissingSignature));
    let old = hex_mac("1600000000t1");
    assert_eq!(verdict(&inside, body("1600000000", &old)), Err(Rejection::StaleTimestamp));

    let form = Scheme::Signing(Signing {
        signature: Signature {
            at: Selector::Form("mac".to_owned()),
            groups: None,
            encoding: SignatureEncoding::Hex,
            syntax: SignatureSyntax::Prefix(String::new()),
        },
        signed: vec![Part::At(Selector::Form("a".to_owned()))],
        ..plain(&["hush"])
    });
    let mac = hex_mac("b c");
    assert_eq!(verdict(&form, bare(FORM, &[], &format!("a=b+c&mac={mac}"))), Ok(()));
    let twice = bare(FORM, &[], &format!("a=b+c&a=d&mac={mac}"));
    assert_eq!(verdict(&form, twice), Err(Rejection::MalformedSignature));
    let token = Scheme::Token(Token {
        at: TokenAt::Form("t".to_owned()),
        secrets: vec![secret("hush")].into(),
    });
    assert_eq!(verdict(&token, bare(FORM, &[], "a=1&t=hush")), Ok(()));
    assert_eq!(verdict(&token, bare(FORM, &[], "t=hash")), Err(Rejection::WrongToken));
    assert_eq!(verdict(&token, bare(FORM, &[], "t=hush&t=hash")), Err(Rejection::MalformedToken));
}

#[test]
fn lists_without_tags_and_times_in_front() {
    let with = |syntax: SignatureSyntax, signed: Vec<Part>| {
        let signature = Signature { syntax, ..plain(&[]).signature };
        Signing { signature, signed, ..plain(&["hush"]) }
    };
    let list = SignatureSyntax::List { separator: ',', prefix: String::new() };
    let list = Scheme::Signing(with(list, vec![Part::Body]));
    let (right, wrong) = (hex_mac("{}"), "0".repeat(64));
    let check = |scheme: &Scheme, value: &str, expected: Verdict| {
        let received = bare(&[("x-signature", value)], &[], "{}");
        assert_eq!(verdict(scheme, received), expected, "{value}");
    };
    check(&list, &right, Ok(()));
    check(&list, &format!("{wrong}, {right}"), Ok(()));
    check(&list, &format!("{wrong},{wrong}"), Err(Rejection::WrongSignature));
    check(&list, ",", Err(Rejection::MalformedSignature));
    let two = bare(&[("x-signature", &wrong), ("x-signature", &right)], &[], "{}");
    assert_eq!(verdict(&list, two), Ok(()));

    let positional = with(
        SignatureSyntax::Positional { separator: ',' },
        vec![Part::Timestamp, Part::Literal(".".to_owned()), Part::Body],
    );
    let positional =
        Scheme::Signing(Signing { tolerance: Some(Duration::from_secs(300)), ..positional });
    let right = hex_mac("1700000000.{}");
    check(&positional, &format!("1700000000,{right}"), Ok(()));
    check(&positional, &format!("1700000000,{wrong},{right}"), Ok(()));
    check(&positional, &format!("{right},1700000000"), Err(Rejection::MalformedTimestamp));
    check(&positional, "1700000000", Err(Rejection::MalformedSignature));
    let old = hex_mac("1600000000.{}");
    check(&positional, &format!("1600000000,{old}"), Err(Rejection::StaleTimestamp));
}

#[test]
fn lower_case_and_the_alphabet_for_urls() {
    let lower = Scheme::Signing(Signing {
        signed: vec![Part::Filtered(
            Box::new(Part::At(Selector::Query("id".to_owned()))),
            vec![Filter::Lower],
        )],
        ..plain(&["hush"])
    });
    let received = bare(&[("x-signature", &hex_mac("abc"))], &[("id", "AbC")], "");
    assert_eq!(verdict(&lower, received), Ok(()));

    let mac = crate::verify::algorithm::mac(Hash::Sha256, b"hush", &[b"{4}"]);
    let text = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &mac);
    let signature = Signature { encoding: SignatureEncoding::Base64Url, ..plain(&[]).signature };
    let url_safe = Scheme::Signing(Signing { signature, ..plain(&["hush"]) });
    for text in [text.clone(), format!("{text}=")] {
        let received = bare(&[("x-signature", &text)], &[], "{4}");
        assert_eq!(verdict(&url_safe, received), Ok(()));
    }
    let standard = text.replace('-', "+").replace('_', "/");
    assert_ne!(standard, text, "the test needs a signature with a character that differs");
    let received = bare(&[("x-signature", &standard)], &[], "{4}");
    assert_eq!(verdict(&url_safe, received), Err(Rejection::MalformedSignature));
}

#[test]
fn of_any_a_right_signature_at_the_wrong_time_is_told_before_a_wrong_one() {
    let timed = Signing {
        timestamp: Some(TimestampAt { selector: header("x-time"), unit: TimeUnit::UnixSeconds }),
        ..timed(plain(&["hush"]), vec![Part::Timestamp, Part::Body])
    };
    let other = Scheme::Signing(plain(&["hush"]));
    let old = hex_mac("1600000000{}");
    for schemes in
        [[Scheme::Signing(timed.clone()), other.clone()], [other, Scheme::Signing(timed)]]
    {
        let received = bare(&[("x-signature", &old), ("x-time", "1600000000")], &[], "{}");
        let told = verdict(&Scheme::AnyOf(schemes.into()), received);
        assert_eq!(told, Err(Rejection::StaleTimestamp));
    }
}

#[test]
fn what_proves_the_sender_stands_in_what_becomes_the_event() {
    use crate::body::{BodyRule, Document};
    let of_form = Scheme::Signing(Signing {
        signature: Signature {
            at: Selector::Form("mac".to_owned()),
            groups: None,
            encoding: SignatureEncoding::Hex,
            syntax: SignatureSyntax::Prefix(String::new()),
        },
        signed: vec![Part::At(Selector::Form("p".to_owned()))],
        ..plain(&["hush"])
    });
    let mac = hex_mac("real");
    let base64 = BodyRule::Base64In { path: vec!["p".to_owned()], document: Document::Text };
    let judged = |rule: Option<&BodyRule>, content_type: Option<&str>, body: &str| {
        let headers: Vec<_> = content_type.map(|it| ("content-type", it)).into_iter().collect();
        let about = About { public_url: None, body: rule };
        let known = vault(&["hush"]);
        let keys = Keys::of(&known);
        verify(&of_form, bare(&headers, &[], body), keys, about, Timestamp::UNIX_EPOCH).map(drop)
    };
    let form = format!("p=real&mac={mac}");
    // A form to one reader and JSON to the other: a captured form inside one's own document.
    let both = format!(r#"{{"p":"forged","x":"&p=real&mac={mac}&"}}"#);
    let named = Some(FORM[0].1);
    for rule in [None, Some(&base64)] {
        assert_eq!(judged(rule, named, &form), Ok(()));
        for content_type in [None, Some("application/json"), Some("text/plain")] {
            let verdict = judged(rule, content_type, &both);
            assert_eq!(verdict, Err(Rejection::MissingSignature), "{rule:?} {content_type:?}");
        }
    }
    assert_eq!(judged(Some(&BodyRule::Form), None, &form), Ok(()));
    for rule in [BodyRule::Json, BodyRule::Text, BodyRule::Binary, BodyRule::Jwt] {
        assert_eq!(judged(Some(&rule), named, &form), Err(Rejection::MissingSignature), "{rule:?}");
    }
    let of_json = Scheme::Token(Token {
        at: TokenAt::Json("$.p".to_owned()),
        secrets: vec![secret("hush")].into(),
    });
    let known = vault(&["hush"]);
    let request = bare(FORM, &[], r#"{"p":"hush"}"#);
    let verdict =
        verify(&of_json, request, Keys::of(&known), About::default(), Timestamp::UNIX_EPOCH);
    assert!(verdict.is_err(), "its payload is the form");
}

#[test]
fn of_any_a_key_that_cannot_be_had_is_told_before_all_else() {
    use crate::verify::fetched::KeysAt;
    use crate::verify::jwt::{Jwt, JwtAt, JwtKeys};
    let url = "https://keys.example/".parse().unwrap();
    let jwt = Scheme::Jwt(Jwt {
        at: JwtAt::Bearer,
        algorithms: vec![crate::verify::algorithm::JwtAlgorithm::Rs256],
        keys: JwtKeys::Fetched(KeysAt::Jwks(url)),
        required: Vec::new(),
        claims: Vec::new(),
        tolerance: None,
    });
    let token = Scheme::Token(Token { at: TokenAt::Bearer, secrets: vec![secret("hush")].into() });
    let shown = "Bearer eyJhbGciOiJSUzI1NiJ9.e30.AAAA";
    for schemes in [vec![token.clone(), jwt.clone()], vec![jwt, token]] {
        let scheme = Scheme::AnyOf(schemes);
        let verdict = verdict(&scheme, bare(&[("authorization", shown)], &[], "{}"));
        assert_eq!(verdict, Err(Rejection::KeyUnavailable));
    }
}
