//! What every store promises, as tests: each runs on the store in memory and on the journal.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use uuid::Uuid;

use super::captured::{CAPTURED_MAX, Capture, CapturedSecret, DroppedSecret};
use super::fact::{Audited, Remembered, RememberedKey};
use super::fixtures::*;
use super::hashing::Hashing;
use super::index::Index;
use super::journal::{JournalOptions, JournalStore};
use super::memory::MemoryStore;
use super::portable::{Content, Header, Record, line_of};
use super::{
    Acceptance, Budget, Change, Claim, Durability, EventStatus, EventView, NewEvent, OnConflict,
    Operated, Query, Recorded, Store, StoreError, Term,
};
use crate::delivery::state::{DeliveryState, KeyClaim, Status, StepStatus};
use crate::envelope::Identity;
use crate::name::Uid;
use crate::world::clock::{Clock, ManualClock};
use crate::world::disk::MemoryDisk;

const BACKLOG: u64 = 100;

struct Rig {
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
}

/// Runs `test` on each kind of store.
async fn on_each(test: impl AsyncFn(&Rig)) {
    let (world, clock) = world(1);
    test(&Rig { store: Arc::new(MemoryStore::with_backlog(world, BACKLOG)), clock }).await;
    // The first keeps all in its open segment. In the second nearly all is sealed, and its index is a liar.
    let liar = Arc::new(UnreliableIndex::new(1));
    for (segment_bytes, index) in [(64 << 10, no_index() as Arc<dyn Index>), (4 << 10, liar)] {
        let (world, clock) = self::world(1);
        let options = JournalOptions { segment_bytes, backlog_max: BACKLOG, ..Default::default() };
        let disk = Arc::new(MemoryDisk::new());
        let store = JournalStore::open(disk, index, options, world).unwrap();
        test(&Rig { store: Arc::new(store), clock }).await;
    }
}

/// Runs `before` on each kind of store, and `after` on what a restart finds of it.
async fn over_a_restart(before: impl AsyncFn(&Rig), after: impl AsyncFn(&Rig)) {
    let (world, clock) = world(1);
    let store = Arc::new(MemoryStore::with_backlog(world, BACKLOG));
    before(&Rig { store: store.clone(), clock: clock.clone() }).await;
    after(&Rig { store: Arc::new(store.reopened().unwrap()), clock }).await;
    for (segment_bytes, closes) in [(64 << 10, true), (4 << 10, true), (4 << 10, false)] {
        let (world, clock) = self::world(1);
        let options = JournalOptions { segment_bytes, backlog_max: BACKLOG, ..Default::default() };
        let index: Arc<dyn Index> = Arc::new(UnreliableIndex::new(segment_bytes));
        let disk = MemoryDisk::new();
        let open = |disk: &MemoryDisk, index: &Arc<dyn Index>| -> Arc<dyn Store> {
            let (disk, index) = (Arc::new(disk.clone()), index.clone());
            Arc::new(JournalStore::open(disk, index, options.clone(), world.clone()).unwrap())
        };
        let rig = Rig { store: open(&disk, &index), clock: clock.clone() };
        before(&rig).await;
        if closes {
            rig.store.close().await.unwrap();
        }
        drop(rig);
        after(&Rig { store: open(&disk.after_kill(), &index), clock }).await;
    }
}

impl Rig {
    async fn accept(&self, event: NewEvent) -> Acceptance {
        self.store.accept(vec![event]).await.unwrap().remove(0)
    }

    async fn claim_one(&self) -> Claim {
        let mut claims = self.store.claim(1).await.unwrap();
        assert_eq!(claims.len(), 1, "something is due");
        claims.remove(0)
    }

    async fn assert_nothing_due(&self) {
        assert!(self.store.claim(1).await.unwrap().is_empty());
        assert!(self.store.wait().now_or_never().is_none());
    }

    async fn try_record(&self, claim: &Claim, version: u64, change: Change) -> Recorded {
        let record =
            self.store.record(&claim.state.id, claim.fence, version, change, Durability::Synced);
        record.await.unwrap()
    }

    /// Records one change after another.
    async fn record(&self, claim: &Claim, changes: Vec<Change>) -> DeliveryState {
        let mut state = claim.state.clone();
        for change in changes {
            state = match self.try_record(claim, state.version, change).await {
                Recorded::Recorded(state) => state,
                other => panic!("not recorded: {other:?}"),
            };
        }
        state
    }

    async fn event(&self, number: u128) -> EventView {
        self.store.event(uid(number)).await.unwrap().unwrap()
    }

    async fn state(&self, number: u128) -> DeliveryState {
        self.event(number).await.deliveries.remove(0).state
    }
}

fn uid(number: u128) -> Uid {
    Uid(Uuid::from_u128(number))
}

#[tokio::test]
async fn an_event_is_taken_in_once_and_carried_out() {
    on_each(async |rig| {
        let offered = event(1, "e1", "{}", &["ship"]);
        assert_eq!(rig.accept(offered.clone()).await, Acceptance::Accepted { uid: uid(1) });
        assert_eq!(
            rig.accept(event(2, "e1", "{}", &["ship"])).await,
            Acceptance::Duplicate { uid: uid(1) }
        );
        rig.store.wait().await;
        let claim = rig.claim_one().await;
        assert_eq!(*claim.envelope, offered.envelope);
        assert_eq!(rig.state(1).await.status, Status::Processing);
        rig.assert_nothing_due().await;
        let changes = vec![intended(None), attempted(None, StepStatus::Succeeded)];
        let state = rig.record(&claim, changes.clone()).await;
        assert_eq!((state.status, state.version), (Status::Succeeded, 2));
        let view = rig.event(1).await;
        assert_eq!(view.duplicates, 1);
        assert_eq!(*view.envelope, offered.envelope);
        assert_eq!(view.deliveries[0].state, state);
        let entries: Vec<_> = changes.into_iter().map(|change| change.entry).collect();
        assert_eq!(view.deliveries[0].entries, entries);
        let summary = rig.store.summary().await;
        assert_eq!((summary.events, summary.queued, summary.processing), (1, 0, 0));
    })
    .await;
}

