//! Where pages of what is derived from the journal are kept. A page goes in under its id and comes out again; what is in it,
//! and whether it can be believed, is the reader's business: an index may be empty, older than the journal, or wrong, and
//! costs nothing but time then.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

/// No page is larger.
pub const PAGE_BYTES_MAX: usize = 16 << 10;

/// Pages that are put, and dropped, together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    pub kind: PageKind,
    /// What the pages were derived from; 0 for those of a whole checkpoint.
    pub segment: u64,
    /// The checkpoint that wrote them; 0 for those that never change.
    pub generation: u64,
}

/// One page of a group, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageId {
    pub group: Group,
    pub sequence: u32,
}

/// The numbers stand on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageKind {
    /// Keyed hashes of what events are looked up by, sorted, with the places of the facts.
    Terms = 1,
    /// What a list shows of each event, in the order of acceptance.
    Summaries = 2,
    /// Keyed hashes of the identities of the events.
    Identities = 3,
    /// The state of the events of one segment, as it was at a checkpoint.
    Rows = 4,
    /// What a start begins with.
    Checkpoint = 5,
    /// Keyed hashes of explicit idempotency keys whose calls were made.
    Keys = 6,
}

impl PageKind {
    /// The kind that has this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Terms, Self::Summaries, Self::Identities, Self::Rows, Self::Checkpoint, Self::Keys]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// The index cannot be read or written. It stays so until [`Index::reset`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("the index fails: {0}")]
pub struct IndexError(pub String);

/// Every call may block, for a bounded time.
pub trait Index: Send + Sync + 'static {
    /// Puts the pages of a group in the place of those that it had.
    fn put(&self, group: Group, pages: &[Bytes]) -> Result<(), IndexError>;
    fn get(&self, id: PageId) -> Result<Option<Bytes>, IndexError>;
    /// Groups that have pages, ascending.
    fn groups(&self) -> Result<Vec<Group>, IndexError>;
    /// Removes the pages of a group; none is fine.
    fn remove(&self, group: Group) -> Result<(), IndexError>;
    /// Begins anew with nothing in it. What was there is moved aside.
    fn reset(&self) -> Result<(), IndexError>;
}

/// An index that forgets: every start derives all pages anew.
#[derive(Default)]
pub struct MemoryIndex {
    groups: Mutex<BTreeMap<Group, Vec<Bytes>>>,
}

impl MemoryIndex {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Group, Vec<Bytes>>> {
        self.groups.lock().expect("no holder of this lock can panic")
    }
}

impl Index for MemoryIndex {
    fn put(&self, group: Group, pages: &[Bytes]) -> Result<(), IndexError> {
        self.all().insert(group, pages.to_vec());
        Ok(())
    }

    fn get(&self, id: PageId) -> Result<Option<Bytes>, IndexError> {
        let all = self.all();
        Ok(all.get(&id.group).and_then(|pages| pages.get(id.sequence as usize)).cloned())
    }

    fn groups(&self) -> Result<Vec<Group>, IndexError> {
        Ok(self.all().keys().copied().collect())
    }

    fn remove(&self, group: Group) -> Result<(), IndexError> {
        self.all().remove(&group);
        Ok(())
    }

    fn reset(&self) -> Result<(), IndexError> {
        self.all().clear();
        Ok(())
    }
}

/// What every index must do; each implementation's tests call it.
#[cfg(test)]
pub(crate) fn contract(index: &dyn Index) {
    let group = |segment, generation| Group { kind: PageKind::Rows, segment, generation };
    let id = |segment, sequence| PageId { group: group(segment, 0), sequence };
    let page = |text: &'static str| Bytes::from_static(text.as_bytes());
    index.put(group(1, 0), &[page("a"), page("b")]).unwrap();
    index.put(group(2, 0), &[page("c")]).unwrap();
    index.put(group(1, 7), &[page("e")]).unwrap();
    // In the place of what it had: the second page is gone.
    index.put(group(1, 0), &[page("d")]).unwrap();
    assert_eq!(index.get(id(1, 0)).unwrap().unwrap(), "d");
    assert_eq!(index.get(id(1, 1)).unwrap(), None);
    assert_eq!(index.get(id(3, 0)).unwrap(), None);
    assert_eq!(index.groups().unwrap(), [group(1, 0), group(1, 7), group(2, 0)]);
    index.remove(group(1, 0)).unwrap();
    index.remove(group(9, 0)).unwrap();
    assert_eq!(index.get(id(1, 0)).unwrap(), None);
    assert_eq!(index.groups().unwrap(), [group(1, 7), group(2, 0)]);
    let large = Bytes::from(vec![7; PAGE_BYTES_MAX]);
    index.put(group(5, 1), &vec![large.clone(); 300]).unwrap();
    let last = PageId { group: group(5, 1), sequence: 299 };
    assert_eq!(index.get(last).unwrap().unwrap(), large);
    index.reset().unwrap();
    assert_eq!(index.groups().unwrap(), []);
    assert_eq!(index.get(id(2, 0)).unwrap(), None);
    index.put(group(2, 0), &[page("f")]).unwrap();
    assert_eq!(index.get(id(2, 0)).unwrap().unwrap(), "f");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_index_keeps_the_contract() {
        contract(&MemoryIndex::default());
    }
}
