//! Damage of every kind: it is named, nothing is changed by looking, and after the repair the store opens with all that
//! still proves itself, and says what is lost.

use std::collections::BTreeSet;

use super::*;
use crate::store::index::{Group, Index, MemoryIndex, PAGE_BYTES_MAX, PageId, PageKind};
use crate::store::journal::doctor::{self, Report};
use crate::store::state::damage::CAUSE;

pub(super) fn examine(disk: &MemoryDisk, index: Option<&Arc<MemoryIndex>>) -> Report {
    let before = disk.operations();
    let folder: Arc<dyn Disk> = Arc::new(disk.clone());
    let index = index.map(|index| index.clone() as Arc<dyn Index>);
    let report = doctor::examine(&folder, index, &world(1).0, &|_, _| {}).unwrap();
    assert_eq!(disk.operations(), before, "an examination changes nothing");
    report
}

pub(super) fn repair(disk: &MemoryDisk, index: Option<&Arc<MemoryIndex>>) -> (Report, bool) {
    let folder: Arc<dyn Disk> = Arc::new(disk.clone());
    let index = index.map(|index| index.clone() as Arc<dyn Index>);
    let stale = std::cell::Cell::new(false);
    let aside = || {
        stale.set(true);
        Ok(())
    };
    let report = doctor::repair(&folder, index, &world(1).0, &|_, _| {}, &aside).unwrap();
    (report, stale.get())
}

fn open(disk: &MemoryDisk, index: &Arc<MemoryIndex>) -> JournalStore {
    let folder = Arc::new(disk.clone());
    let store = JournalStore::open_unstarted(folder, index.clone(), small(), world(1).0);
    let store = store.unwrap_or_else(|error| panic!("{error}"));
    while store.shared.prepare_once() {}
    store
}

fn record(store: &JournalStore, claim: &Claim, version: u64, change: Change) {
    let id = claim.state.id.clone();
    let mut answer = store.record(&id, claim.fence, version, change, Durability::Synced);
    assert!((&mut answer).now_or_never().is_none());
    while store.shared.commit_once() == Turn::Worked {
        while store.shared.prepare_once() {}
        while store.shared.seal_once() {}
    }
    assert!(matches!(answer.now_or_never(), Some(Ok(Recorded::Recorded(_)))));
}

/// Events `from..to`, and three changes of each: their facts stand in several segments.
fn work(store: &JournalStore, from: u128, to: u128) {
    for number in from..to {
        let offered = event(number, &format!("e{number}"), &"x".repeat(500), &["ship"]);
        assert!(matches!(accept(store, offered), Some(Ok(Acceptance::Accepted { .. }))));
    }
    let claims = store.shared.claim(100).unwrap();
    for claim in &claims {
        record(store, claim, 0, intended(None));
    }
    for claim in &claims {
        match claim.state.id.uid.0.as_u128() % 3 {
            0 => record(store, claim, 1, attempted(None, StepStatus::Failed)),
            _ => record(store, claim, 1, attempted(None, StepStatus::Succeeded)),
        }
    }
}

/// A journal of several segments that ended cleanly, and its index.
fn worked() -> (MemoryDisk, Arc<MemoryIndex>) {
    let (disk, index) = (MemoryDisk::new(), Arc::new(MemoryIndex::default()));
    let store = open(&disk, &index);
    work(&store, 1, 25);
    work(&store, 25, 40);
    close(&store);
    drop(store);
    (disk.after_kill(), index)
}

/// Segments in which something stands.
fn written(disk: &MemoryDisk) -> Vec<String> {
    let names = segments(disk).into_iter();
    names.filter(|name| used_bytes(disk, name) > 0).collect()
}

fn view(store: &JournalStore, number: u128) -> Option<EventView> {
    store.event(Uid(Uuid::from_u128(number))).now_or_never().unwrap().unwrap()
}

/// What is there after a repair: all of it whole; what is not there was listed.
fn check_opens(disk: &MemoryDisk, report: &Report, context: &str) {
    let store = open(&disk.after_kill(), &Arc::default());
    let lost: BTreeSet<Uid> = report.loss.events.iter().map(|event| event.uid).collect();
    let gaps: Vec<_> = report.loss.gaps.iter().map(|gap| gap.delivery.uid).collect();
    let unsure: Vec<_> = report.loss.unsure.iter().map(|delivery| delivery.uid).collect();
    for number in 1..40 {
        let uid = Uid(Uuid::from_u128(number));
        let Some(view) = view(&store, number) else {
            assert!(lost.contains(&uid), "{context}: event {number} is lost without a word");
            continue;
        };
        assert!(!lost.contains(&uid), "{context}: {number}");
        let state = &view.deliveries[0].state;
        let finished = match number % 3 {
            0 => Status::Failed,
            _ => Status::Succeeded,
        };
        let whole = state.version == 2 && state.status == finished;
        let told = gaps.contains(&uid) || unsure.contains(&uid);
        assert!(whole || told, "{context}: {number} went back to {} without a word", state.version);
    }
    let events = store.summary().now_or_never().unwrap().events;
    assert_eq!(events as usize, 39 - lost.len(), "{context}");
    // It goes on.
    let again = event(77, "e77", "{}", &["ship"]);
    assert!(matches!(accept(&store, again), Some(Ok(Acceptance::Accepted { .. }))));
    close(&store);
    drop(store);
    let clean = examine(disk, None);
    assert!(clean.is_clean() && clean.loss.is_empty(), "{context}: {clean:#?}");
}

