//! A store without threads on a clock that stands still, driven step by step.

use futures_util::future::BoxFuture;

use super::*;
use crate::delivery::state::DeliveryState;
use crate::store::journal::commit::compact::Compacted;
use crate::store::{Retention, SourceRetention};

pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const ALL: Budget = Budget { rows_max: 10_000, examined_max: 100_000 };

pub(super) fn uid(number: u128) -> Uid {
    Uid(Uuid::from_u128(number))
}

pub(super) fn kept(retain: Duration, dedupe: Duration, audit: Duration) -> Retention {
    Retention { sources: BTreeMap::new(), default: SourceRetention { retain, dedupe }, audit }
}

/// Runs what the threads would run, until nothing is left to do.
pub(super) fn work(store: &JournalStore) {
    while store.shared.commit_once() == Turn::Worked {
        while store.shared.prepare_once() {}
        while store.shared.seal_once() {}
    }
}

/// What `asked` comes to.
pub(super) fn drive<T>(store: &JournalStore, mut asked: BoxFuture<'_, T>) -> T {
    if let Some(answer) = (&mut asked).now_or_never() {
        return answer;
    }
    work(store);
    asked.now_or_never().expect("it is answered once all is written")
}

pub(super) struct Rig {
    /// What is beneath `disk`.
    pub(super) memory: MemoryDisk,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) index: Arc<dyn Index>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) options: JournalOptions,
    pub(super) retention: Retention,
    store: Option<JournalStore>,
    claims: BTreeMap<u128, Claim>,
    starts: u64,
}

impl Rig {
    pub(super) fn new(memory: &MemoryDisk, index: Arc<dyn Index>) -> Self {
        Self::through(memory, Arc::new(memory.clone()), index)
    }

    pub(super) fn through(memory: &MemoryDisk, disk: Arc<dyn Disk>, index: Arc<dyn Index>) -> Self {
        let mut rig = Self::unopened(memory);
        (rig.disk, rig.index) = (disk, index);
        rig.open();
        rig
    }

    pub(super) fn unopened(memory: &MemoryDisk) -> Self {
        // A segment is old enough to be ended whenever it is asked for.
        let options = JournalOptions { segment_age_max: Duration::ZERO, ..small() };
        Self {
            memory: memory.clone(),
            disk: Arc::new(memory.clone()),
            index: no_index(),
            clock: Arc::new(ManualClock::at(start())),
            options,
            retention: kept(HOUR, 2 * HOUR, 3 * HOUR),
            store: None,
            claims: BTreeMap::new(),
            starts: 0,
        }
    }

    pub(super) fn on(disk: &MemoryDisk) -> Self {
        Self::new(disk, no_index())
    }

    /// Another process on what this one would leave behind if it were killed now.
    pub(super) fn after_kill(&self, index: Arc<dyn Index>) -> Self {
        let memory = self.memory.after_kill();
        let mut other = Self {
            disk: Arc::new(memory.clone()),
            memory,
            index,
            clock: Arc::new(ManualClock::at(self.now())),
            options: self.options.clone(),
            retention: self.retention.clone(),
            store: None,
            claims: BTreeMap::new(),
            starts: 100,
        };
        other.open();
        other
    }

    /// The next key that is drawn is another one.
    pub(super) fn skip_starts(&mut self, count: u64) {
        self.starts += count;
    }

    pub(super) fn try_open(&mut self) -> Result<(), OpenError> {
        drop(self.store.take());
        self.claims.clear();
        self.starts += 1;
        let (mut world, _) = world(self.starts);
        world.clock = self.clock.clone();
        let (disk, index) = (self.disk.clone(), self.index.clone());
        let store = JournalStore::open_unstarted(disk, index, self.options.clone(), world)?;
        store.set_retention(self.retention.clone());
        while store.shared.prepare_once() {}
        self.store = Some(store);
        Ok(())
    }

    pub(super) fn open(&mut self) {
        self.try_open().unwrap_or_else(|error| panic!("{error}"));
    }

    pub(super) fn keep(&mut self, retention: Retention) {
        self.store().set_retention(retention.clone());
        self.retention = retention;
    }

    pub(super) fn store(&self) -> &JournalStore {
        self.store.as_ref().expect("it is open")
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.store().shared
    }

    pub(super) fn try_store(&self) -> Option<&JournalStore> {
        self.store.as_ref()
    }

    /// The process is killed, and its index with it.
    pub(super) fn end(&mut self) {
        drop(self.store.take());
        self.index = no_index();
    }

