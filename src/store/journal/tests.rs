//! The journal under power cuts, kills, damage and full disks. Runs are made from a seed, which a failure prints.

mod cuts;
mod doctor;
mod faults;
mod files;
mod forged;
mod index;
mod kept;
mod model;
mod pages;
mod resume;
mod retention;
mod rig;
mod secrets;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::commit::{Shared, Turn, read_key};
use super::format::Salts;
use super::writer::Request;
use super::{JournalOptions, JournalStore, OpenError, segment};
use crate::delivery::state::{Status, StepStatus};
use crate::name::Uid;
use crate::store::fixtures::{
    UnreliableIndex, attempted, delivery, event, ignored, intended, no_index, put_off, replay,
    start, world,
};
use crate::store::hashing::Hashing;
use crate::store::index::Index;
use crate::store::portable::{ImportStopped, Imported, parse_lines};
use crate::store::view::Peek;
use crate::store::{
    Acceptance, Budget, Change, Claim, Durability, EventView, NewEvent, Operated, Query, Readiness,
    Recorded, Store, StoreError,
};
use crate::world::clock::{Clock, ManualClock};
use crate::world::disk::{Cut, Disk, DiskFile, Fault, FaultKind, FolderDisk, MemoryDisk};

fn small() -> JournalOptions {
    JournalOptions {
        segment_bytes: 8 << 10,
        commit_bytes_max: 2 << 10,
        min_free_disk: 0,
        space_retry: Duration::from_millis(5),
        ..JournalOptions::default()
    }
}

/// A store without threads, and with its spares prepared.
fn driven(disk: &MemoryDisk, options: JournalOptions) -> Result<JournalStore, OpenError> {
    let store =
        JournalStore::open_unstarted(Arc::new(disk.clone()), no_index(), options, world(1).0)?;
    while store.shared.prepare_once() {}
    Ok(store)
}

/// What a run has been told, with the number of operations that the disk had seen by then.
#[derive(Default)]
struct Told {
    /// (operations, event): accepted or a duplicate of it.
    events: Vec<(usize, u128)>,
    /// (operations, event, version): recorded and synced.
    versions: Vec<(usize, u128, u64)>,
    /// Operations after which an event may be gone because it has expired, and after which its id may be unknown.
    may_go: BTreeMap<u128, usize>,
    may_be_unknown: BTreeMap<u128, usize>,
}

impl Told {
    /// What the former process was told is on the medium before the next one is asked anything.
    fn settle(&mut self) {
        let events = self.events.iter_mut().map(|told| &mut told.0);
        let versions = self.versions.iter_mut().map(|told| &mut told.0);
        let gone = self.may_go.values_mut().chain(self.may_be_unknown.values_mut());
        events.chain(versions).chain(gone).for_each(|operations| *operations = 0);
    }
}

enum Waiting {
    Event(oneshot::Receiver<Result<Vec<Acceptance>, StoreError>>),
    Record(u128, oneshot::Receiver<Result<Recorded, StoreError>>),
    Operate(u128, oneshot::Receiver<Result<Operated, StoreError>>),
}

#[derive(Default)]
struct Ledger {
    waiting: Vec<Waiting>,
    told: Told,
    /// Asked for work while a sync is under way.
    worker: Weak<Shared>,
    claimed: Vec<Claim>,
}

impl Ledger {
    /// A worker that comes now may be given only what no power cut can take back.
    fn claim(&mut self, operations: usize) {
        let Some(worker) = self.worker.upgrade() else { return };
        for claim in worker.claim(1).unwrap_or_default() {
            let number = claim.state.id.uid.0.as_u128();
            self.told.versions.push((operations, number, claim.state.version));
            self.claimed.push(claim);
        }
    }

    /// Takes down what has been answered by now.
    fn look(&mut self, operations: usize) {
        let told = &mut self.told;
        self.waiting.retain_mut(|waiting| match waiting {
            Waiting::Event(answer) => match answer.try_recv() {
                Ok(Ok(answers)) => {
                    for answer in answers {
                        let (Acceptance::Accepted { uid }
                        | Acceptance::Duplicate { uid }
                        | Acceptance::Conflict { uid }) = answer;
                        told.events.push((operations, uid.0.as_u128()));
                    }
                    false
                }
                Err(oneshot::error::TryRecvError::Empty) => true,
                Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => false,
            },
            Waiting::Record(number, answer) => match answer.try_recv() {
                Ok(Ok(Recorded::Recorded(state))) => {
                    told.versions.push((operations, *number, state.version));
                    false
                }
                Err(oneshot::error::TryRecvError::Empty) => true,
                Ok(_) | Err(oneshot::error::TryRecvError::Closed) => false,
            },
            Waiting::Operate(number, answer) => match answer.try_recv() {
                Ok(Ok(Operated::Done(state))) => {
                    told.versions.push((operations, *number, state.version));
                    false
                }
                Err(oneshot::error::TryRecvError::Empty) => true,
                Ok(_) | Err(oneshot::error::TryRecvError::Closed) => false,
            },
        });
    }
}

