//! The durable state: events, deliveries, their journal. The store knows routes by name only and nothing of HTTP.
//!
//! Everything here is durable when the call returns, unless a method says otherwise. Implementations: [`memory`] and
//! [`journal`]; `contract` is the one test-suite that both pass.

mod book;
pub mod captured;
mod checkpoint;
mod codec;
#[cfg(test)]
mod contract;
mod decide;
mod export;
mod fact;
pub mod files;
#[cfg(test)]
mod fixtures;
mod hashing;
pub mod index;
pub mod journal;
mod keys;
pub mod memory;
mod page;
pub mod portable;
pub mod sled;
mod state;
mod view;
mod wait;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use crate::delivery::state::{DeliveryState, Entry, Status, StepStatus, Transition};
use crate::envelope::{Envelope, Identity, OnConflict};
use crate::name::{DeliveryId, EventId, RevisionHash, RouteName, SourceName, Uid};
use crate::secret::SecretValue;
use captured::{Capture, CapturedSecret, DroppedSecret};
use portable::{ExportCursor, ExportPage, ImportStopped, Imported, Record};

/// Unfinished deliveries that a store holds at most, unless it is told otherwise (`limits.backlog`).
pub const BACKLOG_MAX: u64 = 1_000_000;

/// An event on its way in, with the deliveries that the routes' `on` decided.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub envelope: Envelope,
    /// The id first, then every `same_as`. The event is a duplicate if any is known for its source and path parts.
    pub identities: Vec<Identity>,
    /// SHA-256 of the body as compared for conflicts: canonical JSON less `volatile`, or the raw bytes.
    pub body_digest: [u8; 32],
    pub on_conflict: OnConflict,
    pub deliveries: Vec<NewDelivery>,
}

#[derive(Clone, Debug)]
pub struct NewDelivery {
    pub route: RouteName,
    pub revision: RevisionHash,
    /// See [`DeliveryState::key_base`].
    pub key_base: String,
    /// The same with the body digest in it: used instead where the event was taken in by [`OnConflict::NewEvent`] as a
    /// second body of a known id.
    pub key_base_with_body: String,
}

/// What became of one offered event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    Accepted {
        uid: Uid,
    },
    /// Known by its id or a further identity; the original is durable.
    Duplicate {
        uid: Uid,
    },
    /// Same id, really different body; counted on (and, under `Review`, kept with) the original.
    Conflict {
        uid: Uid,
    },
}

/// A worker's exclusive hold on a delivery, until it records a status other than `Processing`.
#[derive(Clone, Debug)]
pub struct Claim {
    pub state: DeliveryState,
    pub envelope: Arc<Envelope>,
    pub fence: Fence,
}

/// Grows with every claim of a delivery. A record under an old fence is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(pub u64);

/// One change of a claimed delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub entry: Entry,
    pub transition: Transition,
    /// What its event may be searched by from now on; at most [`TERMS_MAX`] of them are kept.
    pub terms: Vec<Term>,
}

/// A field of the route, as the delivery's event has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub field: String,
    /// Text as it is; anything else as JSON spells it.
    pub value: String,
}

/// Search terms of one delivery.
pub const TERMS_MAX: usize = 16;

/// When a recorded change is reported back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After its bytes are on the medium.
    Synced,
    /// As soon as it is ordered; it becomes durable with the next commit. Only for intents with a derived key: losing
    /// one costs nothing but a repeat with the same key.
    Ordered,
}

/// A change that stands in the journal. Only this starts what comes after.
#[derive(Clone, Debug)]
#[must_use = "what comes after must start from this"]
pub enum Recorded {
    /// `state` is the delivery after the change.
    Recorded(DeliveryState),
    /// This very version was recorded before with the same change.
    Already(DeliveryState),
    /// Another worker holds the delivery, or the version is not the current one: drop the work.
    Fenced,
    /// The change was an intent with an explicit key that another delivery holds. Nothing was recorded.
    KeyHeld(KeyHolder),
}

