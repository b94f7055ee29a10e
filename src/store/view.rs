//! What a reader sees: an event with its timeline, read back from the facts, and lists, from memory alone.

use std::sync::Arc;

use super::fact::{Accepted, Fact, Position, ReadFacts};
use super::state::{DeliveryRow, EventRow, Moment, State, first_state, merge};
use super::{
    Budget, ConflictView, DeliveryView, EventStatus, EventSummary, EventView, Page, Query,
    StoreError, Summary,
};
use crate::delivery::state::{DeliveryState, Entry, Status};
use crate::name::{RouteName, Uid};

/// What must be taken under the state's lock to read an event after it: positions, and the live states.
pub(crate) struct Outline {
    uid: Uid,
    sequence: u64,
    accepted: Position,
    duplicates: u64,
    conflict_count: u64,
    conflicts: Vec<Position>,
    deliveries: Vec<(RouteName, Position, Option<DeliveryState>)>,
    /// The last fact that went in.
    pub(crate) touched: u64,
}

impl Outline {
    pub(crate) fn of(state: &State, uid: Uid) -> Option<Self> {
        let row = state.row(uid)?;
        let live = |delivery: &DeliveryRow| delivery.live.as_ref().map(|live| live.state.clone());
        Some(Self {
            uid,
            sequence: u64::from(state.event_number(uid)?) + 1,
            accepted: row.accepted,
            duplicates: row.duplicates,
            conflict_count: row.conflict_count,
            conflicts: row.conflicts.iter().map(|(position, _)| *position).collect(),
            deliveries: row
                .deliveries
                .iter()
                .map(|delivery| (delivery.route.clone(), delivery.last, live(delivery)))
                .collect(),
            touched: row.touched,
        })
    }

    pub(crate) fn read(self, facts: &dyn ReadFacts) -> Result<EventView, StoreError> {
        let envelope = match &*Accepted::read(facts, self.accepted)? {
            Fact::Accepted(accepted) => accepted.envelope.clone(),
            _ => return Err(misplaced(self.accepted)),
        };
        let mut deliveries = Vec::new();
        for (route, last, live) in self.deliveries {
            let (state, entries) = read_chain(self.uid, &route, last, facts)?;
            deliveries.push(DeliveryView { state: live.unwrap_or(state), entries });
        }
        let mut conflicts = Vec::new();
        for (position, number) in self.conflicts.into_iter().zip(1..) {
            match &*facts.read(position)? {
                Fact::Conflict { received_at, body: Some(body), .. } => conflicts
                    .push(ConflictView { number, received_at: *received_at, body: body.clone() }),
                _ => return Err(misplaced(position)),
            }
        }
        Ok(EventView {
            envelope,
            sequence: self.sequence,
            duplicates: self.duplicates,
            conflicts,
            conflict_count: self.conflict_count,
            deliveries,
        })
    }
}

/// A delivery as its own facts make it, and its timeline, oldest first. `last` is the newest of them.
pub(crate) fn read_chain(
    uid: Uid,
    route: &RouteName,
    last: Position,
    facts: &dyn ReadFacts,
) -> Result<(DeliveryState, Vec<Entry>), StoreError> {
    // From the newest back to the first; then forwards.
    let mut chain: Vec<Arc<Fact>> = Vec::new();
    let mut next = Some(last);
    while let Some(position) = next {
        let fact = facts.read(position)?;
        next = match &*fact {
            Fact::Changed(changed) if changed.delivery.uid == uid => Some(changed.previous),
            Fact::Routed(routed) if routed.uid == uid => {
                routed
                    .deliveries
                    .iter()
                    .find(|delivery| delivery.planned.route == *route)
                    .ok_or_else(|| misplaced(position))?
                    .previous
            }
            Fact::Accepted(accepted) if accepted.envelope.uid == uid => None,
            // What it replaced is gone; the timeline begins here.
            Fact::Snapshot(state) if state.id.uid == uid => None,
            _ => return Err(misplaced(position)),
        };
        chain.push(fact);
    }
    let mut state: Option<DeliveryState> = None;
    let mut entries = Vec::new();
    for fact in chain.iter().rev() {
        match &**fact {
            Fact::Accepted(accepted) => {
                let envelope = &accepted.envelope;
                let planned = accepted.deliveries.iter().find(|planned| planned.route == *route);
                state = planned.map(|planned| {
                    first_state(uid, &envelope.event_id, planned, envelope.received_at)
                });
            }
            Fact::Routed(routed) => {
                let delivery =
                    routed.deliveries.iter().find(|delivery| delivery.planned.route == *route);
                let event_id = match &state {
                    Some(state) => state.event_id.clone(),
                    None => event_id(uid, facts, routed.accepted)?,
                };
                state = delivery.map(|delivery| {
                    let at = routed.entry.at;
                    let mut state = first_state(uid, &event_id, &delivery.planned, at);
                    state.version = delivery.version;
                    state
                });
                entries.push(routed.entry.clone());
            }
            Fact::Changed(changed) => {
                if let Some(state) = &mut state {
                    merge(state, &changed.change.transition);
                }
                entries.push(changed.change.entry.clone());
            }
            Fact::Snapshot(snapshot) => state = Some((**snapshot).clone()),
            _ => {}
        }
    }
    state.map(|state| (state, entries)).ok_or_else(|| misplaced(last))
}

