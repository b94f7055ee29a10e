//! What a sender writes in a body never passes for a batch or a frame of the journal.

use super::doctor::{examine, repair};
use super::*;
use crate::store::fact::Fact;
use crate::store::journal::format::{self, FIRST, HEADER_BYTES, Header, Salt};

/// A batch as the program writes it, which says that all before it was synced.
fn batch(salt: Salt) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.extend(format::frame(salt, &[Fact::Opened { epoch: 9 }]));
    let length = (bytes.len() - HEADER_BYTES) as u32;
    let header = Header { segment: 1, epoch: 9, first: 50, durable: 50, length };
    format::seal(salt, &mut bytes, header);
    bytes
}

/// A store with three events and a fourth whose write was torn: of its batch the first page did not get to the medium.
/// The body of the fourth holds a batch.
fn torn(forged_with: impl Fn(Salt) -> Salt) -> (MemoryDisk, u64) {
    let disk = MemoryDisk::new();
    let store = filled(&disk, 3);
    let own = salts(&disk).own();
    let begins = used_bytes(&disk, &segment::name(1));
    let mut offer = event(4, "e4", "", &["ship"]);
    let padding = vec![b' '; 1000];
    offer.envelope.body = [&padding[..], &batch(forged_with(own)), b" "].concat().into();
    assert!(matches!(accept(&store, offer), Some(Ok(Acceptance::Accepted { .. }))));
    drop(store);
    let after = disk.after_kill();
    after.open(&segment::name(1)).unwrap().write_at(begins, &[0; 512]).unwrap();
    (after, begins)
}

#[test]
fn a_batch_in_a_body_does_not_pass_for_one_of_the_journal() {
    let with_other_key = |own: Salt| {
        let other = Salts::new(Hashing::new([9; 16])).own();
        assert_ne!(own, other);
        other
    };
    let first: fn(Salt) -> Salt = |_| FIRST;
    for forged_with in [&first as &dyn Fn(Salt) -> Salt, &with_other_key] {
        let (disk, begins) = torn(forged_with);
        let report = examine(&disk, None);
        let [finding] = &report.findings[..] else { panic!("{report:#?}") };
        assert_eq!(finding.offset, Some(begins));
        assert!(finding.what.contains("torn"), "{}", finding.what);
        let store = driven(&disk, small()).unwrap();
        assert_eq!(store.summary().now_or_never().unwrap().events, 3);
    }
}

/// Otherwise the test above would prove nothing.
#[test]
fn a_later_batch_of_the_journal_itself_is_seen_behind_damage() {
    let (disk, begins) = torn(|own| own);
    let Err(OpenError::Corrupt { offset, .. }) = driven(&disk, small()).map(drop) else {
        panic!("the damage was not seen")
    };
    assert_eq!(offset, begins);
}

#[test]
fn a_frame_in_a_body_is_not_taken_for_one_by_a_repair() {
    for (salt, kept) in [(FIRST, false), (salts_of_filled(), true)] {
        let disk = MemoryDisk::new();
        let store = filled(&disk, 3);
        let begins = used_bytes(&disk, &segment::name(1));
        let mut offer = event(4, "e4", "", &["ship"]);
        let frame = format::frame(salt, &[marked()]);
        offer.envelope.body = [&[b' '; 300][..], &frame, &[b' '; 300]].concat().into();
        assert!(matches!(accept(&store, offer), Some(Ok(Acceptance::Accepted { .. }))));
        assert!(matches!(accept(&store, offered(5)), Some(Ok(Acceptance::Accepted { .. }))));
        drop(store);
        let disk = disk.after_kill();
        // The batch and its frame do not prove themselves any more.
        disk.open(&segment::name(1)).unwrap().write_at(begins, &[0xff; 80]).unwrap();
        let (report, _) = repair(&disk, None);
        assert_eq!(report.findings.len(), 1, "{report:#?}");
        let file = disk.open(&segment::name(1)).unwrap();
        let mut bytes = vec![0; file.size().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        let format::Found::Batch(_, body) =
            format::batch_at(salts(&disk).own(), &bytes, begins as usize)
        else {
            panic!("the place was not written anew: {report:#?}")
        };
        let facts = format::facts_of(salts(&disk).own(), body, 1, 0).unwrap();

        assert_eq!(facts.iter().any(|(_, fact)| *fact == marked()), kept);
    }
}

fn salts_of_filled() -> Salt {
    let disk = MemoryDisk::new();
    drop(filled(&disk, 1));
    salts(&disk).own()
}

/// A fact that nothing else here writes.
fn marked() -> Fact {
    Fact::Lost { facts: 1, bytes: 77 }
}
