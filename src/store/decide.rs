//! What a request makes of the state: facts to write, and the answer to give once they stand. Nothing is changed here;
//! the store applies the facts, in the order in which it asked. This is the one place where uniqueness is decided.

pub(crate) mod import;
pub(crate) mod retention;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::captured::{CAPTURED_MAX, Capture, CapturedSecret, DroppedSecret};
use super::fact::{Accepted, Changed, EventFact, Fact, Planned, ReadFacts, Routed, RoutedDelivery};
use super::state::rows::EventKey;
use super::state::{State, merge};
use super::{
    Acceptance, Change, Fence, NewDelivery, NewEvent, OnConflict, Operated, Operation, Recorded,
    StoreError, TERMS_MAX, Term,
};
use crate::delivery::state::{DeliveryState, Entry, Status};
use crate::envelope::{Envelope, Identity};
use crate::name::{DeliveryId, RevisionHash, SourceName, Uid};
use jiff::Timestamp;

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
    let mut accepted = Pending::default();
    let mut answers = Vec::new();
    let mut after = 0;
    for mut event in events {
        let known = known(state, facts, &accepted, &event)?;
        let known = match known {
            // A second body may be an event of its own, and may itself be known already.
            Known::OtherBody { .. } | Known::BodyOfExpired { .. }
                if event.on_conflict == OnConflict::NewEvent =>
            {
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
                if state.event_key(uid).is_some() {
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
            Known::BodyOfExpired { since, .. } if event.on_conflict == OnConflict::Review => {
                let uid = event.envelope.uid;
                event.envelope.malformed = Some(format!(
                    "an event with this id was finished at {since} and its payload has expired; this body is another one"
                ));
                event.deliveries.clear();
                answers.push(Acceptance::Conflict { uid });
                accepted.push(accepted_fact(event, false));
                after = AFTER_ALL;
            }
            Known::BodyOfExpired { original, .. } => {
                accepted.push(conflict(&event, original, false));
                answers.push(Acceptance::Conflict { uid: original.uid });
                after = AFTER_ALL;
            }
            Known::OtherBody { original, kept } => {
                let here = accepted.kept.entry(original.uid).or_default();
                let keep = event.on_conflict == OnConflict::Review
                    && kept.len() + here.len() < CONFLICTS_KEPT_MAX
                    && !kept.contains(&event.body_digest)
                    && !here.contains(&event.body_digest);
                if keep {
                    here.push(event.body_digest);
                }
                accepted.push(conflict(&event, original, keep));
                answers.push(Acceptance::Conflict { uid: original.uid });
                after = AFTER_ALL;
            }
        }
    }
    Ok(Decision { facts: accepted.facts, answer: answers, after })
}

/// What was decided of a POST so far. It may hold thousands of events, and each is compared with those before it.
#[derive(Default)]
struct Pending {
    facts: Vec<Fact>,
    /// Places in `facts` of the events that have an identity, whatever their source and path.
    by_identity: BTreeMap<Identity, Vec<usize>>,
    /// Digests of further bodies that are kept, by the event that they are of.
    kept: BTreeMap<Uid, Vec<[u8; 32]>>,
}

impl Pending {
    fn push(&mut self, fact: Fact) {
        for identity in fact.event().into_iter().flat_map(|event| event.identities) {
            self.by_identity.entry(identity.clone()).or_default().push(self.facts.len());
        }
        self.facts.push(fact);
    }

    /// The events with `identity`, the first before the others.
    fn events(&self, identity: &Identity) -> impl Iterator<Item = EventFact<'_>> {
        let places = self.by_identity.get(identity).into_iter().flatten();
        places.filter_map(|place| self.facts.get(*place)?.event())
    }
}

fn conflict(event: &NewEvent, original: Original, keep: bool) -> Fact {
    Fact::Conflict {
        uid: original.uid,
        received_at: event.envelope.received_at,
        digest: event.body_digest,
        body: keep.then(|| event.envelope.body.clone()),
    }
}

