//! The state that the facts make, held in memory: which events are known by which identities, a row for each event, the
//! live deliveries and when they are due, who holds which explicit key. Facts enter, in order; questions are answered. It
//! writes nothing, reads no clock, and does not know whether a fact is durable yet.

mod carry;
pub(crate) mod damage;
pub(crate) mod due;
pub(crate) mod frozen;
pub(crate) mod identities;
pub(crate) mod rows;
#[cfg(test)]
mod tests;
pub(crate) mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use self::damage::Damage;
use self::identities::Identities;
use self::rows::{
    DeliveryRow, EventKey, EventRow, KeptConflict, NewRow, Repeats, RowKind, Shelf, Shelves, Slot,
    seconds, segment_of,
};
use self::words::Words;
use super::captured::CapturedSecrets;
use super::fact::{Accepted, Changed, Fact, Planned, Position, ReadFacts, Routed, envelope_at};
use super::hashing::Hashing;
use super::keys::Keys;
use super::{Change, Fence, KeyHolder, StoreError, view};
use crate::delivery::state::{DeliveryState, KeyClaim, Status, Transition};
use crate::envelope::{Envelope, Identity};
use crate::name::{DeliveryId, EventId, RevisionHash, RouteName, Uid};

/// Cells whose names begin so hold what another journal hashed with.
pub(crate) const FOREIGN: &str = "hashing/";

/// A moment on both clocks: wall time is written down, monotonic time is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) wall: Timestamp,
    pub(crate) monotonic: Duration,
}

/// A delivery that is not finished.
pub(crate) struct Live {
    pub(crate) state: DeliveryState,
    /// Who may record, while a worker holds it.
    pub(crate) held: Option<Fence>,
    /// When the last fact was decided: a wait is measured from there.
    decided_at: Timestamp,
    scheduled: Option<DueKey>,
    /// Number of the fact that touched it last.
    touched: u64,
}

/// Ordered by time, then by the order of scheduling.
type DueKey = (Duration, u64);

/// The text of a route, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Revision {
    pub(crate) text: Arc<str>,
    pub(crate) at: Position,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) version: u64,
    pub(crate) value: Bytes,
    pub(crate) at: Position,
}

/// What is kept of a segment that has no pages yet.
#[derive(Default)]
pub(crate) struct Open {
    /// For each event in it, the number of its fact.
    numbers: Vec<u64>,
    /// Search terms, with the event that has each.
    terms: BTreeSet<(u64, EventKey)>,
    /// Number of the last fact in it about each event.
    touched: BTreeMap<EventKey, u64>,
}

/// Envelopes of live deliveries that a worker will want soon. The others are read when they are claimed.
#[derive(Default)]
struct Envelopes {
    kept: BTreeMap<EventKey, Arc<Envelope>>,
    bytes: usize,
}

/// Of the bodies alone.
const ENVELOPE_BYTES_MAX: usize = 32 << 20;
const ENVELOPES_MAX: usize = 10_000;

impl Envelopes {
    fn keep(&mut self, key: EventKey, envelope: &Arc<Envelope>) {
        let bytes = envelope.body.len();
        if self.kept.len() < ENVELOPES_MAX && self.bytes + bytes <= ENVELOPE_BYTES_MAX {
            self.drop_one(key);
            self.bytes += bytes;
            self.kept.insert(key, envelope.clone());
        }
    }

    fn drop_one(&mut self, key: EventKey) {
        if let Some(envelope) = self.kept.remove(&key) {
            self.bytes -= envelope.body.len();
        }
    }
}