#[test]
fn a_sound_folder_is_clean_and_so_is_an_empty_one() {
    let (disk, index) = worked();
    let report = examine(&disk, Some(&index));
    assert!(report.is_clean() && report.notes.is_empty() && !report.in_use, "{report:#?}");
    assert_eq!(report.events, 39);
    assert!(report.segments > 4);
    assert!(examine(&MemoryDisk::new(), None).is_clean());
    // Killed is not damaged.
    let store = open(&disk, &index);
    work(&store, 50, 60);
    drop(store);
    let report = examine(&disk.after_kill(), Some(&index));
    assert!(report.is_clean(), "{report:#?}");
}

#[test]
fn wherever_a_bit_flips_it_is_named_and_the_repair_keeps_all_else() {
    let (disk, index) = worked();
    let names = written(&disk);
    let mut random = StdRng::seed_from_u64(11);
    let (mut kept, mut gaps) = (0, 0);
    for round in 0..80 {
        let damaged = disk.after_kill();
        let name = &names[random.random_range(0..names.len() - 1)];
        let offset = random.random_range(0..used_bytes(&damaged, name));
        damaged.damage(name, offset, 1 << random.random_range(0..8));
        let context = format!("round {round}, {name} at {offset}");
        let report = examine(&damaged, Some(&index));
        let finding = report.findings.first().unwrap_or_else(|| panic!("{context}: not seen"));
        assert_eq!((&finding.file, finding.segment), (name, segment::number(name)), "{context}");
        assert!(finding.offset.is_some_and(|at| at <= offset), "{context}");
        assert!(finding.repair.as_ref().is_some_and(|it| it.contains("quarantine/")), "{context}");
        let (repaired, stale) = repair(&damaged, Some(&index));
        assert!(stale && !repaired.repaired.is_empty(), "{context}");
        assert_eq!(repaired.loss, report.loss, "{context}");
        assert!(report.loss.events.iter().all(|event| event.event_id.is_some()), "{context}");
        kept += usize::from(report.loss.is_empty());
        gaps += report.loss.gaps.len();
        let aside = name.replace("journal/", "quarantine/");
        assert!(damaged.list().unwrap().contains(&aside), "{context}");
        assert!(damaged.list().unwrap().contains(&format!("{aside}.report.json")), "{context}");
        check_opens(&damaged, &report, &context);
    }
    assert!(kept > 0 && gaps > 0, "both kinds of damage were tried: {kept}, {gaps}");
}

#[test]
fn several_places_and_whole_stretches_may_be_gone() {
    let (disk, index) = worked();
    let names = written(&disk);
    let mut random = StdRng::seed_from_u64(5);
    for round in 0..40 {
        let damaged = disk.after_kill();
        for _ in 0..random.random_range(1..4) {
            let name = &names[random.random_range(0..names.len() - 1)];
            let used = used_bytes(&damaged, name);
            let file = damaged.open(name).unwrap();
            match random.random_range(0..3) {
                0 => file.truncate(random.random_range(0..used)).unwrap(),
                kind => {
                    let from = random.random_range(0..used);
                    let length = random.random_range(1..3000).min(used - from);
                    let fill = if kind == 1 { 0 } else { 0xa5 };
                    file.write_at(from, &vec![fill; length as usize]).unwrap();
                }
            }
        }
        let context = format!("round {round}");
        let report = examine(&damaged, Some(&index));
        let all = report.findings.iter();
        assert!(
            !report.is_clean() && all.clone().all(|it| it.repair.is_some()),
            "{context}: {report:#?}"
        );
        repair(&damaged, Some(&index));
        check_opens(&damaged, &report, &context);
    }
}

