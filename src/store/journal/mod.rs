//! The durable store: everything is in the journal, and the state is what the journal makes. `format` says how it
//! stands on disk, `recovery` reads it back, `writer` decides what is written, `commit` writes it, `sealed` derives the
//! pages of full segments.

mod commit;
pub mod doctor;
pub mod files;
mod format;
mod recovery;
mod replay;
mod salvage;
mod sealed;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use recovery::OpenError;

use self::commit::Shared;
use self::writer::{Reply, Request};
use super::captured::{Capture, CapturedSecret, CapturedSecrets, DroppedSecret};
use super::export;
use super::files::StoreFiles;
use super::index::Index;
use super::portable::{ExportCursor, ExportPage, ImportStopped, Imported, Record};
use super::view::{self, Outline, Peek};
use super::{
    Acceptance, BACKLOG_MAX, Budget, CauseCount, Change, Claim, Durability, EventView, Fence,
    NewDelivery, NewEvent, Operated, Operation, Page, Query, Readiness, Recorded, Retention, Store,
    StoreError, Summary,
};
use crate::delivery::state::Entry;
use crate::name::{DeliveryId, RevisionHash, SourceName, Uid};
use crate::secret::SecretValue;
use crate::world::World;
use crate::world::clock;
use crate::world::disk::Disk;
use crate::world::spawn::blocking;

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Size of a segment; at most 1/16 of the volume is taken.
    pub segment_bytes: u64,
    /// A commit takes no further request beyond this.
    pub commit_bytes_max: usize,
    /// Bytes of events that wait for their commit.
    pub ingest_bytes_max: usize,
    /// No segment is prepared that leaves less free space than this; at most 1/16 of the volume counts.
    pub min_free_disk: u64,
    /// See `limits.backlog`.
    pub backlog_max: u64,
    /// How often a full disk is looked at again.
    pub space_retry: Duration,
    /// A segment is ended after this time, even if it is not full.
    pub segment_age_max: Duration,
    /// How often it is looked whether a segment has expired.
    pub compact_every: Duration,
    /// How long what is kept, from the first moment on: by other times than the configuration's the opening would already
    /// let go what is to stay.
    pub retention: Retention,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            commit_bytes_max: 4 << 20,
            ingest_bytes_max: 64 << 20,
            min_free_disk: 512 << 20,
            backlog_max: BACKLOG_MAX,
            space_retry: Duration::from_secs(1),
            segment_age_max: Duration::from_secs(24 * 60 * 60),
            compact_every: Duration::from_secs(10),
            retention: Retention::default(),
        }
    }
}

/// How long an event waits for room among those that wait for their commit.
const INGEST_WAIT: Duration = Duration::from_secs(1);
/// An import is in no hurry.
const IMPORT_WAIT: Duration = Duration::from_secs(10);
const IMPORT_RECORDS_AT_ONCE: usize = 256;
const IMPORT_BYTES_AT_ONCE: usize = 4 << 20;

/// See [`super::Store`].
pub struct JournalStore {
    shared: Arc<Shared>,
    world: World,
    ingest: Arc<Semaphore>,
    ingest_bytes_max: usize,
    /// Those of the state: they are read without its lock.
    secrets: Arc<CapturedSecrets>,
    threads: Vec<JoinHandle<()>>,
}

impl JournalStore {
    /// Takes the data folder, reads the journal, mends its tail, and starts the writer. Blocks.
    pub fn open(
        disk: Arc<dyn Disk>,
        index: Arc<dyn Index>,
        options: JournalOptions,
        world: World,
    ) -> Result<Self, OpenError> {
        let mut store = Self::open_unstarted(disk, index, options, world)?;
        // With one spare it takes events from the start. Without room it starts, too, and refuses them until there is.
        if store.shared.spares() == 0 {
            store.shared.prepare_once();
        }
        store.shared.set_threaded();
        for (name, work) in [
            ("journal-writer", Shared::write_until_stopped as fn(&Shared)),
            ("journal-spares", Shared::prepare_until_stopped),
            ("journal-keeper", Shared::keep_until_stopped),
            ("journal-compactor", Shared::compact_until_stopped),
        ] {
            let shared = store.shared.clone();
            let thread = std::thread::Builder::new().name(name.into());
            let started = thread.spawn(move || work(&shared));
            store.threads.push(started.map_err(|source| OpenError::Io {
                place: store.shared.place(),
                action: "start a thread for the journal".into(),
                source,
            })?);
        }
        Ok(store)
    }

    /// Without threads: whoever drives it calls `commit_once` and `prepare_once`.
    fn open_unstarted(
        disk: Arc<dyn Disk>,
        index: Arc<dyn Index>,
        options: JournalOptions,
        world: World,
    ) -> Result<Self, OpenError> {
        let ingest_bytes_max = options.ingest_bytes_max;
        let shared = Arc::new(Shared::open(disk, index, options, world.clone())?);
        let ingest = Arc::new(Semaphore::new(ingest_bytes_max));
        let secrets = shared.peek(|state| state.secrets.clone());
        Ok(Self { shared, world, ingest, ingest_bytes_max, secrets, threads: Vec::new() })
    }

