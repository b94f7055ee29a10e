//! The pages of sealed segments: what stands on them leaves memory, and no damage to them is seen by anybody.

use super::*;
use crate::store::index::{Group, MemoryIndex, PAGE_BYTES_MAX, PageId, PageKind};

/// Of all rows: how many stand on pages alone.
fn shelved(store: &JournalStore) -> (usize, usize) {
    store.shared.peek(|state| {
        let shelves = state.shelves().iter();
        let of_full = shelves.filter(|(segment, _)| state.with_term(**segment, 0).is_none());
        let of_full: usize = of_full.map(|(_, shelf)| shelf.events.len()).sum();
        (of_full, state.counts.events as usize)
    })
}

fn ids_in_order(store: &JournalStore) -> Vec<String> {
    let all = Budget { rows_max: 1000, examined_max: 1000 };
    let query = Query { oldest_first: true, ..Query::default() };
    let page = store.list(query, None, all).now_or_never().unwrap().unwrap();
    page.events.iter().map(|row| row.event_id.to_string()).collect()
}

#[test]
fn what_stands_on_the_pages_of_sealed_segments_is_not_held_in_memory() {
    let disk = MemoryDisk::new();
    let index = Arc::new(MemoryIndex::default());
    let open = |disk: &MemoryDisk| {
        let disk = Arc::new(disk.clone());
        let store = JournalStore::open_unstarted(disk, index.clone(), small(), world(1).0);
        let store = store.unwrap();
        while store.shared.prepare_once() {}
        store
    };
    let store = open(&disk);
    for number in 1..=100 {
        let offered = event(number, &format!("e{number}"), &"x".repeat(700), &["ship"]);
        assert!(matches!(accept(&store, offered), Some(Ok(_))));
    }
    let (on_pages, all) = shelved(&store);
    assert!(all == 100 && (80..100).contains(&on_pages), "{on_pages} of {all}");
    let expected: Vec<String> = (1..=100).map(|number| format!("e{number}")).collect();
    assert_eq!(ids_in_order(&store), expected);
    let sealed = sealed_in(&index);
    close(&store);
    drop(store);
    // After a start nothing is open any more. The pages of before are as good as new ones.
    let before: Vec<_> = sealed.iter().map(|segment| page_of(&index, *segment)).collect();
    let store = open(&disk.after_kill());
    assert_eq!(shelved(&store), (100, 100));
    let after: Vec<_> = sealed.iter().map(|segment| page_of(&index, *segment)).collect();
    assert_eq!(before, after);
    assert_eq!(ids_in_order(&store), expected);
    assert_eq!(store.find("e7", None).now_or_never().unwrap().unwrap(), [Uid(Uuid::from_u128(7))]);
    assert_eq!(store.shared.sealed().mended(), 0);
}

/// Segments that have pages in the index.
fn sealed_in(index: &MemoryIndex) -> Vec<u64> {
    let groups = index.groups().unwrap().into_iter();
    let summaries = groups.filter(|group| group.kind == PageKind::Summaries);
    summaries.map(|group| group.segment).collect()
}

fn page_of(index: &MemoryIndex, segment: u64) -> bytes::Bytes {
    let id = PageId { group: summaries(segment), sequence: 0 };
    index.get(id).unwrap().unwrap()
}

fn summaries(segment: u64) -> Group {
    Group { kind: PageKind::Summaries, segment, generation: 0 }
}

#[test]
fn a_page_that_does_not_prove_itself_is_derived_anew_from_its_segment() {
    let disk = MemoryDisk::new();
    let index = Arc::new(MemoryIndex::default());
    let open = || {
        let disk = Arc::new(disk.after_kill());
        JournalStore::open_unstarted(disk, index.clone(), small(), world(1).0)
    };
    drop(filled(&disk, 40));
    let store = open().unwrap();
    let expected = ids_in_order(&store);
    let right = page_of(&index, 2);
    let garbage = bytes::Bytes::from(vec![1; PAGE_BYTES_MAX]);
    // While it runs, and while it does not.
    for (count, wrong) in [(1, vec![]), (2, vec![garbage]), (3, vec![page_of(&index, 1)])] {
        index.put(summaries(2), &wrong).unwrap();
        assert_eq!(ids_in_order(&store), expected);
        assert_eq!(page_of(&index, 2), right);
        assert_eq!(store.shared.sealed().mended(), count);
        index.put(summaries(2), &wrong).unwrap();
        index.put(summaries(99), std::slice::from_ref(&right)).unwrap();
        assert_eq!(ids_in_order(&open().unwrap()), expected);
        assert_eq!(page_of(&index, 2), right);
        assert!(!sealed_in(&index).contains(&99), "there is no such segment");
    }
    // Where the segment itself is damaged meanwhile, nobody is told anything else than that.
    index.remove(summaries(2)).unwrap();
    let damaged = disk.after_kill();
    let store =
        JournalStore::open_unstarted(Arc::new(damaged.clone()), index.clone(), small(), world(1).0)
            .unwrap();
    index.remove(summaries(2)).unwrap();
    damaged.damage(&segment::name(2), 100, 1);
    let all = Budget { rows_max: 1000, examined_max: 1000 };
    let refused = store.list(Query::default(), None, all).now_or_never().unwrap();
    assert!(matches!(refused, Err(StoreError::Corrupt(why)) if why.contains("segment 2")));
}
