//! Retention: what has expired goes with its segment, what has not is carried forward whole, and nothing that was
//! acknowledged is lost by it, whenever the power goes.

use super::rig::*;
use super::*;
use crate::store::decide::retention::{self, Moving};
use crate::store::fact::{Fact, Position};
use crate::store::fixtures::waits_for;
use crate::store::index::{Group, MemoryIndex};
use crate::store::journal::commit::compact::Compacted;
use crate::store::state::rows::{AuditRow, Shelf};
use crate::store::view::Outline;
use crate::store::{EventStatus, OnConflict, SourceRetention, Term};

fn rig() -> Rig {
    Rig::on(&MemoryDisk::new())
}

fn ids(numbers: impl IntoIterator<Item = u128>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("e{number}")).collect()
}

fn oldest_first() -> Query {
    Query { oldest_first: true, ..Query::default() }
}

/// Rows in memory, of whatever kind.
fn rows(rig: &Rig) -> usize {
    rig.shared().peek(|state| state.shelves().values().map(|shelf| shelf.events.len()).sum())
}

#[test]
fn expired_events_go_with_their_segment() {
    let index = Arc::new(MemoryIndex::default());
    let mut rig = Rig::new(&MemoryDisk::new(), index.clone());
    rig.keep(kept(HOUR, Duration::ZERO, Duration::ZERO));
    for number in 1..=30 {
        rig.accept_number(number);
        rig.succeed(number);
    }
    let before = rig.segments();
    rig.roll();
    rig.pass(HOUR);
    assert_eq!(rig.compact(), 0, "an hour has not passed yet");
    rig.pass(Duration::from_secs(2));
    assert!(rig.compact() > 1);
    assert_eq!((rig.events(), rows(&rig)), (0, 0));
    assert!(rig.view(7).is_none() && rig.find("e7").is_empty());
    assert!(rig.listed(Query::default()).is_empty());
    let left = rig.segments();
    assert!(before.iter().filter(|segment| left.contains(segment)).count() <= 2, "{left:?}");
    // With the next checkpoint nothing of them is left in the index either.
    rig.accept_number(100);
    rig.roll();
    let of_gone = |group: &Group| group.segment > 0 && !left.contains(&group.segment);
    assert!(!index.groups().unwrap().iter().any(of_gone));
    // A resend is a new event now.
    assert!(matches!(rig.resend(7), Acceptance::Accepted { .. }));
    for _ in 0..2 {
        rig.open();
        assert_eq!((rig.events(), rig.find("e7")), (2, vec![uid(1_000_007)]));
    }
}

/// 1 is put off, 2 is held, 3 is in review, 4 is malformed, and twenty others are finished.
fn unfinished() -> (Rig, Query) {
    let mut rig = rig();
    rig.accept_number(1);
    let term = Term { field: "order".into(), value: "7".into() };
    let mut put_off = put_off(start() + 100 * HOUR);
    put_off.terms = vec![term.clone()];
    rig.record(1, put_off);
    rig.accept_number(2);
    rig.record(2, intended(None));
    for number in 10..30 {
        rig.accept_number(number);
        rig.succeed(number);
    }
    rig.accept_number(3);
    rig.record(3, intended(None));
    rig.record(3, attempted(None, StepStatus::Failed));
    for other in ["other", "another"] {
        rig.resend(3);
        let conflict = event(900, "e3", other, &["ship"]);
        assert_eq!(rig.accept(conflict), Acceptance::Conflict { uid: uid(3) });
    }
    let mut malformed = event(4, "e4", "", &[]);
    malformed.envelope.malformed = Some("no JSON".into());
    rig.accept(malformed);
    (rig, Query { route: Some("ship".into()), field: Some(term), ..Query::default() })
}

fn shown(rig: &Rig, number: u128) -> String {
    let mut view = rig.view(number).expect("it is there");
    // It moves with the event.
    view.sequence = 0;
    format!("{view:?}")
}

