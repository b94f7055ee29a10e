//! A start that goes on from a checkpoint comes to the same as one that reads all, or reads all.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cuts::copied;
use super::rig::*;
use super::*;
use crate::store::fixtures::waits_for;
use crate::store::index::{Group, MemoryIndex, PageKind};

/// All that a store can be asked. It claims what is due.
fn whole(store: &JournalStore) -> String {
    let mut text = String::new();
    let now = |answer| drive(store, answer);
    let rows = now(store.list(Query::default(), None, ALL)).unwrap().events;
    for row in &rows {
        let view = drive(store, store.event(row.uid)).unwrap().unwrap();
        writeln!(text, "{row:?}\n{view:?}").unwrap();
        let found = drive(store, store.find(row.event_id.as_str(), None)).unwrap();
        writeln!(text, "{found:?}").unwrap();
    }
    let oldest_first = Query { oldest_first: true, ..Query::default() };
    let mut others = now(store.list(oldest_first, None, ALL)).unwrap().events;
    others.reverse();
    assert_eq!(format!("{others:?}"), format!("{rows:?}"));
    let mut summary = drive(store, store.summary());
    summary.pages_rebuilt = 0;
    writeln!(text, "{summary:?} {:?}", drive(store, store.causes())).unwrap();
    let asks = delivery(99_999_999, "ship");
    for key in 0..5 {
        let wants = intended(Some(&format!("key-{key}")));
        let facts = store.shared.facts();
        let holder = store.shared.peek(|state| state.key_holder(&asks, &wants, facts)).unwrap();
        writeln!(text, "{key} {holder:?}").unwrap();
    }
    let claims = store.shared.claim(10_000).unwrap();
    let mut due: Vec<String> = claims.iter().map(|it| format!("{:?}", it.state)).collect();
    due.sort();
    writeln!(text, "{due:#?}").unwrap();
    text
}

/// Through a start with this index, and one without.
fn compare(disk: &MemoryDisk, index: &MemoryIndex, context: &str) {
    let open = |index: Arc<MemoryIndex>| {
        let disk = Arc::new(disk.after_kill());
        let store = JournalStore::open_unstarted(disk, index, small(), world(1).0);
        store.unwrap_or_else(|error| panic!("{context}: {error}"))
    };
    let (resumed, full) = (open(copied(index)), open(no_index()));
    let (resumed, full) = (whole(&resumed), whole(&full));
    if resumed != full {
        let line = resumed.lines().zip(full.lines()).find(|(one, other)| one != other);
        panic!("{context}: {line:#?}");
    }
}

#[test]
fn a_start_from_a_checkpoint_comes_to_what_a_full_reading_comes_to() {
    let mut resumed = 0;
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut disk = MemoryDisk::new();
        let index = Arc::new(MemoryIndex::default());
        let mut older: Vec<Arc<MemoryIndex>> = Vec::new();
        let (mut next, mut now) = (0, start());
        for round in 0..6 {
            let mut run = Run::start_with(&disk, index.clone(), now, Told::default()).keep_short();
            for _ in 0..25 {
                run.act(&mut random, &mut next);
                // Half of the runs never let anything expire.
                if seed % 2 == 0 && random.random_bool(0.3) {
                    run.grow_older(&mut random);
                }
            }
            run.commit();
            now = run.clock.now();
            let context = format!("seed {seed}, round {round}");
            disk = match random.random_range(0..3) {
                0 => {
                    close(&run.store);
                    disk.after_kill()
                }
                1 => disk.after_kill(),
                _ => disk.cut_after(disk.operations(), Cut::Some(seed)),
            };
            drop(run);
            compare(&disk, &index, &context);
            // Any earlier index is as good, or of no use.
            for (number, older) in older.iter().enumerate().rev().step_by(2) {
                compare(&disk, older, &format!("{context}, with index {number}"));
            }
            older.push(copied(&index));
            resumed += index.groups().unwrap().len();
        }
    }
    assert!(resumed > 0);
}

/// Counts the bytes that are read.
struct Counted(MemoryDisk, Arc<AtomicU64>);

struct CountedFile(Arc<dyn DiskFile>, Arc<AtomicU64>);

