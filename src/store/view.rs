//! What a reader sees: an event with its timeline, read back from the facts; lists and look-ups, from memory first and then
//! from the pages of sealed segments.

use std::sync::Arc;

use super::fact::{Fact, Position, ReadFacts, envelope_at};
use super::hashing::Hashing;
use super::page::{About, Place};
use super::state::rows::{DeliveryRow, EventKey, EventRow, Repeats, RowKind, seconds};
use super::state::{Moment, State, first_state, merge};
use super::{
    Budget, CauseCount, ConflictView, DeliveryView, EventStatus, EventSummary, EventView, Page,
    Query, StoreError, Summary,
};
use crate::delivery::state::{DeliveryState, Entry, Status};
use crate::name::{RouteName, SourceName, Uid};

/// Looks at the state under its lock.
pub(crate) trait Peek {
    fn peek<T>(&self, look: impl FnOnce(&State) -> T) -> T;
}

/// What must be taken under the state's lock to read an event after it: positions, and the live states.
pub(crate) struct Outline {
    uid: Uid,
    sequence: u64,
    at: Position,
    repeats: Repeats,
    deliveries: Vec<(RouteName, Position, Option<DeliveryState>)>,
    /// It may be shown once the facts before this number are durable.
    pub(crate) settled_after: u64,
}

impl Outline {
    pub(crate) fn of(state: &State, uid: Uid) -> Option<Self> {
        Some(Self::of_key(state, state.stored(uid)?, uid))
    }

    /// Of an event that is stored.
    pub(crate) fn of_key(state: &State, key: EventKey, uid: Uid) -> Self {
        let delivery = |(row, number): (&DeliveryRow, u16)| {
            let live = state.live((key, number)).map(|live| live.state.clone());
            (state.route_name(row.route), row.last(), live)
        };
        Self {
            uid,
            sequence: key.sequence(),
            at: state.position(key),
            repeats: state.repeats(key).cloned().unwrap_or_default(),
            deliveries: state.deliveries(key).iter().zip(0..).map(delivery).collect(),
            settled_after: state.settled_after(key),
        }
    }

    /// Where the event stands.
    pub(crate) fn position(&self) -> Position {
        self.at
    }

    /// Of the conflicting bodies that are kept.
    pub(crate) fn digests(&self) -> Vec<[u8; 32]> {
        self.repeats.conflicts.iter().map(|conflict| conflict.digest).collect()
    }

    /// The search terms that came with its deliveries.
    pub(crate) fn read_terms(&self, facts: &dyn ReadFacts) -> Result<Vec<u64>, StoreError> {
        let mut terms = Vec::new();
        for (route, last, _) in &self.deliveries {
            terms.extend(terms_of(self.uid, route, *last, facts)?);
        }
        terms.sort_unstable();
        terms.dedup();
        Ok(terms)
    }

