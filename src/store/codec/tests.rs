//! What is written comes back as it was, and stays what it is.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::body::form::FormSyntax;
use crate::body::xml::XmlNames;
use crate::body::{BodyKind, Document};
use crate::delivery::state::{StepStatus, What};
use crate::store::captured::DroppedSecret;
use crate::store::fact::{
    Audited, CarriedConflict, CarriedDelivery, Remembered, RememberedKey, Snapshot,
};
use crate::store::fixtures::{
    attempted, captured, delivery, event, ignored, intended, operated, put_off, start, waits_for,
};

/// One fact of each kind, with every field that it can have.
fn samples() -> Vec<Fact> {
    let mut offered = event(7, "e7", "{\"a\":1.10}", &["ship"]);
    offered.envelope.occurred_at = Some(start());
    offered.envelope.query = vec![("a".into(), "b".into())];
    offered.envelope.malformed = Some("no id".into());
    offered.identities.push(Identity::SameAs("order-7".into()));
    let planned: Vec<Planned> =
        offered.deliveries.iter().cloned().map(|new| Planned::new(new, true)).collect();
    let at = Position { segment: 3, offset: 70_000, index: 1 };
    let envelope = Arc::new(offered.envelope);
    let mut states = Vec::new();
    let mut facts = vec![
        Fact::Accepted(Box::new(Accepted {
            envelope: envelope.clone(),
            identities: offered.identities,
            body_digest: [9; 32],
            deliveries: planned.clone(),
        })),
        Fact::Duplicate { uid: delivery(7, "ship").uid },
        Fact::Conflict {
            uid: delivery(7, "ship").uid,
            received_at: start(),
            digest: [1; 32],
            body: Some(Bytes::from_static(b"{}")),
        },
        Fact::Routed(Box::new(Routed {
            uid: delivery(7, "ship").uid,
            accepted: at,
            entry: operated(),
            deliveries: planned
                .into_iter()
                .map(|planned| RoutedDelivery { planned, version: 4, previous: Some(at) })
                .collect(),
        })),
        Fact::Revision { hash: "h1".into(), text: "steps: []".into() },
        Fact::Cell { name: "cursor".into(), version: 2, value: Bytes::from_static(b"x") },
        Fact::Retired { segment: 3 },
        Fact::Opened { epoch: 4 },
        Fact::Closed,
    ];
    let changes = [
        intended(Some("order-7")),
        attempted(None, StepStatus::Succeeded),
        attempted(None, StepStatus::Failed),
        put_off(start()),
        waits_for("ship", "order-7"),
        ignored(),
    ];
    for change in changes {
        let mut state = crate::store::state::first_state(
            delivery(7, "ship").uid,
            &"e7".into(),
            &Planned { route: "ship".into(), revision: "r1".into(), key_base: "base".into() },
            start(),
        );
        crate::store::state::merge(&mut state, &change.transition);
        let entries = vec![change.entry.clone(), operated()];
        states.push(CarriedDelivery { state, entries });
        let delivery = delivery(7, "ship");
        let changed = Changed { delivery, version: 5, previous: at, change, terms: Vec::new() };
        facts.push(Fact::Changed(Box::new(changed)));
    }
    facts.push(Fact::Snapshot(Box::new(Snapshot {
        envelope,
        identities: vec![Identity::SameAs("order-7".into())],
        body_digest: [9; 32],
        duplicates: 3,
        conflict_count: 2,
        conflicts: vec![CarriedConflict {
            received_at: start(),
            digest: [4; 32],
            body: Bytes::from_static(b"{}"),
        }],
        deliveries: states,
        terms: vec![1, u64::MAX],
    })));
    facts.push(Fact::Remembered(Box::new(Remembered {
        uid: delivery(7, "ship").uid,
        event_id: "e7".into(),
        source: "shop".into(),
        since: start(),
        identities: vec![[5; 16], [6; 16]],
        body_digest: [7; 32],
        keys: vec![RememberedKey {
            key: [8; 16],
            route: "ship".into(),
            saved: serde_json::from_str("{\"price\":1.10}").unwrap(),
        }],
    })));
    facts.push(Fact::Audited(Box::new(Audited {
        uid: delivery(7, "ship").uid,
        event_id: "e7".into(),
        route: "ship".into(),
        entry: operated(),
    })));
    facts
}

