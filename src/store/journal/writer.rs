//! The writer's pure step: requests go in, in order; bytes, acknowledgements and a new state come out. It touches no
//! disk. Who runs it writes the bytes, syncs them, and only then calls the acknowledgements.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::format::{self, HEADER_BYTES, Header, Salt};
use super::segment::{self, Segments};
use crate::delivery::state::Entry;
use crate::name::{DeliveryId, RevisionHash, SourceName, Uid};
use crate::store::captured::{Capture, CapturedSecret, DroppedSecret};
use crate::store::checkpoint::Mark;
use crate::store::decide::import;
use crate::store::decide::retention::{self, Moving};
use crate::store::decide::{self, Decision};
use crate::store::fact::{Fact, Position, ReadFacts};
use crate::store::portable::{Content, Taken};
use crate::store::state::{Moment, State};
use crate::store::{
    Acceptance, Change, Durability, Fence, NewDelivery, NewEvent, Operated, Operation, Recorded,
    StoreError,
};

pub(crate) type Reply<A> = oneshot::Sender<Result<A, StoreError>>;

/// What somebody wants of the journal.
pub(crate) enum Request {
    Accept {
        events: Vec<NewEvent>,
        permit: OwnedSemaphorePermit,
        reply: Reply<Vec<Acceptance>>,
    },
    Record {
        delivery: DeliveryId,
        fence: Fence,
        version: u64,
        change: Box<Change>,
        durability: Durability,
        reply: Reply<Recorded>,
    },
    Operate {
        operation: Box<Operation>,
        reply: Reply<Operated>,
    },
    Route {
        uid: Uid,
        entry: Entry,
        deliveries: Vec<NewDelivery>,
        reply: Reply<Vec<DeliveryId>>,
    },
    Revision {
        hash: RevisionHash,
        text: Arc<str>,
        reply: Reply<()>,
    },
    /// A record of an export. It waits with the new events, for it brings work, too.
    Import {
        content: Content,
        permit: OwnedSemaphorePermit,
        reply: Reply<Taken>,
    },
    /// A secret of a handshake. It waits with the new events: where there is no room for them, there is none for it.
    Capture {
        secret: Box<CapturedSecret>,
        permit: OwnedSemaphorePermit,
        reply: Reply<Capture>,
    },
    DropSecret {
        source: SourceName,
        dropped: DroppedSecret,
        reply: Reply<bool>,
    },
    /// Events move to the newest segment, and facts are written again.
    Carry {
        moving: Vec<Moving>,
        also: Vec<Fact>,
        reply: Reply<usize>,
    },
    /// A segment goes for good.
    Retire {
        segment: u32,
        /// The rows that go with it, and what they were when that was decided.
        going: BTreeMap<u32, u64>,
        /// Small states that stand in it, written again in the same change.
        also: Vec<Fact>,
        reply: Reply<bool>,
    },
    Close {
        reply: Reply<()>,
    },
}

impl Request {
    /// Answers with an error instead. Nobody may be waiting any more, which is as good.
    pub(crate) fn refuse(self, error: StoreError) {
        match self {
            Request::Accept { reply, .. } => drop(reply.send(Err(error))),
            Request::Record { reply, .. } => drop(reply.send(Err(error))),
            Request::Operate { reply, .. } => drop(reply.send(Err(error))),
            Request::Route { reply, .. } => drop(reply.send(Err(error))),
            Request::Revision { reply, .. } => drop(reply.send(Err(error))),
            Request::Import { reply, .. } => drop(reply.send(Err(error))),
            Request::Capture { reply, .. } => drop(reply.send(Err(error))),
            Request::DropSecret { reply, .. } => drop(reply.send(Err(error))),
            Request::Carry { reply, .. } => drop(reply.send(Err(error))),
            Request::Retire { reply, .. } => drop(reply.send(Err(error))),
            Request::Close { reply } => drop(reply.send(Err(error))),
        }
    }
}

/// Two queues: what finishes work goes before what brings new work in.
#[derive(Default)]
pub(crate) struct Queues {
    pub(crate) first: VecDeque<Request>,
    pub(crate) ingest: VecDeque<Request>,
}

