//! When deliveries are due, and who holds them: the queue of the live ones, kept on the monotonic clock.

use std::time::Duration;

use jiff::Timestamp;

use super::{Moment, Slot, State};
use crate::delivery::state::Status;
use crate::store::{Claim, Fence};

impl State {
    pub(super) fn wake(&mut self, slot: Slot, at: Timestamp, number: u64, now: Moment) {
        self.events[slot.0 as usize].touched = number;
        if let Some(live) = &mut self.delivery_mut(slot).live
            && live.held.is_none()
        {
            live.state.due_at = Some(at);
            live.decided_at = at;
            self.unschedule(slot);
            self.schedule(slot, now);
        }
    }

    /// Enters an unheld live delivery into the queue. The wait ends on the monotonic clock, and it is never longer than
    /// it was when it was decided: so a wall clock that jumped back does not stop it.
    pub(super) fn schedule(&mut self, slot: Slot, now: Moment) {
        self.scheduled_count += 1;
        let order = self.scheduled_count;
        let Some(live) = &mut self.delivery_mut(slot).live else { return };
        let Some(due_at) = live.state.due_at else { return };
        let left = due_at.duration_since(now.wall);
        let decided = due_at.duration_since(live.decided_at);
        let wait = Duration::try_from(left.min(decided)).unwrap_or(Duration::ZERO);
        let key = (now.monotonic.saturating_add(wait), order);
        live.scheduled = Some(key);
        self.due.insert(key, slot);
    }

    pub(super) fn unschedule(&mut self, slot: Slot) {
        if let Some(live) = &mut self.delivery_mut(slot).live
            && let Some(key) = live.scheduled.take()
        {
            self.due.remove(&key);
        }
    }

    /// After the last fact of a start: nobody holds anything, and every wait is measured anew. What a worker held is due.
    pub(crate) fn start(&mut self, now: Moment) {
        let mut slots = Vec::new();
        for (event, row) in self.events.iter_mut().enumerate() {
            for (index, delivery) in row.deliveries.iter_mut().enumerate() {
                let Some(live) = &mut delivery.live else { continue };
                if live.state.status == Status::Processing {
                    live.state.status = Status::Queued;
                    live.state.due_at = Some(live.decided_at);
                    delivery.status = Status::Queued;
                }
                slots.push((live.state.due_at, (event as u32, index as u16)));
            }
        }
        slots.sort_unstable();
        self.due.clear();
        for (_, slot) in slots {
            self.schedule(slot, now);
        }
    }

    /// Up to `max` due deliveries whose facts are all below `durable`, now held by the caller.
    pub(crate) fn claim(&mut self, max: usize, durable: u64, now: Moment) -> Vec<Claim> {
        let due: Vec<Slot> = self.due_and_durable(durable, now).take(max).collect();
        due.into_iter().filter_map(|slot| self.hold(slot)).collect()
    }

    fn hold(&mut self, slot: Slot) -> Option<Claim> {
        self.unschedule(slot);
        self.fence += 1;
        let fence = Fence(self.fence);
        let envelope = self.events[slot.0 as usize].envelope.clone();
        let envelope = envelope.expect("it is kept while a delivery is live");
        let delivery = self.delivery_mut(slot);
        delivery.status = Status::Processing;
        let live = delivery.live.as_mut()?;
        live.held = Some(fence);
        live.state.status = Status::Processing;
        let state = live.state.clone();
        self.counts.held += 1;
        Some(Claim { state, envelope, fence })
    }

    fn due_and_durable(&self, durable: u64, now: Moment) -> impl Iterator<Item = Slot> {
        self.due
            .range(..=(now.monotonic, u64::MAX))
            .map(|(_, slot)| *slot)
            .filter(move |slot| self.events[slot.0 as usize].touched < durable)
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
        self.delivery(*slot).live.as_ref().and_then(|live| live.state.due_at)
    }
}