pub(crate) struct State {
    pub(crate) hashing: Hashing,
    shelves: Shelves,
    open: BTreeMap<u32, Open>,
    identities: Identities,
    live: BTreeMap<Slot, Live>,
    envelopes: Envelopes,
    revisions: BTreeMap<RevisionHash, Revision>,
    /// Those of the configuration that runs: an event that comes next may need them.
    current: BTreeSet<RevisionHash>,
    pub(crate) keys: Keys,
    due: BTreeMap<DueKey, Slot>,
    scheduled_count: u64,
    fence: u64,
    /// Unfinished deliveries by route.
    unfinished: BTreeMap<u32, u64>,
    pub(crate) counts: Counts,
    /// Failed deliveries by route and cause.
    causes: BTreeMap<(u32, Option<u32>), u64>,
    /// Routes, causes and sources.
    names: Words,
    types: Words,
    cells: BTreeMap<String, Cell>,
    /// Shared with those who verify.
    pub(crate) secrets: Arc<CapturedSecrets>,
    /// Of other journals, whose hashes came here by an import.
    foreign: Vec<Hashing>,
    /// This segment and all before it are gone for good.
    pub(crate) retired: u64,
    /// Segments that are gone, and may still be named by identities.
    forgotten: Vec<u32>,
    /// What a repair said is gone.
    pub(crate) damage: Damage,
    /// Segments are missing, which must turn out to be retired.
    pub(crate) has_gaps: bool,
    /// A start reads facts that all are durable, and of segments that get their pages at once: what only matters between
    /// is not kept. [`State::start`] ends it.
    pub(crate) is_reading: bool,
    pub(crate) epoch: u64,
    /// Number of the next fact.
    pub(crate) next: u64,
    /// Newest time that a fact has named.
    pub(crate) newest: Timestamp,
}

/// Events, and deliveries by status, with what is held told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) events: u64,
    pub(crate) unfinished: u64,
    pub(crate) held: u64,
    /// Failed deliveries and malformed events: what is in review.
    pub(crate) review: u64,
}

impl State {
    pub(crate) fn new(hashing: Hashing) -> Self {
        Self {
            hashing,
            shelves: BTreeMap::new(),
            open: BTreeMap::new(),
            identities: Identities::new(),
            live: BTreeMap::new(),
            envelopes: Envelopes::default(),
            revisions: BTreeMap::new(),
            current: BTreeSet::new(),
            keys: Keys::default(),
            due: BTreeMap::new(),
            scheduled_count: 0,
            fence: 0,
            unfinished: BTreeMap::new(),
            counts: Counts::default(),
            causes: BTreeMap::new(),
            names: Words::default(),
            types: Words::default(),
            cells: BTreeMap::new(),
            secrets: Arc::default(),
            foreign: Vec::new(),
            retired: 0,
            forgotten: Vec::new(),
            damage: Damage::default(),
            has_gaps: false,
            is_reading: false,
            epoch: 0,
            next: 0,
            newest: Timestamp::UNIX_EPOCH,
        }
    }

    /// Applies the fact with `number`, which stands at `at`. A fact that was applied before changes nothing.
    pub(crate) fn apply(
        &mut self,
        fact: &Fact,
        at: Position,
        number: u64,
        now: Moment,
        facts: &dyn ReadFacts,
    ) -> Result<(), StoreError> {
        self.next = number + fact.numbers();
        self.newest = fact.time().map_or(self.newest, |time| time.max(self.newest));
        let newest_s = seconds(self.newest);
        self.shelf_mut(segment_of(at)?).newest_s = newest_s;
        match fact {
            Fact::Accepted(accepted) => self.apply_accepted(accepted, at, number, now)?,
            Fact::Duplicate { uid } => {
                if let Some(repeats) = self.repeats_mut(*uid, at, number)? {
                    repeats.duplicates += 1;
                }
            }
            Fact::Conflict { uid, digest, body, .. } => {
                if let Some(repeats) = self.repeats_mut(*uid, at, number)? {
                    repeats.conflict_count += 1;
                    if body.is_some() {
                        repeats.conflicts.push(KeptConflict { at, number: 0, digest: *digest });
                    }
                }
            }
            Fact::Changed(changed) => self.apply_changed(changed, at, number, now, facts)?,
            Fact::Routed(routed) => self.apply_routed(routed, at, number, now, facts)?,
            Fact::Revision { hash, text } => {
                self.revisions.insert(hash.clone(), Revision { text: text.clone(), at });
            }
            Fact::Cell { name, version, value } => {
                let known = self.cells.get(name).map_or(0, |cell| cell.version);
                if *version >= known {
                    self.note_foreign(name, value);
                    let value = value.clone();
                    self.cells.insert(name.clone(), Cell { version: *version, value, at });
                }
            }
            Fact::Snapshot(snapshot) => self.apply_snapshot(snapshot, at, number, now)?,
            Fact::Remembered(remembered) => self.apply_remembered(remembered, at)?,
            Fact::Audited(audited) => self.apply_audited(audited, at)?,
            Fact::SecretCaptured(secret) => self.secrets.put(secret, at),
            Fact::SecretDropped(dropped) => self.secrets.drop_one(dropped.id),
            Fact::Retired { segment } => {
                self.retired = self.retired.max(*segment);
                self.drop_shelves(*segment);
            }
            Fact::Opened { epoch } => self.epoch = *epoch,
            Fact::Closed => {}
            Fact::Lost { .. } => self.damage.note(at.segment),
        }
        Ok(())
    }

