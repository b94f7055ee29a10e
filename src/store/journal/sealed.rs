//! The pages of full segments, and checkpoints: derived from the journal, put into the index, and read with suspicion. A page
//! that is missing or does not prove itself is derived anew from its segment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::format::{self, HEADER_BYTES};
use super::segment::Segments;
use crate::name::Uid;
use crate::store::StoreError;
use crate::store::book;
use crate::store::checkpoint::{self, Entry, Manifest, Mark};
use crate::store::fact::{Fact, Position, ReadFacts, envelope_at};
use crate::store::hashing::Hashing;
use crate::store::index::{Group, Index, IndexError, PageId, PageKind};
use crate::store::page::{self, About, Contents, Derivation, Derived, Place, Summary};
use crate::store::state::Moment;
use crate::store::state::State;
use crate::store::state::frozen::{Frozen, KnownBy};
use crate::store::state::rows::Shelves;
use crate::store::view::ReadPages;

pub(super) struct Sealed {
    index: Arc<dyn Index>,
    segments: Arc<Segments>,
    hashing: Hashing,
    paged: Mutex<BTreeMap<u64, Arc<Paged>>>,
    /// Held by whoever derives a segment's pages anew: the others wait for them.
    mending: Mutex<()>,
    /// Pages that had to be derived anew because what was read did not prove itself.
    mended: AtomicU64,
    written: Mutex<Written>,
    /// Why the index is not to be relied on.
    broken: Mutex<Option<String>>,
}

/// What is remembered of one full segment.
struct Paged {
    contents: Contents,
    /// Where the segment's batches end.
    end: u64,
}

/// What the newest checkpoint in the index holds.
#[derive(Default)]
struct Written {
    generation: u64,
    /// For each segment: how often its rows had changed, and where they were written.
    rows: BTreeMap<u32, (u64, u64, u32)>,
}

/// A checkpoint that a start can go on from.
pub(super) struct Resumed {
    pub(super) state: State,
    pub(super) mark: Mark,
    /// First and last of the segments that the checkpoint knows and that are gone: they must have been retired since.
    pub(super) gone: Option<(u64, u64)>,
}

impl Sealed {
    pub(super) fn new(index: Arc<dyn Index>, segments: Arc<Segments>, hashing: Hashing) -> Self {
        Self {
            index,
            segments,
            hashing,
            paged: Mutex::default(),
            mending: Mutex::default(),
            mended: AtomicU64::new(0),
            written: Mutex::default(),
            broken: Mutex::default(),
        }
    }

