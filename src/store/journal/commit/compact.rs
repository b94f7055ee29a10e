//! Retention: the oldest segment goes once all that must stay of it stands in newer ones. Little at a time, so that new events
//! do not wait for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::super::writer::{Reply, Request};
use super::super::{format, segment};
use super::{Shared, Turn};
use crate::store::decide::retention::{self, Fate, Moving, Outlived};
use crate::store::fact::{Fact, Position};
use crate::store::state::identities::SHARDS;
use crate::store::state::rows::{EventKey, RowKind, Shelf, seconds};
use crate::store::state::{Moment, State};
use crate::store::view::{Outline, Peek};
use crate::store::wait::moment;
use crate::store::{EventView, Retention, StoreError};

/// The time that has surely passed, which is what expiry goes by: it runs while the router runs, on the monotonic clock, never
/// ahead of the wall clock, and is written down. So a wall clock that jumps, even before a start, deletes nothing.
#[derive(Clone, Copy, Debug)]
pub(in crate::store::journal) struct Expiry {
    base: Timestamp,
    started: Duration,
}

/// The small state that holds it, as nanoseconds since 1970.
const EXPIRY: &str = "expiry";
/// It is written down as often.
const NOTE_EVERY: Duration = Duration::from_secs(5 * 60);
/// A start believes the wall clock so far beyond what was written down: a router that is started often is not held back.
const CATCH_UP: Duration = Duration::from_secs(10 * 60);

impl Expiry {
    pub(super) fn start(state: &State, now: Moment) -> Self {
        let known = match known(state) {
            None if state.newest == Timestamp::UNIX_EPOCH => now.wall,
            // A journal from before it was written down.
            None => state.newest,
            Some(known) => known,
        };
        let believed = known.saturating_add(CATCH_UP).unwrap_or(known);
        Self { base: believed.min(now.wall), started: now.monotonic }
    }

    /// What is to be written down.
    pub(super) fn fact(&self, state: &State, now: Moment) -> Fact {
        // A wall clock that is behind for a while takes nothing back.
        let reached = known(state).map_or(self.now(now), |known| known.max(self.now(now)));
        Fact::Cell {
            name: EXPIRY.to_owned(),
            version: state.cell(EXPIRY).map_or(0, |cell| cell.version) + 1,
            value: reached.as_nanosecond().to_le_bytes().to_vec().into(),
        }
    }

    pub(super) fn now(&self, now: Moment) -> Timestamp {
        let passed = now.monotonic.saturating_sub(self.started);
        self.base.saturating_add(passed).unwrap_or(self.base).min(now.wall)
    }
}

/// How far expiry was when that was written down.
fn known(state: &State) -> Option<Timestamp> {
    let nanos = i128::from_le_bytes((*state.cell(EXPIRY)?.value).try_into().ok()?);
    Timestamp::from_nanosecond(nanos).ok()
}

/// Events that move in one commit.
const EVENTS_AT_ONCE: usize = 64;
const BYTES_AT_ONCE: u64 = 512 << 10;
/// Bytes that are written again in a second, at most.
const BYTES_A_SECOND: u64 = 8 << 20;
/// Bytes of segments that are removed in a second, at most: that, too, takes the disk's time.
const BYTES_FREED_A_SECOND: u64 = 64 << 20;
/// A segment whose events have all expired goes after this time, however much must be written again for it.
const OVERDUE: Duration = Duration::from_secs(24 * 60 * 60);
/// What is left of an expired event, about.
const REMEMBERED_BYTES: u64 = 160;

/// What one turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::journal) enum Compacted {
    Nothing,
    /// So many bytes were written again.
    Moved(u64),
    Retired,
}

/// What is to be done with the oldest segment, and how far that is.
pub(in crate::store::journal) struct Pass {
    segment: u32,
    shelf: Arc<Shelf>,
    fates: Vec<Fate>,
    now: Timestamp,
    retention: Retention,
    /// What stands in it besides events was written again.
    others_done: bool,
    /// Number of the next row to look at.
    next: u32,
    /// Rows that need not be written again, and what they were when that was decided.
    going: BTreeMap<u32, u64>,
}

impl Shared {
    /// The compactor's thread.
    pub(in crate::store::journal) fn compact_until_stopped(&self) {
        loop {
            let wait = match self.compact_once() {
                Ok(Compacted::Retired) => {
                    let bytes = self.options.segment_bytes;
                    Duration::from_millis(bytes.saturating_mul(1000) / BYTES_FREED_A_SECOND)
                }
                Ok(Compacted::Moved(bytes)) => {
                    Duration::from_millis(bytes.saturating_mul(1000) / BYTES_A_SECOND)
                }
                Ok(Compacted::Nothing) => self.options.compact_every,
                Err(StoreError::Refusing(_) | StoreError::Dead(_)) => self.options.compact_every,
                Err(error @ StoreError::Corrupt(_)) => {
                    tracing::error!(%error, "a segment cannot be retired");
                    self.options.compact_every
                }
            };
            let inbox = self.inbox();
            if inbox.stopped {
                return;
            }
            let waited = self.stopping.wait_timeout_while(inbox, wait, |inbox| !inbox.stopped);
            drop(waited.expect("no holder of this lock can panic"));
        }
    }

