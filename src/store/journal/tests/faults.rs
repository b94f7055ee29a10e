//! The disk under faults: each operation fails in its turn, bits flip, files are missing or foreign.

use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cuts::copied;
use super::rig::*;
use super::*;
use crate::store::index::MemoryIndex;
use crate::store::journal::commit::compact::Compacted;

/// One operation fails, counted over all kinds of them from when it is armed; and reads, as long as they are told to.
#[derive(Clone)]
struct Failing {
    memory: MemoryDisk,
    next: Arc<AtomicUsize>,
    kind: io::ErrorKind,
    failed: Arc<Mutex<Option<&'static str>>>,
    reads: Arc<std::sync::atomic::AtomicBool>,
    gate: Arc<Gate>,
}

/// Holds one write in its middle.
#[derive(Default)]
struct Gate {
    at: Mutex<At>,
    moved: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum At {
    #[default]
    Open,
    /// The next write stops at its half.
    Armed,
    Half,
}

impl Gate {
    fn set(&self, at: At) {
        *self.at.lock().unwrap() = at;
        self.moved.notify_all();
    }

    fn until(&self, wanted: At) {
        drop(self.moved.wait_while(self.at.lock().unwrap(), |at| *at != wanted).unwrap());
    }
}

struct FailingFile(Arc<dyn DiskFile>, Failing);

impl Failing {
    fn new(memory: &MemoryDisk, kind: io::ErrorKind) -> Self {
        Self {
            memory: memory.clone(),
            next: Arc::new(AtomicUsize::new(usize::MAX)),
            kind,
            failed: Arc::default(),
            reads: Arc::default(),
            gate: Arc::default(),
        }
    }

    fn arm(&self, number: usize) {
        self.next.store(number, Ordering::SeqCst);
    }

    fn may(&self, what: &'static str) -> io::Result<()> {
        match self.next.load(Ordering::SeqCst) {
            usize::MAX => Ok(()),
            0 => {
                self.next.store(usize::MAX, Ordering::SeqCst);
                *self.failed.lock().unwrap() = Some(what);
                Err(self.kind.into())
            }
            left => {
                self.next.store(left - 1, Ordering::SeqCst);
                Ok(())
            }
        }
    }
}

impl Disk for Failing {
    fn place(&self) -> String {
        self.memory.place()
    }
    fn prepare(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.may("prepare")?;
        self.memory.prepare(name, bytes)
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.may("open")?;
        Ok(Arc::new(FailingFile(self.memory.open(name)?, self.clone())))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.may("list")?;
        self.memory.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.may("rename")?;
        self.memory.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.may("remove")?;
        self.memory.remove(name)
    }
    fn sync_folder(&self) -> io::Result<()> {
        self.may("sync_folder")?;
        self.memory.sync_folder()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.may("free_bytes")?;
        self.memory.free_bytes()
    }
    fn total_bytes(&self) -> io::Result<u64> {
        self.may("total_bytes")?;
        self.memory.total_bytes()
    }
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.may("lock")?;
        self.memory.lock()
    }
}

impl DiskFile for FailingFile {
    fn size(&self) -> io::Result<u64> {
        self.1.may("size")?;
        self.0.size()
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.1.may("write")?;
        let Gate { at, .. } = &*self.1.gate;
        if *at.lock().unwrap() == At::Armed {
            let (half, rest) = bytes.split_at(bytes.len() / 2);
            self.0.write_at(offset, half)?;
            self.1.gate.set(At::Half);
            self.1.gate.until(At::Open);
            return self.0.write_at(offset + half.len() as u64, rest);
        }
        self.0.write_at(offset, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.may("sync")?;
        self.0.sync_data()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1.reads.load(Ordering::SeqCst) {
            return Err(io::Error::other("input/output error"));
        }
        self.1.may("read")?;
        self.0.read_at(offset, buffer)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.1.may("truncate")?;
        self.0.truncate(len)
    }
}

/// Rows run ahead of the file: whoever reads what is being written waits for it, and takes no half of it for damage.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_being_written_is_waited_for_and_is_no_damage() {
    let disk = Failing::new(&MemoryDisk::new(), io::ErrorKind::Other);
    let opened = JournalStore::open(Arc::new(disk.clone()), no_index(), small(), world(1).0);
    let store = Arc::new(opened.unwrap());
    store.accept(vec![event(1, "e1", "{}", &["ship"])]).await.unwrap();