/// Calls back once what it stands for is durable, or will never be.
pub(crate) type Ack = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A request, decided; not applied yet.
struct Decided {
    facts: Vec<Fact>,
    frame: Vec<u8>,
    after: u64,
    /// The answer need not wait for the medium, only for the order.
    early: bool,
    /// It brings new events in.
    ingest: bool,
    ack: Ack,
}

/// Bytes for one write at `offset` of `segment`, and what to do once they are synced.
pub(crate) struct Commit {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) acks: Vec<Ack>,
    /// All facts below this number are durable then.
    pub(crate) durable: u64,
}

/// What the step came to.
pub(crate) enum Step {
    /// Nothing to write.
    Idle,
    Commit(Commit),
    /// The active segment is full; give the next one with [`Writer::roll`] and step again.
    Full,
}

pub(crate) struct Writer {
    segments: Arc<Segments>,
    epoch: u64,
    segment: u64,
    segment_bytes: u64,
    /// Where the next batch begins.
    offset: u64,
    /// Of the last batch.
    header: [u8; HEADER_BYTES],
    /// Number of the next fact.
    next: u64,
    /// Facts below this number are durable.
    durable: u64,
    commit_bytes_max: usize,
    backlog_max: u64,
    carried: Option<Decided>,
    /// Who asked for the end.
    closing: Option<Reply<()>>,
}

/// The batch that is being made.
struct Batch {
    bytes: Vec<u8>,
    first: u64,
    acks: Vec<Ack>,
}

/// Reads facts from the batch in the making, and from the files.
struct Reader<'a> {
    segments: &'a Segments,
    segment: u64,
    offset: u64,
    batch: &'a [u8],
}

impl ReadFacts for Reader<'_> {
    fn read(&self, at: Position) -> Result<Arc<Fact>, StoreError> {
        if at.segment != self.segment || u64::from(at.offset) < self.offset {
            return self.segments.read(at);
        }
        let rest = self.batch.get((u64::from(at.offset) - self.offset) as usize..);
        let frame = rest.and_then(|rest| rest.get(..format::frame_length(rest)?));
        let frame = frame.ok_or_else(|| StoreError::Corrupt(format!("nothing stands at {at}")))?;
        segment::fact_of(self.segments.salts().own(), frame, at)
    }
}

impl Writer {
    pub(crate) fn new(
        segments: Arc<Segments>,
        (segment, segment_bytes): (u64, u64),
        (epoch, next): (u64, u64),
        commit_bytes_max: usize,
        backlog_max: u64,
    ) -> Self {
        Self {
            segments,
            epoch,
            segment,
            segment_bytes,
            offset: 0,
            header: [0; HEADER_BYTES],
            next,
            durable: next,
            commit_bytes_max,
            backlog_max,
            carried: None,
            closing: None,
        }
    }

    /// Goes on in a prepared segment. Answers where the one that is full ends.
    pub(crate) fn roll(&mut self, segment: u64) -> Mark {
        let mark = self.mark();
        self.segment = segment;
        self.offset = 0;
        mark
    }

    /// Where the journal stands.
    pub(crate) fn mark(&self) -> Mark {
        let (segment, end, next) = (self.segment, self.offset, self.next);
        Mark { segment, end, next, header: self.header.to_vec() }
    }

    /// The active segment.
    pub(crate) fn segment(&self) -> u64 {
        self.segment
    }

    /// New events that found no room in the active segment, and for which there will be none.
    pub(crate) fn refuse_carried(&mut self, error: StoreError) {
        if let Some(carried) = self.carried.take_if(|carried| carried.ingest) {
            (carried.ack)(Err(error));
        }
    }

    /// Nothing more will be written.
    pub(crate) fn refuse_all(&mut self, error: StoreError) {
        if let Some(carried) = self.carried.take() {
            (carried.ack)(Err(error.clone()));
        }
        if let Some(reply) = self.closing.take() {
            // Whoever asked may have gone away.
            drop(reply.send(Err(error)));
        }
    }

