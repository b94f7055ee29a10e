//! Facts as bytes. The shapes here are the format on disk: they change only together with [`VERSION`] of their kind,
//! whatever the types of the program become. JSON stands as text, for its numbers are kept to the digit.

mod captured;
mod carried;
mod delivery;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use self::captured::{StoredCaptured, StoredDropped};
use self::carried::{StoredAudited, StoredRemembered, StoredSnapshot};
use self::delivery::{StoredEntry, StoredStep};
use super::Change;
use super::fact::{Accepted, Changed, Fact, Planned, Position, Routed, RoutedDelivery};
use crate::body::BodyKind;
use crate::delivery::state::{Reason, Status, Transition, What};
use crate::envelope::{Envelope, Identity};
use crate::name::{DeliveryId, Uid};

/// Version of every kind's format, but for what is named beneath.
pub(crate) const VERSION: u8 = 1;
/// Of an intent that says what it sends. One that was written before stays in version 1.
const INTENDED_VERSION: u8 = 2;
/// Of a change that brings search terms, whatever its kind.
const TERMS_VERSION: u8 = 3;
/// Of an event that is carried forward.
const SNAPSHOT_VERSION: u8 = 2;
/// Of an event whose kind of body the first version did not know: in itself, and carried forward.
const ACCEPTED_KINDS_VERSION: u8 = 2;
const SNAPSHOT_KINDS_VERSION: u8 = 3;

/// The kinds, as numbers on disk. A number is never used again for something else.
mod kind {
    pub(super) const ACCEPTED: u8 = 1;
    pub(super) const DUPLICATE: u8 = 2;
    pub(super) const CONFLICT: u8 = 3;
    pub(super) const INTENDED: u8 = 4;
    pub(super) const OUTCOME: u8 = 5;
    pub(super) const OPERATED: u8 = 6;
    pub(super) const ROUTED: u8 = 7;
    pub(super) const CELL: u8 = 8;
    pub(super) const REVISION: u8 = 9;
    pub(super) const SNAPSHOT: u8 = 10;
    pub(super) const RETIRED: u8 = 11;
    pub(super) const OPENED: u8 = 12;
    pub(super) const CLOSED: u8 = 13;
    pub(super) const REMEMBERED: u8 = 14;
    pub(super) const AUDITED: u8 = 15;
    pub(super) const LOST: u8 = 16;
    pub(super) const SECRET_CAPTURED: u8 = 17;
    pub(super) const SECRET_DROPPED: u8 = 18;
}

/// Why bytes are no fact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("a fact of kind {kind} in format version {version} was written by a newer router")]
    Newer { kind: u8, version: u8 },
    #[error("a fact of kind {kind} cannot be read: {why}")]
    Broken { kind: u8, why: String },
    #[error("the facts end in the middle")]
    Short,
}

