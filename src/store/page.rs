//! Pages: what is derived from one sealed segment for looking up and listing, packed. Facts of a segment go in, pages come
//! out; bytes go in, and what stands in them comes out if they prove themselves: by a checksum, and by naming the journal
//! and the very batches that they were derived from. The layout is a format on disk.

use std::sync::Arc;

use bytes::Bytes;
use crc32c::crc32c_append;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::fact::{Fact, Position};
use super::hashing::Hashing;
use super::index::{PAGE_BYTES_MAX, PageId, PageKind};
use crate::envelope::Envelope;
use crate::name::{CorrelationId, EventId, SourceName, Uid};

const MAGIC: [u8; 4] = *b"RTRP";
const FORMAT_VERSION: u16 = 1;
/// Not zero, so that zeros never prove themselves.
const SALT: u32 = 0x52_50_47_45;
const HEADER_BYTES: usize = 40;
const CHECKED_HEADER_BYTES: usize = HEADER_BYTES - 4;
const ID_BYTES: usize = 16;
const IDS_A_PAGE: usize = (PAGE_BYTES_MAX - HEADER_BYTES) / ID_BYTES;

/// Where a fact stands in its segment: offset of the frame, and number within it.
pub(crate) type Place = (u32, u32);

/// What a page must have been derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) journal: u64,
    pub(crate) segment: u64,
    /// Of the segment's batches: a journal that was put back from a backup writes other ones under the same number.
    pub(crate) mark: u32,
}

/// What is shown of an event besides its state; it never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) event_id: EventId,
    pub(crate) event_type: Arc<str>,
    pub(crate) source: SourceName,
    pub(crate) correlation_id: CorrelationId,
    pub(crate) received_at: Timestamp,
}

impl About {
    pub(crate) fn of(envelope: &Envelope) -> Self {
        Self {
            event_id: envelope.event_id.clone(),
            event_type: envelope.event_type.as_str().into(),
            source: envelope.source.clone(),
            correlation_id: envelope.correlation_id.clone(),
            received_at: envelope.received_at,
        }
    }
}

/// An event on a page of summaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) place: Place,
    pub(crate) uid: Uid,
    /// `None`: its texts are too long for a page, and are read in the fact.
    pub(crate) about: Option<About>,
}

#[derive(Serialize, Deserialize)]
struct StoredSummary<'a> {
    place: Place,
    uid: Uid,
    /// Event id, type, source, correlation id, and nanoseconds since 1970.
    #[serde(borrow)]
    about: Option<(&'a str, &'a str, &'a str, &'a str, i128)>,
}

/// Texts of an event beyond this are not put on a page.
const TEXTS_BYTES_MAX: usize = 2 << 10;

/// Takes in the facts of one segment, in order.
pub(crate) struct Derivation {
    hashing: Hashing,
    mark: u32,
    ids: Vec<(u64, Place)>,
    /// Bodies of the pages of summaries; the last one is being filled.
    summaries: Vec<Vec<u8>>,
    firsts: Vec<Place>,
    events: Vec<(Uid, Place)>,
}

/// A segment's pages, and how to find the right one.
pub(crate) struct Derived {
    pub(crate) pages: Vec<(PageId, Bytes)>,
    pub(crate) contents: Contents,
    /// The events that were accepted in the segment.
    pub(crate) events: Vec<(Uid, Place)>,
}

/// What is remembered of a segment's pages: their origin, and what each begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) origin: Origin,
    pub(crate) ids: Vec<u64>,
    pub(crate) summaries: Vec<Place>,
}

impl Derivation {
    pub(crate) fn new(hashing: Hashing) -> Self {
        Self {
            hashing,
            mark: SALT,
            ids: Vec::new(),
            summaries: Vec::new(),
            firsts: Vec::new(),
            events: Vec::new(),
        }
    }

    /// A batch begins, which has this header.
    pub(crate) fn batch(&mut self, header: &[u8]) {
        self.mark = crc32c_append(self.mark, header);
    }

    pub(crate) fn fact(&mut self, at: Position, fact: &Fact) {
        let Fact::Accepted(accepted) = fact else { return };
        let envelope = &accepted.envelope;
        let place = (at.offset, at.index);
        self.events.push((envelope.uid, place));
        self.ids.push((self.hashing.text(envelope.event_id.as_str()), place));
        let texts = [
            envelope.event_id.as_str(),
            &envelope.event_type,
            envelope.source.as_str(),
            envelope.correlation_id.as_str(),
        ];
        let [id, kind, source, correlation] = texts;
        let fits = texts.iter().map(|text| text.len()).sum::<usize>() <= TEXTS_BYTES_MAX;
        let received_at = envelope.received_at.as_nanosecond();
        let about = fits.then_some((id, kind, source, correlation, received_at));
        let stored = postcard::to_stdvec(&StoredSummary { place, uid: envelope.uid, about })
            .expect("a growing buffer takes all; no shape here refuses");
        match self.summaries.last_mut() {
            Some(page) if HEADER_BYTES + page.len() + stored.len() <= PAGE_BYTES_MAX => {
                page.extend(stored);
            }
            _ => {
                self.firsts.push(place);
                self.summaries.push(stored);
            }
        }
    }