fn event_id(
    uid: Uid,
    facts: &dyn ReadFacts,
    accepted: Position,
) -> Result<crate::name::EventId, StoreError> {
    match &*Accepted::read(facts, accepted)? {
        Fact::Accepted(accepted) if accepted.envelope.uid == uid => {
            Ok(accepted.envelope.event_id.clone())
        }
        _ => Err(misplaced(accepted)),
    }
}

fn misplaced(position: Position) -> StoreError {
    StoreError::Corrupt(format!("another fact than expected stands at {position}"))
}

/// A page of events. It looks at no more than `budget` allows, whatever the query is.
pub(crate) fn list(state: &State, query: &Query, cursor: Option<u64>, budget: Budget) -> Page {
    let count = state.events.len() as u64;
    // Sequences count from 1; the cursor is the last one that was looked at.
    let mut sequence = match (cursor, query.oldest_first) {
        (Some(cursor), true) => cursor.saturating_add(1),
        (Some(cursor), false) => cursor.saturating_sub(1),
        (None, true) => 1,
        (None, false) => count,
    };
    let mut page = Page { events: Vec::new(), next: None, examined: 0 };
    while (1..=count).contains(&sequence) {
        if page.events.len() >= budget.rows_max.max(1)
            || page.examined >= budget.examined_max.max(1)
        {
            page.next = Some(if query.oldest_first { sequence - 1 } else { sequence + 1 });
            break;
        }
        let row = &state.events[sequence as usize - 1];
        page.examined += 1;
        if matches(row, query) {
            page.events.push(summary_of(row, sequence));
        }
        sequence = if query.oldest_first { sequence + 1 } else { sequence - 1 };
    }
    page
}

fn matches(row: &EventRow, query: &Query) -> bool {
    fn is<T: PartialEq + ?Sized>(wanted: Option<&T>, found: &T) -> bool {
        wanted.is_none_or(|wanted| wanted == found)
    }
    is(query.source.as_ref(), &row.source)
        && is(query.event_type.as_deref(), &*row.event_type)
        && is(query.event_id.as_ref(), &row.event_id)
        && is(query.correlation_id.as_deref(), row.correlation_id.as_str())
        && query.since.is_none_or(|since| row.received_at >= since)
        && query.until.is_none_or(|until| row.received_at < until)
        && query.status.is_none_or(|status| status_of(row) == status)
        && query
            .route
            .as_ref()
            .is_none_or(|route| row.deliveries.iter().any(|delivery| delivery.route == *route))
}

fn summary_of(row: &EventRow, sequence: u64) -> EventSummary {
    let cause = |delivery: &DeliveryRow| delivery.cause.as_deref().map(str::to_owned);
    EventSummary {
        sequence,
        uid: row.uid,
        event_id: row.event_id.clone(),
        event_type: row.event_type.to_string(),
        source: row.source.clone(),
        received_at: row.received_at,
        status: status_of(row),
        attempts: row.deliveries.iter().map(|delivery| delivery.attempts).sum(),
        deliveries: row
            .deliveries
            .iter()
            .map(|delivery| (delivery.route.clone(), delivery.status, cause(delivery)))
            .collect(),
    }
}

fn status_of(row: &EventRow) -> EventStatus {
    let rank = |status: &Status| match status {
        Status::Failed => 0,
        Status::Processing => 1,
        Status::Queued => 2,
        Status::Succeeded => 3,
        Status::Ignored => 4,
    };
    match row.deliveries.iter().map(|delivery| delivery.status).min_by_key(rank) {
        Some(status) => EventStatus::Delivery(status),
        None if row.malformed => EventStatus::Malformed,
        None => EventStatus::Unrouted,
    }
}

/// `ready` is for the store to say.
pub(crate) fn summary(state: &State, now: Moment) -> Summary {
    let counts = state.counts;
    Summary {
        events: state.events.len() as u64,
        queued: counts.unfinished - counts.held,
        processing: counts.held,
        failed: counts.review,
        oldest_due_at: state.oldest_due_at(now),
        ready: super::Readiness::Ready,
    }
}
