//! The loop around the writer's step: wait for requests, step, write once, sync once, acknowledge. A failed write or sync
//! ends it for good. What goes on beside it is `background`'s.

mod background;
pub(super) mod compact;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use self::compact::{Expiry, Pass};
use super::JournalOptions;
use super::format::Salts;
use super::recovery::{self, OpenError};
use super::sealed::Sealed;
use super::segment::{self, Segments};
use super::writer::{Ack, Commit, Queues, Request, Step, Writer};
use crate::name::RevisionHash;
use crate::store::checkpoint::Mark;
use crate::store::fact::{ReadFacts, envelope_at};
use crate::store::hashing::Hashing;
use crate::store::index::Index;
use crate::store::state::State;
use crate::store::state::due::Held;
use crate::store::state::frozen::Frozen;
use crate::store::view::Peek;
use crate::store::wait::{moment, until_due};
use crate::store::{Claim, Retention, StoreError};
use crate::world::World;
use crate::world::disk::Disk;

/// Prepared segments beyond the active one. New events need one; outcomes may use it.
const SPARES: usize = 2;
pub(super) const KEY: &str = "key";
pub(super) const KEY_BYTES: usize = 32;
/// Of a volume, for a segment and for `min_free_disk`.
const VOLUME_PART: u64 = 16;

/// What the store's callers, the writer and the preparer share.
pub(super) struct Shared {
    disk: Arc<dyn Disk>,
    world: World,
    options: JournalOptions,
    segments: Arc<Segments>,
    sealed: Sealed,
    state: Mutex<State>,
    /// Only whoever commits locks it, and holds it while it writes.
    desk: Mutex<Desk>,
    inbox: Mutex<Inbox>,
    /// Something came into the inbox.
    arrived: Condvar,
    /// A spare is wanted, or there may be room again.
    wanted: Condvar,
    /// A segment is full.
    filled: Condvar,
    progress: watch::Sender<Progress>,
    changed: Notify,
    /// Held by whoever derives pages and writes checkpoints: each in its turn.
    sealing: Mutex<()>,
    retention: Mutex<Retention>,
    expiry: Expiry,
    pass: Mutex<Option<Pass>>,
    /// When the time was written down last, on the monotonic clock.
    noted_at: Mutex<Duration>,
    /// It is to stop: whoever waits out a pause need not.
    stopping: Condvar,
    /// When the active segment was begun, on the monotonic clock.
    rolled_at: Mutex<Duration>,
    /// Threads do what otherwise the caller of `commit_once` does.
    threaded: AtomicBool,
    /// Held until the store is dropped.
    _lock: Box<dyn Send + Sync>,
}

struct Desk {
    writer: Writer,
    queues: Queues,
}

/// What one turn of the writer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Worked,
    /// Nothing can be done before something arrives.
    Idle,
    Ended,
}

#[derive(Default)]
struct Inbox {
    queues: Queues,
    spares: Vec<u64>,
    next_spare: u64,
    /// Full segments: their pages are to be derived.
    full_segments: VecDeque<Full>,
    /// The active segment is old enough to be ended, whatever is in it.
    roll: bool,
    /// Why no spare can be prepared for now.
    full: Option<String>,
    /// Something changed since the last turn.
    poked: bool,
    stopped: bool,
    closed: bool,
}

/// A segment in which nothing more is written.
struct Full {
    mark: Mark,
    /// The state as it was then. Only the newest is of use.
    frozen: Option<Frozen>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    /// Facts below this number are durable.
    durable: u64,
    dead: Option<String>,
}