/// Looks at what has been answered before each operation that changes the medium: an answer before its sync is seen
/// with the operations of before the sync.
struct Watched {
    disk: MemoryDisk,
    ledger: Arc<Mutex<Ledger>>,
}

struct WatchedFile {
    file: Arc<dyn DiskFile>,
    disk: MemoryDisk,
    ledger: Arc<Mutex<Ledger>>,
}

impl Disk for Watched {
    fn place(&self) -> String {
        self.disk.place()
    }
    fn prepare(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.disk.prepare(name, bytes)
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(name)?;
        let (disk, ledger) = (self.disk.clone(), self.ledger.clone());
        Ok(Arc::new(WatchedFile { file, disk, ledger }))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
    fn total_bytes(&self) -> io::Result<u64> {
        self.disk.total_bytes()
    }
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock()
    }
}

impl DiskFile for WatchedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.ledger.lock().unwrap().look(self.disk.operations());
        self.file.write_at(offset, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.look(self.disk.operations());
        ledger.claim(self.disk.operations());
        drop(ledger);
        self.file.sync_data()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}

/// The `number`-th event of a run.
fn offered(number: u128) -> NewEvent {
    let body = "x".repeat((number * 331 % 900) as usize);
    event(number, &format!("e{number}"), &body, &["ship"])
}

/// The same again, under the uid of its own arrival.
fn resent(number: u128) -> NewEvent {
    let mut event = offered(number);
    event.envelope.uid = Uid(Uuid::from_u128(number + 1_000_000));
    event
}

/// One process of a recorded run.
struct Run {
    disk: MemoryDisk,
    ledger: Arc<Mutex<Ledger>>,
    store: JournalStore,
    held: Vec<Claim>,
    clock: Arc<ManualClock>,
}

impl Run {
    fn start(disk: &MemoryDisk, told: Told) -> Self {
        Self::start_with(disk, no_index(), start(), told)
    }

    fn start_with(disk: &MemoryDisk, index: Arc<dyn Index>, now: Timestamp, told: Told) -> Self {
        let disk = disk.clone();
        let (world, clock) = world(1);
        clock.jump_to(now);
        let ledger = Arc::new(Mutex::new(Ledger { told, ..Ledger::default() }));
        let watched = Watched { disk: disk.clone(), ledger: ledger.clone() };
        let options = JournalOptions { segment_age_max: Duration::ZERO, ..small() };
        let store = JournalStore::open_unstarted(Arc::new(watched), index, options, world).unwrap();
        while store.shared.prepare_once() {}
        ledger.lock().unwrap().worker = Arc::downgrade(&store.shared);
        Self { disk, ledger, store, held: Vec::new(), clock }
    }

    fn wait(&self, waiting: Waiting) {
        self.ledger.lock().unwrap().waiting.push(waiting);
    }

    fn offer(&self, mut events: Vec<NewEvent>) {
        for event in &mut events {
            event.envelope.received_at = self.clock.now();
        }
        let (reply, answer) = oneshot::channel();
        let permit = self.store.ingest.clone().try_acquire_many_owned(1).unwrap();
        self.store.shared.enqueue(Request::Accept { events, permit, reply });
        self.wait(Waiting::Event(answer));
    }

    fn record(&self, claim: &Claim, version: u64, mut change: Change, durability: Durability) {
        change.entry.at = self.clock.now();
        let (reply, answer) = oneshot::channel();
        self.store.shared.enqueue(Request::Record {
            delivery: claim.state.id.clone(),
            fence: claim.fence,
            version,
            change: Box::new(change),
            durability,
            reply,
        });
        if durability == Durability::Synced {
            self.wait(Waiting::Record(claim.state.id.uid.0.as_u128(), answer));
        }
    }

    fn commit(&self) {
        while self.store.shared.commit_once() == Turn::Worked {
            self.ledger.lock().unwrap().look(self.disk.operations());
            while self.store.shared.prepare_once() {}
            while self.store.shared.seal_once() {}
        }
        self.ledger.lock().unwrap().look(self.disk.operations());
    }

