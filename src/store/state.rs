//! The state that the facts make, held in memory: which events are known by which identities, the live deliveries and
//! when they are due, who holds which explicit key. Facts enter, in order; questions are answered. It writes nothing,
//! reads no clock, and does not know whether a fact is durable yet.

mod due;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::fact::{Accepted, Changed, Fact, Planned, Position, ReadFacts, Routed};
use super::hashing::Hashing;
use super::keys::Keys;
use super::page::{About, Place};
use super::{Fence, StoreError, view};
use crate::delivery::state::{DeliveryState, Status, Transition};
use crate::envelope::{Envelope, Identity};
use crate::name::{DeliveryId, EventId, RevisionHash, RouteName, SourceName, Uid};
use bytes::Bytes;
use jiff::Timestamp;

/// A moment on both clocks: wall time is written down, monotonic time is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) wall: Timestamp,
    pub(crate) monotonic: Duration,
}

/// What is remembered of an event. The rest is read where `accepted` says.
pub(crate) struct EventRow {
    pub(crate) uid: Uid,
    pub(crate) accepted: Position,
    pub(crate) accepted_number: u64,
    /// Number of the fact that touched it last.
    pub(crate) touched: u64,
    /// `None` once it stands on a page of its segment.
    pub(crate) about: Option<Box<About>>,
    pub(crate) malformed: bool,
    /// `None` while it came once.
    pub(crate) repeats: Option<Box<Repeats>>,
    pub(crate) deliveries: Vec<DeliveryRow>,
    /// Kept while a delivery is live.
    pub(crate) envelope: Option<Arc<Envelope>>,
}

/// What came again under an event's identities.
#[derive(Clone, Default)]
pub(crate) struct Repeats {
    pub(crate) duplicates: u64,
    pub(crate) conflict_count: u64,
    /// Those kept for a person, with the digest of the body.
    pub(crate) conflicts: Vec<(Position, [u8; 32])>,
}

pub(crate) struct DeliveryRow {
    pub(crate) route: RouteName,
    pub(crate) status: Status,
    pub(crate) version: u64,
    pub(crate) attempts: u32,
    pub(crate) cause: Option<Arc<str>>,
    /// The delivery's last fact: the head of the chain that its timeline is read from.
    pub(crate) last: Position,
    /// `None` once it is finished.
    pub(crate) live: Option<Box<Live>>,
}

pub(crate) struct Live {
    pub(crate) state: DeliveryState,
    /// Who may record, while a worker holds it.
    pub(crate) held: Option<Fence>,
    /// When the last fact was decided: a wait is measured from there.
    decided_at: Timestamp,
    scheduled: Option<DueKey>,
}

/// Ordered by time, then by the order of scheduling.
type DueKey = (Duration, u64);

/// A delivery by its numbers: event, and delivery within the event.
type Slot = (u32, u16);

pub(crate) struct State {
    hashing: Hashing,
    pub(crate) events: Vec<EventRow>,
    by_uid: HashMap<Uid, u32>,
    /// (keyed hash of an identity, event): equal hashes stand beside each other, so a collision hides nothing.
    identities: BTreeSet<(u64, u32)>,
    /// The same of event ids, of those events that stand on no page.
    by_event_id: BTreeSet<(u64, u32)>,
    revisions: BTreeMap<RevisionHash, Arc<str>>,
    pub(crate) keys: Keys,
    due: BTreeMap<DueKey, Slot>,
    scheduled_count: u64,
    fence: u64,
    /// Unfinished deliveries by route.
    unfinished: BTreeMap<RouteName, u64>,
    pub(crate) counts: Counts,
    words: BTreeSet<Arc<str>>,
    /// Not produced yet; carried so that a journal that has them keeps them.
    cells: BTreeMap<String, (u64, Bytes)>,
    pub(crate) retired: BTreeSet<u64>,
    /// Segments are missing, which must turn out to be retired.
    pub(crate) has_gaps: bool,
    pub(crate) epoch: u64,
    /// Number of the next fact.
    pub(crate) next: u64,
}

/// Deliveries by status, with what is held told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) unfinished: u64,
    pub(crate) held: u64,
    /// Failed deliveries and malformed events: what is in review.
    pub(crate) review: u64,
}