    pub(crate) fn finish(mut self, segment: u64) -> Derived {
        self.ids.sort_unstable();
        let origin = Origin { journal: self.hashing.journal(), segment, mark: self.mark };
        let ids = self.ids.chunks(IDS_A_PAGE);
        let bodies = ids.clone().map(|page| {
            let entry = |(hash, place): &(u64, Place)| {
                let mut bytes = [0; ID_BYTES];
                bytes[..8].copy_from_slice(&hash.to_le_bytes());
                bytes[8..12].copy_from_slice(&place.0.to_le_bytes());
                bytes[12..].copy_from_slice(&place.1.to_le_bytes());
                bytes
            };
            (PageKind::Ids, page.iter().flat_map(entry).collect::<Vec<u8>>())
        });
        let summaries = self.summaries.into_iter().map(|body| (PageKind::Summaries, body));
        let mut pages: Vec<(PageId, Bytes)> = Vec::new();
        for (kind, body) in bodies.chain(summaries) {
            let sequence = match pages.last() {
                Some((last, _)) if last.kind == kind => last.sequence + 1,
                _ => 0,
            };
            let id = PageId { segment, kind, sequence };
            pages.push((id, seal(id, origin, &body)));
        }
        let contents =
            Contents { origin, ids: ids.map(|page| page[0].0).collect(), summaries: self.firsts };
        Derived { pages, contents, events: self.events }
    }
}

fn header(id: PageId, origin: Origin, length: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[6] = id.kind as u8;
    header[8..16].copy_from_slice(&origin.journal.to_le_bytes());
    header[16..24].copy_from_slice(&origin.segment.to_le_bytes());
    header[24..28].copy_from_slice(&origin.mark.to_le_bytes());
    header[28..32].copy_from_slice(&id.sequence.to_le_bytes());
    header[32..36].copy_from_slice(&length.to_le_bytes());
    header
}

fn checksum(header: &[u8], body: &[u8]) -> [u8; 4] {
    crc32c_append(crc32c_append(SALT, &header[..CHECKED_HEADER_BYTES]), body).to_le_bytes()
}

fn seal(id: PageId, origin: Origin, body: &[u8]) -> Bytes {
    let mut page = Vec::with_capacity(HEADER_BYTES + body.len());
    page.extend(header(id, origin, body.len() as u32));
    page.extend(body);
    let crc = checksum(&page, body);
    page[CHECKED_HEADER_BYTES..HEADER_BYTES].copy_from_slice(&crc);
    page.into()
}

/// The body of the page `id`, if these bytes prove that they are it.
pub(crate) fn body_of(page: &Bytes, id: PageId, origin: Origin) -> Option<Bytes> {
    let (head, body) = page.split_at_checked(HEADER_BYTES)?;
    let expected = header(id, origin, u32::try_from(body.len()).ok()?);
    let proves = page.len() <= PAGE_BYTES_MAX
        && head[..CHECKED_HEADER_BYTES] == expected[..CHECKED_HEADER_BYTES]
        && head[CHECKED_HEADER_BYTES..] == checksum(head, body);
    proves.then(|| page.slice(HEADER_BYTES..))
}

/// The places that stand beside `hash` in a page of ids.
pub(crate) fn places_of(body: &[u8], hash: u64) -> Vec<Place> {
    let (entries, _) = body.as_chunks::<ID_BYTES>();
    let hash_of = |entry: &[u8; ID_BYTES]| {
        u64::from_le_bytes(entry[..8].try_into().expect("eight bytes are eight bytes"))
    };
    let short =
        |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes are four bytes"));
    let from = entries.partition_point(|entry| hash_of(entry) < hash);
    let same = entries[from..].iter().take_while(|entry| hash_of(entry) == hash);
    same.map(|entry| (short(&entry[8..12]), short(&entry[12..]))).collect()
}

