//! The index under faults: it costs time, and nothing else.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, MutexGuard};

use bytes::Bytes;

use super::cuts::copied;
use super::rig::*;
use super::*;
use crate::store::index::{Group, IndexError, MemoryIndex, PageId};
use crate::store::journal::commit::compact::Compacted;
use crate::store::sled::{SledIndex, SledLimits};

/// An index that fails each call from some call on, until it is begun anew; or answers none as long as a gate is shut.
#[derive(Default)]
struct Faulty {
    kept: MemoryIndex,
    fails: AtomicBool,
    /// It cannot even be begun anew.
    lost: AtomicBool,
    gate: Mutex<Gate>,
    opened: Condvar,
}

#[derive(Default)]
struct Gate {
    shut: bool,
    waiting: usize,
}

impl Faulty {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap()
    }

    fn enter(&self) -> Result<&MemoryIndex, IndexError> {
        let mut gate = self.gate();
        gate.waiting += 1;
        self.opened.notify_all();
        let mut gate = self.opened.wait_while(gate, |gate| gate.shut).unwrap();
        gate.waiting -= 1;
        match self.fails.load(Ordering::SeqCst) {
            true => Err(IndexError("it fails on purpose".into())),
            false => Ok(&self.kept),
        }
    }

    fn set_shut(&self, shut: bool) {
        self.gate().shut = shut;
        self.opened.notify_all();
    }

    fn until_somebody_waits(&self) {
        drop(self.opened.wait_while(self.gate(), |gate| gate.waiting == 0).unwrap());
    }
}

impl Index for Faulty {
    fn put(&self, group: Group, pages: &[Bytes]) -> Result<(), IndexError> {
        self.enter()?.put(group, pages)
    }
    fn get(&self, id: PageId) -> Result<Option<Bytes>, IndexError> {
        self.enter()?.get(id)
    }
    fn groups(&self) -> Result<Vec<Group>, IndexError> {
        self.enter()?.groups()
    }
    fn remove(&self, group: Group) -> Result<(), IndexError> {
        self.enter()?.remove(group)
    }
    fn reset(&self) -> Result<(), IndexError> {
        if self.lost.load(Ordering::SeqCst) {
            return Err(IndexError("there is no place for it".into()));
        }
        self.fails.store(false, Ordering::SeqCst);
        self.kept.reset()
    }
}

/// Thirty finished events, all looked up by id, in the list and one by one.
fn check_thirty(rig: &Rig) {
    let ids: Vec<String> = (1..=30).map(|number| format!("e{number}")).collect();
    assert_eq!(rig.listed(Query { oldest_first: true, ..Query::default() }), ids);
    for number in (1..=30).step_by(7) {
        assert_eq!(rig.find(&format!("e{number}")), [uid(number)]);
        assert_eq!(rig.state(number).status, Status::Succeeded);
        let by_correlation =
            Query { correlation_id: Some(format!("correlation-{number}")), ..Query::default() };
        assert_eq!(rig.listed(by_correlation), [format!("e{number}")]);
    }
}

fn add(rig: &mut Rig, numbers: std::ops::RangeInclusive<u128>) {
    for number in numbers {
        rig.accept_number(number);
        rig.succeed(number);
    }
}

fn readiness(rig: &Rig) -> Readiness {
    drive(rig.store(), rig.store().summary()).ready
}

#[test]
fn an_index_that_fails_is_made_anew_and_what_is_read_is_right_meanwhile() {
    let index = Arc::new(Faulty::default());
    let mut rig = Rig::new(&MemoryDisk::new(), index.clone());
    add(&mut rig, 1..=15);
    assert_eq!(readiness(&rig), Readiness::Ready);
    index.fails.store(true, Ordering::SeqCst);
    index.lost.store(true, Ordering::SeqCst);
    // Taking in, carrying out, sealing and compacting go on.
    add(&mut rig, 16..=30);
    assert!(matches!(readiness(&rig), Readiness::Rebuilding(why) if why.contains("on purpose")));
    check_thirty(&rig);
    let rebuilt = drive(rig.store(), rig.store().summary()).pages_rebuilt;
    assert!(rebuilt > 0);
    assert_eq!(rig.resend(3), Acceptance::Duplicate { uid: uid(3) });
    assert!(!rig.shared().heal_once());
    assert!(matches!(readiness(&rig), Readiness::Rebuilding(_)));
    // A start without it, too.
    for _ in 0..2 {
        rig.open();
        check_thirty(&rig);
        assert!(matches!(readiness(&rig), Readiness::Rebuilding(_)));
    }
    index.lost.store(false, Ordering::SeqCst);
    assert!(rig.shared().heal_once());
    assert!(!rig.shared().heal_once());
    assert_eq!(readiness(&rig), Readiness::Ready);
    check_thirty(&rig);
    assert!(drive(rig.store(), rig.store().summary()).pages_rebuilt > 0);
    // From then on it is as good as any: the next start goes on from it.
    rig.close();
    rig.open();
    check_thirty(&rig);
    assert_eq!(drive(rig.store(), rig.store().summary()).pages_rebuilt, 0);
}