    /// Does something, as `random` says.
    fn act(&mut self, random: &mut StdRng, next: &mut u128) {
        self.held.append(&mut self.ledger.lock().unwrap().claimed);
        match random.random_range(0..10) {
            0..4 => {
                let count = random.random_range(1..4);
                let events = (0..count).map(|_| {
                    *next += 1;
                    offered(*next)
                });
                self.offer(events.collect());
            }
            4..6 if *next > 0 => {
                // Mostly of what is not durable yet.
                let known = match random.random_bool(0.7) {
                    true => random.random_range(next.saturating_sub(2).max(1)..=*next),
                    false => random.random_range(1..=*next),
                };
                self.offer(vec![resent(known)]);
                if random.random_bool(0.3) {
                    let other_body = event(known + 2_000_000, &format!("e{known}"), "", &["ship"]);
                    self.offer(vec![other_body]);
                }
            }
            6 => self.held.extend(self.store.shared.claim(2).unwrap()),
            7..9 => {
                if let Some(claim) = self.held.pop() {
                    let id = claim.state.id.uid.0.as_u128();
                    let version = claim.state.version;
                    let key = format!("key-{}", id % 5);
                    let last = match id % 4 {
                        0 => attempted(Some(&key), StepStatus::Succeeded),
                        1 => attempted(None, StepStatus::Failed),
                        2 => put_off(start()),
                        _ => ignored(),
                    };
                    let key = (id.is_multiple_of(4)).then_some(key.as_str());
                    self.record(&claim, version, intended(key), Durability::Ordered);
                    self.record(&claim, version + 1, last, Durability::Synced);
                }
            }
            _ => {
                if *next > 0 {
                    let number = random.random_range(1..=*next);
                    let id = delivery(number, "ship");
                    let state = self.store.shared.peek(|state| {
                        let slot = state.slot(&id)?;
                        state.load_state(slot, self.store.shared.facts()).ok()
                    });
                    if let Some(state) = state.filter(|state| state.status == Status::Failed) {
                        let (reply, answer) = oneshot::channel();
                        let mut operation = Box::new(replay(&state));
                        operation.change.entry.at = self.clock.now();
                        self.store.shared.enqueue(Request::Operate { operation, reply });
                        self.wait(Waiting::Operate(number, answer));
                    }
                }
            }
        }
        if random.random_bool(0.6) {
            self.commit();
        }
    }

    /// Kills the process: what is written stays, nothing more is synced.
    fn kill(self) -> Told {
        let ledger = self.ledger.clone();
        drop(self);
        std::mem::take(&mut ledger.lock().unwrap().told)
    }
}

/// Everything that was told before the disk had seen `operations` must be there, and what is there must be whole.
fn check(disk: &MemoryDisk, told: &Told, operations: usize, context: &str) {
    check_with(disk, no_index(), told, operations, context);
}

fn check_with(
    disk: &MemoryDisk,
    index: Arc<dyn Index>,
    told: &Told,
    operations: usize,
    context: &str,
) -> JournalStore {
    let store = JournalStore::open_unstarted(Arc::new(disk.clone()), index, small(), world(1).0);
    let store = store.unwrap_or_else(|error| panic!("{context}: {error}"));
    let look = |number: u128| -> Option<EventView> {
        let view = store.event(Uid(Uuid::from_u128(number)));
        view.now_or_never().expect("all is durable after the start").unwrap()
    };
    let may_go = |number: &u128| told.may_go.get(number).is_some_and(|from| *from <= operations);
    // The highest version that was told of each.
    let mut expected: BTreeMap<u128, u64> = BTreeMap::new();
    let events = told.events.iter().map(|(at, number)| (*at, *number, 0));
    for (_, number, version) in
        events.chain(told.versions.iter().copied()).filter(|told| told.0 <= operations)
    {
        let known = expected.entry(number).or_default();
        *known = version.max(*known);
    }
    for (number, version) in expected {
        let Some(view) = look(number) else {
            assert!(may_go(&number), "{context}: event {number} is lost");
            continue;
        };
        // A second body of an event that has expired has none.
        let deliveries = usize::from(view.envelope.malformed.is_none());
        assert_eq!(view.deliveries.len(), deliveries, "{context}: event {number} is half there");
        let found = view.deliveries.first().map_or(0, |delivery| delivery.state.version);
        assert!(found >= version, "{context}: {number} went back from {version} to {found}");
    }
    let budget = Budget { rows_max: 10_000, examined_max: 10_000 };
    let page = store.list(Query::default(), None, budget).now_or_never().unwrap().unwrap();
    for row in &page.events {
        let view = look(row.uid.0.as_u128()).unwrap();
        let Some(delivery) = view.deliveries.first() else { continue };
        assert_eq!(delivery.state.version as usize, delivery.entries.len(), "{context}");
        assert_eq!(delivery.state.status, row.deliveries[0].1, "{context}");
    }
    // Once each, whatever was cut.
    let mut ids: Vec<_> = page.events.iter().map(|row| row.event_id.clone()).collect();
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "{context}: an event is there twice");
    store
}

const CUTS: [Cut; 5] = [Cut::Nothing, Cut::Everything, Cut::Some(1), Cut::Some(2), Cut::Some(3)];

#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    for seed in 0..3 {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = MemoryDisk::new();
        let mut run = Run::start(&disk, Told::default());
        let mut next = 0;
        for _ in 0..50 {
            run.act(&mut random, &mut next);
        }
        run.commit();
        let told = run.kill();
        assert!(told.events.len() > 10 && !told.versions.is_empty());
        // At every operation: between writes and at each sync.
        let points: Vec<usize> = (0..=disk.operations()).collect();
        disk.cut_at_each(&points, |point, image| {
            for cut in CUTS {
                check(&image(cut), &told, point, &format!("seed {seed}, after {point}, {cut:?}"));
            }
        });
    }
}