impl State {
    pub(crate) fn new(hashing: Hashing) -> Self {
        Self {
            hashing,
            events: Vec::new(),
            by_uid: HashMap::new(),
            identities: BTreeSet::new(),
            by_event_id: BTreeSet::new(),
            revisions: BTreeMap::new(),
            keys: Keys::default(),
            due: BTreeMap::new(),
            scheduled_count: 0,
            fence: 0,
            unfinished: BTreeMap::new(),
            counts: Counts::default(),
            words: BTreeSet::new(),
            cells: BTreeMap::new(),
            retired: BTreeSet::new(),
            has_gaps: false,
            epoch: 0,
            next: 0,
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
        self.next = number + 1;
        match fact {
            Fact::Accepted(accepted) => self.apply_accepted(accepted, at, number, now),
            Fact::Duplicate { uid } => {
                if let Some(row) = self.row_mut(*uid) {
                    row.repeats.get_or_insert_default().duplicates += 1;
                    row.touched = number;
                }
            }
            Fact::Conflict { uid, digest, body, .. } => {
                if let Some(row) = self.row_mut(*uid) {
                    row.touched = number;
                    let repeats = row.repeats.get_or_insert_default();
                    repeats.conflict_count += 1;
                    if body.is_some() {
                        repeats.conflicts.push((at, *digest));
                    }
                }
            }
            Fact::Changed(changed) => self.apply_changed(changed, at, number, now, facts)?,
            Fact::Routed(routed) => self.apply_routed(routed, at, number, now, facts)?,
            Fact::Revision { hash, text } => {
                self.revisions.insert(hash.clone(), text.clone());
            }
            Fact::Cell { name, version, value } => {
                let cell = self.cells.entry(name.clone()).or_default();
                if *version > cell.0 {
                    *cell = (*version, value.clone());
                }
            }
            Fact::Snapshot(state) => self.apply_snapshot(state, at, number, now, facts)?,
            Fact::Retired { segment } => {
                self.retired.insert(*segment);
            }
            Fact::Opened { epoch } => self.epoch = *epoch,
            Fact::Closed => {}
        }
        Ok(())
    }

    fn apply_accepted(&mut self, accepted: &Accepted, at: Position, number: u64, now: Moment) {
        let envelope = &accepted.envelope;
        let about = Box::new(About {
            event_type: self.word(&envelope.event_type),
            source: SourceName::new(self.word(envelope.source.as_str())),
            ..About::of(envelope)
        });
        let id_hash = self.hashing.text(envelope.event_id.as_str());
        if let Some(event) = self.event_number(envelope.uid) {
            // Carried forward: from here on it is read in the newer place, and so is what began with it.
            self.by_event_id.insert((id_hash, event));
            let row = &mut self.events[event as usize];
            let before = std::mem::replace(&mut row.accepted, at);
            row.about = Some(about);
            row.touched = number;
            for delivery in row.deliveries.iter_mut().filter(|delivery| delivery.last == before) {
                delivery.last = at;
            }
            return;
        }
        let event = self.events.len() as u32;
        self.by_uid.insert(envelope.uid, event);
        for identity in &accepted.identities {
            let hash = self.hashing.identity(&envelope.source, &envelope.path, identity);
            self.identities.insert((hash, event));
        }
        self.by_event_id.insert((id_hash, event));
        self.counts.review += u64::from(envelope.malformed.is_some());
        let row = EventRow {
            uid: envelope.uid,
            accepted: at,
            accepted_number: number,
            touched: number,
            about: Some(about),
            malformed: envelope.malformed.is_some(),
            repeats: None,
            deliveries: Vec::with_capacity(accepted.deliveries.len()),
            envelope: (!accepted.deliveries.is_empty()).then(|| envelope.clone()),
        };
        self.events.push(row);
        for planned in &accepted.deliveries {
            self.begin(event, &envelope.event_id, planned, at, envelope.received_at, now);
        }
    }

    /// Adds a delivery to an event. Its envelope must be there.
    fn begin(
        &mut self,
        event: u32,
        event_id: &EventId,
        planned: &Planned,
        at: Position,
        decided_at: Timestamp,
        now: Moment,
    ) {
        let route = RouteName::new(self.word(planned.route.as_str()));
        let row = &mut self.events[event as usize];
        let state = first_state(row.uid, event_id, planned, decided_at);
        let index = row.deliveries.len() as u16;
        row.deliveries.push(DeliveryRow {
            route: route.clone(),
            status: Status::Queued,
            version: 0,
            attempts: 0,
            cause: None,
            last: at,
            live: Some(Box::new(Live { state, held: None, decided_at, scheduled: None })),
        });
        self.counts.unfinished += 1;
        *self.unfinished.entry(route).or_default() += 1;
        self.schedule((event, index), now);
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
            return self.unknown(|| format!("{at}: no delivery {id} was begun"));
        };
        let row = self.delivery(slot);
        if changed.version <= row.version {
            return Ok(());
        }
        if changed.version != row.version + 1 {
            return Err(StoreError::Corrupt(format!(
                "{at}: version {} of {id} follows version {}",
                changed.version, row.version
            )));
        }
        self.revive(slot, facts)?;
        let decided_at = changed.change.entry.at;
        let mut state = self.take_live_state(slot);
        self.keys.leave(&state);
        merge(&mut state, &changed.change.transition);
        let woken = self.keys.enter(&state, &changed.change);
        self.release(&mut state, decided_at);
        self.put_state(slot, state, at, number, decided_at, now);
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
        let Some(&event) = self.by_uid.get(&routed.uid) else {
            return self.unknown(|| format!("{at}: no event {} was accepted", routed.uid));
        };
        for delivery in &routed.deliveries {
            let id = DeliveryId { uid: routed.uid, route: delivery.planned.route.clone() };
            match self.slot(&id) {
                None => {
                    let envelope = self.load_envelope(event, facts)?;
                    let id = &envelope.event_id;
                    self.begin(event, id, &delivery.planned, at, routed.entry.at, now);
                }
                Some(slot) if self.delivery(slot).version + 1 == delivery.version => {
                    self.revive(slot, facts)?;
                    let old = self.take_live_state(slot);
                    self.keys.leave(&old);
                    let mut state =
                        first_state(routed.uid, &old.event_id, &delivery.planned, routed.entry.at);
                    state.version = delivery.version;
                    self.put_state(slot, state, at, number, routed.entry.at, now);
                }
                Some(_) => {}
            }
        }
        self.events[event as usize].touched = number;
        Ok(())
    }

