//! Facts as bytes. The shapes here are the format on disk: they change only together with [`VERSION`] of their kind,
//! whatever the types of the program become. JSON stands as text, for its numbers are kept to the digit.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value as Json};

use super::Change;
use super::fact::{Accepted, Changed, Fact, Planned, Position, Routed, RoutedDelivery};
use crate::delivery::outcome::OutcomeClass;
use crate::delivery::state::{
    Attempt, AttemptResult, DeliveryState, Entry, IdempotencyKey, KeyClaim, Reason, Status,
    StepState, StepStatus, Transition, What,
};
use crate::envelope::{BodyKind, Envelope, Identity};
use crate::name::{DeliveryId, Uid};

/// Version of every kind's format, but for what is named beneath.
pub(crate) const VERSION: u8 = 1;
/// Of an intent that says what it sends. One that was written before stays in version 1.
const INTENDED_VERSION: u8 = 2;

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
        Fact::Changed(changed) => write(&StoredChanged::of(changed), out),
        Fact::Routed(routed) => write(&StoredRouted::of(routed), out),
        Fact::Cell { name, version, value } => {
            write(&StoredCell { name, version: *version, value: Blob(value) }, out);
        }
        Fact::Revision { hash, text } => write(&(hash.as_str(), &**text), out),
        Fact::Snapshot(state) => write(&StoredDelivery::of(state), out),
        Fact::Retired { segment } => write(segment, out),
        Fact::Opened { epoch } => write(epoch, out),
        Fact::Closed => {}
    }
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Reads the facts that stand one after another in `bytes`.
pub(crate) fn decode_all(mut bytes: &[u8]) -> Result<Vec<Fact>, DecodeError> {
    let mut facts = Vec::new();
    while !bytes.is_empty() {
        let [kind, version, a, b, c, d, rest @ ..] = bytes else { return Err(DecodeError::Short) };
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let (body, rest) = rest.split_at_checked(length).ok_or(DecodeError::Short)?;
        facts.push(decode(*kind, *version, body)?);
        bytes = rest;
    }
    Ok(facts)
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
        Fact::Retired { .. } => kind::RETIRED,
        Fact::Opened { .. } => kind::OPENED,
        Fact::Closed => kind::CLOSED,
    }
}

fn version_of(fact: &Fact) -> u8 {
    match fact {
        Fact::Changed(changed) => match changed.change.entry.what {
            What::Intended { request: Some(_), .. } => INTENDED_VERSION,
            _ => VERSION,
        },
        _ => VERSION,
    }
}

