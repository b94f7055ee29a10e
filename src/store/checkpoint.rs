//! The format of a checkpoint: one text with what is small, and one for the rows of each segment, so that only those that
//! changed are written again. A text that does not belong to the others is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::fact::Position;
use super::index::{Group, PageKind};
use super::page::{Contents, Origin};
use super::state::frozen::Frozen;
use super::state::rows::{AuditRow, DeliveryRow, EventRow, KeptConflict, Repeats, Shelf, Shelves};

/// A checkpoint of another version is passed over: the journal is read instead.
const FORMAT_VERSION: u16 = 2;

/// Where the journal stood: all facts before `end` of `segment` are in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) segment: u64,
    pub(crate) end: u64,
    /// Number of the next fact: the mark of a clean end is one, too, and changes no state.
    pub(crate) next: u64,
    /// Header of the last batch before it: a journal that has it there has the same history.
    pub(crate) header: Vec<u8>,
}

/// One segment in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Where its batches end.
    pub(crate) end: u64,
    pub(crate) contents: Contents,
    /// The checkpoint that wrote its rows.
    pub(crate) generation: u64,
    /// Of the text of its rows.
    pub(crate) checksum: u32,
}

type StoredPosition = (u64, u32, u32);

/// What a start reads first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    version: u16,
    pub(crate) mark: Mark,
    pub(crate) segments: BTreeMap<u32, Entry>,
    names: Vec<Arc<str>>,
    types: Vec<Arc<str>>,
    revisions: Vec<StoredPosition>,
    cells: Vec<StoredPosition>,
    secrets: Vec<StoredPosition>,
    retired: u64,
    epoch: u64,
    newest: i128,
}

pub(crate) fn manifest_group(generation: u64) -> Group {
    Group { kind: PageKind::Checkpoint, segment: 0, generation }
}

pub(crate) fn rows_group(segment: u32, generation: u64) -> Group {
    Group { kind: PageKind::Rows, segment: segment.into(), generation }
}

/// Rows change from one checkpoint to the next: their generation and checksum say which they are.
pub(crate) fn origin(journal: u64, segment: u64) -> Origin {
    Origin { journal, segment, mark: 0 }
}

impl Manifest {
    pub(crate) fn new(mark: Mark, segments: BTreeMap<u32, Entry>, frozen: &Frozen) -> Self {
        let place = |at: &Position| (at.segment, at.offset, at.index);
        Self {
            version: FORMAT_VERSION,
            mark,
            segments,
            names: frozen.names.clone(),
            types: frozen.types.clone(),
            revisions: frozen.revisions.iter().map(place).collect(),
            cells: frozen.cells.iter().map(place).collect(),
            secrets: frozen.secrets.iter().map(place).collect(),
            retired: frozen.retired,
            epoch: frozen.epoch,
            newest: frozen.newest.as_nanosecond(),
        }
    }

    pub(crate) fn to_text(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a growing buffer takes all; no shape here refuses")
    }

    /// `None`: it is none, or of another format.
    pub(crate) fn from_text(text: &[u8]) -> Option<Self> {
        let (version, _) = postcard::take_from_bytes::<u16>(text).ok()?;
        if version != FORMAT_VERSION {
            return None;
        }
        postcard::from_bytes(text).ok()
    }

    pub(crate) fn frozen(&self, shelves: Shelves) -> Option<Frozen> {
        let position =
            |&(segment, offset, index): &StoredPosition| Position { segment, offset, index };
        Some(Frozen {
            shelves,
            names: self.names.clone(),
            types: self.types.clone(),
            revisions: self.revisions.iter().map(position).collect(),
            cells: self.cells.iter().map(position).collect(),
            secrets: self.secrets.iter().map(position).collect(),
            retired: self.retired,
            epoch: self.epoch,
            next: self.mark.next,
            newest: Timestamp::from_nanosecond(self.newest).ok()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredRepeats {
    index: u32,
    duplicates: u64,
    conflict_count: u64,
    conflicts: Vec<(StoredPosition, u32, [u8; 32])>,
}

/// The rows of a segment as one text.
pub(crate) fn rows_text(shelf: &Shelf) -> Vec<u8> {
    let repeats: Vec<StoredRepeats> = shelf
        .repeats
        .iter()
        .map(|(index, repeats)| StoredRepeats {
            index: *index,
            duplicates: repeats.duplicates,
            conflict_count: repeats.conflict_count,
            conflicts: repeats
                .conflicts
                .iter()
                .map(|kept| {
                    ((kept.at.segment, kept.at.offset, kept.at.index), kept.number, kept.digest)
                })
                .collect(),
        })
        .collect();
    let rows = (&shelf.events, shelf.all_deliveries(), repeats, &shelf.audits, shelf.newest_s);
    postcard::to_stdvec(&rows).expect("a growing buffer takes all; no shape here refuses")
}

pub(crate) fn rows_of(text: &[u8]) -> Option<Shelf> {
    type Rows = (Vec<EventRow>, Vec<DeliveryRow>, Vec<StoredRepeats>, Vec<AuditRow>, u32);
    let (mut events, mut deliveries, repeats, audits, newest_s): Rows =
        postcard::from_bytes(text).ok()?;
    events.shrink_to_fit();
    deliveries.shrink_to_fit();
    let repeats = repeats.into_iter().map(|stored| {
        let conflicts = stored.conflicts.into_iter();
        let repeats = Repeats {
            duplicates: stored.duplicates,
            conflict_count: stored.conflict_count,
            conflicts: conflicts
                .map(|((segment, offset, index), number, digest)| KeptConflict {
                    at: Position { segment, offset, index },
                    number,
                    digest,
                })
                .collect(),
        };
        (stored.index, repeats)
    });
    Shelf::of(events, deliveries, repeats.collect(), audits, newest_s)
}