#[test]
fn a_missing_segment_is_named_and_a_place_is_made_for_what_is_lost() {
    let (disk, index) = worked();
    for gone in 1..written(&disk).len() as u64 {
        let damaged = disk.after_kill();
        damaged.remove(&segment::name(gone)).unwrap();
        let missing = driven(&damaged.after_kill(), small()).map(drop).unwrap_err();
        assert!(missing.to_string().contains("router doctor --repair"), "{missing}");
        let report = examine(&damaged, Some(&index));
        let [finding] = &report.findings[..] else { panic!("{report:#?}") };
        assert_eq!(finding.segment, Some(gone));
        assert!(finding.what.contains("missing"));
        repair(&damaged, Some(&index));
        check_opens(&damaged, &report, &format!("without segment {gone}"));
    }
}

#[test]
fn a_batch_that_is_damaged_in_one_frame_keeps_the_others() {
    let disk = MemoryDisk::new();
    let store = driven(&disk, small()).unwrap();
    let offers: Vec<_> = (1..=4)
        .map(|number| {
            let (reply, answer) = oneshot::channel();
            let permit = store.ingest.clone().try_acquire_many_owned(1).unwrap();
            let events = vec![event(number, &format!("e{number}"), "{}", &["ship"])];
            store.shared.enqueue(Request::Accept { events, permit, reply });
            answer
        })
        .collect();
    while store.shared.commit_once() == Turn::Worked {}
    assert!(offers.into_iter().all(|mut answer| matches!(answer.try_recv(), Ok(Ok(_)))));
    close(&store);
    drop(store);
    let mut bytes = vec![0; 4000];
    disk.open(&segment::name(1)).unwrap().read_at(0, &mut bytes).unwrap();
    let second = bytes.windows(2).position(|window| window == b"e2").unwrap();
    disk.damage(&segment::name(1), second as u64, 4);
    let report = examine(&disk, None);
    assert_eq!(report.findings.len(), 1);
    assert!(report.findings[0].means.contains("3 facts"), "{report:#?}");
    assert_eq!(report.loss.facts, 1);
    repair(&disk, None);
    let store = driven(&disk.after_kill(), small()).unwrap();
    let there: Vec<bool> = (1..=4).map(|number| view(&store, number).is_some()).collect();
    assert_eq!(there, [true, false, true, true]);
}

/// Its intent and outcome are gone, and what came after them is not.
#[test]
fn a_delivery_that_lost_what_it_did_waits_for_a_person() {
    let disk = MemoryDisk::new();
    let store = driven(&disk, small()).unwrap();
    assert!(matches!(accept(&store, event(1, "e1", "{}", &["ship"])), Some(Ok(_))));
    let claim = store.shared.claim(1).unwrap().remove(0);
    record(&store, &claim, 0, intended(None));
    let mut bytes = vec![0; 8000];
    disk.open(&segment::name(1)).unwrap().read_at(0, &mut bytes).unwrap();
    let intent = bytes.windows(2).rposition(|window| window == b"d1").unwrap();
    record(&store, &claim, 1, put_off(start()));
    close(&store);
    drop(store);
    disk.damage(&segment::name(1), intent as u64, 1);
    let report = examine(&disk, None);
    let [gap] = &report.loss.gaps[..] else { panic!("{report:#?}") };
    assert_eq!((gap.event_id.as_str(), gap.status), ("e1", Status::Failed));
    repair(&disk, None);
    let store = driven(&disk.after_kill(), small()).unwrap();
    assert!(store.shared.claim(1).unwrap().is_empty());
    let delivery = view(&store, 1).unwrap().deliveries.remove(0);
    assert_eq!(delivery.state.status, Status::Failed);
    assert_eq!(delivery.state.reason.clone().unwrap().cause, CAUSE);
    assert_eq!(delivery.entries.len(), 2, "what is known, and the repair: {delivery:#?}");
    // And goes on when one says so.
    let mut answer = store.operate(replay(&delivery.state));
    assert!((&mut answer).now_or_never().is_none());
    while store.shared.commit_once() == Turn::Worked {}
    assert!(matches!(answer.now_or_never(), Some(Ok(Operated::Done(_)))));
    assert_eq!(store.shared.claim(1).unwrap().len(), 1);
}

#[test]
fn a_torn_tail_is_cut() {
    let disk = MemoryDisk::new();
    drop(filled(&disk, 3));
    let torn = disk.after_kill();
    let used = used_bytes(&torn, &segment::name(1));
    torn.open(&segment::name(1)).unwrap().write_at(used, b"RTRJ half a batch").unwrap();
    let report = examine(&torn, None);
    let [finding] = &report.findings[..] else { panic!("{report:#?}") };
    assert_eq!((finding.segment, finding.offset), (Some(1), Some(used)));
    assert!(finding.what.contains("torn"));
    let (report, _) = repair(&torn, None);
    assert_eq!(report.repaired.len(), 1);
    assert!(examine(&torn, None).is_clean());
    assert_eq!(driven(&torn, small()).unwrap().summary().now_or_never().unwrap().events, 3);
}

