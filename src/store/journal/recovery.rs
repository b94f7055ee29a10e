//! Opening: from the files to the state. Tells a torn tail, which a crash leaves, from damage, which needs a person.
//!
//! They can be told apart as long as a later batch says that the damaged one had been synced. Of the last batch of all
//! nobody says so: if the medium loses it after its sync, that looks as if its write had been torn, and it is cut with a
//! warning. Only the mark of a clean end, which is then missing, is a hint.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::format::{self, Found};
use super::sealed::{Resumed, Sealed};
use super::segment::{self, Segments};
use crate::store::StoreError;
use crate::store::checkpoint::Mark;
use crate::store::codec::DecodeError;
use crate::store::fact::Fact;
use crate::store::hashing::Hashing;
use crate::store::state::{Moment, State};
use crate::world::disk::Disk;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the data folder {place} is in use by another router; stop that one, or give this one a folder of its own (`store: ./data` in router.yaml)"
    )]
    Locked { place: String },
    #[error("cannot {action} in the data folder {place}")]
    Io { place: String, action: String, source: io::Error },
    #[error(
        "the journal is damaged: segment {segment}, offset {offset}: {why}; nothing was changed. Restore the folder {place} from a backup, or move it away to begin anew"
    )]
    Corrupt { place: String, segment: u64, offset: u64, why: String },
    #[error(
        "segment {segment} of the journal is missing in the data folder {place}; restore the file {file} from a backup"
    )]
    Missing { place: String, segment: u64, file: String },
    #[error(
        "segment {segment} of the journal in {place} was written by a newer router ({why}); run that version"
    )]
    Newer { place: String, segment: u64, why: String },
    #[error(
        "the key of the store, {place}/key, is missing or has the wrong length, and there is a journal; restore it from a backup"
    )]
    NoKey { place: String },
}

/// What the files said.
pub(super) struct Recovered {
    pub(crate) state: State,
    /// Number of the next fact.
    pub(crate) next: u64,
    /// The newest segment that holds anything; 0: none.
    pub(crate) last: u64,
    /// The segments after it that were prepared and never written to, without a gap.
    pub(crate) spares: Vec<u64>,
}

/// Progress is told after as many.
const PROGRESS_SEGMENTS: usize = 16;

struct Walk<'a> {
    disk: &'a Arc<dyn Disk>,
    segments: &'a Segments,
    sealed: &'a Sealed,
    state: State,
    now: Moment,
    next: u64,
    clean: bool,
    /// Segments of zeros alone, and their size.
    blank: BTreeMap<u64, u64>,
    /// The newest segment with a batch, and where its batches end.
    last: Option<(u64, usize)>,
    /// First and last number of each gap.
    gaps: Vec<(u64, u64)>,
}