    /// A segment is there, whatever will stand in it.
    pub(crate) fn begin_segment(&mut self, segment: u64) -> Result<(), StoreError> {
        let segment = segment_of(Position { segment, offset: 0, index: 0 })?;
        self.shelves.entry(segment).or_default();
        self.open.entry(segment).or_default();
        Ok(())
    }

    /// The shelf of the segment that is being written or read.
    fn shelf_mut(&mut self, segment: u32) -> &mut Shelf {
        let shelf = Arc::make_mut(self.shelves.entry(segment).or_default());
        shelf.changes += 1;
        shelf
    }

    fn open_mut(&mut self, segment: u32) -> &mut Open {
        self.open.entry(segment).or_default()
    }

    fn repeats_mut(
        &mut self,
        uid: Uid,
        at: Position,
        number: u64,
    ) -> Result<Option<&mut Repeats>, StoreError> {
        let Some(key) = self.event_key(uid) else { return Ok(None) };
        self.touch(key, at, number)?;
        Ok(Some(self.shelf_mut(key.segment).repeats.entry(key.index).or_default()))
    }

    fn touch(&mut self, key: EventKey, at: Position, number: u64) -> Result<(), StoreError> {
        if self.is_reading {
            return Ok(());
        }
        self.open_mut(segment_of(at)?).touched.insert(key, number);
        Ok(())
    }

    /// A row for an event that is new in this place, known by all that it is known by.
    fn add_row(
        &mut self,
        envelope: &Envelope,
        identities: &[Identity],
        at: Position,
        number: u64,
    ) -> Result<EventKey, StoreError> {
        let segment = segment_of(at)?;
        let kind = match envelope.malformed {
            None => RowKind::Event,
            Some(_) => RowKind::Malformed,
        };
        let source = u16::try_from(self.names.take(envelope.source.as_str())).ok();
        let new = NewRow {
            uid: envelope.uid,
            received_at: envelope.received_at,
            source,
            event_type: self.types.take_bounded(&envelope.event_type),
            kind,
        };
        let index = self.shelf_mut(segment).push(at, new)?;
        let key = EventKey { segment, index };
        self.identities.insert(self.hashing.uid(envelope.uid), key);
        for identity in identities {
            let hash = self.hashing.identity(&envelope.source, &envelope.path, identity);
            self.identities.insert(hash, key);
        }
        if !self.is_reading {
            let id = self.hashing.event_id(&envelope.event_id);
            let correlation = self.hashing.correlation_id(envelope.correlation_id.as_str());
            let open = self.open_mut(segment);
            open.numbers.resize(index as usize, 0);
            open.numbers.push(number);
            open.terms.extend([(id, key), (correlation, key)]);
        }
        self.counts.events += 1;
        self.counts.review += u64::from(kind == RowKind::Malformed);
        Ok(key)
    }

