//! What can be kept of a segment that is damaged: bytes go in, and the same bytes come out with each damaged place written
//! anew as one batch. In it every frame that still proves itself stands where it stood, so that whatever names its position
//! stays right, and the places between are filled by facts that say how many were lost.

use std::borrow::Cow;
use std::ops::Range;

use super::format::{self, FRAME_HEADER_BYTES, Found, HEADER_BYTES, Header, Salt};
use super::replay::{Expected, Next, Tail, next_at, tail};
use crate::store::codec;
use crate::store::fact::Fact;

/// A damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) place: Range<usize>,
    /// What is wrong there.
    pub(super) why: String,
    /// Facts in it that still prove themselves.
    pub(super) kept: u64,
    /// Facts that are gone, as far as the numbers of the others tell.
    pub(super) lost: u64,
}

pub(super) struct Salvaged {
    pub(super) holes: Vec<Hole>,
    /// The batches that go over the holes.
    pub(super) patches: Vec<(usize, Vec<u8>)>,
}

impl Salvaged {
    /// The segment as it is after the repair.
    pub(super) fn image(&self, bytes: &[u8]) -> Vec<u8> {
        let mut image = bytes.to_vec();
        for (offset, patch) in &self.patches {
            splice(&mut image, *offset, patch);
        }
        image
    }
}

fn splice(image: &mut Vec<u8>, offset: usize, patch: &[u8]) {
    let end = offset + patch.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(patch);
}

/// Looks through a segment. `after`: number of the first fact that later segments still show; `absent`: there is no file,
/// and all that was in it is lost; `open_ended`: the next segment
/// does not show what it began with. Refuses what a newer program wrote, and says what that is.
pub(super) fn look(
    salt: Salt,
    bytes: &[u8],
    mut expected: Expected,
    after: &dyn Fn() -> Option<u64>,
    (absent, open_ended): (bool, bool),
) -> Result<Salvaged, String> {
    let mut image = Cow::Borrowed(bytes);
    let (mut holes, mut patches, mut offset) = (Vec::new(), Vec::new(), 0);
    loop {
        let why = match next_at(salt, &image, offset, expected) {
            Next::Batch(batch) => {
                let numbers: u64 = batch.facts.iter().map(|(_, fact)| fact.numbers()).sum();
                expected.first = Some(batch.header.first + numbers);
                expected.epoch = expected.epoch.max(batch.header.epoch);
                offset = batch.end;
                continue;
            }
            Next::Newer(why) => return Err(why),
            Next::Wrong(why) => Some(why),
            Next::Nothing => None,
        };
        let next = expected.first.unwrap_or(0);
        let tail = tail(salt, &image, offset, next);
        let missing = absent && offset == 0;
        let why = match (why, tail) {
            (Some(why), _) => why,
            (None, Tail::Damaged(at)) => format!(
                "the batch here does not prove itself, and a later one at {at} says that it had been synced"
            ),
            // What is missing between this one and later ones was there.
            (None, Tail::Blank) if open_ended && offset > 0 => {
                return Ok(Salvaged { holes, patches });
            }
            (None, Tail::Blank | Tail::Torn) => match after().filter(|after| *after > next) {
                Some(after) => format!(
                    "the segment ends here with fact {next}, and the next one goes on with fact {after}"
                ),
                None if missing => "the file is not there".to_owned(),
                None if offset == 0 && after().is_some() => {
                    "nothing stands in the segment".to_owned()
                }
                None => return Ok(Salvaged { holes, patches }),
            },
        };
        let (hole, patch) = fill(salt, &image, offset, expected, after(), why);
        splice(image.to_mut(), offset, &patch);
        holes.push(hole);
        patches.push((offset, patch));
    }
}

/// The smallest frame: one fact without a body.
const FILLER_BYTES_MIN: usize = FRAME_HEADER_BYTES + codec::FACT_HEADER_BYTES;
/// A filler that has to be put where there was none.
const FILLER_BYTES: usize = FILLER_BYTES_MIN + 10;

/// Writes a damaged place anew.
fn fill(
    salt: Salt,
    bytes: &[u8],
    offset: usize,
    expected: Expected,
    after: Option<u64>,
    why: String,
) -> (Hole, Vec<u8>) {
    let next = expected.first.unwrap_or(0);
    let (end, later) = end_of(salt, bytes, offset, expected, after);
    // What stands there of another segment stands in that one, too.
    let is_foreign = matches!(
        format::batch_at(salt, bytes, offset),
        Found::Batch(header, _) if header.segment != expected.segment
    );
    let body = offset + HEADER_BYTES;
    let mut kept = match is_foreign {
        true => Vec::new(),
        false => frames(salt, bytes, body, end),
    };
    let end = match later {
        Some(_) => end,
        // Where nothing follows there is room for one filler at least.
        None => end.max(body + FILLER_BYTES),
    };
    let mut gaps = gaps(&mut kept, body..end);
    let until = later.map(|later| later.first).or(after);
    let facts: u64 = kept.iter().map(|frame| frame.facts).sum();
    let known = until.map(|until| until.saturating_sub(next).saturating_sub(facts));
    let mut end = end;
    if gaps.is_empty() && later.is_none() && known.is_none_or(|lost| lost > 0) {
        gaps.push(end..end + FILLER_BYTES);
        end += FILLER_BYTES;
    }
    let mut left = known.unwrap_or(gaps.len() as u64);
    let small = gaps.iter().filter(|gap| gap.len() == FILLER_BYTES_MIN).count() as u64;
    left = left.saturating_sub(small);

    let mut patch = vec![0; end - offset];
    for frame in &kept {
        patch[frame.place.start - offset..frame.place.end - offset]
            .copy_from_slice(&bytes[frame.place.clone()]);
    }
    let mut lost = 0;
    for gap in gaps {
        let room = (gap.len() - FILLER_BYTES_MIN) as u32;
        let facts = match room {
            0 => 1,
            // One byte says as many.
            1..10 => left.min(127),
            _ => left,
        };
        left -= facts.min(left);
        lost += facts;
        let filler = format::frame(salt, &[Fact::Lost { facts, bytes: room }]);
        patch[gap.start - offset..gap.end - offset].copy_from_slice(&filler);
    }
    let header = Header {
        segment: expected.segment,
        epoch: expected.epoch,
        first: next,
        durable: next,
        length: (patch.len() - HEADER_BYTES) as u32,
    };
    format::seal(salt, &mut patch, header);
    (Hole { place: offset..end, why, kept: facts, lost }, patch)
}

