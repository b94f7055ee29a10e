//! A data folder that this version wrote is kept, with all that it holds in the portable form: every later version reads
//! the one as the other. A folder is made once; where a later format adds something, it gets a folder of its own.
//!
//! `UPDATE_FIXTURES=1 cargo test --lib kept` makes a folder that is not there.

use std::fs;
use std::path::{Path, PathBuf};

use super::rig::*;
use super::*;
use crate::body::form::FormSyntax;
use crate::body::xml::{XmlNames, XmlPath};
use crate::body::{BodyKind, Document};
use crate::store::Term;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores").join(name)
}

/// Something of everything that a store can hold.
fn everything() -> Rig {
    let mut rig = Rig::on(&MemoryDisk::new());
    let hash = "r1".into();
    drive(rig.store(), rig.store().revision_put(hash, "route: ship".into())).unwrap();
    // Of these, some will have expired, and one is in review.
    for number in 1..=6 {
        rig.accept_number(number);
    }
    for number in 1..=3 {
        rig.succeed(number);
    }
    rig.record(4, intended(Some("order-7")));
    rig.record(4, attempted(Some("order-7"), StepStatus::Succeeded));
    rig.record(5, attempted(None, StepStatus::Failed));
    rig.operate(5);
    rig.succeed(5);
    rig.record(6, attempted(None, StepStatus::Failed));
    rig.accept(of_kind(7, BodyKind::Multipart { boundary: "b7".into() }));
    rig.roll();
    rig.pass(HOUR + Duration::from_secs(60));
    rig.compact_all();
    // And of these none.
    for number in 11..=16 {
        rig.accept_number(number);
    }
    rig.resend(11);
    rig.accept(event(2011, "e11", "{\"other\":1}", &["ship"]));
    let mut malformed = event(20, "e20", "{", &[]);
    malformed.envelope.malformed = Some("the body is not valid JSON".into());
    rig.accept(malformed);
    rig.accept(event(21, "e21", "{}", &[]));
    let names = XmlNames(vec![("kind".into(), XmlPath::parse("/n/@kind").unwrap())]);
    let path = vec!["message".into(), "data".into()];
    let document = Document::Xml { names: names.clone() };
    for (number, kind) in [
        (22, BodyKind::Jwt),
        (23, BodyKind::JsonIn { field: "payload".into(), form: FormSyntax::Urlencoded }),
        (24, BodyKind::Base64In { path, document, form: None }),
        (25, BodyKind::Xml { names }),
    ] {
        rig.accept(of_kind(number, kind));
    }
    let mut with_terms = attempted(None, StepStatus::Succeeded);
    with_terms.terms = vec![Term { field: "order_id".into(), value: "1001".into() }];
    rig.record(12, with_terms);
    rig.record(13, put_off(start() + 10 * HOUR));
    rig.record(14, intended(Some("order-9")));
    rig.record(15, ignored());
    rig.close();
    rig
}

fn of_kind(number: u128, body_kind: BodyKind) -> NewEvent {
    let mut event = event(number, &format!("e{number}"), "a=1", &["ship"]);
    event.envelope.body_kind = body_kind;
    event
}

/// All lines, but for the time at which they were written out.
fn exported(store: &JournalStore) -> Vec<String> {
    let (mut lines, mut cursor) = (Vec::new(), None);
    loop {
        let page = drive(store, store.export(Query::default(), cursor, 1 << 20)).unwrap();
        lines.extend(page.lines);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let mut header: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    header.as_object_mut().unwrap().remove("at");
    lines[0] = header.to_string();
    lines
}

fn open(folder: &Path) -> JournalStore {
    let disk = FolderDisk::open(folder).unwrap();
    let store = JournalStore::open_unstarted(Arc::new(disk), no_index(), small(), world(1).0);
    store.unwrap()
}

/// Only what was written, not what was made ready.
fn keep(rig: &Rig, folder: &Path) {
    for name in rig.memory.list().unwrap() {
        let file = rig.memory.open(&name).unwrap();
        let mut bytes = vec![0; file.size().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        if name != "lock" && bytes.iter().any(|byte| *byte != 0) {
            let path = folder.join(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

fn check(name: &str) {
    let kept = folder(name);
    if std::env::var_os("UPDATE_FIXTURES").is_some() && !kept.exists() {
        keep(&everything(), &kept.join("store"));
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&kept.join("store"), copy.path());
        fs::write(kept.join("export.jsonl"), exported(&open(copy.path())).join("\n")).unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&kept.join("store"), copy.path());
    let expected = fs::read_to_string(kept.join("export.jsonl")).unwrap();
    let found = exported(&open(copy.path()));
    assert_eq!(found.len(), expected.lines().count(), "{name}");
    for (found, expected) in found.iter().zip(expected.lines()) {
        assert_eq!(found, expected, "{name}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for name in FolderDisk::open(from).unwrap().list().unwrap() {
        let path = to.join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(from.join(&name), path).unwrap();
    }
}

#[test]
fn folders_of_earlier_versions_hold_what_they_held() {
    check("1");
    check("2");
    check("3");
}

/// Version 1 had another salt, and only the first bytes of a segment say so.
#[test]
fn damage_of_the_first_bytes_of_an_earlier_version_is_not_taken_for_a_torn_tail() {
    let copy = tempfile::tempdir().unwrap();
    for byte in 0..6 {
        copy_folder(&folder("1").join("store"), copy.path());
        let name = segment::name(3);
        let path = copy.path().join(&name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[byte] ^= 0xff;
        fs::write(&path, bytes).unwrap();
        let disk = Arc::new(FolderDisk::open(copy.path()).unwrap());
        let opened = JournalStore::open_unstarted(disk, no_index(), small(), world(1).0);
        let Err(OpenError::Corrupt { segment: 3, offset: 0, .. }) = opened.map(drop) else {
            panic!("byte {byte}: the damage was not seen")
        };
    }
}