#[test]
fn what_is_not_finished_is_carried_forward_whole_and_goes_on() {
    let (mut rig, by_term) = unfinished();
    let held = rig.claim(2);
    let before = [1, 2, 3, 4].map(|number| shown(&rig, number));
    let causes = drive(rig.store(), rig.store().causes());
    // From place to place.
    for _ in 0..3 {
        let oldest = rig.segments()[0];
        rig.pass(26 * HOUR);
        assert!(rig.compact_all() > 0);
        assert!(!rig.segments().contains(&oldest));
        assert_eq!([1, 2, 3, 4].map(|number| shown(&rig, number)), before);
        let mut listed = rig.listed(oldest_first());
        listed.sort();
        assert_eq!(listed, ids(1..=4));
        assert_eq!(rig.listed(by_term.clone()), ids([1]));
        assert_eq!(rig.find("e3"), [uid(3)]);
        assert_eq!(drive(rig.store(), rig.store().causes()), causes);
        let summary = drive(rig.store(), rig.store().summary());
        let counts = (summary.events, summary.queued, summary.processing, summary.failed);
        assert_eq!(counts, (4, 1, 1, 2));
        let malformed = Query { status: Some(EventStatus::Malformed), ..Query::default() };
        assert_eq!(rig.listed(malformed), ids([4]));
        // Each start finds the same, with the index of before and without one.
        for index in [rig.index.clone(), no_index() as Arc<dyn Index>] {
            let mut again = rig.after_kill(index);
            for number in [1, 3, 4] {
                assert_eq!(shown(&again, number), before[number as usize - 1]);
            }
            assert_eq!(again.listed(by_term.clone()), ids([1]));
            assert!(again.is_due(2) && !again.is_due(1));
            assert_eq!(again.resend(2), Acceptance::Duplicate { uid: uid(2) });
        }
    }
    // The worker of before goes on with its own hold.
    assert!(!rig.is_due(2));
    assert_eq!(rig.claim(2).fence, held.fence);
    assert_eq!(rig.resend(2), Acceptance::Duplicate { uid: uid(2) });
    let done = rig.record(2, attempted(None, StepStatus::Succeeded));
    assert_eq!((done.version, done.status), (2, Status::Succeeded));
    let view = rig.view(2).unwrap();
    assert_eq!((view.duplicates, view.deliveries[0].entries.len()), (1, 2));
    rig.pass(100 * HOUR);
    assert!(rig.is_due(1));
    rig.succeed(1);
    rig.operate(3);
    rig.succeed(3);
    assert_eq!(rig.view(3).unwrap().deliveries[0].entries.len(), 4);
    // What was in review expires now; what is malformed waits for a person.
    rig.pass(26 * HOUR);
    rig.compact_all();
    assert_eq!(rig.listed(oldest_first()), ids([4]));
}

/// Twenty finished events in full segments; the first passes have not begun.
fn finished(rig: &mut Rig) {
    for number in 1..=20 {
        rig.accept_number(number);
        rig.succeed(number);
    }
    rig.roll();
}

#[test]
fn what_happens_between_the_plan_and_the_move_is_not_lost() {
    for move_first in [false, true] {
        let mut rig = rig();
        // Without ids and audit to remember, what is to go leaves nothing behind.
        if move_first {
            rig.keep(kept(HOUR, 2 * HOUR, HOUR));
        } else {
            rig.keep(kept(HOUR, Duration::ZERO, Duration::ZERO));
        }
        rig.accept_number(50);
        rig.record(50, put_off(start() + 1000 * HOUR));
        finished(&mut rig);
        rig.pass(HOUR + Duration::from_secs(2));
        // One step: what is decided about all is decided now.
        assert!(matches!(rig.shared().compact_once(), Ok(Compacted::Moved(_))));
        work(rig.store());
        let before: Vec<u128> = (1..=20).filter(|number| rig.view(*number).is_some()).collect();
        for number in &before {
            rig.operate(*number);
        }
        assert!(before.len() > 10);
        rig.compact_all();
        for number in before {
            let state = rig.view(number).unwrap_or_else(|| panic!("{number} is lost"));
            assert_eq!(state.deliveries[0].state.version, 2);
            rig.succeed(number);
        }
    }
}

