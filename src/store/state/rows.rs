//! What is remembered of each event: one small row, and one for each of its deliveries, by the segment in which the event
//! stands. All else is read in the journal, where the rows say.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::delivery::state::Status;
use crate::name::Uid;
use crate::store::StoreError;
use crate::store::fact::Position;

/// An event, as its place among all of them: segment, and row in it. Ordered as they were taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EventKey {
    pub(crate) segment: u32,
    pub(crate) index: u32,
}

impl EventKey {
    /// As one number, which orders the same.
    pub(crate) fn sequence(self) -> u64 {
        u64::from(self.segment) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_sequence(sequence: u64) -> Self {
        Self { segment: (sequence >> 32) as u32, index: sequence as u32 }
    }
}

/// A delivery by its numbers: event, and delivery within the event.
pub(crate) type Slot = (EventKey, u16);

/// What a row stands for. The numbers stand on pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub(crate) enum RowKind {
    Event,
    /// It could not be read, and is in review.
    Malformed,
    /// Its payload has expired; what it is known by is remembered.
    Remembered,
    /// It stands elsewhere by now, or has expired.
    Gone,
}

/// No number: the text is read where it stands.
const NO_WORD: u16 = u16::MAX;
const NO_CAUSE: u32 = u32::MAX;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventRow {
    pub(crate) uid: Uid,
    /// Where the fact stands that has it.
    pub(crate) offset: u32,
    /// Of its deliveries.
    first: u32,
    /// Time of receipt in seconds since 1970.
    pub(crate) received_s: u32,
    pub(crate) index: u16,
    count: u16,
    source: u16,
    event_type: u16,
    pub(crate) kind: RowKind,
}

impl EventRow {
    pub(crate) fn source(&self) -> Option<u16> {
        (self.source != NO_WORD).then_some(self.source)
    }

    pub(crate) fn event_type(&self) -> Option<u16> {
        (self.event_type != NO_WORD).then_some(self.event_type)
    }

    pub(crate) fn is_stored(&self) -> bool {
        matches!(self.kind, RowKind::Event | RowKind::Malformed)
    }
}

/// Whole seconds since 1970, as far as they fit.
pub(crate) fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.as_second().max(0)).unwrap_or(u32::MAX)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeliveryRow {
    /// Number of the route's name.
    pub(crate) route: u32,
    version: u32,
    pub(crate) attempts: u32,
    cause: u32,
    last_segment: u32,
    last_offset: u32,
    /// When it changed last, in seconds since 1970.
    pub(crate) changed_s: u32,
    last_index: u16,
    pub(crate) status: Status,
    /// It is finished, and one of its steps holds an explicit key and is not done: a person decides.
    pub(crate) holds_key: bool,
}

impl DeliveryRow {
    pub(crate) fn new(route: u32, last: Position) -> Result<Self, StoreError> {
        let mut row = Self {
            route,
            version: 0,
            attempts: 0,
            cause: NO_CAUSE,
            last_segment: 0,
            last_offset: 0,
            changed_s: 0,
            last_index: 0,
            status: Status::Queued,
            holds_key: false,
        };
        row.set_last(last)?;
        Ok(row)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.into()
    }

    pub(crate) fn set_version(&mut self, version: u64) {
        // Four thousand million changes of one delivery are out of reach of any retry policy.
        self.version = u32::try_from(version).unwrap_or(u32::MAX);
    }

    pub(crate) fn cause(&self) -> Option<u32> {
        (self.cause != NO_CAUSE).then_some(self.cause)
    }

    pub(crate) fn set_cause(&mut self, cause: Option<u32>) {
        self.cause = cause.unwrap_or(NO_CAUSE);
    }

    /// The delivery's last fact: the head of the chain that its timeline is read from.
    pub(crate) fn last(&self) -> Position {
        Position {
            segment: self.last_segment.into(),
            offset: self.last_offset,
            index: self.last_index.into(),
        }
    }

    pub(crate) fn set_last(&mut self, last: Position) -> Result<(), StoreError> {
        (self.last_segment, self.last_offset, self.last_index) =
            (segment_of(last)?, last.offset, index_of(last)?);
        Ok(())
    }
}

pub(crate) fn segment_of(at: Position) -> Result<u32, StoreError> {
    u32::try_from(at.segment)
        .map_err(|_| StoreError::Corrupt(format!("{at}: no journal has so many segments")))
}

fn index_of(at: Position) -> Result<u16, StoreError> {
    u16::try_from(at.index)
        .map_err(|_| StoreError::Corrupt(format!("{at}: no frame has so many facts")))
}

/// What came again under an event's identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repeats {
    pub(crate) duplicates: u64,
    pub(crate) conflict_count: u64,
    /// Those kept for a person: when each came, the digest of its body, and where it stands (the fact, and, where that is a
    /// snapshot, the number within it).
    pub(crate) conflicts: Vec<KeptConflict>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptConflict {
    pub(crate) at: Position,
    pub(crate) number: u32,
    pub(crate) digest: [u8; 32],
}

/// An operator's action on an event that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditRow {
    pub(crate) offset: u32,
    pub(crate) index: u16,
    /// Seconds since 1970.
    pub(crate) at_s: u32,
}

/// The rows of one segment, in the order of the journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Shelf {
    pub(crate) events: Vec<EventRow>,
    deliveries: Vec<DeliveryRow>,
    pub(crate) repeats: BTreeMap<u32, Repeats>,
    pub(crate) audits: Vec<AuditRow>,
    /// The time that it was when something was written here last, in seconds since 1970.
    pub(crate) newest_s: u32,
    /// Counts the times that it was changed in this process.
    pub(crate) changes: u64,
}