/// All summaries of a page; `None`: it is no page of summaries.
pub(crate) fn summaries_of(mut body: &[u8]) -> Option<Vec<Summary>> {
    let mut summaries = Vec::new();
    while !body.is_empty() {
        let (stored, rest) = postcard::take_from_bytes::<StoredSummary>(body).ok()?;
        let about = match stored.about {
            None => None,
            Some((id, kind, source, correlation, received_at)) => Some(About {
                event_id: id.into(),
                event_type: kind.into(),
                source: source.into(),
                correlation_id: correlation.into(),
                received_at: Timestamp::from_nanosecond(received_at).ok()?,
            }),
        };
        summaries.push(Summary { place: stored.place, uid: stored.uid, about });
        body = rest;
    }
    Some(summaries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::fact::Accepted;
    use crate::store::fixtures::event;

    fn hashing() -> Hashing {
        Hashing::new([7; 16])
    }

    /// Events of one segment, each in a frame of its own, with these ids.
    fn derived(ids: &[String]) -> Derived {
        let mut derivation = Derivation::new(hashing());
        derivation.batch(b"header");
        for (id, number) in ids.iter().zip(0..) {
            let new = event(u128::from(number), id, "{}", &[]);
            let fact = Fact::Accepted(Box::new(Accepted {
                envelope: new.envelope.into(),
                identities: new.identities,
                body_digest: new.body_digest,
                deliveries: Vec::new(),
            }));
            let at = Position { segment: 3, offset: number * 100, index: 0 };
            derivation.fact(at, &fact);
            derivation.fact(at, &Fact::Closed);
        }
        derivation.finish(3)
    }

    fn bodies(derived: &Derived, kind: PageKind) -> Vec<Bytes> {
        let pages = derived.pages.iter().filter(|(id, _)| id.kind == kind);
        pages.map(|(id, page)| body_of(page, *id, derived.contents.origin).unwrap()).collect()
    }

    #[test]
    fn all_events_of_a_segment_stand_on_its_pages_and_are_found_by_id() {
        let mut ids: Vec<String> = (0..3000).map(|number| format!("e{}", number / 2)).collect();
        ids[7] = "x".repeat(TEXTS_BYTES_MAX);
        let derived = derived(&ids);
        assert!(derived.pages.iter().all(|(_, page)| page.len() <= PAGE_BYTES_MAX));
        let pages = bodies(&derived, PageKind::Summaries);
        assert!(pages.len() > 2);
        let mut found = Vec::new();
        for (body, first) in pages.iter().zip(&derived.contents.summaries) {
            let summaries = summaries_of(body).unwrap();
            assert_eq!(summaries[0].place, *first);
            found.extend(summaries);
        }
        assert_eq!(found.len(), ids.len());
        for ((summary, id), (uid, place)) in found.iter().zip(&ids).zip(&derived.events) {
            assert_eq!((summary.uid, summary.place), (*uid, *place));
            match &summary.about {
                Some(about) => assert_eq!(about.event_id.as_str(), id),
                None => assert_eq!(id.len(), TEXTS_BYTES_MAX),
            }
        }
        let pages = bodies(&derived, PageKind::Ids);
        assert_eq!(pages.len(), derived.contents.ids.len());
        for (id, (_, place)) in ids.iter().zip(&derived.events) {
            let hash = hashing().text(id);
            let places: Vec<Place> = pages.iter().flat_map(|body| places_of(body, hash)).collect();
            assert!(places.contains(place));
            assert!(places.len() <= 2, "each id is there once or twice");
        }
    }

    #[test]
    fn a_page_proves_itself_or_is_none() {
        let derived = derived(&["e1".into(), "e2".into()]);
        let origin = derived.contents.origin;
        for (id, page) in &derived.pages {
            assert!(body_of(page, *id, origin).is_some());
            for (at, bit) in (0..page.len()).zip((0..8).cycle()) {
                let mut damaged = page.to_vec();
                damaged[at] ^= 1 << bit;
                assert_eq!(body_of(&damaged.into(), *id, origin), None, "byte {at}");
                assert_eq!(body_of(&page.slice(..at), *id, origin), None, "cut at {at}");
            }
            let others = [
                Origin { journal: 1, ..origin },
                Origin { segment: 4, ..origin },
                Origin { mark: 1, ..origin },
            ];
            for other in others {
                assert_eq!(body_of(page, *id, other), None);
            }
            assert_eq!(body_of(page, PageId { sequence: 1, ..*id }, origin), None);
        }
        let [(ids, _), (summaries, page)] = &derived.pages[..] else { panic!("two pages") };
        assert_eq!(body_of(page, *ids, origin), None);
        assert!(body_of(page, *summaries, origin).is_some());
    }

    /// What is on somebody's disk is read for ever, or derived anew under a new format version.
    #[test]
    fn the_bytes_of_version_1_are_what_they_were() {
        use sha2::{Digest, Sha256};
        let mut digest = Sha256::new();
        for (_, page) in derived(&["e1".into(), "e2".into()]).pages {
            digest.update(page);
        }
        assert_eq!(
            hex::encode(digest.finalize()),
            "acd5f6f721f972a2b6e3c3e9862e24f01e2a2330ad12ddb22f5f603a6c8c9526"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), hash in any::<u64>()) {
            let id = PageId { segment: 1, kind: PageKind::Ids, sequence: 0 };
            let origin = Origin { journal: 1, segment: 1, mark: 1 };
            prop_assert_eq!(body_of(&bytes.clone().into(), id, origin), None);
            drop(summaries_of(&bytes));
            drop(places_of(&bytes, hash));
        }
    }
}
