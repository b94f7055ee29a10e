//! What a request makes of the state: facts to write, and the answer to give once they stand. Nothing is changed here;
//! the store applies the facts, in the order in which it asked. This is the one place where uniqueness is decided.

use std::sync::Arc;

use super::fact::{Accepted, Changed, Fact, Planned, ReadFacts, Routed, RoutedDelivery};
use super::state::{State, merge};
use super::{
    Acceptance, Change, Fence, NewDelivery, NewEvent, OnConflict, Operated, Operation, Recorded,
    StoreError,
};
use crate::delivery::state::{DeliveryState, Entry, Status};
use crate::envelope::{Envelope, Identity};
use crate::name::{DeliveryId, RevisionHash, Uid};

/// Bodies kept per event for a person; further conflicts are counted.
const CONFLICTS_KEPT_MAX: usize = 16;

/// Facts of one change, and its answer.
pub(crate) struct Decision<A> {
    pub(crate) facts: Vec<Fact>,
    pub(crate) answer: A,
    /// The answer holds as soon as the facts before this number are durable. Where `facts` must be durable too, it is
    /// [`AFTER_ALL`].
    pub(crate) after: u64,
}

pub(crate) const AFTER_ALL: u64 = u64::MAX;

impl<A> Decision<A> {
    fn of(facts: Vec<Fact>, answer: A) -> Self {
        Self { facts, answer, after: AFTER_ALL }
    }
}

/// The events of one POST: all or none.
pub(crate) fn accept(
    state: &State,
    facts: &dyn ReadFacts,
    events: Vec<NewEvent>,
    backlog_max: u64,
) -> Result<Decision<Vec<Acceptance>>, StoreError> {
    let mut accepted: Vec<Fact> = Vec::new();
    let mut answers = Vec::new();
    let mut after = 0;
    for mut event in events {
        let known = known(state, facts, &accepted, &event)?;
        let known = match known {
            // A second body may be an event of its own, and may itself be known already.
            Known::OtherBody { .. } if event.on_conflict == OnConflict::NewEvent => {
                name_the_body(&mut event);
                match known_by_body(state, facts, &accepted, &event)? {
                    Some(original) => Known::Same(original),
                    None => Known::SecondBody,
                }
            }
            other => other,
        };
        let second_body = matches!(known, Known::SecondBody);
        match known {
            Known::No | Known::SecondBody => {
                check_backlog(state, &event, backlog_max)?;
                let uid = event.envelope.uid;
                if state.row(uid).is_some() {
                    return Err(StoreError::Corrupt(format!("the uid {uid} was drawn twice")));
                }
                answers.push(Acceptance::Accepted { uid });
                accepted.push(accepted_fact(event, second_body));
                after = AFTER_ALL;
            }
            Known::Same(original) => {
                accepted.push(Fact::Duplicate { uid: original.uid });
                answers.push(Acceptance::Duplicate { uid: original.uid });
                after = after.max(original.after);
            }
            Known::OtherBody { original, kept } => {
                let keep = event.on_conflict == OnConflict::Review
                    && kept.len() < CONFLICTS_KEPT_MAX
                    && !kept.contains(&event.body_digest);
                accepted.push(Fact::Conflict {
                    uid: original.uid,
                    received_at: event.envelope.received_at,
                    digest: event.body_digest,
                    body: keep.then(|| event.envelope.body.clone()),
                });
                answers.push(Acceptance::Conflict { uid: original.uid });
                after = AFTER_ALL;
            }
        }
    }
    Ok(Decision { facts: accepted, answer: answers, after })
}

/// A new event must fit in. What is known already adds no work, so a resend gets its 2xx however full the backlog is.
fn check_backlog(state: &State, event: &NewEvent, backlog_max: u64) -> Result<(), StoreError> {
    let unfinished = state.counts.unfinished;
    if event.deliveries.is_empty() {
        return Ok(());
    }
    if unfinished >= backlog_max {
        return Err(StoreError::Refusing(format!(
            "the backlog is full: {unfinished} deliveries are unfinished, `limits.backlog` is {backlog_max}"
        )));
    }
    for delivery in &event.deliveries {
        let own = state.unfinished_of(&delivery.route);
        if own >= backlog_max.div_ceil(2) && own < unfinished {
            return Err(StoreError::Refusing(format!(
                "route {} has {own} unfinished deliveries: half of `limits.backlog`, while other routes have work",
                delivery.route
            )));
        }
    }
    Ok(())
}