/// Reads all segments, mends the tail, and leaves nothing that another crash could lose. Prepared segments of
/// `segment_bytes` are kept; nothing that is read here is ever appended to.
pub(super) fn recover(
    disk: &Arc<dyn Disk>,
    segments: &Segments,
    sealed: &Sealed,
    hashing: Hashing,
    segment_bytes: u64,
    now: Moment,
) -> Result<Recovered, OpenError> {
    let place = disk.place();
    let io = |action: &str| {
        let (place, action) = (place.clone(), action.to_owned());
        move |source| OpenError::Io { place, action, source }
    };
    let names = disk.list().map_err(io("list the files"))?;
    let there: BTreeSet<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    let walk = |resuming: bool| {
        let blank = BTreeMap::new();
        let state = State::new(hashing);
        let (last, gaps) = (None, Vec::new());
        let mut walk =
            Walk { disk, segments, sealed, state, now, next: 0, clean: true, blank, last, gaps };
        let resumed = resuming && walk.resume(&there);
        (resumed, walk.through(&there, resumed).map(|()| walk))
    };
    let walk = match walk(true) {
        (true, Err(OpenError::Corrupt { segment, offset, why, .. })) => {
            tracing::warn!(
                segment,
                offset,
                why,
                "the journal does not go on from its checkpoint; all of it is read"
            );
            walk(false).1?
        }
        (_, walked) => walked?,
    };
    let last = walk.last.map_or(0, |(segment, _)| segment);
    let retired = walk.state.retired;
    for &(first, end) in &walk.gaps {
        let segment = first.max(retired + 1);
        if segment <= end.min(last) {
            let file = segment::name(segment);
            return Err(OpenError::Missing { place, segment, file });
        }
    }
    if let Some((segment, end)) = walk.last {
        if walk.clean {
            // What was prepared and not used is given back.
            let file = segments.file(segment).map_err(io("open the last segment"))?;
            file.truncate(end as u64).map_err(io("shorten the last segment"))?;
        } else {
            walk.copy_last(segment, end).map_err(io("copy the last segment"))?;
        }
    }
    for &gone in there.range(..=retired) {
        // Its end was written down, and is on the medium now; what was left to do is done.
        sealed.forget(gone);
        segments.forget(gone);
        disk.remove(&segment::name(gone)).map_err(io("remove a segment that is retired"))?;
    }
    let spares: Vec<u64> =
        (last + 1..).take_while(|number| walk.blank.get(number) == Some(&segment_bytes)).collect();
    for &spare in &spares {
        // Whoever prepared it may have been killed before its sync.
        let synced = segments.file(spare).and_then(|file| file.sync_data());
        synced.map_err(io("sync a prepared segment"))?;
    }
    let unusable = |number: &&u64| **number > last && !spares.contains(number);
    for &number in there.iter().filter(unusable) {
        disk.remove(&segment::name(number)).map_err(io("remove an unused segment"))?;
        segments.forget(number);
    }
    // What stays in the index costs room alone.
    drop(sealed.sweep());
    Ok(Recovered { state: walk.state, next: walk.next, last, spares })
}

