//! Pages: what is derived from one sealed segment for looking up and listing, packed. Facts of a segment go in, pages come
//! out; bytes go in, and what stands in them comes out if they prove themselves: by a checksum, and by naming the journal
//! and the very batches that they were derived from. The layout is a format on disk.

use std::sync::Arc;

use bytes::Bytes;
use crc32c::crc32c_append;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::fact::{Fact, Position};
use super::hashing::{Hashing, short_of};
use super::index::{Group, PAGE_BYTES_MAX, PageId, PageKind};
use super::keys;
use crate::delivery::state::StepState;
use crate::envelope::{Envelope, Identity};
use crate::name::{CorrelationId, EventId, RouteName, SourceName, Uid};

const MAGIC: [u8; 4] = *b"RTRP";
const FORMAT_VERSION: u16 = 1;
/// Not zero, so that zeros never prove themselves.
const SALT: u32 = 0x52_50_47_45;
const HEADER_BYTES: usize = 48;
const CHECKED_HEADER_BYTES: usize = HEADER_BYTES - 4;
/// What a page holds of its own.
pub(crate) const BODY_BYTES_MAX: usize = PAGE_BYTES_MAX - HEADER_BYTES;
const TERM_BYTES: usize = 16;
const IDENTITY_BYTES: usize = 12;
const KEY_BYTES: usize = 24;

/// Where a fact stands in its segment: offset of the frame, and number within it.
pub(crate) type Place = (u32, u32);

/// What a page must have been derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    terms: Vec<(u64, Place)>,
    /// Hashes of the identities, with the number of the row that each event gets.
    identities: Vec<(u64, u32)>,
    keys: Vec<(u64, Uid)>,
    /// Bodies of the pages of summaries; the last one is being filled.
    summaries: Vec<Vec<u8>>,
    firsts: Vec<Place>,
    rows: u32,
}

/// A segment's pages, and how to find the right one.
#[derive(Debug)]
pub(crate) struct Derived {
    pub(crate) groups: Vec<(Group, Vec<Bytes>)>,
    pub(crate) contents: Contents,
}

/// What is remembered of a segment's pages: their origin, and what each begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub(crate) origin: Origin,
    pub(crate) terms: Vec<u64>,
    pub(crate) summaries: Vec<Place>,
    pub(crate) identities: u32,
    pub(crate) keys: u32,
    /// Events that have a row in the segment.
    pub(crate) rows: u32,
}

/// The group of a segment's own pages of one kind.
pub(crate) fn group(segment: u64, kind: PageKind) -> Group {
    Group { kind, segment, generation: 0 }
}

impl Derivation {
    pub(crate) fn new(hashing: Hashing) -> Self {
        Self {
            hashing,
            mark: SALT,
            terms: Vec::new(),
            identities: Vec::new(),
            keys: Vec::new(),
            summaries: Vec::new(),
            firsts: Vec::new(),
            rows: 0,
        }
    }

    /// A batch begins, which has this header.
    pub(crate) fn batch(&mut self, header: &[u8]) {
        self.mark = crc32c_append(self.mark, header);
    }

    pub(crate) fn fact(&mut self, at: Position, fact: &Fact) {
        let place = (at.offset, at.index);
        if let Some(event) = fact.event() {
            self.event(place, event.envelope, event.identities);
        }
        match fact {
            Fact::Changed(changed) => {
                self.terms.extend(changed.terms.iter().map(|term| (*term, place)));
                let id = &changed.delivery;
                self.keys_of(id.uid, &id.route, &changed.change.transition.steps);
            }
            Fact::Snapshot(snapshot) => {
                self.terms.extend(snapshot.terms.iter().map(|term| (*term, place)));
                for carried in &snapshot.deliveries {
                    let id = &carried.state.id;
                    self.keys_of(id.uid, &id.route, &carried.state.steps);
                }
            }
            Fact::Remembered(remembered) => {
                let identities = remembered.identities.iter();
                self.identities.extend(identities.map(|wide| (short_of(wide), self.rows)));
                let keys = remembered.keys.iter();
                self.keys.extend(keys.map(|known| (short_of(&known.key), remembered.uid)));
                self.rows += 1;
            }
            Fact::Accepted(_)
            | Fact::Duplicate { .. }
            | Fact::Conflict { .. }
            | Fact::Routed(_)
            | Fact::Revision { .. }
            | Fact::Cell { .. }
            | Fact::Audited(_)
            | Fact::SecretCaptured(_)
            | Fact::SecretDropped(_)
            | Fact::Retired { .. }
            | Fact::Opened { .. }
            | Fact::Closed
            | Fact::Lost { .. } => {}
        }
    }

    fn keys_of(&mut self, uid: Uid, route: &RouteName, steps: &[StepState]) {
        let done = keys::done_among(route, steps);
        self.keys.extend(done.map(|claim| (self.hashing.key(&claim), uid)));
    }