impl Disk for Counted {
    fn place(&self) -> String {
        self.0.place()
    }
    fn prepare(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.0.prepare(name, bytes)
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(CountedFile(self.0.open(name)?, self.1.clone())))
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
        self.0.total_bytes()
    }
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.0.lock()
    }
}

impl DiskFile for CountedFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read_at(offset, buffer)?;
        self.1.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}

/// What a start with this index reads of the journal.
fn bytes_read(disk: &MemoryDisk, index: &MemoryIndex) -> u64 {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Counted(disk.after_kill(), count.clone());
    let index = copied(index);
    let store = JournalStore::open_unstarted(Arc::new(counted), index, small(), world(1).0);
    drop(store.unwrap());
    count.load(Ordering::Relaxed)
}

/// Finished events in twenty segments, and one that waits.
fn long(index: &Arc<MemoryIndex>) -> Rig {
    let mut rig = Rig::new(&MemoryDisk::new(), index.clone());
    for number in 1..=150 {
        rig.accept_number(number);
        rig.succeed(number);
    }
    rig.accept_number(200);
    rig.record(200, put_off(start() + HOUR));
    assert!(rig.segments().len() > 15, "{}", rig.segments().len());
    rig
}

#[test]
fn a_resumed_start_reads_what_came_after_its_checkpoint() {
    let index = Arc::new(MemoryIndex::default());
    let mut rig = long(&index);
    let all = bytes_read(&rig.memory, &no_index());
    let after_kill = bytes_read(&rig.memory, &index);
    // At most one full segment, the active one twice, for it is copied, both spares; the batch at the mark, and 4 KiB for
    // each of the two facts of the one that waits.
    let after_mark = 5 * small().segment_bytes + small().commit_bytes_max as u64 + 2 * 4096;
    assert!(after_kill < after_mark && after_kill < all / 2, "{after_kill} of {all}");
    rig.close();
    let after_close = bytes_read(&rig.memory, &index);
    assert!(after_close < 4 * small().segment_bytes, "{after_close} of {all}");
}

#[test]
fn a_checkpoint_that_is_not_whole_or_not_of_this_journal_is_none() {
    let index = Arc::new(MemoryIndex::default());
    let mut rig = long(&index);
    rig.close();
    let all = bytes_read(&rig.memory, &no_index());
    // Without one of its groups: all is read, or what is not needed for the state is derived when it is asked for.
    let groups = index.groups().unwrap();
    for group in groups.iter().filter(|group| group.segment < 3 || group.segment > 20) {
        let part = copied(&index);
        part.remove(*group).unwrap();
        let needed =
            matches!(group.kind, PageKind::Checkpoint | PageKind::Rows | PageKind::Identities);
        let read = bytes_read(&rig.memory, &part);
        assert_eq!(read > all / 2, needed, "{group:?}: {read} of {all}");
        if group.segment < 3 {
            compare(&rig.memory, &part, &format!("without {group:?}"));
        }
    }
    // With half of the pages of a group, and with those of another.
    for group in groups.iter().filter(|group| group.segment < 2) {
        for other in [Vec::new(), vec![bytes::Bytes::from_static(b"none")]] {
            let part = copied(&index);
            part.put(*group, &other).unwrap();
            compare(&rig.memory, &part, &format!("with others in {group:?}"));
        }
    }
    // Another journal of the very same events, with another key.
    let other = Arc::new(MemoryIndex::default());
    let mut another = Rig::unopened(&MemoryDisk::new());
    another.index = other.clone();
    another.skip_starts(7);
    another.open();
    for number in 1..=30 {
        another.accept_number(number);
        another.succeed(number);
    }
    another.close();
    compare(&rig.memory, &other, "with another journal's index");
    // A manifest that names a segment which is not there (any more).
    let part = copied(&index);
    let disk = rig.memory.after_kill();
    disk.remove(&segment::name(2)).unwrap();
    let missing = JournalStore::open_unstarted(Arc::new(disk), part, small(), world(1).0);
    assert!(matches!(missing.map(drop), Err(OpenError::Missing { segment: 2, .. })));
}