    fn paged(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Paged>>> {
        self.paged.lock().expect("no holder of this lock can panic")
    }

    /// Each segment with pages: where its batches end, and their mark.
    pub(super) fn extents(&self) -> Vec<(u64, u64, u32)> {
        let paged = self.paged();
        let extent = |(segment, paged): (&u64, &Arc<Paged>)| {
            (*segment, paged.end, paged.contents.origin.mark)
        };
        paged.iter().map(extent).collect()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().expect("no holder of this lock can panic")
    }

    pub(super) fn derivation(&self) -> Derivation {
        Derivation::new(self.hashing)
    }

    /// Pages that did not prove themselves, since the start.
    pub(super) fn mended(&self) -> u64 {
        self.mended.load(Ordering::Relaxed)
    }

    /// Why the index cannot be relied on now.
    pub(super) fn broken(&self) -> Option<String> {
        self.broken.lock().expect("no holder of this lock can panic").clone()
    }

    fn note<T>(&self, done: Result<T, IndexError>) -> Result<T, IndexError> {
        if let Err(error) = &done {
            let mut broken = self.broken.lock().expect("no holder of this lock can panic");
            if broken.is_none() {
                tracing::error!(%error, "the index is unusable; it will be made anew from the journal");
                *broken = Some(error.to_string());
            }
        }
        done
    }

    /// Sees to it that the index holds these pages.
    pub(super) fn put(
        &self,
        derivation: Derivation,
        segment: u64,
        end: u64,
    ) -> Result<(), IndexError> {
        let Derived { groups, contents } = derivation.finish(segment);
        self.paged().insert(segment, Arc::new(Paged { contents, end }));
        for (group, pages) in groups {
            let stands = |(page, sequence): (&Bytes, u32)| {
                let known = self.index.get(PageId { group, sequence });
                matches!(known, Ok(Some(known)) if known == *page)
            };
            if pages.is_empty() || !pages.iter().zip(0..).all(stands) {
                self.note(self.index.put(group, &pages))?;
            }
        }
        Ok(())
    }

    /// Derives and puts the pages of a segment whose batches end at `end`.
    pub(super) fn seal(&self, segment: u64, end: u64) -> Result<(), StoreError> {
        let derivation = self.derive(segment, end)?;
        // What the index does not take is derived again when it is asked for, and when the index is made anew.
        drop(self.put(derivation, segment, end));
        Ok(())
    }

    /// A segment is gone.
    pub(super) fn forget(&self, segment: u64) {
        self.paged().remove(&segment);
        if self.broken().is_none() {
            drop(self.sweep());
        }
    }

    /// Removes what belongs to no segment that is there, and to no checkpoint but the newest.
    pub(super) fn sweep(&self) -> Result<(), IndexError> {
        let segments: BTreeSet<u64> = self.paged().keys().copied().collect();
        let (generation, rows) = {
            let written = self.written();
            let rows: BTreeSet<(u64, u64)> = written
                .rows
                .iter()
                .map(|(segment, (_, generation, _))| (u64::from(*segment), *generation))
                .collect();
            (written.generation, rows)
        };
        for group in self.note(self.index.groups())? {
            let wanted = match group.kind {
                PageKind::Checkpoint => group.generation == generation,
                PageKind::Rows => rows.contains(&(group.segment, group.generation)),
                PageKind::Terms | PageKind::Summaries | PageKind::Identities | PageKind::Keys => {
                    segments.contains(&group.segment)
                }
            };
            if !wanted {
                self.note(self.index.remove(group))?;
            }
        }
        Ok(())
    }

    /// Writes down the state as it was when the journal stood at `mark`. All segments up to there must have their pages.
    pub(super) fn write_checkpoint(&self, frozen: &Frozen, mark: Mark) -> Result<(), IndexError> {
        let generation = self.written().generation + 1;
        let mut segments = BTreeMap::new();
        let mut rows = BTreeMap::new();
        for (segment, shelf) in &frozen.shelves {
            let known = self.written().rows.get(segment).copied();
            let (written_in, checksum) = match known {
                Some((changes, written_in, checksum)) if changes == shelf.changes => {
                    (written_in, checksum)
                }
                _ => {
                    let text = checkpoint::rows_text(shelf);
                    let group = checkpoint::rows_group(*segment, generation);
                    let origin = checkpoint::origin(self.hashing.journal(), group.segment);
                    self.note(self.index.put(group, &book::cut(group, origin, &text)))?;
                    (generation, book::checksum(&text))
                }
            };
            rows.insert(*segment, (shelf.changes, written_in, checksum));
            let paged = self.paged().get(&u64::from(*segment)).cloned();
            let Some(paged) = paged else {
                return Err(IndexError(format!("segment {segment} has no pages yet")));
            };
            segments.insert(
                *segment,
                Entry {
                    end: paged.end,
                    contents: paged.contents.clone(),
                    generation: written_in,
                    checksum,
                },
            );
        }
        let manifest = Manifest::new(mark, segments, frozen);
        let group = checkpoint::manifest_group(generation);
        let origin = checkpoint::origin(self.hashing.journal(), 0);
        let pages = book::cut(group, origin, &manifest.to_text());
        self.note(self.index.put(group, &pages))?;
        *self.written() = Written { generation, rows };
        self.sweep()
    }

    /// The state of the newest checkpoint that proves itself whole and is of this journal; `there`: the segments that are.
    pub(super) fn resume(&self, there: &BTreeSet<u64>, now: Moment) -> Option<Resumed> {
        let mut generations: Vec<u64> = self
            .note(self.index.groups())
            .ok()?
            .into_iter()
            .filter(|group| group.kind == PageKind::Checkpoint)
            .map(|group| group.generation)
            .collect();
        generations.sort_unstable();
        // Later ones are never written under a number that was used.
        self.written().generation = generations.last().copied().unwrap_or(0);
        let mut newest_first = generations.into_iter().rev();
        newest_first.find_map(|generation| match self.resume_from(generation, there, now) {
            Ok(resumed) => Some(resumed),
            Err(why) => {
                tracing::warn!(generation, %why, "a checkpoint cannot be gone on from");
                None
            }
        })
    }

    fn resume_from(
        &self,
        generation: u64,
        there: &BTreeSet<u64>,
        now: Moment,
    ) -> Result<Resumed, String> {
        let text = |group: Group, segment: u64| {
            let origin = checkpoint::origin(self.hashing.journal(), segment);
            let text = self.note(book::read(&*self.index, group, origin));
            text.map_err(|error| error.to_string())?
                .ok_or_else(|| format!("pages of segment {segment} do not prove themselves"))
        };
        let manifest = Manifest::from_text(&text(checkpoint::manifest_group(generation), 0)?)
            .ok_or("its format is another one")?;
        let mark = manifest.mark.clone();
        if !self.stands(&mark) {
            return Err("the journal has another history".into());
        }
        let mut shelves = Shelves::new();
        let mut rows = BTreeMap::new();
        let mut gone: Option<(u64, u64)> = None;
        for (segment, entry) in &manifest.segments {
            let number = u64::from(*segment);
            if !there.contains(&number) {
                // What was retired since was the oldest.
                if !shelves.is_empty() {
                    return Err(format!("segment {segment} is not there"));
                }
                gone = Some((gone.map_or(number, |(first, _)| first), number));
                continue;
            }
            let text = text(checkpoint::rows_group(*segment, entry.generation), number)?;
            let shelf = checkpoint::rows_of(&text).filter(|shelf| {
                book::checksum(&text) == entry.checksum
                    && shelf.events.len() as u64 == u64::from(entry.contents.rows)
            });
            let shelf = shelf.ok_or_else(|| format!("rows of segment {segment} are others"))?;
            shelves.insert(*segment, Arc::new(shelf));
            rows.insert(*segment, (0, entry.generation, entry.checksum));
        }
        if !self.are_of(&shelves) {
            return Err("the journal has another history".into());
        }
        let mut frozen = manifest.frozen(shelves).ok_or("its times are none")?;
        // What was still needed of those that are gone was written again, after this checkpoint.
        frozen.revisions.retain(|at| there.contains(&at.segment));
        frozen.cells.retain(|at| there.contains(&at.segment));
        frozen.secrets.retain(|at| there.contains(&at.segment));
        let known_by = |segment: u32| self.known_by(u64::from(segment), &manifest.segments);
        let mut state = State::thaw(self.hashing, frozen, known_by, &*self.segments, now)
            .map_err(|error| error.to_string())?
            .ok_or("its parts do not belong together")?;
        state.has_gaps = gone.is_some();
        *self.paged() = manifest
            .segments
            .into_iter()
            .filter(|(segment, _)| there.contains(&u64::from(*segment)))
            .map(|(segment, entry)| {
                (segment.into(), Arc::new(Paged { contents: entry.contents, end: entry.end }))
            })
            .collect();
        self.written().rows = rows;
        Ok(Resumed { state, mark, gone })
    }

    /// The last event of each segment stands where its row says. Batches of the same length may end alike in two
    /// histories; uids are drawn anew.
    fn are_of(&self, shelves: &Shelves) -> bool {
        shelves.iter().all(|(segment, shelf)| {
            let Some(row) = shelf.events.last() else { return true };
            let segment = u64::from(*segment);
            let at = Position { segment, offset: row.offset, index: row.index.into() };
            match self.segments.read(at).as_deref() {
                Ok(Fact::Remembered(remembered)) => remembered.uid == row.uid,
                Ok(fact) => fact.event().is_some_and(|event| event.envelope.uid == row.uid),
                Err(_) => false,
            }
        })
    }

    /// The journal has the very batch there that it had when the mark was made.
    fn stands(&self, mark: &Mark) -> bool {
        let Some(length) = format::batch_length(&mark.header) else { return false };
        let Some(offset) = mark.end.checked_sub(length as u64) else { return false };
        let batch = self.segments.batch(mark.segment, offset);
        batch.is_ok_and(|batch| batch.bytes.starts_with(&mark.header))
    }

    fn known_by(&self, segment: u64, entries: &BTreeMap<u32, Entry>) -> Option<KnownBy> {
        let contents = &entries.get(&u32::try_from(segment).ok()?)?.contents;
        let mut known = KnownBy { identities: Vec::new(), keys: Vec::new() };
        let body = |kind, sequence| {
            let id = PageId { group: page::group(segment, kind), sequence };
            self.proven(id, contents)
        };
        for sequence in 0..contents.identities {
            known.identities.extend(page::identities_of(&body(PageKind::Identities, sequence)?));
        }
        for sequence in 0..contents.keys {
            known.keys.extend(page::keys_of(&body(PageKind::Keys, sequence)?));
        }
        Some(known)
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
            derivation.batch(&batch.bytes[..HEADER_BYTES]);
            let facts = batch.facts().map_err(|error| corrupt(offset, error.to_string()))?;
            for (at, fact) in &facts {
                derivation.fact(*at, fact);
            }
            offset += batch.bytes.len() as u64;
        }
        Ok(derivation)
    }

