//! The index under damage, panics, silence and missing places. All files are real.

use std::sync::mpsc::{Sender, channel};

use super::super::index::contract;
use super::*;

fn group_of(segment: u64) -> Group {
    Group { kind: PageKind::Summaries, segment, generation: 0 }
}

fn id(segment: u64, sequence: u32) -> PageId {
    PageId { group: group_of(segment), sequence }
}

/// A page that differs from others in content and length.
fn page(segment: u64, sequence: u32) -> Bytes {
    let length = 3_000 + 517 * sequence as usize % 13_000;
    (0..length).map(|at| (at as u64 * 31 + segment * 7 + u64::from(sequence)) as u8).collect()
}

fn put(index: &SledIndex, segment: u64, count: u32) {
    let pages: Vec<Bytes> = (0..count).map(|sequence| page(segment, sequence)).collect();
    index.put(group_of(segment), &pages).unwrap();
}

fn open(folder: &Path) -> SledIndex {
    SledIndex::open(folder, SledLimits::default())
}

/// It closes without waiting: for what never closes.
fn open_impatient(folder: &Path) -> SledIndex {
    SledIndex::open(
        folder,
        SledLimits { close: Duration::from_millis(20), ..SledLimits::default() },
    )
}

fn damaged(folder: &Path) -> PathBuf {
    folder.with_extension("damaged")
}

fn assert_healthy(index: &SledIndex) {
    put(index, 77, 3);
    assert_eq!(index.get(id(77, 2)).unwrap().unwrap(), page(77, 2));
    assert!(index.groups().unwrap().contains(&group_of(77)));
}

fn assert_broken(index: &SledIndex, reason: &str) {
    let all = [
        index.put(group_of(1), &[page(1, 0)]).err(),
        index.get(id(1, 0)).err(),
        index.groups().err(),
        index.remove(group_of(1)).err(),
    ];
    for error in all {
        let error = error.expect("a broken index fails each call").to_string();
        assert!(error.contains(reason), "{error:?} is not about {reason:?}");
    }
}

/// Keeps the thread busy until the sender is dropped, and returns when the thread has begun.
fn hang(index: &SledIndex) -> Sender<()> {
    let (release, released) = channel::<()>();
    let (begun, beginning) = channel();
    let job: Job = Box::new(move |_| {
        begun.send(()).unwrap();
        released.recv().unwrap_err();
    });
    assert!(index.worker().jobs.try_send(job).is_ok());
    beginning.recv().unwrap();
    release
}

#[test]
fn it_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    contract(&open(&root.path().join("sled")));
}

#[test]
fn pages_survive_a_close() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sled");
    let index = open(&folder);
    put(&index, 1, 130);
    put(&index, 2, 1);
    index.remove(group_of(2)).unwrap();
    drop(index);
    let index = open(&folder);
    assert_eq!(index.groups().unwrap(), [group_of(1)]);
    for sequence in 0..130 {
        assert_eq!(index.get(id(1, sequence)).unwrap().unwrap(), page(1, sequence));
    }
    assert_eq!(index.get(id(1, 130)).unwrap(), None);
    assert!(!damaged(&folder).exists());
}

#[test]
fn a_page_has_any_length_up_to_the_most() {
    let root = tempfile::tempdir().unwrap();
    let index = open(&root.path().join("sled"));
    let lengths =
        [0, 1, ROW_BYTES - 1, ROW_BYTES, ROW_BYTES + 1, PAGE_BYTES_MAX - 1, PAGE_BYTES_MAX];
    // The second time in the other order, over longer and shorter ones.
    for lengths in [lengths.to_vec(), lengths.iter().rev().copied().collect()] {
        let pages: Vec<Bytes> =
            lengths.iter().map(|length| Bytes::from(vec![9; *length])).collect();
        index.put(group_of(1), &pages).unwrap();
        for (sequence, page) in (0..).zip(&pages) {
            assert_eq!(index.get(id(1, sequence)).unwrap().as_ref(), Some(page));
        }
    }
    let large = Bytes::from(vec![9; PAGE_BYTES_MAX + 1]);
    let error = index.put(group_of(1), &[large]).unwrap_err();
    assert!(error.to_string().contains("16385"), "{error}");
    assert_eq!(index.get(id(1, 0)).unwrap().unwrap().len(), PAGE_BYTES_MAX);
    index.put(group_of(1), &[]).unwrap();
    assert_eq!(index.groups().unwrap(), []);
}

#[test]
fn half_of_a_group_is_none_and_goes_at_the_next_opening() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sled");
    let index = open(&folder);
    for segment in 1..=4 {
        put(&index, segment, 100);
    }
    let rows = |index: &SledIndex, segment| {
        let range = row_key(id(segment, 0), 0)..behind(&group_bytes(group_of(segment)));
        let limit = Duration::from_secs(30);
        index.worker().run("counting", limit, move |db| Ok(db.range(range).count())).unwrap()
    };
    // As a crash in the middle of a put leaves it, and as damage does.
    index.worker().enter(group_of(2), 0).unwrap();
    index
        .worker()
        .run("testing", Duration::from_secs(30), |db| db.remove(entry_key(group_of(3))))
        .unwrap();
    assert_eq!(index.groups().unwrap(), [group_of(1), group_of(4)]);
    assert_eq!(index.get(id(2, 0)).unwrap(), None);
    assert!(rows(&index, 2) > 0 && rows(&index, 3) > 0);
    drop(index);
    let index = open(&folder);
    assert_eq!(index.groups().unwrap(), [group_of(1), group_of(4)]);
    assert_eq!([rows(&index, 2), rows(&index, 3)], [0, 0]);
    assert_eq!(index.get(id(4, 99)).unwrap().unwrap(), page(4, 99));
}

