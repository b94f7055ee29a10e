//! Secrets of handshakes outlive every segment, and are gone once they are dropped, whenever the process ends.

use super::doctor::{examine, repair};
use super::rig::*;
use super::*;
use crate::store::captured::{Capture, DroppedSecret};
use crate::store::fact::Fact;
use crate::store::fixtures::captured;
use crate::store::index::MemoryIndex;

const PATH: &[(&str, &str)] = &[("team", "a")];

fn rig() -> Rig {
    Rig::new(&MemoryDisk::new(), Arc::new(MemoryIndex::default()))
}

impl Rig {
    fn capture(&self, number: u128) {
        let secret = captured(number, "tasks", PATH, &format!("s{number}"));
        let kept = drive(self.store(), self.store().capture(secret)).unwrap();
        assert_eq!(kept, Capture::Kept(uid(number)));
    }

    fn drop_secret(&self, number: u128) {
        let dropped = DroppedSecret { id: uid(number), at: self.now(), actor: "ann".into() };
        assert!(drive(self.store(), self.store().drop_secret("tasks".into(), dropped)).unwrap());
    }

    fn captured(&self) -> Vec<String> {
        captured_in(self.store())
    }

    /// Everything of now expires with its segments.
    fn expire(&self, first: u128) {
        for number in first..first + 20 {
            self.accept(event(number, &format!("e{number}"), &"x".repeat(300), &[]));
        }
        self.pass(26 * HOUR);
        assert!(self.compact_all() > 0);
    }
}

fn captured_in(store: &JournalStore) -> Vec<String> {
    let path: Vec<(String, String)> =
        PATH.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
    let values = store.captured(&"tasks".into(), &path);
    values.iter().map(|value| value.expose().to_owned()).collect()
}

#[test]
fn a_secret_survives_the_end_of_all_segments_until_it_is_dropped() {
    let rig = rig();
    for number in 1..=3 {
        rig.capture(number);
    }
    for round in 1..=4 {
        let before = rig.segments();
        rig.expire(round * 100);
        let after = rig.segments();
        assert!(!after.contains(&before[0]), "{before:?} {after:?}");
        assert_eq!(rig.captured(), ["s3", "s2", "s1"]);
        // With the checkpoint, and reading all.
        for index in [rig.index.clone(), no_index() as Arc<dyn Index>] {
            let again = rig.after_kill(index);
            assert_eq!(again.captured(), ["s3", "s2", "s1"], "round {round}");
            let listed = drive(again.store(), again.store().secrets()).unwrap();
            assert_eq!(*listed[1], captured(2, "tasks", PATH, "s2"));
        }
    }
    rig.drop_secret(2);
    for round in 5..=8 {
        rig.expire(round * 100);
        for index in [rig.index.clone(), no_index() as Arc<dyn Index>] {
            assert_eq!(rig.after_kill(index).captured(), ["s3", "s1"], "round {round}");
        }
    }
}

#[test]
fn a_checkpoint_has_them() {
    let mut rig = rig();
    rig.capture(1);
    rig.capture(2);
    rig.roll();
    rig.drop_secret(1);
    rig.close();
    // Where the journal before the checkpoint need not be read, nothing else brings them.
    let report = examine(&rig.memory, None);
    assert!(report.is_clean(), "{report:#?}");
    for _ in 0..3 {
        rig.open();
        assert_eq!(rig.captured(), ["s2"]);
        rig.close();
    }
}

#[test]
fn what_is_dropped_while_it_is_being_carried_does_not_come_back() {
    let rig = rig();
    rig.capture(1);
    rig.capture(2);
    // It was read to be carried; an operator comes right before that is written.
    let also = [1, 2].map(|number| {
        Fact::SecretCaptured(Arc::new(captured(number, "tasks", PATH, &format!("s{number}"))))
    });
    rig.drop_secret(1);
    let (reply, answer) = oneshot::channel();
    rig.shared().enqueue(Request::Carry { moving: Vec::new(), also: also.into(), reply });
    work(rig.store());
    assert!(matches!(answer.blocking_recv(), Ok(Ok(0))));
    assert_eq!(rig.captured(), ["s2"]);
    assert_eq!(rig.after_kill(no_index()).captured(), ["s2"]);
}

#[test]
fn the_answer_comes_after_the_secret_is_durable() {
    let rig = rig();
    let secret = captured(1, "tasks", PATH, "s1");
    let mut asked = rig.store().capture(secret);
    assert!((&mut asked).now_or_never().is_none());
    assert!(rig.after_kill(no_index()).captured().is_empty(), "nothing is written yet");
    // The process ends after the write, and before the sender hears of it.
    assert_eq!(rig.shared().commit_once(), Turn::Worked);
    assert_eq!(rig.after_kill(no_index()).captured(), ["s1"]);
    assert_eq!(asked.now_or_never().unwrap().unwrap(), Capture::Kept(uid(1)));
}

#[test]
fn a_repair_keeps_what_proves_itself() {
    let index = Arc::new(MemoryIndex::default());
    let mut rig = Rig::new(&MemoryDisk::new(), index.clone());
    rig.capture(1);
    rig.accept_number(1);
    rig.capture(2);
    rig.drop_secret(1);
    rig.accept_number(2);
    rig.roll();
    rig.accept_number(3);
    rig.close();
    let disk = rig.memory.after_kill();
    let name = segment::name(rig.segments()[0]);
    let used = disk.open(&name).unwrap().size().unwrap();
    let mut bytes = vec![0; used as usize];
    disk.open(&name).unwrap().read_at(0, &mut bytes).unwrap();
    let place = |text: &[u8]| bytes.windows(text.len()).position(|at| at == text).unwrap() as u64;
    for (damaged, expected) in [(place(b"e1"), vec!["s2"]), (place(b"s2"), Vec::new())] {
        let disk = disk.after_kill();
        disk.damage(&name, damaged, 1);
        assert!(!examine(&disk, Some(&index)).is_clean());
        repair(&disk, Some(&index));
        let store = driven(&disk.after_kill(), small()).unwrap();
        assert_eq!(captured_in(&store), expected);
    }
}