    fn event(&mut self, place: Place, envelope: &Envelope, identities: &[Identity]) {
        let correlation = self.hashing.correlation_id(envelope.correlation_id.as_str());
        let id = self.hashing.event_id(&envelope.event_id);
        self.terms.extend([(id, place), (correlation, place)]);
        for identity in identities {
            let hash = self.hashing.identity(&envelope.source, &envelope.path, identity);
            self.identities.push((hash, self.rows));
        }
        self.rows += 1;
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
            Some(page) if page.len() + stored.len() <= BODY_BYTES_MAX => page.extend(stored),
            _ => {
                self.firsts.push(place);
                self.summaries.push(stored);
            }
        }
    }

    pub(crate) fn finish(mut self, segment: u64) -> Derived {
        self.terms.sort_unstable();
        self.keys.sort_unstable();
        self.keys.dedup();
        let origin = Origin { journal: self.hashing.journal(), segment, mark: self.mark };
        let terms = self.terms.chunks(BODY_BYTES_MAX / TERM_BYTES);
        let firsts = terms.clone().map(|page| page[0].0).collect();
        let terms = terms.map(|page| page.iter().flat_map(term_bytes).collect());
        let identities = self.identities.chunks(BODY_BYTES_MAX / IDENTITY_BYTES);
        let identities = identities.map(|page| page.iter().flat_map(identity_bytes).collect());
        let keys = self.keys.chunks(BODY_BYTES_MAX / KEY_BYTES);
        let keys = keys.map(|page| page.iter().flat_map(key_bytes).collect());
        let sealed = |kind, bodies: Vec<Vec<u8>>| {
            let group = group(segment, kind);
            let page =
                |(body, sequence): (&Vec<u8>, u32)| seal(PageId { group, sequence }, origin, body);
            (group, bodies.iter().zip(0..).map(page).collect::<Vec<Bytes>>())
        };
        let groups = vec![
            sealed(PageKind::Terms, terms.collect()),
            sealed(PageKind::Summaries, self.summaries),
            sealed(PageKind::Identities, identities.collect()),
            sealed(PageKind::Keys, keys.collect()),
        ];
        let contents = Contents {
            origin,
            terms: firsts,
            summaries: self.firsts,
            identities: groups[2].1.len() as u32,
            keys: groups[3].1.len() as u32,
            rows: self.rows,
        };
        Derived { groups, contents }
    }
}

fn term_bytes((hash, place): &(u64, Place)) -> [u8; TERM_BYTES] {
    let mut bytes = [0; TERM_BYTES];
    bytes[..8].copy_from_slice(&hash.to_le_bytes());
    bytes[8..12].copy_from_slice(&place.0.to_le_bytes());
    bytes[12..].copy_from_slice(&place.1.to_le_bytes());
    bytes
}

fn identity_bytes((hash, row): &(u64, u32)) -> [u8; IDENTITY_BYTES] {
    let mut bytes = [0; IDENTITY_BYTES];
    bytes[..8].copy_from_slice(&hash.to_le_bytes());
    bytes[8..].copy_from_slice(&row.to_le_bytes());
    bytes
}

fn key_bytes((hash, uid): &(u64, Uid)) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[..8].copy_from_slice(&hash.to_le_bytes());
    bytes[8..].copy_from_slice(uid.0.as_bytes());
    bytes
}

fn long(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes are eight bytes"))
}

fn short(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes are four bytes"))
}

/// What stands on a page of identities.
pub(crate) fn identities_of(body: &[u8]) -> impl Iterator<Item = (u64, u32)> + '_ {
    let (entries, _) = body.as_chunks::<IDENTITY_BYTES>();
    entries.iter().map(|entry| (long(&entry[..8]), short(&entry[8..])))
}

/// What stands on a page of keys.
pub(crate) fn keys_of(body: &[u8]) -> impl Iterator<Item = (u64, Uid)> + '_ {
    let (entries, _) = body.as_chunks::<KEY_BYTES>();
    entries.iter().map(|entry| {
        let uid: [u8; 16] = entry[8..].try_into().expect("sixteen bytes are sixteen bytes");
        (long(&entry[..8]), Uid(uuid::Uuid::from_bytes(uid)))
    })
}

fn header(id: PageId, origin: Origin, length: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[6] = id.group.kind as u8;
    header[8..16].copy_from_slice(&origin.journal.to_le_bytes());
    header[16..24].copy_from_slice(&origin.segment.to_le_bytes());
    header[24..28].copy_from_slice(&origin.mark.to_le_bytes());
    header[28..32].copy_from_slice(&id.sequence.to_le_bytes());
    header[32..40].copy_from_slice(&id.group.generation.to_le_bytes());
    header[40..44].copy_from_slice(&length.to_le_bytes());
    header
}

