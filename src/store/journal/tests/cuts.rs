//! Power cuts and kills in the middle of retention and compaction, at every operation of recorded runs.

use super::rig::*;
use super::*;
use crate::store::decide::retention::passed;
use crate::store::index::{MemoryIndex, PageId};
use crate::store::journal::commit::compact::Compacted;
use crate::store::state::rows::RowKind;

const RETAIN: Duration = HOUR;
const DEDUPE: Duration = Duration::from_secs(2 * 60 * 60);

/// What is in an index now.
pub(super) fn copied(index: &MemoryIndex) -> Arc<MemoryIndex> {
    let copy = MemoryIndex::default();
    for group in index.groups().unwrap() {
        let page = |sequence| index.get(PageId { group, sequence }).unwrap();
        let pages: Vec<_> = (0..).map_while(page).collect();
        copy.put(group, &pages).unwrap();
    }
    Arc::new(copy)
}

impl Run {
    pub(super) fn keep_short(self) -> Self {
        self.store.set_retention(kept(RETAIN, DEDUPE, 3 * HOUR));
        self
    }

    /// Takes down what a compaction may take away from now on.
    fn mark_expired(&self) {
        let now = self.clock.now();
        let finished = self.store.shared.peek(|state| {
            let mut finished: Vec<(u128, u32)> = Vec::new();
            for shelf in state.shelves().values() {
                for row in shelf.events.iter().filter(|row| row.kind != RowKind::Gone) {
                    let deliveries = shelf.deliveries_of(row);
                    let done =
                        |status: Status| matches!(status, Status::Succeeded | Status::Ignored);
                    if row.kind != RowKind::Malformed && deliveries.iter().all(|it| done(it.status))
                    {
                        let changed = deliveries.iter().map(|delivery| delivery.changed_s);
                        let since = changed.fold(row.received_s, u32::max);
                        finished.push((row.uid.0.as_u128(), since));
                    }
                }
            }
            finished
        });
        let mut ledger = self.ledger.lock().unwrap();
        let operations = self.disk.operations();
        for (number, since) in finished {
            if passed(since, RETAIN, now) {
                ledger.told.may_go.entry(number).or_insert(operations);
            }
            if passed(since, DEDUPE, now) {
                ledger.told.may_be_unknown.entry(number).or_insert(operations);
            }
        }
    }

    /// Lets time pass, ends a segment, or compacts.
    pub(super) fn grow_older(&mut self, random: &mut StdRng) {
        match random.random_range(0..8) {
            0 => self.clock.advance(Duration::from_secs(random.random_range(60..9_000))),
            1 => {
                self.store.shared.end_old_segment();
                self.commit();
            }
            2..4 => {
                // Most of the work is done at once; what is left must be carried.
                let mut claims = std::mem::take(&mut self.held);
                claims.append(&mut self.ledger.lock().unwrap().claimed);
                claims.extend(self.store.shared.claim(100).unwrap_or_default());
                for claim in claims {
                    match claim.state.id.uid.0.as_u128() % 7 {
                        0 => self.held.push(claim),
                        _ => {
                            let done = attempted(None, StepStatus::Succeeded);
                            self.record(&claim, claim.state.version, done, Durability::Synced);
                        }
                    }
                }
                self.commit();
            }
            _ => {
                for _ in 0..random.random_range(1..5) {
                    self.mark_expired();
                    match self.store.shared.compact_once() {
                        // The disk may have been told to fail.
                        Ok(Compacted::Nothing) | Err(StoreError::Dead(_)) => break,
                        Ok(Compacted::Moved(_) | Compacted::Retired) => {}
                        Err(other) => panic!("{other}"),
                    }
                    self.ledger.lock().unwrap().look(self.disk.operations());
                    while self.store.shared.prepare_once() {}
                    while self.store.shared.seal_once() {}
                }
            }
        }
    }
}

/// The same as [`check`], and whoever comes again is known; then compaction goes on.
fn check_and_go_on(
    disk: &MemoryDisk,
    index: Arc<dyn Index>,
    told: &Told,
    operations: usize,
    context: &str,
) {
    let store = check_with(disk, index, told, operations, context);
    if !operations.is_multiple_of(5) {
        return;
    }
    while store.shared.prepare_once() {}
    let unknown = |number| told.may_be_unknown.get(number).is_some_and(|from| *from <= operations);
    let told_by_now = told.events.iter().filter(|told| told.0 <= operations && told.1 < 1_000_000);
    for (_, number) in told_by_now.filter(|told| !unknown(&told.1)).step_by(operations % 7 + 5) {
        let answer = accept(&store, resent(*number)).unwrap().unwrap();
        assert_eq!(answer, Acceptance::Duplicate { uid: uid(*number) }, "{context}");
    }
    store.set_retention(kept(Duration::ZERO, Duration::ZERO, Duration::ZERO));
    let unfinished = |store: &JournalStore| {
        let mut unfinished: Vec<Uid> = store.shared.peek(|state| {
            let shelves = state.shelves().values();
            let rows = shelves.flat_map(|shelf| shelf.events.iter().map(move |row| (shelf, row)));
            rows.filter(|(shelf, row)| {
                let mut deliveries = shelf.deliveries_of(row).iter();
                row.is_stored()
                    && deliveries.any(|it| !it.status.is_finished() || it.status == Status::Failed)
            })
            .map(|(_, row)| row.uid)
            .collect()
        });
        unfinished.sort_unstable();
        unfinished
    };
    let before = unfinished(&store);
    for _ in 0..10 {
        let done = store.shared.compact_once().unwrap_or_else(|error| panic!("{context}: {error}"));
        if done == Compacted::Nothing {
            break;
        }
        while store.shared.prepare_once() {}
    }
    assert_eq!(unfinished(&store), before, "{context}");
}