    /// Resolves with the reason once the store is dead: a write or a sync failed, and only a new start can tell what
    /// is on the medium.
    pub async fn died(&self) -> String {
        self.shared.died().await
    }

    /// From now on events are kept as long as this says.
    pub fn set_retention(&self, retention: Retention) {
        self.shared.set_retention(retention);
    }

    /// Window by window, so that new events that come meanwhile find their place in the queue.
    async fn take_records(&self, records: Vec<Record>) -> Result<Imported, ImportStopped> {
        let mut so_far = Imported::default();
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let (mut window, mut bytes) = (Vec::new(), 0);
            let mut stopped = None;
            while window.len() < IMPORT_RECORDS_AT_ONCE
                && bytes < IMPORT_BYTES_AT_ONCE
                && let Some(Record { content, bytes: weight }) = records.next()
            {
                bytes += weight;
                match self.room(weight, IMPORT_WAIT).await {
                    Ok(permit) => {
                        let (reply, answer) = oneshot::channel();
                        self.shared.enqueue(Request::Import { content, permit, reply });
                        window.push(answer);
                    }
                    Err(error) => {
                        stopped = Some(error);
                        break;
                    }
                }
            }
            for answer in window {
                let answer = answer.await.unwrap_or_else(|_| Err(self.shared.ended()));
                match answer {
                    Ok(taken) if stopped.is_none() => so_far.count(taken),
                    // What was taken after a refused one is known when it comes again.
                    Ok(_) => {}
                    Err(error) => stopped = stopped.or(Some(error)),
                }
            }
            if let Some(error) = stopped {
                return Err(ImportStopped { so_far, error });
            }
        }
        Ok(so_far)
    }

    /// A place among what waits for its commit.
    async fn room(
        &self,
        weight: usize,
        wait: Duration,
    ) -> Result<OwnedSemaphorePermit, StoreError> {
        if let Some(why) = self.shared.refusing() {
            return Err(why);
        }
        let weight = weight.min(self.ingest_bytes_max);
        let permits = self.ingest.clone().acquire_many_owned(weight as u32);
        match clock::timeout(&*self.world.clock, wait, permits).await {
            Some(permit) => Ok(permit.expect("the semaphore is never closed")),
            None => Err(StoreError::Refusing("too many events wait to be written".into())),
        }
    }

    async fn ask<A>(&self, request: impl FnOnce(Reply<A>) -> Request) -> Result<A, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.shared.enqueue(request(reply));
        answer.await.unwrap_or_else(|_| Err(self.shared.ended()))
    }
}

impl Drop for JournalStore {
    /// Ends the threads after the commit at hand. Without `close` before, the next start takes it for a crash.
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the journal panicked");
            }
        }
    }
}

/// What an offered event weighs while it waits.
fn weight(event: &NewEvent) -> usize {
    const ROW_BYTES: usize = 512;
    let envelope = &event.envelope;
    let pairs = envelope.headers.iter().chain(&envelope.query).chain(&envelope.path);
    let texts: usize = pairs.map(|(name, value)| name.len() + value.len()).sum();
    ROW_BYTES * (1 + event.deliveries.len()) + envelope.body.len() + texts
}