/// What a new row is made of.
pub(crate) struct NewRow {
    pub(crate) uid: Uid,
    pub(crate) received_at: Timestamp,
    pub(crate) source: Option<u16>,
    pub(crate) event_type: Option<u16>,
    pub(crate) kind: RowKind,
}

impl Shelf {
    pub(crate) fn of(
        events: Vec<EventRow>,
        deliveries: Vec<DeliveryRow>,
        repeats: BTreeMap<u32, Repeats>,
        audits: Vec<AuditRow>,
        newest_s: u32,
    ) -> Option<Self> {
        let whole =
            |row: &EventRow| row.first as usize + usize::from(row.count) <= deliveries.len();
        if !events.iter().all(whole) {
            return None;
        }
        Some(Self { events, deliveries, repeats, audits, newest_s, changes: 0 })
    }

    pub(crate) fn push(&mut self, at: Position, new: NewRow) -> Result<u32, StoreError> {
        let index = self.events.len() as u32;
        self.events.push(EventRow {
            uid: new.uid,
            offset: at.offset,
            first: self.deliveries.len() as u32,
            received_s: seconds(new.received_at),
            index: index_of(at)?,
            count: 0,
            source: new.source.unwrap_or(NO_WORD),
            event_type: new.event_type.unwrap_or(NO_WORD),
            kind: new.kind,
        });
        Ok(index)
    }

    pub(crate) fn row(&self, index: u32) -> Option<&EventRow> {
        self.events.get(index as usize)
    }

    /// The row of the fact at this place.
    pub(crate) fn row_at(&self, offset: u32, index: u32) -> Option<u32> {
        let place = |row: &EventRow| (row.offset, u32::from(row.index));
        self.events.binary_search_by_key(&(offset, index), place).ok().map(|found| found as u32)
    }

    pub(crate) fn deliveries_of(&self, row: &EventRow) -> &[DeliveryRow] {
        &self.deliveries[row.first as usize..][..usize::from(row.count)]
    }

    pub(crate) fn all_deliveries(&self) -> &[DeliveryRow] {
        &self.deliveries
    }

    pub(crate) fn delivery_mut(&mut self, index: u32, delivery: u16) -> &mut DeliveryRow {
        let first = self.events[index as usize].first;
        &mut self.deliveries[first as usize + usize::from(delivery)]
    }

    /// One more delivery of an event. They stand side by side: others that came after its last one are not in the way.
    pub(crate) fn add_delivery(&mut self, index: u32, delivery: DeliveryRow) -> u16 {
        let row = &mut self.events[index as usize];
        let (first, count) = (row.first as usize, usize::from(row.count));
        if first + count != self.deliveries.len() {
            row.first = self.deliveries.len() as u32;
            self.deliveries.extend_from_within(first..first + count);
        }
        self.deliveries.push(delivery);
        let row = &mut self.events[index as usize];
        row.count += 1;
        row.count - 1
    }

    /// The event stands elsewhere, or has expired.
    pub(crate) fn drop_event(&mut self, index: u32) {
        let row = &mut self.events[index as usize];
        row.kind = RowKind::Gone;
        row.count = 0;
        self.repeats.remove(&index);
    }

    /// Nothing is added any more.
    pub(crate) fn shrink(&mut self) {
        self.events.shrink_to_fit();
        self.deliveries.shrink_to_fit();
    }
}

/// Shelves are shared with whoever writes them down; who changes one meanwhile gets a copy of its own.
pub(crate) type Shelves = BTreeMap<u32, Arc<Shelf>>;

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of memory stand on these.
    #[test]
    fn rows_are_small() {
        assert_eq!(size_of::<EventRow>(), 40);
        assert_eq!(size_of::<DeliveryRow>(), 32);
        assert_eq!(size_of::<(u64, EventKey)>(), 16);
    }

    #[test]
    fn deliveries_of_an_event_stand_side_by_side() {
        let mut shelf = Shelf::default();
        let at = |offset| Position { segment: 1, offset, index: 0 };
        for number in 0..3u32 {
            let new = NewRow {
                uid: Uid(uuid::Uuid::from_u128(number.into())),
                received_at: Timestamp::UNIX_EPOCH,
                source: None,
                event_type: Some(3),
                kind: RowKind::Event,
            };
            let index = shelf.push(at(number * 10), new).unwrap();
            shelf.add_delivery(index, DeliveryRow::new(number, at(number * 10)).unwrap());
        }
        assert_eq!(shelf.add_delivery(0, DeliveryRow::new(7, at(99)).unwrap()), 1);
        assert_eq!(shelf.add_delivery(1, DeliveryRow::new(8, at(99)).unwrap()), 1);
        let routes = |index: u32| -> Vec<u32> {
            let row = shelf.row(index).unwrap();
            shelf.deliveries_of(row).iter().map(|delivery| delivery.route).collect()
        };
        assert_eq!((routes(0), routes(1), routes(2)), (vec![0, 7], vec![1, 8], vec![2]));
        assert_eq!(shelf.row_at(20, 0), Some(2));
        assert_eq!(shelf.row_at(20, 1), None);
        let too_far = Position { segment: 1 << 40, offset: 0, index: 0 };
        assert!(DeliveryRow::new(1, too_far).is_err());
    }
}