/// Appends one fact: kind, version, length, body.
pub(crate) fn encode(fact: &Fact, out: &mut Vec<u8>) {
    out.extend([kind_of(fact), version_of(fact)]);
    let length_at = out.len();
    out.extend([0; 4]);
    match fact {
        Fact::Accepted(accepted) => write(&StoredAccepted::of(accepted), out),
        Fact::Duplicate { uid } => write(uid, out),
        Fact::Conflict { uid, received_at, digest, body } => {
            let body = body.as_deref().map(Blob);
            write(
                &StoredConflict { uid: *uid, at: time(*received_at), digest: *digest, body },
                out,
            );
        }
        Fact::Changed(changed) if changed.terms.is_empty() => {
            write(&StoredChanged::of(changed), out);
        }
        Fact::Changed(changed) => write(&(StoredChanged::of(changed), &changed.terms), out),
        Fact::Routed(routed) => write(&StoredRouted::of(routed), out),
        Fact::Cell { name, version, value } => {
            write(&StoredCell { name, version: *version, value: Blob(value) }, out);
        }
        Fact::Revision { hash, text } => write(&(hash.as_str(), &**text), out),
        Fact::Snapshot(snapshot) => write(&StoredSnapshot::of(snapshot), out),
        Fact::Remembered(remembered) => write(&StoredRemembered::of(remembered), out),
        Fact::Audited(audited) => write(&StoredAudited::of(audited), out),
        Fact::SecretCaptured(secret) => write(&StoredCaptured::of(secret), out),
        Fact::SecretDropped(dropped) => write(&StoredDropped::of(dropped), out),
        Fact::Retired { segment } => write(segment, out),
        Fact::Opened { epoch } => write(epoch, out),
        Fact::Closed => {}
        Fact::Lost { facts, bytes } => {
            if *bytes > 0 {
                write(facts, out);
            }
            out.resize(length_at + 4 + *bytes as usize, 0);
        }
    }
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Kind, version, length.
pub(crate) const FACT_HEADER_BYTES: usize = 6;

/// Whether facts that this program can read may begin like this.
pub(crate) fn may_begin(bytes: &[u8]) -> bool {
    let [kind, version, a, b, c, d, rest @ ..] = bytes else { return false };
    (kind::ACCEPTED..=kind::SECRET_DROPPED).contains(kind)
        && (VERSION..=TERMS_VERSION).contains(version)
        && u32::from_le_bytes([*a, *b, *c, *d]) as usize <= rest.len()
}

/// Reads the facts that stand one after another in `bytes`.
pub(crate) fn decode_all(mut bytes: &[u8]) -> Result<Vec<Fact>, DecodeError> {
    let mut facts = Vec::new();
    while !bytes.is_empty() {
        let (fact, rest) = Unread::first(bytes)?;
        facts.push(fact.read()?);
        bytes = rest;
    }
    Ok(facts)
}

/// The fact with number `index`, from 0, of those that stand one after another in `bytes`; those before it are passed over
/// unread.
pub(crate) fn decode_one(mut bytes: &[u8], index: u32) -> Result<Option<Fact>, DecodeError> {
    for number in 0..=index {
        if bytes.is_empty() {
            return Ok(None);
        }
        let (fact, rest) = Unread::first(bytes)?;
        if number == index {
            return fact.read().map(Some);
        }
        bytes = rest;
    }
    Ok(None)
}

/// Where each of the facts in `bytes` begins.
pub(crate) fn starts(bytes: &[u8]) -> Result<Vec<u32>, DecodeError> {
    let mut starts = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        starts.push((bytes.len() - rest.len()) as u32);
        (_, rest) = Unread::first(rest)?;
    }
    Ok(starts)
}

/// A fact that was not read yet.
struct Unread<'a> {
    kind: u8,
    version: u8,
    body: &'a [u8],
}

impl<'a> Unread<'a> {
    /// The first of `bytes`, and what stands after it.
    fn first(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let [kind, version, a, b, c, d, rest @ ..] = bytes else { return Err(DecodeError::Short) };
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let (body, rest) = rest.split_at_checked(length).ok_or(DecodeError::Short)?;
        Ok((Self { kind: *kind, version: *version, body }, rest))
    }

    fn read(self) -> Result<Fact, DecodeError> {
        decode(self.kind, self.version, self.body)
    }
}

fn kind_of(fact: &Fact) -> u8 {
    match fact {
        Fact::Accepted(_) => kind::ACCEPTED,
        Fact::Duplicate { .. } => kind::DUPLICATE,
        Fact::Conflict { .. } => kind::CONFLICT,
        Fact::Changed(changed) => match changed.change.entry.what {
            What::Intended { .. } => kind::INTENDED,
            What::Attempted { .. } | What::StepDecided { .. } | What::Decided { .. } => {
                kind::OUTCOME
            }
            What::Operated { .. } => kind::OPERATED,
        },
        Fact::Routed(_) => kind::ROUTED,
        Fact::Cell { .. } => kind::CELL,
        Fact::Revision { .. } => kind::REVISION,
        Fact::Snapshot(_) => kind::SNAPSHOT,
        Fact::Remembered(_) => kind::REMEMBERED,
        Fact::Audited(_) => kind::AUDITED,
        Fact::SecretCaptured(_) => kind::SECRET_CAPTURED,
        Fact::SecretDropped(_) => kind::SECRET_DROPPED,
        Fact::Retired { .. } => kind::RETIRED,
        Fact::Opened { .. } => kind::OPENED,
        Fact::Closed => kind::CLOSED,
        Fact::Lost { .. } => kind::LOST,
    }
}