    disk.gate.set(At::Armed);
    let accepting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.accept(vec![event(2, "e2", "{}", &["ship"])]).await }
    });
    tokio::task::block_in_place(|| disk.gate.until(At::Half));
    let readers: Vec<_> = (0..3)
        .map(|reader| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                match reader {
                    0 => {
                        store.list(Query::default(), None, ALL).await.map(|page| page.events.len())
                    }
                    1 => store.export(Query::default(), None, 1 << 20).await.map(|page| {
                        let is_event = |line: &&String| line.contains("\"eventId\":\"e");
                        page.lines.iter().filter(is_event).count()
                    }),
                    _ => store.find("e2", None).await.map(|found| found.len() + 1),
                }
            })
        })
        .collect();
    while store.shared.readers_waiting() < readers.len()
        && !readers.iter().any(tokio::task::JoinHandle::is_finished)
    {
        tokio::task::yield_now().await;
    }
    disk.gate.set(At::Open);
    for reader in readers {
        assert_eq!(reader.await.unwrap().unwrap(), 2);
    }
    accepting.await.unwrap().unwrap();
}

/// Through a start, some work and a compaction, and once more: one operation of the disk fails. What was acknowledged is
/// there afterwards, and a later start succeeds, also after a power cut.
#[test]
fn each_operation_of_the_disk_may_fail_once() {
    let before = {
        let mut rig = Rig::on(&MemoryDisk::new());
        rig.accept_number(100);
        rig.record(100, put_off(start() + 1000 * HOUR));
        for number in 1..=14 {
            rig.accept_number(number);
            rig.succeed(number);
        }
        // Killed: the last segment is copied at the start.
        rig.memory.after_kill()
    };
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut ended = false;
    for number in 0.. {
        let kind = match number % 2 {
            0 => io::ErrorKind::StorageFull,
            _ => io::ErrorKind::Other,
        };
        let memory = before.after_kill();
        let disk = Failing::new(&memory, kind);
        let mut rig = Rig::unopened(&memory);
        rig.disk = Arc::new(disk.clone());
        disk.arm(number);
        let opened = rig.try_open();
        let mut taken: Vec<u128> = Vec::new();
        match &opened {
            Ok(()) => {
                for number in 200..206 {
                    let body = "x".repeat(500);
                    let offered = event(number, &format!("e{number}"), &body, &["ship"]);
                    match accept(rig.store(), offered) {
                        Some(Ok(Acceptance::Accepted { .. })) => taken.push(number),
                        Some(Ok(other)) => panic!("{other:?}"),
                        Some(Err(_)) | None => {}
                    }
                }
                rig.pass(HOUR + Duration::from_secs(2));
                for _ in 0..20 {
                    rig.shared().end_old_segment();
                    if rig.shared().commit_once() == Turn::Ended {
                        break;
                    }
                    if let Err(StoreError::Dead(_)) = rig.shared().compact_once() {
                        break;
                    }
                    while rig.shared().prepare_once() {}
                    while rig.shared().seal_once() {}
                }
            }
            Err(OpenError::Io { .. }) => {}
            Err(other) => panic!("{number}: {other}"),
        }
        let what = *disk.failed.lock().unwrap();
        let Some(what) = what else {
            ended = true;
            assert!(opened.is_ok());
            break;
        };
        let known = kinds.entry(what).or_default();
        (known.0, known.1) = (known.0 + 1, known.1 + usize::from(opened.is_err()));
        let operations = memory.operations();
        drop(rig);
        for image in [
            memory.after_kill(),
            memory.cut_after(operations, Cut::Nothing),
            memory.cut_after(operations, Cut::Some(number as u64)),
        ] {
            let mut again = Rig::unopened(&image);
            again.try_open().unwrap_or_else(|error| panic!("{number}, {what}: {error}"));
            assert_eq!(again.state(100).status, Status::Queued, "{number}, {what}");
            for taken in &taken {
                assert!(again.view(*taken).is_some(), "{number}, {what}: {taken} is lost");
            }
            for known in [1, 14] {
                let answer = again.resend(known);
                assert_eq!(answer, Acceptance::Duplicate { uid: uid(known) }, "{number}, {what}");
            }
        }
    }
    assert!(ended && kinds.len() >= 11, "{kinds:?}");
}