impl Store for JournalStore {
    fn accept(&self, events: Vec<NewEvent>) -> BoxFuture<'_, Result<Vec<Acceptance>, StoreError>> {
        Box::pin(async move {
            let permit = self.room(events.iter().map(weight).sum(), INGEST_WAIT).await?;
            self.ask(|reply| Request::Accept { events, permit, reply }).await
        })
    }

    fn claim(&self, max: usize) -> BoxFuture<'_, Result<Vec<Claim>, StoreError>> {
        Box::pin(std::future::ready(self.shared.claim(max)))
    }

    fn wait(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.wait())
    }

    fn record<'a>(
        &'a self,
        delivery: &'a DeliveryId,
        fence: Fence,
        version: u64,
        change: Change,
        durability: Durability,
    ) -> BoxFuture<'a, Result<Recorded, StoreError>> {
        let (delivery, change) = (delivery.clone(), Box::new(change));
        Box::pin(self.ask(move |reply| Request::Record {
            delivery,
            fence,
            version,
            change,
            durability,
            reply,
        }))
    }

    fn operate(&self, operation: Operation) -> BoxFuture<'_, Result<Operated, StoreError>> {
        let operation = Box::new(operation);
        Box::pin(self.ask(|reply| Request::Operate { operation, reply }))
    }

    fn route(
        &self,
        uid: Uid,
        entry: Entry,
        deliveries: Vec<NewDelivery>,
    ) -> BoxFuture<'_, Result<Vec<DeliveryId>, StoreError>> {
        Box::pin(self.ask(move |reply| Request::Route { uid, entry, deliveries, reply }))
    }

    fn revision_put(
        &self,
        hash: RevisionHash,
        text: Arc<str>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.shared.mark_current(&hash);
        Box::pin(self.ask(move |reply| Request::Revision { hash, text, reply }))
    }

    fn revision_get(
        &self,
        hash: &RevisionHash,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>> {
        let hash = hash.clone();
        Box::pin(async move { self.shared.look(|state| state.revision(&hash).cloned()).await })
    }

    fn find(
        &self,
        id: &str,
        source: Option<&SourceName>,
    ) -> BoxFuture<'_, Result<Vec<Uid>, StoreError>> {
        let (id, source) = (id.to_owned(), source.cloned());
        Box::pin(async move {
            let found = blocking(|| {
                let mut pages = self.shared.sealed().reader();
                view::find(&id, source.as_ref(), &mut pages, &*self.shared)
            })?;
            self.shared.until_seen().await?;
            Ok(found)
        })
    }

    fn event(&self, uid: Uid) -> BoxFuture<'_, Result<Option<EventView>, StoreError>> {
        Box::pin(async move {
            loop {
                let Some(outline) = self.shared.peek(|state| Outline::of(state, uid)) else {
                    return Ok(None);
                };
                // Nobody is shown what a power cut could still take back.
                self.shared.until_durable(outline.settled_after).await?;
                let read = blocking(|| outline.read(self.shared.facts()));
                let moved = || {
                    let now = self.shared.peek(|state| Outline::of(state, uid));
                    now.is_none_or(|now| now.position() != outline.position())
                };
                match read {
                    // It moved to a newer segment meanwhile, or expired.
                    Err(StoreError::Corrupt(_)) if moved() => {}
                    read => return read.map(Some),
                }
            }
        })
    }

    fn list(
        &self,
        query: Query,
        cursor: Option<u64>,
        budget: Budget,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            let page = blocking(|| {
                let mut pages = self.shared.sealed().reader();
                view::list(&query, cursor, budget, &mut pages, &*self.shared)
            })?;
            self.shared.until_seen().await?;
            Ok(page)
        })
    }

    fn causes(&self) -> BoxFuture<'_, Vec<CauseCount>> {
        Box::pin(std::future::ready(self.shared.peek(view::causes)))
    }

    fn summary(&self) -> BoxFuture<'_, Summary> {
        Box::pin(async move {
            let now = super::wait::moment(&*self.world.clock);
            let mut summary = self.shared.peek(|state| view::summary(state, now));
            summary.pages_rebuilt = self.shared.sealed().mended();
            summary.ready = match self.shared.refusing_new() {
                None => match self.shared.sealed().broken() {
                    None => Readiness::Ready,
                    Some(why) => Readiness::Rebuilding(why),
                },
                Some(StoreError::Refusing(why)) => Readiness::Refusing(why),
                Some(StoreError::Dead(why) | StoreError::Corrupt(why)) => Readiness::Dead(why),
            };
            summary
        })
    }

    fn export(
        &self,
        query: Query,
        cursor: Option<ExportCursor>,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<ExportPage, StoreError>> {
        Box::pin(async move {
            let now = self.world.clock.now();
            let (facts, state) = (self.shared.facts(), &*self.shared);
            let page = blocking(|| export::page(&query, cursor, bytes_max, now, facts, state))?;
            self.shared.until_seen().await?;
            Ok(page)
        })
    }

    fn import(&self, records: Vec<Record>) -> BoxFuture<'_, Result<Imported, ImportStopped>> {
        Box::pin(self.take_records(records))
    }

    fn capture(&self, secret: CapturedSecret) -> BoxFuture<'_, Result<Capture, StoreError>> {
        const SECRET_BYTES: usize = 4096;
        let secret = Box::new(secret);
        Box::pin(async move {
            let permit = self.room(SECRET_BYTES, INGEST_WAIT).await?;
            self.ask(|reply| Request::Capture { secret, permit, reply }).await
        })
    }

    fn drop_secret(
        &self,
        source: SourceName,
        dropped: DroppedSecret,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.ask(|reply| Request::DropSecret { source, dropped, reply }))
    }

    fn captured(&self, source: &SourceName, path: &[(String, String)]) -> Vec<SecretValue> {
        self.secrets.values(source, path)
    }

    fn secrets(&self) -> BoxFuture<'_, Result<Vec<Arc<CapturedSecret>>, StoreError>> {
        Box::pin(self.shared.look(|state| state.secrets.all()))
    }

    fn files(&self) -> BoxFuture<'_, Result<StoreFiles, StoreError>> {
        Box::pin(async move { blocking(|| self.shared.files()) })
    }

    fn read_file<'a>(
        &'a self,
        name: &'a str,
        offset: u64,
        bytes: u64,
    ) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>> {
        Box::pin(async move { blocking(|| self.shared.read_file(name, offset, bytes)) })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.ask(|reply| Request::Close { reply }))
    }
}