    /// Makes the index anew: what is in it is moved aside, and all pages are derived from the journal. The next checkpoint
    /// writes all rows again.
    pub(super) fn heal(&self) -> Result<(), IndexError> {
        self.index.reset()?;
        self.written().rows.clear();
        let paged: Vec<(u64, u64)> =
            self.paged().iter().map(|(segment, paged)| (*segment, paged.end)).collect();
        for (segment, end) in paged {
            match self.derive(segment, end) {
                Ok(derivation) => {
                    for (group, pages) in derivation.finish(segment).groups {
                        self.index.put(group, &pages)?;
                    }
                }
                // Retired meanwhile, or damaged: whoever asks for it is told.
                Err(error) => tracing::warn!(%error, segment, "a segment gets no pages"),
            }
        }
        *self.broken.lock().expect("no holder of this lock can panic") = None;
        tracing::info!("the index was made anew from the journal");
        Ok(())
    }

    /// The body of a page, which proves itself, whatever the index gave.
    fn body(&self, id: PageId, paged: &Paged) -> Result<Bytes, StoreError> {
        if let Some(body) = self.proven(id, &paged.contents) {
            return Ok(body);
        }
        let _mending = self.mending.lock().expect("no holder of this lock can panic");
        if let Some(body) = self.proven(id, &paged.contents) {
            return Ok(body);
        }
        let segment = id.group.segment;
        let derived = self.derive(segment, paged.end)?.finish(segment);
        if derived.contents != paged.contents {
            let why = format!("segment {segment} is not what it was when it was sealed");
            return Err(StoreError::Corrupt(why));
        }
        self.mended.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            segment,
            "a page of the index was missing or did not prove itself; it was derived anew from the journal"
        );
        let missing = || StoreError::Corrupt(format!("segment {segment} has no such page"));
        let mut found = None;
        for (group, pages) in derived.groups {
            if group == id.group {
                found = pages.get(id.sequence as usize).cloned();
                drop(self.note(self.index.put(group, &pages)));
            }
        }
        let page = found.ok_or_else(missing)?;
        page::body_of(&page, id, paged.contents.origin).ok_or_else(missing)
    }

    fn proven(&self, id: PageId, contents: &Contents) -> Option<Bytes> {
        if self.broken().is_some() {
            return None;
        }
        let page = self.note(self.index.get(id)).ok()??;
        page::body_of(&page, id, contents.origin)
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
    fn paged(&self, segment: u64) -> Option<Arc<Paged>> {
        self.sealed.paged().get(&segment).cloned()
    }

    /// The summary of the event that stands at `place`, if it is on a page.
    fn summary(&mut self, segment: u64, place: Place) -> Result<Option<&Summary>, StoreError> {
        let Some(paged) = self.paged(segment) else { return Ok(None) };
        let pages = &paged.contents.summaries;
        let Some(sequence) = pages.partition_point(|first| *first <= place).checked_sub(1) else {
            return Ok(None);
        };
        let group = page::group(segment, PageKind::Summaries);
        let id = PageId { group, sequence: sequence as u32 };
        if self.last.as_ref().is_none_or(|(last, _)| *last != id) {
            let body = self.sealed.body(id, &paged)?;
            let corrupt = || StoreError::Corrupt(format!("a page of segment {segment} is none"));
            self.last = Some((id, page::summaries_of(&body).ok_or_else(corrupt)?));
        }
        let summaries = self.last.as_ref().map_or(&[][..], |(_, summaries)| summaries);
        let found = summaries.binary_search_by_key(&place, |summary| summary.place);
        Ok(found.ok().map(|found| &summaries[found]))
    }
}