    pub(crate) fn read(&self, facts: &dyn ReadFacts) -> Result<EventView, StoreError> {
        let envelope = envelope_at(facts, self.at)?;
        let mut deliveries = Vec::new();
        for (route, last, live) in &self.deliveries {
            let (state, entries) = read_chain(self.uid, route, *last, facts)?;
            deliveries.push(DeliveryView { state: live.clone().unwrap_or(state), entries });
        }
        let mut conflicts = Vec::new();
        for (kept, number) in self.repeats.conflicts.iter().zip(1..) {
            let (received_at, body) = match &*facts.read(kept.at)? {
                Fact::Conflict { received_at, body: Some(body), .. } => {
                    (*received_at, body.clone())
                }
                Fact::Snapshot(snapshot) => {
                    let carried = snapshot.conflicts.get(kept.number as usize);
                    let carried = carried.ok_or_else(|| misplaced(kept.at))?;
                    (carried.received_at, carried.body.clone())
                }
                _ => return Err(misplaced(kept.at)),
            };
            conflicts.push(ConflictView { number, received_at, body });
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

/// A delivery's facts from the newest back to the first that stands for all before it.
fn chain(
    uid: Uid,
    route: &RouteName,
    last: Position,
    facts: &dyn ReadFacts,
) -> Result<Vec<Arc<Fact>>, StoreError> {
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
            _ if fact.event().is_some_and(|event| event.envelope.uid == uid) => None,
            _ => return Err(misplaced(position)),
        };
        // Each is older than the one before: what says otherwise would lead in circles.
        if next.is_some_and(|next| next >= position) {
            return Err(misplaced(position));
        }
        chain.push(fact);
    }
    Ok(chain)
}

/// The search terms that came with the facts of a delivery.
pub(crate) fn terms_of(
    uid: Uid,
    route: &RouteName,
    last: Position,
    facts: &dyn ReadFacts,
) -> Result<Vec<u64>, StoreError> {
    let mut terms = Vec::new();
    for fact in chain(uid, route, last, facts)? {
        match &*fact {
            Fact::Changed(changed) => terms.extend(&changed.terms),
            Fact::Snapshot(snapshot) => terms.extend(&snapshot.terms),
            _ => {}
        }
    }
    Ok(terms)
}

/// A delivery as its own facts make it, and its timeline, oldest first. `last` is the newest of them.
pub(crate) fn read_chain(
    uid: Uid,
    route: &RouteName,
    last: Position,
    facts: &dyn ReadFacts,
) -> Result<(DeliveryState, Vec<Entry>), StoreError> {
    let chain = chain(uid, route, last, facts)?;
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
                    None => envelope_at(facts, routed.accepted)?.event_id.clone(),
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
            Fact::Snapshot(snapshot) => {
                let mut carried = snapshot.deliveries.iter();
                if let Some(carried) = carried.find(|carried| carried.state.id.route == *route) {
                    state = Some(carried.state.clone());
                    entries.extend(carried.entries.iter().cloned());
                }
            }
            _ => {}
        }
    }
    state.map(|state| (state, entries)).ok_or_else(|| misplaced(last))
}

fn misplaced(position: Position) -> StoreError {
    StoreError::Corrupt(format!("another fact than expected stands at {position}"))
}

/// Reads what was derived from full segments.
pub(crate) trait ReadPages {
    /// What is shown of the event that stands there.
    fn about(&mut self, at: Position) -> Result<About, StoreError>;
    /// Places in a full segment whose facts may have this term.
    fn places(&mut self, segment: u32, term: u64) -> Result<Vec<Place>, StoreError>;
    /// The event that a change is about which stands there.
    fn changed(&mut self, at: Position) -> Result<Option<Uid>, StoreError>;
}

/// A row as it was under the state's lock.
pub(crate) struct Row {
    key: EventKey,
    uid: Uid,
    at: Position,
    status: EventStatus,
    attempts: u32,
    deliveries: Vec<(RouteName, Status, Option<String>)>,
}

impl Row {
    fn of(state: &State, key: EventKey, row: &EventRow) -> Self {
        let deliveries = state.deliveries(key);
        let cause =
            |delivery: &DeliveryRow| delivery.cause().map(|cause| state.name(cause).to_string());
        let shown = |delivery: &DeliveryRow| {
            (state.route_name(delivery.route), delivery.status, cause(delivery))
        };
        Self {
            key,
            uid: row.uid,
            at: state.position(key),
            status: status_of(row, deliveries),
            attempts: deliveries.iter().map(|delivery| delivery.attempts).sum(),
            deliveries: deliveries.iter().map(shown).collect(),
        }
    }
}

/// A query, as far as rows can answer it, in the numbers that they have.
pub(crate) struct RowFilter<'a> {
    query: &'a Query,
    /// `Some(None)`: no row has it.
    route: Option<Option<u32>>,
    cause: Option<Option<u32>>,
    source: Option<Option<u32>>,
    event_type: Option<Option<u32>>,
}

impl<'a> RowFilter<'a> {
    pub(crate) fn new(query: &'a Query, state: &State) -> Self {
        Self {
            query,
            route: query.route.as_ref().map(|route| state.name_number(route.as_str())),
            cause: query.cause.as_deref().map(|cause| state.name_number(cause)),
            source: query.source.as_ref().map(|source| state.name_number(source.as_str())),
            event_type: query.event_type.as_deref().map(|kind| state.type_number(kind)),
        }
    }