#[test]
fn a_delivery_that_is_claimed_while_it_is_being_moved_stays_with_its_worker() {
    let mut rig = rig();
    finished_more(&mut rig);
    rig.accept_number(1);
    rig.roll();
    rig.pass(HOUR + Duration::from_secs(2));
    // A worker comes right before the request is carried out: when the move is asked for, and not yet written.
    let (key, stamp, outline) = rig.shared().peek(|state| {
        let key = state.stored(uid(1)).unwrap();
        (key, state.stamp(key), Outline::of_key(state, key, uid(1)))
    });
    let facts = rig.shared().facts();
    let view = outline.read(facts).unwrap();
    let snapshot = retention::snapshot(&outline, view, facts).unwrap();
    let moving = Moving { key, stamp, facts: vec![Fact::Snapshot(Box::new(snapshot))] };
    let claim = rig.claim(1);
    let (reply, answer) = oneshot::channel();
    rig.shared().enqueue(Request::Carry { moving: vec![moving], also: Vec::new(), reply });
    work(rig.store());
    assert!(matches!(answer.blocking_recv(), Ok(Ok(1))));
    assert!(!rig.is_due(1), "it is held");
    assert_eq!(rig.claim(1).fence, claim.fence);
    let summary = drive(rig.store(), rig.store().summary());
    assert_eq!((summary.queued, summary.processing), (0, 1));
    rig.record(1, intended(None));
    rig.succeed(1);
}

#[test]
fn an_expired_id_is_known_until_dedupe_has_passed() {
    let mut rig = rig();
    finished(&mut rig);
    rig.pass(HOUR + Duration::from_secs(2));
    assert!(rig.compact_all() > 0);
    assert_eq!(rig.events(), 0);
    for index in [rig.index.clone(), no_index() as Arc<dyn Index>] {
        let rig = rig.after_kill(index);
        assert_eq!(rig.resend(3), Acceptance::Duplicate { uid: uid(3) });
        assert!(rig.view(3).is_none() && rig.find("e3").is_empty());
        // Another body is for a person to look at, or as the source has it.
        let another = event(500, "e3", "another", &["ship"]);
        assert_eq!(rig.accept(another), Acceptance::Conflict { uid: uid(500) });
        let view = rig.view(500).unwrap();
        assert!(view.envelope.malformed.as_ref().unwrap().contains("expired"));
        assert!(view.deliveries.is_empty());
        let mut ignored = event(501, "e4", "another", &["ship"]);
        ignored.on_conflict = OnConflict::Ignore;
        assert_eq!(rig.accept(ignored), Acceptance::Conflict { uid: uid(4) });
        let mut second = event(502, "e5", "another", &["ship"]);
        second.on_conflict = OnConflict::NewEvent;
        assert_eq!(rig.accept(second), Acceptance::Accepted { uid: uid(502) });
        assert_eq!(rig.view(502).unwrap().deliveries[0].state.key_base, "base-e5-another");
        // The first body is still known as what it was.
        assert_eq!(rig.resend(3), Acceptance::Duplicate { uid: uid(3) });
        assert_eq!(rig.resend(5), Acceptance::Duplicate { uid: uid(5) });
        rig.pass(2 * HOUR);
        rig.compact_all();
        assert!(matches!(rig.resend(6), Acceptance::Accepted { .. }));
        assert!(matches!(rig.resend(4), Acceptance::Accepted { .. }));
    }
}

#[test]
fn an_explicit_key_is_answered_until_dedupe_has_passed() {
    let mut rig = rig();
    rig.accept_number(1);
    rig.record(1, intended(Some("order-7")));
    rig.record(1, attempted(Some("order-7"), StepStatus::Succeeded));
    finished_more(&mut rig);
    rig.pass(HOUR + Duration::from_secs(2));
    assert!(rig.compact_all() > 0);
    assert!(rig.view(1).is_none());
    let index = rig.index.clone();
    for index in [index, no_index() as Arc<dyn Index>] {
        let mut rig = rig.after_kill(index);
        rig.accept_number(100);
        let Recorded::KeyHeld(holder) = rig.try_record(100, intended(Some("order-7"))) else {
            panic!("the key is held")
        };
        assert_eq!(holder.delivery, delivery(1, "ship"));
        assert_eq!((holder.event_id.as_str(), holder.status), ("e1", StepStatus::Succeeded));
        assert_eq!(holder.saved["price"].to_string(), "1.10000000000000000001");
        // Whoever would wait for it is due at once.
        rig.record(100, waits_for("ship", "order-7"));
        assert!(rig.is_due(100));
        rig.pass(HOUR);
        // Carried once more before it is forgotten.
        rig.compact_all();
        rig.pass(25 * HOUR);
        rig.compact_all();
        let again = rig.try_record(100, intended(Some("order-7")));
        assert!(matches!(again, Recorded::Recorded(_)), "{again:?}");
    }
}

