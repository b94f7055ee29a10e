//! The process that is killed: it opens the store, goes on where the last one was, and tells the parent of every answer
//! before anything follows from it.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::SignedDuration;
use router::delivery::state::{DeliveryState, Status, StepStatus};
use router::name::Uid;
use router::store::journal::JournalStore;
use router::store::{Acceptance, Claim, Durability, Operated, Recorded, Store, StoreError, intend};
use router::world::World;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, watch};
use uuid::Uuid;

use super::Options;
use super::ledger::{Answer, Kind, RECORD_BYTES, Record, STEPS, status_code};
use super::support::disk::CountingDisk;
use super::support::{self, End, Events, REVISION, mix};

/// The child's only argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) options: Options,
    pub(crate) folder: std::path::PathBuf,
    /// The first number of the stream that was not offered yet.
    pub(crate) next: u64,
    /// Answers what it is asked and ends, without working.
    pub(crate) only_look: bool,
}

/// Failed deliveries wait until there are as many, so that other work lies between a failure and its replay.
const FAILED_WAITING: usize = 32;
/// Duplicates are made of so many events that were acknowledged last.
const RECENT: usize = 1000;
const RETRY_AFTER: SignedDuration = SignedDuration::from_millis(20);
/// A store that refuses for now (its next segment is on the way) is asked again.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);
const LOOKS_AT_ONCE: usize = 16;

/// What becomes of an event, by its number.
struct Plan {
    steps: usize,
    transients: u32,
    /// Until an operator replays it.
    fails: bool,
}

impl Plan {
    fn of(seed: u64, number: u64) -> Self {
        let dice = mix(seed ^ mix(number));
        Self {
            steps: if dice.is_multiple_of(4) { 2 } else { 1 },
            transients: match (dice >> 8) % 20 {
                0 => 2,
                1 | 2 => 1,
                _ => 0,
            },
            fails: (dice >> 16).is_multiple_of(50),
        }
    }
}

struct Child {
    task: Task,
    store: JournalStore,
    world: World,
    stream: Events,
    out: Mutex<File>,
    /// Offered before and never acknowledged.
    again: Mutex<VecDeque<u64>>,
    next: AtomicU64,
    recent: Mutex<VecDeque<u64>>,
    /// Numbers that hold a place of `gate`: offered, and not succeeded yet.
    open: Mutex<HashSet<u64>>,
    gate: Semaphore,
    failed: Mutex<VecDeque<DeliveryState>>,
    failed_or_ended: Notify,
    callers: AtomicUsize,
    finished: watch::Sender<bool>,
    /// By number: held from before a change is asked for until the parent was told of it. Otherwise another worker could
    /// claim the delivery and tell of that first.
    telling: Vec<tokio::sync::Mutex<()>>,
}

/// Many more than workers, so that two seldom meet.
const TELLING: usize = 4096;

pub(crate) fn run(task: Task) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(live(task))
}

async fn live(task: Task) -> anyhow::Result<()> {
    let mut asked = Vec::new();
    std::io::stdin().read_to_end(&mut asked)?;
    let (asked, rest) = asked.as_chunks::<RECORD_BYTES>();
    ensure!(rest.is_empty(), "half a record came in");
    let asked: Vec<Record> =
        asked.iter().map(Record::decode).collect::<Option<_>>().context("an unknown record")?;

    // Not `stdout()`: that one keeps what has no line end, and a kill would take it along.
    let out = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let world = World::real();
    let began = world.clock.monotonic();
    let (disk, _) = CountingDisk::open(&task.folder)?;
    let store = support::open(disk, &task.folder, task.options.segment_bytes, world.clone())?;
    let took = world.clock.monotonic() - began;
    let retires = super::retention(&store, &task.options);
    let options = &task.options;
    let child = Arc::new(Child {
        stream: Events { seed: options.seed, payload_bytes: options.payload_bytes },
        out: Mutex::new(out),
        again: Mutex::default(),
        next: AtomicU64::new(task.next),
        recent: Mutex::default(),
        open: Mutex::default(),
        gate: Semaphore::new(gate(options)),
        failed: Mutex::default(),
        failed_or_ended: Notify::new(),
        callers: AtomicUsize::new(options.concurrency),
        finished: watch::Sender::new(false),
        telling: (0..TELLING).map(|_| tokio::sync::Mutex::default()).collect(),
        task,
        store,
        world,
    });
    child.say(Record {
        flag: retires,
        version: took.as_millis() as u32,
        ..Record::new(Kind::Opened, 0)
    });
    support::put_revisions(&child.store).await?;
    child.answer_all(asked).await?;
    if !child.task.only_look {
        child.work().await?;
    }
    child.store.close().await?;
    child.say(Record::new(Kind::Done, 0));
    Ok(())
}