/// An intent as it is written now.
fn requested() -> Fact {
    let mut change = intended(Some("order-7"));
    if let What::Intended { request, .. } = &mut change.entry.what {
        *request = Some("POST https://a.example/".to_owned());
    }
    let previous = Position { segment: 1, offset: 2, index: 3 };
    let delivery = delivery(7, "ship");
    Fact::Changed(Box::new(Changed { delivery, version: 5, previous, change, terms: Vec::new() }))
}

fn encoded(facts: &[Fact]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for fact in facts {
        encode(fact, &mut bytes);
    }
    bytes
}

#[test]
fn every_kind_comes_back_as_it_was() {
    let facts = samples();
    let bytes = encoded(&facts);
    for (fact, index) in facts.iter().zip(0..) {
        assert_eq!(decode_one(&bytes, index), Ok(Some(fact.clone())));
    }
    assert_eq!(decode_one(&bytes, facts.len() as u32), Ok(None));
    assert_eq!(decode_all(&bytes), Ok(facts));
    assert_eq!(decode_one(&bytes[..bytes.len() - 1], 0).map(|fact| fact.is_some()), Ok(true));
    assert_eq!(decode_one(&bytes[..3], 0), Err(DecodeError::Short));
}

/// What is on somebody's disk must be read for ever: a changed digest here is a new format version.
#[test]
fn the_bytes_of_version_1_are_what_they_were() {
    let digest = hex::encode(Sha256::digest(encoded(&samples())));
    assert_eq!(digest, "2e8b4191401b1075fe6076d915bf5a034610f963ddcb4e1451421da1ca73d151");
}

/// What a handshake brought, and its end.
fn secrets() -> [Fact; 2] {
    let secret = captured(9, "tasks", &[("team", "a")], "secret_9");
    let dropped = DroppedSecret { id: secret.id, at: start(), actor: "ann".into() };
    [Fact::SecretCaptured(Arc::new(secret)), Fact::SecretDropped(dropped)]
}

#[test]
fn secrets_come_back_as_they_were_and_are_not_shown() {
    let bytes = encoded(&secrets());
    assert_eq!(bytes[..2], [kind::SECRET_CAPTURED, 1]);
    assert_eq!(decode_all(&bytes), Ok(secrets().to_vec()));
    assert!(may_begin(&bytes));
    assert_eq!(
        hex::encode(Sha256::digest(&bytes)),
        "36c05d61c5e4a887402c32f0163b0f638d64734a3ad582432abe775d6ec5a835"
    );
    let shown = format!("{:?}", secrets());
    assert!(shown.contains("tasks") && !shown.contains("secret_9"), "{shown}");
}

#[test]
fn an_intent_in_version_2_is_what_it_was() {
    let bytes = encoded(&[requested()]);
    assert_eq!(bytes[..2], [kind::INTENDED, 2]);
    assert_eq!(decode_all(&bytes), Ok(vec![requested()]));
    assert_eq!(
        hex::encode(Sha256::digest(&bytes)),
        "9b0f0efd049dd2a6be37081729734430758c4c4657756556fbed487c78e07278"
    );
}

#[test]
fn search_terms_make_version_3() {
    let Fact::Changed(mut changed) = requested() else { panic!("a change") };
    changed.terms = vec![7, u64::MAX];
    let fact = Fact::Changed(changed);
    let bytes = encoded(std::slice::from_ref(&fact));
    assert_eq!(bytes[..2], [kind::INTENDED, 3]);
    assert_eq!(decode_all(&bytes), Ok(vec![fact]));
}

/// An event as it came in, and carried forward.
fn of_kind(body_kind: BodyKind) -> [Fact; 2] {
    let facts = samples();
    let (Some(Fact::Accepted(accepted)), Some(Fact::Snapshot(snapshot))) = (
        facts.iter().find(|fact| matches!(fact, Fact::Accepted(_))),
        facts.iter().find(|fact| matches!(fact, Fact::Snapshot(_))),
    ) else {
        panic!("one of each")
    };
    let (mut accepted, mut snapshot) = (accepted.clone(), snapshot.clone());
    let envelope = Arc::new(Envelope { body_kind, ..(*accepted.envelope).clone() });
    accepted.envelope = envelope.clone();
    snapshot.envelope = envelope;
    [Fact::Accepted(accepted), Fact::Snapshot(snapshot)]
}