/// A new event must fit in. What is known already adds no work, so a resend gets its 2xx however full the backlog is.
fn check_backlog(state: &State, event: &NewEvent, backlog_max: u64) -> Result<(), StoreError> {
    let unfinished = state.counts.unfinished;
    if event.deliveries.is_empty() {
        return Ok(());
    }
    check_backlog_total(state, backlog_max)?;
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

fn check_backlog_total(state: &State, backlog_max: u64) -> Result<(), StoreError> {
    let unfinished = state.counts.unfinished;
    if unfinished < backlog_max {
        return Ok(());
    }
    Err(StoreError::Refusing(format!(
        "the backlog is full: {unfinished} deliveries are unfinished, `limits.backlog` is {backlog_max}"
    )))
}

enum Known {
    No,
    Same(Original),
    /// The same id with another body. `kept`: digests of the bodies that are kept already.
    OtherBody {
        original: Original,
        kept: Vec<[u8; 32]>,
    },
    /// The same, and the payload of the first has expired.
    BodyOfExpired {
        original: Original,
        since: Timestamp,
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
    /// Its payload expired; it had been finished then.
    expired_since: Option<Timestamp>,
}

fn known(
    state: &State,
    facts: &dyn ReadFacts,
    pending: &Pending,
    event: &NewEvent,
) -> Result<Known, StoreError> {
    let offered = (&event.envelope, &event.body_digest);
    // The id decides first: another body matters only under the same id.
    for identity in &event.identities {
        let Some(found) = holder(state, facts, pending, offered, identity)? else {
            continue;
        };
        let same_id = matches!(identity, Identity::Id { body: None, .. });
        return Ok(if same_id && found.body_digest != event.body_digest {
            match found.expired_since {
                None => Known::OtherBody { original: found.original, kept: found.kept },
                Some(since) => Known::BodyOfExpired { original: found.original, since },
            }
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
    pending: &Pending,
    (envelope, body_digest): (&Envelope, &[u8; 32]),
    identity: &Identity,
) -> Result<Option<Match>, StoreError> {
    let holds = |event: &EventFact| {
        event.envelope.source == envelope.source
            && event.envelope.path == envelope.path
            && event.identities.contains(identity)
    };
    let mut found: Option<Match> = None;
    for key in state.identity_candidates(envelope, identity).collect::<Vec<_>>() {
        // A hash proves nothing: what is stored does.
        let fact = facts.read(state.position(key))?;
        let matching = match (&*fact, fact.event()) {
            (_, Some(event)) if holds(&event) => Match {
                original: original(state, key, event.envelope.uid),
                body_digest: *event.body_digest,
                kept: kept(state, key),
                expired_since: None,
            },
            (Fact::Remembered(remembered), _)
                if state.hashings().any(|hashing| {
                    let wide = hashing.wide_identity(&envelope.source, &envelope.path, identity);
                    remembered.identities.contains(&wide)
                }) =>
            {
                Match {
                    original: original(state, key, remembered.uid),
                    body_digest: remembered.body_digest,
                    kept: Vec::new(),
                    expired_since: Some(remembered.since),
                }
            }
            _ => continue,
        };
        // Two have one identity where the first expired before another body came: who has this body goes first, and then
        // what is stored.
        let rank =
            |known: &Match| (known.body_digest == *body_digest, known.expired_since.is_none());
        if found.as_ref().is_none_or(|found| rank(&matching) > rank(found)) {
            found = Some(matching);
        }
    }
    let pending = pending.events(identity).find(holds).map(|event| Match {
        original: Original { uid: event.envelope.uid, after: AFTER_ALL },
        body_digest: *event.body_digest,
        kept: Vec::new(),
        expired_since: None,
    });
    Ok(found.or(pending))
}

fn original(state: &State, key: EventKey, uid: Uid) -> Original {
    Original { uid, after: state.durable_after(key) }
}

fn kept(state: &State, key: EventKey) -> Vec<[u8; 32]> {
    let conflicts = state.repeats(key).map(|repeats| &repeats.conflicts);
    conflicts.into_iter().flatten().map(|conflict| conflict.digest).collect()
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
    pending: &Pending,
    event: &NewEvent,
) -> Result<Option<Original>, StoreError> {
    let offered = (&event.envelope, &event.body_digest);
    for identity in &event.identities {
        if matches!(identity, Identity::Id { .. })
            && let Some(found) = holder(state, facts, pending, offered, identity)?
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
    let (change, terms) = hashed(state, &delivery, change);
    if row.version() == version + 1
        && let Fact::Changed(last) = &*facts.read(row.last())?
        && last.delivery == delivery
        && last.change == change
    {
        let state = state.load_state(slot, facts)?;
        return Ok(Decision::of(Vec::new(), Recorded::Already(state)));
    }
    let Some(live) = state.live(slot).filter(|live| live.held == Some(fence)) else {
        return Ok(Decision::of(Vec::new(), Recorded::Fenced));
    };
    if row.version() != version {
        return Ok(Decision::of(Vec::new(), Recorded::Fenced));
    }
    if let Some(holder) = state.key_holder(&delivery, &change, facts)? {
        return Ok(Decision::of(Vec::new(), Recorded::KeyHeld(holder)));
    }
    let after = after(state, live.state.clone(), &change);
    let (previous, version) = (row.last(), version + 1);
    let fact = Changed { delivery, version, previous, change, terms };
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
    if row.version() != version {
        return Ok(Decision::of(Vec::new(), Operated::Stale));
    }
    let (change, terms) = hashed(state, &delivery, change);
    let after = after(state, state.load_state(slot, facts)?, &change);
    let (previous, version) = (row.last(), version + 1);
    let fact = Changed { delivery, version, previous, change, terms };
    Ok(Decision::of(vec![Fact::Changed(Box::new(fact))], Operated::Done(after)))
}

/// What the event may be searched by leaves the change: only its hashes are written.
fn hashed(state: &State, delivery: &DeliveryId, change: Change) -> (Change, Vec<u64>) {
    let hash = |term: &Term| state.hashing.field(&delivery.route, &term.field, &term.value);
    let mut terms: Vec<u64> = change.terms.iter().take(TERMS_MAX).map(hash).collect();
    terms.sort_unstable();
    terms.dedup();
    (Change { terms: Vec::new(), ..change }, terms)
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
    let Some(key) = state.stored(uid) else {
        return Ok(Decision::of(Vec::new(), Vec::new()));
    };
    let accepted = state.position(key);
    let second_body = facts.read(accepted)?.event().is_some_and(|event| {
        let by_body = |identity: &Identity| matches!(identity, Identity::Id { body: Some(_), .. });
        event.identities.iter().any(by_body)
    });
    let mut routed: Vec<RoutedDelivery> = Vec::new();
    for delivery in deliveries {
        let planned = Planned::new(delivery, second_body);
        if routed.iter().any(|other| other.planned.route == planned.route) {
            continue;
        }
        let route = state.name_number(planned.route.as_str());
        match state.deliveries(key).iter().find(|known| Some(known.route) == route) {
            None => routed.push(RoutedDelivery { planned, version: 0, previous: None }),
            Some(known) if known.status == Status::Ignored => routed.push(RoutedDelivery {
                planned,
                version: known.version() + 1,
                previous: Some(known.last()),
            }),
            Some(_) => {}
        }
    }
    let route_of = |delivery: &RoutedDelivery| delivery.planned.route.clone();
    let ids = routed.iter().map(|delivery| DeliveryId { uid, route: route_of(delivery) }).collect();
    let facts = match routed.is_empty() {
        true => Vec::new(),
        false => vec![Fact::Routed(Box::new(Routed { uid, accepted, entry, deliveries: routed }))],
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

/// A secret that a handshake brought.
pub(crate) fn capture(state: &State, secret: CapturedSecret) -> Decision<Capture> {
    match state.secrets.known(&secret) {
        (Some(id), _) => Decision::of(Vec::new(), Capture::Kept(id)),
        (None, count) if count >= CAPTURED_MAX => Decision::of(Vec::new(), Capture::TooMany),
        (None, _) => {
            let id = secret.id;
            Decision::of(vec![Fact::SecretCaptured(Arc::new(secret))], Capture::Kept(id))
        }
    }
}

/// An operator takes a secret of a source away. Answers whether there was one.
pub(crate) fn drop_secret(
    state: &State,
    source: &SourceName,
    dropped: DroppedSecret,
) -> Decision<bool> {
    match state.secrets.has_id(source, dropped.id) {
        true => Decision::of(vec![Fact::SecretDropped(dropped)], true),
        false => Decision::of(Vec::new(), false),
    }
}