#[test]
fn killed_restarted_asked_again_and_then_cut() {
    for seed in 100..102 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut disk = MemoryDisk::new();
        let mut next = 0;
        let mut told = Told::default();
        for _ in 0..3 {
            let mut run = Run::start(&disk, told);
            run.ledger.lock().unwrap().told.settle();
            // A resend of everything: each answer is a promise.
            for known in 1..=next {
                run.offer(vec![resent(known)]);
            }
            for _ in 0..15 {
                run.act(&mut random, &mut next);
            }
            // Killed between write and sync, or anywhere else.
            run.disk.inject(Fault { kind: FaultKind::FailedSync, number: 0 });
            next += 1;
            run.offer(vec![offered(next)]);
            run.commit();
            told = run.kill();
            let points: Vec<usize> = (0..=disk.operations()).collect();
            disk.cut_at_each(&points, |point, image| {
                for cut in CUTS {
                    check(
                        &image(cut),
                        &told,
                        point,
                        &format!("seed {seed}, after {point}, {cut:?}"),
                    );
                }
            });
            disk = disk.after_kill();
        }
    }
}

fn segments(disk: &MemoryDisk) -> Vec<String> {
    let names = disk.list().unwrap();
    names.into_iter().filter(|name| segment::number(name).is_some()).collect()
}

/// Accepts events of 700 bytes until `count` stand.
fn filled(disk: &MemoryDisk, count: u128) -> JournalStore {
    let store = driven(disk, small()).unwrap();
    for number in 1..=count {
        let offered = event(number, &format!("e{number}"), &"x".repeat(700), &["ship"]);
        assert!(matches!(accept(&store, offered), Some(Ok(_))));
    }
    store
}

/// One event through one commit; `None`: not answered.
fn accept(store: &JournalStore, event: NewEvent) -> Option<Result<Acceptance, StoreError>> {
    let mut answer = store.accept(vec![event]);
    if let Some(refused) = (&mut answer).now_or_never() {
        return Some(refused.map(|mut answers| answers.remove(0)));
    }
    while store.shared.commit_once() == Turn::Worked {
        while store.shared.prepare_once() {}
        while store.shared.seal_once() {}
    }
    answer.now_or_never().map(|answer| answer.map(|mut answers| answers.remove(0)))
}

fn close(store: &JournalStore) {
    let mut answer = store.close();
    assert!((&mut answer).now_or_never().is_none());
    while store.shared.commit_once() == Turn::Worked {}
    answer.now_or_never().unwrap().unwrap();
}

#[test]
fn a_clean_end_is_read_back_whole_and_nothing_is_copied() {
    let disk = MemoryDisk::new();
    let store = filled(&disk, 30);
    close(&store);
    drop(store);
    assert!(segments(&disk).len() > 3);
    let disk = disk.cut_after(disk.operations(), Cut::Nothing);
    let store = driven(&disk, small()).unwrap();
    let summary = store.summary().now_or_never().unwrap();
    assert_eq!((summary.events, summary.queued), (30, 30));
    assert_eq!(store.shared.claim(100).unwrap().len(), 30);
}

#[test]
fn the_data_folder_is_taken_by_one() {
    let disk = MemoryDisk::new();
    let store = driven(&disk, small()).unwrap();
    assert!(matches!(driven(&disk, small()), Err(OpenError::Locked { .. })));
    drop(store);
    driven(&disk, small()).unwrap();
}

#[test]
fn a_flipped_bit_stops_the_start_and_names_the_place() {
    let disk = MemoryDisk::new();
    let store = filled(&disk, 30);
    close(&store);
    drop(store);
    let names = segments(&disk);
    let mut random = StdRng::seed_from_u64(7);
    for round in 0..60 {
        let damaged = disk.after_kill();
        // Anywhere in what was written; the last segment ends with the mark of the clean end.
        let name = &names[random.random_range(0..4)];
        let used = used_bytes(&damaged, name);
        let offset = random.random_range(0..used);
        damaged.damage(name, offset, 1 << random.random_range(0..8));
        match driven(&damaged, small()) {
            Err(OpenError::Corrupt { segment, .. }) => assert!(segment >= 1),
            // The format version is looked at only where the checksum is right.
            Err(other) => panic!("round {round}, {name} at {offset}: {other}"),
            Ok(_) => panic!("round {round}, {name} at {offset}: the damage was not seen"),
        }
    }
}

/// As the journal in this folder has them.
fn salts(disk: &MemoryDisk) -> Salts {
    Salts::new(Hashing::new(read_key(disk).unwrap()))
}