#[test]
fn retention_goes_on_without_an_index() {
    let index = Arc::new(Faulty::default());
    let mut rig = Rig::new(&MemoryDisk::new(), index.clone());
    rig.keep(kept(HOUR, Duration::ZERO, Duration::ZERO));
    rig.accept_number(100);
    rig.record(100, put_off(start() + 1000 * HOUR));
    add(&mut rig, 1..=30);
    index.fails.store(true, Ordering::SeqCst);
    rig.roll();
    rig.pass(HOUR + Duration::from_secs(2));
    assert!(rig.compact_all() > 2);
    assert_eq!(rig.listed(Query::default()), ["e100"]);
    assert!(rig.shared().heal_once());
    let there = rig.segments();
    let groups = index.groups().unwrap();
    assert!(groups.iter().all(|group| group.segment == 0 || there.contains(&group.segment)));
    rig.open();
    assert_eq!(rig.listed(Query::default()), ["e100"]);
}

/// With threads. Nobody who brings events or outcomes waits for the index.
#[tokio::test]
async fn while_the_index_does_not_answer_events_are_taken_in_and_carried_out() {
    let index = Arc::new(Faulty::default());
    let disk = Arc::new(MemoryDisk::new());
    let store = JournalStore::open(disk, index.clone(), small(), world(1).0).unwrap();
    index.set_shut(true);
    for number in 1..=60 {
        let offered = event(number, &format!("e{number}"), &"x".repeat(700), &["ship"]);
        store.accept(vec![offered]).await.unwrap();
        let claim = store.claim(1).await.unwrap().remove(0);
        let done = attempted(None, StepStatus::Succeeded);
        let id = claim.state.id.clone();
        let told = store.record(&id, claim.fence, 0, done, Durability::Synced).await;
        assert!(matches!(told, Ok(Recorded::Recorded(_))));
        // One event is read in the journal.
        let view = store.event(uid(number)).await.unwrap().unwrap();
        assert_eq!(view.deliveries[0].state.status, Status::Succeeded);
        assert_eq!(store.summary().await.events as u128, number);
    }
    index.until_somebody_waits();
    index.set_shut(false);
    let page = store.list(Query::default(), None, ALL).await.unwrap();
    assert_eq!(page.events.len(), 60);
    store.close().await.unwrap();
}