impl Walk<'_> {
    /// Begins with the newest checkpoint, if there is one to go on from.
    fn resume(&mut self, there: &BTreeSet<u64>) -> bool {
        let resumed = self.sealed.resume(there, self.now);
        let Some(Resumed { state, mark, gone }) =
            resumed.filter(|resumed| self.ends_at(&resumed.mark))
        else {
            return false;
        };
        self.clean = self.is_clean_end(&mark);
        self.next = state.next;
        self.gaps.extend(gone);
        self.last = Some((mark.segment, mark.end as usize));
        self.state = state;
        true
    }

    /// Reads all segments after those that it began with.
    fn through(&mut self, there: &BTreeSet<u64>, resumed: bool) -> Result<(), OpenError> {
        let mut expected = self.last.map_or(1, |(segment, _)| segment + 1);
        let total = there.range(expected..).count();
        for (&number, done) in there.range(expected..).zip(1..) {
            if expected < number {
                self.gaps.push((expected, number - 1));
            }
            self.state.has_gaps |= !self.gaps.is_empty();
            self.segment(number, expected == number)?;
            expected = number + 1;
            if !resumed && done % PROGRESS_SEGMENTS == 0 {
                tracing::info!(done, total, "reading the segments of the journal");
            }
        }
        Ok(())
    }

    /// Applies what stands in one segment. `follows`: the segment before it was read too.
    fn segment(&mut self, number: u64, follows: bool) -> Result<(), OpenError> {
        let place = self.disk.place();
        let bytes = self.bytes(number).map_err(|source| OpenError::Io {
            place: place.clone(),
            action: format!("read segment {number}"),
            source,
        })?;
        let corrupt = |offset: usize, why: String| OpenError::Corrupt {
            place: place.clone(),
            segment: number,
            offset: offset as u64,
            why,
        };
        let newer = |why: String| OpenError::Newer { place: place.clone(), segment: number, why };
        let mut offset = 0;
        let mut first_batch = true;
        let mut derivation = self.sealed.derivation();
        loop {
            let (header, body) = match format::batch_at(&bytes, offset) {
                Found::Batch(header, body) => (header, body),
                Found::Newer(version) => return Err(newer(format!("journal format {version}"))),
                Found::Nothing => break,
            };
            if header.segment != number {
                let why = format!("a batch of segment {} stands here", header.segment);
                return Err(corrupt(offset, why));
            }
            if first_batch && !follows {
                // What stands before a gap was retired with it, or the start stops. It says nothing about what follows.
                let mut state = State::new(self.state.hashing);
                (state.has_gaps, state.epoch) = (true, self.state.epoch);
                (state.newest, state.retired) = (self.state.newest, self.state.retired);
                self.state = state;
                self.next = header.first;
            }
            if first_batch {
                self.state.begin_segment(number).map_err(|error| corrupt(0, error.to_string()))?;
            }
            if header.first != self.next {
                let why = format!("fact {} was expected, and {} follows", self.next, header.first);
                return Err(corrupt(offset, why));
            }
            if header.epoch < self.state.epoch {
                return Err(corrupt(offset, "it was written by an earlier writer".into()));
            }
            let body_at = offset + format::HEADER_BYTES;
            let facts = format::facts_of(body, number, body_at).map_err(|error| match error {
                DecodeError::Newer { .. } => newer(error.to_string()),
                DecodeError::Broken { .. } | DecodeError::Short => {
                    corrupt(offset, error.to_string())
                }
            })?;
            derivation.batch(&bytes[offset..body_at]);
            for (at, fact) in facts {
                derivation.fact(at, &fact);
                let applied = self.state.apply(&fact, at, self.next, self.now, self.segments);
                applied.map_err(|error: StoreError| corrupt(offset, error.to_string()))?;
                self.next += 1;
                self.clean = fact == Fact::Closed;
            }
            first_batch = false;
            offset = body_at + body.len();
            self.last = Some((number, offset));
        }
        if offset > 0 {
            // What the index does not take is derived again when it is asked for.
            drop(self.sealed.put(derivation, number, offset as u64));
            self.state.shelve(number as u32);
        }
        let tail = bytes.get(offset..).unwrap_or_default();
        if format::is_blank(tail) {
            if offset == 0 {
                self.blank.insert(number, bytes.len() as u64);
            }
            return Ok(());
        }
        if let Some((at, later)) = format::next_batch(&bytes, offset)
            && later.durable > self.next
        {
            let why = format!(
                "the batch here does not prove itself, and a later one at {at} says that it had been synced"
            );
            return Err(corrupt(offset, why));
        }
        self.clean = false;
        tracing::warn!(
            segment = number,
            offset,
            "the journal's tail is torn: what was being written when the router ended was never acknowledged, and is cut"
        );
        Ok(())
    }

    /// Nothing was written behind the mark in its segment.
    fn ends_at(&self, mark: &Mark) -> bool {
        let tail = || -> io::Result<Vec<u8>> {
            let file = self.segments.file(mark.segment)?;
            let mut tail = vec![0; file.size()?.saturating_sub(mark.end) as usize];
            let count = file.read_at(mark.end, &mut tail)?;
            tail.truncate(count);
            Ok(tail)
        };
        tail().is_ok_and(|tail| format::is_blank(&tail))
    }

    /// The last thing before the mark was the mark of a clean end.
    fn is_clean_end(&self, mark: &Mark) -> bool {
        let Some(length) = format::batch_length(&mark.header) else { return false };
        let Some(offset) = mark.end.checked_sub(length as u64) else { return false };
        let Ok(batch) = self.segments.batch(mark.segment, offset) else { return false };
        match format::batch_at(&batch, 0) {
            Found::Batch(_, body) => format::facts_of(body, mark.segment, 0)
                .is_ok_and(|facts| facts.last().is_some_and(|(_, fact)| *fact == Fact::Closed)),
            Found::Newer(_) | Found::Nothing => false,
        }
    }

    fn bytes(&self, number: u64) -> io::Result<Vec<u8>> {
        let file = self.segments.file(number)?;
        let mut bytes = vec![0; file.size()? as usize];
        let count = file.read_at(0, &mut bytes)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// What was written but not synced may be in the page cache alone. So the last segment is written anew and synced,
    /// before anything in it is relied on. Positions stay what they are.
    fn copy_last(&self, number: u64, end: usize) -> io::Result<()> {
        const COPY: &str = "journal/recovering";
        let bytes = self.bytes(number)?;
        match self.disk.remove(COPY) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.disk.prepare(COPY, 0)?;
        let file = self.disk.open(COPY)?;
        file.write_at(0, &bytes[..end])?;
        file.sync_data()?;
        self.disk.rename(COPY, &segment::name(number))?;
        self.disk.sync_folder()?;
        self.segments.forget(number);
        Ok(())
    }
}
