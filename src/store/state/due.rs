//! When deliveries are due, and who holds them: the queue of the live ones, kept on the monotonic clock.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::rows::Slot;
use super::{Moment, State};
use crate::delivery::state::{DeliveryState, Status};
use crate::envelope::Envelope;
use crate::store::Fence;
use crate::store::fact::Position;

/// A delivery that its caller holds from now on. The envelope is there, or stands in the journal.
pub(crate) struct Held {
    pub(crate) state: DeliveryState,
    pub(crate) envelope: Result<Arc<Envelope>, Position>,
    pub(crate) fence: Fence,
}

impl State {
    pub(super) fn wake(&mut self, slot: Slot, at: Timestamp, number: u64, now: Moment) {
        if let Some(live) = self.live.get_mut(&slot) {
            live.touched = number;
            if live.held.is_none() {
                live.state.due_at = Some(at);
                live.decided_at = at;
                self.unschedule(slot);
                if !self.is_reading {
                    self.schedule(slot, now);
                }
            }
        }
    }

    /// Enters an unheld live delivery into the queue. The wait ends on the monotonic clock, and it is never longer than
    /// it was when it was decided: so a wall clock that jumped back does not stop it.
    pub(super) fn schedule(&mut self, slot: Slot, now: Moment) {
        self.scheduled_count += 1;
        let order = self.scheduled_count;
        let Some(live) = self.live.get_mut(&slot) else { return };
        let Some(due_at) = live.state.due_at else { return };
        let left = due_at.duration_since(now.wall);
        let decided = due_at.duration_since(live.decided_at);
        let wait = Duration::try_from(left.min(decided)).unwrap_or(Duration::ZERO);
        let key = (now.monotonic.saturating_add(wait), order);
        live.scheduled = Some(key);
        self.due.insert(key, slot);
    }

    pub(super) fn unschedule(&mut self, slot: Slot) {
        if let Some(key) = self.live.get_mut(&slot).and_then(|live| live.scheduled.take()) {
            self.due.remove(&key);
        }
    }

    /// After the last fact of a start: nobody holds anything, and every wait is measured anew. What a worker held is due.
    pub(crate) fn start(&mut self, now: Moment) {
        self.is_reading = false;
        let mut slots = Vec::new();
        let mut let_go = Vec::new();
        for (slot, live) in &mut self.live {
            if live.state.status == Status::Processing {
                live.state.status = Status::Queued;
                live.state.due_at = Some(live.decided_at);
                let_go.push(*slot);
            }
            live.scheduled = None;
            slots.push((live.state.due_at, *slot));
        }
        for slot in let_go {
            self.delivery_mut(slot).status = Status::Queued;
        }
        slots.sort_unstable();
        self.due.clear();
        for (_, slot) in slots {
            self.schedule(slot, now);
        }
    }

    /// Up to `max` due deliveries whose facts are all below `durable`, now held by the caller.
    pub(crate) fn claim(&mut self, max: usize, durable: u64, now: Moment) -> Vec<Held> {
        let due: Vec<Slot> = self.due_and_durable(durable, now).take(max).collect();
        due.into_iter().filter_map(|slot| self.hold(slot)).collect()
    }

    fn hold(&mut self, slot: Slot) -> Option<Held> {
        self.unschedule(slot);
        self.fence += 1;
        let fence = Fence(self.fence);
        let kept = self.envelopes.kept.get(&slot.0).cloned();
        let envelope = kept.ok_or_else(|| self.position(slot.0));
        let live = self.live.get_mut(&slot)?;
        live.held = Some(fence);
        live.state.status = Status::Processing;
        let state = live.state.clone();
        self.delivery_mut(slot).status = Status::Processing;
        self.counts.held += 1;
        Some(Held { state, envelope, fence })
    }

    fn due_and_durable(&self, durable: u64, now: Moment) -> impl Iterator<Item = Slot> {
        self.due
            .range(..=(now.monotonic, u64::MAX))
            .map(|(_, slot)| *slot)
            .filter(move |slot| self.live.get(slot).is_some_and(|live| live.touched < durable))
    }

    /// When there is something to claim: now, later, or not before a change.
    pub(crate) fn next_due(&self, durable: u64, now: Moment) -> Option<Duration> {
        if self.due_and_durable(durable, now).next().is_some() {
            return Some(Duration::ZERO);
        }
        // What is due and not durable yet is announced by its commit.
        let later = self.due.range((now.monotonic, u64::MAX)..).next()?;
        Some(later.0.0.saturating_sub(now.monotonic))
    }

    pub(crate) fn oldest_due_at(&self, now: Moment) -> Option<Timestamp> {
        let (_, slot) = self.due.range(..=(now.monotonic, u64::MAX)).next()?;
        self.live.get(slot).and_then(|live| live.state.due_at)
    }
}
