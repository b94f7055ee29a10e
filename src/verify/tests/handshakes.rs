//! Challenges and their answers.

use http::StatusCode;

use super::*;
use crate::verify::condition::{Condition, Conditions, Expected};
use crate::verify::handshake::{Answer, Asked, Body, Handshake, Tree, Unanswerable, find};

fn when(at: Selector, expected: Expected) -> Condition {
    Condition { at, expected }
}

fn query(name: &str) -> Selector {
    Selector::Query(name.to_owned())
}

fn json(path: &str) -> Selector {
    Selector::Json(path.to_owned())
}

fn asks(when: Vec<Condition>, body: Body) -> Handshake {
    let when = Conditions { method: None, all: when };
    let status = StatusCode::OK;
    let (headers, body) = (Vec::new(), Some(body));
    Handshake { when, verify: false, capture: None, confirm: None, status, headers, body }
}

fn ask<'a>(received: &'a Received, scheme: &'a Scheme, vault: &'a Vault) -> Asked<'a> {
    let now = Timestamp::UNIX_EPOCH;
    Asked { received, scheme, keys: Keys::of(vault), about: About::default(), now }
}

fn is_taken(handshake: Handshake, received: &Received) -> bool {
    let scheme = Scheme::None { why: "a test".to_owned() };
    find(&[handshake], ask(received, &scheme, &Vault::default())).is_some()
}

fn answered(handshake: &Handshake, received: &Received) -> Result<String, Unanswerable> {
    let scheme = Scheme::AnyOf(vec![Scheme::Signing(plain(&["missing", "hush"]))]);
    let answer: Answer = handshake.answer(ask(received, &scheme, &vault(&["hush"])))?;
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    Ok(String::from_utf8(answer.body.to_vec()).unwrap())
}

#[test]
fn conditions() {
    let fits = |condition: Condition, body: &str| {
        let received = bare(&[("a", "b")], &[("c", "d")], body);
        is_taken(asks(vec![condition], Body::Text(Vec::new())), &received)
    };
    let equal = |text: &str| Expected::Equal(vec![Part::Literal(text.to_owned())]);
    assert!(fits(when(header("a"), Expected::Present), ""));
    assert!(!fits(when(header("a"), Expected::Absent), ""));
    assert!(fits(when(query("c"), equal("d")), ""));
    assert!(!fits(when(query("c"), equal("D")), ""));
    assert!(fits(when(json("$.type"), equal("1")), r#"{"type":1}"#));
    assert!(fits(when(json("$.type"), equal("1")), r#"{"type":"1"}"#));
    assert!(!fits(when(json("$.type"), equal("1")), r#"{"type":{}}"#));
    // An object is there, null is not.
    assert!(fits(when(json("$.event"), Expected::Present), r#"{"event":{}}"#));
    assert!(!fits(when(json("$.event"), Expected::Absent), r#"{"event":{}}"#));
    assert!(fits(when(json("$.event"), Expected::Absent), r#"{"event":null}"#));
    assert!(fits(when(json("$.event"), Expected::Absent), "no JSON"));
    let form = Expected::Match(regex::bytes::Regex::new("^(?:[a-z]+)$").unwrap());
    assert!(fits(when(query("c"), form.clone()), ""));
    assert!(!fits(when(json("$.c"), form), r#"{"c":"d{"}"#));
    let mut get = asks(Vec::new(), Body::Text(Vec::new()));
    get.when.method = Some(Method::GET);
    assert!(!is_taken(get, &bare(&[], &[], "")));
}

#[test]
fn answers() {
    let echo = asks(Vec::new(), Body::Text(vec![Part::At(query("challenge"))]));
    let asked = |challenge: &str| bare(&[], &[("challenge", challenge)], "");
    assert_eq!(answered(&echo, &asked("a<b>")), Ok("a<b>".to_owned()));
    assert_eq!(answered(&echo, &bare(&[], &[], "")), Err(Unanswerable::Piece));
    let twice = bare(&[], &[("challenge", "a"), ("challenge", "b")], "");
    assert_eq!(answered(&echo, &twice), Err(Unanswerable::Piece));
    assert_eq!(answered(&echo, &asked(&"a".repeat(4097))), Err(Unanswerable::Piece));

    let mac = |encoding| {
        let filter = Filter::Hmac { hash: Hash::Sha256, encoding };
        Part::Filtered(Box::new(Part::At(json("$.token"))), vec![filter])
    };
    let literal = Part::Literal("sha256=".to_owned());
    let tree = Tree::Map(vec![
        ("plain".to_owned(), Tree::Text(vec![Part::At(json("$.token"))])),
        ("hex".to_owned(), Tree::Text(vec![mac(SignatureEncoding::Hex)])),
        (
            "base64".to_owned(),
            Tree::List(vec![Tree::Text(vec![literal, mac(SignatureEncoding::Base64)])]),
        ),
        ("type".to_owned(), Tree::Fixed(1.into())),
    ]);
    let asked = bare(&[], &[], r#"{"token":"q\"1"}"#);
    // printf 'q"1' | openssl dgst -sha256 -hmac hush
    let expected = r#"{"plain":"q\"1","hex":"154034aa52333d0e25ecd34fc1ef89e427cfa404682cf0c9a89dc5f65133482e","base64":["sha256=FUA0qlIzPQ4l7NNPwe+J5CfPpARoLPDJqJ3F9lEzSC4="],"type":1}"#;
    assert_eq!(
        answered(&asks(Vec::new(), Body::Json(tree.clone())), &asked),
        Ok(expected.to_owned())
    );
    let keyless = Scheme::None { why: "a test".to_owned() };
    let without =
        asks(Vec::new(), Body::Json(tree)).answer(ask(&asked, &keyless, &vault(&["hush"])));
    assert_eq!(without, Err(Unanswerable::Secret));
}

#[test]
fn a_secret_is_read_where_it_stands_and_only_a_secret() {
    let check = |at: Selector, received: &Received, expected: Option<&str>| {
        let scheme = Scheme::None { why: "a test".to_owned() };
        let vault = Vault::default();
        let secret = Handshake::secret(ask(received, &scheme, &vault), &at);
        let secret = secret.map(|secret| secret.expose().to_owned());
        assert_eq!(secret, expected.map(str::to_owned).ok_or(Unanswerable::Captured), "{at:?}");
    };
    let mut received = bare(
        &[("x-hook-secret", "s"), ("x-spaced", "a b")],
        &[("token", "q"), ("twice", "a"), ("twice", "b")],
        r#"{"verification_token":"secret_x","none":null,"empty":""}"#,
    );
    received.headers.insert("x-umlaut", HeaderValue::from_bytes("\u{fc}".as_bytes()).unwrap());
    for (name, length) in [("x-longest", 1024), ("x-longer", 1025)] {
        received.headers.insert(name, HeaderValue::from_str(&"x".repeat(length)).unwrap());
    }
    check(header("x-hook-secret"), &received, Some("s"));
    check(header("x-longest"), &received, Some(&"x".repeat(1024)));
    for name in ["x-longer", "x-spaced", "x-umlaut", "x-absent"] {
        check(header(name), &received, None);
    }
    check(json("$.verification_token"), &received, Some("secret_x"));
    for path in ["$.none", "$.empty", "$.absent"] {
        check(json(path), &received, None);
    }
    check(query("token"), &received, Some("q"));
    check(query("twice"), &received, None);
    let form =
        bare(&[("content-type", "application/x-www-form-urlencoded")], &[], "token=f&other=1");
    check(Selector::Form("token".to_owned()), &form, Some("f"));
    check(Selector::Form("absent".to_owned()), &form, None);
}