/// Does something in the middle of a look-up: when a page is asked for.
#[derive(Default)]
struct Hooked {
    kept: MemoryIndex,
    hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Index for Hooked {
    fn put(&self, group: Group, pages: &[Bytes]) -> Result<(), IndexError> {
        self.kept.put(group, pages)
    }
    fn get(&self, id: PageId) -> Result<Option<Bytes>, IndexError> {
        let hook = self.hook.lock().unwrap().take();
        match hook {
            Some(hook) => {
                hook();
                // What was there a moment ago is gone.
                Ok(None)
            }
            None => self.kept.get(id),
        }
    }
    fn groups(&self) -> Result<Vec<Group>, IndexError> {
        self.kept.groups()
    }
    fn remove(&self, group: Group) -> Result<(), IndexError> {
        self.kept.remove(group)
    }
    fn reset(&self) -> Result<(), IndexError> {
        self.kept.reset()
    }
}

#[test]
fn a_look_up_in_whose_middle_a_segment_goes_shows_what_is_left() {
    let id = |id: &str| Query { event_id: Some(id.into()), ..Query::default() };
    let oldest = Query { oldest_first: true, ..Query::default() };
    for query in [oldest, Query::default(), id("e3"), id("e100")] {
        let index = Arc::new(Hooked::default());
        let mut rig = Rig::new(&MemoryDisk::new(), index.clone());
        rig.keep(kept(HOUR, Duration::ZERO, Duration::ZERO));
        rig.accept_number(100);
        rig.record(100, put_off(start() + 1000 * HOUR));
        add(&mut rig, 1..=5);
        rig.roll();
        rig.pass(HOUR + Duration::from_secs(2));
        let shared = rig.shared_arc();
        *index.hook.lock().unwrap() = Some(Box::new(move || {
            while !matches!(shared.compact_once(), Ok(Compacted::Retired)) {
                while shared.prepare_once() {}
            }
        }));
        for id in rig.listed(query) {
            assert!(id == "e100" || id.len() < 3, "{id}");
        }
        assert!(index.hook.lock().unwrap().is_none());
        assert_eq!(rig.listed(Query::default()), ["e100"]);
        assert_eq!(rig.find("e100"), [uid(100)]);
    }
}

/// An index that mixes up what it has: older pages, those of other groups, flipped bits, missing ones.
#[test]
fn an_index_that_is_older_flipped_or_mixed_up_is_seen_through() {
    for seed in 0..30 {
        let mut random = StdRng::seed_from_u64(seed);
        let index = Arc::new(MemoryIndex::default());
        let mut rig = Rig::new(&MemoryDisk::new(), index.clone());
        add(&mut rig, 1..=10);
        let older = copied(&index);
        add(&mut rig, 11..=30);
        if random.random_bool(0.5) {
            rig.close();
        }
        let groups = index.groups().unwrap();
        let mut pages: VecDeque<(Group, Bytes)> = groups
            .iter()
            .filter_map(|group| {
                let first = PageId { group: *group, sequence: 0 };
                Some((*group, index.get(first).unwrap()?))
            })
            .collect();
        for _ in 0..random.random_range(1..6) {
            let (group, page) = pages[random.random_range(0..pages.len())].clone();
            match random.random_range(0..5) {
                0 => index.remove(group).unwrap(),
                1 => {
                    let mut page = page.to_vec();
                    let at = random.random_range(0..page.len());
                    page[at] ^= 1 << random.random_range(0..8);
                    index.put(group, &[page.into()]).unwrap();
                }
                2 => {
                    let (other, _) = pages[random.random_range(0..pages.len())].clone();
                    index.put(other, &[page]).unwrap();
                }
                3 => {
                    let first = PageId { group, sequence: 0 };
                    match older.get(first).unwrap() {
                        Some(page) => index.put(group, &[page]).unwrap(),
                        None => index.remove(group).unwrap(),
                    }
                }
                _ => index.put(group, &[page.slice(..page.len() / 2)]).unwrap(),
            }
            pages.rotate_left(1);
        }
        // While it runs, or at a start.
        if random.random_bool(0.7) || rig.try_store().is_none() {
            rig.open();
        }
        check_thirty(&rig);
        assert_eq!(rig.resend(3), Acceptance::Duplicate { uid: uid(3) });
    }
}

#[test]
fn sled_on_a_damaged_folder_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sled");
    let open = || Arc::new(SledIndex::at(&path, SledLimits::default()));
    let mut rig = Rig::new(&MemoryDisk::new(), open());
    add(&mut rig, 1..=30);
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        if random.random_bool(0.5) {
            rig.close();
        }
        rig.end();
        let files: Vec<_> = std::fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect();
        let damaged = &files[random.random_range(0..files.len())];
        let mut bytes = std::fs::read(damaged).unwrap();
        match random.random_range(0..3) {
            0 => bytes.truncate(bytes.len().saturating_sub(random.random_range(1..200))),
            1 if !bytes.is_empty() => {
                let at = random.random_range(0..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            _ => {
                let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
                if let Some(byte) = bytes.get_mut(used.saturating_sub(seed as usize * 3)) {
                    *byte ^= 0x10;
                }
            }
        }
        std::fs::write(damaged, bytes).unwrap();
        rig.index = open();
        rig.open();
        check_thirty(&rig);
        if !matches!(readiness(&rig), Readiness::Ready) {
            assert!(rig.shared().heal_once(), "seed {seed}");
            check_thirty(&rig);
        }
        assert_eq!(readiness(&rig), Readiness::Ready, "seed {seed}");
    }
}
