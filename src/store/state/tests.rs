//! Facts that carry state forward, and what they bring back.

use std::time::Duration;

use super::*;
use crate::delivery::state::{IdempotencyKey, KeyClaim, StepState, StepStatus};
use crate::store::StoreError;
use crate::store::fact::{CarriedDelivery, Snapshot};
use crate::store::fixtures::{attempted, delivery, event, intended, operated, start};
use crate::store::view::Outline;

/// Facts in a list, and the state that they make.
struct Journal {
    facts: Vec<Arc<Fact>>,
    state: State,
}

impl ReadFacts for Vec<Arc<Fact>> {
    fn read(&self, at: Position) -> Result<Arc<Fact>, StoreError> {
        let fact = self.get(at.offset as usize).cloned();
        fact.ok_or_else(|| StoreError::Corrupt(format!("nothing stands at {at}")))
    }
}

fn now() -> Moment {
    Moment { wall: start(), monotonic: Duration::from_secs(1000) }
}

impl Journal {
    fn new() -> Self {
        Self { facts: Vec::new(), state: State::new(Hashing::new([1; 16])) }
    }

    fn try_add(&mut self, fact: Fact) -> Result<Position, StoreError> {
        let number = self.facts.len() as u64;
        let at = Position { segment: 1, offset: number as u32, index: 0 };
        self.facts.push(Arc::new(fact));
        let fact = self.facts[number as usize].clone();
        self.state.apply(&fact, at, number, now(), &self.facts)?;
        Ok(at)
    }

    fn add(&mut self, fact: Fact) -> Position {
        self.try_add(fact).unwrap()
    }

    fn state_of(&self, number: u128) -> DeliveryState {
        let slot = self.state.slot(&delivery(number, "ship")).unwrap();
        self.state.load_state(slot, &self.facts).unwrap()
    }
}

fn accepted(number: u128) -> Fact {
    let new = event(number, &format!("e{number}"), "{}", &["ship"]);
    Fact::Accepted(Box::new(Accepted {
        envelope: new.envelope.into(),
        identities: new.identities,
        body_digest: new.body_digest,
        deliveries: new.deliveries.into_iter().map(|new| Planned::new(new, false)).collect(),
    }))
}

/// The delivery of event `number` at `version`, with one step that used, or waits for, the key `order-7`.
fn snapshot(number: u128, version: u64, step: StepStatus, waits: bool) -> DeliveryState {
    let planned = Planned { route: "ship".into(), revision: "r1".into(), key_base: "base".into() };
    let id = delivery(number, "ship");
    let mut state = first_state(id.uid, &format!("e{number}").as_str().into(), &planned, start());
    state.version = version;
    state.due_at = (!waits).then_some(start());
    let claim = KeyClaim { route: "ship".into(), step: "ship".into(), key: "order-7".into() };
    let key = IdempotencyKey { text: "order-7".into(), explicit: true };
    state.steps = vec![StepState {
        status: step,
        attempts: u32::from(!waits),
        key: (!waits).then_some(key),
        waits_for: waits.then_some(claim),
        ..StepState::new("ship".into())
    }];
    if step == StepStatus::Succeeded {
        state.status = Status::Succeeded;
    }
    state
}

/// The event of the delivery, carried forward.
fn snap(state: &DeliveryState) -> Fact {
    let number = state.id.uid.0.as_u128();
    let new = event(number, &format!("e{number}"), "{}", &["ship"]);
    Fact::Snapshot(Box::new(Snapshot {
        envelope: new.envelope.into(),
        identities: new.identities,
        body_digest: new.body_digest,
        duplicates: 2,
        conflict_count: 0,
        conflicts: Vec::new(),
        deliveries: vec![CarriedDelivery { state: state.clone(), entries: vec![operated()] }],
        terms: vec![77],
    }))
}