#[test]
fn a_read_that_fails_is_told_and_nothing_dies_of_it() {
    let memory = MemoryDisk::new();
    let disk = Failing::new(&memory, io::ErrorKind::Other);
    let mut rig = Rig::through(&memory, Arc::new(disk.clone()), no_index());
    for number in 1..=20 {
        rig.accept_number(number);
        if number > 1 {
            rig.succeed(number);
        }
    }
    rig.pass(26 * HOUR);
    rig.roll();
    disk.reads.store(true, Ordering::SeqCst);
    let view = drive(rig.store(), rig.store().event(uid(3)));
    assert!(matches!(view, Err(StoreError::Corrupt(why)) if why.contains("input/output")));
    assert!(matches!(rig.shared().compact_once(), Err(StoreError::Corrupt(_))));
    let resent = accept(rig.store(), event(900, "e3", "{}", &["ship"])).unwrap();
    assert!(matches!(resent, Err(StoreError::Corrupt(_))));
    // What needs no reading goes on.
    rig.accept_number(100);
    disk.reads.store(false, Ordering::SeqCst);
    assert_eq!(rig.state(3).status, Status::Succeeded);
    assert_eq!(rig.resend(3), Acceptance::Duplicate { uid: uid(3) });
    assert!(rig.compact_all() > 0);
    assert_eq!(rig.state(1).status, Status::Processing);
    disk.reads.store(true, Ordering::SeqCst);
    assert!(matches!(rig.try_open(), Err(OpenError::Io { .. })));
}

/// Bits flip anywhere. The start refuses, or cuts the very last batch, or says so when what is damaged is asked for; a wrong
/// event is never shown.
#[test]
fn a_flipped_bit_never_shows_a_wrong_event() {
    let index = Arc::new(MemoryIndex::default());
    let mut rig = Rig::new(&MemoryDisk::new(), index.clone());
    for number in 1..=30 {
        rig.accept_number(number);
        rig.succeed(number);
    }
    let views: Vec<String> = (1..=30).map(|it| format!("{:?}", rig.view(it).unwrap())).collect();
    let (mut refused, mut told, mut cut) = (0, 0, 0);
    let segments = rig.segments();
    for seed in 0..150 {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = rig.memory.after_kill();
        let name = segment::name(segments[random.random_range(0..segments.len() - 2)]);
        let used = used_bytes(&disk, &name).max(1);
        disk.damage(&name, random.random_range(0..used), 1 << random.random_range(0..8));
        let mut again = Rig::unopened(&disk);
        if seed % 2 == 0 {
            again.index = copied(&index);
        }
        match again.try_open() {
            Err(OpenError::Corrupt { segment, .. }) => {
                assert!(segments.contains(&segment));
                refused += 1;
            }
            Err(other) => panic!("{seed}: {other}"),
            Ok(()) => {
                for number in 1..=30u128 {
                    let view = drive(again.store(), again.store().event(uid(number)));
                    match view {
                        Ok(Some(view)) => {
                            let view = format!("{view:?}");
                            // Of the last ones, the last batch was cut.
                            if view != views[number as usize - 1] {
                                assert!(number == 30, "seed {seed}: {number} {view}");
                                cut += 1;
                            }
                        }
                        Ok(None) => assert_eq!(number, 30, "seed {seed}"),
                        Err(StoreError::Corrupt(_)) => told += 1,
                        Err(other) => panic!("{seed}: {other}"),
                    }
                }
            }
        }
    }
    assert!(refused > 50 && told > 20, "{refused} {told} {cut}");
}