    fn apply_snapshot(
        &mut self,
        state: &DeliveryState,
        at: Position,
        number: u64,
        now: Moment,
        facts: &dyn ReadFacts,
    ) -> Result<(), StoreError> {
        // What is carried forward is live: without its event it would be lost in silence.
        let slot = self.slot(&state.id).ok_or_else(|| {
            StoreError::Corrupt(format!("{at}: no delivery {} was begun", state.id))
        })?;
        if state.version > self.delivery(slot).version {
            let envelope = self.load_envelope(slot.0, facts)?;
            let old = self.delivery(slot).live.as_ref().map(|live| live.state.clone());
            if let Some(old) = old {
                self.keys.leave(&old);
            }
            let mut state = state.clone();
            let woken = self.keys.restore(&state);
            let decided_at = state.due_at.unwrap_or(envelope.received_at);
            self.release(&mut state, decided_at);
            self.put_state(slot, state, at, number, decided_at, now);
            self.wake_all(woken, decided_at, number, now);
        }
        Ok(())
    }

    /// A fact about what is not known. Where segments are gone, what was accepted there is finished and forgotten.
    fn unknown(&self, what: impl FnOnce() -> String) -> Result<(), StoreError> {
        if self.has_gaps { Ok(()) } else { Err(StoreError::Corrupt(what())) }
    }

    fn wake_all(&mut self, woken: Vec<DeliveryId>, at: Timestamp, number: u64, now: Moment) {
        for waiter in woken {
            if let Some(slot) = self.slot(&waiter) {
                self.wake(slot, at, number, now);
            }
        }
    }

    /// Puts the new state of a delivery in its place: counted, scheduled, and its memory freed if it is finished.
    fn put_state(
        &mut self,
        slot: Slot,
        state: DeliveryState,
        at: Position,
        number: u64,
        decided_at: Timestamp,
        now: Moment,
    ) {
        self.unschedule(slot);
        let row = &mut self.events[slot.0 as usize];
        row.touched = number;
        let delivery = &mut row.deliveries[slot.1 as usize];
        let (was, is) = (delivery.status, state.status);
        let held = delivery.live.as_ref().and_then(|live| live.held);
        let stays_held = held.filter(|_| is == Status::Processing);
        delivery.status = is;
        delivery.version = state.version;
        delivery.attempts = state.attempts();
        delivery.last = at;
        let cause = state.reason.as_ref().map(|reason| reason.cause.clone());
        delivery.live = (!is.is_finished())
            .then(|| Box::new(Live { state, held: stays_held, decided_at, scheduled: None }));
        let route = delivery.route.clone();
        if row.deliveries.iter().all(|delivery| delivery.live.is_none()) {
            row.envelope = None;
        }
        let cause = cause.map(|cause| self.word(&cause));
        self.delivery_mut(slot).cause = cause;
        self.count(&route, was, is);
        if held.is_some() && stays_held.is_none() {
            self.counts.held -= 1;
        }
        if !is.is_finished() && stays_held.is_none() {
            self.schedule(slot, now);
        }
    }

    fn count(&mut self, route: &RouteName, was: Status, is: Status) {
        let unfinished = self.unfinished.entry(route.clone()).or_default();
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
        self.counts.review -= u64::from(was == Status::Failed);
        self.counts.review += u64::from(is == Status::Failed);
    }

    /// A finished delivery gets its state back, read from the facts.
    fn revive(&mut self, slot: Slot, facts: &dyn ReadFacts) -> Result<(), StoreError> {
        if self.delivery(slot).live.is_some() {
            return Ok(());
        }
        let state = self.load_state(slot, facts)?;
        let envelope = self.load_envelope(slot.0, facts)?;
        let decided_at = state.due_at.unwrap_or(envelope.received_at);
        self.delivery_mut(slot).live =
            Some(Box::new(Live { state, held: None, decided_at, scheduled: None }));
        Ok(())
    }

