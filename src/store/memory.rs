//! A store that forgets: the same decisions and the same state as the journal's, with its facts in a list. For tests
//! and trials; nothing survives the process.

use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::captured::{Capture, CapturedSecret, DroppedSecret};
use super::decide::{self, Decision};
use super::export;
use super::fact::{Fact, Position, ReadFacts, envelope_at};
use super::hashing::Hashing;
use super::page::{About, Place};
use super::portable::{ExportCursor, ExportPage, ImportStopped, Imported, Record};
use super::state::due::Held;
use super::state::{Moment, State};
use super::view::{self, Outline, Peek, ReadPages};
use super::{
    Acceptance, Budget, CauseCount, Change, Claim, Durability, EventView, Fence, NewDelivery,
    NewEvent, Operated, Operation, Page, Query, Readiness, Recorded, Store, StoreError, Summary,
};
use crate::delivery::state::Entry;
use crate::name::{DeliveryId, RevisionHash, SourceName, Uid};
use crate::secret::SecretValue;
use crate::world::World;

/// See [`super::Store`].
pub struct MemoryStore {
    world: World,
    backlog_max: u64,
    inner: Mutex<Inner>,
    changed: Notify,
}

struct Inner {
    state: State,
    facts: List,
    closed: bool,
}

#[derive(Default)]
struct List(Vec<Arc<Fact>>);

impl ReadFacts for List {
    fn read(&self, at: Position) -> Result<Arc<Fact>, StoreError> {
        let fact = self.0.get(at.offset as usize).cloned();
        fact.ok_or_else(|| StoreError::Corrupt(format!("nothing stands at {at}")))
    }
}

/// Nothing is ever full here: all is in the rows, and this is the long way to the same.
impl ReadPages for &List {
    fn about(&mut self, at: Position) -> Result<About, StoreError> {
        Ok(About::of(&*envelope_at(*self, at)?))
    }

    fn places(&mut self, _segment: u32, _term: u64) -> Result<Vec<Place>, StoreError> {
        Ok(Vec::new())
    }

    fn changed(&mut self, _at: Position) -> Result<Option<Uid>, StoreError> {
        Ok(None)
    }
}

impl Peek for Inner {
    fn peek<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state)
    }
}

/// The one segment that there is.
const SEGMENT: u64 = 1;

impl MemoryStore {
    pub fn new(world: World) -> Self {
        Self::with_backlog(world, super::BACKLOG_MAX)
    }

    /// Refuses new events while `backlog_max` deliveries are unfinished.
    pub fn with_backlog(world: World, backlog_max: u64) -> Self {
        let mut key = [0; 16];
        world.random.fill(&mut key);
        let inner =
            Inner { state: State::new(Hashing::new(key)), facts: List::default(), closed: false };
        Self { world, backlog_max, inner: Mutex::new(inner), changed: Notify::new() }
    }

    /// The store that a restart would find: the same facts, read anew, and nobody holds anything.
    #[cfg(test)]
    pub(crate) fn reopened(&self) -> Result<Self, StoreError> {
        let (facts, hashing) = {
            let inner = self.lock();
            (List(inner.facts.0.clone()), inner.state.hashing)
        };
        let mut state = State::new(hashing);
        for (number, fact) in facts.0.iter().enumerate() {
            let at = Position { segment: SEGMENT, offset: number as u32, index: 0 };
            state.apply(fact, at, number as u64, self.now(), &facts)?;
        }
        state.start(self.now());
        Ok(Self {
            world: self.world.clone(),
            backlog_max: self.backlog_max,
            inner: Mutex::new(Inner { state, facts, closed: false }),
            changed: Notify::new(),
        })
    }

    /// Changes that brought search terms.
    #[cfg(test)]
    pub(crate) fn changes_with_terms(&self) -> usize {
        let with_terms = |fact: &&Arc<Fact>| matches!(&***fact, Fact::Changed(changed) if !changed.terms.is_empty());
        self.lock().facts.0.iter().filter(with_terms).count()
    }

    fn now(&self) -> Moment {
        Moment { wall: self.world.clock.now(), monotonic: self.world.clock.monotonic() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock can panic")
    }

    /// Decides and applies in one go: without a medium there is nothing to wait for.
    fn change<A>(
        &self,
        decide: impl FnOnce(&State, &dyn ReadFacts) -> Result<Decision<A>, StoreError>,
    ) -> Result<A, StoreError> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if inner.closed {
            return Err(StoreError::Refusing("it is closed".into()));
        }
        let decision = decide(&inner.state, &inner.facts)?;
        for fact in decision.facts {
            let number = inner.facts.0.len();
            let at = Position { segment: SEGMENT, offset: number as u32, index: 0 };
            let fact = Arc::new(fact);
            inner.facts.0.push(fact.clone());
            inner.state.apply(&fact, at, number as u64, self.now(), &inner.facts)?;
        }
        self.changed.notify_waiters();
        Ok(decision.answer)
    }
}

fn ready<'a, T: Send + 'a>(result: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(result))
}

