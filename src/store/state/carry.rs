//! Events that move on to a newer segment, events that expire, and segments that go.

use std::collections::BTreeMap;

use super::rows::{AuditRow, EventKey, KeptConflict, NewRow, RowKind, Slot, seconds, segment_of};
use super::{Moment, State};
use crate::delivery::state::Status;
use crate::name::RouteName;
use crate::store::fact::{Audited, Fact, Position, Remembered, Snapshot};
use crate::store::hashing::short_of;
use crate::store::{Fence, StoreError};

impl State {
    pub(super) fn apply_snapshot(
        &mut self,
        snapshot: &Snapshot,
        at: Position,
        number: u64,
        now: Moment,
    ) -> Result<(), StoreError> {
        let envelope = &snapshot.envelope;
        let old = self.event_key(envelope.uid);
        if old.is_some_and(|old| self.position(old) == at) {
            return Ok(());
        }
        // A worker goes on holding what it holds.
        let mut held: BTreeMap<RouteName, Fence> = BTreeMap::new();
        if let Some(old) = old {
            held = self.leave_place(old);
        }
        let key = self.add_row(envelope, &snapshot.identities, at, number)?;
        if snapshot.duplicates > 0 || snapshot.conflict_count > 0 {
            let repeats = self.shelf_mut(key.segment).repeats.entry(key.index).or_default();
            repeats.duplicates = snapshot.duplicates;
            repeats.conflict_count = snapshot.conflict_count;
            let conflicts = snapshot.conflicts.iter().zip(0..);
            repeats.conflicts = conflicts
                .map(|(conflict, number)| KeptConflict { at, number, digest: conflict.digest })
                .collect();
        }
        if !self.is_reading {
            let terms = snapshot.terms.iter().map(|term| (*term, key));
            self.open_mut(key.segment).terms.extend(terms);
        }
        for carried in &snapshot.deliveries {
            let mut state = carried.state.clone();
            let decided_at = carried.entries.last().map_or(envelope.received_at, |entry| entry.at);
            let woken = self.keys.restore(&state);
            self.release(&mut state, decided_at);
            let fence = held.remove(&state.id.route);
            if fence.is_some() && !state.status.is_finished() {
                // It may have been claimed after it was read to be carried.
                state.status = Status::Processing;
            }
            self.begin(key, state, at, number, decided_at, fence, now)?;
            self.wake_all(woken, decided_at, number, now);
        }
        Ok(())
    }

    /// Takes an event out of where it stood. Answers who holds deliveries of it.
    fn leave_place(&mut self, key: EventKey) -> BTreeMap<RouteName, Fence> {
        let mut held = BTreeMap::new();
        let rows: Vec<_> =
            self.deliveries(key).iter().map(|row| (row.route, row.status, row.cause())).collect();
        for ((route, status, cause), index) in rows.into_iter().zip(0..) {
            let slot: Slot = (key, index);
            self.unschedule(slot);
            self.damage.close(slot);
            if let Some(live) = self.live.remove(&slot) {
                self.keys.leave(&live.state);
                if let Some(fence) = live.held {
                    self.counts.held -= 1;
                    held.insert(live.state.id.route.clone(), fence);
                }
            }
            self.uncount(route, status, cause);
        }
        self.counts.held += held.len() as u64;
        self.uncount_event(key);
        self.envelopes.drop_one(key);
        self.shelf_mut(key.segment).drop_event(key.index);
        held
    }

    fn uncount(&mut self, route: u32, status: Status, cause: Option<u32>) {
        if !status.is_finished() {
            self.counts.unfinished -= 1;
            if let Some(unfinished) = self.unfinished.get_mut(&route) {
                *unfinished -= 1;
            }
        }
        if status == Status::Failed {
            self.uncount_failed(route, cause);
        }
    }

    fn uncount_event(&mut self, key: EventKey) {
        let Some(row) = self.row(key) else { return };
        let (stored, malformed) = (row.is_stored(), row.kind == RowKind::Malformed);
        self.counts.events -= u64::from(stored);
        self.counts.review -= u64::from(malformed);
    }

    pub(super) fn apply_remembered(
        &mut self,
        remembered: &Remembered,
        at: Position,
    ) -> Result<(), StoreError> {
        let old = self.event_key(remembered.uid);
        if old.is_some_and(|old| self.position(old) == at) {
            return Ok(());
        }
        if let Some(old) = old {
            self.leave_place(old);
        }
        let segment = segment_of(at)?;
        let source = u16::try_from(self.names.take(remembered.source.as_str())).ok();
        let new = NewRow {
            uid: remembered.uid,
            received_at: remembered.since,
            source,
            event_type: None,
            kind: RowKind::Remembered,
        };
        let index = self.shelf_mut(segment).push(at, new)?;
        let key = EventKey { segment, index };
        self.identities.insert(self.hashing.uid(remembered.uid), key);
        let keys = remembered.keys.iter().map(|known| &known.key);
        for wide in remembered.identities.iter().chain(keys) {
            self.identities.insert(short_of(wide), key);
        }
        Ok(())
    }