    fn apply_accepted(
        &mut self,
        accepted: &Accepted,
        at: Position,
        number: u64,
        now: Moment,
    ) -> Result<(), StoreError> {
        let envelope = &accepted.envelope;
        if self.event_key(envelope.uid).is_some() {
            return Ok(());
        }
        let key = self.add_row(envelope, &accepted.identities, at, number)?;
        if !accepted.deliveries.is_empty() && !self.is_reading {
            self.envelopes.keep(key, envelope);
        }
        for planned in &accepted.deliveries {
            let state =
                first_state(envelope.uid, &envelope.event_id, planned, envelope.received_at);
            self.begin(key, state, at, number, envelope.received_at, None, now)?;
        }
        Ok(())
    }

    /// Adds a delivery to an event.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the one change")]
    fn begin(
        &mut self,
        key: EventKey,
        state: DeliveryState,
        at: Position,
        number: u64,
        decided_at: Timestamp,
        held: Option<Fence>,
        now: Moment,
    ) -> Result<(), StoreError> {
        let route = self.names.take(state.id.route.as_str());
        let row = DeliveryRow::new(route, at)?;
        let delivery = self.shelf_mut(key.segment).add_delivery(key.index, row);
        // It counts as queued until `put_state` says what it is.
        self.counts.unfinished += 1;
        *self.unfinished.entry(route).or_default() += 1;
        self.put_state((key, delivery), state, at, number, decided_at, held, now)
    }

    fn apply_changed(
        &mut self,
        changed: &Changed,
        at: Position,
        number: u64,
        now: Moment,
        facts: &dyn ReadFacts,
    ) -> Result<(), StoreError> {
        let id = &changed.delivery;
        let Some(slot) = self.slot(id) else {
            if self.damage.has_lost(id) || self.is_lost(changed.previous, facts) {
                self.damage.lose(id.clone());
                return Ok(());
            }
            return self.unknown(|| format!("{at}: no delivery {id} was begun"));
        };
        let version = self.delivery(slot).version();
        if changed.version <= version {
            return Ok(());
        }
        if self.is_cut_off(slot, changed.previous, facts) {
            self.open_gap(slot, changed.version, changed.previous, facts);
        } else if changed.version != version + 1 {
            return Err(StoreError::Corrupt(format!(
                "{at}: version {} of {id} follows version {version}",
                changed.version,
            )));
        }
        if !changed.terms.is_empty() && !self.is_reading {
            let terms = changed.terms.iter().map(|term| (*term, slot.0));
            self.open_mut(segment_of(at)?).terms.extend(terms);
        }
        let decided_at = changed.change.entry.at;
        let (mut state, held) = self.take_state(slot, facts)?;
        self.keys.leave(&state);
        // Where facts between were lost.
        state.version = changed.version - 1;
        merge(&mut state, &changed.change.transition);
        self.damage.go_on(slot, &mut state, changed);
        let woken = self.keys.enter(&state, &changed.change);
        self.release(&mut state, decided_at);
        self.put_state(slot, state, at, number, decided_at, held, now)?;
        self.wake_all(woken, decided_at, number, now);
        Ok(())
    }

    /// A delivery that would wait for a key whose holder is done meanwhile is due at once.
    pub(crate) fn release(&self, state: &mut DeliveryState, at: Timestamp) {
        if !state.status.is_finished() && self.keys.may_go_on(state) {
            state.due_at = Some(at);
        }
    }