    fn load_envelope(
        &mut self,
        event: u32,
        facts: &dyn ReadFacts,
    ) -> Result<Arc<Envelope>, StoreError> {
        let row = &mut self.events[event as usize];
        if let Some(envelope) = &row.envelope {
            return Ok(envelope.clone());
        }
        let envelope = Accepted::envelope(facts, row.accepted)?;
        row.envelope = Some(envelope.clone());
        Ok(envelope)
    }

    /// The state of a delivery, live or finished.
    pub(crate) fn load_state(
        &self,
        slot: Slot,
        facts: &dyn ReadFacts,
    ) -> Result<DeliveryState, StoreError> {
        let delivery = self.delivery(slot);
        if let Some(live) = &delivery.live {
            return Ok(live.state.clone());
        }
        let row = &self.events[slot.0 as usize];
        Ok(view::read_chain(row.uid, &delivery.route, delivery.last, facts)?.0)
    }

    /// The state is moved out to be changed, and put back by `put_state`.
    fn take_live_state(&mut self, slot: Slot) -> DeliveryState {
        let live = self.delivery(slot).live.as_ref().expect("it was revived just before");
        live.state.clone()
    }

    pub(crate) fn event_number(&self, uid: Uid) -> Option<u32> {
        self.by_uid.get(&uid).copied()
    }

    pub(crate) fn row(&self, uid: Uid) -> Option<&EventRow> {
        self.event_number(uid).map(|event| &self.events[event as usize])
    }

    fn row_mut(&mut self, uid: Uid) -> Option<&mut EventRow> {
        let event = self.event_number(uid)?;
        Some(&mut self.events[event as usize])
    }

    pub(crate) fn slot(&self, id: &DeliveryId) -> Option<Slot> {
        let event = self.event_number(id.uid)?;
        let deliveries = &self.events[event as usize].deliveries;
        let index = deliveries.iter().position(|delivery| delivery.route == id.route)?;
        Some((event, index as u16))
    }

    pub(crate) fn delivery(&self, slot: Slot) -> &DeliveryRow {
        &self.events[slot.0 as usize].deliveries[slot.1 as usize]
    }

    fn delivery_mut(&mut self, slot: Slot) -> &mut DeliveryRow {
        &mut self.events[slot.0 as usize].deliveries[slot.1 as usize]
    }

    pub(crate) fn revision(&self, hash: &RevisionHash) -> Option<&Arc<str>> {
        self.revisions.get(hash)
    }

    pub(crate) fn unfinished_of(&self, route: &RouteName) -> u64 {
        self.unfinished.get(route).copied().unwrap_or(0)
    }

    /// Events that may have this identity: each must be confirmed on what it stored.
    pub(crate) fn identity_candidates(
        &self,
        envelope: &Envelope,
        identity: &Identity,
    ) -> impl Iterator<Item = &EventRow> {
        let hash = self.hashing.identity(&envelope.source, &envelope.path, identity);
        self.identities
            .range((hash, 0)..=(hash, u32::MAX))
            .map(|(_, event)| &self.events[*event as usize])
    }

    /// Events that may have this id, of those that stand on no page, and the one that has this uid.
    pub(crate) fn find(&self, id: &str) -> Vec<u32> {
        let hash = self.hashing.text(id);
        let by_id = self.by_event_id.range((hash, 0)..=(hash, u32::MAX));
        let by_uid = id.parse().ok().and_then(|uid| self.event_number(Uid(uid)));
        by_id.map(|(_, event)| *event).chain(by_uid).collect()
    }

    /// Forgets of these events, which were accepted in `segment`, what stands on its pages now.
    pub(crate) fn shelve(&mut self, segment: u64, events: &[(Uid, Place)]) {
        for (uid, place) in events {
            let Some(event) = self.event_number(*uid) else { continue };
            let row = &mut self.events[event as usize];
            let accepted = Position { segment, offset: place.0, index: place.1 };
            if row.accepted == accepted
                && let Some(about) = row.about.take()
            {
                self.by_event_id.remove(&(self.hashing.text(about.event_id.as_str()), event));
            }
        }
    }

    /// Words that many events share are kept once. Beyond a bound they are not remembered: a sender may invent types.
    fn word(&mut self, text: &str) -> Arc<str> {
        const WORDS_MAX: usize = 10_000;
        if let Some(word) = self.words.get(text) {
            return word.clone();
        }
        let word: Arc<str> = text.into();
        if self.words.len() < WORDS_MAX {
            self.words.insert(word.clone());
        }
        word
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