/// Who holds an explicit key, and how far it is.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyHolder {
    pub delivery: DeliveryId,
    pub event_id: EventId,
    pub status: StepStatus,
    /// What the holder's step saved, once it succeeded.
    pub saved: Map<String, Json>,
}

/// The permission to send: made by [`intend`] alone, from a recorded intent. `call` takes nothing else.
#[derive(Debug)]
pub struct Intended<R> {
    request: R,
}

impl<R> Intended<R> {
    pub fn request(&self) -> &R {
        &self.request
    }

    pub fn into_request(self) -> R {
        self.request
    }
}

/// Records an intent and, where it stands, makes `request` sendable.
pub async fn intend<R>(
    store: &dyn Store,
    delivery: &DeliveryId,
    fence: Fence,
    version: u64,
    change: Change,
    durability: Durability,
    request: R,
) -> Result<(Recorded, Option<Intended<R>>), StoreError> {
    let recorded = store.record(delivery, fence, version, change, durability).await?;
    let intended = match &recorded {
        Recorded::Recorded(_) | Recorded::Already(_) => Some(Intended { request }),
        Recorded::Fenced | Recorded::KeyHeld(_) => None,
    };
    Ok((recorded, intended))
}

/// An operator's action on a delivery. Applied in one change, whoever holds the delivery.
#[derive(Clone, Debug)]
pub struct Operation {
    pub delivery: DeliveryId,
    /// The version the operator decided on.
    pub version: u64,
    pub change: Change,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives for one answer, and mostly is `Done`")]
pub enum Operated {
    Done(DeliveryState),
    /// The delivery moved on meanwhile; look again.
    Stale,
    NotFound,
}

/// An event with all that happened to it.
#[derive(Clone, Debug)]
pub struct EventView {
    pub envelope: Arc<Envelope>,
    /// Position in the order of acceptance.
    pub sequence: u64,
    pub duplicates: u64,
    pub conflicts: Vec<ConflictView>,
    /// Number of all conflicting arrivals; `conflicts` holds those kept.
    pub conflict_count: u64,
    pub deliveries: Vec<DeliveryView>,
}

/// A second body under a known id, kept for a person.
#[derive(Clone, Debug)]
pub struct ConflictView {
    /// Counts from 1 per event.
    pub number: u32,
    pub received_at: Timestamp,
    pub body: bytes::Bytes,
}

#[derive(Clone, Debug)]
pub struct DeliveryView {
    pub state: DeliveryState,
    /// Oldest first.
    pub entries: Vec<Entry>,
}

/// Which events a list shows. Empty: all.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Status of the event as a whole, in the API's words (`unrouted` and `malformed` too).
    pub status: Option<EventStatus>,
    pub route: Option<RouteName>,
    pub source: Option<SourceName>,
    pub event_type: Option<String>,
    pub event_id: Option<EventId>,
    pub correlation_id: Option<String>,
    /// A field of `route`, which must be given with it.
    pub field: Option<Term>,
    /// Cause of a failed delivery.
    pub cause: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub oldest_first: bool,
}

/// Status of an event: its deliveries' summed up (`failed` before `processing` before `queued` before `succeeded` before
/// `ignored`), or its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventStatus {
    Delivery(Status),
    /// No route took it.
    Unrouted,
    /// It could not be read; it is in review.
    Malformed,
}

/// One row of a list.
#[derive(Clone, Debug)]
pub struct EventSummary {
    pub sequence: u64,
    pub uid: Uid,
    pub event_id: EventId,
    pub event_type: String,
    pub source: SourceName,
    pub received_at: Timestamp,
    pub status: EventStatus,
    pub attempts: u32,
    pub deliveries: Vec<(RouteName, Status, Option<String>)>,
}

