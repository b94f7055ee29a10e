//! The pages of sealed segments: derived from a segment when it is full and when a journal is opened, put into the index,
//! and read with suspicion. A page that is missing or does not prove itself is derived anew from its segment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::format::{self, Found, HEADER_BYTES};
use super::segment::Segments;
use crate::name::Uid;
use crate::store::StoreError;
use crate::store::fact::{Accepted, Position};
use crate::store::hashing::Hashing;
use crate::store::index::{Index, IndexError, PageId, PageKind};
use crate::store::page::{self, About, Contents, Derivation, Derived, Place, Summary};
use crate::store::view::ReadAbout;

pub(super) struct Sealed {
    index: Arc<dyn Index>,
    segments: Arc<Segments>,
    hashing: Hashing,
    shelves: Mutex<BTreeMap<u64, Arc<Shelf>>>,
    /// Held by whoever derives a segment's pages anew: the others wait for them.
    mending: Mutex<()>,
    /// Pages that had to be derived anew because what was read did not prove itself.
    mended: AtomicU64,
}

/// What is remembered of one sealed segment.
struct Shelf {
    contents: Contents,
    /// Where the segment's batches end.
    end: u64,
}

impl Sealed {
    pub(super) fn new(index: Arc<dyn Index>, segments: Arc<Segments>, hashing: Hashing) -> Self {
        Self {
            index,
            segments,
            hashing,
            shelves: Mutex::default(),
            mending: Mutex::default(),
            mended: AtomicU64::new(0),
        }
    }

    fn shelves(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Shelf>>> {
        self.shelves.lock().expect("no holder of this lock can panic")
    }

    pub(super) fn derivation(&self) -> Derivation {
        Derivation::new(self.hashing)
    }

    #[cfg(test)]
    pub(super) fn mended(&self) -> u64 {
        self.mended.load(Ordering::Relaxed)
    }

    /// Sees to it that the index holds these pages. Answers the events that stand on them now.
    pub(super) fn put(
        &self,
        derivation: Derivation,
        segment: u64,
        end: u64,
    ) -> Result<Vec<(Uid, Place)>, IndexError> {
        let Derived { pages, contents, events } = derivation.finish(segment);
        let stands = |(id, page): &(PageId, Bytes)| matches!(self.index.get_page(*id), Ok(Some(known)) if known == *page);
        if !pages.iter().all(stands) {
            self.index.put_pages(segment, &pages)?;
        }
        self.shelves().insert(segment, Arc::new(Shelf { contents, end }));
        Ok(events)
    }

    /// Derives and puts the pages of a segment whose batches end at `end`.
    pub(super) fn seal(&self, segment: u64, end: u64) -> Result<Vec<(Uid, Place)>, StoreError> {
        let derivation = self.derive(segment, end)?;
        self.put(derivation, segment, end).map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// Removes pages of segments that are not there (any more).
    pub(super) fn drop_others(&self) -> Result<(), IndexError> {
        for segment in self.index.list()? {
            if !self.shelves().contains_key(&segment) {
                self.index.drop_pages(segment)?;
            }
        }
        Ok(())
    }

    fn derive(&self, segment: u64, end: u64) -> Result<Derivation, StoreError> {
        let corrupt = |offset: u64, why: String| {
            StoreError::Corrupt(format!("segment {segment}, offset {offset}: {why}"))
        };
        let mut derivation = self.derivation();
        let mut offset = 0;
        while offset < end {
            let batch = self
                .segments
                .batch(segment, offset)
                .map_err(|error| corrupt(offset, error.to_string()))?;
            let Found::Batch(_, body) = format::batch_at(&batch, 0) else {
                return Err(corrupt(
                    offset,
                    "the batch here does not prove itself any more".into(),
                ));
            };
            derivation.batch(&batch[..HEADER_BYTES]);
            let facts = format::facts_of(body, segment, offset as usize + HEADER_BYTES)
                .map_err(|error| corrupt(offset, error.to_string()))?;
            for (at, fact) in &facts {
                derivation.fact(*at, fact);
            }
            offset += batch.len() as u64;
        }
        Ok(derivation)
    }

    /// The body of a page, which proves itself, whatever the index gave.
    fn body(&self, id: PageId, shelf: &Shelf) -> Result<Bytes, StoreError> {
        if let Some(body) = self.proven(id, shelf) {
            return Ok(body);
        }
        let _mending = self.mending.lock().expect("no holder of this lock can panic");
        if let Some(body) = self.proven(id, shelf) {
            return Ok(body);
        }
        let derived = self.derive(id.segment, shelf.end)?.finish(id.segment);
        if derived.contents != shelf.contents {
            let why = format!("segment {} is not what it was when it was sealed", id.segment);
            return Err(StoreError::Corrupt(why));
        }
        self.mended.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            segment = id.segment,
            "a page of the index was missing or did not prove itself; it was derived anew from the journal"
        );
        if let Err(error) = self.index.put_pages(id.segment, &derived.pages) {
            tracing::warn!(%error, segment = id.segment, "pages cannot be put into the index");
        }
        let page = derived.pages.iter().find(|(known, _)| *known == id);
        page.and_then(|(_, page)| page::body_of(page, id, shelf.contents.origin))
            .ok_or_else(|| StoreError::Corrupt(format!("segment {} has no such page", id.segment)))
    }

    fn proven(&self, id: PageId, shelf: &Shelf) -> Option<Bytes> {
        match self.index.get_page(id) {
            Ok(page) => page::body_of(&page?, id, shelf.contents.origin),
            Err(error) => {
                tracing::warn!(%error, segment = id.segment, "a page cannot be read from the index");
                None
            }
        }
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { sealed: self, last: None }
    }
}

/// Reads pages for one query. Rows that stand beside each other mostly share a page.
pub(super) struct Reader<'a> {
    sealed: &'a Sealed,
    last: Option<(PageId, Vec<Summary>)>,
}

