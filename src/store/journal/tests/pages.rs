//! The pages of sealed segments: what stands on them leaves memory, and no damage to them is seen by anybody.

use super::*;
use crate::store::index::{Index, MemoryIndex, PAGE_BYTES_MAX, PageId, PageKind};

/// Of all rows: how many stand on pages alone.
fn shelved(store: &JournalStore) -> (usize, usize) {
    store.shared.peek(|state| {
        (state.events.iter().filter(|row| row.about.is_none()).count(), state.events.len())
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
    let sealed = index.list().unwrap();
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

fn page_of(index: &MemoryIndex, segment: u64) -> bytes::Bytes {
    let id = PageId { segment, kind: PageKind::Summaries, sequence: 0 };
    index.get_page(id).unwrap().unwrap()
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
    let id = |segment, sequence| PageId { segment, kind: PageKind::Summaries, sequence };
    let garbage = bytes::Bytes::from(vec![1; PAGE_BYTES_MAX]);
    // While it runs, and while it does not.
    for (count, wrong) in
        [(1, vec![]), (2, vec![(id(2, 0), garbage)]), (3, vec![(id(2, 0), page_of(&index, 1))])]
    {
        index.put_pages(2, &wrong).unwrap();
        assert_eq!(ids_in_order(&store), expected);
        assert_eq!(page_of(&index, 2), right);
        assert_eq!(store.shared.sealed().mended(), count);
        index.put_pages(2, &wrong).unwrap();
        index.put_pages(99, &[(id(99, 0), right.clone())]).unwrap();
        assert_eq!(ids_in_order(&open().unwrap()), expected);
        assert_eq!(page_of(&index, 2), right);
        assert!(!index.list().unwrap().contains(&99), "there is no such segment");
    }
    // Where the segment itself is damaged meanwhile, nobody is told anything else than that.
    index.drop_pages(2).unwrap();
    let damaged = disk.after_kill();
    let store =
        JournalStore::open_unstarted(Arc::new(damaged.clone()), index.clone(), small(), world(1).0)
            .unwrap();
    index.drop_pages(2).unwrap();
    damaged.damage(&segment::name(2), 100, 1);
    let all = Budget { rows_max: 1000, examined_max: 1000 };
    let refused = store.list(Query::default(), None, all).now_or_never().unwrap();
    assert!(matches!(refused, Err(StoreError::Corrupt(why)) if why.contains("segment 2")));
}
