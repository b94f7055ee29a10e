//! What the journal says: one fact per thing that happened, and where it stands. Facts are the only way the state
//! changes, so a store is its facts, in order. How they are written is `codec`'s business.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::{Change, NewDelivery, StoreError};
use crate::delivery::state::{DeliveryState, Entry};
use crate::envelope::{Envelope, Identity};
use crate::name::{DeliveryId, RevisionHash, RouteName, Uid};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact {
    /// An event was taken in, with its deliveries.
    Accepted(Box<Accepted>),
    /// A known event came again.
    Duplicate { uid: Uid },
    /// A known id came with another body; `body` is there where it is kept for a person.
    Conflict { uid: Uid, received_at: Timestamp, digest: [u8; 32], body: Option<Bytes> },
    /// A delivery moved on by one version.
    Changed(Box<Changed>),
    /// Routes took a stored event anew.
    Routed(Box<Routed>),
    /// The text of a route, under its hash.
    Revision { hash: RevisionHash, text: Arc<str> },
    /// A small named state.
    Cell { name: String, version: u64, value: Bytes },
    /// A delivery carried forward whole: replaces anything lower.
    Snapshot(Box<DeliveryState>),
    /// A segment went for good.
    Retired { segment: u64 },
    /// A writer began; `epoch` counts them.
    Opened { epoch: u64 },
    /// A writer ended cleanly: everything before is on the medium.
    Closed,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Accepted {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) identities: Vec<Identity>,
    pub(crate) body_digest: [u8; 32],
    pub(crate) deliveries: Vec<Planned>,
}

/// A delivery as it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planned {
    pub(crate) route: RouteName,
    pub(crate) revision: RevisionHash,
    pub(crate) key_base: String,
}

impl Planned {
    pub(crate) fn new(delivery: NewDelivery, with_body: bool) -> Self {
        let NewDelivery { route, revision, key_base, key_base_with_body } = delivery;
        let key_base = if with_body { key_base_with_body } else { key_base };
        Self { route, revision, key_base }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Changed {
    pub(crate) delivery: DeliveryId,
    /// The delivery's version after this change.
    pub(crate) version: u64,
    /// The delivery's fact before this one.
    pub(crate) previous: Position,
    pub(crate) change: Change,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Routed {
    pub(crate) uid: Uid,
    /// Where the event was accepted.
    pub(crate) accepted: Position,
    pub(crate) entry: Entry,
    pub(crate) deliveries: Vec<RoutedDelivery>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RoutedDelivery {
    pub(crate) planned: Planned,
    /// The version after this fact.
    pub(crate) version: u64,
    /// Where an ignored delivery starts over: its fact before this one.
    pub(crate) previous: Option<Position>,
}

/// Where a fact stands: in the frame that begins at `offset` of `segment`, as number `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u32,
    pub(crate) index: u32,
}

/// Gives a fact back by its position.
pub(crate) trait ReadFacts {
    fn read(&self, at: Position) -> Result<Arc<Fact>, StoreError>;
}

impl Accepted {
    pub(crate) fn read(facts: &dyn ReadFacts, at: Position) -> Result<Arc<Fact>, StoreError> {
        let fact = facts.read(at)?;
        match &*fact {
            Fact::Accepted(_) => Ok(fact),
            _ => Err(StoreError::Corrupt(format!("no accepted event stands at {at}"))),
        }
    }

    pub(crate) fn envelope(
        facts: &dyn ReadFacts,
        at: Position,
    ) -> Result<Arc<Envelope>, StoreError> {
        match &*facts.read(at)? {
            Fact::Accepted(accepted) => Ok(accepted.envelope.clone()),
            _ => Err(StoreError::Corrupt(format!("no accepted event stands at {at}"))),
        }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segment {}, offset {}, fact {}", self.segment, self.offset, self.index)
    }
}