impl Reader<'_> {
    /// The summary of the event that was accepted at `place`, if it stands on a page.
    fn summary(&mut self, segment: u64, place: Place) -> Result<Option<&Summary>, StoreError> {
        let shelf = self.sealed.shelves().get(&segment).cloned();
        let Some(shelf) = shelf else { return Ok(None) };
        let pages = &shelf.contents.summaries;
        let Some(sequence) = pages.partition_point(|first| *first <= place).checked_sub(1) else {
            return Ok(None);
        };
        let id = PageId { segment, kind: PageKind::Summaries, sequence: sequence as u32 };
        if self.last.as_ref().is_none_or(|(last, _)| *last != id) {
            let body = self.sealed.body(id, &shelf)?;
            let corrupt = || StoreError::Corrupt(format!("a page of segment {segment} is none"));
            self.last = Some((id, page::summaries_of(&body).ok_or_else(corrupt)?));
        }
        let summaries = self.last.as_ref().map_or(&[][..], |(_, summaries)| summaries);
        let found = summaries.binary_search_by_key(&place, |summary| summary.place);
        Ok(found.ok().map(|found| &summaries[found]))
    }
}

impl ReadAbout for Reader<'_> {
    fn about(&mut self, at: Position) -> Result<About, StoreError> {
        let summary = self.summary(at.segment, (at.offset, at.index))?;
        if let Some(about) = summary.and_then(|summary| summary.about.clone()) {
            return Ok(about);
        }
        // The journal is the truth, and has all of it.
        Ok(About::of(&*Accepted::envelope(&*self.sealed.segments, at)?))
    }

    fn events_with_id(&mut self, id: &str) -> Result<Vec<Uid>, StoreError> {
        let hash = self.sealed.hashing.text(id);
        let shelves: Vec<(u64, Arc<Shelf>)> = self
            .sealed
            .shelves()
            .iter()
            .map(|(segment, shelf)| (*segment, shelf.clone()))
            .collect();
        let mut events = Vec::new();
        for (segment, shelf) in shelves {
            // Equal hashes may go over the end of a page.
            let firsts = &shelf.contents.ids;
            let from = firsts.partition_point(|first| *first < hash).saturating_sub(1);
            let until = firsts.partition_point(|first| *first <= hash);
            for sequence in from..until {
                let id = PageId { segment, kind: PageKind::Ids, sequence: sequence as u32 };
                for place in page::places_of(&self.sealed.body(id, &shelf)?, hash) {
                    events.extend(self.summary(segment, place)?.map(|summary| summary.uid));
                }
            }
        }
        Ok(events)
    }
}