    /// Bytes in the journal, with what a full segment left unused.
    #[cfg(test)]
    pub(crate) fn written(&self) -> u64 {
        (self.segment - 1) * self.segment_bytes + self.offset
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// One commit's worth of requests. `accepting`: a spare segment is there for new events; otherwise they wait.
    pub(crate) fn step(
        &mut self,
        state: &mut State,
        queues: &mut Queues,
        accepting: bool,
        now: Moment,
    ) -> Result<Step, StoreError> {
        let mut batch = Batch { bytes: vec![0; HEADER_BYTES], first: self.next, acks: Vec::new() };
        while batch.bytes.len() < self.commit_bytes_max {
            let decided = match self.carried.take() {
                Some(carried) => Some(carried),
                None => {
                    let request = queues
                        .first
                        .pop_front()
                        .or_else(|| accepting.then(|| queues.ingest.pop_front()).flatten());
                    let Some(request) = request else { break };
                    self.decide(state, &batch, request)
                }
            };
            let Some(decided) = decided else { continue };
            let room = self.segment_bytes.saturating_sub(self.offset) as usize;
            if batch.bytes.len() + decided.frame.len() > room {
                if decided.frame.len() + HEADER_BYTES > self.segment_bytes as usize {
                    (decided.ack)(Err(StoreError::Refusing(format!(
                        "{} bytes in one piece are more than a segment of the journal holds",
                        decided.frame.len()
                    ))));
                    continue;
                }
                self.carried = Some(decided);
                if batch.bytes.len() == HEADER_BYTES {
                    // Nothing that is acknowledged here has anything left to wait for.
                    for ack in batch.acks {
                        ack(Ok(()));
                    }
                    return Ok(Step::Full);
                }
                break;
            }
            self.take(state, &mut batch, decided, now)?;
        }
        Ok(self.finish(batch))
    }

    /// Ends without having written all: there is no room. Answers who asked for the end, if somebody did.
    pub(crate) fn give_up(&mut self) -> Option<Reply<()>> {
        self.closing.take()
    }

    /// The last batch of all. To be called when everything before is durable.
    pub(crate) fn close(&mut self) -> Option<(Commit, Reply<()>)> {
        let reply = self.closing.take()?;
        let mut batch = Batch { bytes: vec![0; HEADER_BYTES], first: self.next, acks: Vec::new() };
        batch.bytes.extend(format::frame(self.salt(), &[Fact::Closed]));
        self.next += 1;
        match self.finish(batch) {
            // Without room for the mark the next start takes the end for a crash, and loses nothing by it.
            Step::Commit(commit)
                if commit.offset + commit.bytes.len() as u64 <= self.segment_bytes =>
            {
                Some((commit, reply))
            }
            Step::Commit(_) | Step::Idle | Step::Full => {
                drop(reply.send(Ok(())));
                None
            }
        }
    }

    /// The first batch of a writer.
    pub(crate) fn open(
        &mut self,
        state: &mut State,
        expiry: Fact,
        now: Moment,
    ) -> Result<Step, StoreError> {
        let facts = vec![Fact::Opened { epoch: self.epoch }, expiry];
        let frame = format::frame(self.salt(), &facts);
        let mut batch = Batch { bytes: vec![0; HEADER_BYTES], first: self.next, acks: Vec::new() };
        let ack = Box::new(|_| ());
        state.begin_segment(self.segment)?;
        let decided =
            Decided { facts, frame, after: decide::AFTER_ALL, early: false, ingest: false, ack };
        self.take(state, &mut batch, decided, now)?;
        Ok(self.finish(batch))
    }

    fn salt(&self) -> Salt {
        self.segments.salts().own()
    }

    fn decide(&mut self, state: &State, batch: &Batch, request: Request) -> Option<Decided> {
        let reader = Reader {
            segments: &self.segments,
            segment: self.segment,
            offset: self.offset,
            batch: &batch.bytes,
        };
        let salt = self.salt();
        match request {
            Request::Accept { events, permit, reply } => decided(
                salt,
                decide::accept(state, &reader, events, self.backlog_max),
                reply,
                Some(permit),
            ),
            Request::Record { delivery, fence, version, change, durability, reply } => {
                let decision = decide::record(state, &reader, delivery, fence, version, *change);
                decided(salt, decision, reply, None).map(|decided| Decided {
                    early: durability == Durability::Ordered && !decided.facts.is_empty(),
                    ..decided
                })
            }
            Request::Operate { operation, reply } => {
                decided(salt, decide::operate(state, &reader, *operation), reply, None)
            }
            Request::Route { uid, entry, deliveries, reply } => {
                decided(salt, decide::route(state, &reader, uid, entry, deliveries), reply, None)
            }
            Request::Revision { hash, text, reply } => {
                decided(salt, Ok(decide::revision(state, hash, text)), reply, None)
            }
            Request::Import { content, permit, reply } => {
                let decision = import::import(state, &reader, content, self.backlog_max);
                decided(salt, decision, reply, Some(permit))
            }
            Request::Capture { secret, permit, reply } => {
                decided(salt, Ok(decide::capture(state, *secret)), reply, Some(permit))
            }
            Request::DropSecret { source, dropped, reply } => {
                decided(salt, Ok(decide::drop_secret(state, &source, dropped)), reply, None)
            }
            Request::Carry { moving, also, reply } => {
                decided(salt, Ok(retention::carry(state, moving, also)), reply, None)
            }
            Request::Retire { segment, going, also, reply } => {
                decided(salt, Ok(retention::retire(state, segment, &going, also)), reply, None)
            }
            Request::Close { reply } => {
                self.closing = Some(reply);
                None
            }
        }
    }

    /// Puts a decided request into the batch, and its facts into the state.
    fn take(
        &mut self,
        state: &mut State,
        batch: &mut Batch,
        decided: Decided,
        now: Moment,
    ) -> Result<(), StoreError> {
        let offset = (self.offset as usize + batch.bytes.len()) as u32;
        batch.bytes.extend_from_slice(&decided.frame);
        for (fact, index) in decided.facts.iter().zip(0..) {
            let at = Position { segment: self.segment, offset, index };
            let reader = Reader {
                segments: &self.segments,
                segment: self.segment,
                offset: self.offset,
                batch: &batch.bytes,
            };
            state.apply(fact, at, self.next, now, &reader)?;
            self.next += 1;
        }
        if decided.early || decided.after <= self.durable {
            (decided.ack)(Ok(()));
        } else {
            batch.acks.push(decided.ack);
        }
        Ok(())
    }

    fn finish(&mut self, mut batch: Batch) -> Step {
        if batch.bytes.len() == HEADER_BYTES {
            for ack in batch.acks {
                ack(Ok(()));
            }
            return Step::Idle;
        }
        let header = Header {
            segment: self.segment,
            epoch: self.epoch,
            first: batch.first,
            durable: self.durable,
            length: (batch.bytes.len() - HEADER_BYTES) as u32,
        };
        format::seal(self.salt(), &mut batch.bytes, header);
        self.header.copy_from_slice(&batch.bytes[..HEADER_BYTES]);
        let offset = self.offset;
        self.offset += batch.bytes.len() as u64;
        // True only once the commit is synced; nothing else is decided before that.
        self.durable = self.next;
        Step::Commit(Commit {
            segment: self.segment,
            offset,
            bytes: batch.bytes,
            acks: batch.acks,
            durable: self.next,
        })
    }
}

/// Ties a decision to its answer. An error is answered at once.
fn decided<A: Send + 'static>(
    salt: Salt,
    decision: Result<Decision<A>, StoreError>,
    reply: Reply<A>,
    permit: Option<OwnedSemaphorePermit>,
) -> Option<Decided> {
    match decision {
        Ok(Decision { facts, answer, after }) => {
            let frame = if facts.is_empty() { Vec::new() } else { format::frame(salt, &facts) };
            let ingest = permit.is_some();
            let ack: Ack = Box::new(move |outcome| {
                // Whoever asked may have gone away.
                drop(reply.send(outcome.map(|()| answer)));
                drop(permit);
            });
            Some(Decided { facts, frame, after, early: false, ingest, ack })
        }
        Err(error) => {
            drop(reply.send(Err(error)));
            None
        }
    }
}