    pub(super) fn shared_arc(&self) -> Arc<Shared> {
        self.store().shared.clone()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn close(&mut self) {
        drive(self.store(), self.store().close()).unwrap();
        drop(self.store.take());
    }

    pub(super) fn accept(&self, mut event: NewEvent) -> Acceptance {
        event.envelope.received_at = self.now();
        accept(self.store(), event).expect("it is answered").unwrap()
    }

    /// The `number`-th event, with an id of its own.
    pub(super) fn accept_number(&self, number: u128) {
        let body = "x".repeat(200 + (number * 37 % 100) as usize);
        let answer = self.accept(event(number, &format!("e{number}"), &body, &["ship"]));
        assert_eq!(answer, Acceptance::Accepted { uid: uid(number) });
    }

    /// The `number`-th again, under the uid of its own arrival.
    pub(super) fn resend(&self, number: u128) -> Acceptance {
        let body = "x".repeat(200 + (number * 37 % 100) as usize);
        self.accept(event(number + 1_000_000, &format!("e{number}"), &body, &["ship"]))
    }

    /// The claim of this event's delivery; all that is due is claimed with it.
    pub(super) fn claim(&mut self, number: u128) -> Claim {
        if !self.claims.contains_key(&number) {
            let claims = self.shared().claim(1000).unwrap();
            self.claims
                .extend(claims.into_iter().map(|claim| (claim.state.id.uid.0.as_u128(), claim)));
        }
        self.claims[&number].clone()
    }

    pub(super) fn is_due(&mut self, number: u128) -> bool {
        let claims = self.shared().claim(1000).unwrap();
        let mut due = false;
        for claim in claims {
            let claimed = claim.state.id.uid.0.as_u128();
            due |= claimed == number;
            self.claims.insert(claimed, claim);
        }
        due
    }

    pub(super) fn state(&self, number: u128) -> DeliveryState {
        self.view(number).expect("it is there").deliveries.remove(0).state
    }

    pub(super) fn view(&self, number: u128) -> Option<EventView> {
        drive(self.store(), self.store().event(uid(number))).unwrap()
    }

    pub(super) fn try_record(&mut self, number: u128, mut change: Change) -> Recorded {
        let claim = self.claim(number);
        change.entry.at = self.now();
        let version = self.state(number).version;
        let id = claim.state.id.clone();
        let store = self.store();
        drive(store, store.record(&id, claim.fence, version, change, Durability::Synced)).unwrap()
    }

    pub(super) fn record(&mut self, number: u128, change: Change) -> DeliveryState {
        match self.try_record(number, change) {
            Recorded::Recorded(state) => {
                if state.status != Status::Processing {
                    self.claims.remove(&number);
                }
                state
            }
            other => panic!("not recorded: {other:?}"),
        }
    }

    pub(super) fn succeed(&mut self, number: u128) {
        self.record(number, attempted(None, StepStatus::Succeeded));
    }

    pub(super) fn operate(&mut self, number: u128) {
        let mut operation = replay(&self.state(number));
        operation.change.entry.at = self.now();
        operation.change.transition.due_at = Some(self.now());
        let done = drive(self.store(), self.store().operate(operation)).unwrap();
        assert!(matches!(done, Operated::Done(_)), "{done:?}");
        self.claims.remove(&number);
    }

    /// Ends the active segment, and has its pages derived.
    pub(super) fn roll(&self) {
        self.shared().end_old_segment();
        work(self.store());
        while self.shared().prepare_once() {}
    }

    /// Everything that compaction does now. Answers how many segments went.
    pub(super) fn compact(&self) -> usize {
        let mut retired = 0;
        loop {
            match self.shared().compact_once().unwrap() {
                Compacted::Nothing => return retired,
                Compacted::Moved(_) => while self.shared().prepare_once() {},
                Compacted::Retired => retired += 1,
            }
            work(self.store());
        }
    }

    /// The active segment ends, and all that can go goes; once more for what that brought. What waits for something moves
    /// at each call.
    pub(super) fn compact_all(&self) -> usize {
        let mut retired = 0;
        for _ in 0..2 {
            self.roll();
            retired += self.compact();
        }
        retired
    }

    pub(super) fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    pub(super) fn find(&self, id: &str) -> Vec<Uid> {
        drive(self.store(), self.store().find(id, None)).unwrap()
    }

    pub(super) fn listed(&self, query: Query) -> Vec<String> {
        let page = drive(self.store(), self.store().list(query, None, ALL)).unwrap();
        page.events.iter().map(|row| row.event_id.to_string()).collect()
    }

    pub(super) fn events(&self) -> u64 {
        drive(self.store(), self.store().summary()).events
    }

    pub(super) fn segments(&self) -> Vec<u64> {
        let names = self.disk.list().unwrap();
        names.iter().filter_map(|name| segment::number(name)).collect()
    }
}