#[test]
fn from_a_snapshot_on_an_event_stands_there_and_nowhere_else() {
    let mut journal = Journal::new();
    let old = journal.add(accepted(1));
    let newer = snapshot(1, 3, StepStatus::Waiting, false);
    let new = journal.add(snap(&newer));
    let uid = delivery(1, "ship").uid;
    let key = journal.state.event_key(uid).unwrap();
    assert_eq!(journal.state.position(key), new);
    journal.facts[old.offset as usize] = Arc::new(Fact::Closed);
    assert_eq!(journal.state_of(1), newer);
    assert_eq!((journal.state.counts.events, journal.state.counts.unfinished), (1, 1));
    assert_eq!(journal.state.repeats(key).unwrap().duplicates, 2);
    assert_eq!(journal.state.with_term(1, 77).unwrap(), [key]);
    assert_eq!(journal.state.claim(9, u64::MAX, now()).len(), 1);
    // It is held, and stays so in its next place; the timeline goes on from what was carried.
    let live = journal.state.live((key, 0)).unwrap();
    let fence = live.held;
    assert!(fence.is_some());
    let mut held = newer.clone();
    held.status = Status::Processing;
    journal.add(snap(&held));
    let key = journal.state.event_key(uid).unwrap();
    assert_eq!(journal.state.live((key, 0)).unwrap().held, fence);
    assert_eq!((journal.state.counts.unfinished, journal.state.counts.held), (1, 1));
    let done = snapshot(1, 4, StepStatus::Succeeded, false);
    journal.add(snap(&done));
    assert_eq!(journal.state_of(1), done);
    assert_eq!((journal.state.counts.unfinished, journal.state.counts.held), (0, 0));
    let outline = Outline::of(&journal.state, uid).unwrap();
    let view = outline.read(&journal.facts).unwrap();
    assert_eq!(view.deliveries[0].state, done);
    assert_eq!(view.deliveries[0].entries, [operated()]);
    // The same once more changes nothing.
    let at = journal.state.position(journal.state.event_key(uid).unwrap());
    let fact = journal.facts[at.offset as usize].clone();
    journal.state.apply(&fact, at, 9, now(), &journal.facts).unwrap();
    assert_eq!(journal.state.counts.events, 1);
}

#[test]
fn a_snapshot_brings_back_who_holds_an_explicit_key_and_who_waits_for_it() {
    let mut journal = Journal::new();
    for number in 1..=3 {
        journal.add(accepted(number));
    }
    journal.add(snap(&snapshot(1, 3, StepStatus::Waiting, false)));
    journal.add(snap(&snapshot(2, 3, StepStatus::Waiting, true)));
    let third = delivery(3, "ship");
    let wants = intended(Some("order-7"));
    let holder = journal.state.key_holder(&third, &wants, &journal.facts).unwrap().unwrap();
    assert_eq!((holder.delivery, holder.status), (delivery(1, "ship"), StepStatus::Waiting));
    // The second waits: only the first and the third are due.
    let due = |journal: &mut Journal| {
        let claims = journal.state.claim(9, u64::MAX, now());
        claims.iter().map(|claim| claim.state.id.uid.0.as_u128()).collect::<Vec<_>>()
    };
    assert_eq!(due(&mut journal), [3, 1]);
    let last = journal.state.delivery(journal.state.slot(&delivery(1, "ship")).unwrap()).last();
    journal.add(Fact::Changed(Box::new(Changed {
        delivery: delivery(1, "ship"),
        version: 4,
        previous: last,
        change: attempted(Some("order-7"), StepStatus::Succeeded),
        terms: Vec::new(),
    })));
    assert_eq!(due(&mut journal), [2], "the holder is done");
    let holder = journal.state.key_holder(&third, &wants, &journal.facts).unwrap().unwrap();
    assert_eq!(holder.saved["label"], "L1");
    // A snapshot of one that is done wakes those who wait, too.
    let mut journal = Journal::new();
    for number in 1..=2 {
        journal.add(accepted(number));
    }
    journal.add(snap(&snapshot(1, 3, StepStatus::Running, false)));
    journal.add(snap(&snapshot(2, 3, StepStatus::Waiting, true)));
    journal.add(snap(&snapshot(1, 4, StepStatus::Succeeded, false)));
    assert_eq!(due(&mut journal), [2]);
}

#[test]
fn a_cell_has_its_highest_version_and_of_equals_the_last() {
    let mut journal = Journal::new();
    let cell = |version, value: &'static [u8]| Fact::Cell {
        name: "cursor".into(),
        version,
        value: Bytes::from_static(value),
    };
    for (version, value) in [(1, &b"a"[..]), (3, b"c"), (2, b"b"), (3, b"d")] {
        journal.add(cell(version, value));
    }
    assert_eq!(journal.state.cells["cursor"].value, Bytes::from_static(b"d"));
}

#[test]
fn facts_about_what_was_retired_are_passed_over_and_only_those() {
    for (has_gaps, passes) in [(false, false), (true, true)] {
        let mut journal = Journal::new();
        journal.state.has_gaps = has_gaps;
        let changed = Changed {
            delivery: delivery(1, "ship"),
            version: 3,
            previous: Position { segment: 0, offset: 0, index: 0 },
            change: attempted(None, StepStatus::Succeeded),
            terms: Vec::new(),
        };
        assert_eq!(journal.try_add(Fact::Changed(Box::new(changed))).is_ok(), passes);
        assert!(journal.try_add(Fact::Duplicate { uid: delivery(1, "ship").uid }).is_ok());
        journal.add(Fact::Retired { segment: 1 });
        assert_eq!(journal.state.retired, 1);
        assert_eq!(journal.state.counts.events, 0);
    }
}