    pub(crate) fn matches(&self, row: &EventRow, deliveries: &[DeliveryRow]) -> bool {
        if !row.is_stored() {
            return false;
        }
        // A word without a number is read where it stands.
        let is = |wanted: Option<Option<u32>>, found: Option<u16>| match (wanted, found) {
            (None, _) | (_, None) => true,
            (Some(wanted), Some(found)) => wanted == Some(found.into()),
        };
        let any = |wanted: Option<Option<u32>>, of: &dyn Fn(&DeliveryRow, u32) -> bool| match wanted
        {
            None => true,
            Some(None) => false,
            Some(Some(wanted)) => deliveries.iter().any(|delivery| of(delivery, wanted)),
        };
        let status = status_of(row, deliveries);
        // A malformed event is in review, too; the API's `processing.status` calls it failed.
        let in_review = status == EventStatus::Malformed
            && self.query.status == Some(EventStatus::Delivery(Status::Failed));
        (in_review || self.query.status.is_none_or(|wanted| wanted == status))
            && is(self.source, row.source())
            && is(self.event_type, row.event_type())
            && any(self.route, &|delivery, route| delivery.route == route)
            && any(self.cause, &|delivery, cause| {
                delivery.status == Status::Failed && delivery.cause() == Some(cause)
            })
            && self.query.since.is_none_or(|since| row.received_s >= seconds(since))
            && self.query.until.is_none_or(|until| row.received_s <= seconds(until))
    }
}

/// Rows that are looked at under one hold of the lock.
const ROWS_AT_ONCE: usize = 2048;

/// The next rows of a list that match, and how far they were looked for.
struct Scan {
    rows: Vec<Row>,
    examined: usize,
    last: Option<EventKey>,
    ended: bool,
}

fn scan(state: &State, query: &Query, after: Option<EventKey>, budget: Budget) -> Scan {
    let examined_max = budget.examined_max.min(ROWS_AT_ONCE);
    let filter = RowFilter::new(query, state);
    let mut scan = Scan { rows: Vec::new(), examined: 0, last: after, ended: false };
    let mut look = |key: EventKey| -> bool {
        scan.examined += 1;
        scan.last = Some(key);
        if let Some(row) = state.row(key)
            && filter.matches(row, state.deliveries(key))
        {
            scan.rows.push(Row::of(state, key, row));
        }
        scan.examined < examined_max && scan.rows.len() < budget.rows_max
    };
    let (first, most) = (EventKey { segment: 0, index: 0 }, u32::MAX);
    if query.oldest_first {
        let from =
            after.map_or(first, |key| EventKey { index: key.index.saturating_add(1), ..key });
        for (&segment, shelf) in state.shelves().range(from.segment..) {
            let start = if segment == from.segment { from.index } else { 0 };
            for index in start..shelf.events.len() as u32 {
                if !look(EventKey { segment, index }) {
                    return scan;
                }
            }
        }
    } else {
        let below = after.unwrap_or(EventKey { segment: most, index: most });
        for (&segment, shelf) in state.shelves().range(..=below.segment).rev() {
            let count = shelf.events.len() as u32;
            let end = if segment == below.segment { below.index.min(count) } else { count };
            for index in (0..end).rev() {
                if !look(EventKey { segment, index }) {
                    return scan;
                }
            }
        }
    }
    scan.ended = true;
    scan
}

/// A page of events. It looks at no more than `budget` allows, whatever the query is.
pub(crate) fn list(
    query: &Query,
    cursor: Option<u64>,
    budget: Budget,
    pages: &mut dyn ReadPages,
    state: &impl Peek,
) -> Result<Page, StoreError> {
    let cursor = cursor.map(EventKey::from_sequence);
    let as_of = state.peek(newest);
    if let Some(terms) = state.peek(|state| wanted_terms(query, state)) {
        let page = list_by_term(query, &terms, cursor, budget, pages, state)?;
        return Ok(Page { as_of, ..page });
    }
    let (rows_max, examined_max) = (budget.rows_max.max(1), budget.examined_max.max(1));
    let mut page = Page { events: Vec::new(), next: None, examined: 0, as_of };
    let mut after = cursor;
    loop {
        let left = Budget {
            rows_max: rows_max - page.events.len(),
            examined_max: examined_max - page.examined,
        };
        let scan = state.peek(|state| scan(state, query, after, left));
        for row in scan.rows {
            let Some(about) = about_of(row.uid, row.at, pages, state)? else { continue };
            if about_matches(&about, query) {
                page.events.push(summary_of(row, about));
            }
        }
        page.examined += scan.examined;
        after = scan.last;
        if scan.ended {
            return Ok(page);
        }
        if page.events.len() >= rows_max || page.examined >= examined_max {
            page.next = after.map(EventKey::sequence);
            return Ok(page);
        }
    }
}