fn finished_more(rig: &mut Rig) {
    for number in 200..220 {
        rig.accept_number(number);
        rig.succeed(number);
    }
    rig.roll();
}

/// What operators did to events that are gone.
fn audits(rig: &Rig) -> Vec<String> {
    let positions = rig.shared().peek(|state| {
        let shelves = state.shelves().iter();
        let of_shelf = |(segment, shelf): (&u32, &Arc<Shelf>)| {
            let segment = u64::from(*segment);
            let place = |row: &AuditRow| {
                let (offset, index) = (row.offset, row.index.into());
                Position { segment, offset, index }
            };
            shelf.audits.iter().map(place).collect::<Vec<_>>()
        };
        shelves.flat_map(of_shelf).collect::<Vec<_>>()
    });
    let read = |at| match &*rig.shared().facts().read(at).unwrap() {
        Fact::Audited(audited) => audited.event_id.to_string(),
        other => panic!("{other:?}"),
    };
    let mut audits: Vec<String> = positions.into_iter().map(read).collect();
    audits.sort();
    audits
}

#[test]
fn what_operators_did_outlives_the_event_and_its_ids() {
    for dedupe in [Duration::ZERO, 30 * HOUR] {
        let mut rig = rig();
        rig.keep(kept(HOUR, dedupe, 100 * HOUR));
        for number in 1..=3 {
            rig.accept_number(number);
            rig.record(number, attempted(None, StepStatus::Failed));
            rig.operate(number);
            rig.succeed(number);
        }
        finished_more(&mut rig);
        rig.pass(26 * HOUR);
        rig.compact_all();
        assert_eq!((rig.events(), audits(&rig)), (0, ids(1..=3)));
        rig.pass(26 * HOUR);
        rig.compact_all();
        assert_eq!(audits(&rig), ids(1..=3));
        assert!(matches!(rig.resend(2), Acceptance::Accepted { .. }));
        let again = rig.after_kill(no_index());
        assert_eq!(audits(&again), ids(1..=3));
        let again = rig.after_kill(rig.index.clone());
        assert_eq!(audits(&again), ids(1..=3));
        rig.succeed(1_000_002);
        rig.pass(80 * HOUR);
        rig.compact_all();
        assert_eq!(audits(&rig), Vec::<String>::new());
    }
}

#[test]
fn revisions_that_are_needed_are_carried() {
    let mut rig = rig();
    for (hash, text) in [("r1", "of a delivery"), ("r2", "of nobody"), ("r3", "that runs")] {
        let put = rig.store().revision_put(hash.into(), text.into());
        drive(rig.store(), put).unwrap();
    }
    // The mark of what runs is not written down: the configuration gives it again.
    rig.open();
    drive(rig.store(), rig.store().revision_put("r3".into(), "that runs".into())).unwrap();
    rig.accept_number(1);
    rig.record(1, put_off(start() + 1000 * HOUR));
    finished_more(&mut rig);
    for _ in 0..2 {
        rig.pass(26 * HOUR);
        assert!(rig.compact_all() > 0);
        let text = |rig: &Rig, hash: &str| {
            drive(rig.store(), rig.store().revision_get(&hash.into())).unwrap()
        };
        for rig in [&rig, &rig.after_kill(no_index()), &rig.after_kill(rig.index.clone())] {
            assert_eq!(text(rig, "r1").as_deref(), Some("of a delivery"));
            assert_eq!(text(rig, "r2"), None);
            assert_eq!(text(rig, "r3").as_deref(), Some("that runs"));
        }
    }
}

