//! The state at one moment, as far as it is not read in the journal again: what a checkpoint writes down, and what a start
//! begins with.

use std::sync::Arc;

use jiff::Timestamp;

use super::rows::{EventKey, RowKind, Shelves, Slot};
use super::words::Words;
use super::{Cell, Moment, Revision, State};
use crate::delivery::state::Status;
use crate::name::Uid;
use crate::store::fact::{Fact, Position, ReadFacts};
use crate::store::hashing::Hashing;
use crate::store::{StoreError, view};

/// Taken in a moment: shelves are shared, and copied only where they change meanwhile.
#[derive(Clone)]
pub(crate) struct Frozen {
    pub(crate) shelves: Shelves,
    /// Routes, causes and sources, in the order of their numbers.
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) types: Vec<Arc<str>>,
    /// Where the texts of routes stand.
    pub(crate) revisions: Vec<Position>,
    /// Where the small states stand.
    pub(crate) cells: Vec<Position>,
    /// Where the secrets of handshakes stand.
    pub(crate) secrets: Vec<Position>,
    pub(crate) retired: u64,
    pub(crate) epoch: u64,
    /// Number of the next fact.
    pub(crate) next: u64,
    pub(crate) newest: Timestamp,
}

/// What the events of one segment are known by, as its pages have it.
pub(crate) struct KnownBy {
    /// Hash, and number of the row.
    pub(crate) identities: Vec<(u64, u32)>,
    /// Hashes of explicit keys whose calls were made, and by which event.
    pub(crate) keys: Vec<(u64, Uid)>,
}

impl State {
    pub(crate) fn freeze(&self) -> Frozen {
        Frozen {
            shelves: self.shelves.clone(),
            names: self.names.texts().to_vec(),
            types: self.types.texts().to_vec(),
            revisions: self.revisions.values().map(|revision| revision.at).collect(),
            cells: self.cells.values().map(|cell| cell.at).collect(),
            secrets: self.secrets.positions(),
            retired: self.retired,
            epoch: self.epoch,
            next: self.next,
            newest: self.newest,
        }
    }

    /// The state that `frozen` was taken of. `None`: the parts do not belong together. `known_by` is asked per segment.
    pub(crate) fn thaw(
        hashing: Hashing,
        frozen: Frozen,
        mut known_by: impl FnMut(u32) -> Option<KnownBy>,
        facts: &dyn ReadFacts,
        now: Moment,
    ) -> Result<Option<Self>, StoreError> {
        let mut state = Self::new(hashing);
        state.names = Words::of(frozen.names);
        state.types = Words::of(frozen.types);
        state.retired = frozen.retired;
        state.epoch = frozen.epoch;
        state.next = frozen.next;
        state.newest = frozen.newest;
        state.shelves = frozen.shelves;
        let mut keys = Vec::new();
        for (segment, shelf) in &state.shelves {
            let Some(known) = known_by(*segment) else { return Ok(None) };
            for (hash, index) in known.identities {
                let Some(row) = shelf.row(index) else { return Ok(None) };
                if row.kind != RowKind::Gone {
                    state.identities.push(hash, EventKey { segment: *segment, index });
                }
            }
            for (index, row) in shelf.events.iter().enumerate() {
                if row.kind != RowKind::Gone {
                    let key = EventKey { segment: *segment, index: index as u32 };
                    state.identities.push(hashing.uid(row.uid), key);
                }
            }
            keys.extend(known.keys);
        }
        state.identities.settle();
        for (hash, uid) in keys {
            // What it belonged to may have expired.
            if let Some(key) = state.event_key(uid) {
                state.identities.insert(hash, key);
            }
        }
        for at in frozen.revisions {
            let Fact::Revision { hash, text } = &*facts.read(at)? else { return Ok(None) };
            state.revisions.insert(hash.clone(), Revision { text: text.clone(), at });
        }
        for at in frozen.cells {
            let Fact::Cell { name, version, value } = &*facts.read(at)? else { return Ok(None) };
            state.note_foreign(name, value);
            let cell = Cell { version: *version, value: value.clone(), at };
            state.cells.insert(name.clone(), cell);
        }
        for at in frozen.secrets {
            let Fact::SecretCaptured(secret) = &*facts.read(at)? else { return Ok(None) };
            state.secrets.put(secret, at);
        }
        state.recount();
        state.read_live(facts, now)?;
        Ok(Some(state))
    }

    fn recount(&mut self) {
        let shelves: Vec<_> = self.shelves.values().cloned().collect();
        for shelf in shelves {
            for row in shelf.events.iter().filter(|row| row.is_stored()) {
                self.counts.events += 1;
                self.counts.review += u64::from(row.kind == RowKind::Malformed);
                for delivery in shelf.deliveries_of(row) {
                    if delivery.status == Status::Failed {
                        self.counts.review += 1;
                        *self.causes.entry((delivery.route, delivery.cause())).or_default() += 1;
                    }
                    if !delivery.status.is_finished() {
                        self.counts.unfinished += 1;
                        *self.unfinished.entry(delivery.route).or_default() += 1;
                    }
                }
            }
        }
    }

    /// The states of what is unfinished, and of what holds a key, are read where their last facts stand.
    fn read_live(&mut self, facts: &dyn ReadFacts, now: Moment) -> Result<(), StoreError> {
        let mut wanted: Vec<(Slot, Uid, u32, Position, bool)> = Vec::new();
        for (segment, shelf) in &self.shelves {
            for (row, index) in shelf.events.iter().zip(0..) {
                for (delivery, number) in shelf.deliveries_of(row).iter().zip(0..) {
                    let finished = delivery.status.is_finished();
                    if !finished || delivery.holds_key {
                        let slot = (EventKey { segment: *segment, index }, number);
                        wanted.push((slot, row.uid, delivery.route, delivery.last(), finished));
                    }
                }
            }
        }
        for (slot, uid, route, last, finished) in wanted {
            let (state, entries) = view::read_chain(uid, &self.route_name(route), last, facts)?;
            self.keys.restore(&state);
            if finished {
                self.finish_keys(slot.0, &state);
                continue;
            }
            let decided_at = match entries.last() {
                Some(entry) => entry.at,
                None => state.due_at.unwrap_or(now.wall),
            };
            // All that is frozen is durable.
            let live = super::Live { state, held: None, decided_at, scheduled: None, touched: 0 };
            self.live.insert(slot, live);
        }
        // Who waits for a key is known once all who hold one are.
        let slots: Vec<Slot> = self.live.keys().copied().collect();
        for slot in slots {
            let Some(mut live) = self.live.remove(&slot) else { continue };
            self.keys.wait(&live.state);
            let decided_at = live.decided_at;
            self.release(&mut live.state, decided_at);
            // A row says, too, that a worker held it.
            let status = live.state.status;
            self.live.insert(slot, live);
            self.delivery_mut(slot).status = status;
        }
        Ok(())
    }
}