    /// One step towards the end of the oldest segment.
    pub(in crate::store::journal) fn compact_once(&self) -> Result<Compacted, StoreError> {
        self.note_time()?;
        let mut current = self.pass.lock().expect("no holder of this lock can panic");
        // A step that fails begins its pass anew.
        let Some(mut pass) = current.take().or_else(|| self.plan()) else {
            return Ok(Compacted::Nothing);
        };
        let also = match pass.others_done {
            true => Vec::new(),
            false => self.others(&pass)?,
        };
        let (moving, bytes) = self.moving(&mut pass)?;
        if !moving.is_empty() || !also.is_empty() {
            // The last segment is for what calls answered.
            if self.spares() == 0 {
                return Ok(Compacted::Nothing);
            }
            self.ask(|reply| Request::Carry { moving, also, reply })?;
            pass.others_done = true;
            *current = Some(pass);
            return Ok(Compacted::Moved(bytes));
        }
        let Pass { segment, going, .. } = pass;
        let mut also = self.peek(|state| state.needed_from(segment));
        also.retain(is_small);
        match self.ask(|reply| Request::Retire { segment, going, also, reply })? {
            true => {
                self.remove(u64::from(segment));
                Ok(Compacted::Retired)
            }
            // Something happened to one of the events meanwhile.
            false => Ok(Compacted::Nothing),
        }
    }

    /// Writes down now and then how far expiry is.
    fn note_time(&self) -> Result<(), StoreError> {
        let now = moment(&*self.world.clock);
        let mut noted_at = self.noted_at.lock().expect("no holder of this lock can panic");
        if now.monotonic.saturating_sub(*noted_at) < NOTE_EVERY || self.spares() == 0 {
            return Ok(());
        }
        // As long as nothing can expire, nobody needs to know.
        if self.peek(|state| state.shelves().values().all(|shelf| shelf.events.is_empty())) {
            return Ok(());
        }
        let also = vec![self.peek(|state| self.expiry.fact(state, now))];
        self.ask(|reply| Request::Carry { moving: Vec::new(), also, reply })?;
        *noted_at = now.monotonic;
        Ok(())
    }

    /// The oldest full segment, if its time has come.
    fn plan(&self) -> Option<Pass> {
        let retention = self.retention.lock().expect("no holder of this lock can panic").clone();
        let now = self.expiry.now(moment(&*self.world.clock));
        let (segment, shelf, names) = self.peek(|state| {
            let segment = state.oldest_full()?;
            let shelf = state.shelf(segment)?.clone();
            let sources: Vec<u16> = shelf.events.iter().filter_map(|row| row.source()).collect();
            let names: BTreeMap<u16, Arc<str>> =
                sources.into_iter().map(|source| (source, state.name(source.into()))).collect();
            Some((segment, shelf, names))
        })?;
        let end = self.segments.file(segment.into()).and_then(|file| file.size()).ok()?;
        let source = |number: u16| names.get(&number).cloned();
        let fates = retention::fates(&shelf, source, &retention, now);
        let (others_done, next, going) = (false, 0, BTreeMap::new());
        let pass = Pass { segment, shelf, fates, now, retention, others_done, next, going };
        pass.is_due(end).then_some(pass)
    }

    /// What stands in the segment besides events, and must be written again.
    fn others(&self, pass: &Pass) -> Result<Vec<Fact>, StoreError> {
        let mut others = self.peek(|state| state.needed_from(pass.segment));
        others.retain(|other| !is_small(other));
        for row in &pass.shelf.audits {
            if !retention::passed(row.at_s, pass.retention.audit, pass.now) {
                let (offset, index) = (row.offset, u32::from(row.index));
                let at = Position { segment: pass.segment.into(), offset, index };
                others.push((*self.facts().read(at)?).clone());
            }
        }
        Ok(others)
    }