impl Shared {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        index: Arc<dyn Index>,
        mut options: JournalOptions,
        world: World,
    ) -> Result<Self, OpenError> {
        let place = disk.place();
        let io = |action: &str| {
            let (place, action) = (place.clone(), action.to_owned());
            move |source| OpenError::Io { place, action, source }
        };
        let lock = disk.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked { place: place.clone() },
            _ => io("take the lock")(error),
        })?;
        let part = disk.total_bytes().map_err(io("ask for the size"))? / VOLUME_PART;
        options.segment_bytes = options.segment_bytes.min(part).min(u64::from(u32::MAX));
        options.min_free_disk = options.min_free_disk.min(part);
        let hashing = Hashing::new(open_key(&*disk, &world)?);
        let now = moment(&*world.clock);
        let segments = Arc::new(Segments::new(disk.clone(), Salts::new(hashing)));
        let sealed = Sealed::new(index, segments.clone(), hashing);
        let recovered =
            recovery::recover(&disk, &segments, &sealed, hashing, options.segment_bytes, now)?;
        let mut state = recovered.state;
        let mut spares = recovered.spares;
        let active = recovered.last + 1;
        match spares.is_empty() {
            false => drop(spares.remove(0)),
            true => disk
                .prepare(&segment::name(active), options.segment_bytes)
                .map_err(io("prepare a segment of the journal"))?,
        }
        disk.sync_folder().map_err(io("sync the folder"))?;
        let mut writer = Writer::new(
            segments.clone(),
            (active, options.segment_bytes),
            (state.epoch + 1, recovered.next),
            options.commit_bytes_max,
            options.backlog_max,
        );
        let expiry = Expiry::start(&state, now);
        let time = expiry.fact(&state, now);
        let opened = writer
            .open(&mut state, time, now)
            .map_err(|error| io("apply the first fact")(io::Error::other(error)))?;
        let mut durable = recovered.next;
        if let Step::Commit(commit) = opened {
            write(&segments, &commit).map_err(io("write the first batch"))?;
            durable = commit.durable;
        }
        state.start(now);
        let retention = Mutex::new(options.retention.clone());
        Ok(Self {
            disk,
            world,
            options,
            segments,
            sealed,
            state: Mutex::new(state),
            desk: Mutex::new(Desk { writer, queues: Queues::default() }),
            inbox: Mutex::new(Inbox {
                next_spare: active + 1 + spares.len() as u64,
                spares,
                ..Inbox::default()
            }),
            arrived: Condvar::new(),
            wanted: Condvar::new(),
            filled: Condvar::new(),
            progress: watch::Sender::new(Progress { durable, dead: None }),
            changed: Notify::new(),
            sealing: Mutex::new(()),
            retention,
            expiry,
            pass: Mutex::default(),
            noted_at: Mutex::new(now.monotonic),
            stopping: Condvar::new(),
            rolled_at: Mutex::new(now.monotonic),
            threaded: AtomicBool::new(false),
            _lock: lock,
        })
    }

    pub(super) fn spares(&self) -> usize {
        self.inbox().spares.len()
    }

    /// Bytes of all batches so far in the segments that are full, and in the active one.
    #[cfg(test)]
    pub(super) fn written(&self) -> u64 {
        self.desk.lock().expect("no holder of this lock can panic").writer.written()
    }

    #[cfg(test)]
    pub(super) fn readers_waiting(&self) -> usize {
        self.segments.waiting()
    }

    pub(super) fn place(&self) -> String {
        self.disk.place()
    }

    pub(super) fn facts(&self) -> &dyn ReadFacts {
        &*self.segments
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("no holder of this lock can panic")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock can panic")
    }

    /// Puts a request into its queue, or refuses it where nobody will take it.
    pub(super) fn enqueue(&self, request: Request) {
        let mut inbox = self.inbox();
        if inbox.closed || inbox.stopped || self.progress.borrow().dead.is_some() {
            drop(inbox);
            request.refuse(self.ended());
            return;
        }
        match request {
            Request::Accept { .. } | Request::Import { .. } | Request::Capture { .. } => {
                inbox.queues.ingest.push_back(request)
            }
            Request::Close { .. } => {
                inbox.closed = true;
                inbox.queues.first.push_back(request);
            }
            Request::Record { .. }
            | Request::Operate { .. }
            | Request::Route { .. }
            | Request::Revision { .. }
            | Request::DropSecret { .. }
            | Request::Carry { .. }
            | Request::Retire { .. } => inbox.queues.first.push_back(request),
        }
        inbox.poked = true;
        drop(inbox);
        self.arrived.notify_one();
    }

    /// Why nothing that comes in is taken, if it is not.
    pub(super) fn refusing(&self) -> Option<StoreError> {
        if let Some(why) = &self.progress.borrow().dead {
            return Some(StoreError::Dead(why.clone()));
        }
        let inbox = self.inbox();
        if inbox.closed || inbox.stopped {
            return Some(StoreError::Refusing("it is closed".into()));
        }
        let full = inbox.full.as_ref().filter(|_| inbox.spares.is_empty());
        if let Some(why) = full {
            return Some(StoreError::Refusing(why.clone()));
        }
        None
    }

    /// Why new events are not taken, if they are not. Each is judged anew where it is decided: a resend adds no work.
    pub(super) fn refusing_new(&self) -> Option<StoreError> {
        if let Some(why) = self.refusing() {
            return Some(why);
        }
        let unfinished = self.state().counts.unfinished;
        (unfinished >= self.options.backlog_max).then(|| {
            StoreError::Refusing(format!(
                "the backlog is full: {unfinished} deliveries are unfinished"
            ))
        })
    }

    /// What a request is told that came too late.
    pub(super) fn ended(&self) -> StoreError {
        match &self.progress.borrow().dead {
            Some(why) => StoreError::Dead(why.clone()),
            None => StoreError::Refusing("it is closed".into()),
        }
    }

    pub(super) async fn died(&self) -> String {
        let mut progress = self.progress.subscribe();
        match progress.wait_for(|progress| progress.dead.is_some()).await {
            Ok(progress) => progress.dead.clone().unwrap_or_default(),
            // The sender lives as long as `self`.
            Err(_) => std::future::pending().await,
        }
    }

    pub(super) async fn until_durable(&self, number: u64) -> Result<(), StoreError> {
        let mut progress = self.progress.subscribe();
        let reached = progress
            .wait_for(|progress| progress.durable >= number || progress.dead.is_some())
            .await
            .map_err(|_| self.ended())?;
        match &reached.dead {
            Some(why) if reached.durable < number => Err(StoreError::Dead(why.clone())),
            _ => Ok(()),
        }
    }

    /// Resolves once all that can be seen now is durable.
    pub(super) async fn until_seen(&self) -> Result<(), StoreError> {
        let number = self.peek(|state| state.next);
        self.until_durable(number).await
    }

    /// What `look` saw, once all of it is durable.
    pub(super) async fn look<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T, StoreError> {
        let (seen, number) = self.peek(|state| (look(state), state.next));
        self.until_durable(number).await?;
        Ok(seen)
    }

    pub(super) fn claim(&self, max: usize) -> Result<Vec<Claim>, StoreError> {
        let progress = self.progress.borrow().clone();
        if let Some(why) = progress.dead {
            return Err(StoreError::Dead(why));
        }
        let held = self.state().claim(max, progress.durable, moment(&*self.world.clock));
        let mut claims = Vec::with_capacity(held.len());
        for Held { state, envelope, fence } in held {
            let uid = state.id.uid;
            let read = |at| {
                envelope_at(self.facts(), at).or_else(|error| {
                    // It may have been carried to another segment meanwhile.
                    let now = self.peek(|state| Some(state.position(state.stored(uid)?)));
                    match now.filter(|now| *now != at) {
                        Some(now) => envelope_at(self.facts(), now),
                        None => Err(error),
                    }
                })
            };
            match envelope.or_else(read) {
                Ok(envelope) => claims.push(Claim { state, envelope, fence }),
                // Nobody can carry it out; the others are not held up by it. It stays held until the next start, which
                // says what is wrong with the journal.
                Err(error) => {
                    tracing::error!(%error, delivery = %state.id, "the event of a delivery cannot be read");
                }
            }
        }
        Ok(claims)
    }

    pub(super) async fn wait(&self) {
        until_due(&*self.world.clock, &self.changed, |now| {
            let durable = self.progress.borrow().durable;
            self.state().next_due(durable, now)
        })
        .await;
    }

    pub(super) fn stop(&self) {
        self.inbox().stopped = true;
        self.arrived.notify_all();
        self.wanted.notify_all();
        self.filled.notify_all();
        self.stopping.notify_all();
    }

    /// The writer's thread.
    pub(super) fn write_until_stopped(&self) {
        let _end = EndOnPanic(self);
        self.write_until_ended();
        // Nobody is left waiting for an answer that will not come: the compactor would never end.
        let mut desk = self.desk.lock().expect("no holder of this lock can panic");
        let left = std::mem::take(&mut self.inbox().queues);
        let queues = std::mem::replace(&mut desk.queues, left);
        desk.writer.refuse_all(self.ended());
        for queues in [queues, std::mem::take(&mut desk.queues)] {
            for request in queues.first.into_iter().chain(queues.ingest) {
                request.refuse(self.ended());
            }
        }
    }

    fn write_until_ended(&self) {
        loop {
            match self.commit_once() {
                Turn::Worked => {}
                Turn::Ended => return,
                Turn::Idle => {
                    let inbox = self.inbox();
                    let inbox = self
                        .arrived
                        .wait_while(inbox, |inbox| !inbox.stopped && !inbox.poked)
                        .expect("no holder of this lock can panic");
                    if inbox.stopped {
                        return;
                    }
                }
            }
        }
    }

    /// One step, one write, one sync, and then the acknowledgements.
    pub(super) fn commit_once(&self) -> Turn {
        let mut desk = self.desk.lock().expect("no holder of this lock can panic");
        let Desk { writer, queues } = &mut *desk;
        if self.progress.borrow().dead.is_some() {
            return Turn::Ended;
        }
        let accepting = self.take_in(writer, queues);
        if self.ends_segment(writer)
            && let Some(spare) = self.next_spare()
        {
            return self.roll(writer, spare);
        }
        let stepped = {
            let now = moment(&*self.world.clock);
            writer.step(&mut self.state(), queues, accepting, now)
        };
        match stepped {
            Ok(Step::Commit(commit)) => self.commit(commit),
            Ok(Step::Full) => match self.next_spare() {
                Some(spare) => self.roll(writer, spare),
                None => {
                    let full = self.inbox().full.clone();
                    if let Some((why, reply)) = full.and_then(|why| Some((why, writer.give_up()?)))
                    {
                        // Whoever asked may have gone away.
                        drop(reply.send(Err(StoreError::Refusing(why))));
                        return Turn::Ended;
                    }
                    Turn::Idle
                }
            },
            Ok(Step::Idle) if writer.is_closing() => {
                if let Some((commit, reply)) = writer.close() {
                    let next = commit.durable;
                    if self.commit(commit) == Turn::Worked {
                        let frozen = {
                            let mut state = self.state();
                            // The mark of the end is a fact, too, which the state has no use for.
                            state.next = next;
                            state.freeze()
                        };
                        self.fill(writer.mark(), frozen);
                        while self.seal_once() {}
                    }
                    let dead = self.progress.borrow().dead.clone();
                    // Whoever asked may have gone away.
                    drop(reply.send(dead.map_or(Ok(()), |why| Err(StoreError::Dead(why)))));
                }
                Turn::Ended
            }
            Ok(Step::Idle) => Turn::Idle,
            Err(error) => {
                self.die(format!("what was decided does not apply: {error}"), Vec::new());
                Turn::Ended
            }
        }
    }

    /// The active segment is to be ended now, though there is room in it.
    fn ends_segment(&self, writer: &Writer) -> bool {
        let mut inbox = self.inbox();
        if !std::mem::take(&mut inbox.roll) || inbox.spares.len() < SPARES {
            return false;
        }
        drop(inbox);
        // Where no event stands, none waits for the end of the segment to expire.
        let segment = u32::try_from(writer.segment()).unwrap_or(u32::MAX);
        self.peek(|state| state.shelf(segment).is_some_and(|shelf| !shelf.events.is_empty()))
    }

    /// Goes on in `spare`.
    fn roll(&self, writer: &mut Writer, spare: u64) -> Turn {
        let mark = writer.roll(spare);
        let begun = {
            let mut state = self.state();
            let frozen = state.freeze();
            state.begin_segment(spare).map(|()| frozen)
        };
        *self.rolled_at.lock().expect("no holder of this lock can panic") =
            self.world.clock.monotonic();
        match begun {
            Ok(frozen) => {
                self.fill(mark, frozen);
                Turn::Worked
            }
            Err(error) => {
                self.die(error.to_string(), Vec::new());
                Turn::Ended
            }
        }
    }

    /// Hands a full segment over to whoever derives its pages.
    fn fill(&self, mark: Mark, frozen: Frozen) {
        let mut inbox = self.inbox();
        for full in &mut inbox.full_segments {
            full.frozen = None;
        }
        inbox.full_segments.push_back(Full { mark, frozen: Some(frozen) });
        drop(inbox);
        self.filled.notify_one();
    }

    /// Moves what arrived to the writer's desk. Answers whether new events may be taken.
    fn take_in(&self, writer: &mut Writer, queues: &mut Queues) -> bool {
        let mut inbox = self.inbox();
        inbox.poked = false;
        queues.first.append(&mut inbox.queues.first);
        queues.ingest.append(&mut inbox.queues.ingest);
        let accepting = !inbox.spares.is_empty();
        let refusal = match &inbox.full {
            _ if accepting => None,
            Some(why) => Some(why.clone()),
            None if inbox.closed => Some("it is closed".to_owned()),
            // The next spare is on its way.
            None => None,
        };
        drop(inbox);
        if let Some(why) = refusal {
            for request in queues.ingest.drain(..) {
                request.refuse(StoreError::Refusing(why.clone()));
            }
            writer.refuse_carried(StoreError::Refusing(why));
        }
        accepting
    }

    fn commit(&self, commit: Commit) -> Turn {
        if let Err(error) = write(&self.segments, &commit) {
            let why = format!("writing to the journal in {} failed: {error}", self.place());
            self.die(why, commit.acks);
            return Turn::Ended;
        }
        self.progress.send_modify(|progress| progress.durable = commit.durable);
        for ack in commit.acks {
            ack(Ok(()));
        }
        self.changed.notify_waiters();
        Turn::Worked
    }

    /// The end, for good: after a failed write or sync nobody knows what is on the medium.
    fn die(&self, why: String, acks: Vec<Ack>) {
        tracing::error!(error = %why, "the store has stopped");
        self.segments.stop_writing();
        self.progress.send_modify(|progress| progress.dead = Some(why.clone()));
        let waiting = std::mem::take(&mut self.inbox().queues);
        for ack in acks {
            ack(Err(StoreError::Dead(why.clone())));
        }
        for request in waiting.first.into_iter().chain(waiting.ingest) {
            request.refuse(StoreError::Dead(why.clone()));
        }
        self.changed.notify_waiters();
    }

    fn next_spare(&self) -> Option<u64> {
        let mut inbox = self.inbox();
        let spare = (!inbox.spares.is_empty()).then(|| inbox.spares.remove(0));
        drop(inbox);
        self.wanted.notify_one();
        spare
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Where the journal stands, between two commits.
    pub(super) fn mark(&self) -> Mark {
        self.desk.lock().expect("no holder of this lock can panic").writer.mark()
    }

    pub(super) fn retired_and_hashing(&self) -> (u64, Hashing) {
        let state = self.state();
        (state.retired, state.hashing)
    }

    /// Segments in which nothing more is written: where each ends and, once it has pages, the mark of its batches.
    pub(super) fn full_segments(&self) -> BTreeMap<u64, (u64, Option<u32>)> {
        // One whose pages are being derived is in neither list before that is done.
        let _sealing = self.sealing.lock().expect("no holder of this lock can panic");
        let mut full: BTreeMap<u64, (u64, Option<u32>)> = BTreeMap::new();
        for waiting in &self.inbox().full_segments {
            full.insert(waiting.mark.segment, (waiting.mark.end, None));
        }
        let with_pages = self.sealed.extents().into_iter();
        full.extend(with_pages.map(|(segment, end, mark)| (segment, (end, Some(mark)))));
        full
    }

    pub(super) fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    pub(super) fn mark_current(&self, hash: &RevisionHash) {
        self.state().mark_current(hash);
    }

    /// The configuration says how long what is kept.
    pub(super) fn set_retention(&self, retention: Retention) {
        *self.retention.lock().expect("no holder of this lock can panic") = retention;
    }

    /// From here on threads do the work.
    pub(super) fn set_threaded(&self) {
        self.threaded.store(true, Ordering::SeqCst);
    }
}

