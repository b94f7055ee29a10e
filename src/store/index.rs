//! Where pages of what is derived from sealed segments are kept. A page goes in under its id and comes out again; what is
//! in it, and whether it can be believed, is the reader's business: an index may be empty, older than the journal, or
//! wrong, and costs nothing but time then.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

/// No page is larger.
pub const PAGE_BYTES_MAX: usize = 16 << 10;

/// Which page. All that is in it was derived from one segment, and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageId {
    pub segment: u64,
    pub kind: PageKind,
    /// Counts from 0 within segment and kind.
    pub sequence: u32,
}

/// The numbers stand on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageKind {
    /// Keyed hashes of event ids, sorted, with the place of the event.
    Ids = 1,
    /// What a list shows of each event, in the order of acceptance.
    Summaries = 2,
}

/// The index cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the index fails: {0}")]
pub struct IndexError(pub String);

/// Every call may block.
pub trait Index: Send + Sync + 'static {
    /// Puts all pages of a segment in the place of those that it had.
    fn put_pages(&self, segment: u64, pages: &[(PageId, Bytes)]) -> Result<(), IndexError>;
    fn get_page(&self, id: PageId) -> Result<Option<Bytes>, IndexError>;
    /// Segments that have pages.
    fn list(&self) -> Result<Vec<u64>, IndexError>;
    /// Removes the pages of a segment.
    fn drop_pages(&self, segment: u64) -> Result<(), IndexError>;
}

/// An index that forgets: every start derives all pages anew.
#[derive(Default)]
pub struct MemoryIndex {
    pages: Mutex<BTreeMap<PageId, Bytes>>,
}

impl MemoryIndex {
    fn pages(&self) -> MutexGuard<'_, BTreeMap<PageId, Bytes>> {
        self.pages.lock().expect("no holder of this lock can panic")
    }
}

impl Index for MemoryIndex {
    fn put_pages(&self, segment: u64, pages: &[(PageId, Bytes)]) -> Result<(), IndexError> {
        let mut all = self.pages();
        all.retain(|id, _| id.segment != segment);
        all.extend(pages.iter().cloned());
        Ok(())
    }

    fn get_page(&self, id: PageId) -> Result<Option<Bytes>, IndexError> {
        Ok(self.pages().get(&id).cloned())
    }

    fn list(&self) -> Result<Vec<u64>, IndexError> {
        let mut segments: Vec<u64> = self.pages().keys().map(|id| id.segment).collect();
        segments.dedup();
        Ok(segments)
    }

    fn drop_pages(&self, segment: u64) -> Result<(), IndexError> {
        self.pages().retain(|id, _| id.segment != segment);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_put_replaced_listed_and_dropped_by_segment() {
        let index = MemoryIndex::default();
        let id = |segment, sequence| PageId { segment, kind: PageKind::Ids, sequence };
        let page = |segment, sequence, text: &'static str| {
            (id(segment, sequence), Bytes::from_static(text.as_bytes()))
        };
        index.put_pages(1, &[page(1, 0, "a"), page(1, 1, "b")]).unwrap();
        index.put_pages(2, &[page(2, 0, "c")]).unwrap();
        index.put_pages(1, &[page(1, 0, "d")]).unwrap();
        assert_eq!(index.get_page(id(1, 0)).unwrap().unwrap(), "d");
        assert_eq!(index.get_page(id(1, 1)).unwrap(), None);
        assert_eq!(index.list().unwrap(), [1, 2]);
        index.drop_pages(1).unwrap();
        assert_eq!(index.list().unwrap(), [2]);
    }
}