#[derive(Clone, Debug)]
pub struct Page {
    pub events: Vec<EventSummary>,
    /// Give it back to go on; `None` at the end.
    pub next: Option<u64>,
    /// Events looked at for this page.
    pub examined: usize,
    /// The newest event that there was then: up to it nothing is missing from the list. `None`: there was none.
    pub as_of: Option<u64>,
}

/// Failed deliveries of a route that have one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CauseCount {
    pub route: RouteName,
    pub cause: String,
    pub count: u64,
}

/// What one query may cost.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub rows_max: usize,
    pub examined_max: usize,
}

/// How long what is kept. Durations count from the time when an event was finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    pub sources: BTreeMap<SourceName, SourceRetention>,
    /// Of sources that are not named (any more).
    pub default: SourceRetention,
    /// What operators did.
    pub audit: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRetention {
    /// Finished events, with their payload.
    pub retain: Duration,
    /// Ids, and explicit idempotency keys; at least as long as the event itself.
    pub dedupe: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Retention {
    fn default() -> Self {
        let default = SourceRetention { retain: 30 * DAY, dedupe: 30 * DAY };
        Self { sources: BTreeMap::new(), default, audit: 400 * DAY }
    }
}

impl Retention {
    /// Nothing expires.
    pub fn forever() -> Self {
        let default = SourceRetention { retain: Duration::MAX, dedupe: Duration::MAX };
        Self { sources: BTreeMap::new(), default, audit: Duration::MAX }
    }

    fn of(&self, source: Option<&SourceName>) -> SourceRetention {
        let found = source.and_then(|source| self.sources.get(source)).unwrap_or(&self.default);
        SourceRetention { retain: found.retain, dedupe: found.dedupe.max(found.retain) }
    }
}

/// The state in numbers, for metrics and readiness.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub events: u64,
    pub queued: u64,
    pub processing: u64,
    pub failed: u64,
    /// Due time of the oldest queued delivery that is due.
    pub oldest_due_at: Option<Timestamp>,
    /// Times that pages of the index had to be derived anew since the start, because they were missing or wrong.
    pub pages_rebuilt: u64,
    /// Accepting is possible: there is room and the writer lives.
    pub ready: Readiness,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    #[default]
    Ready,
    /// Events are taken in and carried out; look-ups are slow or incomplete until the index is made anew.
    Rebuilding(String),
    /// New events are refused for now (disk full, backlog full); outcomes are still recorded.
    Refusing(String),
    /// The writer ended; the process must be restarted.
    Dead(String),
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was taken; the sender may come again. Answered 503 with Retry-After.
    #[error("the store takes no new events for now: {0}")]
    Refusing(String),
    /// The store is dead: a write or sync failed. Nothing more is acknowledged.
    #[error("the store has stopped: {0}")]
    Dead(String),
    /// What was read does not prove itself.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
}

impl fmt::Display for EventStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EventStatus::Delivery(status) => status.as_str(),
            EventStatus::Unrouted => "unrouted",
            EventStatus::Malformed => "malformed",
        })
    }
}

