//! How batches stand in a segment. A batch is what one commit writes; a frame in it is one logical change: its facts are
//! there together or not at all. Both prove themselves by a checksum, the frame so that one fact can be read alone. The
//! checksum begins with a salt that senders do not know: what they write in a body never passes for a batch or a frame.

use crc32c::crc32c_append;

use crate::store::codec::{self, DecodeError};
use crate::store::fact::{Fact, Position};
use crate::store::hashing::Hashing;

const MAGIC: [u8; 4] = *b"RTRJ";

/// The format that a segment is written in, whole, and what its checksums begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt {
    version: u16,
    /// Not zero, so that zeros never prove themselves.
    start: u32,
}

/// Version 1 had the same salt in all journals. It is read, and written only where a segment of it is repaired.
pub(crate) const FIRST: Salt = Salt { version: 1, start: 0x52_4a_31_c3 };
const VERSION: u16 = 2;

/// The salts of one journal.
#[derive(Clone, Copy)]
pub(crate) struct Salts {
    own: Salt,
}

impl Salts {
    pub(crate) fn new(hashing: Hashing) -> Self {
        Self { own: Salt { version: VERSION, start: hashing.salt() | 1 } }
    }

    /// What is written anew is written with this one.
    pub(crate) fn own(&self) -> Salt {
        self.own
    }

    /// That of the segment with these first bytes, as they claim.
    pub(crate) fn of_head(&self, head: &[u8]) -> Salt {
        match claimed_version(head) {
            Some(version) if version == FIRST.version => FIRST,
            _ => self.own,
        }
    }

    /// That of a whole segment. Where its first bytes say nothing, what proves itself later says it.
    pub(crate) fn of(&self, segment: &[u8]) -> Salt {
        let says_nothing = claimed_version(segment).is_none() && !is_blank(segment);
        let is_of = |salt: &Salt| next_batch(*salt, segment, 0).is_some();
        match says_nothing {
            true => [self.own, FIRST].into_iter().find(is_of).unwrap_or(self.own),
            false => self.of_head(segment),
        }
    }
}

fn claimed_version(head: &[u8]) -> Option<u16> {
    let version = head.get(..6)?.strip_prefix(&MAGIC)?;
    let version = u16::from_le_bytes(version.try_into().ok()?);
    [FIRST.version, VERSION].contains(&version).then_some(version)
}

pub(crate) const HEADER_BYTES: usize = 48;
/// Everything before the checksum, which covers it and the body.
const CHECKED_HEADER_BYTES: usize = HEADER_BYTES - 4;
pub(crate) const FRAME_HEADER_BYTES: usize = 8;

/// Little-endian on disk: magic, format version, two bytes of zero, then these, then the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) segment: u64,
    /// Counts the writers that this journal has had.
    pub(crate) epoch: u64,
    /// Number of the batch's first fact.
    pub(crate) first: u64,
    /// All facts below this number were durable when the batch was written.
    pub(crate) durable: u64,
    /// Of the body.
    pub(crate) length: u32,
}