impl Peek for Shared {
    fn peek<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state())
    }
}

/// A bug in the writer is the end of the store, not a silence.
struct EndOnPanic<'a>(&'a Shared);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = "the journal's writer panicked".to_owned();
            self.0.segments.stop_writing();
            self.0.progress.send_modify(|progress| progress.dead = Some(why));
        }
    }
}

fn write(segments: &Segments, commit: &Commit) -> io::Result<()> {
    let file = segments.file(commit.segment)?;
    file.write_at(commit.offset, &commit.bytes)?;
    segments.advance(commit.segment, commit.offset + commit.bytes.len() as u64);
    file.sync_data()
}

/// The store's own key, made with it. Senders must not know it.
fn open_key(disk: &dyn Disk, world: &World) -> Result<[u8; 16], OpenError> {
    const DRAFT: &str = "key.new";
    let place = disk.place();
    let io = |source| OpenError::Io { place: place.clone(), action: "keep the key".into(), source };
    let names = disk.list().map_err(io)?;
    if !names.iter().any(|name| name == KEY) {
        if names.iter().any(|name| segment::number(name).is_some()) {
            return Err(OpenError::NoKey { place });
        }
        if names.iter().any(|name| name == DRAFT) {
            disk.remove(DRAFT).map_err(io)?;
        }
        let mut key = [0; KEY_BYTES];
        world.random.fill(&mut key);
        disk.prepare(DRAFT, 0).map_err(io)?;
        let file = disk.open(DRAFT).map_err(io)?;
        file.write_at(0, &key).and_then(|()| file.sync_data()).map_err(io)?;
        disk.rename(DRAFT, KEY).and_then(|()| disk.sync_folder()).map_err(io)?;
    }
    read_key(disk)
}

/// The half of the key that is for hashing identities; the other is kept for what will be sealed.
pub(super) fn read_key(disk: &dyn Disk) -> Result<[u8; 16], OpenError> {
    let place = disk.place();
    let io = |source| OpenError::Io { place: place.clone(), action: "read the key".into(), source };
    let file = disk.open(KEY).map_err(io)?;
    let mut key = [0; KEY_BYTES + 1];
    if file.read_at(0, &mut key).map_err(io)? != KEY_BYTES {
        return Err(OpenError::NoKey { place });
    }
    let mut half = [0; 16];
    half.copy_from_slice(&key[..16]);
    Ok(half)
}