fn version_of(fact: &Fact) -> u8 {
    match fact {
        Fact::Changed(changed) if !changed.terms.is_empty() => TERMS_VERSION,
        Fact::Changed(changed) => match changed.change.entry.what {
            What::Intended { request: Some(_), .. } => INTENDED_VERSION,
            _ => VERSION,
        },
        Fact::Accepted(accepted) if is_later(&accepted.envelope.body_kind) => {
            ACCEPTED_KINDS_VERSION
        }
        Fact::Snapshot(snapshot) if is_later(&snapshot.envelope.body_kind) => {
            SNAPSHOT_KINDS_VERSION
        }
        Fact::Snapshot(_) => SNAPSHOT_VERSION,
        _ => VERSION,
    }
}

/// Whether a router that knows the first kinds of bodies alone would take the event for a damaged one: its version tells
/// that it is not.
fn is_later(kind: &BodyKind) -> bool {
    match kind {
        BodyKind::Json | BodyKind::Form | BodyKind::Text | BodyKind::Binary => false,
        BodyKind::Multipart { .. }
        | BodyKind::Jwt
        | BodyKind::JsonIn { .. }
        | BodyKind::Base64In { .. }
        | BodyKind::Xml { .. } => true,
    }
}

fn decode(kind: u8, version: u8, body: &[u8]) -> Result<Fact, DecodeError> {
    let read = Body { kind, body };
    let known: &[u8] = match kind {
        kind::INTENDED => &[VERSION, INTENDED_VERSION, TERMS_VERSION],
        kind::OUTCOME | kind::OPERATED => &[VERSION, TERMS_VERSION],
        kind::ACCEPTED => &[VERSION, ACCEPTED_KINDS_VERSION],
        kind::SNAPSHOT => &[SNAPSHOT_VERSION, SNAPSHOT_KINDS_VERSION],
        _ => &[VERSION],
    };
    if !known.contains(&version) {
        return Err(DecodeError::Newer { kind, version });
    }
    Ok(match kind {
        kind::ACCEPTED => Fact::Accepted(Box::new(read.read_as(StoredAccepted::back)?)),
        kind::DUPLICATE => Fact::Duplicate { uid: read.read_as(Some)? },
        kind::CONFLICT => read.read_as(|stored: StoredConflict| {
            Some(Fact::Conflict {
                uid: stored.uid,
                received_at: moment(stored.at)?,
                digest: stored.digest,
                body: stored.body.map(|body| Bytes::copy_from_slice(body.0)),
            })
        })?,
        kind::INTENDED | kind::OUTCOME | kind::OPERATED if version == TERMS_VERSION => {
            Fact::Changed(Box::new(read.read_as(|(stored, terms): (StoredChanged, _)| {
                Some(Changed { terms, ..stored.back()? })
            })?))
        }
        kind::INTENDED | kind::OUTCOME | kind::OPERATED => {
            Fact::Changed(Box::new(read.read_as(StoredChanged::back)?))
        }
        kind::ROUTED => Fact::Routed(Box::new(read.read_as(StoredRouted::back)?)),
        kind::CELL => read.read_as(|stored: StoredCell| {
            let value = Bytes::copy_from_slice(stored.value.0);
            Some(Fact::Cell { name: stored.name.to_owned(), version: stored.version, value })
        })?,
        kind::REVISION => read.read_as(|(hash, text): (&str, &str)| {
            Some(Fact::Revision { hash: hash.into(), text: text.into() })
        })?,
        kind::SNAPSHOT => Fact::Snapshot(Box::new(read.read_as(StoredSnapshot::back)?)),
        kind::REMEMBERED => Fact::Remembered(Box::new(read.read_as(StoredRemembered::back)?)),
        kind::AUDITED => Fact::Audited(Box::new(read.read_as(StoredAudited::back)?)),
        kind::RETIRED => Fact::Retired { segment: read.read_as(Some)? },
        kind::OPENED => Fact::Opened { epoch: read.read_as(Some)? },
        kind::CLOSED if body.is_empty() => Fact::Closed,
        // It fills a place of any size: the smallest one has no room to say how many they were.
        kind::LOST if body.is_empty() => Fact::Lost { facts: 1, bytes: 0 },
        kind::LOST => {
            let (facts, _) = postcard::take_from_bytes::<u64>(body)
                .map_err(|error| DecodeError::Broken { kind, why: error.to_string() })?;
            Fact::Lost { facts, bytes: body.len() as u32 }
        }
        kind::SECRET_CAPTURED => {
            Fact::SecretCaptured(Arc::new(read.read_as(StoredCaptured::back)?))
        }
        kind::SECRET_DROPPED => Fact::SecretDropped(read.read_as(StoredDropped::back)?),
        // A kind that this program does not know may change what all others mean.
        _ => return Err(DecodeError::Newer { kind, version }),
    })
}