    fn apply_routed(
        &mut self,
        routed: &Routed,
        at: Position,
        number: u64,
        now: Moment,
        facts: &dyn ReadFacts,
    ) -> Result<(), StoreError> {
        let Some(key) = self.event_key(routed.uid) else {
            let ids = routed.deliveries.iter().map(|delivery| DeliveryId {
                uid: routed.uid,
                route: delivery.planned.route.clone(),
            });
            if self.is_lost(routed.accepted, facts) {
                ids.for_each(|id| self.damage.lose(id));
                return Ok(());
            }
            return self.unknown(|| format!("{at}: no event {} was accepted", routed.uid));
        };
        let envelope = envelope_at(facts, self.position(key))?;
        self.envelopes.keep(key, &envelope);
        let event_id = &envelope.event_id;
        for delivery in &routed.deliveries {
            let id = DeliveryId { uid: routed.uid, route: delivery.planned.route.clone() };
            let mut state = first_state(routed.uid, event_id, &delivery.planned, routed.entry.at);
            if let (Some(slot), Some(previous)) = (self.slot(&id), delivery.previous)
                && delivery.version > self.delivery(slot).version()
                && self.is_cut_off(slot, previous, facts)
            {
                self.open_gap(slot, delivery.version, previous, facts);
                self.damage.begin_anew(slot, &state, &routed.entry);
                self.delivery_mut(slot).set_version(delivery.version - 1);
            }
            match self.slot(&id) {
                None => self.begin(key, state, at, number, routed.entry.at, None, now)?,
                Some(slot) if self.delivery(slot).version() + 1 == delivery.version => {
                    let (old, held) = self.take_state(slot, facts)?;
                    self.keys.leave(&old);
                    state.version = delivery.version;
                    self.put_state(slot, state, at, number, routed.entry.at, held, now)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// A fact about what is not known. Where segments are gone, what was accepted there is finished and forgotten.
    fn unknown(&self, what: impl FnOnce() -> String) -> Result<(), StoreError> {
        if self.has_gaps || self.retired > 0 { Ok(()) } else { Err(StoreError::Corrupt(what())) }
    }

    fn wake_all(&mut self, woken: Vec<DeliveryId>, at: Timestamp, number: u64, now: Moment) {
        for waiter in woken {
            if let Some(slot) = self.slot(&waiter) {
                self.wake(slot, at, number, now);
            }
        }
    }

    /// Takes the state of a delivery out, with who holds it, to be changed and put back by [`Self::put_state`]. That of a
    /// finished one is read from the facts.
    fn take_state(
        &mut self,
        slot: Slot,
        facts: &dyn ReadFacts,
    ) -> Result<(DeliveryState, Option<Fence>), StoreError> {
        self.unschedule(slot);
        match self.live.remove(&slot) {
            Some(live) => Ok((live.state, live.held)),
            None => Ok((self.load_state(slot, facts)?, None)),
        }
    }

    /// Puts the new state of a delivery in its place: counted, scheduled, and its memory freed if it is finished.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the one change")]
    fn put_state(
        &mut self,
        slot: Slot,
        state: DeliveryState,
        at: Position,
        number: u64,
        decided_at: Timestamp,
        held: Option<Fence>,
        now: Moment,
    ) -> Result<(), StoreError> {
        self.touch(slot.0, at, number)?;
        let is = state.status;
        let stays_held = held.filter(|_| is == Status::Processing);
        let cause = state.reason.as_ref().map(|reason| self.names.take(&reason.cause));
        let holds_key = is.is_finished() && self.finish_keys(slot.0, &state);
        let row = self.delivery_mut(slot);
        let (was, was_cause, route) = (row.status, row.cause(), row.route);
        row.status = is;
        row.set_version(state.version);
        row.attempts = state.attempts();
        row.set_last(at)?;
        row.set_cause(cause);
        row.changed_s = seconds(decided_at);
        row.holds_key = holds_key;
        self.count(route, (was, was_cause), (is, cause));
        if held.is_some() && stays_held.is_none() {
            self.counts.held -= 1;
        }
        if is.is_finished() {
            let mut others = self.live.range((slot.0, 0)..=(slot.0, u16::MAX));
            if others.next().is_none() {
                self.envelopes.drop_one(slot.0);
            }
            return Ok(());
        }
        let live = Live { state, held: stays_held, decided_at, scheduled: None, touched: number };
        self.live.insert(slot, live);
        if stays_held.is_none() && !self.is_reading {
            self.schedule(slot, now);
        }
        Ok(())
    }

    /// Of a finished delivery: the keys of calls that were made are remembered by their hashes. Answers whether one is
    /// held whose call was given up.
    fn finish_keys(&mut self, key: EventKey, state: &DeliveryState) -> bool {
        let (done, holds) = self.keys.finish(state);
        for claim in done {
            self.identities.insert(self.hashing.key(&claim), key);
        }
        holds
    }

    fn count(
        &mut self,
        route: u32,
        (was, was_cause): (Status, Option<u32>),
        (is, cause): (Status, Option<u32>),
    ) {
        let unfinished = self.unfinished.entry(route).or_default();
        match (was.is_finished(), is.is_finished()) {
            (false, true) => {
                *unfinished -= 1;
                self.counts.unfinished -= 1;
            }
            (true, false) => {
                *unfinished += 1;
                self.counts.unfinished += 1;
            }
            (true, true) | (false, false) => {}
        }
        if was == Status::Failed {
            self.uncount_failed(route, was_cause);
        }
        if is == Status::Failed {
            self.counts.review += 1;
            *self.causes.entry((route, cause)).or_default() += 1;
        }
    }

    fn uncount_failed(&mut self, route: u32, cause: Option<u32>) {
        self.counts.review -= 1;
        if let Some(count) = self.causes.get_mut(&(route, cause)) {
            *count -= 1;
            if *count == 0 {
                self.causes.remove(&(route, cause));
            }
        }
    }

    /// The state of a delivery, live or finished.
    pub(crate) fn load_state(
        &self,
        slot: Slot,
        facts: &dyn ReadFacts,
    ) -> Result<DeliveryState, StoreError> {
        if let Some(live) = self.live.get(&slot) {
            return Ok(live.state.clone());
        }
        if let Some(gap) = self.damage.gap(slot) {
            return Ok(gap.state.clone());
        }
        let delivery = self.delivery(slot);
        let route = self.route_name(delivery.route);
        let uid = self.row_of(slot.0).uid;
        Ok(view::read_chain(uid, &route, delivery.last(), facts)?.0)
    }

    /// The event with this uid, if it is stored or remembered.
    pub(crate) fn event_key(&self, uid: Uid) -> Option<EventKey> {
        self.identities.candidates(self.hashing.uid(uid)).find(|key| {
            self.row(*key).is_some_and(|row| row.uid == uid && row.kind != RowKind::Gone)
        })
    }

    /// The same, if there is something to show.
    pub(crate) fn stored(&self, uid: Uid) -> Option<EventKey> {
        self.event_key(uid).filter(|key| self.row_of(*key).is_stored())
    }

    pub(crate) fn shelf(&self, segment: u32) -> Option<&Arc<Shelf>> {
        self.shelves.get(&segment)
    }

    pub(crate) fn shelves(&self) -> &Shelves {
        &self.shelves
    }

    pub(crate) fn row(&self, key: EventKey) -> Option<&EventRow> {
        self.shelves.get(&key.segment)?.row(key.index)
    }

    /// The row of a key that was found here under the same hold of the lock.
    pub(crate) fn row_of(&self, key: EventKey) -> &EventRow {
        self.row(key).expect("keys are given out for rows that are there")
    }

    pub(crate) fn repeats(&self, key: EventKey) -> Option<&Repeats> {
        self.shelves.get(&key.segment)?.repeats.get(&key.index)
    }

    /// Where the event stands.
    pub(crate) fn position(&self, key: EventKey) -> Position {
        let row = self.row_of(key);
        Position { segment: key.segment.into(), offset: row.offset, index: row.index.into() }
    }

    /// The event is durable once the facts before this number are. Those of full segments are.
    pub(crate) fn durable_after(&self, key: EventKey) -> u64 {
        let open = self.open.get(&key.segment);
        open.and_then(|open| open.numbers.get(key.index as usize)).map_or(0, |number| number + 1)
    }

    /// All that happened to the event is durable once the facts before this number are.
    pub(crate) fn settled_after(&self, key: EventKey) -> u64 {
        let touched = self.open.values().filter_map(|open| open.touched.get(&key));
        let touched = touched.max().map_or(0, |number| number + 1);
        touched.max(self.durable_after(key))
    }

    pub(crate) fn deliveries(&self, key: EventKey) -> &[DeliveryRow] {
        match self.shelves.get(&key.segment) {
            Some(shelf) => shelf.row(key.index).map_or(&[], |row| shelf.deliveries_of(row)),
            None => &[],
        }
    }

    pub(crate) fn slot(&self, id: &DeliveryId) -> Option<Slot> {
        let key = self.event_key(id.uid)?;
        let route = self.names.number(id.route.as_str())?;
        let index = self.deliveries(key).iter().position(|delivery| delivery.route == route)?;
        Some((key, index as u16))
    }

    pub(crate) fn delivery(&self, slot: Slot) -> &DeliveryRow {
        &self.deliveries(slot.0)[usize::from(slot.1)]
    }

    fn delivery_mut(&mut self, slot: Slot) -> &mut DeliveryRow {
        self.shelf_mut(slot.0.segment).delivery_mut(slot.0.index, slot.1)
    }

    pub(crate) fn live(&self, slot: Slot) -> Option<&Live> {
        self.live.get(&slot)
    }

    pub(crate) fn route_name(&self, number: u32) -> RouteName {
        RouteName::new(self.name(number))
    }

    /// A name that a row has.
    pub(crate) fn name(&self, number: u32) -> Arc<str> {
        self.names.text(number).cloned().unwrap_or_else(|| "".into())
    }

    pub(crate) fn name_number(&self, name: &str) -> Option<u32> {
        self.names.number(name)
    }

    pub(crate) fn type_number(&self, event_type: &str) -> Option<u32> {
        self.types.number(event_type)
    }

    /// A route's text; it is needed as long as the configuration that runs has it.
    pub(crate) fn revision(&self, hash: &RevisionHash) -> Option<&Arc<str>> {
        self.revisions.get(hash).map(|revision| &revision.text)
    }

    pub(crate) fn unfinished_of(&self, route: &RouteName) -> u64 {
        let number = self.names.number(route.as_str());
        number.and_then(|number| self.unfinished.get(&number)).copied().unwrap_or(0)
    }

    /// A small named state.
    pub(crate) fn cell(&self, name: &str) -> Option<&Cell> {
        self.cells.get(name)
    }

    /// Failed deliveries by route and cause.
    pub(crate) fn causes(&self) -> Vec<(RouteName, Arc<str>, u64)> {
        let named = |((route, cause), count): (&(u32, Option<u32>), &u64)| {
            let cause = cause.map_or_else(|| "".into(), |cause| self.name(cause));
            (self.route_name(*route), cause, *count)
        };
        self.causes.iter().map(named).collect()
    }

    /// Events that may have this identity: each must be confirmed on what it stored.
    pub(crate) fn identity_candidates<'a>(
        &'a self,
        envelope: &'a Envelope,
        identity: &'a Identity,
    ) -> impl Iterator<Item = EventKey> + 'a {
        let hash = |hashing: Hashing| hashing.identity(&envelope.source, &envelope.path, identity);
        self.hashings().flat_map(move |hashing| self.known_by(hash(hashing)))
    }

    /// This journal's, and those of others that were imported: a hash whose text is gone can only be compared under the key
    /// that it was made with.
    pub(crate) fn hashings(&self) -> impl Iterator<Item = Hashing> + '_ {
        std::iter::once(self.hashing).chain(self.foreign.iter().copied())
    }

    fn note_foreign(&mut self, cell: &str, value: &[u8]) {
        if cell.starts_with(FOREIGN)
            && let Ok(secret) = <[u8; 16]>::try_from(value)
            && self.hashings().all(|known| known.secret() != secret)
        {
            self.foreign.push(Hashing::new(secret));
        }
    }

    fn known_by(&self, hash: u64) -> impl Iterator<Item = EventKey> + '_ {
        let there = |key: &EventKey| self.row(*key).is_some_and(|row| row.kind != RowKind::Gone);
        self.identities.candidates(hash).filter(there)
    }

