//! What becomes of events whose time has come: by the times of their source they stay, are remembered, or go. Nothing here
//! reads a clock: `now` is the time that has surely passed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Decision;
use crate::delivery::state::{Entry, Status, What};
use crate::name::SourceName;
use crate::store::fact::{
    Audited, CarriedConflict, CarriedDelivery, Fact, ReadFacts, Remembered, RememberedKey, Snapshot,
};
use crate::store::hashing::Hashing;
use crate::store::state::State;
use crate::store::state::rows::{EventKey, RowKind, Shelf, seconds};
use crate::store::view::Outline;
use crate::store::{EventView, Retention, SourceRetention, StoreError, keys};

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is not old enough.
    Young,
    /// It is live or in review, or its ids are still to be known: it must be written again.
    Waits,
    /// Its payload has expired, and its ids have not, or an operator's action is to be kept.
    IsRemembered,
    /// Nothing of it is kept.
    Goes,
}

/// When a row's times began to run, in seconds since 1970.
pub(crate) fn since_s(shelf: &Shelf, index: u32) -> u32 {
    let Some(row) = shelf.row(index) else { return 0 };
    let changed = shelf.deliveries_of(row).iter().map(|delivery| delivery.changed_s);
    changed.fold(row.received_s, u32::max)
}

pub(crate) fn passed(since_s: u32, time: Duration, now: Timestamp) -> bool {
    u64::from(since_s).saturating_add(time.as_secs()) < u64::from(seconds(now))
}

/// The fate of each row of a shelf, in order.
pub(crate) fn fates(
    shelf: &Shelf,
    source: impl Fn(u16) -> Option<Arc<str>>,
    retention: &Retention,
    now: Timestamp,
) -> Vec<Fate> {
    let mut times: BTreeMap<Option<u16>, SourceRetention> = BTreeMap::new();
    let mut fate = |index: u32| {
        let Some(row) = shelf.row(index) else { return Fate::Goes };
        let SourceRetention { retain, dedupe } = *times.entry(row.source()).or_insert_with(|| {
            let source = row.source().and_then(&source).map(SourceName::new);
            retention.of(source.as_ref())
        });
        let since = since_s(shelf, index);
        match row.kind {
            RowKind::Gone => Fate::Goes,
            RowKind::Malformed | RowKind::Event if !passed(since, retain, now) => Fate::Young,
            // A person decides.
            RowKind::Malformed => Fate::Waits,
            RowKind::Remembered if passed(since, dedupe, now) => Fate::Goes,
            RowKind::Remembered => Fate::Waits,
            RowKind::Event => {
                let waits = |status: Status| !status.is_finished() || status == Status::Failed;
                let deliveries = shelf.deliveries_of(row);
                if deliveries.iter().any(|delivery| waits(delivery.status)) {
                    return Fate::Waits;
                }
                // Whether somebody operated on it is seen when it is read.
                let audited = !passed(since, retention.audit, now) && !deliveries.is_empty();
                if audited || !passed(since, dedupe, now) { Fate::IsRemembered } else { Fate::Goes }
            }
        }
    };
    (0..shelf.events.len() as u32).map(&mut fate).collect()
}

/// What is written before a row may go, on the condition that the event is still what it was.
pub(crate) struct Moving {
    pub(crate) key: EventKey,
    pub(crate) stamp: u64,
    pub(crate) facts: Vec<Fact>,
}

/// The event as one fact, to be read in its new place.
pub(crate) fn snapshot(
    state_of: &Outline,
    view: EventView,
    facts: &dyn ReadFacts,
) -> Result<Snapshot, StoreError> {
    let fact = facts.read(state_of.position())?;
    let Some(event) = fact.event() else {
        return Err(StoreError::Corrupt(format!("no event stands at {}", state_of.position())));
    };
    let digests = state_of.digests();
    let conflicts = view.conflicts.into_iter().zip(digests);
    Ok(Snapshot {
        envelope: event.envelope.clone(),
        identities: event.identities.to_vec(),
        body_digest: *event.body_digest,
        duplicates: view.duplicates,
        conflict_count: view.conflict_count,
        conflicts: conflicts
            .map(|(conflict, digest)| CarriedConflict {
                received_at: conflict.received_at,
                digest,
                body: conflict.body,
            })
            .collect(),
        deliveries: view
            .deliveries
            .into_iter()
            .map(|delivery| CarriedDelivery { state: delivery.state, entries: delivery.entries })
            .collect(),
        terms: state_of.read_terms(facts)?,
    })
}