/// Where the damaged place that begins at `offset` ends, and the batch that goes on there.
fn end_of(
    salt: Salt,
    bytes: &[u8],
    offset: usize,
    expected: Expected,
    after: Option<u64>,
) -> (usize, Option<Header>) {
    let next = expected.first.unwrap_or(0);
    let least = offset + HEADER_BYTES + FILLER_BYTES_MIN;
    let goes_on = |at: usize, header: &Header| {
        at >= least
            && header.segment == expected.segment
            && header.first >= next
            && header.epoch >= expected.epoch
            && after.is_none_or(|after| header.first <= after)
    };
    // What it says of its length is believed where something goes on there, before what senders wrote is searched.
    let head = bytes.get(offset..).unwrap_or_default();
    let claimed = format::claimed(head).filter(|header| header.segment == expected.segment);
    if let Some(end) =
        claimed.and_then(|_| format::batch_length(head)).map(|length| offset + length)
        && end <= bytes.len()
    {
        match format::batch_at(salt, bytes, end) {
            Found::Batch(header, _) if goes_on(end, &header) => return (end, Some(header)),
            _ if format::is_blank(&bytes[end..]) => return (end, None),
            _ => {}
        }
    }
    let mut from = offset + 1;
    while let Some((at, header)) = format::next_batch(salt, bytes, from) {
        if goes_on(at, &header) {
            return (at, Some(header));
        }
        from = at + 1;
    }
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    (used.max(offset), None)
}

struct Frame {
    place: Range<usize>,
    facts: u64,
}

/// The frames that still prove themselves.
fn frames(salt: Salt, bytes: &[u8], from: usize, to: usize) -> Vec<Frame> {
    let bytes = &bytes[..to.min(bytes.len())];
    let (mut found, mut at) = (Vec::new(), from);
    while at < bytes.len() {
        if let Some(frame) = frame_at(salt, bytes, at) {
            at = frame.place.end;
            found.push(frame);
            continue;
        }
        // Its length may be whole; only where it is not, what senders wrote is searched.
        let claimed = format::frame_length(&bytes[at..]).and_then(|length| at.checked_add(length));
        let claimed =
            claimed.filter(|end| *end == bytes.len() || frame_at(salt, bytes, *end).is_some());
        at = claimed.unwrap_or_else(|| {
            (at + 1..bytes.len())
                .find(|at| frame_at(salt, bytes, *at).is_some())
                .unwrap_or(bytes.len())
        });
    }
    found
}

fn frame_at(salt: Salt, bytes: &[u8], at: usize) -> Option<Frame> {
    let rest = bytes.get(at..)?;
    let frame = rest.get(..format::frame_length(rest)?)?;
    // Cheap enough to be asked of every byte.
    if !codec::may_begin(frame.get(FRAME_HEADER_BYTES..)?) {
        return None;
    }
    let facts = codec::decode_all(format::frame_body(salt, frame)?).ok()?;
    let facts = facts.iter().map(Fact::numbers).sum();
    Some(Frame { place: at..at + frame.len(), facts })
}

/// The places between the frames. One that is too small to be filled takes the frame after it along.
fn gaps(frames: &mut Vec<Frame>, within: Range<usize>) -> Vec<Range<usize>> {
    let (mut gaps, mut at) = (Vec::new(), within.start);
    frames.retain(|frame| {
        let gap = at..frame.place.start;
        if !gap.is_empty() && gap.len() < FILLER_BYTES_MIN {
            return false;
        }
        if !gap.is_empty() {
            gaps.push(gap);
        }
        at = frame.place.end;
        true
    });
    let mut rest = at..within.end;
    while !rest.is_empty() && rest.len() < FILLER_BYTES_MIN {
        match frames.pop() {
            Some(last) => rest.start = last.place.start,
            None => rest.start = within.start,
        }
        if let Some(gap) = gaps.pop_if(|gap| gap.end == rest.start) {
            rest.start = gap.start;
        }
    }
    if !rest.is_empty() {
        gaps.push(rest);
    }
    gaps
}
