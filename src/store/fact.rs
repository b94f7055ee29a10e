//! What the journal says: one fact per thing that happened, and where it stands. Facts are the only way the state
//! changes, so a store is its facts, in order. How they are written is `codec`'s business.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use super::captured::{CapturedSecret, DroppedSecret};
use super::{Change, NewDelivery, StoreError};
use crate::delivery::state::{DeliveryState, Entry};
use crate::envelope::{Envelope, Identity};
use crate::name::{DeliveryId, EventId, RevisionHash, RouteName, SourceName, Uid};

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
    /// An event carried forward whole: from here on it stands here, and nowhere before.
    Snapshot(Box<Snapshot>),
    /// An event expired: what it is known by stays.
    Remembered(Box<Remembered>),
    /// What an operator did to an event that expired.
    Audited(Box<Audited>),
    /// A handshake brought a secret. Carried forward it says the same again.
    SecretCaptured(Arc<CapturedSecret>),
    /// An operator took a secret away.
    SecretDropped(DroppedSecret),
    /// A segment went for good.
    Retired { segment: u64 },
    /// A writer began; `epoch` counts them.
    Opened { epoch: u64 },
    /// A writer ended cleanly: everything before is on the medium.
    Closed,
    /// A repair wrote this where so many facts stood that do not prove themselves any more. It fills their place, so that
    /// all others keep theirs.
    Lost {
        facts: u64,
        /// Size of its body.
        bytes: u32,
    },
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
    /// Keyed hashes by which its event may be searched.
    pub(crate) terms: Vec<u64>,
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

/// An event as it was when it was carried forward.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) identities: Vec<Identity>,
    pub(crate) body_digest: [u8; 32],
    pub(crate) duplicates: u64,
    pub(crate) conflict_count: u64,
    pub(crate) conflicts: Vec<CarriedConflict>,
    pub(crate) deliveries: Vec<CarriedDelivery>,
    /// Search terms that came with its deliveries.
    pub(crate) terms: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CarriedConflict {
    pub(crate) received_at: Timestamp,
    pub(crate) digest: [u8; 32],
    pub(crate) body: Bytes,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CarriedDelivery {
    pub(crate) state: DeliveryState,
    /// Its timeline, oldest first.
    pub(crate) entries: Vec<Entry>,
}

/// What is left of an event whose payload has expired: enough to know a resend, and to answer for an explicit key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Remembered {
    pub(crate) uid: Uid,
    pub(crate) event_id: EventId,
    pub(crate) source: SourceName,
    /// When it was finished: `dedupe` counts from here.
    pub(crate) since: Timestamp,
    /// Wide keyed hashes.
    pub(crate) identities: Vec<[u8; 16]>,
    pub(crate) body_digest: [u8; 32],
    pub(crate) keys: Vec<RememberedKey>,
}

/// An explicit key whose call was made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RememberedKey {
    /// Wide keyed hash of route, step and key.
    pub(crate) key: [u8; 16],
    pub(crate) route: RouteName,
    pub(crate) saved: Map<String, Json>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Audited {
    pub(crate) uid: Uid,
    pub(crate) event_id: EventId,
    pub(crate) route: RouteName,
    pub(crate) entry: Entry,
}

/// What an event is compared by.
pub(crate) struct EventFact<'a> {
    pub(crate) envelope: &'a Arc<Envelope>,
    pub(crate) identities: &'a [Identity],
    pub(crate) body_digest: &'a [u8; 32],
}

impl Fact {
    /// The event that stands in this fact.
    pub(crate) fn event(&self) -> Option<EventFact<'_>> {
        match self {
            Fact::Accepted(accepted) => Some(EventFact {
                envelope: &accepted.envelope,
                identities: &accepted.identities,
                body_digest: &accepted.body_digest,
            }),
            Fact::Snapshot(snapshot) => Some(EventFact {
                envelope: &snapshot.envelope,
                identities: &snapshot.identities,
                body_digest: &snapshot.body_digest,
            }),
            Fact::Duplicate { .. }
            | Fact::Conflict { .. }
            | Fact::Changed(_)
            | Fact::Routed(_)
            | Fact::Revision { .. }
            | Fact::Cell { .. }
            | Fact::Remembered(_)
            | Fact::Audited(_)
            | Fact::SecretCaptured(_)
            | Fact::SecretDropped(_)
            | Fact::Retired { .. }
            | Fact::Opened { .. }
            | Fact::Closed
            | Fact::Lost { .. } => None,
        }
    }

    /// How many numbers it takes.
    pub(crate) fn numbers(&self) -> u64 {
        match self {
            Fact::Lost { facts, .. } => *facts,
            _ => 1,
        }
    }

    /// The newest time that it names.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        match self {
            Fact::Accepted(accepted) => Some(accepted.envelope.received_at),
            Fact::Conflict { received_at, .. } => Some(*received_at),
            Fact::Changed(changed) => Some(changed.change.entry.at),
            Fact::Routed(routed) => Some(routed.entry.at),
            Fact::SecretCaptured(secret) => Some(secret.captured_at),
            Fact::SecretDropped(dropped) => Some(dropped.at),
            // Of older things these tell again, which keep their own times.
            Fact::Snapshot(_) | Fact::Remembered(_) | Fact::Audited(_) => None,
            Fact::Duplicate { .. }
            | Fact::Revision { .. }
            | Fact::Cell { .. }
            | Fact::Retired { .. }
            | Fact::Opened { .. }
            | Fact::Closed
            | Fact::Lost { .. } => None,
        }
    }
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

/// The envelope of the event that stands there.
pub(crate) fn envelope_at(
    facts: &dyn ReadFacts,
    at: Position,
) -> Result<Arc<Envelope>, StoreError> {
    match facts.read(at)?.event() {
        Some(event) => Ok(event.envelope.clone()),
        None => Err(StoreError::Corrupt(format!("no event stands at {at}"))),
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segment {}, offset {}, fact {}", self.segment, self.offset, self.index)
    }
}