/// The store as ingress, engine and admin see it.
pub trait Store: Send + Sync + 'static {
    /// Takes the events of one POST in, all or nothing. On return what is accepted is durable, and so is the original of
    /// each duplicate. Uniqueness is decided here, in one ordered place.
    fn accept(&self, events: Vec<NewEvent>) -> BoxFuture<'_, Result<Vec<Acceptance>, StoreError>>;

    /// Up to `max` deliveries that are due, oldest due first, each held by the caller alone from now on. Claims are not
    /// durable: after a restart everything unfinished is queued. Empty when nothing is due.
    fn claim(&self, max: usize) -> BoxFuture<'_, Result<Vec<Claim>, StoreError>>;

    /// Resolves when there may be something to claim: a delivery became due or was made due.
    fn wait(&self) -> BoxFuture<'_, ()>;

    /// Records one change of a claimed delivery. Applies only under the current fence and on the current version.
    fn record<'a>(
        &'a self,
        delivery: &'a DeliveryId,
        fence: Fence,
        version: u64,
        change: Change,
        durability: Durability,
    ) -> BoxFuture<'a, Result<Recorded, StoreError>>;

    /// Applies an operator's action; a worker that holds the delivery is fenced off.
    fn operate(&self, operation: Operation) -> BoxFuture<'_, Result<Operated, StoreError>>;

    /// Adds deliveries to a stored event that routes take anew (an operator's backfill). An ignored
    /// delivery starts over; one in any other status is left alone. Answers the deliveries that are queued now.
    fn route(
        &self,
        uid: Uid,
        entry: Entry,
        deliveries: Vec<NewDelivery>,
    ) -> BoxFuture<'_, Result<Vec<DeliveryId>, StoreError>>;

    /// Keeps a route's revision text under its hash. Idempotent.
    fn revision_put(
        &self,
        hash: RevisionHash,
        text: Arc<str>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    fn revision_get(
        &self,
        hash: &RevisionHash,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>>;

    /// Uids of the events with this id, over all sources, or of the one with this uid.
    fn find(
        &self,
        id: &str,
        source: Option<&SourceName>,
    ) -> BoxFuture<'_, Result<Vec<Uid>, StoreError>>;
    fn event(&self, uid: Uid) -> BoxFuture<'_, Result<Option<EventView>, StoreError>>;
    /// Newest first unless asked otherwise. `cursor` is a former page's `next`.
    fn list(
        &self,
        query: Query,
        cursor: Option<u64>,
        budget: Budget,
    ) -> BoxFuture<'_, Result<Page, StoreError>>;
    /// Failed deliveries by route and cause, most first.
    fn causes(&self) -> BoxFuture<'_, Vec<CauseCount>>;
    fn summary(&self) -> BoxFuture<'_, Summary>;

    /// The contents in their portable form, page after page of about `bytes_max` each: all of it, or the events that
    /// `query` chooses. `cursor` is a former page's `next`.
    fn export(
        &self,
        query: Query,
        cursor: Option<ExportCursor>,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<ExportPage, StoreError>>;
    /// Takes in what another store exported; each record is all there or not at all, and what is taken is durable on
    /// return. An event that is known by its uid or by an identity is left as it is here.
    fn import(&self, records: Vec<Record>) -> BoxFuture<'_, Result<Imported, ImportStopped>>;

    /// Keeps a secret that a handshake brought, for good; it is durable on return, and [`Store::captured`] has it.
    fn capture(&self, secret: CapturedSecret) -> BoxFuture<'_, Result<Capture, StoreError>>;
    /// Takes a secret of a source away. Answers whether there was one with this id.
    fn drop_secret(
        &self,
        source: SourceName,
        dropped: DroppedSecret,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;
    /// What was captured for a source and these parts of its path, newest first. From memory: it waits for nothing.
    fn captured(&self, source: &SourceName, path: &[(String, String)]) -> Vec<SecretValue>;
    /// All captured secrets, by source, newest first.
    fn secrets(&self) -> BoxFuture<'_, Result<Vec<Arc<CapturedSecret>>, StoreError>>;

    /// The files that a backup takes, as they are durable now.
    fn files(&self) -> BoxFuture<'_, Result<files::StoreFiles, StoreError>> {
        Box::pin(std::future::ready(Err(StoreError::Refusing("it keeps no files".into()))))
    }
    /// A piece of one of them, of at most [`files::PIECE_BYTES_MAX`]; `None`: it is not there (any more).
    fn read_file<'a>(
        &'a self,
        _name: &'a str,
        _offset: u64,
        _bytes: u64,
    ) -> BoxFuture<'a, Result<Option<bytes::Bytes>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Writes out what is ordered and marks a clean end. Nothing is accepted afterwards.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}