/// A router that knew the first kinds alone reads their events, and says of others that they are newer.
#[test]
fn kinds_of_bodies_that_came_later_make_a_version() {
    for kind in [BodyKind::Json, BodyKind::Form, BodyKind::Text, BodyKind::Binary] {
        let [accepted, snapshot] = of_kind(kind).map(|fact| encoded(&[fact]));
        assert_eq!((accepted[1], snapshot[1]), (VERSION, SNAPSHOT_VERSION));
    }
    let names = || XmlNames::from([("kind", "/n/kind"), ("at", "/n/@at")]);
    let form = FormSyntax::Multipart { boundary: "b7".into() };
    let path = || vec!["message".to_owned(), "data".to_owned()];
    let base64_in = |document, form| BodyKind::Base64In { path: path(), document, form };
    let later = [
        BodyKind::Multipart { boundary: "b7".into() },
        BodyKind::Jwt,
        BodyKind::JsonIn { field: "payload".into(), form: form.clone() },
        BodyKind::JsonIn { field: "payload".into(), form: FormSyntax::Urlencoded },
        base64_in(Document::Json, None),
        base64_in(Document::Text, Some(FormSyntax::Urlencoded)),
        base64_in(Document::Xml { names: names() }, Some(form)),
        BodyKind::Xml { names: names() },
    ];
    let mut all = Vec::new();
    for kind in later {
        let facts = of_kind(kind);
        let bytes = encoded(&facts);
        assert_eq!(decode_all(&bytes), Ok(facts.to_vec()));
        let versions = facts.map(|fact| encoded(&[fact])[1]);
        assert_eq!(versions, [ACCEPTED_KINDS_VERSION, SNAPSHOT_KINDS_VERSION]);
        all.extend(bytes);
    }
    assert_eq!(
        hex::encode(Sha256::digest(&all)),
        "be4ce8f8a9c87ed91e8b8dd1e73c6b3b5a9ffd2e0a4465d8480ce564bfb0168f"
    );
}

/// The place of a lost frame may have any size from the smallest frame on.
#[test]
fn what_is_lost_fills_a_place_of_any_size() {
    for (facts, bytes) in [(1, 0), (0, 1), (127, 1), (300, 2), (300, 9), (u64::MAX, 5000)] {
        let fact = Fact::Lost { facts, bytes };
        let encoded = encoded(std::slice::from_ref(&fact));
        assert_eq!(encoded.len(), 6 + bytes as usize);
        assert_eq!(decode_all(&encoded), Ok(vec![fact]));
    }
}

#[test]
fn an_unknown_kind_and_a_later_version_are_told_apart_from_damage() {
    assert_eq!(
        decode_all(&[200, 1, 0, 0, 0, 0]),
        Err(DecodeError::Newer { kind: 200, version: 1 })
    );
    assert_eq!(decode_all(&[13, 2, 0, 0, 0, 0]), Err(DecodeError::Newer { kind: 13, version: 2 }));
    assert_eq!(decode_all(&[13, 1, 0, 0]), Err(DecodeError::Short));
    let broken = decode_all(&[12, 1, 2, 0, 0, 0, 1, 1]);
    assert!(matches!(broken, Err(DecodeError::Broken { kind: 12, .. })));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..17, version in 1u8..4) {
        let mut framed = vec![kind, version];
        framed.extend((bytes.len() as u32).to_le_bytes());
        framed.extend(&bytes);
        drop(decode_all(&framed));
        drop(decode_all(&bytes));
    }

    #[test]
    fn any_envelope_comes_back(
        id in ".*", kind in ".*", body in prop::collection::vec(any::<u8>(), 0..300),
        headers in prop::collection::vec((".*", ".*"), 0..4), seconds in -1_000_000_000i64..4_000_000_000,
    ) {
        let mut offered = event(7, &id, "", &["ship"]);
        offered.envelope.body = body.into();
        offered.envelope.event_type = kind;
        offered.envelope.headers = headers;
        offered.envelope.received_at = Timestamp::from_second(seconds).unwrap();
        let fact = Fact::Accepted(Box::new(Accepted {
            envelope: offered.envelope.into(),
            identities: offered.identities,
            body_digest: offered.body_digest,
            deliveries: Vec::new(),
        }));
        prop_assert_eq!(decode_all(&encoded(std::slice::from_ref(&fact))), Ok(vec![fact]));
    }
}