fn checksum(header: &[u8], body: &[u8]) -> [u8; 4] {
    crc32c_append(crc32c_append(SALT, &header[..CHECKED_HEADER_BYTES]), body).to_le_bytes()
}

pub(crate) fn seal(id: PageId, origin: Origin, body: &[u8]) -> Bytes {
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

/// The places that stand beside `hash` in a page of terms.
pub(crate) fn places_of(body: &[u8], hash: u64) -> Vec<Place> {
    let (entries, _) = body.as_chunks::<TERM_BYTES>();
    let hash_of = |entry: &[u8; TERM_BYTES]| long(&entry[..8]);
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

    fn pages(derived: &Derived) -> Vec<(PageId, Bytes)> {
        let of_group = |(group, pages): &(Group, Vec<Bytes>)| {
            let group = *group;
            let pages = pages.clone().into_iter().zip(0..);
            pages.map(move |(page, sequence)| (PageId { group, sequence }, page))
        };
        derived.groups.iter().flat_map(of_group).collect()
    }

    fn bodies(derived: &Derived, kind: PageKind) -> Vec<Bytes> {
        let pages = pages(derived).into_iter().filter(|(id, _)| id.group.kind == kind);
        pages.map(|(id, page)| body_of(&page, id, derived.contents.origin).unwrap()).collect()
    }

    #[test]
    fn all_events_of_a_segment_stand_on_its_pages_and_are_found_by_id() {
        let mut ids: Vec<String> = (0..3000).map(|number| format!("e{}", number / 2)).collect();
        ids[7] = "x".repeat(TEXTS_BYTES_MAX);
        let derived = derived(&ids);
        assert!(pages(&derived).iter().all(|(_, page)| page.len() <= PAGE_BYTES_MAX));
        let pages = bodies(&derived, PageKind::Summaries);
        assert!(pages.len() > 2);
        let mut found = Vec::new();
        for (body, first) in pages.iter().zip(&derived.contents.summaries) {
            let summaries = summaries_of(body).unwrap();
            assert_eq!(summaries[0].place, *first);
            found.extend(summaries);
        }
        assert_eq!(found.len(), ids.len());
        for ((summary, id), number) in found.iter().zip(&ids).zip(0..) {
            assert_eq!(summary.uid, Uid(uuid::Uuid::from_u128(number)));
            assert_eq!(summary.place, (number as u32 * 100, 0));
            match &summary.about {
                Some(about) => assert_eq!(about.event_id.as_str(), id),
                None => assert_eq!(id.len(), TEXTS_BYTES_MAX),
            }
        }
        let pages = bodies(&derived, PageKind::Terms);
        assert_eq!(pages.len(), derived.contents.terms.len());
        for (id, summary) in ids.iter().zip(&found) {
            let hash = hashing().event_id(&id.as_str().into());
            let places: Vec<Place> = pages.iter().flat_map(|body| places_of(body, hash)).collect();
            assert!(places.contains(&summary.place));
            assert!(places.len() <= 2, "each id is there once or twice");
        }
        let pages = bodies(&derived, PageKind::Identities);
        assert_eq!(pages.len(), derived.contents.identities as usize);
        let rows: Vec<u32> =
            pages.iter().flat_map(|body| identities_of(body)).map(|it| it.1).collect();
        assert_eq!(rows, (0..3000).collect::<Vec<_>>());
    }

    #[test]
    fn a_page_proves_itself_or_is_none() {
        let derived = derived(&["e1".into(), "e2".into()]);
        let origin = derived.contents.origin;
        for (id, page) in &pages(&derived) {
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
        let [(terms, _), (summaries, page), ..] = &pages(&derived)[..] else { panic!("no pages") };
        assert_eq!(body_of(page, *terms, origin), None);
        assert!(body_of(page, *summaries, origin).is_some());
        let group = Group { generation: 1, ..summaries.group };
        assert_eq!(body_of(page, PageId { group, ..*summaries }, origin), None);
    }

    /// What is on somebody's disk is read for ever, or derived anew under a new format version.
    #[test]
    fn the_bytes_of_version_1_are_what_they_were() {
        use sha2::{Digest, Sha256};
        let mut digest = Sha256::new();
        for (_, page) in pages(&derived(&["e1".into(), "e2".into()])) {
            digest.update(page);
        }
        assert_eq!(
            hex::encode(digest.finalize()),
            "b169e705cda1e3173fe85fa710061abfd9713430b3c96271b3ae7f4fe79cc109"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), hash in any::<u64>()) {
            let id = PageId { group: group(1, PageKind::Terms), sequence: 0 };
            let origin = Origin { journal: 1, segment: 1, mark: 1 };
            prop_assert_eq!(body_of(&bytes.clone().into(), id, origin), None);
            drop(summaries_of(&bytes));
            drop(places_of(&bytes, hash));
        }
    }
}
