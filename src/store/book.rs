//! A text that is longer than a page, cut into the pages of one group, and put together again if it proves to be whole.

use bytes::Bytes;
use crc32c::crc32c_append;

use super::index::{Group, Index, IndexError, PageId};
use super::page::{self, BODY_BYTES_MAX, Origin};

const SALT: u32 = 0x52_42_4f_4b;
/// Length and checksum of the text.
const HEAD_BYTES: usize = 12;
/// No text is longer: what says so is none.
const TEXT_BYTES_MAX: u64 = 1 << 32;

/// Identifies a text.
pub(crate) fn checksum(text: &[u8]) -> u32 {
    crc32c_append(SALT, text)
}

/// The pages of `text`.
pub(crate) fn cut(group: Group, origin: Origin, text: &[u8]) -> Vec<Bytes> {
    let mut whole = Vec::with_capacity(HEAD_BYTES + text.len());
    whole.extend((text.len() as u64).to_le_bytes());
    whole.extend(checksum(text).to_le_bytes());
    whole.extend(text);
    let pages = whole.chunks(BODY_BYTES_MAX).zip(0..);
    pages.map(|(body, sequence)| page::seal(PageId { group, sequence }, origin, body)).collect()
}

/// The text that the pages of a group make. `None`: they make none that proves itself.
pub(crate) fn read(
    index: &dyn Index,
    group: Group,
    origin: Origin,
) -> Result<Option<Vec<u8>>, IndexError> {
    let body = |sequence| -> Result<Option<Bytes>, IndexError> {
        let id = PageId { group, sequence };
        Ok(index.get(id)?.and_then(|page| page::body_of(&page, id, origin)))
    };
    let Some(first) = body(0)? else { return Ok(None) };
    let Some((head, rest)) = first.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let [a, b, c, d, e, f, g, h, crc @ ..] = *head;
    let length = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    if length > TEXT_BYTES_MAX {
        return Ok(None);
    }
    let mut text = rest.to_vec();
    let mut sequence = 1;
    while (text.len() as u64) < length {
        let Some(more) = body(sequence)?.filter(|more| !more.is_empty()) else { return Ok(None) };
        text.extend(&more);
        sequence += 1;
    }
    let whole = text.len() as u64 == length && checksum(&text) == u32::from_le_bytes(crc);
    Ok(whole.then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::{MemoryIndex, PageKind};

    #[test]
    fn a_text_comes_back_whole_or_not_at_all() {
        let origin = Origin { journal: 1, segment: 2, mark: 3 };
        let group = Group { kind: PageKind::Rows, segment: 2, generation: 4 };
        for length in [0, 1, BODY_BYTES_MAX - HEAD_BYTES, BODY_BYTES_MAX, 100_000] {
            let text: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let index = MemoryIndex::default();
            let pages = cut(group, origin, &text);
            index.put(group, &pages).unwrap();
            assert_eq!(read(&index, group, origin).unwrap(), Some(text));
            for left_out in 0..pages.len() {
                let mut others = pages.clone();
                others.remove(left_out);
                index.put(group, &others).unwrap();
                assert_eq!(read(&index, group, origin).unwrap(), None);
            }
            index.put(group, &pages).unwrap();
            let other = Origin { mark: 4, ..origin };
            assert_eq!(read(&index, group, other).unwrap(), None);
        }
    }
}