enum Known {
    No,
    Same(Original),
    /// The same id with another body. `kept`: digests of the bodies that are kept already.
    OtherBody {
        original: Original,
        kept: Vec<[u8; 32]>,
    },
    /// The same id with another body, which makes it an event of its own.
    SecondBody,
}

/// `after`: the original is durable once the facts before this number are.
#[derive(Clone, Copy)]
struct Original {
    uid: Uid,
    after: u64,
}

/// An event that has the same identity, and its body.
struct Match {
    original: Original,
    body_digest: [u8; 32],
    kept: Vec<[u8; 32]>,
}

fn known(
    state: &State,
    facts: &dyn ReadFacts,
    pending: &[Fact],
    event: &NewEvent,
) -> Result<Known, StoreError> {
    // The id decides first: another body matters only under the same id.
    for identity in &event.identities {
        let Some(found) = holder(state, facts, pending, &event.envelope, identity)? else {
            continue;
        };
        let same_id = matches!(identity, Identity::Id { body: None, .. });
        return Ok(if same_id && found.body_digest != event.body_digest {
            Known::OtherBody { original: found.original, kept: found.kept }
        } else {
            Known::Same(found.original)
        });
    }
    Ok(Known::No)
}

/// The event that holds `identity`, among the stored and those that came before it in the same POST.
fn holder(
    state: &State,
    facts: &dyn ReadFacts,
    pending: &[Fact],
    envelope: &Envelope,
    identity: &Identity,
) -> Result<Option<Match>, StoreError> {
    let holds = |accepted: &Accepted| {
        accepted.envelope.source == envelope.source
            && accepted.envelope.path == envelope.path
            && accepted.identities.contains(identity)
    };
    for row in state.identity_candidates(envelope, identity) {
        // A hash proves nothing: the stored identity does.
        if let Fact::Accepted(accepted) = &*Accepted::read(facts, row.accepted)?
            && holds(accepted)
        {
            return Ok(Some(Match {
                original: Original { uid: row.uid, after: row.accepted_number + 1 },
                body_digest: accepted.body_digest,
                kept: row
                    .repeats
                    .iter()
                    .flat_map(|repeats| repeats.conflicts.iter().map(|(_, digest)| *digest))
                    .collect(),
            }));
        }
    }
    let pending = pending.iter().find_map(|fact| match fact {
        Fact::Accepted(accepted) if holds(accepted) => Some(Match {
            original: Original { uid: accepted.envelope.uid, after: AFTER_ALL },
            body_digest: accepted.body_digest,
            kept: Vec::new(),
        }),
        _ => None,
    });
    Ok(pending)
}

/// Under `new_event`, what stands for the id of a second body is id and body together.
fn name_the_body(event: &mut NewEvent) {
    let digest = hex::encode(event.body_digest);
    for identity in &mut event.identities {
        if let Identity::Id { body, .. } = identity {
            *body = Some(digest.clone());
        }
    }
}

fn known_by_body(
    state: &State,
    facts: &dyn ReadFacts,
    pending: &[Fact],
    event: &NewEvent,
) -> Result<Option<Original>, StoreError> {
    for identity in &event.identities {
        if matches!(identity, Identity::Id { .. })
            && let Some(found) = holder(state, facts, pending, &event.envelope, identity)?
        {
            return Ok(Some(found.original));
        }
    }
    Ok(None)
}

fn accepted_fact(event: NewEvent, second_body: bool) -> Fact {
    let deliveries = event.deliveries.into_iter();
    Fact::Accepted(Box::new(Accepted {
        envelope: event.envelope.into(),
        identities: event.identities,
        body_digest: event.body_digest,
        deliveries: deliveries.map(|delivery| Planned::new(delivery, second_body)).collect(),
    }))
}