/// What is shown of an event that stood at `at` a moment ago. `None`: it has expired meanwhile.
fn about_of(
    uid: Uid,
    at: Position,
    pages: &mut dyn ReadPages,
    state: &impl Peek,
) -> Result<Option<About>, StoreError> {
    let error = match pages.about(at) {
        Ok(about) => return Ok(Some(about)),
        Err(error) => error,
    };
    match state.peek(|state| Some(state.position(state.stored(uid)?))) {
        Some(now) if now == at => Err(error),
        Some(now) => pages.about(now).map(Some),
        None => Ok(None),
    }
}

/// The newest row of all.
fn newest(state: &State) -> Option<u64> {
    let (segment, shelf) =
        state.shelves().iter().rev().find(|(_, shelf)| !shelf.events.is_empty())?;
    let index = shelf.events.len() as u32 - 1;
    Some(EventKey { segment: *segment, index }.sequence())
}

/// What the query asks for by a keyed hash, if it does: by any of these.
fn wanted_terms(query: &Query, state: &State) -> Option<Vec<u64>> {
    if let Some(id) = &query.event_id {
        return Some(vec![state.hashing.event_id(id)]);
    }
    if let Some(id) = &query.correlation_id {
        return Some(vec![state.hashing.correlation_id(id)]);
    }
    let (route, term) = (query.route.as_ref()?, query.field.as_ref()?);
    let hash = |hashing: Hashing| hashing.field(route, &term.field, &term.value);
    Some(state.hashings().map(hash).collect())
}

/// Events of `segment` and before that may have the term.
fn hits_in(
    segment: u32,
    term: u64,
    pages: &mut dyn ReadPages,
    state: &impl Peek,
) -> Result<Vec<EventKey>, StoreError> {
    if let Some(keys) = state.peek(|state| state.with_term(segment, term)) {
        return Ok(keys);
    }
    match hits_on_pages(segment, term, pages, state) {
        // It was retired meanwhile; what was carried is met where it stands now.
        Err(StoreError::Corrupt(_)) if state.peek(|state| state.shelf(segment).is_none()) => {
            Ok(Vec::new())
        }
        found => found,
    }
}

fn hits_on_pages(
    segment: u32,
    term: u64,
    pages: &mut dyn ReadPages,
    state: &impl Peek,
) -> Result<Vec<EventKey>, StoreError> {
    let places = pages.places(segment, term)?;
    let key_at = |place: &Place| {
        state.peek(|state| {
            let index = state.shelf(segment)?.row_at(place.0, place.1)?;
            Some(EventKey { segment, index })
        })
    };
    let mut keys = Vec::new();
    for place in places {
        if let Some(key) = key_at(&place) {
            keys.push(key);
            continue;
        }
        let at = Position { segment: segment.into(), offset: place.0, index: place.1 };
        keys.extend(pages.changed(at)?.and_then(|uid| state.peek(|state| state.stored(uid))));
    }
    Ok(keys)
}

/// Events that one value may have, where all must be known before the first is shown.
const HITS_MAX: usize = 100_000;

fn list_by_term(
    query: &Query,
    terms: &[u64],
    cursor: Option<EventKey>,
    budget: Budget,
    pages: &mut dyn ReadPages,
    state: &impl Peek,
) -> Result<Page, StoreError> {
    let mut segments: Vec<u32> =
        state.peek(|state| state.shelves().keys().rev().copied().collect());
    let mut page = Page { events: Vec::new(), next: None, examined: 0, as_of: None };
    let mut hits: std::collections::BTreeSet<EventKey> = std::collections::BTreeSet::new();
    let ahead = |key: &EventKey| match (cursor, query.oldest_first) {
        (None, _) => true,
        (Some(cursor), true) => *key > cursor,
        (Some(cursor), false) => *key < cursor,
    };
    let rows_max = budget.rows_max.max(1);
    segments.push(0);
    let mut last = cursor;
    for segment in segments {
        if segment > 0 {
            for term in terms {
                let here = hits_in(segment, *term, pages, state)?.into_iter();
                // One that moved on was met where it stands now.
                hits.extend(here.filter(|key| key.segment <= segment).filter(ahead));
            }
        }
        if hits.len() > HITS_MAX {
            return Err(StoreError::Refusing(format!(
                "more than {HITS_MAX} events have this value; ask for the newest first, page by page"
            )));
        }
        // A fact stands after its event: what is in this segment or later is complete now. From the oldest on, all must
        // be known first.
        let complete =
            |key: &EventKey| segment == 0 || (!query.oldest_first && key.segment >= segment);
        loop {
            let next = if query.oldest_first { hits.first() } else { hits.last() };
            let Some(key) = next.copied().filter(complete) else { break };
            if page.events.len() >= rows_max || page.examined >= budget.examined_max {
                page.next = last.map(EventKey::sequence);
                return Ok(page);
            }
            hits.remove(&key);
            page.examined += 1;
            last = Some(key);
            let row = state.peek(|state| {
                let row = state.row(key)?;
                let matches = RowFilter::new(query, state).matches(row, state.deliveries(key));
                matches.then(|| Row::of(state, key, row))
            });
            if let Some(row) = row
                && let Some(about) = about_of(row.uid, row.at, pages, state)?
                && about_matches(&about, query)
            {
                page.events.push(summary_of(row, about));
            }
        }
    }
    Ok(page)
}

