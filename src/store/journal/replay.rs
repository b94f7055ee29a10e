//! Reading segments: what stands at a place, how a segment ends, and the state that its facts make. Here a torn tail, which
//! a crash leaves, is told from damage; a start and `router doctor` judge by the same code.

use std::sync::mpsc::{self, Receiver, Sender, SyncSender};

use super::format::{self, Found, HEADER_BYTES, Header, Salt};
use super::recovery::OpenError;
use super::segment::Segments;
use crate::store::StoreError;
use crate::store::codec::DecodeError;
use crate::store::fact::{Fact, Position};
use crate::store::hashing::Hashing;
use crate::store::page::Derivation;
use crate::store::state::{Moment, State};

/// A batch that proves itself.
pub(super) struct Batch {
    pub(super) header: Header,
    pub(super) facts: Vec<(Position, Fact)>,
    pub(super) end: usize,
}

/// What stands where a batch is expected.
pub(super) enum Next {
    Batch(Batch),
    /// Nothing that proves itself.
    Nothing,
    /// A batch that does not belong there, and why.
    Wrong(String),
    /// A later program wrote it.
    Newer(String),
}

/// What the next batch must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) segment: u64,
    /// Number of its first fact; `None`: nobody knows.
    pub(super) first: Option<u64>,
    /// Of the newest writer so far.
    pub(super) epoch: u64,
}

/// What stands there, by itself.
fn read_at(salt: Salt, bytes: &[u8], offset: usize, segment: u64) -> Next {
    let (header, body) = match format::batch_at(salt, bytes, offset) {
        Found::Batch(header, body) => (header, body),
        Found::Newer(version) => return Next::Newer(format!("journal format {version}")),
        Found::Nothing => return Next::Nothing,
    };
    if header.segment != segment {
        return Next::Wrong(format!("a batch of segment {} stands here", header.segment));
    }
    let body_at = offset + HEADER_BYTES;
    match format::facts_of(salt, body, segment, body_at) {
        Ok(facts) => Next::Batch(Batch { header, facts, end: body_at + body.len() }),
        Err(error @ DecodeError::Newer { .. }) => Next::Newer(error.to_string()),
        Err(error @ (DecodeError::Broken { .. } | DecodeError::Short)) => {
            Next::Wrong(error.to_string())
        }
    }
}

impl Expected {
    /// Why a batch with this header cannot follow, if it cannot.
    fn refuses(&self, header: &Header) -> Option<String> {
        if let Some(first) = self.first.filter(|first| *first != header.first) {
            return Some(format!("fact {first} was expected, and {} follows", header.first));
        }
        (header.epoch < self.epoch).then(|| "it was written by an earlier writer".into())
    }
}

pub(super) fn next_at(salt: Salt, bytes: &[u8], offset: usize, expected: Expected) -> Next {
    match read_at(salt, bytes, offset, expected.segment) {
        Next::Batch(batch) => match expected.refuses(&batch.header) {
            Some(why) => Next::Wrong(why),
            None => Next::Batch(batch),
        },
        other => other,
    }
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing was written there.
    Blank,
    /// A write that did not come to its end. Nothing of it was acknowledged.
    Torn,
    /// What stood there had been synced: a later batch, at this offset, says so.
    Damaged(usize),
}

/// What `bytes` hold from `offset` on, where no batch proves itself. `next`: number of the next fact.
pub(super) fn tail(salt: Salt, bytes: &[u8], offset: usize, next: u64) -> Tail {
    if format::is_blank(bytes.get(offset..).unwrap_or_default()) {
        return Tail::Blank;
    }
    match format::next_batch(salt, bytes, offset) {
        Some((at, later)) if later.durable > next => Tail::Damaged(at),
        _ => Tail::Torn,
    }
}

/// Applies segment after segment to a state.
pub(super) struct Replay<'a> {
    place: String,
    segments: &'a Segments,
    hashing: Hashing,
    now: Moment,
    pub(super) state: State,
    /// Number of the next fact.
    pub(super) next: u64,
    /// The last fact was the mark of a clean end, and nothing stood after it.
    pub(super) clean: bool,
    /// The newest segment with a batch, and where its batches end.
    pub(super) last: Option<(u64, usize)>,
}

/// What one segment held.
pub(super) struct Taken {
    /// Where its batches end.
    pub(super) end: usize,
    /// `None`: there are no batches.
    pub(super) derivation: Option<Derivation>,
    /// Blank or torn; anything else is an error.
    pub(super) tail: Tail,
}

impl<'a> Replay<'a> {
    pub(super) fn new(
        place: String,
        segments: &'a Segments,
        hashing: Hashing,
        now: Moment,
    ) -> Self {
        let mut state = State::new(hashing);
        state.is_reading = true;
        Self { place, segments, hashing, now, state, next: 0, clean: true, last: None }
    }