    pub(super) fn apply_audited(
        &mut self,
        audited: &Audited,
        at: Position,
    ) -> Result<(), StoreError> {
        let index = u16::try_from(at.index)
            .map_err(|_| StoreError::Corrupt(format!("{at}: no frame has so many facts")))?;
        let row = AuditRow { offset: at.offset, index, at_s: seconds(audited.entry.at) };
        self.shelf_mut(segment_of(at)?).audits.push(row);
        Ok(())
    }

    /// Segments up to this one are gone, with all that still stood in them.
    pub(super) fn drop_shelves(&mut self, segment: u64) {
        let through = u32::try_from(segment).unwrap_or(u32::MAX);
        let gone: Vec<u32> = self.shelves.range(..=through).map(|(segment, _)| *segment).collect();
        for segment in gone {
            // What is live was moved; the rest is counted out at once, for commits wait meanwhile.
            let key = |index| EventKey { segment, index };
            let live = self.live.range((key(0), 0)..=(key(u32::MAX), u16::MAX));
            for left in live.map(|(slot, _)| slot.0).collect::<Vec<_>>() {
                self.leave_place(left);
            }
            let Some(shelf) = self.shelves.remove(&segment) else { continue };
            for row in shelf.events.iter().filter(|row| row.is_stored()) {
                self.counts.events -= 1;
                self.counts.review -= u64::from(row.kind == RowKind::Malformed);
                for delivery in shelf.deliveries_of(row) {
                    self.uncount(delivery.route, delivery.status, delivery.cause());
                }
            }
            self.open.remove(&segment);
            self.forgotten.push(segment);
        }
        self.revisions.retain(|_, revision| revision.at.segment > segment);
        self.cells.retain(|_, cell| cell.at.segment > segment);
        self.secrets.drop_through(segment);
    }

    /// Frees, in one part of the identities, what segments had that are gone. Answers whether there are any.
    pub(crate) fn forget(&mut self, shard: usize) -> bool {
        for segment in &self.forgotten {
            self.identities.forget(shard, *segment);
        }
        !self.forgotten.is_empty()
    }

    /// All parts have forgotten these.
    pub(crate) fn forgot(&mut self, segments: &[u32]) {
        self.forgotten.retain(|segment| !segments.contains(segment));
    }

    pub(crate) fn forgotten(&self) -> Vec<u32> {
        self.forgotten.clone()
    }

    /// Changes with everything that happens to the event.
    pub(crate) fn stamp(&self, key: EventKey) -> u64 {
        let versions: u64 =
            self.deliveries(key).iter().map(|delivery| delivery.version() + 1).sum();
        let repeats =
            self.repeats(key).map_or(0, |repeats| repeats.duplicates + repeats.conflict_count);
        versions + repeats
    }

    /// The segment, among full ones, that all others came after.
    pub(crate) fn oldest_full(&self) -> Option<u32> {
        let segment = *self.shelves.keys().next()?;
        (!self.open.contains_key(&segment)).then_some(segment)
    }

    /// Texts and small states that stand in a segment and are still needed.
    pub(crate) fn needed_from(&self, segment: u32) -> Vec<Fact> {
        let in_use = |hash| {
            self.current.contains(hash)
                || self.live.values().any(|live| live.state.revision == *hash)
        };
        let revisions = self
            .revisions
            .iter()
            .filter(|(hash, revision)| revision.at.segment == u64::from(segment) && in_use(hash))
            .map(|(hash, revision)| Fact::Revision {
                hash: hash.clone(),
                text: revision.text.clone(),
            });
        let cells = self.cells.iter().filter(|(_, cell)| cell.at.segment == u64::from(segment));
        let cells = cells.map(|(name, cell)| Fact::Cell {
            name: name.clone(),
            version: cell.version,
            value: cell.value.clone(),
        });
        let secrets = self.secrets.standing_in(segment.into()).into_iter();
        revisions.chain(cells).chain(secrets.map(Fact::SecretCaptured)).collect()
    }

    /// The configuration that runs has this revision.
    pub(crate) fn mark_current(&mut self, hash: &crate::name::RevisionHash) {
        self.current.insert(hash.clone());
    }
}