    /// Who stands in the way of this change: the other holder of the explicit key that it wants to use.
    pub(crate) fn key_holder(
        &self,
        id: &DeliveryId,
        change: &Change,
        facts: &dyn ReadFacts,
    ) -> Result<Option<KeyHolder>, StoreError> {
        let Some(claim) = super::keys::wanted(&id.route, change) else { return Ok(None) };
        if let Some(holder) = self.keys.holder(&claim) {
            return Ok((holder.delivery != *id).then_some(holder));
        }
        let hashes = self.hashings().map(|hashing| hashing.key(&claim));
        for key in hashes.flat_map(|hash| self.known_by(hash)).collect::<Vec<_>>() {
            let holder = self.finished_holder(key, &claim, facts)?;
            if let Some(holder) = holder.filter(|holder| holder.delivery != *id) {
                return Ok(Some(holder));
            }
        }
        Ok(None)
    }

    /// The delivery of this event that made the call of the key, as it says itself.
    fn finished_holder(
        &self,
        key: EventKey,
        claim: &KeyClaim,
        facts: &dyn ReadFacts,
    ) -> Result<Option<KeyHolder>, StoreError> {
        let row = self.row_of(key);
        if row.kind == RowKind::Remembered {
            return match &*facts.read(self.position(key))? {
                Fact::Remembered(remembered) => {
                    let wide: Vec<_> =
                        self.hashings().map(|hashing| hashing.wide_key(claim)).collect();
                    let known = remembered.keys.iter().find(|known| wide.contains(&known.key));
                    Ok(known.map(|known| KeyHolder {
                        delivery: DeliveryId { uid: remembered.uid, route: known.route.clone() },
                        event_id: remembered.event_id.clone(),
                        status: crate::delivery::state::StepStatus::Succeeded,
                        saved: known.saved.clone(),
                    }))
                }
                _ => Err(StoreError::Corrupt(format!(
                    "nothing is remembered at {}",
                    self.position(key)
                ))),
            };
        }
        let Some(slot) = self.slot(&DeliveryId { uid: row.uid, route: claim.route.clone() }) else {
            return Ok(None);
        };
        let state = self.load_state(slot, facts)?;
        Ok(super::keys::holder_in(&state, claim))
    }

