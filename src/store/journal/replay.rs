//! Reading segments: what stands at a place, how a segment ends, and the state that its facts make. Here a torn tail, which
//! a crash leaves, is told from damage; a start and `router doctor` judge by the same code.

use super::format::{self, Found, HEADER_BYTES, Header};
use super::recovery::OpenError;
use super::segment::Segments;
use crate::store::StoreError;
use crate::store::codec::DecodeError;
use crate::store::fact::{Fact, Position};
use crate::store::hashing::Hashing;
use crate::store::page::Derivation;
use crate::store::state::{Moment, State};

/// A batch that proves itself and is what was expected.
pub(super) struct Batch<'a> {
    pub(super) header: Header,
    /// Of the header.
    pub(super) bytes: &'a [u8],
    pub(super) facts: Vec<(Position, Fact)>,
    pub(super) end: usize,
}

/// What stands where a batch is expected.
pub(super) enum Next<'a> {
    Batch(Batch<'a>),
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

pub(super) fn next_at(bytes: &[u8], offset: usize, expected: Expected) -> Next<'_> {
    let (header, body) = match format::batch_at(bytes, offset) {
        Found::Batch(header, body) => (header, body),
        Found::Newer(version) => return Next::Newer(format!("journal format {version}")),
        Found::Nothing => return Next::Nothing,
    };
    if header.segment != expected.segment {
        return Next::Wrong(format!("a batch of segment {} stands here", header.segment));
    }
    if let Some(first) = expected.first.filter(|first| *first != header.first) {
        return Next::Wrong(format!("fact {first} was expected, and {} follows", header.first));
    }
    if header.epoch < expected.epoch {
        return Next::Wrong("it was written by an earlier writer".into());
    }
    let body_at = offset + HEADER_BYTES;
    match format::facts_of(body, expected.segment, body_at) {
        Ok(facts) => Next::Batch(Batch {
            header,
            bytes: &bytes[offset..body_at],
            facts,
            end: body_at + body.len(),
        }),
        Err(error @ DecodeError::Newer { .. }) => Next::Newer(error.to_string()),
        Err(error @ (DecodeError::Broken { .. } | DecodeError::Short)) => {
            Next::Wrong(error.to_string())
        }
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
pub(super) fn tail(bytes: &[u8], offset: usize, next: u64) -> Tail {
    if format::is_blank(bytes.get(offset..).unwrap_or_default()) {
        return Tail::Blank;
    }
    match format::next_batch(bytes, offset) {
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
        let state = State::new(hashing);
        Self { place, segments, hashing, now, state, next: 0, clean: true, last: None }
    }

    /// What must come next in `segment`. `follows`: all before it was read; otherwise what was retired is not there to be
    /// counted.
    pub(super) fn expected(&self, segment: u64, follows: bool) -> Expected {
        Expected { segment, first: follows.then_some(self.next), epoch: self.state.epoch }
    }

    /// Applies the batches of a segment.
    pub(super) fn take(
        &mut self,
        number: u64,
        bytes: &[u8],
        follows: bool,
    ) -> Result<Taken, OpenError> {
        let place = self.place.clone();
        let corrupt = |offset: usize, why: String| OpenError::Corrupt {
            place: place.clone(),
            segment: number,
            offset: offset as u64,
            why,
        };
        let mut offset = 0;
        let mut derivation = Derivation::new(self.hashing);
        loop {
            let mut expected = self.expected(number, follows || offset > 0);
            if expected.first.is_none()
                && let Found::Batch(header, _) = format::batch_at(bytes, 0)
            {
                self.next = self.next.max(header.first);
                expected.first = Some(self.next);
            }
            let batch = match next_at(bytes, offset, expected) {
                Next::Batch(batch) => batch,
                Next::Nothing => break,
                Next::Wrong(why) => return Err(corrupt(offset, why)),
                Next::Newer(why) => {
                    return Err(OpenError::Newer { place, segment: number, why });
                }
            };
            if offset == 0 {
                let begun = self.state.begin_segment(number);
                begun.map_err(|error| corrupt(0, error.to_string()))?;
            }
            derivation.batch(batch.bytes);
            for (at, fact) in batch.facts {
                derivation.fact(at, &fact);
                let applied = self.state.apply(&fact, at, self.next, self.now, self.segments);
                applied.map_err(|error: StoreError| corrupt(offset, error.to_string()))?;
                self.next += fact.numbers();
                self.clean = fact == Fact::Closed;
            }
            // The mark of a writer may be among what was lost.
            self.state.epoch = self.state.epoch.max(batch.header.epoch);
            offset = batch.end;
            self.last = Some((number, offset));
        }
        let tail = tail(bytes, offset, self.next);
        match tail {
            Tail::Blank => {}
            Tail::Torn => self.clean = false,
            Tail::Damaged(at) => {
                let why = format!(
                    "the batch here does not prove itself, and a later one at {at} says that it had been synced"
                );
                return Err(corrupt(offset, why));
            }
        }
        Ok(Taken { end: offset, derivation: (offset > 0).then_some(derivation), tail })
    }
}