/// Writes the header in front of the body that follows it in `batch`.
pub(crate) fn seal(salt: Salt, batch: &mut [u8], header: Header) {
    batch[..4].copy_from_slice(&MAGIC);
    batch[4..6].copy_from_slice(&salt.version.to_le_bytes());
    batch[6..8].copy_from_slice(&[0, 0]);
    batch[8..16].copy_from_slice(&header.segment.to_le_bytes());
    batch[16..24].copy_from_slice(&header.epoch.to_le_bytes());
    batch[24..32].copy_from_slice(&header.first.to_le_bytes());
    batch[32..40].copy_from_slice(&header.durable.to_le_bytes());
    batch[40..44].copy_from_slice(&header.length.to_le_bytes());
    let crc = checksum(salt, &batch[..CHECKED_HEADER_BYTES], &batch[HEADER_BYTES..]);
    batch[44..48].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(salt: Salt, head: &[u8], body: &[u8]) -> u32 {
    crc32c_append(crc32c_append(salt.start, head), body)
}

/// Appends a frame with `facts`.
pub(crate) fn frame(salt: Salt, facts: &[Fact]) -> Vec<u8> {
    let mut bytes = vec![0; FRAME_HEADER_BYTES];
    for fact in facts {
        codec::encode(fact, &mut bytes);
    }
    let length = (bytes.len() - FRAME_HEADER_BYTES) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(salt, &bytes[..4], &bytes[FRAME_HEADER_BYTES..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Length of the frame whose first bytes are given, header included.
pub(crate) fn frame_length(head: &[u8]) -> Option<usize> {
    let length: [u8; 4] = head.get(..4)?.try_into().ok()?;
    Some(FRAME_HEADER_BYTES + u32::from_le_bytes(length) as usize)
}

/// The body of a whole frame, if it proves itself.
pub(crate) fn frame_body(salt: Salt, frame: &[u8]) -> Option<&[u8]> {
    let (head, body) = frame.split_at_checked(FRAME_HEADER_BYTES)?;
    let crc: [u8; 4] = head[4..8].try_into().ok()?;
    (frame_length(head)? == frame.len()
        && checksum(salt, &head[..4], body) == u32::from_le_bytes(crc))
    .then_some(body)
}

/// What stands at a place of a segment.
pub(crate) enum Found<'a> {
    Batch(Header, &'a [u8]),
    /// A batch that proves itself and has a later format.
    Newer(u16),
    Nothing,
}

/// The batch at `offset`, if one proves itself there.
pub(crate) fn batch_at(salt: Salt, segment: &[u8], offset: usize) -> Found<'_> {
    let Some(bytes) = segment.get(offset..) else { return Found::Nothing };
    let Some((head, rest)) = bytes.split_at_checked(HEADER_BYTES) else { return Found::Nothing };
    if head[..4] != MAGIC {
        return Found::Nothing;
    }
    let long = |at: usize| {
        u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes are eight bytes"))
    };
    let short = |at: usize| {
        u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes are four bytes"))
    };
    let length = short(40);
    let Some(body) = rest.get(..length as usize) else { return Found::Nothing };
    if checksum(salt, &head[..CHECKED_HEADER_BYTES], body) != short(44) {
        return Found::Nothing;
    }
    let version = u16::from_le_bytes([head[4], head[5]]);
    if version != salt.version {
        return Found::Newer(version);
    }
    let header =
        Header { segment: long(8), epoch: long(16), first: long(24), durable: long(32), length };
    Found::Batch(header, body)
}

/// What looks like the header of a batch, whether it proves itself or not.
pub(crate) fn claimed(head: &[u8]) -> Option<Header> {
    let head = head.first_chunk::<HEADER_BYTES>().filter(|head| head[..4] == MAGIC)?;
    let long = |at: usize| {
        u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes are eight bytes"))
    };
    let length = head[40..44].try_into().expect("four bytes are four bytes");
    let length = u32::from_le_bytes(length);
    Some(Header { segment: long(8), epoch: long(16), first: long(24), durable: long(32), length })
}

/// Length of the batch whose header is given, header included.
pub(crate) fn batch_length(head: &[u8]) -> Option<usize> {
    let length: [u8; 4] = head.get(40..HEADER_BYTES)?[..4].try_into().ok()?;
    Some(HEADER_BYTES + u32::from_le_bytes(length) as usize)
}

/// Nothing was written here since the segment was prepared.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    const ZEROS: &[u8] = &[0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

/// A later batch that proves itself, searched byte by byte from `offset`.
pub(crate) fn next_batch(salt: Salt, segment: &[u8], offset: usize) -> Option<(usize, Header)> {
    let candidates = offset..segment.len().saturating_sub(HEADER_BYTES);
    candidates.filter(|at| segment[*at..].starts_with(&MAGIC)).find_map(|at| {
        match batch_at(salt, segment, at) {
            Found::Batch(header, _) => Some((at, header)),
            Found::Newer(_) | Found::Nothing => None,
        }
    })
}

/// The facts of a batch's body, with their positions. `at`: where the body begins.
pub(crate) fn facts_of(
    salt: Salt,
    body: &[u8],
    segment: u64,
    at: usize,
) -> Result<Vec<(Position, Fact)>, DecodeError> {
    let mut facts = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let length = frame_length(rest).ok_or(DecodeError::Short)?;
        let (frame, after) = rest.split_at_checked(length).ok_or(DecodeError::Short)?;
        let offset = (at + body.len() - rest.len()) as u32;
        let frame = frame_body(salt, frame).ok_or(DecodeError::Short)?;
        for (fact, index) in codec::decode_all(frame)?.into_iter().zip(0..) {
            facts.push((Position { segment, offset, index }, fact));
        }
        rest = after;
    }
    Ok(facts)
}

/// A batch as a later program would write it.
#[cfg(test)]
pub(crate) fn reseal_as_version(salt: Salt, batch: &mut [u8], version: u16) {
    batch[4..6].copy_from_slice(&version.to_le_bytes());
    let crc = checksum(salt, &batch[..CHECKED_HEADER_BYTES], &batch[HEADER_BYTES..]);
    batch[44..48].copy_from_slice(&crc.to_le_bytes());
}