#[test]
fn what_a_later_version_has_put_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sled");
    let index = open(&folder);
    put(&index, 1, 2);
    let (mut entry, mut row) = (entry_key(group_of(2)), row_key(id(2, 0), 0));
    (entry[1], row[1]) = (200, 200);
    let later = row.clone();
    let write = move |db: &Db| {
        db.insert(entry, &1_u32.to_le_bytes())?;
        db.insert(row, "later")
    };
    index.worker().run("testing", Duration::from_secs(30), write).unwrap();
    drop(index);
    let index = open(&folder);
    assert_eq!(index.groups().unwrap(), [group_of(1)]);
    let found =
        index.worker().run("testing", Duration::from_secs(30), move |db| db.contains_key(later));
    assert!(found.unwrap());
}

#[test]
fn a_panic_breaks_it_until_a_reset() {
    let root = tempfile::tempdir().unwrap();
    let index = open(&root.path().join("sled"));
    put(&index, 1, 2);
    let panicking = |_: &Db| -> ::sled::Result<()> { panic!("page 7 is on fire") };
    let error = index.worker().run("testing", Duration::from_secs(30), panicking).unwrap_err();
    assert_eq!(error.to_string(), "the index fails: testing: sled panicked: page 7 is on fire");
    assert_broken(&index, "page 7 is on fire");
    index.reset().unwrap();
    assert_eq!(index.groups().unwrap(), []);
    assert_healthy(&index);
}

#[test]
fn an_error_breaks_it_until_a_reset() {
    let root = tempfile::tempdir().unwrap();
    let index = open(&root.path().join("sled"));
    let failing = |_: &Db| -> ::sled::Result<()> { Err(io::Error::other("no room").into()) };
    index.worker().run("testing", Duration::from_secs(30), failing).unwrap_err();
    assert_broken(&index, "no room");
    index.reset().unwrap();
    assert_healthy(&index);
}

#[test]
fn silence_breaks_it_until_a_reset() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sled");
    let index = open_impatient(&folder);
    put(&index, 1, 2);
    let release = hang(&index);
    let old = index.worker();
    let error = old.run("testing", Duration::from_millis(20), |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("testing: no answer within 20ms"), "{error}");
    assert_broken(&index, "no answer");
    index.reset().unwrap();
    assert_healthy(&index);
    // What wakes up after all closes itself, and does nothing to the new one.
    drop(release);
    assert_eq!(locked(&old.ended).recv(), Err(mpsc::RecvError));
    assert_healthy(&index);
    // It was told to close without waiting: here the next one waits for it.
    let current = index.worker();
    drop(index);
    assert_eq!(locked(&current.ended).recv(), Err(mpsc::RecvError));
    let index = open(&folder);
    assert_eq!(index.groups().unwrap(), [group_of(77)]);
}

#[test]
fn whoever_waits_is_told_too() {
    let root = tempfile::tempdir().unwrap();
    let index = open_impatient(&root.path().join("sled"));
    let release = hang(&index);
    let worker = index.worker();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| worker.run("waiting", Duration::from_millis(50), |_| Ok(()))))
            .collect();
        for waiter in waiting {
            assert!(waiter.join().unwrap().is_err());
        }
    });
    // No further job is begun by then, and those that queue do not wait for their limit.
    drop(release);
    assert_eq!(locked(&worker.ended).recv(), Err(mpsc::RecvError));
    assert_broken(&index, "waiting: no answer");
}

#[test]
fn a_full_queue_is_not_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let index = open_impatient(&root.path().join("sled"));
    let _release = hang(&index);
    let worker = index.worker();
    while worker.jobs.try_send(Box::new(|_| ())).is_ok() {}
    assert_broken(&index, "too many calls");
}

#[test]
fn a_hanging_one_is_dropped_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let index = open_impatient(&root.path().join("sled"));
    let _release = hang(&index);
    drop(index);
}

#[test]
fn an_opening_that_hangs_is_left_behind() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sled");
    fs::create_dir(&folder).unwrap();
    // Nobody ever writes into it, so that reading the configuration waits for ever.
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, folder.join("conf"), rustix::fs::FileType::Fifo, mode, 0)
        .unwrap();
    let index = SledIndex::open(
        &folder,
        SledLimits { open: Duration::from_secs(2), ..SledLimits::default() },
    );
    assert_healthy(&index);
    assert!(damaged(&folder).join("conf").exists());
}