/// Events that are accepted and not succeeded, at most.
fn gate(options: &Options) -> usize {
    (4 * options.concurrency).max(8 * FAILED_WAITING)
}

impl Child {
    /// The parent knows it when this returns, whatever happens to this process.
    fn say(&self, record: Record) {
        let mut out = self.out.lock().expect("no holder of this lock can panic");
        if out.write_all(&record.encode()).is_err() {
            // Nobody listens any more: the parent was ended.
            std::process::exit(3);
        }
    }

    async fn telling(&self, number: u64) -> tokio::sync::MutexGuard<'_, ()> {
        self.telling[number as usize % TELLING].lock().await
    }

    /// What the parent asks of the state before any work is done.
    async fn answer_all(self: &Arc<Self>, asked: Vec<Record>) -> anyhow::Result<()> {
        for record in asked.iter().filter(|record| record.kind == Kind::Unsettled) {
            if record.uid == 0 {
                self.again
                    .lock()
                    .expect("no holder of this lock can panic")
                    .push_back(record.number);
            } else {
                self.gate.acquire().await?.forget();
                self.open.lock().expect("no holder of this lock can panic").insert(record.number);
            }
        }
        let asked = Arc::new(asked);
        let looks: Vec<_> = (0..LOOKS_AT_ONCE)
            .map(|first| {
                let (child, asked) = (Arc::clone(self), Arc::clone(&asked));
                tokio::spawn(async move {
                    for record in asked.iter().skip(first).step_by(LOOKS_AT_ONCE) {
                        match record.kind {
                            Kind::Probe => drop(child.offer(record.number).await?),
                            Kind::Unsettled if record.uid == 0 => {}
                            _ => child.look_up(record.number, record.uid).await?,
                        }
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for look in looks {
            look.await??;
        }
        Ok(())
    }

    async fn work(self: &Arc<Self>) -> anyhow::Result<()> {
        let callers = (0..self.task.options.concurrency).map(|_| {
            let child = Arc::clone(self);
            tokio::spawn(async move { child.call().await })
        });
        let mut tasks: Vec<_> = callers.collect();
        for part in [0, 1] {
            let child = Arc::clone(self);
            tasks.push(tokio::spawn(async move {
                match part {
                    0 => child.replay_all().await,
                    _ => child.dispatch().await,
                }
            }));
        }
        // The first that fails is the end: the others wait for what it will not do.
        futures_util::future::try_join_all(tasks.into_iter().map(async |task| task.await?)).await?;
        Ok(())
    }

    /// One caller: offers number after number, and now and then one again that is known already.
    async fn call(&self) -> anyhow::Result<()> {
        while let Some(number) = self.take_number() {
            self.gate.acquire().await?.forget();
            self.open.lock().expect("no holder of this lock can panic").insert(number);
            let (answer, uid) = self.offer(number).await?;
            self.remember(number);
            if answer == Answer::Duplicate {
                // It was durable when an earlier process died: it may be anywhere by now.
                self.look_up(number, uid.0.as_u128()).await?;
            }
            let dice = mix(mix(number) ^ self.task.options.seed);
            if dice % 100 < u64::from(self.task.options.duplicates_percent)
                && let Some(known) = self.recent(dice >> 32)
            {
                self.offer(known).await?;
            }
        }
        self.callers.fetch_sub(1, Ordering::SeqCst);
        self.failed_or_ended.notify_one();
        self.finish_if_done();
        Ok(())
    }

    fn take_number(&self) -> Option<u64> {
        let again = self.again.lock().expect("no holder of this lock can panic").pop_front();
        again.or_else(|| {
            let next = self.next.fetch_add(1, Ordering::SeqCst);
            (next < self.task.options.events).then_some(next)
        })
    }

    fn remember(&self, number: u64) {
        let mut recent = self.recent.lock().expect("no holder of this lock can panic");
        recent.push_back(number);
        if recent.len() > RECENT {
            recent.pop_front();
        }
    }

    fn recent(&self, dice: u64) -> Option<u64> {
        let recent = self.recent.lock().expect("no holder of this lock can panic");
        let at = (dice as usize).checked_rem(recent.len())?;
        recent.get(at).copied()
    }

    async fn offer(&self, number: u64) -> anyhow::Result<(Answer, Uid)> {
        let event = self.stream.event(number, &self.world);
        let answers = loop {
            match self.store.accept(vec![event.clone()]).await {
                Ok(answers) => break answers,
                Err(StoreError::Refusing(_)) => self.world.clock.sleep(REFUSED_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        };
        let (answer, uid) = match answers.as_slice() {
            [Acceptance::Accepted { uid }] => (Answer::Accepted, *uid),
            [Acceptance::Duplicate { uid }] => (Answer::Duplicate, *uid),
            [Acceptance::Conflict { uid }] => (Answer::Conflict, *uid),
            _ => anyhow::bail!("one event was answered {answers:?}"),
        };
        self.say(Record {
            status: answer as u8,
            uid: uid.0.as_u128(),
            ..Record::new(Kind::Answered, number)
        });
        Ok((answer, uid))
    }

    async fn look_up(&self, number: u64, uid: u128) -> anyhow::Result<()> {
        let telling = self.telling(number).await;
        let view = self.store.event(Uid(Uuid::from_u128(uid))).await?;
        let record = Record { uid, ..Record::new(Kind::Found, number) };
        let Some(state) = view.and_then(|view| Some(view.deliveries.into_iter().next()?.state))
        else {
            self.say(record);
            self.settle(number);
            return Ok(());
        };
        self.say(Record {
            flag: true,
            status: status_code(state.status),
            version: state.version as u32,
            steps: done(&state),
            ..record
        });
        drop(telling);
        match state.status {
            Status::Succeeded => self.settle(number),
            Status::Failed => self.fail(state),
            Status::Queued | Status::Processing | Status::Ignored => {}
        }
        Ok(())
    }

    fn settle(&self, number: u64) {
        if self.open.lock().expect("no holder of this lock can panic").remove(&number) {
            self.gate.add_permits(1);
        }
        self.finish_if_done();
    }

    fn fail(&self, state: DeliveryState) {
        self.failed.lock().expect("no holder of this lock can panic").push_back(state);
        self.failed_or_ended.notify_one();
    }

    fn finish_if_done(&self) {
        let none_open = self.open.lock().expect("no holder of this lock can panic").is_empty();
        if none_open && self.callers.load(Ordering::SeqCst) == 0 {
            self.finished.send_replace(true);
        }
    }

    /// Lets failed deliveries go on: some while later, or at once when there is nothing else to come.
    async fn replay_all(&self) -> anyhow::Result<()> {
        let mut finished = self.finished.subscribe();
        loop {
            while let Some(state) = self.next_failed() {
                let number = Events::number(&state.event_id).context("an id of this stream")?;
                let _telling = self.telling(number).await;
                let operation = support::replay(&state, self.world.clock.now());
                match self.store.operate(operation).await? {
                    Operated::Done(state) => self.say(Record {
                        status: status_code(state.status),
                        version: state.version as u32,
                        uid: state.id.uid.0.as_u128(),
                        ..Record::new(Kind::Replayed, number)
                    }),
                    // It stood twice in the list: failed before it was looked up.
                    Operated::Stale => {}
                    Operated::NotFound => self.odd(number, 2),
                }
            }
            tokio::select! {
                () = self.failed_or_ended.notified() => {}
                ended = finished.wait_for(|finished| *finished) => {
                    ended?;
                    return Ok(());
                }
            }
        }
    }

    fn next_failed(&self) -> Option<DeliveryState> {
        let mut failed = self.failed.lock().expect("no holder of this lock can panic");
        let go = failed.len() > FAILED_WAITING || self.callers.load(Ordering::SeqCst) == 0;
        if go { failed.pop_front() } else { None }
    }

    /// Claims for as many workers as are free.
    async fn dispatch(self: &Arc<Self>) -> anyhow::Result<()> {
        let free = Arc::new(Semaphore::new(self.task.options.concurrency));
        let mut finished = self.finished.subscribe();
        let (failures, mut failure) = tokio::sync::mpsc::channel(1);
        loop {
            let mut permit = Arc::clone(&free).acquire_owned().await?;
            let others = free.available_permits() as u32;
            if others > 0
                && let Ok(others) = Arc::clone(&free).try_acquire_many_owned(others)
            {
                permit.merge(others);
            }
            let claims = self.store.claim(permit.num_permits()).await?;
            if claims.is_empty() {
                drop(permit);
                tokio::select! {
                    () = self.store.wait() => {}
                    ended = finished.wait_for(|finished| *finished) => {
                        ended?;
                        return Ok(());
                    }
                    Some(error) = failure.recv() => return Err(error),
                }
                continue;
            }
            for claim in claims {
                let own = permit.split(1).context("no more is claimed than there are permits")?;
                let (child, failures) = (Arc::clone(self), failures.clone());
                tokio::spawn(async move {
                    if let Err(error) = child.deliver(claim).await {
                        // A full channel holds a failure already.
                        drop(failures.try_send(error));
                    }
                    drop(own);
                });
            }
        }
    }

    async fn deliver(&self, claim: Claim) -> anyhow::Result<()> {
        let Claim { mut state, fence, .. } = claim;
        let number = Events::number(&state.event_id).context("an id of this stream")?;
        let (id, uid) = (state.id.clone(), state.id.uid.0.as_u128());
        let plan = Plan::of(self.task.options.seed, number);
        // Whoever had it before has told of its last change.
        drop(self.telling(number).await);
        self.say(Record {
            steps: done(&state),
            version: state.version as u32,
            uid,
            ..Record::new(Kind::Claimed, number)
        });
        for (index, step) in STEPS.into_iter().enumerate().take(plan.steps) {
            if done(&state) & 1 << index != 0 {
                continue;
            }
            let change = support::intended(&state, step, self.world.clock.now());
            let (recorded, intended) =
                intend(&self.store, &id, fence, state.version, change, Durability::Ordered, ())
                    .await?;
            let (Recorded::Recorded(after) | Recorded::Already(after), Some(_)) =
                (recorded, intended)
            else {
                self.odd(number, 0);
                return Ok(());
            };
            state = after;
            self.say(Record { steps: index as u8, uid, ..Record::new(Kind::Effect, number) });

            let now = self.world.clock.now();
            let last = index + 1 == plan.steps;
            let tried = state.step(&step.into()).map_or(0, |step| step.attempts_since_replay);
            let end = if tried <= plan.transients {
                End::Retry(now + RETRY_AFTER)
            } else if last && plan.fails && state.revision.as_str() == REVISION {
                End::Failed
            } else if last {
                End::Succeeded
            } else {
                End::StepDone
            };
            let change = support::attempted(&state, step, end, now);
            let telling = self.telling(number).await;
            let recorded =
                self.store.record(&id, fence, state.version, change, Durability::Synced).await?;
            let (Recorded::Recorded(after) | Recorded::Already(after)) = recorded else {
                self.odd(number, 0);
                return Ok(());
            };
            state = after;
            self.say(Record {
                steps: index as u8,
                status: status_code(state.status),
                flag: matches!(end, End::StepDone | End::Succeeded),
                version: state.version as u32,
                uid,
                ..Record::new(Kind::Recorded, number)
            });
            drop(telling);
            match end {
                End::StepDone => {}
                End::Succeeded => self.settle(number),
                End::Failed => {
                    self.fail(state);
                    return Ok(());
                }
                End::Retry(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn odd(&self, number: u64, what: u32) {
        self.say(Record { version: what, ..Record::new(Kind::Odd, number) });
    }
}

/// The steps that are done, as a set.
fn done(state: &DeliveryState) -> u8 {
    STEPS.into_iter().enumerate().fold(0, |set, (index, step)| {
        let done =
            state.step(&step.into()).is_some_and(|step| step.status == StepStatus::Succeeded);
        set | u8::from(done) << index
    })
}