/// How much of an expired event outlives it.
pub(crate) struct Outlived {
    pub(crate) hashing: Hashing,
    /// When its times began to run.
    pub(crate) since: Timestamp,
    /// What it is known by.
    pub(crate) ids: bool,
    /// What operators did after this.
    pub(crate) audit_after: Timestamp,
}

/// What is left of an expired event: what it is known by, the explicit keys of its calls, and what operators did.
pub(crate) fn remembered(
    state_of: &Outline,
    view: &EventView,
    outlived: &Outlived,
    facts: &dyn ReadFacts,
) -> Result<Vec<Fact>, StoreError> {
    let fact = facts.read(state_of.position())?;
    let Some(event) = fact.event() else {
        return Err(StoreError::Corrupt(format!("no event stands at {}", state_of.position())));
    };
    let (envelope, hashing) = (event.envelope, outlived.hashing);
    let mut left = Vec::new();
    if outlived.ids {
        let wide = |identity| hashing.wide_identity(&envelope.source, &envelope.path, identity);
        let done = view.deliveries.iter().flat_map(|delivery| keys::done_keys(&delivery.state));
        left.push(Fact::Remembered(Box::new(Remembered {
            uid: envelope.uid,
            event_id: envelope.event_id.clone(),
            source: envelope.source.clone(),
            since: outlived.since,
            identities: event.identities.iter().map(wide).collect(),
            body_digest: *event.body_digest,
            keys: done
                .map(|(claim, saved)| RememberedKey {
                    key: hashing.wide_key(&claim),
                    route: claim.route.clone(),
                    saved: saved.clone(),
                })
                .collect(),
        })));
    }
    for delivery in &view.deliveries {
        let acts =
            delivery.entries.iter().filter(|entry| operated_after(entry, outlived.audit_after));
        left.extend(acts.map(|entry| {
            Fact::Audited(Box::new(Audited {
                uid: envelope.uid,
                event_id: envelope.event_id.clone(),
                route: delivery.state.id.route.clone(),
                entry: entry.clone(),
            }))
        }));
    }
    Ok(left)
}

fn operated_after(entry: &Entry, after: Timestamp) -> bool {
    matches!(entry.what, What::Operated { .. }) && entry.at > after
}

/// Moves what has not changed meanwhile, and writes again what needs no such care. Answers how many events moved.
pub(crate) fn carry(state: &State, moving: Vec<Moving>, also: Vec<Fact>) -> Decision<usize> {
    let unchanged = |moving: &Moving| {
        state.row(moving.key).is_some_and(|row| row.kind != RowKind::Gone)
            && state.stamp(moving.key) == moving.stamp
    };
    let unchanged: Vec<Moving> = moving.into_iter().filter(unchanged).collect();
    let count = unchanged.len();
    let moved = unchanged.into_iter().flat_map(|moving| moving.facts);
    // A secret that was dropped since it was read must not come back.
    let also = also.into_iter().filter(|fact| match fact {
        Fact::SecretCaptured(secret) => state.secrets.has(secret),
        _ => true,
    });
    Decision::of(also.chain(moved).collect(), count)
}

/// The segment goes, if all that stands in it may go: `going` names the rows with what they were when that was decided, and
/// `also` is what of it is written again in the same change.
pub(crate) fn retire(
    state: &State,
    segment: u32,
    going: &BTreeMap<u32, u64>,
    also: Vec<Fact>,
) -> Decision<bool> {
    let may_go = |index: u32| {
        let key = EventKey { segment, index };
        state.row(key).is_none_or(|row| row.kind == RowKind::Gone)
            || going.get(&index) == Some(&state.stamp(key))
    };
    let is_oldest = state.oldest_full() == Some(segment);
    let count = state.shelf(segment).map_or(0, |shelf| shelf.events.len() as u32);
    let goes = is_oldest
        && (0..count).all(may_go)
        && state.needed_from(segment).iter().all(|needed| also.contains(needed));
    let facts = match goes {
        true => also.into_iter().chain([Fact::Retired { segment: segment.into() }]).collect(),
        false => Vec::new(),
    };
    Decision::of(facts, goes)
}