    /// What must come next in `segment`. `follows`: all before it was read; otherwise what was retired is not there to be
    /// counted.
    pub(super) fn expected(&self, segment: u64, follows: bool) -> Expected {
        Expected { segment, first: follows.then_some(self.next), epoch: self.state.epoch }
    }

    /// Applies the batches of a segment. They are read, and their pages derived, on another thread meanwhile.
    pub(super) fn take(
        &mut self,
        number: u64,
        bytes: &[u8],
        follows: bool,
    ) -> Result<Taken, OpenError> {
        let (hashing, salt) = (self.hashing, self.segments.salts().of(bytes));
        let (send, batches) = mpsc::sync_channel(BATCHES_AHEAD);
        // What was applied is freed where it was made: memory that goes from thread to thread costs more than all the rest.
        let (give_back, applied_batches) = mpsc::channel();
        let (end, derivation, last) = std::thread::scope(|scope| {
            let reader = scope
                .spawn(move || read_all(salt, bytes, number, hashing, &send, &applied_batches));
            let applied = self.apply_all(number, &batches, &give_back, follows);
            // A reader that is ahead of a failure finds nobody to send to, and ends.
            drop(batches);
            let (derivation, last) = reader.join().expect("whoever reads does not panic");
            applied.map(|end| (end, derivation, last))
        })?;
        match last {
            Next::Batch(_) | Next::Nothing => {}
            Next::Wrong(why) => return Err(self.corrupt(number, end, why)),
            Next::Newer(why) => {
                return Err(OpenError::Newer { place: self.place.clone(), segment: number, why });
            }
        }
        let tail = tail(salt, bytes, end, self.next);
        match tail {
            Tail::Blank => {}
            Tail::Torn => self.clean = false,
            Tail::Damaged(at) => {
                let why = format!(
                    "the batch here does not prove itself, and a later one at {at} says that it had been synced"
                );
                return Err(self.corrupt(number, end, why));
            }
        }
        Ok(Taken { end, derivation: (end > 0).then_some(derivation), tail })
    }

    fn corrupt(&self, segment: u64, offset: usize, why: String) -> OpenError {
        OpenError::Corrupt { place: self.place.clone(), segment, offset: offset as u64, why }
    }

    /// Applies batch after batch. Answers where the last one ends.
    fn apply_all(
        &mut self,
        number: u64,
        batches: &Receiver<Batch>,
        give_back: &Sender<Batch>,
        follows: bool,
    ) -> Result<usize, OpenError> {
        let mut offset = 0;
        for batch in batches {
            if offset == 0 {
                if !follows {
                    // What stands before a gap was retired with it, or the start stops. It says nothing about what follows.
                    let mut state = State::new(self.hashing);
                    (state.has_gaps, state.is_reading) = (true, true);
                    (state.newest, state.retired) = (self.state.newest, self.state.retired);
                    state.epoch = self.state.epoch;
                    self.state = state;
                    self.next = batch.header.first;
                }
                let begun = self.state.begin_segment(number);
                begun.map_err(|error| self.corrupt(number, 0, error.to_string()))?;
            }
            if let Some(why) = self.expected(number, true).refuses(&batch.header) {
                return Err(self.corrupt(number, offset, why));
            }
            for (at, fact) in &batch.facts {
                let applied = self.state.apply(fact, *at, self.next, self.now, self.segments);
                applied
                    .map_err(|error: StoreError| self.corrupt(number, offset, error.to_string()))?;
                self.next += fact.numbers();
                self.clean = *fact == Fact::Closed;
            }
            // The mark of a writer may be among what was lost.
            self.state.epoch = self.state.epoch.max(batch.header.epoch);
            offset = batch.end;
            self.last = Some((number, offset));
            // The reader may have come to its end.
            drop(give_back.send(batch));
        }
        Ok(offset)
    }
}

/// Batches that are read before they are applied.
const BATCHES_AHEAD: usize = 16;

/// Sends batch after batch. Answers what was derived of them, and what stands where none follows.
fn read_all(
    salt: Salt,
    bytes: &[u8],
    number: u64,
    hashing: Hashing,
    send: &SyncSender<Batch>,
    applied: &Receiver<Batch>,
) -> (Derivation, Next) {
    let mut derivation = Derivation::new(hashing);
    let mut offset = 0;
    loop {
        applied.try_iter().for_each(drop);
        match read_at(salt, bytes, offset, number) {
            Next::Batch(batch) => {
                derivation.batch(&bytes[offset..offset + HEADER_BYTES]);
                for (at, fact) in &batch.facts {
                    derivation.fact(*at, fact);
                }
                offset = batch.end;
                if send.send(batch).is_err() {
                    return (derivation, Next::Nothing);
                }
            }
            other => return (derivation, other),
        }
    }
}