#[test]
fn at_most_one_folder_is_moved_aside() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sled");
    let index = open(&folder);
    for round in 0..3 {
        fs::write(folder.join(format!("round-{round}")), "").unwrap();
        index.reset().unwrap();
    }
    drop(index);
    fs::remove_file(folder.join("db")).unwrap();
    fs::create_dir(folder.join("db")).unwrap();
    fs::write(folder.join("last"), "").unwrap();
    assert_healthy(&open(&folder));
    let mut names: Vec<_> =
        fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["sled", "sled.damaged"]);
    assert!(damaged(&folder).join("last").exists());
    assert!(!damaged(&folder).join("round-2").exists());
}

#[test]
fn without_a_place_each_call_fails_until_there_is_one() {
    let root = tempfile::tempdir().unwrap();
    let parent = root.path().join("file");
    fs::write(&parent, "").unwrap();
    let index = open(&parent.join("sled"));
    assert_broken(&index, "file/sled");
    index.reset().unwrap_err();
    assert_broken(&index, "file/sled");
    fs::remove_file(&parent).unwrap();
    fs::create_dir(&parent).unwrap();
    index.reset().unwrap();
    assert_healthy(&index);
}

/// Damages a folder of some pages, and reads it: nothing may panic or hang here, and a reset always helps.
fn check_damage(what: &str, damage: impl FnOnce(&Path)) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sled");
    // Two openings, so that there is a snapshot, and something after it.
    for segment in [1, 2] {
        put(&open(&folder), segment, 40);
    }
    damage(&folder);
    let index = open(&folder);
    let groups = index.groups();
    for segment in [1, 2] {
        for sequence in 0..40 {
            // It may be wrong, missing or an error, and is never longer than a page.
            if let Ok(Some(page)) = index.get(id(segment, sequence)) {
                assert!(page.len() <= PAGE_BYTES_MAX, "{what}");
            }
        }
    }
    // It may have broken only now, and then says so.
    let pages: Vec<Bytes> = (0..10).map(|sequence| page(9, sequence)).collect();
    if index.put(group_of(9), &pages).is_ok() {
        assert!(groups.is_ok(), "{what}");
    }
    index.reset().unwrap();
    assert_eq!(index.groups().unwrap(), [], "{what}");
    assert_healthy(&index);
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Sled writes it when it finds the time: on a busy machine it may not be there yet, and then the database is damaged instead.
fn snapshot(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found = files.find(|path| path.to_string_lossy().contains("snap."));
    found.unwrap_or_else(|| folder.join("db"))
}

#[test]
fn cut_files() {
    for cut in [1, 2, 3, 7, 64, 511, 4_096, 70_000] {
        check_damage(&format!("db cut by {cut}"), |folder| {
            edit(&folder.join("db"), |bytes| bytes.truncate(bytes.len() - cut));
        });
    }
    for cut in [1, 4, 12, 20] {
        check_damage(&format!("snapshot cut by {cut}"), |folder| {
            edit(&snapshot(folder), |bytes| bytes.truncate(bytes.len().saturating_sub(cut)));
        });
        check_damage(&format!("conf cut by {cut}"), |folder| {
            edit(&folder.join("conf"), |bytes| bytes.truncate(bytes.len().saturating_sub(cut)));
        });
    }
}

#[test]
fn flipped_bytes() {
    for part in 0..8 {
        check_damage(&format!("db flipped at {part}/8"), |folder| {
            edit(&folder.join("db"), |bytes| {
                let at = bytes.len() * part / 8 + 5;
                bytes[at] ^= 0x20;
            });
        });
    }
    for name in ["conf", "snapshot"] {
        check_damage(&format!("{name} flipped"), |folder| {
            let path = if name == "conf" { folder.join(name) } else { snapshot(folder) };
            edit(&path, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            });
        });
    }
    check_damage("half of db is zeros", |folder| {
        edit(&folder.join("db"), |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle..].fill(0);
        });
    });
}

#[test]
fn empty_and_missing_files() {
    for name in ["db", "conf", "snapshot"] {
        let path =
            |folder: &Path| if name == "snapshot" { snapshot(folder) } else { folder.join(name) };
        check_damage(&format!("{name} empty"), |folder| edit(&path(folder), Vec::clear));
        check_damage(&format!("{name} missing"), |folder| fs::remove_file(path(folder)).unwrap());
        check_damage(&format!("{name} is a folder"), |folder| {
            let path = path(folder);
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        });
    }
    check_damage("no blobs folder", |folder| fs::remove_dir_all(folder.join("blobs")).unwrap());
    check_damage("a file instead of a folder", |folder| {
        fs::remove_dir_all(folder).unwrap();
        fs::write(folder, "not a folder").unwrap();
    });
}

#[test]
fn a_folder_of_garbage() {
    let garbage: Vec<u8> =
        (0..2_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for names in
        [&["db"][..], &["conf"], &["db", "conf", "snap.0000000000000001", "blobs/17", "blobs/what"]]
    {
        check_damage(&format!("garbage in {names:?}"), |folder| {
            for name in names {
                fs::write(folder.join(name), &garbage).unwrap();
            }
        });
    }
}