/// Up to the last byte that is not zero.
fn used_bytes(disk: &MemoryDisk, name: &str) -> u64 {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; file.size().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

#[test]
fn a_missing_segment_a_missing_key_and_a_newer_format_stop_the_start() {
    let disk = MemoryDisk::new();
    let store = filled(&disk, 30);
    drop(store);
    for gone in [1, 2] {
        let disk = disk.after_kill();
        disk.remove(&segment::name(gone)).unwrap();
        let missing = driven(&disk, small()).map(drop);
        assert!(matches!(missing, Err(OpenError::Missing { segment, .. }) if segment == gone));
    }
    let keyless = disk.after_kill();
    keyless.remove("key").unwrap();
    assert!(matches!(driven(&keyless, small()), Err(OpenError::NoKey { .. })));
    // A whole batch of a later format, at the end of the first segment.
    let newer = MemoryDisk::new();
    let store = driven(&newer, small()).unwrap();
    let salt = salts(&newer).own();
    drop(store);
    let file = newer.open(&segment::name(1)).unwrap();
    let mut bytes = vec![0; file.size().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    let length = super::format::HEADER_BYTES
        + u32::from_le_bytes(bytes[40..44].try_into().unwrap()) as usize;
    let mut batch = bytes[..length].to_vec();
    super::format::reseal_as_version(salt, &mut batch, 3);
    file.write_at(0, &batch).unwrap();
    assert!(matches!(driven(&newer, small()), Err(OpenError::Newer { .. })));
}

#[tokio::test]
async fn a_failed_write_or_sync_is_the_end() {
    for kind in [FaultKind::ShortWrite, FaultKind::FailedSync] {
        let disk = MemoryDisk::new();
        let store =
            JournalStore::open(Arc::new(disk.clone()), no_index(), small(), world(1).0).unwrap();
        store.accept(vec![event(1, "e1", "{}", &["ship"])]).await.unwrap();
        let claim = store.claim(1).await.unwrap().remove(0);
        // The preparer may sync too: its failures are not the end.
        while store.shared.spares() < 2 {
            tokio::task::yield_now().await;
        }
        disk.inject(Fault { kind, number: 0 });
        let lost = store.accept(vec![event(2, "e2", "{}", &["ship"])]).await;
        assert!(matches!(lost, Err(StoreError::Dead(_))), "{lost:?}");
        assert!(store.died().await.contains("failed"));
        assert!(matches!(store.summary().await.ready, Readiness::Dead(_)));
        let after = store.accept(vec![event(3, "e3", "{}", &["ship"])]).await;
        assert!(matches!(after, Err(StoreError::Dead(_))));
        let id = claim.state.id.clone();
        let record = store.record(&id, claim.fence, 0, ignored(), Durability::Synced).await;
        assert!(matches!(record, Err(StoreError::Dead(_))));
        assert!(matches!(store.claim(1).await, Err(StoreError::Dead(_))));
        assert!(matches!(store.event(claim.envelope.uid).await, Ok(Some(_))));
        drop(store);
        let store =
            JournalStore::open(Arc::new(disk.after_kill()), no_index(), small(), world(1).0)
                .unwrap();
        assert_eq!(store.claim(9).await.unwrap()[0].envelope.event_id, "e1".into());
    }
}

#[test]
fn a_sync_that_lies_never_brings_a_panic_or_half_an_event() {
    for seed in 0..40 {
        let disk = MemoryDisk::new();
        disk.inject(Fault { kind: FaultKind::LyingSync, number: (seed % 20) as usize });
        let store = filled(&disk, 20);
        drop(store);
        let cut = disk.cut_after(disk.operations(), Cut::Some(seed));
        match driven(&cut, small()) {
            Ok(store) => {
                let events = store.summary().now_or_never().unwrap().events;
                assert_eq!(store.shared.claim(100).unwrap().len() as u64, events);
            }
            Err(
                OpenError::Corrupt { .. } | OpenError::Missing { .. } | OpenError::NoKey { .. },
            ) => {}
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
}

#[test]
fn a_full_disk_refuses_new_events_and_records_what_calls_answered() {
    let disk = MemoryDisk::new();
    // Room for the first segment and its two spares, and hardly more.
    disk.set_quota(28 << 10);
    let options = JournalOptions { segment_bytes: 8 << 10, ..small() };
    let store = JournalStore::open_unstarted(
        Arc::new(Roomy(disk.clone())),
        no_index(),
        options.clone(),
        world(1).0,
    )
    .unwrap();
    while store.shared.prepare_once() {}
    let mut accepted: Vec<u128> = Vec::new();
    let refused = (1..100).find_map(|number| {
        let offered = event(number, &format!("e{number}"), &"x".repeat(700), &["ship"]);
        match accept(&store, offered).expect("it is answered") {
            Ok(_) => {
                accepted.push(number);
                None
            }
            Err(error) => Some((number, error)),
        }
    });
    let (number, error) = refused.expect("the disk gets full");
    assert!(matches!(&error, StoreError::Refusing(why) if why.contains("full")), "{error}");
    let ready = store.summary().now_or_never().unwrap().ready;
    assert!(matches!(ready, Readiness::Refusing(_)));
    for claim in store.shared.claim(5).unwrap() {
        let id = claim.state.id.clone();
        let mut record = store.record(&id, claim.fence, 0, ignored(), Durability::Synced);
        assert!((&mut record).now_or_never().is_none());
        while store.shared.commit_once() == Turn::Worked {}
        assert!(matches!(record.now_or_never(), Some(Ok(Recorded::Recorded(_)))));
    }
    disk.set_quota(1 << 20);
    while store.shared.prepare_once() {}
    assert_eq!(store.summary().now_or_never().unwrap().ready, Readiness::Ready);
    let again = event(number, &format!("e{number}"), "", &["ship"]);
    assert!(matches!(accept(&store, again), Some(Ok(Acceptance::Accepted { .. }))));
    drop(store);
    let store = driven(&disk.cut_after(disk.operations(), Cut::Nothing), options).unwrap();
    let summary = store.summary().now_or_never().unwrap();
    assert_eq!(summary.events as usize, accepted.len() + 1);
    assert_eq!(summary.queued as usize, accepted.len() + 1 - 5);
}

/// Lines of an export of so many events.
fn exported_lines(count: u128) -> String {
    let disk = MemoryDisk::new();
    let source = driven(&disk, small()).unwrap();
    for number in 1..=count {
        let offered = event(number, &format!("e{number}"), &"x".repeat(700), &["ship"]);
        assert!(matches!(accept(&source, offered), Some(Ok(_))));
    }
    let page = source.export(Query::default(), None, usize::MAX).now_or_never().unwrap().unwrap();
    assert!(page.next.is_none());
    page.lines.join("\n")
}

/// Drives the store until the import is answered.
fn import(store: &JournalStore, lines: &str) -> Result<Imported, ImportStopped> {
    let mut import = store.import(parse_lines(lines).records);
    loop {
        if let Some(answer) = (&mut import).now_or_never() {
            return answer;
        }
        while store.shared.commit_once() == Turn::Worked {
            while store.shared.prepare_once() {}
            while store.shared.seal_once() {}
        }
    }
}

#[test]
fn a_full_disk_refuses_an_import_and_still_records_what_calls_answered() {
    let lines = exported_lines(60);
    let disk = MemoryDisk::new();
    disk.set_quota(28 << 10);
    let store = JournalStore::open_unstarted(
        Arc::new(Roomy(disk.clone())),
        no_index(),
        small(),
        world(1).0,
    )
    .unwrap();
    while store.shared.prepare_once() {}
    let stopped = import(&store, &lines).unwrap_err();
    assert!(
        matches!(&stopped.error, StoreError::Refusing(why) if why.contains("full")),
        "{stopped}"
    );
    let taken = stopped.so_far.events;
    assert!((1..60).contains(&taken), "{taken}");
    let claim = store.shared.claim(1).unwrap().remove(0);
    let id = claim.state.id.clone();
    let mut record = store.record(&id, claim.fence, 0, ignored(), Durability::Synced);
    assert!((&mut record).now_or_never().is_none());
    while store.shared.commit_once() == Turn::Worked {}
    assert!(matches!(record.now_or_never(), Some(Ok(Recorded::Recorded(_)))));
    // With room again it goes on where it stopped.
    disk.set_quota(1 << 20);
    while store.shared.prepare_once() {}
    let imported = import(&store, &lines).unwrap();
    assert_eq!((imported.events + imported.known, store_events(&store)), (60, 60));
    // All of it outlives a power cut.
    drop(store);
    let store = driven(&disk.cut_after(disk.operations(), Cut::Nothing), small()).unwrap();
    assert_eq!(store_events(&store), 60);
}

fn store_events(store: &JournalStore) -> u64 {
    store.summary().now_or_never().unwrap().events
}

#[test]
fn what_is_imported_is_durable_when_that_is_said_and_whole_or_not_there() {
    let lines = exported_lines(12);
    let disk = MemoryDisk::new();
    let store = driven(&disk, small()).unwrap();
    let before = disk.operations();
    assert_eq!(import(&store, &lines).unwrap().events, 12);
    let after = disk.operations();
    drop(store);
    for operations in before..=after {
        for cut in [Cut::Nothing, Cut::Everything, Cut::Some(operations as u64)] {
            let store = driven(&disk.cut_after(operations, cut), small()).unwrap();
            let events = store_events(&store);
            assert!(operations < after || events == 12, "{operations}: {events}");
            for number in 1..=u128::from(events) {
                let view = store.event(Uid(Uuid::from_u128(number))).now_or_never();
                let view = view.unwrap().unwrap().expect("in order, and whole");
                assert_eq!((view.envelope.body.len(), view.deliveries.len()), (700, 1));
            }
        }
    }
}

/// Says that its volume is large, so that a small one can be filled.
struct Roomy(MemoryDisk);

impl Disk for Roomy {
    fn place(&self) -> String {
        self.0.place()
    }
    fn prepare(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.0.prepare(name, bytes)
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_folder(&self) -> io::Result<()> {
        self.0.sync_folder()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
    fn total_bytes(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.0.lock()
    }
}

/// A POST of many events is one frame, longer than one read takes; each of them is read back alone, and by turns.
#[tokio::test]
async fn of_a_long_frame_each_event_is_read_back() {
    let disk = MemoryDisk::new();
    let options = JournalOptions { segment_bytes: 1 << 20, ..small() };
    let open = || {
        JournalStore::open(Arc::new(disk.clone()), no_index(), options.clone(), world(1).0).unwrap()
    };
    let post = |from: u128| -> Vec<NewEvent> {
        let body = |number: u128| format!("{number}{}", "x".repeat(500));
        (0..200).map(|n| event(from + n, &format!("e{n}"), &body(n), &["ship"])).collect()
    };
    let store = open();
    let taken = store.accept(post(0)).await.unwrap();
    assert!(taken.iter().all(|it| matches!(it, Acceptance::Accepted { .. })));
    let short = event(1_000, "short", "{}", &["ship"]);
    store.accept(vec![short]).await.unwrap();
    store.accept(post(2_000)).await.unwrap();
    let all_are_there = async |store: &JournalStore| {
        let told = store.accept(post(3_000)).await.unwrap();
        for (acceptance, number) in told.iter().zip(0..) {
            let uid = event(number, "", "", &[]).envelope.uid;
            assert_eq!(*acceptance, Acceptance::Duplicate { uid });
        }
        for number in [199, 0, 1_000, 7, 198] {
            let uid = event(number, "", "", &[]).envelope.uid;
            assert_eq!(store.event(uid).await.unwrap().unwrap().envelope.uid, uid);
        }
        assert_eq!(store.summary().await.events, 201);
    };
    all_are_there(&store).await;
    drop(store);
    all_are_there(&open()).await;
}

#[tokio::test]
async fn a_folder_of_the_machine_keeps_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let disk = Arc::new(FolderDisk::open(folder.path().join("store")).unwrap());
        JournalStore::open(
            disk,
            no_index(),
            JournalOptions { segment_bytes: 64 << 10, ..small() },
            world(1).0,
        )
    };
    let store = open().unwrap();
    let refused = open().map(drop).unwrap_err().to_string();
    assert!(refused.contains("in use by another router") && refused.contains("store"));
    for number in 0..200 {
        let offered = event(number, &format!("e{number}"), &"x".repeat(1024), &["ship"]);
        store.accept(vec![offered]).await.unwrap();
        let claim = store.claim(1).await.unwrap().remove(0);
        let id = claim.state.id.clone();
        let intent = store.record(&id, claim.fence, 0, intended(None), Durability::Ordered);
        assert!(matches!(intent.await, Ok(Recorded::Recorded(_))));
        let done = attempted(None, StepStatus::Succeeded);
        let done = store.record(&id, claim.fence, 1, done, Durability::Synced);
        assert!(matches!(done.await, Ok(Recorded::Recorded(_))));
    }
    let written = store.shared.written();
    assert!(written <= 200 * (1024 * 3 / 2 + 400), "{} bytes an event", written / 200);
    let before = store.event(delivery(7, "ship").uid).await.unwrap().unwrap();
    drop(store);
    let store = open().unwrap();
    let after = store.event(delivery(7, "ship").uid).await.unwrap().unwrap();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
    assert_eq!(store.summary().await.events, 200);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(folder.path().join("store/key")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn random_work_agrees_with_a_map_over_restarts() {
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut disk = MemoryDisk::new();
        // It goes on from one start to the next, and is never right for long.
        let index = Arc::new(UnreliableIndex::new(seed));
        let open = |disk: &MemoryDisk| {
            let disk = Arc::new(disk.clone());
            JournalStore::open(disk, index.clone(), small(), world(1).0).unwrap()
        };
        let mut store = open(&disk);
        // id → (uid, body, duplicates, conflicts, version, status)
        let mut model: BTreeMap<u8, (u128, bool, u64, u64, u64, Status)> = BTreeMap::new();
        for number in 1..250u128 {
            match random.random_range(0..10) {
                0..6 => {
                    let (id, body) = (random.random_range(0..40), random.random_bool(0.2));
                    let text = if body { "{\"a\":1}" } else { "{}" };
                    let offered = event(number, &format!("e{id}"), text, &["ship"]);
                    let told = store.accept(vec![offered]).await.unwrap().remove(0);
                    let expected = match model.get_mut(&id) {
                        None => {
                            model.insert(id, (number, body, 0, 0, 0, Status::Queued));
                            Acceptance::Accepted { uid: Uid(Uuid::from_u128(number)) }
                        }
                        Some(known) => {
                            let uid = Uid(Uuid::from_u128(known.0));
                            if known.1 == body {
                                known.2 += 1;
                                Acceptance::Duplicate { uid }
                            } else {
                                known.3 += 1;
                                Acceptance::Conflict { uid }
                            }
                        }
                    };
                    assert_eq!(told, expected, "seed {seed}, step {number}");
                }
                6..9 => {
                    for claim in store.claim(1).await.unwrap() {
                        let number = claim.state.id.uid.0.as_u128();
                        let change = match number % 3 {
                            0 => attempted(None, StepStatus::Succeeded),
                            1 => put_off(start()),
                            _ => ignored(),
                        };
                        let known = model.values_mut().find(|known| known.0 == number).unwrap();
                        assert_eq!(claim.state.version, known.4, "seed {seed}");
                        (known.4, known.5) = (known.4 + 1, change.transition.status);
                        let id = claim.state.id.clone();
                        let version = claim.state.version;
                        let told =
                            store.record(&id, claim.fence, version, change, Durability::Synced);
                        assert!(matches!(told.await, Ok(Recorded::Recorded(_))));
                    }
                }
                _ => {
                    if random.random_bool(0.5) {
                        store.close().await.unwrap();
                    } else {
                        // Counts of duplicates are not waited for: a look makes them durable.
                        store.find("e0", None).await.unwrap();
                    }
                    drop(store);
                    disk = disk.after_kill();
                    store = open(&disk);
                }
            }
        }
        let all = Budget { rows_max: 1000, examined_max: 1000 };
        let rows = store.list(Query::default(), None, all).await.unwrap().events;
        assert_eq!(rows.len(), model.len());
        for (id, (number, ..)) in &model {
            let (id, uid) = (format!("e{id}"), Uid(Uuid::from_u128(*number)));
            assert_eq!(store.find(&id, None).await.unwrap(), [uid], "seed {seed}");
            let row = rows.iter().find(|row| row.uid == uid).unwrap();
            assert_eq!((row.event_id.as_str(), &*row.event_type), (&*id, "orders/paid"));
            let query = Query { event_id: Some((&*id).into()), ..Query::default() };
            let page = store.list(query, None, all).await.unwrap();
            assert_eq!(page.events.len(), 1);
        }
        for (number, _, duplicates, conflicts, version, status) in model.values() {
            let view = store.event(Uid(Uuid::from_u128(*number))).await.unwrap().unwrap();
            let state = &view.deliveries[0].state;
            assert_eq!((view.duplicates, view.conflict_count), (*duplicates, *conflicts));
            assert_eq!((state.version, state.status), (*version, *status), "seed {seed}");
        }
        assert_eq!(store.summary().await.events as usize, model.len());
    }
}

#[test]
fn a_preparation_that_fails_anywhere_costs_nothing_that_was_taken() {
    for number in 0..12 {
        let disk = MemoryDisk::new();
        let store = driven(&disk, small()).unwrap();
        disk.inject(Fault { kind: FaultKind::NoSpace, number });
        let mut taken = 0;
        for number in 1..=60 {
            let offered = event(number, &format!("e{number}"), &"x".repeat(700), &["ship"]);
            match accept(&store, offered) {
                Some(Ok(_)) => taken += 1,
                Some(Err(StoreError::Refusing(_))) => while store.shared.prepare_once() {},
                other => panic!("{other:?}"),
            }
        }
        drop(store);
        let cut = disk.cut_after(disk.operations(), Cut::Nothing);
        let store = driven(&cut, small()).unwrap();
        assert_eq!(store.summary().now_or_never().unwrap().events, taken);
        assert!(taken >= 58);
    }
}

#[test]
fn prepared_segments_are_used_again_if_nothing_was_written_to_them() {
    let disk = MemoryDisk::new();
    drop(filled(&disk, 3));
    let before = segments(&disk);
    assert_eq!(before.len(), 3);
    // Without room for another file of that size.
    let full = disk.after_kill();
    full.set_quota(30 << 10);
    let store = JournalStore::open_unstarted(
        Arc::new(Roomy(full.clone())),
        no_index(),
        small(),
        world(1).0,
    );
    let store = store.unwrap();
    assert_eq!(store.shared.spares(), 1);
    assert_eq!(segments(&full), before);
    assert!(matches!(accept(&store, offered(9)), Some(Ok(Acceptance::Accepted { .. }))));
    drop(store);
    assert_eq!(
        driven(&full.after_kill(), small()).unwrap().summary().now_or_never().unwrap().events,
        4
    );
    // One that has another size, or in which something stands, is not.
    for damage in [true, false] {
        let disk = disk.after_kill();
        let file = disk.open(&segment::name(2)).unwrap();
        match damage {
            true => file.write_at(5000, b"x").unwrap(),
            false => file.truncate(4096).unwrap(),
        }
        let store =
            JournalStore::open_unstarted(Arc::new(disk.clone()), no_index(), small(), world(1).0)
                .unwrap();
        assert_eq!(store.shared.spares(), 0);
        assert_eq!(disk.open(&segment::name(2)).unwrap().size().unwrap(), small().segment_bytes);
        let store = {
            drop(store);
            driven(&disk.after_kill(), small()).unwrap()
        };
        assert_eq!(store.summary().now_or_never().unwrap().events, 3);
    }
}