fn is<T: PartialEq + ?Sized>(wanted: Option<&T>, found: &T) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}

pub(crate) fn about_matches(about: &About, query: &Query) -> bool {
    is(query.source.as_ref(), &about.source)
        && is(query.event_type.as_deref(), &*about.event_type)
        && is(query.event_id.as_ref(), &about.event_id)
        && is(query.correlation_id.as_deref(), about.correlation_id.as_str())
        && query.since.is_none_or(|since| about.received_at >= since)
        && query.until.is_none_or(|until| about.received_at < until)
}

fn summary_of(row: Row, about: About) -> EventSummary {
    EventSummary {
        sequence: row.key.sequence(),
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

/// Uids of the events with this id, and of the one with this uid, in the order of acceptance.
pub(crate) fn find(
    id: &str,
    source: Option<&SourceName>,
    pages: &mut dyn ReadPages,
    state: &impl Peek,
) -> Result<Vec<Uid>, StoreError> {
    let uid = id.parse().ok().map(Uid);
    let (term, segments, by_uid) = state.peek(|state| {
        let segments: Vec<u32> = state.shelves().keys().copied().collect();
        let by_uid = uid.and_then(|uid| state.stored(uid));
        (state.hashing.event_id(&id.into()), segments, by_uid)
    });
    let mut keys: Vec<EventKey> = by_uid.into_iter().collect();
    for segment in segments {
        keys.extend(hits_in(segment, term, pages, state)?);
    }
    keys.sort_unstable();
    keys.dedup();
    let mut found = Vec::new();
    for key in keys {
        let row = state.peek(|state| {
            let row = state.row(key).filter(|row| row.is_stored())?;
            Some((row.uid, state.position(key)))
        });
        let Some((row_uid, at)) = row else { continue };
        let Some(about) = about_of(row_uid, at, pages, state)? else { continue };
        // A hash proves nothing.
        let named = about.event_id.as_str() == id || uid == Some(row_uid);
        if named && is(source, &about.source) {
            found.push(row_uid);
        }
    }
    Ok(found)
}

fn status_of(row: &EventRow, deliveries: &[DeliveryRow]) -> EventStatus {
    let rank = |status: &Status| match status {
        Status::Failed => 0,
        Status::Processing => 1,
        Status::Queued => 2,
        Status::Succeeded => 3,
        Status::Ignored => 4,
    };
    match deliveries.iter().map(|delivery| delivery.status).min_by_key(rank) {
        Some(status) => EventStatus::Delivery(status),
        None if row.kind == RowKind::Malformed => EventStatus::Malformed,
        None => EventStatus::Unrouted,
    }
}

/// `ready` is for the store to say.
pub(crate) fn summary(state: &State, now: Moment) -> Summary {
    let counts = state.counts;
    Summary {
        events: counts.events,
        queued: counts.unfinished - counts.held,
        processing: counts.held,
        failed: counts.review,
        oldest_due_at: state.oldest_due_at(now),
        pages_rebuilt: 0,
        ready: super::Readiness::Ready,
    }
}

pub(crate) fn causes(state: &State) -> Vec<CauseCount> {
    let mut causes: Vec<CauseCount> = state
        .causes()
        .into_iter()
        .map(|(route, cause, count)| CauseCount { route, cause: cause.to_string(), count })
        .collect();
    causes.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.route.cmp(&b.route)));
    causes
}