    /// The next events to move, and how many bytes they are.
    fn moving(&self, pass: &mut Pass) -> Result<(Vec<Moving>, u64), StoreError> {
        let (mut moving, mut bytes) = (Vec::new(), 0);
        let salt = self.segments.salts().own();
        // All of it is one frame, which must find room in a segment.
        let bytes_at_once = BYTES_AT_ONCE.min(self.options.segment_bytes / 8);
        while let Some(planned) = pass.fates.get(pass.next as usize).copied() {
            let index = pass.next;
            pass.next += 1;
            let key = EventKey { segment: pass.segment, index };
            let there = self.peek(|state| {
                let row = state.row(key).filter(|row| row.kind != RowKind::Gone)?;
                let outline = row.is_stored().then(|| Outline::of_key(state, key, row.uid));
                // What an operator took up again since the plan was made is not finished any more.
                let is_as_planned = pass
                    .shelf
                    .row(index)
                    .is_some_and(|row| pass.shelf.deliveries_of(row) == state.deliveries(key));
                let fate = if is_as_planned { planned } else { Fate::Young };
                Some((outline, state.position(key), state.stamp(key), fate))
            });
            let Some((outline, at, stamp, fate)) = there else { continue };
            if fate == Fate::Goes {
                pass.going.insert(index, stamp);
                continue;
            }
            let facts = match outline {
                None => vec![(*self.facts().read(at)?).clone()],
                Some(outline) => {
                    let view = outline.read(self.facts())?;
                    if fate == Fate::IsRemembered {
                        let outlived = self.outlived(pass, index, &view);
                        if !outlived.ids {
                            pass.going.insert(index, stamp);
                        }
                        retention::remembered(&outline, &view, &outlived, self.facts())?
                    } else {
                        let snapshot = retention::snapshot(&outline, view, self.facts())?;
                        vec![Fact::Snapshot(Box::new(snapshot))]
                    }
                }
            };
            if facts.is_empty() {
                continue;
            }
            bytes += format::frame(salt, &facts).len() as u64;
            moving.push(Moving { key, stamp, facts });
            if moving.len() >= EVENTS_AT_ONCE || bytes >= bytes_at_once {
                break;
            }
        }
        Ok((moving, bytes))
    }

    fn outlived(&self, pass: &Pass, index: u32, view: &EventView) -> Outlived {
        let since_s = retention::since_s(&pass.shelf, index);
        let times = pass.retention.of(Some(&view.envelope.source));
        let audit_after = pass.now.checked_sub(pass.retention.audit);
        Outlived {
            hashing: self.peek(|state| state.hashing),
            since: Timestamp::from_second(since_s.into()).unwrap_or(view.envelope.received_at),
            ids: !retention::passed(since_s, times.dedupe, pass.now),
            audit_after: audit_after.unwrap_or(Timestamp::MIN),
        }
    }

    /// Writes a request down and waits for its answer. Not for tasks: it blocks.
    fn ask<A>(&self, request: impl FnOnce(Reply<A>) -> Request) -> Result<A, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(request(reply));
        if !self.threaded.load(Ordering::SeqCst) {
            while self.commit_once() == Turn::Worked {}
        }
        answer.blocking_recv().unwrap_or_else(|_| Err(self.ended()))
    }

    /// The segment is retired, and that is durable.
    fn remove(&self, segment: u64) {
        self.sealed.forget(segment);
        self.segments.forget(segment);
        let removed = self.disk.remove(&segment::name(segment));
        if let Err(error) = removed.and_then(|()| self.disk.sync_folder()) {
            // The next start removes it.
            tracing::warn!(%error, segment, "the file of a retired segment stays");
        }
        let forgotten = self.peek(State::forgotten);
        for shard in 0..SHARDS {
            self.state().forget(shard);
        }
        self.state().forgot(&forgotten);
        tracing::info!(segment, "a segment of the journal was retired: all in it has expired");
        // There may be room for a spare again.
        self.wanted.notify_one();
    }
}

/// It is written again together with the mark that its segment is retired: that needs no more room than the mark itself.
fn is_small(fact: &Fact) -> bool {
    const SMALL_BYTES: usize = 64;
    matches!(fact, Fact::Cell { name, value, .. } if name.len() + value.len() <= SMALL_BYTES)
}

impl Pass {
    /// Enough of the segment has expired, or all of it long ago.
    fn is_due(&self, end: u64) -> bool {
        let rows = self.shelf.events.iter().zip(&self.fates);
        let (mut stored, mut young, mut cost) = (0u64, 0u64, 0u64);
        let mut remembered = 0u64;
        for (row, fate) in rows {
            match (row.kind, fate) {
                (RowKind::Gone, _) => {}
                (RowKind::Remembered, Fate::Goes) => {}
                (RowKind::Remembered, _) => remembered += 1,
                (RowKind::Event | RowKind::Malformed, fate) => {
                    stored += 1;
                    young += u64::from(*fate == Fate::Young);
                    cost += u64::from(matches!(fate, Fate::Young | Fate::Waits));
                    remembered += u64::from(*fate == Fate::IsRemembered);
                }
            }
        }
        let event_bytes = end.checked_div(stored).unwrap_or(0);
        let cost = cost * event_bytes + remembered * REMEMBERED_BYTES;
        let worth_it = cost <= end / 2 && young < stored.max(1);
        let newest = u64::from(self.shelf.newest_s);
        let long_ago = newest + OVERDUE.as_secs() < u64::from(seconds(self.now));
        worth_it || (young == 0 && long_ago)
    }
}