    /// Events of a segment without pages that may have this term.
    pub(crate) fn with_term(&self, segment: u32, term: u64) -> Option<Vec<EventKey>> {
        let least = EventKey { segment: 0, index: 0 };
        let most = EventKey { segment: u32::MAX, index: u32::MAX };
        let open = self.open.get(&segment)?;
        Some(open.terms.range((term, least)..=(term, most)).map(|(_, key)| *key).collect())
    }

    /// Forgets of a full segment what stands on its pages now. The answer is to be dropped where nobody waits for it.
    pub(crate) fn shelve(&mut self, segment: u32) -> Option<Open> {
        if let Some(shelf) = self.shelves.get_mut(&segment) {
            Arc::make_mut(shelf).shrink();
        }
        self.open.remove(&segment)
    }
}

/// A delivery as it begins: due at once.
pub(crate) fn first_state(
    uid: Uid,
    event_id: &EventId,
    planned: &Planned,
    at: Timestamp,
) -> DeliveryState {
    DeliveryState {
        id: DeliveryId { uid, route: planned.route.clone() },
        event_id: event_id.clone(),
        key_base: planned.key_base.clone(),
        revision: planned.revision.clone(),
        status: Status::Queued,
        version: 0,
        due_at: Some(at),
        reason: None,
        steps: Vec::new(),
    }
}

/// The state after a change: a new head, and the steps that changed replaced whole.
pub(crate) fn merge(state: &mut DeliveryState, transition: &Transition) {
    state.version += 1;
    state.status = transition.status;
    state.due_at = transition.due_at;
    state.reason = transition.reason.clone();
    if let Some(revision) = &transition.revision {
        state.revision = revision.clone();
    }
    for step in &transition.steps {
        let same = |known: &&mut crate::delivery::state::StepState| {
            known.step == step.step && known.element == step.element
        };
        match state.steps.iter_mut().find(same) {
            Some(known) => *known = step.clone(),
            None => state.steps.push(step.clone()),
        }
    }
}
