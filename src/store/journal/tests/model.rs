//! Random work on a store, with restarts, retention, replays and explicit keys, agrees with a small model of it.

use super::cuts::copied;
use super::rig::*;
use super::*;
use crate::store::index::MemoryIndex;
use crate::store::journal::commit::compact::Compacted;

const RETAIN: Duration = HOUR;
const DEDUPE: Duration = Duration::from_secs(3 * 60 * 60);

struct Known {
    version: u64,
    status: Status,
    changed: Timestamp,
    duplicates: u64,
}

impl Known {
    /// It may have expired after that time.
    fn may_be_gone(&self, time: Duration, now: Timestamp) -> bool {
        let finished = matches!(self.status, Status::Succeeded | Status::Ignored);
        finished && self.changed + time < now
    }
}

#[derive(Default)]
struct Model {
    events: BTreeMap<u128, Known>,
    /// Who holds a key: the delivery of this event.
    keys: BTreeMap<String, u128>,
}

impl Model {
    fn check(&self, rig: &Rig, number: u128, context: &str) {
        let known = &self.events[&number];
        let Some(view) = rig.view(number) else {
            assert!(known.may_be_gone(RETAIN, rig.now()), "{context}: {number} is lost");
            return;
        };
        let state = &view.deliveries[0].state;
        let status = match state.status {
            Status::Processing => Status::Queued,
            status => status,
        };
        assert_eq!((state.version, status), (known.version, known.status), "{context}: {number}");
        assert_eq!(view.deliveries[0].entries.len() as u64, known.version, "{context}: {number}");
        assert_eq!(view.duplicates, known.duplicates, "{context}: {number}");
        assert_eq!(rig.find(&format!("e{number}")), [uid(number)], "{context}");
    }

    fn check_all(&self, rig: &Rig, context: &str) {
        for number in self.events.keys() {
            self.check(rig, *number, context);
        }
        let summary = drive(rig.store(), rig.store().summary());
        let count = |wanted: Status| {
            self.events.values().filter(|known| known.status == wanted).count() as u64
        };
        assert_eq!(summary.queued + summary.processing, count(Status::Queued), "{context}");
        assert_eq!(summary.failed, count(Status::Failed), "{context}");
        let listed = rig.listed(Query::default());
        assert_eq!(summary.events as usize, listed.len(), "{context}");
        let causes = drive(rig.store(), rig.store().causes());
        assert_eq!(causes.iter().map(|it| it.count).sum::<u64>(), summary.failed, "{context}");
    }

    fn changed(&mut self, number: u128, now: Timestamp, versions: u64, status: Status) {
        let known = self.events.get_mut(&number).unwrap();
        known.version += versions;
        (known.status, known.changed) = (status, now);
    }

    /// A worker carries out what is due of one event.
    fn carry_out(&mut self, rig: &mut Rig, random: &mut StdRng, context: &str) {
        let queued = self.events.iter().filter(|(_, known)| known.status == Status::Queued);
        let queued: Vec<u128> = queued.map(|(number, _)| *number).collect();
        if queued.is_empty() {
            return;
        }
        let number = queued[random.random_range(0..queued.len())];
        let now = rig.now();
        let key = random.random_bool(0.4).then(|| format!("key-{}", random.random_range(0..4)));
        if let Some(key) = &key {
            let holder = self.keys.get(key).copied().filter(|holder| *holder != number);
            let told = rig.try_record(number, intended(Some(key)));
            match (told, holder) {
                (Recorded::KeyHeld(told), Some(holder)) => {
                    assert_eq!(told.delivery, delivery(holder, "ship"), "{context}");
                    let done = self.events[&holder].status == Status::Succeeded;
                    assert_eq!(told.status == StepStatus::Succeeded, done, "{context}");
                    assert_eq!(told.saved.contains_key("label"), done, "{context}");
                    rig.record(number, ignored());
                    self.changed(number, now, 1, Status::Ignored);
                    return;
                }
                (Recorded::Recorded(_), holder) => {
                    if let Some(holder) = holder {
                        let known = &self.events[&holder];
                        assert!(known.may_be_gone(DEDUPE, now), "{context}: {key} was held");
                    }
                    self.keys.insert(key.clone(), number);
                    self.changed(number, now, 1, Status::Queued);
                }
                (other, holder) => panic!("{context}: {other:?} of {key}, {holder:?}"),
            }
        }
        let ended = match random.random_range(0..6) {
            0 => StepStatus::Failed,
            _ => StepStatus::Succeeded,
        };
        // An explicit key is its step's for good.
        let held = self.keys.iter().find(|(_, holder)| **holder == number);
        let key = key.or_else(|| held.map(|(key, _)| key.clone()));
        rig.record(number, attempted(key.as_deref(), ended));
        let status = if ended == StepStatus::Failed { Status::Failed } else { Status::Succeeded };
        self.changed(number, now, 1, status);
    }
}

#[test]
fn random_work_with_retention_agrees_with_a_model() {
    let mut retired = 0;
    for seed in 0..10 {
        let mut random = StdRng::seed_from_u64(seed);
        let index = Arc::new(MemoryIndex::default());
        let mut rig = Rig::new(&MemoryDisk::new(), index.clone());
        rig.keep(kept(RETAIN, DEDUPE, HOUR));
        let mut older = vec![copied(&index)];
        let mut model = Model::default();
        let mut next = 0;
        for step in 0..220 {
            let context = format!("seed {seed}, step {step}");
            match random.random_range(0..22) {
                0..7 => {
                    next += 1;
                    rig.accept_number(next);
                    let (version, status, duplicates) = (0, Status::Queued, 0);
                    let changed = rig.now();
                    model.events.insert(next, Known { version, status, changed, duplicates });
                }
                7..14 => model.carry_out(&mut rig, &mut random, &context),
                14 if next > 0 => {
                    let number = random.random_range(1..=next);
                    let now = rig.now();
                    let known = model.events.get_mut(&number).unwrap();
                    if !known.may_be_gone(DEDUPE, now) {
                        let answer = rig.resend(number);
                        assert_eq!(answer, Acceptance::Duplicate { uid: uid(number) }, "{context}");
                        known.duplicates += 1;
                    }
                }
                15 => {
                    let failed = model.events.iter().find(|it| it.1.status == Status::Failed);
                    if let Some((number, _)) = failed {
                        let number = *number;
                        rig.operate(number);
                        model.changed(number, rig.now(), 1, Status::Queued);
                    }
                }
                16 => rig.pass(Duration::from_secs(random.random_range(60..7_000))),
                17 => rig.roll(),
                18..20 => {
                    let steps = random.random_range(1..8);
                    for _ in 0..steps {
                        if let Ok(Compacted::Retired) = rig.shared().compact_once() {
                            retired += 1;
                        }
                        work(rig.store());
                        while rig.shared().prepare_once() {}
                    }
                }
                20 if random.random_bool(0.5) => {
                    if random.random_bool(0.5) {
                        rig.close();
                    } else {
                        rig.end();
                    }
                    rig.index = match random.random_range(0..4) {
                        0 => no_index(),
                        1 => older[random.random_range(0..older.len())].clone(),
                        2 => Arc::new(UnreliableIndex::new(seed)),
                        _ => index.clone(),
                    };
                    rig.open();
                    older.push(copied(&index));
                    model.check_all(&rig, &context);
                }
                _ => {
                    if next > 0 {
                        model.check(&rig, random.random_range(1..=next), &context);
                    }
                }
            }
        }
        model.check_all(&rig, &format!("seed {seed}, at the end"));
    }
    assert!(retired > 20, "{retired}");
}