#[test]
fn each_source_has_its_own_times_and_ids_are_known_as_long_as_events() {
    let mut rig = rig();
    let mut retention = kept(HOUR, Duration::ZERO, Duration::ZERO);
    let longer = SourceRetention { retain: 10 * HOUR, dedupe: Duration::ZERO };
    retention.sources.insert("slow".into(), longer);
    rig.keep(retention);
    for number in 1..=20 {
        rig.accept_number(number);
        rig.succeed(number);
    }
    let mut slow = event(100, "s1", "{}", &["ship"]);
    slow.envelope.source = "slow".into();
    rig.accept(slow);
    rig.succeed(100);
    rig.roll();
    rig.pass(2 * HOUR);
    rig.compact_all();
    assert_eq!(rig.listed(Query::default()), ["s1"]);
    rig.pass(9 * HOUR);
    rig.compact_all();
    assert_eq!(rig.events(), 0);
    // `dedupe` is never shorter than `retain`.
    let mut rig = self::rig();
    rig.keep(kept(HOUR, Duration::from_secs(1), Duration::ZERO));
    finished(&mut rig);
    rig.pass(HOUR - Duration::from_secs(1));
    assert_eq!(rig.compact_all(), 0);
    assert_eq!(rig.resend(3), Acceptance::Duplicate { uid: uid(3) });
}

#[test]
fn a_segment_that_does_not_fill_is_ended_by_its_age() {
    let disk = MemoryDisk::new();
    let mut rig = Rig::on(&disk);
    rig.options.segment_age_max = 24 * HOUR;
    rig.keep(kept(HOUR, Duration::ZERO, Duration::ZERO));
    rig.open();
    rig.accept_number(1);
    rig.succeed(1);
    let active = rig.segments().len();
    rig.pass(23 * HOUR);
    rig.roll();
    assert_eq!((rig.compact(), rig.segments().len()), (active - 3, 3));
    rig.pass(HOUR);
    rig.roll();
    assert_eq!(rig.compact(), 1);
    assert_eq!(rig.events(), 0);
    // The room that it did not use was given back before that, and nothing more is ended while nothing comes.
    let segments = rig.segments();
    for _ in 0..3 {
        rig.pass(100 * HOUR);
        rig.roll();
        assert_eq!(rig.compact(), 0);
    }
    assert_eq!(rig.segments(), segments);
}

#[test]
fn a_wall_clock_that_jumps_deletes_nothing() {
    let mut rig = rig();
    finished(&mut rig);
    for jump in [100_000 * HOUR, Duration::ZERO] {
        rig.clock.jump_to(start() + jump);
        assert_eq!(rig.compact(), 0);
    }
    rig.clock.jump_to(start() - 100_000 * HOUR);
    assert_eq!(rig.compact(), 0);
    rig.pass(26 * HOUR);
    assert_eq!(rig.compact(), 0, "the wall clock does not say yet that it is time");
    // Work goes on.
    rig.accept_number(100);
    rig.succeed(100);
    assert_eq!(rig.events(), 21);
    // A start believes ten minutes at most beyond what was written down, whatever the wall clock says.
    rig.keep(kept(48 * HOUR, 48 * HOUR, 48 * HOUR));
    rig.clock.jump_to(start() + 100_000 * HOUR);
    rig.open();
    assert_eq!(rig.compact_all(), 0);
    assert_eq!(rig.events(), 21);
    rig.pass(49 * HOUR);
    assert!(rig.compact_all() > 0);
    assert!(rig.events() <= 1);
}