#[test]
fn files_that_are_missing_foreign_or_empty() {
    let mut rig = Rig::on(&MemoryDisk::new());
    rig.keep(kept(HOUR, 2 * HOUR, HOUR));
    rig.accept_number(100);
    rig.record(100, put_off(start() + 1000 * HOUR));
    for number in 1..=30 {
        rig.accept_number(number);
        rig.succeed(number);
    }
    let image = rig.memory.after_kill();
    let segments = rig.segments();
    // The last one with anything in it, and then the spares.
    let last = segments[segments.len() - 3];
    let without = |gone: u64| {
        let disk = image.after_kill();
        disk.remove(&segment::name(gone)).unwrap();
        Rig::unopened(&disk).try_open()
    };
    for gone in [1, 2, last - 1] {
        let missing = without(gone);
        assert!(matches!(missing, Err(OpenError::Missing { segment, .. }) if segment == gone));
    }
    // That there was more, nobody says.
    without(last).unwrap();
    // Those that were retired may be missing, or still be there.
    let first = image.open(&segment::name(1)).unwrap();
    let mut bytes = vec![0; first.size().unwrap() as usize];
    first.read_at(0, &mut bytes).unwrap();
    rig.pass(HOUR + Duration::from_secs(2));
    assert!(rig.compact_all() > 1);
    let mut again = rig.after_kill(no_index());
    assert_eq!(again.state(100).status, Status::Queued);
    let disk = rig.memory.after_kill();
    disk.prepare(&segment::name(1), 0).unwrap();
    disk.open(&segment::name(1)).unwrap().write_at(0, &bytes).unwrap();
    for index in [no_index(), no_index()] {
        let mut stale = Rig::unopened(&disk.after_kill());
        stale.index = index;
        stale.try_open().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(stale.state(100).status, Status::Queued);
        assert_eq!(stale.events(), again.events());
        assert!(!stale.segments().contains(&1));
        assert_eq!(stale.resend(3), Acceptance::Duplicate { uid: uid(3) });
    }
    assert!(again.is_due(100) || again.state(100).due_at.is_some());
    // Foreign names are left alone, an empty file is no segment.
    let disk = image.after_kill();
    for name in ["journal/notes.txt", "journal/segment", "readme", "journal/1.segment.bak"] {
        disk.prepare(name, 10).unwrap();
    }
    let empty = last + 9;
    disk.prepare(&segment::name(empty), 0).unwrap();
    let mut rig = Rig::unopened(&disk);
    rig.open();
    assert_eq!(rig.events(), 31);
    assert!(disk.list().unwrap().contains(&"journal/notes.txt".into()));
    assert!(!rig.segments().contains(&empty));
    // A key that is too short, too long or empty.
    for length in [0, 5, 33] {
        let disk = image.after_kill();
        let key = disk.open("key").unwrap();
        match length {
            33 => key.write_at(32, b"x").unwrap(),
            length => key.truncate(length).unwrap(),
        }
        assert!(matches!(Rig::unopened(&disk).try_open(), Err(OpenError::NoKey { .. })));
    }
}