#[test]
fn beside_a_running_router_it_says_so_and_repairs_nothing() {
    let disk = MemoryDisk::new();
    let store = filled(&disk, 20);
    let report = examine(&disk, None);
    assert!(report.is_clean() && report.in_use);
    assert!(report.notes[0].contains("a router holds the folder"));
    let folder: Arc<dyn Disk> = Arc::new(disk.clone());
    let refused = doctor::repair(&folder, None, &world(1).0, &|_, _| {}, &|| Ok(()));
    assert!(matches!(refused, Err(OpenError::Locked { .. })));
    drop(store);
}

#[test]
fn a_missing_key_and_a_newer_format_are_named_and_left_alone() {
    let (disk, _) = worked();
    let keyless = disk.after_kill();
    keyless.remove("key").unwrap();
    let report = examine(&keyless, None);
    assert_eq!((report.findings[0].file.as_str(), &report.findings[0].repair), ("key", &None));
    let before = keyless.operations();
    assert!(!repair(&keyless, None).0.is_clean());
    assert_eq!(keyless.operations(), before);
}

#[test]
fn the_index_is_compared_page_by_page() {
    let (disk, index) = worked();
    let copy = || {
        let copy = MemoryIndex::default();
        for group in index.groups().unwrap() {
            let pages = (0..).map_while(|sequence| index.get(PageId { group, sequence }).unwrap());
            copy.put(group, &pages.collect::<Vec<_>>()).unwrap();
        }
        Arc::new(copy)
    };
    let garbage = [bytes::Bytes::from(vec![1; PAGE_BYTES_MAX])];
    let all = index.groups().unwrap();
    let of = |kind| *all.iter().find(|group| group.kind == kind).unwrap();
    for kind in [PageKind::Terms, PageKind::Summaries, PageKind::Identities, PageKind::Rows] {
        for wrong in [&garbage[..], &[]] {
            let index = copy();
            match wrong {
                [] => index.remove(of(kind)).unwrap(),
                wrong => index.put(of(kind), wrong).unwrap(),
            }
            let report = examine(&disk, Some(&index));
            assert!(!report.is_clean(), "{kind:?}");
            assert!(report.findings.iter().all(|finding| finding.file == "sled"), "{report:#?}");
            let (_, stale) = repair(&disk.after_kill(), Some(&index));
            assert!(stale, "{kind:?}");
        }
    }
    // The checkpoint of another state that proves itself.
    let (other, others) = worked();
    let store = open(&other, &others);
    work(&store, 60, 70);
    close(&store);
    drop(store);
    let report = examine(&disk, Some(&others));
    assert!(report.findings.iter().any(|finding| finding.file == "sled"), "{report:#?}");
    // What is of segments that are gone is no fault.
    let index = copy();
    let gone = Group { segment: 99, ..of(PageKind::Terms) };
    index.put(gone, &garbage).unwrap();
    let report = examine(&disk, Some(&index));
    assert!(report.is_clean() && report.notes[0].contains("that are gone"), "{report:#?}");
}

#[test]
fn a_repair_that_is_cut_off_anywhere_can_be_made_again() {
    let (disk, index) = worked();
    let damaged = disk.after_kill();
    // In the middle, so that deliveries have facts before and after.
    let name = segment::name(3);
    let used = used_bytes(&damaged, &name);
    damaged.open(&name).unwrap().write_at(used / 4, &vec![7; used as usize / 2]).unwrap();
    let damaged = damaged.after_kill();
    let report = examine(&damaged, Some(&index));
    assert!(!report.loss.gaps.is_empty(), "{report:#?}");
    repair(&damaged, Some(&index));
    let points: Vec<usize> = (0..=damaged.operations()).collect();
    damaged.cut_at_each(&points, |point, image| {
        for cut in [Cut::Nothing, Cut::Everything, Cut::Some(1), Cut::Some(2)] {
            let context = format!("after {point}, {cut:?}");
            let disk = image(cut);
            let again = examine(&disk, Some(&index));
            if !again.is_clean() {
                repair(&disk, Some(&index));
            }
            // What an earlier part of the repair listed stays listed in its report.
            check_opens(&disk, &report, &context);
        }
    });
}

/// What a start goes on from must count as the journal does, or the next start without an index cannot read it.
#[test]
fn an_index_that_is_lost_after_a_clean_end_and_another_start_costs_nothing() {
    let (disk, index) = worked();
    let store = open(&disk, &index);
    work(&store, 40, 45);
    close(&store);
    drop(store);
    let store = open(&disk.after_kill(), &Arc::default());
    assert_eq!(store.summary().now_or_never().unwrap().events, 44);
}