fn write<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let body = std::mem::take(out);
    *out = postcard::to_extend(value, body)
        .expect("a growing buffer takes all; no shape here refuses");
}

struct Body<'a> {
    kind: u8,
    body: &'a [u8],
}

impl<'a> Body<'a> {
    /// The whole body as the stored shape `S`, and what that stands for.
    fn read_as<S: Deserialize<'a>, T>(
        self,
        back: impl FnOnce(S) -> Option<T>,
    ) -> Result<T, DecodeError> {
        let broken = |why: String| DecodeError::Broken { kind: self.kind, why };
        let (stored, rest) =
            postcard::take_from_bytes(self.body).map_err(|error| broken(error.to_string()))?;
        if !rest.is_empty() {
            return Err(broken(format!("{} bytes too many", rest.len())));
        }
        back(stored).ok_or_else(|| broken("a value is out of its range".into()))
    }
}

/// Bytes in one piece.
#[derive(Deserialize)]
#[serde(transparent)]
struct Blob<'a>(&'a [u8]);

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Nanoseconds since 1970.
type Time = i128;

fn time(timestamp: Timestamp) -> Time {
    timestamp.as_nanosecond()
}

fn moment(time: Time) -> Option<Timestamp> {
    Timestamp::from_nanosecond(time).ok()
}

fn maybe_moment(time: Option<Time>) -> Option<Option<Timestamp>> {
    match time {
        None => Some(None),
        Some(time) => moment(time).map(Some),
    }
}

type Pairs<'a> = Vec<(&'a str, &'a str)>;

fn pairs(pairs: &[(String, String)]) -> Pairs<'_> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn owned(pairs: Pairs) -> Vec<(String, String)> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Its fields stand one after another, as if they were those of what it is a part of.
#[derive(Serialize, Deserialize)]
struct StoredEnvelope<'a> {
    uid: Uid,
    event_id: &'a str,
    event_type: &'a str,
    source: &'a str,
    occurred_at: Option<Time>,
    received_at: Time,
    correlation_id: &'a str,
    method: &'a str,
    #[serde(borrow)]
    path: Pairs<'a>,
    query: Pairs<'a>,
    headers: Pairs<'a>,
    body_kind: BodyKind,
    malformed: Option<&'a str>,
    body: Blob<'a>,
}

#[derive(Serialize, Deserialize)]
struct StoredAccepted<'a> {
    #[serde(borrow)]
    envelope: StoredEnvelope<'a>,
    identities: Vec<Identity>,
    body_digest: [u8; 32],
    deliveries: Vec<StoredPlanned<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredPlanned<'a> {
    route: &'a str,
    revision: &'a str,
    key_base: &'a str,
}

impl<'a> StoredPlanned<'a> {
    fn of(planned: &'a Planned) -> Self {
        Self {
            route: planned.route.as_str(),
            revision: planned.revision.as_str(),
            key_base: &planned.key_base,
        }
    }

    fn back(self) -> Planned {
        Planned {
            route: self.route.into(),
            revision: self.revision.into(),
            key_base: self.key_base.to_owned(),
        }
    }
}

impl<'a> StoredEnvelope<'a> {
    fn of(envelope: &'a Envelope) -> Self {
        Self {
            uid: envelope.uid,
            event_id: envelope.event_id.as_str(),
            event_type: &envelope.event_type,
            source: envelope.source.as_str(),
            occurred_at: envelope.occurred_at.map(time),
            received_at: time(envelope.received_at),
            correlation_id: envelope.correlation_id.as_str(),
            method: &envelope.method,
            path: pairs(&envelope.path),
            query: pairs(&envelope.query),
            headers: pairs(&envelope.headers),
            body_kind: envelope.body_kind.clone(),
            malformed: envelope.malformed.as_deref(),
            body: Blob(&envelope.body),
        }
    }

