//! What a backup takes of a store that runs.

use super::*;
use crate::store::files::StoreFile;
use crate::store::journal::files::{at_rest, place_of};

fn listed(store: &JournalStore) -> Vec<StoreFile> {
    store.files().now_or_never().unwrap().unwrap().files
}

/// The disk that a restore makes of these files, which are read piece by piece while the store goes on.
fn restored(store: &JournalStore, files: &[StoreFile]) -> MemoryDisk {
    let copy = MemoryDisk::new();
    for file in files {
        let place = place_of(&file.name).unwrap();
        copy.prepare(&place, 0).unwrap();
        let target = copy.open(&place).unwrap();
        let mut offset = 0;
        while offset < file.bytes {
            let wanted = 3000.min(file.bytes - offset);
            let piece = store.read_file(&file.name, offset, wanted);
            let piece = piece.now_or_never().unwrap().unwrap().expect("it is there");
            assert!(!piece.is_empty());
            target.write_at(offset, &piece).unwrap();
            offset += piece.len() as u64;
        }
    }
    copy
}

#[test]
fn the_files_of_any_moment_make_the_store_of_that_moment() {
    let disk = MemoryDisk::new();
    let store = driven(&disk, small()).unwrap();
    let mut moments = Vec::new();
    for number in 1..=60 {
        let offered = event(number, &format!("e{number}"), &"x".repeat(700), &["ship"]);
        assert!(matches!(accept(&store, offered), Some(Ok(_))));
        if number % 7 == 0 {
            moments.push((number, listed(&store)));
        }
    }
    for (number, files) in &moments {
        let copy = restored(&store, files);
        let store = driven(&copy, small()).unwrap();
        assert_eq!(store.summary().now_or_never().unwrap().events as u128, *number);
    }
    // What is full stays as it is, and says so.
    let last = listed(&store);
    for (_, files) in &moments {
        for file in files.iter().filter(|file| file.mark.is_some()) {
            assert!(last.contains(file), "{file:?}");
        }
    }
    assert!(last.iter().filter(|file| file.mark.is_some()).count() > 4);
    let none = |name: &str| store.read_file(name, 0, 1).now_or_never().unwrap().unwrap();
    for name in ["lock", "../key", "journal/0000000000000001.segment", "1.segment", "99.segment"] {
        assert_eq!(none(name), None, "{name}");
    }
    let most = store.read_file("key", 0, u64::MAX).now_or_never().unwrap().unwrap();
    assert_eq!(most.map(|key| key.len()), Some(32));
    drop(store);
    let rest = at_rest(&disk).unwrap();
    assert!(rest.files.len() >= last.len() - 1 && rest.files[0].name == "key");
}