#[tokio::test]
async fn of_64_that_come_at_once_one_is_stored() {
    on_each(async |rig| {
        let offers = (0..64).map(|number| rig.accept(event(number, "e1", "{}", &["ship"])));
        let answers = futures_util::future::join_all(offers).await;
        let accepted = answers.iter().filter(|it| matches!(it, Acceptance::Accepted { .. }));
        assert_eq!(accepted.count(), 1);
        assert_eq!(rig.store.find("e1", None).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn another_body_under_a_known_id_is_kept_for_a_person() {
    on_each(async |rig| {
        rig.accept(event(1, "e1", "{\"a\":1}", &["ship"])).await;
        for number in [2, 3] {
            let other = event(number, "e1", "{\"a\":2}", &["ship"]);
            assert_eq!(rig.accept(other).await, Acceptance::Conflict { uid: uid(1) });
        }
        let mut uncounted = event(4, "e1", "{\"a\":3}", &["ship"]);
        uncounted.on_conflict = OnConflict::Ignore;
        assert_eq!(rig.accept(uncounted).await, Acceptance::Conflict { uid: uid(1) });
        let view = rig.event(1).await;
        assert_eq!(view.conflict_count, 3);
        assert_eq!(view.conflicts.len(), 1, "the same body is kept once, an ignored one never");
        assert_eq!(&view.conflicts[0].body[..], b"{\"a\":2}");
        // Another source path is another event.
        let mut elsewhere = event(5, "e1", "{\"a\":9}", &["ship"]);
        elsewhere.envelope.path[0].1 = "b".into();
        assert_eq!(rig.accept(elsewhere).await, Acceptance::Accepted { uid: uid(5) });
    })
    .await;
}

#[tokio::test]
async fn a_second_body_may_be_an_event_of_its_own() {
    on_each(async |rig| {
        let new_event = |number, body| NewEvent {
            on_conflict: OnConflict::NewEvent,
            ..event(number, "e1", body, &["ship"])
        };
        assert_eq!(rig.accept(new_event(1, "a")).await, Acceptance::Accepted { uid: uid(1) });
        assert_eq!(rig.accept(new_event(2, "b")).await, Acceptance::Accepted { uid: uid(2) });
        assert_eq!(rig.accept(new_event(3, "b")).await, Acceptance::Duplicate { uid: uid(2) });
        assert_eq!(rig.accept(new_event(4, "a")).await, Acceptance::Duplicate { uid: uid(1) });
        assert_eq!(rig.state(1).await.key_base, "base-e1");
        assert_eq!(rig.state(2).await.key_base, "base-e1-b");
    })
    .await;
}

#[tokio::test]
async fn within_one_post_an_id_with_other_bodies_keeps_no_more_of_them_than_across_posts() {
    on_each(async |rig| {
        let bodies: Vec<String> = (0..18).map(|number| format!("{number}")).collect();
        let events = bodies.iter().zip(1..).map(|(body, number)| event(number, "e1", body, &[]));
        let answers = rig.store.accept(events.collect()).await.unwrap();
        assert_eq!(answers[0], Acceptance::Accepted { uid: uid(1) });
        assert!(answers[1..].iter().all(|it| *it == Acceptance::Conflict { uid: uid(1) }));
        let view = rig.store.event(uid(1)).await.unwrap().unwrap();
        assert_eq!((view.conflict_count, view.conflicts.len()), (17, 16));
        // The same again: the first is a duplicate, and nothing more is kept.
        let events = bodies.iter().zip(31..).map(|(body, number)| event(number, "e1", body, &[]));
        rig.store.accept(events.collect()).await.unwrap();
        let view = rig.store.event(uid(1)).await.unwrap().unwrap();
        assert_eq!((view.duplicates, view.conflict_count, view.conflicts.len()), (1, 34, 16));
    })
    .await;
}

#[tokio::test]
async fn the_events_of_one_post_are_told_apart_and_share_further_identities() {
    on_each(async |rig| {
        let mut first = event(1, "e1", "a", &["ship"]);
        first.identities.push(Identity::SameAs("order-7".into()));
        let mut second = event(2, "e2", "b", &["ship"]);
        second.identities.push(Identity::SameAs("order-7".into()));
        let third = event(3, "e3", "c", &[]);
        let answers = rig.store.accept(vec![first, second, third]).await.unwrap();
        assert_eq!(
            answers,
            [
                Acceptance::Accepted { uid: uid(1) },
                Acceptance::Duplicate { uid: uid(1) },
                Acceptance::Accepted { uid: uid(3) },
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn only_the_holder_records_and_only_on_the_current_version() {
    on_each(async |rig| {
        rig.accept(event(1, "e1", "{}", &["ship"])).await;
        let claim = rig.claim_one().await;
        rig.record(&claim, vec![intended(None)]).await;
        let again = rig.try_record(&claim, 0, intended(None)).await;
        assert!(matches!(again, Recorded::Already(state) if state.version == 1));
        assert!(matches!(rig.try_record(&claim, 0, ignored()).await, Recorded::Fenced));
        assert!(matches!(rig.try_record(&claim, 2, ignored()).await, Recorded::Fenced));
        // An operator acts: the worker has lost it.
        let state = rig.state(1).await;
        let Operated::Done(state) = rig.store.operate(replay(&state)).await.unwrap() else {
            panic!("not done")
        };
        assert_eq!((state.version, state.revision.as_str()), (2, "r2"));
        assert!(matches!(rig.try_record(&claim, 2, ignored()).await, Recorded::Fenced));
        let stale = DeliveryState { version: 1, ..state };
        assert!(matches!(rig.store.operate(replay(&stale)).await, Ok(Operated::Stale)));
        let unknown = DeliveryState { id: delivery(9, "ship"), ..stale };
        assert!(matches!(rig.store.operate(replay(&unknown)).await, Ok(Operated::NotFound)));
        let second = rig.claim_one().await;
        assert!(second.fence > claim.fence);
        assert_eq!(rig.record(&second, vec![ignored()]).await.status, Status::Ignored);
    })
    .await;
}

#[tokio::test]
async fn a_failed_delivery_comes_back_by_replay() {
    on_each(async |rig| {
        rig.accept(event(1, "e1", "{}", &["ship"])).await;
        let claim = rig.claim_one().await;
        let failed =
            rig.record(&claim, vec![intended(None), attempted(None, StepStatus::Failed)]).await;
        assert_eq!(rig.store.summary().await.failed, 1);
        assert!(matches!(rig.store.operate(replay(&failed)).await, Ok(Operated::Done(_))));
        let claim = rig.claim_one().await;
        assert_eq!(claim.state.steps[0].status, StepStatus::Failed, "its past is with it");
        assert_eq!(&claim.envelope.body[..], b"{}");
        rig.record(&claim, vec![attempted(None, StepStatus::Succeeded)]).await;
        assert_eq!(rig.store.summary().await.failed, 0);
        assert_eq!(rig.event(1).await.deliveries[0].entries.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn an_explicit_key_is_held_by_one_delivery() {
    on_each(async |rig| {
        for number in 1..=3 {
            rig.accept(event(number, &format!("e{number}"), "{}", &["ship"])).await;
        }
        let first = rig.claim_one().await;
        let second = rig.claim_one().await;
        let third = rig.claim_one().await;
        rig.record(&first, vec![intended(Some("order-7"))]).await;
        let Recorded::KeyHeld(holder) = rig.try_record(&second, 0, intended(Some("order-7"))).await
        else {
            panic!("the key is held")
        };
        assert_eq!((holder.delivery, holder.status), (first.state.id.clone(), StepStatus::Running));
        rig.record(&second, vec![waits_for("ship", "order-7")]).await;
        rig.assert_nothing_due().await;
        // In review the holder keeps the others waiting.
        let failed = rig
            .record(&first_at(&first, 1), vec![attempted(Some("order-7"), StepStatus::Unknown)])
            .await;
        rig.assert_nothing_due().await;
        rig.store.operate(replay(&failed)).await.unwrap();
        let first = rig.claim_one().await;
        rig.record(&first, vec![attempted(Some("order-7"), StepStatus::Succeeded)]).await;
        rig.store.wait().await;
        let second = rig.claim_one().await;
        let Recorded::KeyHeld(holder) =
            rig.try_record(&second, second.state.version, intended(Some("order-7"))).await
        else {
            panic!("the key is held for good")
        };
        assert_eq!(holder.status, StepStatus::Succeeded);
        assert_eq!(holder.saved["price"].to_string(), "1.10000000000000000001");
        // Whoever comes to wait after that is due at once.
        rig.record(&third, vec![waits_for("ship", "order-7")]).await;
        assert_eq!(rig.claim_one().await.state.id, third.state.id);
    })
    .await;
}

fn first_at(claim: &Claim, version: u64) -> Claim {
    let mut claim = claim.clone();
    claim.state.version = version;
    claim
}

#[tokio::test]
async fn a_retry_is_due_in_time_and_a_wall_clock_that_jumps_back_does_not_stop_it() {
    on_each(async |rig| {
        rig.accept(event(1, "e1", "{}", &["ship"])).await;
        let claim = rig.claim_one().await;
        rig.record(&claim, vec![put_off(start() + Duration::from_secs(10))]).await;
        rig.assert_nothing_due().await;
        rig.clock.jump_to(start() - Duration::from_secs(100_000));
        rig.clock.advance(Duration::from_secs(9));
        rig.assert_nothing_due().await;
        let wait = rig.store.wait();
        rig.clock.advance(Duration::from_secs(1));
        wait.await;
        let claim = rig.claim_one().await;
        // Decided anew while the wall clock is behind: never a longer wait than was meant.
        rig.record(&claim, vec![put_off(start() + Duration::from_secs(10))]).await;
        rig.clock.advance(Duration::from_secs(10));
        rig.claim_one().await;
        assert!(rig.clock.now() < start());
    })
    .await;
}

#[tokio::test]
async fn an_operator_routes_a_stored_event_anew() {
    on_each(async |rig| {
        rig.accept(event(1, "e1", "{}", &["ship", "mail"])).await;
        for _ in 0..2 {
            let claim = rig.claim_one().await;
            let change = match claim.state.id.route.as_str() {
                "ship" => ignored(),
                _ => attempted(None, StepStatus::Succeeded),
            };
            rig.record(&claim, vec![change]).await;
        }
        let wanted = event(1, "e1", "{}", &["ship", "mail", "bill"]).deliveries;
        let queued = rig.store.route(uid(1), operated(), wanted).await.unwrap();
        assert_eq!(queued, [delivery(1, "ship"), delivery(1, "bill")]);
        let view = rig.event(1).await;
        let ship = &view.deliveries[0];
        assert_eq!((ship.state.status, ship.state.version), (Status::Queued, 2));
        assert_eq!(ship.entries.len(), 2);
        assert_eq!(view.deliveries[1].state.status, Status::Succeeded);
        assert_eq!(view.deliveries[2].entries, [operated()]);
        for _ in 0..2 {
            let claim = rig.claim_one().await;
            rig.record(&claim, vec![attempted(None, StepStatus::Succeeded)]).await;
        }
        assert_eq!(rig.state(1).await.version, 3);
        assert!(rig.store.route(uid(7), operated(), Vec::new()).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn lists_are_filtered_and_bounded() {
    on_each(async |rig| {
        for number in 1..=9 {
            let routes: &[&str] = if number % 3 == 0 { &[] } else { &["ship"] };
            rig.accept(event(number, &format!("e{number}"), "{}", routes)).await;
        }
        let all = Budget { rows_max: 100, examined_max: 100 };
        let page = async |query: &Query, cursor, budget| {
            let page = rig.store.list(query.clone(), cursor, budget).await.unwrap();
            let ids = page.events.iter().map(|row| row.event_id.to_string()).collect::<Vec<_>>();
            (ids.join(" "), page.next, page.examined)
        };
        let query = Query::default();
        assert_eq!(page(&query, None, all).await, ("e9 e8 e7 e6 e5 e4 e3 e2 e1".into(), None, 9));
        let two = Budget { rows_max: 2, ..all };
        // Page by page, to the end, from either end.
        for (oldest_first, expected) in [
            (false, ["e9 e8", "e7 e6", "e5 e4", "e3 e2", "e1"]),
            (true, ["e1 e2", "e3 e4", "e5 e6", "e7 e8", "e9"]),
        ] {
            let query = Query { oldest_first, ..query.clone() };
            let mut cursor = None;
            for (number, expected) in expected.iter().enumerate() {
                let (ids, next, examined) = page(&query, cursor, two).await;
                assert_eq!((&*ids, examined), (*expected, ids.split(' ').count()));
                assert_eq!(next.is_none(), number == 4);
                cursor = next;
            }
        }
        let unrouted = Query { status: Some(EventStatus::Unrouted), ..query.clone() };
        assert_eq!(page(&unrouted, None, all).await.0, "e9 e6 e3");
        let narrow = Budget { examined_max: 4, ..all };
        let (ids, next, examined) = page(&unrouted, None, narrow).await;
        assert_eq!((&*ids, examined), ("e9 e6", 4));
        assert_eq!(page(&unrouted, next, narrow).await.0, "e3");
        let by_id = Query { event_id: Some("e4".into()), ..query.clone() };
        assert_eq!(page(&by_id, None, two).await.0, "e4");
        let by_correlation =
            Query { correlation_id: Some("correlation-5".into()), ..query.clone() };
        assert_eq!(page(&by_correlation, None, two).await.0, "e5");
        let by_type = Query { event_type: Some("orders/paid".into()), ..query.clone() };
        assert_eq!(page(&by_type, None, two).await.0, "e9 e8");
        let later = Query { since: Some(start() + Duration::from_secs(1)), ..query.clone() };
        assert_eq!(page(&later, None, all).await.0, "");
        let ids = async |query, cursor, budget| page(&query, cursor, budget).await;
        let nobody = Query { source: Some("other".into()), ..query };
        assert_eq!(ids(nobody, None, all).await.0, "");
        assert_eq!(rig.store.find("e4", None).await.unwrap(), [uid(4)]);
        assert_eq!(rig.store.find(&uid(4).to_string(), None).await.unwrap(), [uid(4)]);
        assert!(rig.store.find("e4", Some(&"other".into())).await.unwrap().is_empty());
        assert!(rig.store.event(uid(77)).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_full_backlog_refuses_and_no_route_takes_more_than_half_of_it() {
    on_each(async |rig| {
        rig.accept(event(1000, "other", "{}", &["mail"])).await;
        for number in 0..50 {
            rig.accept(event(number, &format!("e{number}"), "{}", &["ship"])).await;
        }
        let offer = |number: u128, route| {
            rig.store.accept(vec![event(number, &format!("e{number}"), "{}", &[route])])
        };
        assert!(matches!(offer(50, "ship").await, Err(StoreError::Refusing(_))));
        for number in 51..100 {
            offer(number, "mail").await.unwrap();
        }
        assert!(matches!(offer(100, "bill").await, Err(StoreError::Refusing(_))));
        // A resend adds no work: it gets its answer.
        let resent = rig.store.accept(vec![event(200, "e51", "{}", &["mail"])]).await;
        assert!(matches!(resent.unwrap()[..], [Acceptance::Duplicate { .. }]));
        let claim = rig.claim_one().await;
        rig.record(&claim, vec![ignored()]).await;
        offer(100, "bill").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn revisions_are_kept_and_a_closed_store_takes_nothing() {
    on_each(async |rig| {
        for _ in 0..2 {
            rig.store.revision_put("h1".into(), "steps: []".into()).await.unwrap();
        }
        assert_eq!(&*rig.store.revision_get(&"h1".into()).await.unwrap().unwrap(), "steps: []");
        assert!(rig.store.revision_get(&"h2".into()).await.unwrap().is_none());
        rig.store.close().await.unwrap();
        let refused = rig.store.accept(vec![event(1, "e1", "{}", &["ship"])]).await;
        assert!(matches!(refused, Err(StoreError::Refusing(_))));
    })
    .await;
}

fn with_terms(change: Change, terms: &[(&str, &str)]) -> Change {
    let term =
        |(field, value): &(&str, &str)| Term { field: (*field).into(), value: (*value).into() };
    Change { terms: terms.iter().map(term).collect(), ..change }
}

fn by_field(route: &str, field: &str, value: &str) -> Query {
    let field = Some(Term { field: field.into(), value: value.into() });
    Query { route: Some(route.into()), field, ..Query::default() }
}

const ALL: Budget = Budget { rows_max: 1000, examined_max: 1000 };

async fn ids(
    rig: &Rig,
    query: &Query,
    cursor: Option<u64>,
    budget: Budget,
) -> (String, Option<u64>) {
    let page = rig.store.list(query.clone(), cursor, budget).await.unwrap();
    let ids: Vec<String> = page.events.iter().map(|row| row.event_id.to_string()).collect();
    (ids.join(" "), page.next)
}

/// Of every third event, the changes come when many segments have gone by.
async fn fill_with_terms(rig: &Rig) {
    let mut claims = Vec::new();
    for number in 1..=30 {
        rig.accept(event(number, &format!("e{number}"), &"x".repeat(300), &["ship", "mail"])).await;
        claims.extend(rig.store.claim(2).await.unwrap());
    }
    for claim in &claims {
        let number = claim.state.id.uid.0.as_u128();
        let customer = if number % 3 == 0 { "ann" } else { "bob" };
        let order = number.to_string();
        let terms: &[(&str, &str)] = match claim.state.id.route.as_str() {
            "ship" => &[("customer", customer), ("order", &order)],
            _ => &[("customer", "eve")],
        };
        rig.record(claim, vec![with_terms(attempted(None, StepStatus::Succeeded), terms)]).await;
    }
}

async fn assert_found_by_terms(rig: &Rig) {
    let found =
        async |route, field, value| ids(rig, &by_field(route, field, value), None, ALL).await.0;
    assert_eq!(found("ship", "order", "7").await, "e7");
    assert_eq!(found("ship", "customer", "ann").await, "e30 e27 e24 e21 e18 e15 e12 e9 e6 e3");
    assert_eq!(found("mail", "customer", "eve").await.split(' ').count(), 30);
    // By its own route, field and value alone.
    for (route, field, value) in [
        ("mail", "customer", "ann"),
        ("ship", "order", "ann"),
        ("ship", "customer", "an"),
        ("bill", "order", "7"),
    ] {
        assert_eq!(found(route, field, value).await, "", "{route} {field} {value}");
    }
    let narrowed = Query { event_type: Some("none".into()), ..by_field("ship", "order", "7") };
    assert_eq!(ids(rig, &narrowed, None, ALL).await.0, "");
    // Page by page, from either end.
    for (oldest_first, expected) in [
        (false, ["e30 e27 e24 e21", "e18 e15 e12 e9", "e6 e3"]),
        (true, ["e3 e6 e9 e12", "e15 e18 e21 e24", "e27 e30"]),
    ] {
        let query = Query { oldest_first, ..by_field("ship", "customer", "ann") };
        let mut cursor = None;
        for (number, expected) in expected.iter().enumerate() {
            let (page, next) = ids(rig, &query, cursor, Budget { rows_max: 4, ..ALL }).await;
            assert_eq!(page, *expected);
            assert_eq!(next.is_none(), number == 2);
            cursor = next;
        }
        // A page that may look at less than it may show goes on where it stopped.
        let (mut cursor, mut shown) = (None, String::new());
        loop {
            let (page, next) = ids(rig, &query, cursor, Budget { examined_max: 3, ..ALL }).await;
            shown = format!("{shown} {page}");
            cursor = next;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(shown.split_whitespace().count(), 10);
    }
}

#[tokio::test]
async fn an_event_is_found_by_a_field_of_a_route_wherever_it_stands() {
    let check = async |rig: &Rig| {
        fill_with_terms(rig).await;
        assert_found_by_terms(rig).await;
    };
    over_a_restart(check, assert_found_by_terms).await;
}

#[tokio::test]
async fn no_more_terms_are_kept_of_a_change_than_the_bound_says() {
    on_each(async |rig| {
        rig.accept(event(1, "e1", "{}", &["ship"])).await;
        let claim = rig.claim_one().await;
        let values: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        let terms: Vec<(&str, &str)> = values.iter().map(|value| ("n", value.as_str())).collect();
        rig.record(&claim, vec![with_terms(ignored(), &terms)]).await;
        for (value, found) in [("15", "e1"), ("16", "")] {
            assert_eq!(ids(rig, &by_field("ship", "n", value), None, ALL).await.0, found);
        }
    })
    .await;
}

/// All lines of an export, in pages of about `bytes_max`.
async fn exported(rig: &Rig, query: &Query, bytes_max: usize) -> Vec<String> {
    let (mut lines, mut cursor) = (Vec::new(), None);
    loop {
        let page = rig.store.export(query.clone(), cursor, bytes_max).await.unwrap();
        assert!(!page.lines.is_empty(), "a page brings at least one record");
        lines.extend(page.lines);
        cursor = page.next;
        if cursor.is_none() {
            return lines;
        }
    }
}

fn records(lines: &[String]) -> Vec<Record> {
    lines.iter().map(|line| Record::parse(line).unwrap()).collect()
}

/// Other stores, of other keys, on clocks of their own.
fn others() -> Vec<Rig> {
    let (first, clock) = world(7);
    let memory = Rig { store: Arc::new(MemoryStore::with_backlog(first, BACKLOG)), clock };
    let (world, clock) = world(8);
    let options =
        JournalOptions { segment_bytes: 16 << 10, backlog_max: BACKLOG, ..Default::default() };
    let index: Arc<dyn Index> = Arc::new(UnreliableIndex::new(9));
    let journal = JournalStore::open(Arc::new(MemoryDisk::new()), index, options, world).unwrap();
    vec![memory, Rig { store: Arc::new(journal), clock }]
}

/// Events in every state that one can have.
async fn fill_with_all_states(rig: &Rig) {
    rig.store.revision_put("r1".into(), "steps: [ship]".into()).await.unwrap();
    for number in 1..=6 {
        rig.accept(event(number, &format!("e{number}"), "{}", &["ship"])).await;
    }
    let claims = rig.store.claim(5).await.unwrap();
    let terms = [("order", "7")];
    let done = with_terms(attempted(Some("order-1"), StepStatus::Succeeded), &terms);
    rig.record(&claims[0], vec![intended(Some("order-1")), done]).await;
    let failed =
        rig.record(&claims[1], vec![intended(None), attempted(None, StepStatus::Failed)]).await;
    rig.store.operate(replay(&failed)).await.unwrap();
    rig.record(&claims[2], vec![put_off(start() + Duration::from_secs(60))]).await;
    rig.record(&claims[3], vec![intended(None), attempted(None, StepStatus::Failed)]).await;
    rig.record(&claims[4], vec![ignored()]).await;
    rig.accept(event(7, "e7", "{}", &[])).await;
    let mut malformed = event(8, "e8", "{", &[]);
    malformed.envelope.malformed = Some("no JSON".into());
    rig.accept(malformed).await;
    rig.accept(event(9, "e1", "{}", &["ship"])).await;
    for number in [10, 11] {
        rig.accept(event(number, "e2", &format!("{{\"other\":{number}}}"), &["ship"])).await;
    }
}

#[tokio::test]
async fn what_was_imported_is_what_was_exported() {
    on_each(async |rig| {
        fill_with_all_states(rig).await;
        let query = Query::default();
        let whole = exported(rig, &query, 1 << 20).await;
        let small = exported(rig, &query, 1).await;
        assert_eq!(whole[0], small[0]);
        assert!(Record::parse(&whole[0]).unwrap().is_header());
        assert!(Record::parse(whole.last().unwrap()).unwrap().is_end());
        assert!(whole[1].contains("steps: [ship]"), "before the first that needs it");
        for other in others() {
            let imported = other.store.import(records(&small)).await.unwrap();
            assert_eq!((imported.events, imported.known), (8, 0));
            assert_eq!(imported.records, small.len() as u64);
            for number in 1..=8 {
                let (here, there) = (rig.event(number).await, other.event(number).await);
                assert_eq!(*here.envelope, *there.envelope);
                assert_eq!(
                    (here.duplicates, here.conflict_count, here.conflicts.len()),
                    (there.duplicates, there.conflict_count, there.conflicts.len())
                );
                for (here, there) in here.conflicts.iter().zip(&there.conflicts) {
                    assert_eq!((here.received_at, &here.body), (there.received_at, &there.body));
                }
                assert_eq!(here.deliveries.len(), there.deliveries.len());
                for (here, there) in here.deliveries.iter().zip(&there.deliveries) {
                    assert_eq!((&here.state, &here.entries), (&there.state, &there.entries));
                }
            }
            let text = other.store.revision_get(&"r1".into()).await.unwrap();
            assert_eq!(text.as_deref(), Some("steps: [ship]"));
            let (here, there) = (rig.store.summary().await, other.store.summary().await);
            assert_eq!(
                (here.events, here.queued, here.failed),
                (there.events, there.queued, there.failed)
            );
            assert_eq!(rig.store.causes().await, other.store.causes().await);
            let order = async |rig: &Rig| ids(rig, &query, None, ALL).await.0;
            assert_eq!(order(rig).await, order(&other).await);
            assert_eq!(ids(&other, &by_field("ship", "order", "7"), None, ALL).await.0, "e1");
            // Again: nothing.
            let again = other.store.import(records(&whole)).await.unwrap();
            assert_eq!((again.events, again.known, again.others), (0, 8, 0));
            assert_eq!(other.store.summary().await.events, 8);
        }
    })
    .await;
}

#[tokio::test]
async fn imported_events_go_on_where_they_stood() {
    on_each(async |rig| {
        fill_with_all_states(rig).await;
        let lines = exported(rig, &Query::default(), 4096).await;
        for other in others() {
            other.store.import(records(&lines)).await.unwrap();
            // The replayed one and the one that was never claimed; the retry is not due yet.
            let claims = other.store.claim(10).await.unwrap();
            let numbers: Vec<u128> =
                claims.iter().map(|claim| claim.state.id.uid.0.as_u128()).collect();
            assert_eq!(numbers, [2, 6]);
            assert_eq!(&claims[0].envelope.body[..], b"{}");
            other
                .record(&claims[0], vec![intended(None), attempted(None, StepStatus::Succeeded)])
                .await;
            // Resends are known, another body is a conflict.
            let resent = other.accept(event(20, "e1", "{}", &["ship"])).await;
            assert_eq!(resent, Acceptance::Duplicate { uid: uid(1) });
            let resent = other.accept(event(21, "e3", "{\"b\":1}", &["ship"])).await;
            assert_eq!(resent, Acceptance::Conflict { uid: uid(3) });
            // The explicit key of a finished call is held.
            other.accept(event(22, "e22", "{}", &["ship"])).await;
            let claim = other.claim_one().await;
            let Recorded::KeyHeld(holder) =
                other.try_record(&claim, 0, intended(Some("order-1"))).await
            else {
                panic!("the key is held")
            };
            assert_eq!(
                (holder.delivery, holder.status),
                (delivery(1, "ship"), StepStatus::Succeeded)
            );
            assert_eq!(holder.saved["price"].to_string(), "1.10000000000000000001");
            // What failed comes back by replay, and the retry when it is due.
            let failed = other.state(4).await;
            assert!(matches!(other.store.operate(replay(&failed)).await, Ok(Operated::Done(_))));
            assert_eq!(other.claim_one().await.state.id, delivery(4, "ship"));
            other.clock.advance(Duration::from_secs(60));
            assert_eq!(other.claim_one().await.state.id, delivery(3, "ship"));
        }
    })
    .await;
}

#[tokio::test]
async fn an_import_adds_only_what_is_not_known_and_refuses_what_does_not_fit() {
    on_each(async |rig| {
        fill_with_all_states(rig).await;
        let lines = exported(rig, &Query::default(), 4096).await;
        for other in others() {
            // The same webhook came here, too: under another uid.
            other.accept(event(50, "e2", "{}", &["ship"])).await;
            for number in 51..=148 {
                other.accept(event(number, &format!("x{number}"), "{}", &["ship"])).await;
            }
            let stopped = other.store.import(records(&lines)).await.unwrap_err();
            assert!(matches!(&stopped.error, StoreError::Refusing(why) if why.contains("backlog")));
            // What is finished came in, and one of the live ones found the last place.
            assert_eq!((stopped.so_far.events, stopped.so_far.known), (4, 1));
            let found = other.store.find("e2", None).await.unwrap();
            assert_eq!(found, [uid(50)]);
        }
    })
    .await;
}

#[tokio::test]
async fn an_export_brings_what_is_asked_for() {
    on_each(async |rig| {
        fill_with_all_states(rig).await;
        let exported_ids = async |query: Query| {
            let lines = exported(rig, &query, 4096).await;
            let other = MemoryStore::new(world(3).0);
            other.import(records(&lines)).await.unwrap();
            let query = Query { oldest_first: true, ..Query::default() };
            let page = other.list(query, None, ALL).await.unwrap();
            let ids = page.events.iter().map(|row| row.event_id.to_string());
            ids.collect::<Vec<_>>().join(" ")
        };
        let status = |status| Query { status: Some(status), ..Query::default() };
        assert_eq!(exported_ids(status(EventStatus::Delivery(Status::Failed))).await, "e4 e8");
        assert_eq!(exported_ids(status(EventStatus::Unrouted)).await, "e7");
        let by_route = Query { route: Some("ship".into()), ..Query::default() };
        assert_eq!(exported_ids(by_route).await, "e1 e2 e3 e4 e5 e6");
        assert_eq!(exported_ids(Query { source: Some("x".into()), ..Query::default() }).await, "");
        assert_eq!(exported_ids(Query { until: Some(start()), ..Query::default() }).await, "");
        assert_eq!(
            exported_ids(Query { since: Some(start()), ..Query::default() }).await.len(),
            23
        );
    })
    .await;
}

#[tokio::test]
async fn an_import_survives_a_restart() {
    let lines = {
        let (world, clock) = world(5);
        let source = Rig { store: Arc::new(MemoryStore::with_backlog(world, BACKLOG)), clock };
        fill_with_all_states(&source).await;
        exported(&source, &Query::default(), 4096).await
    };
    let import = async |rig: &Rig| {
        assert_eq!(rig.store.import(records(&lines)).await.unwrap().events, 8);
        for number in 100..=120 {
            rig.accept(event(number, &format!("x{number}"), &"x".repeat(300), &["ship"])).await;
        }
    };
    let check = async |rig: &Rig| {
        let again = rig.store.import(records(&lines)).await.unwrap();
        assert_eq!((again.events, again.known, again.others), (0, 8, 0));
        assert_eq!(rig.event(2).await.deliveries[0].entries.len(), 3);
        assert_eq!(ids(rig, &by_field("ship", "order", "7"), None, ALL).await.0, "e1");
        let resent = rig.accept(event(20, "e1", "{}", &["ship"])).await;
        assert_eq!(resent, Acceptance::Duplicate { uid: uid(1) });
    };
    over_a_restart(import, check).await;
}

/// What another store kept of an expired event, under the key that it hashed with.
fn remembered_elsewhere() -> Vec<String> {
    let hashing = Hashing::new([42; 16]);
    let offered = event(1, "e1", "{}", &[]);
    let envelope = &offered.envelope;
    let identities = offered.identities.iter();
    let claim = KeyClaim { route: "ship".into(), step: "ship".into(), key: "order-1".into() };
    let saved = serde_json::from_str("{\"parcel\":1.10}").unwrap();
    let remembered = Remembered {
        uid: uid(1),
        event_id: "e1".into(),
        source: "shop".into(),
        since: start(),
        identities: identities
            .map(|identity| hashing.wide_identity(&envelope.source, &envelope.path, identity))
            .collect(),
        body_digest: offered.body_digest,
        keys: vec![RememberedKey { key: hashing.wide_key(&claim), route: "ship".into(), saved }],
    };
    let audited =
        Audited { uid: uid(1), event_id: "e1".into(), route: "ship".into(), entry: operated() };
    let header =
        Header { journal: hashing.journal(), at: start(), hashings: vec![hashing.secret()] };
    [
        Content::Header(header),
        Content::Remembered(Box::new(remembered)),
        Content::Audited(Box::new(audited)),
    ]
    .iter()
    .map(line_of)
    .collect()
}

#[tokio::test]
async fn what_outlived_expired_events_elsewhere_is_known_after_an_import() {
    let lines = remembered_elsewhere();
    let import = async |rig: &Rig| {
        let imported = rig.store.import(records(&lines)).await.unwrap();
        assert_eq!((imported.events, imported.others, imported.records), (0, 2, 3));
        for number in 100..=130 {
            rig.accept(event(number, &format!("x{number}"), &"x".repeat(300), &[])).await;
        }
    };
    let check = async |rig: &Rig| {
        let again = rig.store.import(records(&lines)).await.unwrap();
        assert_eq!((again.events, again.known, again.others), (0, 0, 0));
        let resent = rig.accept(event(20, "e1", "{}", &["ship"])).await;
        assert_eq!(resent, Acceptance::Duplicate { uid: uid(1) });
        rig.accept(event(21, "e21", "{}", &["ship"])).await;
        let claim = rig.claim_one().await;
        let Recorded::KeyHeld(holder) = rig.try_record(&claim, 0, intended(Some("order-1"))).await
        else {
            panic!("the key is held")
        };
        assert_eq!((holder.event_id.as_str(), holder.status), ("e1", StepStatus::Succeeded));
        // It goes along when this store is exported in its turn, and is known by a third.
        let onward = exported(rig, &Query::default(), 4096).await;
        for line in &lines[1..] {
            assert!(onward.contains(line), "{line}");
        }
        for third in others() {
            assert_eq!(third.store.import(records(&onward)).await.unwrap().others, 2);
            let resent = third.accept(event(30, "e1", "{}", &["ship"])).await;
            assert_eq!(resent, Acceptance::Duplicate { uid: uid(1) });
        }
    };
    over_a_restart(import, check).await;
}

impl Rig {
    async fn capture(&self, secret: CapturedSecret) -> Capture {
        self.store.capture(secret).await.unwrap()
    }

    async fn drop_secret(&self, source: &str, number: u128) -> bool {
        let dropped = DroppedSecret { id: uid(number), at: start(), actor: "ann".to_owned() };
        self.store.drop_secret(source.into(), dropped).await.unwrap()
    }

    fn captured(&self, source: &str, path: &[(&str, &str)]) -> Vec<String> {
        let path: Vec<(String, String)> =
            path.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let values = self.store.captured(&source.into(), &path);
        values.iter().map(|value| value.expose().to_owned()).collect()
    }
}

const TEAM_A: &[(&str, &str)] = &[("team", "a")];
const TEAM_B: &[(&str, &str)] = &[("team", "b")];

#[tokio::test]
async fn a_captured_secret_is_of_its_source_and_path_until_it_is_dropped() {
    on_each(async |rig| {
        assert!(rig.captured("tasks", TEAM_A).is_empty());
        // The older one comes later to the store.
        for (number, path, value) in
            [(2, TEAM_A, "second"), (1, TEAM_A, "first"), (3, TEAM_B, "third"), (4, &[], "fourth")]
        {
            let kept = rig.capture(captured(number, "tasks", path, value)).await;
            assert_eq!(kept, Capture::Kept(uid(number)));
        }
        assert_eq!(rig.captured("tasks", TEAM_A), ["second", "first"]);
        assert_eq!(rig.captured("tasks", TEAM_B), ["third"]);
        assert_eq!(rig.captured("tasks", &[]), ["fourth"]);
        assert!(rig.captured("others", TEAM_A).is_empty());
        let listed = rig.store.secrets().await.unwrap();
        let ids: Vec<Uid> = listed.iter().map(|secret| secret.id).collect();
        assert_eq!(ids, [4, 3, 2, 1].map(uid));
        assert_eq!(*listed[3], captured(1, "tasks", TEAM_A, "first"));

        assert!(!rig.drop_secret("others", 2).await && !rig.drop_secret("tasks", 7).await);
        assert!(rig.drop_secret("tasks", 2).await && !rig.drop_secret("tasks", 2).await);
        assert_eq!(rig.captured("tasks", TEAM_A), ["first"]);
    })
    .await;
}

#[tokio::test]
async fn the_same_secret_is_kept_once_and_no_source_has_too_many() {
    on_each(async |rig| {
        for number in 0..CAPTURED_MAX as u128 {
            rig.capture(captured(number, "tasks", TEAM_A, &format!("s{number}"))).await;
        }
        let one_more = |path| captured(1000, "tasks", path, "s7");
        assert_eq!(rig.capture(one_more(TEAM_A)).await, Capture::Kept(uid(7)));
        assert_eq!(rig.capture(one_more(TEAM_B)).await, Capture::TooMany);
        let of_another = captured(1001, "others", TEAM_A, "s7");
        assert_eq!(rig.capture(of_another).await, Capture::Kept(uid(1001)));
        rig.drop_secret("tasks", 3).await;
        assert_eq!(rig.capture(one_more(TEAM_B)).await, Capture::Kept(uid(1000)));
    })
    .await;
}

#[tokio::test]
async fn captured_secrets_are_there_after_a_restart_and_dropped_ones_are_not() {
    over_a_restart(
        async |rig| {
            for (number, value) in [(1, "first"), (2, "second"), (3, "third")] {
                rig.capture(captured(number, "tasks", TEAM_A, value)).await;
                // Segments come and go between them.
                for event_number in 0..20 {
                    let number = number * 100 + event_number;
                    rig.accept(event(number, &format!("e{number}"), "{}", &[])).await;
                }
            }
            assert!(rig.drop_secret("tasks", 2).await);
        },
        async |rig| {
            assert_eq!(rig.captured("tasks", TEAM_A), ["third", "first"]);
            let listed = rig.store.secrets().await.unwrap();
            assert_eq!(*listed[1], captured(1, "tasks", TEAM_A, "first"));
            assert!(rig.drop_secret("tasks", 1).await);
        },
    )
    .await;
}

#[tokio::test]
async fn a_closed_store_captures_nothing() {
    on_each(async |rig| {
        rig.store.close().await.unwrap();
        let refused = rig.store.capture(captured(1, "tasks", TEAM_A, "first")).await;
        assert!(matches!(refused, Err(StoreError::Refusing(_))), "{refused:?}");
        assert!(rig.captured("tasks", TEAM_A).is_empty());
    })
    .await;
}