#[test]
fn on_a_full_disk_nothing_is_moved_and_what_needs_no_room_goes() {
    let memory = MemoryDisk::new();
    let mut rig = Rig::through(&memory, Arc::new(Roomy(memory.clone())), no_index());
    rig.keep(kept(HOUR, Duration::ZERO, Duration::ZERO));
    // The first segment has nothing but what is finished, and a later one something that waits.
    for number in 1..=8 {
        rig.accept_number(number);
        rig.succeed(number);
    }
    rig.roll();
    rig.accept_number(100);
    rig.record(100, put_off(start() + 1000 * HOUR));
    for number in 101..=116 {
        rig.accept_number(number);
        rig.succeed(number);
    }
    rig.roll();
    let used: u64 = rig
        .segments()
        .iter()
        .map(|number| memory.open(&segment::name(*number)).unwrap().size().unwrap())
        .sum();
    memory.set_quota(used + 64);
    // Both spares are used up.
    while rig.shared().spares() > 0 {
        let body = "x".repeat(3000);
        let next = 1000 + u128::from(rig.shared().written());
        let answer = accept(rig.store(), event(next, &format!("f{next}"), &body, &[]));
        if matches!(answer, Some(Err(_))) {
            break;
        }
    }
    assert_eq!(rig.shared().spares(), 0);
    let before = rig.segments();
    rig.pass(2 * HOUR);
    // What the first one left makes room for a spare again.
    assert!(matches!(rig.shared().compact_once(), Ok(Compacted::Retired)));
    assert_eq!(rig.segments(), before[1..]);
    memory.set_quota(0);
    assert!(matches!(rig.shared().compact_once(), Ok(Compacted::Nothing)));
    assert_eq!(rig.segments(), before[1..]);
    assert_eq!(rig.state(100).status, Status::Queued);
    memory.set_quota(1 << 20);
    assert!(rig.compact_all() > 0);
    assert_eq!(rig.state(100).status, Status::Queued);
    assert!(!rig.segments().contains(&before[1]));
}

#[test]
fn a_write_that_fails_in_the_middle_of_a_compaction_costs_nothing() {
    for kind in [FaultKind::ShortWrite, FaultKind::FailedSync] {
        for number in 0..6 {
            let mut rig = rig();
            rig.accept_number(100);
            rig.record(100, put_off(start() + 1000 * HOUR));
            finished(&mut rig);
            rig.pass(HOUR + Duration::from_secs(2));
            rig.memory.inject(Fault { kind, number });
            let mut ended = false;
            for _ in 0..20 {
                match rig.shared().compact_once() {
                    Ok(Compacted::Nothing) => break,
                    Ok(_) => {}
                    Err(StoreError::Dead(_)) => {
                        ended = true;
                        break;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            assert!(ended || number > 3, "{kind:?} {number}");
            for image in [rig.memory.after_kill(), {
                let operations = rig.memory.operations();
                rig.memory.cut_after(operations, Cut::Nothing)
            }] {
                let mut again = Rig::on(&image);
                again.keep(kept(HOUR, 2 * HOUR, 3 * HOUR));
                assert_eq!(again.state(100).status, Status::Queued);
                for number in 1..=20 {
                    assert_eq!(again.resend(number), Acceptance::Duplicate { uid: uid(number) });
                }
                again.pass(HOUR + Duration::from_secs(2));
                again.compact_all();
                assert_eq!(again.listed(Query::default()), ids([100]));
            }
        }
    }
}

/// Whoever asked for something that found no room is told at the end: the compactor's thread waits for such an answer, and
/// the end waits for the compactor's thread.
#[test]
fn what_found_no_room_is_answered_at_the_end() {
    let memory = MemoryDisk::new();
    memory.set_quota(26 << 10);
    let disk = Arc::new(Roomy(memory));
    let store = JournalStore::open_unstarted(disk, no_index(), small(), world(1).0).unwrap();
    while store.shared.prepare_once() {}
    for number in 1.. {
        let offered = event(number, &format!("e{number}"), &"x".repeat(700), &[]);
        if accept(&store, offered).is_some_and(|answer| answer.is_err()) {
            break;
        }
    }
    let mut number = 0;
    let left = loop {
        number += 1;
        let hash = format!("h{number}");
        let mut put = store.revision_put(hash.as_str().into(), "x".repeat(100).into());
        assert!((&mut put).now_or_never().is_none());
        work(&store);
        if (&mut put).now_or_never().is_none() {
            break put;
        }
    };
    store.shared.stop();
    store.shared.write_until_stopped();
    assert!(matches!(left.now_or_never(), Some(Err(StoreError::Refusing(_)))));
}

#[test]
fn a_wall_clock_that_is_ahead_when_an_event_comes_deletes_nothing_at_the_next_start() {
    let mut rig = rig();
    finished(&mut rig);
    rig.clock.jump_to(start() + 100_000 * HOUR);
    rig.accept_number(100);
    rig.open();
    rig.accept_number(101);
    assert_eq!(rig.compact_all(), 0);
    assert_eq!(rig.events(), 22);
}
