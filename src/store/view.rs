//! What a reader sees: an event with its timeline, read back from the facts; lists and look-ups, from memory first and then
//! from the pages of sealed segments.

use std::sync::Arc;

use super::fact::{Accepted, Fact, Position, ReadFacts};
use super::page::About;
use super::state::{DeliveryRow, EventRow, Moment, Repeats, State, first_state, merge};
use super::{
    Budget, ConflictView, DeliveryView, EventStatus, EventSummary, EventView, Page, Query,
    StoreError, Summary,
};
use crate::delivery::state::{DeliveryState, Entry, Status};
use crate::name::{RouteName, SourceName, Uid};

/// What must be taken under the state's lock to read an event after it: positions, and the live states.
pub(crate) struct Outline {
    uid: Uid,
    sequence: u64,
    accepted: Position,
    repeats: Repeats,
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
            repeats: row.repeats.as_deref().cloned().unwrap_or_default(),
            deliveries: row
                .deliveries
                .iter()
                .map(|delivery| (delivery.route.clone(), delivery.last, live(delivery)))
                .collect(),
            touched: row.touched,
        })
    }

    pub(crate) fn read(self, facts: &dyn ReadFacts) -> Result<EventView, StoreError> {
        let envelope = Accepted::envelope(facts, self.accepted)?;
        let mut deliveries = Vec::new();
        for (route, last, live) in self.deliveries {
            let (state, entries) = read_chain(self.uid, &route, last, facts)?;
            deliveries.push(DeliveryView { state: live.unwrap_or(state), entries });
        }
        let mut conflicts = Vec::new();
        for ((position, _), number) in self.repeats.conflicts.into_iter().zip(1..) {
            match &*facts.read(position)? {
                Fact::Conflict { received_at, body: Some(body), .. } => conflicts
                    .push(ConflictView { number, received_at: *received_at, body: body.clone() }),
                _ => return Err(misplaced(position)),
            }
        }
        Ok(EventView {
            envelope,
            sequence: self.sequence,
            duplicates: self.repeats.duplicates,
            conflicts,
            conflict_count: self.repeats.conflict_count,
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

/// Gives what stands of an event on the page of its segment.
pub(crate) trait ReadAbout {
    fn about(&mut self, accepted: Position) -> Result<About, StoreError>;
    /// The events of sealed segments that may have this id.
    fn events_with_id(&mut self, id: &str) -> Result<Vec<Uid>, StoreError>;
}

/// A row as it was under the state's lock.
pub(crate) struct Row {
    sequence: u64,
    uid: Uid,
    accepted: Position,
    about: Option<Box<About>>,
    status: EventStatus,
    attempts: u32,
    deliveries: Vec<(RouteName, Status, Option<String>)>,
}

impl Row {
    fn of(row: &EventRow, sequence: u64) -> Self {
        let cause = |delivery: &DeliveryRow| delivery.cause.as_deref().map(str::to_owned);
        Self {
            sequence,
            uid: row.uid,
            accepted: row.accepted,
            about: row.about.clone(),
            status: status_of(row),
            attempts: row.deliveries.iter().map(|delivery| delivery.attempts).sum(),
            deliveries: row
                .deliveries
                .iter()
                .map(|delivery| (delivery.route.clone(), delivery.status, cause(delivery)))
                .collect(),
        }
    }

    fn about(&mut self, pages: &mut dyn ReadAbout) -> Result<About, StoreError> {
        match self.about.take() {
            Some(about) => Ok(*about),
            None => pages.about(self.accepted),
        }
    }
}

/// Rows that are taken under one hold of the lock.
const ROWS_AT_ONCE: usize = 256;

/// The next rows of a list, from `from` on. Sequences count from 1.
pub(crate) fn rows(state: &State, from: Option<u64>, oldest_first: bool) -> Vec<Row> {
    let count = state.events.len() as u64;
    let row = |sequence: u64| Row::of(&state.events[sequence as usize - 1], sequence);
    match oldest_first {
        true => (from.unwrap_or(1).max(1)..=count).take(ROWS_AT_ONCE).map(row).collect(),
        false => (1..=from.unwrap_or(count).min(count)).rev().take(ROWS_AT_ONCE).map(row).collect(),
    }
}

/// A page of events. It looks at no more than `budget` allows, whatever the query is.
pub(crate) fn list(
    query: &Query,
    cursor: Option<u64>,
    budget: Budget,
    pages: &mut dyn ReadAbout,
    mut rows: impl FnMut(Option<u64>, bool) -> Vec<Row>,
) -> Result<Page, StoreError> {
    let after = |sequence: u64| match query.oldest_first {
        true => sequence.saturating_add(1),
        false => sequence.saturating_sub(1),
    };
    let mut page = Page { events: Vec::new(), next: None, examined: 0 };
    // The one that was looked at last.
    let mut last = cursor;
    loop {
        let next = rows(last.map(after), query.oldest_first);
        if next.is_empty() {
            return Ok(page);
        }
        for mut row in next {
            if page.events.len() >= budget.rows_max.max(1)
                || page.examined >= budget.examined_max.max(1)
            {
                page.next = last;
                return Ok(page);
            }
            page.examined += 1;
            last = Some(row.sequence);
            // What memory knows decides first.
            if state_matches(&row, query) {
                let about = row.about(pages)?;
                if about_matches(&about, query) {
                    page.events.push(summary_of(row, about));
                }
            }
        }
    }
}

fn is<T: PartialEq + ?Sized>(wanted: Option<&T>, found: &T) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}

fn state_matches(row: &Row, query: &Query) -> bool {
    let routes = |route| row.deliveries.iter().any(|(name, _, _)| name == route);
    // A malformed event is in review, too; the API's `processing.status` calls it failed.
    let in_review = row.status == EventStatus::Malformed
        && query.status == Some(EventStatus::Delivery(Status::Failed));
    (in_review || is(query.status.as_ref(), &row.status)) && query.route.as_ref().is_none_or(routes)
}

fn about_matches(about: &About, query: &Query) -> bool {
    is(query.source.as_ref(), &about.source)
        && is(query.event_type.as_deref(), &*about.event_type)
        && is(query.event_id.as_ref(), &about.event_id)
        && is(query.correlation_id.as_deref(), about.correlation_id.as_str())
        && query.since.is_none_or(|since| about.received_at >= since)
        && query.until.is_none_or(|until| about.received_at < until)
}

fn summary_of(row: Row, about: About) -> EventSummary {
    EventSummary {
        sequence: row.sequence,
        uid: row.uid,
        event_id: about.event_id,
        event_type: about.event_type.to_string(),
        source: about.source,
        received_at: about.received_at,
        status: row.status,
        attempts: row.attempts,
        deliveries: row.deliveries,
    }
}

/// Uids of the events with this id, and of the one with this uid, in the order of acceptance. Memory is asked first: an
/// event that goes to a page meanwhile is found there.
pub(crate) fn find(
    id: &str,
    source: Option<&SourceName>,
    pages: &mut dyn ReadAbout,
    mut peek: impl FnMut(&mut dyn FnMut(&State)),
) -> Result<Vec<Uid>, StoreError> {
    let mut rows: Vec<Row> = Vec::new();
    let row_of =
        |state: &State, event: u32| Row::of(&state.events[event as usize], u64::from(event) + 1);
    peek(&mut |state| rows.extend(state.find(id).into_iter().map(|event| row_of(state, event))));
    let sealed = pages.events_with_id(id)?;
    peek(&mut |state| {
        let events = sealed.iter().filter_map(|uid| state.event_number(*uid));
        rows.extend(events.map(|event| row_of(state, event)));
    });
    rows.sort_unstable_by_key(|row| row.sequence);
    rows.dedup_by_key(|row| row.sequence);
    let mut found = Vec::new();
    for mut row in rows {
        let uid = row.uid;
        let about = row.about(pages)?;
        // A hash proves nothing.
        let named = about.event_id.as_str() == id || id.parse().is_ok_and(|id| Uid(id) == uid);
        if named && is(source, &about.source) {
            found.push(uid);
        }
    }
    Ok(found)
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