/// One change of a delivery that a worker holds.
pub(crate) fn record(
    state: &State,
    facts: &dyn ReadFacts,
    delivery: DeliveryId,
    fence: Fence,
    version: u64,
    change: Change,
) -> Result<Decision<Recorded>, StoreError> {
    let Some(slot) = state.slot(&delivery) else {
        return Ok(Decision::of(Vec::new(), Recorded::Fenced));
    };
    let row = state.delivery(slot);
    if row.version == version + 1
        && let Fact::Changed(last) = &*facts.read(row.last)?
        && last.delivery == delivery
        && last.change == change
    {
        let state = state.load_state(slot, facts)?;
        return Ok(Decision::of(Vec::new(), Recorded::Already(state)));
    }
    let Some(live) = row.live.as_ref().filter(|live| live.held == Some(fence)) else {
        return Ok(Decision::of(Vec::new(), Recorded::Fenced));
    };
    if row.version != version {
        return Ok(Decision::of(Vec::new(), Recorded::Fenced));
    }
    if let Some(holder) = state.keys.holder_against(&delivery, &change) {
        return Ok(Decision::of(Vec::new(), Recorded::KeyHeld(holder)));
    }
    let after = after(state, live.state.clone(), &change);
    let fact = Changed { delivery, version: version + 1, previous: row.last, change };
    Ok(Decision::of(vec![Fact::Changed(Box::new(fact))], Recorded::Recorded(after)))
}

/// An operator's action on a delivery in any status.
pub(crate) fn operate(
    state: &State,
    facts: &dyn ReadFacts,
    operation: Operation,
) -> Result<Decision<Operated>, StoreError> {
    let Operation { delivery, version, change } = operation;
    let Some(slot) = state.slot(&delivery) else {
        return Ok(Decision::of(Vec::new(), Operated::NotFound));
    };
    let row = state.delivery(slot);
    if row.version != version {
        return Ok(Decision::of(Vec::new(), Operated::Stale));
    }
    let after = after(state, state.load_state(slot, facts)?, &change);
    let fact = Changed { delivery, version: version + 1, previous: row.last, change };
    Ok(Decision::of(vec![Fact::Changed(Box::new(fact))], Operated::Done(after)))
}

/// The delivery as it will be once the change is applied.
fn after(state: &State, mut delivery: DeliveryState, change: &Change) -> DeliveryState {
    merge(&mut delivery, &change.transition);
    state.release(&mut delivery, change.entry.at);
    delivery
}

/// Deliveries that routes add to a stored event.
pub(crate) fn route(
    state: &State,
    facts: &dyn ReadFacts,
    uid: Uid,
    entry: Entry,
    deliveries: Vec<NewDelivery>,
) -> Result<Decision<Vec<DeliveryId>>, StoreError> {
    let Some(row) = state.row(uid) else {
        return Ok(Decision::of(Vec::new(), Vec::new()));
    };
    let second_body = match &*Accepted::read(facts, row.accepted)? {
        Fact::Accepted(accepted) => accepted
            .identities
            .iter()
            .any(|identity| matches!(identity, Identity::Id { body: Some(_), .. })),
        _ => false,
    };
    let mut routed: Vec<RoutedDelivery> = Vec::new();
    for delivery in deliveries {
        let planned = Planned::new(delivery, second_body);
        if routed.iter().any(|other| other.planned.route == planned.route) {
            continue;
        }
        match row.deliveries.iter().find(|known| known.route == planned.route) {
            None => routed.push(RoutedDelivery { planned, version: 0, previous: None }),
            Some(known) if known.status == Status::Ignored => routed.push(RoutedDelivery {
                planned,
                version: known.version + 1,
                previous: Some(known.last),
            }),
            Some(_) => {}
        }
    }
    let route_of = |delivery: &RoutedDelivery| delivery.planned.route.clone();
    let ids = routed.iter().map(|delivery| DeliveryId { uid, route: route_of(delivery) }).collect();
    let facts = match routed.is_empty() {
        true => Vec::new(),
        false => vec![Fact::Routed(Box::new(Routed {
            uid,
            accepted: row.accepted,
            entry,
            deliveries: routed,
        }))],
    };
    Ok(Decision::of(facts, ids))
}

/// A route's text, if it is new.
pub(crate) fn revision(state: &State, hash: RevisionHash, text: Arc<str>) -> Decision<()> {
    match state.revision(&hash) {
        Some(_) => Decision::of(Vec::new(), ()),
        None => Decision::of(vec![Fact::Revision { hash, text }], ()),
    }
}
