//! What is written as a line comes back as it was, and what is no line says so.

use bytes::Bytes;

use super::*;
use crate::delivery::state::{Status, StepStatus};
use crate::envelope::Identity;
use crate::store::fact::{CarriedConflict, CarriedDelivery, RememberedKey};
use crate::store::fixtures::{
    attempted, event, ignored, intended, operated, put_off, start, waits_for,
};
use crate::store::state::{first_state, merge};

fn snapshot() -> Snapshot {
    let mut offered = event(7, "e7", "{\"a\":1.10}", &[]);
    offered.envelope.occurred_at = Some(start());
    offered.envelope.query = vec![("a".into(), "b".into())];
    offered.envelope.body = Bytes::from_static(b"\xff\x00{}");
    let changes = [
        intended(Some("order-7")),
        attempted(None, StepStatus::Succeeded),
        attempted(None, StepStatus::Failed),
        put_off(start()),
        waits_for("r4", "order-7"),
        ignored(),
    ];
    let uid = offered.envelope.uid;
    let carried = |(change, number): (crate::store::Change, usize)| {
        let planned = crate::store::fact::Planned {
            route: format!("r{number}").into(),
            revision: "rev".into(),
            key_base: "base".into(),
        };
        let mut state = first_state(uid, &"e7".into(), &planned, start());
        merge(&mut state, &change.transition);
        CarriedDelivery { state, entries: vec![change.entry, operated()] }
    };
    Snapshot {
        envelope: Arc::new(offered.envelope),
        identities: vec![
            Identity::Id { id: "e7".into(), body: None },
            Identity::Id { id: "e7".into(), body: Some("ab".into()) },
            Identity::SameAs("order-7".into()),
        ],
        body_digest: [9; 32],
        duplicates: 2,
        conflict_count: 3,
        conflicts: vec![CarriedConflict {
            received_at: start(),
            digest: [1; 32],
            body: Bytes::from_static(b"{}"),
        }],
        deliveries: changes.into_iter().zip(1..).map(carried).collect(),
        terms: vec![1, u64::MAX],
    }
}

fn event_line() -> String {
    line_of(&Content::Event(Box::new(snapshot())))
}

#[test]
fn an_event_comes_back_as_it_was_with_its_claims_let_go() {
    let Content::Event(back) = Record::parse(&event_line()).unwrap().content else {
        panic!("another record")
    };
    let mut expected = snapshot();
    let held = &mut expected.deliveries[0].state;
    assert_eq!(held.status, Status::Processing, "a worker holds it");
    held.status = Status::Queued;
    held.due_at = Some(start());
    assert_eq!(*back, expected);
    assert!(
        event_line().contains("\"price\":1.10000000000000000001"),
        "numbers are kept to the digit"
    );
}

#[test]
fn what_outlives_an_event_comes_back_as_it_was() {
    let remembered = Remembered {
        uid: snapshot().envelope.uid,
        event_id: "e7".into(),
        source: "shop".into(),
        since: start(),
        identities: vec![[7; 16]],
        body_digest: [9; 32],
        keys: vec![RememberedKey {
            key: [5; 16],
            route: "ship".into(),
            saved: serde_json::from_str("{\"price\":1.10}").unwrap(),
        }],
    };
    let line = line_of(&Content::Remembered(Box::new(remembered.clone())));
    let back = Record::parse(&line).unwrap().content;
    assert!(matches!(back, Content::Remembered(back) if *back == remembered));
    let audited = Audited {
        uid: remembered.uid,
        event_id: "e7".into(),
        route: "ship".into(),
        entry: operated(),
    };
    let line = line_of(&Content::Audited(Box::new(audited.clone())));
    let back = Record::parse(&line).unwrap().content;
    assert!(matches!(back, Content::Audited(back) if *back == audited));
    let header = Header { journal: 1, at: start(), hashings: vec![[1; 16], [2; 16]] };
    let back = Record::parse(&line_of(&Content::Header(header.clone()))).unwrap();
    assert!(back.is_header() && matches!(back.content, Content::Header(back) if back == header));
    assert!(Record::parse(&line_of(&Content::End)).unwrap().is_end());
}

/// The format: whoever changes this changes [`VERSION`].
#[test]
fn the_lines_are_what_they_were() {
    let header = Header { journal: 1, at: start(), hashings: vec![[1; 16]] };
    let revision = Content::Revision { hash: "h1".into(), text: "steps: []".into() };
    let lines = [line_of(&Content::Header(header)), line_of(&revision), event_line()];
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_is_no_record_says_why() {
    let check = |line: &str, why: &str| {
        let error = Record::parse(line).unwrap_err();
        assert!(error.contains(why), "{line}: {error}");
    };
    let header = line_of(&Content::Header(Header { journal: 1, at: start(), hashings: vec![] }));
    check(&header.replace("\"version\":1", "\"version\":2"), "newer router");
    check(&header.replace(FORMAT, "other"), "`other`");
    check("{\"format\":\"router-export\"}", "missing field `version`");
    check("{\"evnt\":{}}", "unknown variant `evnt`");
    check("{\"event\":{}}", "missing field `uid`");
    check("not JSON", "expected");
    check("", "EOF");
    check(
        &event_line().replace("\"route\":\"r2\"", "\"route\":\"r1\""),
        "two deliveries by the route `r1`",
    );
    check(&event_line().replace("\"sameAs\"", "\"same\""), "unknown field `same`");
    check(&event_line().replace("\"body\":\"e30=\"", "\"body\":\"e30!\""), "base64");
    check(&event_line().replace("\"version\":1,", "\"version\":5000000000,"), "out of its range");
    check(&event_line().replace("2027-01-15T08:00:00Z", "yesterday"), "`yesterday` is no time");
}

#[test]
fn cursors_come_back_as_they_were() {
    for stage in [Stage::Rows(7 << 32), Stage::Acts { segment: 3, count: 9 }] {
        let cursor = ExportCursor(stage);
        assert_eq!(cursor.to_string().parse::<ExportCursor>().unwrap(), cursor);
    }
    assert!("rows-x".parse::<ExportCursor>().is_err());
    assert!("7".parse::<ExportCursor>().is_err());
}