/// New events are refused first, outcomes are still recorded, and it comes back by itself.
#[test]
fn a_disk_that_is_full_from_any_point_on() {
    for room in 0..12u64 {
        let memory = MemoryDisk::new();
        memory.set_quota((9 << 10) + room * (3 << 10));
        let mut rig = Rig::unopened(&memory);
        rig.disk = Arc::new(Roomy(memory.clone()));
        if let Err(error) = rig.try_open() {
            assert!(matches!(error, OpenError::Io { .. }), "{error}");
            continue;
        }
        let mut taken = Vec::new();
        for number in 1..60 {
            let offered = event(number, &format!("e{number}"), &"x".repeat(500), &["ship"]);
            match accept(rig.store(), offered) {
                Some(Ok(_)) => taken.push(number),
                Some(Err(StoreError::Refusing(why))) => {
                    assert!(why.contains("full") || why.contains("cannot be prepared"), "{why}");
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(taken.len() < 59);
        let ready = drive(rig.store(), rig.store().summary()).ready;
        assert!(matches!(ready, Readiness::Refusing(_)), "{room}: {ready:?}");
        for number in taken.iter().take(3) {
            rig.succeed(*number);
        }
        // A kill and a start, still without room: it refuses to start, or comes to the same.
        let full = memory.after_kill();
        full.set_quota((9 << 10) + room * (3 << 10));
        let mut again = Rig::unopened(&full);
        again.disk = Arc::new(Roomy(full.clone()));
        match again.try_open() {
            Ok(()) => assert_eq!(again.events() as usize, taken.len()),
            Err(OpenError::Io { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        full.set_quota(1 << 30);
        again.open();
        assert_eq!(again.events() as usize, taken.len());
        memory.set_quota(1 << 30);
        while rig.shared().prepare_once() {}
        rig.accept_number(1000);
        assert_eq!(drive(rig.store(), rig.store().summary()).ready, Readiness::Ready);
    }
}

/// The removal of a retired segment was lost, and that of a later one was not.
#[test]
fn a_retired_segment_that_came_back_says_nothing() {
    let mut rig = Rig::on(&MemoryDisk::new());
    rig.accept_number(100);
    let put_off = || put_off(start() + 1000 * HOUR);
    rig.record(100, put_off());
    rig.roll();
    let read = |rig: &Rig, number: u64| {
        let file = rig.memory.open(&segment::name(number)).unwrap();
        let mut bytes = vec![0; file.size().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    };
    let first = read(&rig, 1);
    for round in 0..6 {
        rig.pass(26 * HOUR);
        // Its place goes, and what happened to it since then stays.
        while !matches!(rig.shared().compact_once(), Ok(Compacted::Retired)) {
            while rig.shared().prepare_once() {}
        }
        work(rig.store());
        assert!(!rig.segments().contains(&1));
        let came_back = |rig: &Rig| {
            let disk = rig.memory.after_kill();
            disk.prepare(&segment::name(1), 0).unwrap();
            disk.open(&segment::name(1)).unwrap().write_at(0, &first).unwrap();
            let mut again = Rig::unopened(&disk);
            again.try_open().unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!(format!("{:?}", again.state(100)), format!("{:?}", rig.state(100)));
            assert_eq!(again.events(), rig.events());
            assert!(!again.segments().contains(&1));
            disk
        };
        came_back(&rig);
        // It goes on, in a segment that is not the one in which it stands.
        rig.roll();
        for _ in 0..2 {
            let mut operation = replay(&rig.state(100));
            operation.change.transition.due_at = Some(start() + 1000 * HOUR);
            drive(rig.store(), rig.store().operate(operation)).unwrap();
        }
        rig.accept_number(200 + round);
        rig.roll();
        let disk = came_back(&rig);
        // Without what retires it, it is missed.
        let gone = rig.segments()[1];
        disk.remove(&segment::name(gone)).ok();
        let missing = Rig::unopened(&disk.after_kill()).try_open();
        assert!(matches!(missing, Err(OpenError::Missing { .. })), "{gone}: {missing:?}");
    }
}
