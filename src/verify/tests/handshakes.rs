//! Challenges and their answers.

use http::StatusCode;

use super::*;
use crate::verify::handshake::{
    Body, Condition, Expected, Handshake, MacEncoding, Piece, Tree, Unanswerable,
};

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
    let status = StatusCode::OK;
    let (headers, body) = (Vec::new(), Some(body));
    Handshake { method: None, when, verify: false, capture: None, status, headers, body }
}

fn answered(handshake: &Handshake, received: &Received) -> Result<String, Unanswerable> {
    let scheme = Scheme::AnyOf(vec![Scheme::Signing(plain(&["missing", "hush"]))]);
    let answer = handshake.answer(received, &scheme, &vault(&["hush"]))?;
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    Ok(String::from_utf8(answer.body.to_vec()).unwrap())
}

#[test]
fn conditions() {
    let fits = |condition: Condition, body: &str| {
        asks(vec![condition], Body::Text(Vec::new())).fits(&bare(
            &[("a", "b")],
            &[("c", "d")],
            body,
        ))
    };
    let equal = |text: &str| Expected::Equal(text.to_owned());
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
    let get = Handshake { method: Some(Method::GET), ..asks(Vec::new(), Body::Text(Vec::new())) };
    assert!(!get.fits(&bare(&[], &[], "")));
}

#[test]
fn answers() {
    let echo = asks(Vec::new(), Body::Text(vec![Piece::At(query("challenge"))]));
    let asked = |challenge: &str| bare(&[], &[("challenge", challenge)], "");
    assert_eq!(answered(&echo, &asked("a<b>")), Ok("a<b>".to_owned()));
    assert_eq!(answered(&echo, &bare(&[], &[], "")), Err(Unanswerable::Piece));
    let twice = bare(&[], &[("challenge", "a"), ("challenge", "b")], "");
    assert_eq!(answered(&echo, &twice), Err(Unanswerable::Piece));
    assert_eq!(answered(&echo, &asked(&"a".repeat(4097))), Err(Unanswerable::Piece));

    let mac = |encoding| Piece::Hmac { hash: Hash::Sha256, encoding, of: json("$.token") };
    let literal = Piece::Literal("sha256=".to_owned());
    let tree = Tree::Map(vec![
        ("plain".to_owned(), Tree::Text(vec![Piece::At(json("$.token"))])),
        ("hex".to_owned(), Tree::Text(vec![mac(MacEncoding::Hex)])),
        (
            "base64".to_owned(),
            Tree::List(vec![Tree::Text(vec![literal, mac(MacEncoding::Base64)])]),
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
    let without = asks(Vec::new(), Body::Json(tree)).answer(&asked, &keyless, &vault(&["hush"]));
    assert_eq!(without, Err(Unanswerable::Secret));
}