impl ReadPages for Reader<'_> {
    fn about(&mut self, at: Position) -> Result<About, StoreError> {
        let summary = self.summary(at.segment, (at.offset, at.index))?;
        if let Some(about) = summary.and_then(|summary| summary.about.clone()) {
            return Ok(about);
        }
        // The journal is the truth, and has all of it.
        Ok(About::of(&*envelope_at(&*self.sealed.segments, at)?))
    }

    fn places(&mut self, segment: u32, term: u64) -> Result<Vec<Place>, StoreError> {
        let segment = u64::from(segment);
        let Some(paged) = self.paged(segment) else { return Ok(Vec::new()) };
        // Equal hashes may go over the end of a page.
        let firsts = &paged.contents.terms;
        let from = firsts.partition_point(|first| *first < term).saturating_sub(1);
        let until = firsts.partition_point(|first| *first <= term);
        let mut places = Vec::new();
        for sequence in from..until {
            let group = page::group(segment, PageKind::Terms);
            let body = self.sealed.body(PageId { group, sequence: sequence as u32 }, &paged)?;
            places.extend(page::places_of(&body, term));
        }
        Ok(places)
    }

    fn changed(&mut self, at: Position) -> Result<Option<Uid>, StoreError> {
        match &*self.sealed.segments.read(at)? {
            Fact::Changed(changed) => Ok(Some(changed.delivery.uid)),
            _ => Ok(None),
        }
    }
}