#[test]
fn a_power_cut_in_a_compaction_takes_nothing_that_was_acknowledged() {
    let (mut cuts, mut retired) = (0, 0);
    for seed in 0..2 {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = MemoryDisk::new();
        let index = Arc::new(MemoryIndex::default());
        let mut run = Run::start_with(&disk, index.clone(), start(), Told::default()).keep_short();
        let mut next = 0;
        // The index as it was then, which may be older or newer than what a cut leaves of the journal.
        let mut indexes = vec![(0, copied(&index))];
        for round in 0..100 {
            if random.random_bool(0.6) {
                run.act(&mut random, &mut next);
            } else {
                run.grow_older(&mut random);
            }
            if round % 10 == 0 {
                indexes.push((disk.operations(), copied(&index)));
            }
        }
        run.commit();
        retired += run.store.shared.peek(|state| state.retired);
        let told = run.kill();
        assert!(told.events.len() > 10 && !told.versions.is_empty());
        let points: Vec<usize> = (0..=disk.operations()).collect();
        disk.cut_at_each(&points, |point, image| {
            let whole = if point % 2 == 0 { Cut::Nothing } else { Cut::Everything };
            for (cut, nth) in [whole, Cut::Some(point as u64)].into_iter().zip(0..) {
                let near = indexes.iter().rposition(|(taken, _)| *taken <= point).unwrap();
                let index = match (point + nth) % 3 {
                    0 => no_index(),
                    1 => copied(&indexes[near].1),
                    _ => copied(&indexes[(near + 1).min(indexes.len() - 1)].1),
                };
                let context =
                    format!("seed {seed}, after {point}, {cut:?}, index {}", (point + nth) % 3);
                check_and_go_on(&image(cut), index, &told, point, &context);
                cuts += 1;
            }
        });
    }
    assert!(cuts > 500 && retired > 2, "{cuts} cuts, {retired} retired");
}

#[test]
fn killed_in_a_compaction_restarted_and_then_cut() {
    let (mut cuts, mut retired) = (0, 0);
    for seed in 200..202 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut disk = MemoryDisk::new();
        let index = Arc::new(MemoryIndex::default());
        let (mut next, mut told, mut now) = (0, Told::default(), start());
        for _ in 0..4 {
            told.settle();
            let before = copied(&index);
            let mut run = Run::start_with(&disk, index.clone(), now, told).keep_short();
            for _ in 0..12 {
                run.act(&mut random, &mut next);
                run.grow_older(&mut random);
            }
            run.clock.advance(RETAIN);
            run.commit();
            // It ends between a write and its sync, somewhere in a compaction.
            let number = random.random_range(0..4);
            run.disk.inject(Fault { kind: FaultKind::FailedSync, number });
            for _ in 0..10 {
                run.grow_older(&mut random);
            }
            run.commit();
            now = run.clock.now();
            retired += run.store.shared.peek(|state| state.retired);
            told = run.kill();
            let points: Vec<usize> = (0..=disk.operations()).collect();
            disk.cut_at_each(&points, |point, image| {
                let cut = match point % 3 {
                    0 => Cut::Nothing,
                    1 => Cut::Everything,
                    _ => Cut::Some(point as u64),
                };
                let index = match point % 2 {
                    0 => no_index(),
                    _ => copied(&before),
                };
                let context = format!("seed {seed}, after {point}, {cut:?}");
                check_and_go_on(&image(cut), index, &told, point, &context);
                cuts += 1;
            });
            disk = disk.after_kill();
        }
    }
    assert!(cuts > 300 && retired > 6, "{cuts} cuts, {retired} retired");
}

/// The end of a segment is written down, and the process ends before that is synced. The next one sees it, and must not act
/// on it before it is on the medium.
#[test]
fn the_file_of_a_retired_segment_goes_when_that_is_on_the_medium() {
    let mut found = 0;
    for number in 0..8 {
        let mut rig = Rig::on(&MemoryDisk::new());
        rig.accept_number(100);
        rig.record(100, put_off(start() + 1000 * HOUR));
        for number in 1..=8 {
            rig.accept_number(number);
            rig.succeed(number);
        }
        rig.roll();
        rig.pass(HOUR + Duration::from_secs(2));
        rig.memory.inject(Fault { kind: FaultKind::FailedSync, number });
        for _ in 0..20 {
            if !matches!(rig.shared().compact_once(), Ok(Compacted::Moved(_) | Compacted::Retired))
            {
                break;
            }
        }
        let image = rig.memory.after_kill();
        let again = Rig::on(&image);
        found += usize::from(again.shared().peek(|state| state.retired > 0));
        let points: Vec<usize> = (0..=image.operations()).collect();
        image.cut_at_each(&points, |point, cut_to| {
            for cut in [Cut::Nothing, Cut::Everything, Cut::Some(1), Cut::Some(2), Cut::Some(3)] {
                let mut last = Rig::unopened(&cut_to(cut));
                last.try_open()
                    .unwrap_or_else(|error| panic!("{number}, {point}, {cut:?}: {error}"));
                assert_eq!(last.state(100).status, Status::Queued);
                assert_eq!(last.resend(3), Acceptance::Duplicate { uid: uid(3) });
            }
        });
    }
    assert!(found > 1, "{found}");
}