impl Store for MemoryStore {
    fn accept(&self, events: Vec<NewEvent>) -> BoxFuture<'_, Result<Vec<Acceptance>, StoreError>> {
        let backlog = self.backlog_max;
        ready(self.change(|state, facts| decide::accept(state, facts, events, backlog)))
    }

    fn claim(&self, max: usize) -> BoxFuture<'_, Result<Vec<Claim>, StoreError>> {
        let mut inner = self.lock();
        let held = inner.state.claim(max, u64::MAX, self.now());
        let claim = |Held { state, envelope, fence }| {
            let envelope = envelope.or_else(|at| envelope_at(&inner.facts, at))?;
            Ok(Claim { state, envelope, fence })
        };
        ready(held.into_iter().map(claim).collect())
    }

    fn wait(&self) -> BoxFuture<'_, ()> {
        Box::pin(super::wait::until_due(&*self.world.clock, &self.changed, |now| {
            self.lock().state.next_due(u64::MAX, now)
        }))
    }

    fn record<'a>(
        &'a self,
        delivery: &'a DeliveryId,
        fence: Fence,
        version: u64,
        change: Change,
        _durability: Durability,
    ) -> BoxFuture<'a, Result<Recorded, StoreError>> {
        ready(self.change(|state, facts| {
            decide::record(state, facts, delivery.clone(), fence, version, change)
        }))
    }

    fn operate(&self, operation: Operation) -> BoxFuture<'_, Result<Operated, StoreError>> {
        ready(self.change(|state, facts| decide::operate(state, facts, operation)))
    }

    fn route(
        &self,
        uid: Uid,
        entry: Entry,
        deliveries: Vec<NewDelivery>,
    ) -> BoxFuture<'_, Result<Vec<DeliveryId>, StoreError>> {
        ready(self.change(|state, facts| decide::route(state, facts, uid, entry, deliveries)))
    }

    fn revision_put(
        &self,
        hash: RevisionHash,
        text: Arc<str>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.change(|state, _| Ok(decide::revision(state, hash, text))))
    }

    fn revision_get(
        &self,
        hash: &RevisionHash,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>> {
        ready(Ok(self.lock().state.revision(hash).cloned()))
    }

    fn find(
        &self,
        id: &str,
        source: Option<&SourceName>,
    ) -> BoxFuture<'_, Result<Vec<Uid>, StoreError>> {
        let inner = self.lock();
        ready(view::find(id, source, &mut &inner.facts, &*inner))
    }

    fn event(&self, uid: Uid) -> BoxFuture<'_, Result<Option<EventView>, StoreError>> {
        let inner = self.lock();
        let outline = Outline::of(&inner.state, uid);
        ready(outline.map(|outline| outline.read(&inner.facts)).transpose())
    }

    fn list(
        &self,
        query: Query,
        cursor: Option<u64>,
        budget: Budget,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        let inner = self.lock();
        ready(view::list(&query, cursor, budget, &mut &inner.facts, &*inner))
    }

    fn causes(&self) -> BoxFuture<'_, Vec<CauseCount>> {
        ready(view::causes(&self.lock().state))
    }

    fn summary(&self) -> BoxFuture<'_, Summary> {
        let inner = self.lock();
        let mut summary = view::summary(&inner.state, self.now());
        if inner.closed {
            summary.ready = Readiness::Refusing("it is closed".into());
        }
        ready(summary)
    }

    fn export(
        &self,
        query: Query,
        cursor: Option<ExportCursor>,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<ExportPage, StoreError>> {
        let now = self.world.clock.now();
        let inner = self.lock();
        ready(export::page(&query, cursor, bytes_max, now, &inner.facts, &*inner))
    }

    fn import(&self, records: Vec<Record>) -> BoxFuture<'_, Result<Imported, ImportStopped>> {
        let mut so_far = Imported::default();
        for Record { content, .. } in records {
            let backlog = self.backlog_max;
            match self.change(|state, facts| decide::import::import(state, facts, content, backlog))
            {
                Ok(taken) => so_far.count(taken),
                Err(error) => return ready(Err(ImportStopped { so_far, error })),
            }
        }
        ready(Ok(so_far))
    }

    fn capture(&self, secret: CapturedSecret) -> BoxFuture<'_, Result<Capture, StoreError>> {
        ready(self.change(|state, _| Ok(decide::capture(state, secret))))
    }

    fn drop_secret(
        &self,
        source: SourceName,
        dropped: DroppedSecret,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        ready(self.change(|state, _| Ok(decide::drop_secret(state, &source, dropped))))
    }

    fn captured(&self, source: &SourceName, path: &[(String, String)]) -> Vec<SecretValue> {
        self.lock().state.secrets.values(source, path)
    }

    fn secrets(&self) -> BoxFuture<'_, Result<Vec<Arc<CapturedSecret>>, StoreError>> {
        ready(Ok(self.lock().state.secrets.all()))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.lock().closed = true;
        ready(Ok(()))
    }
}