    fn back(self) -> Option<Envelope> {
        Some(Envelope {
            uid: self.uid,
            event_id: self.event_id.into(),
            event_type: self.event_type.to_owned(),
            source: self.source.into(),
            occurred_at: maybe_moment(self.occurred_at)?,
            received_at: moment(self.received_at)?,
            correlation_id: self.correlation_id.into(),
            method: self.method.to_owned(),
            path: owned(self.path),
            query: owned(self.query),
            headers: owned(self.headers),
            body_kind: self.body_kind,
            body: Bytes::copy_from_slice(self.body.0),
            malformed: self.malformed.map(str::to_owned),
        })
    }
}

impl<'a> StoredAccepted<'a> {
    fn of(accepted: &'a Accepted) -> Self {
        Self {
            envelope: StoredEnvelope::of(&accepted.envelope),
            identities: accepted.identities.clone(),
            body_digest: accepted.body_digest,
            deliveries: accepted.deliveries.iter().map(StoredPlanned::of).collect(),
        }
    }

    fn back(self) -> Option<Accepted> {
        Some(Accepted {
            envelope: Arc::new(self.envelope.back()?),
            identities: self.identities,
            body_digest: self.body_digest,
            deliveries: self.deliveries.into_iter().map(StoredPlanned::back).collect(),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredConflict<'a> {
    uid: Uid,
    at: Time,
    digest: [u8; 32],
    #[serde(borrow)]
    body: Option<Blob<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredCell<'a> {
    name: &'a str,
    version: u64,
    #[serde(borrow)]
    value: Blob<'a>,
}

type StoredPosition = (u64, u32, u32);

fn place(position: Position) -> StoredPosition {
    (position.segment, position.offset, position.index)
}

fn position((segment, offset, index): StoredPosition) -> Position {
    Position { segment, offset, index }
}

#[derive(Serialize, Deserialize)]
struct StoredChanged<'a> {
    uid: Uid,
    route: &'a str,
    version: u64,
    previous: StoredPosition,
    #[serde(borrow)]
    entry: StoredEntry<'a>,
    status: Status,
    due_at: Option<Time>,
    reason: Option<Reason>,
    steps: Vec<StoredStep<'a>>,
    revision: Option<&'a str>,
}

impl<'a> StoredChanged<'a> {
    fn of(changed: &'a Changed) -> Self {
        let Change { entry, transition, .. } = &changed.change;
        Self {
            uid: changed.delivery.uid,
            route: changed.delivery.route.as_str(),
            version: changed.version,
            previous: place(changed.previous),
            entry: StoredEntry::of(entry),
            status: transition.status,
            due_at: transition.due_at.map(time),
            reason: transition.reason.clone(),
            steps: transition.steps.iter().map(StoredStep::of).collect(),
            revision: transition.revision.as_ref().map(|revision| revision.as_str()),
        }
    }

    fn back(self) -> Option<Changed> {
        let transition = Transition {
            status: self.status,
            due_at: maybe_moment(self.due_at)?,
            reason: self.reason,
            steps: self.steps.into_iter().map(StoredStep::back).collect::<Option<_>>()?,
            revision: self.revision.map(Into::into),
        };
        Some(Changed {
            delivery: DeliveryId { uid: self.uid, route: self.route.into() },
            version: self.version,
            previous: position(self.previous),
            change: Change { entry: self.entry.back()?, transition, terms: Vec::new() },
            terms: Vec::new(),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredRouted<'a> {
    uid: Uid,
    accepted: StoredPosition,
    #[serde(borrow)]
    entry: StoredEntry<'a>,
    deliveries: Vec<(StoredPlanned<'a>, u64, Option<StoredPosition>)>,
}

impl<'a> StoredRouted<'a> {
    fn of(routed: &'a Routed) -> Self {
        let delivery = |delivery: &'a RoutedDelivery| {
            (StoredPlanned::of(&delivery.planned), delivery.version, delivery.previous.map(place))
        };
        Self {
            uid: routed.uid,
            accepted: place(routed.accepted),
            entry: StoredEntry::of(&routed.entry),
            deliveries: routed.deliveries.iter().map(delivery).collect(),
        }
    }

    fn back(self) -> Option<Routed> {
        let delivery = |(planned, version, previous): (StoredPlanned, u64, Option<_>)| {
            RoutedDelivery { planned: planned.back(), version, previous: previous.map(position) }
        };
        Some(Routed {
            uid: self.uid,
            accepted: position(self.accepted),
            entry: self.entry.back()?,
            deliveries: self.deliveries.into_iter().map(delivery).collect(),
        })
    }
}