fn decode(kind: u8, version: u8, body: &[u8]) -> Result<Fact, DecodeError> {
    let read = Body { kind, body };
    let known = version == VERSION || (kind == kind::INTENDED && version == INTENDED_VERSION);
    if !known {
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
        kind::SNAPSHOT => Fact::Snapshot(Box::new(read.read_as(StoredDelivery::back)?)),
        kind::RETIRED => Fact::Retired { segment: read.read_as(Some)? },
        kind::OPENED => Fact::Opened { epoch: read.read_as(Some)? },
        kind::CLOSED if body.is_empty() => Fact::Closed,
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

#[derive(Serialize, Deserialize)]
struct StoredAccepted<'a> {
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

impl<'a> StoredAccepted<'a> {
    fn of(accepted: &'a Accepted) -> Self {
        let envelope = &*accepted.envelope;
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
            body_kind: envelope.body_kind,
            malformed: envelope.malformed.as_deref(),
            body: Blob(&envelope.body),
            identities: accepted.identities.clone(),
            body_digest: accepted.body_digest,
            deliveries: accepted.deliveries.iter().map(StoredPlanned::of).collect(),
        }
    }

    fn back(self) -> Option<Accepted> {
        let envelope = Envelope {
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
        };
        Some(Accepted {
            envelope: Arc::new(envelope),
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
        let Change { entry, transition } = &changed.change;
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
            change: Change { entry: self.entry.back()?, transition },
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

#[derive(Serialize, Deserialize)]
struct StoredEntry<'a> {
    at: Time,
    #[serde(borrow)]
    what: StoredWhat<'a>,
}

#[derive(Serialize, Deserialize)]
enum StoredWhat<'a> {
    Intended {
        step: &'a str,
        attempt: u32,
        key: Option<IdempotencyKey>,
        digest: &'a str,
    },
    Attempted {
        step: &'a str,
        attempt: StoredAttempt<'a>,
    },
    StepDecided {
        step: &'a str,
        status: StepStatus,
        why: &'a str,
    },
    Decided {
        why: &'a str,
    },
    Operated {
        actor: &'a str,
        action: &'a str,
        note: Option<&'a str>,
    },
    /// From [`INTENDED_VERSION`] on.
    Requested {
        step: &'a str,
        attempt: u32,
        key: Option<IdempotencyKey>,
        request: &'a str,
        digest: &'a str,
    },
}

#[derive(Serialize, Deserialize)]
struct StoredAttempt<'a> {
    number: u32,
    started_at: Time,
    duration_ms: u64,
    outcome: OutcomeClass,
    status: Option<u16>,
    detail: &'a str,
    result: AttemptResult,
    next: Option<Time>,
}

impl<'a> StoredEntry<'a> {
    fn of(entry: &'a Entry) -> Self {
        let what = match &entry.what {
            What::Intended { step, attempt, key, request: Some(request), digest } => {
                StoredWhat::Requested {
                    step: step.as_str(),
                    attempt: *attempt,
                    key: key.clone(),
                    request,
                    digest,
                }
            }
            What::Intended { step, attempt, key, request: None, digest } => StoredWhat::Intended {
                step: step.as_str(),
                attempt: *attempt,
                key: key.clone(),
                digest,
            },
            What::Attempted { step, attempt } => StoredWhat::Attempted {
                step: step.as_str(),
                attempt: StoredAttempt {
                    number: attempt.number,
                    started_at: time(attempt.started_at),
                    duration_ms: attempt.duration_ms,
                    outcome: attempt.outcome,
                    status: attempt.status,
                    detail: &attempt.detail,
                    result: attempt.result,
                    next: attempt.next.map(time),
                },
            },
            What::StepDecided { step, status, why } => {
                StoredWhat::StepDecided { step: step.as_str(), status: *status, why }
            }
            What::Decided { why } => StoredWhat::Decided { why },
            What::Operated { actor, action, note } => {
                StoredWhat::Operated { actor, action, note: note.as_deref() }
            }
        };
        Self { at: time(entry.at), what }
    }

    fn back(self) -> Option<Entry> {
        let what = match self.what {
            StoredWhat::Intended { step, attempt, key, digest } => What::Intended {
                step: step.into(),
                attempt,
                key,
                request: None,
                digest: digest.to_owned(),
            },
            StoredWhat::Requested { step, attempt, key, request, digest } => What::Intended {
                step: step.into(),
                attempt,
                key,
                request: Some(request.to_owned()),
                digest: digest.to_owned(),
            },
            StoredWhat::Attempted { step, attempt } => What::Attempted {
                step: step.into(),
                attempt: Attempt {
                    number: attempt.number,
                    started_at: moment(attempt.started_at)?,
                    duration_ms: attempt.duration_ms,
                    outcome: attempt.outcome,
                    status: attempt.status,
                    detail: attempt.detail.to_owned(),
                    result: attempt.result,
                    next: maybe_moment(attempt.next)?,
                },
            },
            StoredWhat::StepDecided { step, status, why } => {
                What::StepDecided { step: step.into(), status, why: why.to_owned() }
            }
            StoredWhat::Decided { why } => What::Decided { why: why.to_owned() },
            StoredWhat::Operated { actor, action, note } => What::Operated {
                actor: actor.to_owned(),
                action: action.to_owned(),
                note: note.map(str::to_owned),
            },
        };
        Some(Entry { at: moment(self.at)?, what })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredStep<'a> {
    step: &'a str,
    element: Option<u32>,
    generation: u32,
    status: StepStatus,
    key: Option<IdempotencyKey>,
    lane: Option<&'a str>,
    attempts: u32,
    attempts_since_replay: u32,
    first_attempt_at: Option<Time>,
    last_outcome: Option<OutcomeClass>,
    interruptions: u32,
    due_at: Option<Time>,
    waits_for: Option<KeyClaim>,
    /// A JSON object; empty text is the empty one.
    saved: String,
    reason: Option<&'a str>,
}

impl<'a> StoredStep<'a> {
    fn of(step: &'a StepState) -> Self {
        Self {
            step: step.step.as_str(),
            element: step.element,
            generation: step.generation,
            status: step.status,
            key: step.key.clone(),
            lane: step.lane.as_ref().map(|lane| lane.as_str()),
            attempts: step.attempts,
            attempts_since_replay: step.attempts_since_replay,
            first_attempt_at: step.first_attempt_at.map(time),
            last_outcome: step.last_outcome,
            interruptions: step.interruptions,
            due_at: step.due_at.map(time),
            waits_for: step.waits_for.clone(),
            saved: json_text(&step.saved),
            reason: step.reason.as_deref(),
        }
    }

    fn back(self) -> Option<StepState> {
        Some(StepState {
            step: self.step.into(),
            element: self.element,
            generation: self.generation,
            status: self.status,
            key: self.key,
            lane: self.lane.map(Into::into),
            attempts: self.attempts,
            attempts_since_replay: self.attempts_since_replay,
            first_attempt_at: maybe_moment(self.first_attempt_at)?,
            last_outcome: self.last_outcome,
            interruptions: self.interruptions,
            due_at: maybe_moment(self.due_at)?,
            waits_for: self.waits_for,
            saved: json_object(&self.saved)?,
            reason: self.reason.map(str::to_owned),
        })
    }
}

fn json_text(object: &Map<String, Json>) -> String {
    match object.is_empty() {
        true => String::new(),
        false => serde_json::to_string(object).expect("JSON values are always text"),
    }
}

fn json_object(text: &str) -> Option<Map<String, Json>> {
    if text.is_empty() {
        return Some(Map::new());
    }
    serde_json::from_str(text).ok()
}

#[derive(Serialize, Deserialize)]
struct StoredDelivery<'a> {
    uid: Uid,
    route: &'a str,
    event_id: &'a str,
    key_base: &'a str,
    revision: &'a str,
    status: Status,
    version: u64,
    due_at: Option<Time>,
    reason: Option<Reason>,
    #[serde(borrow)]
    steps: Vec<StoredStep<'a>>,
}

impl<'a> StoredDelivery<'a> {
    fn of(state: &'a DeliveryState) -> Self {
        Self {
            uid: state.id.uid,
            route: state.id.route.as_str(),
            event_id: state.event_id.as_str(),
            key_base: &state.key_base,
            revision: state.revision.as_str(),
            status: state.status,
            version: state.version,
            due_at: state.due_at.map(time),
            reason: state.reason.clone(),
            steps: state.steps.iter().map(StoredStep::of).collect(),
        }
    }

    fn back(self) -> Option<DeliveryState> {
        Some(DeliveryState {
            id: DeliveryId { uid: self.uid, route: self.route.into() },
            event_id: self.event_id.into(),
            key_base: self.key_base.to_owned(),
            revision: self.revision.into(),
            status: self.status,
            version: self.version,
            due_at: maybe_moment(self.due_at)?,
            reason: self.reason,
            steps: self.steps.into_iter().map(StoredStep::back).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::store::fixtures::{
        attempted, delivery, event, ignored, intended, operated, put_off, start, waits_for,
    };

    /// One fact of each kind, with every field that it can have.
    fn samples() -> Vec<Fact> {
        let mut offered = event(7, "e7", "{\"a\":1.10}", &["ship"]);
        offered.envelope.occurred_at = Some(start());
        offered.envelope.query = vec![("a".into(), "b".into())];
        offered.envelope.malformed = Some("no id".into());
        offered.identities.push(Identity::SameAs("order-7".into()));
        let planned: Vec<Planned> =
            offered.deliveries.iter().cloned().map(|new| Planned::new(new, true)).collect();
        let at = Position { segment: 3, offset: 70_000, index: 1 };
        let mut facts = vec![
            Fact::Accepted(Box::new(Accepted {
                envelope: offered.envelope.into(),
                identities: offered.identities,
                body_digest: [9; 32],
                deliveries: planned.clone(),
            })),
            Fact::Duplicate { uid: delivery(7, "ship").uid },
            Fact::Conflict {
                uid: delivery(7, "ship").uid,
                received_at: start(),
                digest: [1; 32],
                body: Some(Bytes::from_static(b"{}")),
            },
            Fact::Routed(Box::new(Routed {
                uid: delivery(7, "ship").uid,
                accepted: at,
                entry: operated(),
                deliveries: planned
                    .into_iter()
                    .map(|planned| RoutedDelivery { planned, version: 4, previous: Some(at) })
                    .collect(),
            })),
            Fact::Revision { hash: "h1".into(), text: "steps: []".into() },
            Fact::Cell { name: "cursor".into(), version: 2, value: Bytes::from_static(b"x") },
            Fact::Retired { segment: 3 },
            Fact::Opened { epoch: 4 },
            Fact::Closed,
        ];
        let changes = [
            intended(Some("order-7")),
            attempted(None, StepStatus::Succeeded),
            attempted(None, StepStatus::Failed),
            put_off(start()),
            waits_for("ship", "order-7"),
            ignored(),
        ];
        for change in changes {
            let mut state = crate::store::state::first_state(
                delivery(7, "ship").uid,
                &"e7".into(),
                &Planned { route: "ship".into(), revision: "r1".into(), key_base: "base".into() },
                start(),
            );
            crate::store::state::merge(&mut state, &change.transition);
            facts.push(Fact::Snapshot(Box::new(state)));
            let delivery = delivery(7, "ship");
            let changed = Changed { delivery, version: 5, previous: at, change };
            facts.push(Fact::Changed(Box::new(changed)));
        }
        facts
    }

    /// An intent as it is written now.
    fn requested() -> Fact {
        let mut change = intended(Some("order-7"));
        if let What::Intended { request, .. } = &mut change.entry.what {
            *request = Some("POST https://a.example/".to_owned());
        }
        let previous = Position { segment: 1, offset: 2, index: 3 };
        let delivery = delivery(7, "ship");
        Fact::Changed(Box::new(Changed { delivery, version: 5, previous, change }))
    }

    fn encoded(facts: &[Fact]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for fact in facts {
            encode(fact, &mut bytes);
        }
        bytes
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        let facts = samples();
        assert_eq!(decode_all(&encoded(&facts)), Ok(facts));
    }

    /// What is on somebody's disk must be read for ever: a changed digest here is a new format version.
    #[test]
    fn the_bytes_of_version_1_are_what_they_were() {
        let digest = hex::encode(Sha256::digest(encoded(&samples())));
        assert_eq!(digest, "9b5136e6dc444c5bae1e147f0c2f7d0278d3fddff4dbbfc5ad3031f1def2de83");
    }

    #[test]
    fn an_intent_in_version_2_is_what_it_was() {
        let bytes = encoded(&[requested()]);
        assert_eq!(bytes[..2], [kind::INTENDED, 2]);
        assert_eq!(decode_all(&bytes), Ok(vec![requested()]));
        assert_eq!(
            hex::encode(Sha256::digest(&bytes)),
            "9b0f0efd049dd2a6be37081729734430758c4c4657756556fbed487c78e07278"
        );
    }

    #[test]
    fn an_unknown_kind_and_a_later_version_are_told_apart_from_damage() {
        assert_eq!(
            decode_all(&[200, 1, 0, 0, 0, 0]),
            Err(DecodeError::Newer { kind: 200, version: 1 })
        );
        assert_eq!(
            decode_all(&[13, 2, 0, 0, 0, 0]),
            Err(DecodeError::Newer { kind: 13, version: 2 })
        );
        assert_eq!(decode_all(&[13, 1, 0, 0]), Err(DecodeError::Short));
        let broken = decode_all(&[12, 1, 2, 0, 0, 0, 1, 1]);
        assert!(matches!(broken, Err(DecodeError::Broken { kind: 12, .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..15) {
            let mut framed = vec![kind, VERSION];
            framed.extend((bytes.len() as u32).to_le_bytes());
            framed.extend(&bytes);
            drop(decode_all(&framed));
            drop(decode_all(&bytes));
        }

        #[test]
        fn any_envelope_comes_back(
            id in ".*", kind in ".*", body in prop::collection::vec(any::<u8>(), 0..300),
            headers in prop::collection::vec((".*", ".*"), 0..4), seconds in -1_000_000_000i64..4_000_000_000,
        ) {
            let mut offered = event(7, &id, "", &["ship"]);
            offered.envelope.body = body.into();
            offered.envelope.event_type = kind;
            offered.envelope.headers = headers;
            offered.envelope.received_at = Timestamp::from_second(seconds).unwrap();
            let fact = Fact::Accepted(Box::new(Accepted {
                envelope: offered.envelope.into(),
                identities: offered.identities,
                body_digest: offered.body_digest,
                deliveries: Vec::new(),
            }));
            prop_assert_eq!(decode_all(&encoded(std::slice::from_ref(&fact))), Ok(vec![fact]));
        }
    }
}
