//! Facts that carry state forward, and what they bring back.

use std::time::Duration;

use super::*;
use crate::delivery::state::{IdempotencyKey, KeyClaim, StepState, StepStatus};
use crate::store::StoreError;
use crate::store::fixtures::{attempted, delivery, event, intended, start};
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

fn snap(state: &DeliveryState) -> Fact {
    Fact::Snapshot(Box::new(state.clone()))
}

#[test]
fn a_snapshot_replaces_what_is_lower_and_nothing_else() {
    let mut journal = Journal::new();
    journal.add(accepted(1));
    let newer = snapshot(1, 3, StepStatus::Waiting, false);
    journal.add(snap(&newer));
    assert_eq!(journal.state_of(1), newer);
    assert_eq!(journal.state.claim(9, u64::MAX, now()).len(), 1);
    journal.add(snap(&snapshot(1, 2, StepStatus::Succeeded, false)));
    journal.add(snap(&snapshot(1, 3, StepStatus::Succeeded, false)));
    assert_eq!(journal.state_of(1).version, 3);
    assert_eq!(journal.state.counts.unfinished, 1);
    // The timeline begins with the snapshot, and what comes after follows it.
    let done = snapshot(1, 4, StepStatus::Succeeded, false);
    journal.add(snap(&done));
    assert_eq!(journal.state_of(1), done);
    assert_eq!((journal.state.counts.unfinished, journal.state.counts.held), (0, 0));
    let outline = Outline::of(&journal.state, delivery(1, "ship").uid).unwrap();
    assert_eq!(outline.read(&journal.facts).unwrap().deliveries[0].state, done);
    let nobodys = journal.try_add(snap(&snapshot(2, 1, StepStatus::Waiting, false)));
    assert!(matches!(nobodys, Err(StoreError::Corrupt(_))));
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
    let holder = journal.state.keys.holder_against(&third, &wants).unwrap();
    assert_eq!((holder.delivery, holder.status), (delivery(1, "ship"), StepStatus::Waiting));
    // The second waits: only the first and the third are due.
    let due = |journal: &mut Journal| {
        let claims = journal.state.claim(9, u64::MAX, now());
        claims.iter().map(|claim| claim.state.id.uid.0.as_u128()).collect::<Vec<_>>()
    };
    assert_eq!(due(&mut journal), [3, 1]);
    let last = journal.state.delivery(journal.state.slot(&delivery(1, "ship")).unwrap()).last;
    journal.add(Fact::Changed(Box::new(Changed {
        delivery: delivery(1, "ship"),
        version: 4,
        previous: last,
        change: attempted(Some("order-7"), StepStatus::Succeeded),
    })));
    assert_eq!(due(&mut journal), [2], "the holder is done");
    let holder = journal.state.keys.holder_against(&third, &wants).unwrap();
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
fn an_event_that_is_carried_forward_is_read_in_its_new_place() {
    let mut journal = Journal::new();
    let old = journal.add(accepted(1));
    let about = journal.state.row(delivery(1, "ship").uid).unwrap().about.clone();
    journal.state.shelve(1, &[(delivery(1, "ship").uid, (old.offset, old.index))]);
    assert!(journal.state.row(delivery(1, "ship").uid).unwrap().about.is_none());
    assert!(journal.state.find("e1").is_empty());
    let new = journal.add(accepted(1));
    journal.facts[old.offset as usize] = Arc::new(Fact::Closed);
    let row = journal.state.row(delivery(1, "ship").uid).unwrap();
    assert_eq!((row.accepted, &row.about), (new, &about));
    assert_eq!(journal.state.find("e1"), [0]);
    assert_eq!(journal.state.events.len(), 1);
    assert_eq!(journal.state_of(1).version, 0);
    // Pages of the old place say nothing about it any more.
    journal.state.shelve(1, &[(delivery(1, "ship").uid, (old.offset, old.index))]);
    assert!(journal.state.row(delivery(1, "ship").uid).unwrap().about.is_some());
}

#[test]
fn a_cell_has_its_highest_version() {
    let mut journal = Journal::new();
    let cell = |version, value: &'static [u8]| Fact::Cell {
        name: "cursor".into(),
        version,
        value: Bytes::from_static(value),
    };
    for (version, value) in [(1, &b"a"[..]), (3, b"c"), (2, b"b"), (3, b"d")] {
        journal.add(cell(version, value));
    }
    assert_eq!(journal.state.cells["cursor"], (3, Bytes::from_static(b"c")));
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
        };
        assert_eq!(journal.try_add(Fact::Changed(Box::new(changed))).is_ok(), passes);
        assert!(journal.try_add(Fact::Duplicate { uid: delivery(1, "ship").uid }).is_ok());
        journal.add(Fact::Retired { segment: 1 });
        assert!(journal.state.retired.contains(&1));
    }
}