/// The journal is put back from a copy, and goes on differently; the index is that of the first history.
#[test]
fn the_index_of_another_history_is_not_believed() {
    for (same_length, more) in [(false, 3), (true, 1), (true, 3), (true, 12)] {
        let index = Arc::new(MemoryIndex::default());
        let mut first = Rig::new(&MemoryDisk::new(), index.clone());
        for number in 1..=10 {
            first.accept_number(number);
        }
        first.close();
        let copy = first.memory.after_kill();
        let go_on = |memory: &MemoryDisk, index: Arc<MemoryIndex>, numbers: u128| {
            let mut rig = Rig::unopened(memory);
            rig.index = index;
            rig.open();
            for number in 0..more {
                let length = if same_length { 300 } else { 300 + numbers as usize % 100 };
                let number = numbers + number;
                let offered = event(number, &format!("e{number}"), &"x".repeat(length), &["ship"]);
                assert!(matches!(rig.accept(offered), Acceptance::Accepted { .. }));
                // What is unfinished would be looked at anyway.
                rig.succeed(number);
            }
            rig.close();
            rig.memory.clone()
        };
        go_on(&first.memory, index.clone(), 1010);
        let other = go_on(&copy, no_index(), 2020);
        compare(&other, &index, &format!("same length: {same_length}, {more} more"));
    }
}

#[test]
fn whoever_waits_for_a_key_is_woken_after_a_resumed_start() {
    let index = Arc::new(MemoryIndex::default());
    let mut rig = Rig::new(&MemoryDisk::new(), index.clone());
    for number in 1..=3 {
        rig.accept_number(number);
    }
    rig.record(1, intended(Some("key-1")));
    for number in [2, 3] {
        rig.record(number, waits_for("ship", "key-1"));
    }
    // In review the holder still holds.
    rig.record(1, attempted(Some("key-1"), StepStatus::Unknown));
    for closes in [true, false] {
        rig.roll();
        if closes {
            rig.close();
        }
        rig.open();
        assert!(!rig.is_due(2) && !rig.is_due(3));
        compare(&rig.memory, &index, "with waiters");
    }
    rig.operate(1);
    rig.record(1, intended(Some("key-1")));
    rig.record(1, attempted(Some("key-1"), StepStatus::Succeeded));
    compare(&rig.memory, &index, "with a holder that is done");
    assert!(rig.is_due(2));
    rig.close();
    rig.open();
    assert!(rig.is_due(2));
    let Recorded::KeyHeld(holder) = rig.try_record(3, intended(Some("key-1"))) else {
        panic!("it is held for good")
    };
    assert_eq!(holder.saved["label"], "L1");
}

#[test]
fn after_a_segment_went_a_start_still_goes_on_from_a_checkpoint() {
    let index = Arc::new(MemoryIndex::default());
    let mut rig = long(&index);
    rig.pass(HOUR / 2);
    rig.keep(kept(HOUR / 4, Duration::ZERO, Duration::ZERO));
    assert!(matches!(
        rig.shared().compact_once(),
        Ok(crate::store::journal::commit::compact::Compacted::Retired)
    ));
    compare(&rig.memory, &index, "after a segment went");
    let (read, all) = (bytes_read(&rig.memory, &index), bytes_read(&rig.memory, &no_index()));
    assert!(read < all / 3, "{read} of {all}");
}

/// One checkpoint is in the index, and the pages of segments that are.
#[test]
fn nothing_is_left_in_the_index_that_is_of_no_use() {
    let index = Arc::new(MemoryIndex::default());
    let mut rig = long(&index);
    rig.close();
    rig.open();
    let there = rig.segments();
    let groups = index.groups().unwrap();
    let checkpoints: Vec<&Group> =
        groups.iter().filter(|group| group.kind == PageKind::Checkpoint).collect();
    assert_eq!(checkpoints.len(), 1);
    assert!(groups.iter().all(|group| group.segment == 0 || there.contains(&group.segment)));
    let rows = groups.iter().filter(|group| group.kind == PageKind::Rows);
    let mut of_segments: Vec<u64> = rows.map(|group| group.segment).collect();
    let count = of_segments.len();
    of_segments.dedup();
    assert_eq!(of_segments.len(), count, "each once");
}
