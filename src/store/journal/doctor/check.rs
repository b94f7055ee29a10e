//! One reading of all segments, and what it tells.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::super::format;
use super::super::recovery::OpenError;
use super::super::replay::{Replay, Tail};
use super::super::salvage::{self, Hole};
use super::super::sealed::{Resumed, Sealed};
use super::super::segment;
use super::{Finding, GapView, Gaps, LostEvent, Patches, Patient, Report};
use crate::delivery::state::Status;
use crate::name::DeliveryId;
use crate::store::StoreError;
use crate::store::book;
use crate::store::checkpoint::{self, Manifest, Mark};
use crate::store::fact::{Position, ReadFacts};
use crate::store::index::{Group, Index, PageId, PageKind};
use crate::store::page::{self, Derived};
use crate::store::state::State;
use crate::store::state::rows::EventKey;
use crate::store::view::{Outline, read_chain};

const INDEX: &str = "sled";
const MEND_INDEX: &str =
    "the folder of the index is moved aside; the next start derives it anew from the journal";

pub(super) struct Pass<'a> {
    patient: &'a Patient<'a>,
    pub(super) replay: Replay<'a>,
    pub(super) report: Report,
    /// Numbers between segments for which there is no file.
    gaps: Gaps,
    /// What goes over damaged segments, and where their batches end then.
    pub(super) patches: Patches,
    pub(super) holes: BTreeMap<u64, Vec<Hole>>,
    /// The segment with a torn tail, and where its batches end.
    pub(super) torn: Option<(u64, usize)>,
    pub(super) index_is_wrong: bool,
    /// The journal cannot be read on from here.
    broken: bool,
    in_use: bool,
}

/// What the index says.
struct Claimed {
    manifest: Option<Manifest>,
    resumed: Option<Resumed>,
    groups: Vec<Group>,
}

impl<'a> Pass<'a> {
    pub(super) fn read(
        patient: &'a Patient<'a>,
        there: &BTreeSet<u64>,
        absent: &BTreeSet<u64>,
        in_use: bool,
    ) -> Result<Self, OpenError> {
        let place = patient.disk.place();
        let replay = Replay::new(place, &patient.segments, patient.hashing, patient.now);
        let mut pass = Self {
            patient,
            replay,
            report: Report { segments: there.len(), ..Report::default() },
            gaps: Vec::new(),
            patches: BTreeMap::new(),
            holes: BTreeMap::new(),
            torn: None,
            index_is_wrong: false,
            broken: false,
            in_use,
        };
        let claimed = pass.claimed(there);
        let all: BTreeSet<u64> = there.union(absent).copied().collect();
        let mut expected = 1;
        for (&number, done) in all.iter().zip(1..) {
            if expected < number {
                pass.gaps.push((expected, number - 1));
                pass.replay.state.has_gaps = true;
            }
            pass.segment(number, expected == number, absent.contains(&number), there, &claimed)?;
            if pass.broken {
                break;
            }
            expected = number + 1;
            (patient.progress)(done, all.len());
        }
        if !pass.broken {
            pass.look_at_the_list(&claimed, there);
        }
        Ok(pass)
    }

    /// Segments that should be there and are not.
    pub(super) fn missing(&self) -> impl Iterator<Item = u64> {
        let retired = self.replay.state.retired;
        // Where facts do not follow upon each other, it may be for what is missing.
        let last = match self.broken {
            true => u64::MAX,
            false => self.replay.last.map_or(0, |(segment, _)| segment),
        };
        self.gaps.iter().flat_map(move |(first, end)| (*first).max(retired + 1)..=(*end).min(last))
    }

    fn segment(
        &mut self,
        number: u64,
        follows: bool,
        absent: bool,
        there: &BTreeSet<u64>,
        claimed: &Option<Claimed>,
    ) -> Result<(), OpenError> {
        let bytes = match absent {
            true => Vec::new(),
            false => {
                let bytes = self.patient.segments.bytes(number);
                bytes.map_err(self.patient.io(format!("read segment {number}")))?
            }
        };
        let open_ended = self.first_of(number + 1).is_none();
        let known = OnceCell::new();
        let after = || *known.get_or_init(|| self.first_after(number, there));
        let expected = self.replay.expected(number, follows);
        let salt = self.patient.segments.salts().of(&bytes);
        let salvaged = salvage::look(salt, &bytes, expected, &after, (absent, open_ended));
        let place = self.patient.disk.place();
        let salvaged = salvaged.map_err(|why| OpenError::Newer { place, segment: number, why })?;
        let image = match salvaged.patches.is_empty() {
            true => bytes,
            false => salvaged.image(&bytes),
        };
        let taken = match self.replay.take(number, &image, follows) {
            Ok(taken) => taken,
            Err(OpenError::Corrupt { segment, offset, why, .. }) => {
                self.broken = true;
                self.report.findings.push(Finding {
                    segment: Some(segment),
                    offset: Some(offset),
                    file: segment::name(segment),
                    what: why,
                    means: "each part proves itself, but together they make no state: this is no damage of a disk. Put a backup back (`router restore`) and report it".to_owned(),
                    repair: None,
                });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for hole in &salvaged.holes {
            self.report.loss.facts += hole.lost;
            self.report.findings.push(found(number, hole, absent));
        }
        if taken.tail == Tail::Torn {
            self.torn = Some((number, taken.end));
        }
        let is_damaged = !salvaged.holes.is_empty();
        if is_damaged {
            self.patches.insert(number, (salvaged.patches, taken.end));
            self.holes.insert(number, salvaged.holes);
        }
        if let (Some(claimed), Some(derivation), false) = (claimed, taken.derivation, is_damaged) {
            let derived = derivation.finish(number);
            self.compare_pages(number, claimed, &derived);
        }
        self.replay.state.shelve(number as u32);
        if let Some(Claimed { resumed: Some(resumed), .. }) = claimed
            && resumed.mark.segment == number
            && self.holes.is_empty()
        {
            self.compare_checkpoint(resumed, taken.end);
        }
        Ok(())
    }

    /// Number of the fact that a segment begins with, if its first batch proves itself.
    fn first_of(&self, number: u64) -> Option<u64> {
        Some(self.patient.segments.batch(number, 0).ok()?.header.first)
    }

    /// Number of the first fact that a later segment shows.
    fn first_after(&self, number: u64, there: &BTreeSet<u64>) -> Option<u64> {
        there.range(number + 1..).find_map(|&later| {
            if let Some(first) = self.first_of(later) {
                return Some(first);
            }
            let bytes = self.patient.segments.bytes(later).ok()?;
            let salt = self.patient.segments.salts().of(&bytes);
            let mut from = 0;
            while let Some((at, header)) = format::next_batch(salt, &bytes, from) {
                if header.segment == later {
                    return Some(header.first);
                }
                from = at + 1;
            }
            None
        })
    }

    fn claimed(&self, there: &BTreeSet<u64>) -> Option<Claimed> {
        let Patient { index, segments, hashing, now, .. } = self.patient;
        let index = index.as_ref()?;
        let groups = index.groups().unwrap_or_default();
        let sealed = Sealed::new(index.clone(), segments.clone(), *hashing);
        let resumed = sealed.resume(there, *now);
        let newest = manifests(&**index, &groups, hashing.journal()).next();
        Some(Claimed { manifest: newest, resumed, groups })
    }

    /// Pages that a checkpoint counts on must be there; any that is there must be right.
    fn compare_pages(&mut self, number: u64, claimed: &Claimed, derived: &Derived) {
        let Some(index) = &self.patient.index else { return };
        let counted_on = claimed.manifest.as_ref().is_some_and(|manifest| {
            u32::try_from(number).is_ok_and(|number| manifest.segments.contains_key(&number))
        });
        let (mut missing, mut wrong) = (0, 0);
        for (group, pages) in &derived.groups {
            for (page, sequence) in pages.iter().zip(0..) {
                match index.get(PageId { group: *group, sequence }) {
                    Ok(Some(held)) if held == *page => {}
                    Ok(None) => missing += usize::from(counted_on),
                    Ok(Some(_)) | Err(_) => wrong += 1,
                }
            }
        }
        if missing + wrong > 0 {
            self.wrong_index(
                Some(number),
                format!(
                    "of the pages of segment {number}, {missing} are missing and {wrong} are wrong"
                ),
            );
        }
    }

    fn wrong_index(&mut self, segment: Option<u64>, what: String) {
        self.index_is_wrong = true;
        self.report.findings.push(Finding {
            segment,
            offset: None,
            file: INDEX.to_owned(),
            what,
            means: "nothing is lost: the journal has all of it, and a router derives what it does not find".to_owned(),
            repair: Some(MEND_INDEX.to_owned()),
        });
    }

    fn compare_checkpoint(&mut self, resumed: &Resumed, end: usize) {
        let Mark { segment, end: mark, .. } = resumed.mark;
        let (own, theirs) = (&self.replay.state, &resumed.state);
        let agrees = mark == end as u64
            && own.next == theirs.next
            && own.epoch == theirs.epoch
            && own.retired == theirs.retired
            && digests(own) == digests(theirs);
        if !agrees {
            self.wrong_index(
                Some(segment),
                format!(
                    "the newest checkpoint is not what the journal says up to segment {segment}"
                ),
            );
        }
    }

    fn look_at_the_list(&mut self, claimed: &Option<Claimed>, there: &BTreeSet<u64>) {
        let retired = self.replay.state.retired;
        let last = self.replay.last.map_or(0, |(segment, _)| segment);
        for gone in there.range(..=retired) {
            self.report
                .notes
                .push(format!("{} is retired; the next start removes it", segment::name(*gone)));
        }
        if let Some((segment, end)) = self.torn.take_if(|(segment, _)| *segment != last) {
            // Something was prepared and damaged before anything was written to it; a start removes it.
            self.report.notes.push(format!(
                "{} holds no batch from offset {end} on; the next start removes what is of no use",
                segment::name(segment)
            ));
        }
        match self.torn {
            Some((segment, end)) if self.in_use => self.report.notes.push(format!(
                "segment {segment} was being written at offset {end} while it was read"
            )),
            Some((segment, end)) => self.report.findings.push(Finding {
                segment: Some(segment),
                offset: Some(end as u64),
                file: segment::name(segment),
                what: "the tail is torn: a write did not come to its end".to_owned(),
                means: "nothing of it was acknowledged; the next start cuts it, too".to_owned(),
                repair: Some(
                    "it is cut: the segment is copied up to there and put in its place".to_owned(),
                ),
            }),
            None => {}
        }
        let Some(Claimed { manifest, resumed, groups }) = claimed else { return };
        let stale = groups
            .iter()
            .filter(|group| group.kind != PageKind::Checkpoint && !there.contains(&group.segment));
        let stale: BTreeSet<u64> = stale.map(|group| group.segment).collect();
        if !stale.is_empty() {
            self.report.notes.push(format!(
                "the index has pages of {} segments that are gone; the next start removes them",
                stale.len()
            ));
        }
        let has_checkpoint = groups.iter().any(|group| group.kind == PageKind::Checkpoint);
        if !has_checkpoint || !self.holes.is_empty() {
            return;
        }
        let names_gone = manifest.as_ref().is_some_and(|manifest| {
            manifest.segments.keys().any(|segment| !there.contains(&u64::from(*segment)))
        });
        match resumed {
            Some(resumed) if manifest.as_ref().is_some_and(|it| it.mark == resumed.mark) => {}
            _ if names_gone => self.report.notes.push(
                "a segment was retired after the newest checkpoint: the next start reads the whole journal".to_owned(),
            ),
            Some(_) | None => self.wrong_index(
                None,
                "the newest checkpoint does not prove itself".to_owned(),
            ),
        }
    }

    /// What the segments make, looked at event by event; and what is lost.
    pub(super) fn look_deeper(mut self, names: &[String]) -> Result<Self, OpenError> {
        self.report.events = self.replay.state.counts.events;
        if self.broken {
            return Ok(self);
        }
        let cut_off: BTreeSet<EventKey> =
            self.replay.state.damage.gaps().map(|((key, _), _)| key).collect();
        let shelves = self.replay.state.shelves().clone();
        for (&segment, shelf) in &shelves {
            for (row, index) in shelf.events.iter().zip(0..) {
                let key = EventKey { segment, index };
                if row.is_stored() && !cut_off.contains(&key) {
                    self.look_at_event(key);
                }
            }
        }
        self.count_loss();
        // A repair that was begun, and not finished, has replaced the segments already.
        if self.holes.is_empty() && !self.report.loss.gaps.is_empty() {
            let at = cut_off.first().map(|key| self.replay.state.position(*key));
            self.report.findings.push(Finding {
                segment: at.map(|at| at.segment),
                offset: at.map(|at| at.offset.into()),
                file: at.map_or_else(String::new, |at| segment::name(at.segment)),
                what: "a repair of this journal was not finished".to_owned(),
                means: "deliveries are not yet carried over what they lost".to_owned(),
                repair: Some("it is finished".to_owned()),
            });
        }
        let kept = names.iter().filter(|name| name.starts_with("quarantine/")).count();
        if kept > 0 {
            self.report.notes.push(format!(
                "{kept} files of earlier repairs are in quarantine/; remove them when nobody needs them"
            ));
        }
        Ok(self)
    }

    fn look_at_event(&mut self, key: EventKey) {
        let (state, facts) = (&self.replay.state, &*self.patient.segments);
        let (uid, at) = (state.row_of(key).uid, state.position(key));
        let mut faults: Vec<String> = Vec::new();
        let outline = Outline::of_key(state, key, uid);
        if let Err(error) = outline.read(facts) {
            faults.push(format!("event {uid} cannot be read back: {error}"));
        }
        for row in state.deliveries(key) {
            let route = state.route_name(row.route);
            match read_chain(uid, &route, row.last(), facts) {
                Ok((read, _)) if read.version == row.version() => {}
                Ok((read, _)) => faults.push(format!(
                    "the facts of delivery {route} of event {uid} count to version {}, and {} was expected",
                    read.version,
                    row.version()
                )),
                // Said above.
                Err(_) => {}
            }
        }
        let shared = shared_identity(state, key, facts);
        faults.extend(
            shared
                .ok()
                .flatten()
                .map(|other| format!("event {uid} and event {other} hold the same identity")),
        );
        for what in faults {
            self.report.findings.push(Finding {
                segment: Some(at.segment),
                offset: Some(at.offset.into()),
                file: segment::name(at.segment),
                what,
                means: "each part proves itself, but this event is not whole: this is no damage of a disk. Put a backup back (`router restore`) and report it".to_owned(),
                repair: None,
            });
        }
    }

    fn count_loss(&mut self) {
        let state = &self.replay.state;
        let loss = &mut self.report.loss;
        loss.gaps = state
            .damage
            .gaps()
            .map(|(_, gap)| GapView {
                delivery: gap.state.id.clone(),
                event_id: gap.state.event_id.clone(),
                status: gap.state.status,
            })
            .collect();
        if self.holes.is_empty() {
            return;
        }
        let unknown = state.damage.lost().iter().filter(|id| state.slot(id).is_none());
        loss.deliveries = unknown.cloned().collect();
        let mut events: BTreeMap<_, LostEvent> = BTreeMap::new();
        for id in loss.deliveries.iter().filter(|id| state.event_key(id.uid).is_none()) {
            let (event_id, source, received_at) = (None, None, None);
            events.insert(id.uid, LostEvent { uid: id.uid, event_id, source, received_at });
        }
        // The index may still know what stood there.
        if let Some(index) = &self.patient.index {
            for &segment in self.holes.keys() {
                for summary in summaries(&**index, segment, self.patient.hashing.journal()) {
                    let (offset, index) = summary.place;
                    let at = Position { segment, offset, index };
                    if state.event_key(summary.uid).is_some()
                        || self.patient.segments.read(at).is_ok()
                    {
                        continue;
                    }
                    let about = summary.about;
                    let event = LostEvent {
                        uid: summary.uid,
                        event_id: about.as_ref().map(|about| about.event_id.clone()),
                        source: about.as_ref().map(|about| about.source.clone()),
                        received_at: about.as_ref().map(|about| about.received_at.to_string()),
                    };
                    events.insert(summary.uid, event);
                }
            }
        }
        loss.events = events.into_values().collect();
        let Some((&segment, holes)) = self.holes.last_key_value() else { return };
        let offset = holes.last().map_or(0, |hole| hole.place.end);
        let last_hole = (segment, offset as u64);
        for (&segment, shelf) in state.shelves() {
            for (row, index) in shelf.events.iter().zip(0..) {
                for (delivery, number) in shelf.deliveries_of(row).iter().zip(0..) {
                    let slot = (EventKey { segment, index }, number);
                    let last = delivery.last();
                    if !delivery.status.is_finished()
                        && state.damage.gap(slot).is_none()
                        && (last.segment, u64::from(last.offset)) < last_hole
                    {
                        let route = state.route_name(delivery.route);
                        loss.unsure.push(DeliveryId { uid: row.uid, route });
                    }
                }
            }
        }
    }
}

fn found(segment: u64, hole: &Hole, absent: bool) -> Finding {
    let file = segment::name(segment);
    let bare = file.rsplit('/').next().unwrap_or_default().to_owned();
    let Hole { place, why, kept, lost } = hole;
    let (what, repair) = match absent {
        true => (
            "the segment is missing, and nothing says that it was retired".to_owned(),
            "if the file cannot be found, a segment is put in its place that says so".to_owned(),
        ),
        false => (
            why.clone(),
            format!(
                "the file is copied to quarantine/{bare}, and one without the damage is put in its place"
            ),
        ),
    };
    Finding {
        segment: Some(segment),
        offset: Some(place.start as u64),
        file,
        what,
        means: format!(
            "up to offset {}: {kept} facts still prove themselves and are kept, {lost} are lost",
            place.end
        ),
        repair: Some(repair),
    }
}

/// The manifests of the checkpoints that prove themselves, newest first.
fn manifests(index: &dyn Index, groups: &[Group], journal: u64) -> impl Iterator<Item = Manifest> {
    let mut checkpoints: Vec<Group> =
        groups.iter().filter(|group| group.kind == PageKind::Checkpoint).copied().collect();
    checkpoints.sort_unstable_by_key(|group| std::cmp::Reverse(group.generation));
    let origin = checkpoint::origin(journal, 0);
    checkpoints
        .into_iter()
        .filter_map(move |group| Manifest::from_text(&book::read(index, group, origin).ok()??))
}

/// What the index shows of the events that stood in a segment.
fn summaries(index: &dyn Index, segment: u64, journal: u64) -> Vec<page::Summary> {
    let groups = index.groups().unwrap_or_default();
    let Ok(number) = u32::try_from(segment) else { return Vec::new() };
    let mut found = Vec::new();
    let known = manifests(index, &groups, journal)
        .find_map(|manifest| manifest.segments.get(&number).map(|entry| entry.contents.clone()));
    let Some(contents) = known else { return found };
    let group = page::group(segment, PageKind::Summaries);
    for sequence in 0..contents.summaries.len() as u32 {
        let id = PageId { group, sequence };
        let page = index.get(id).ok().flatten();
        let body = page.and_then(|page| page::body_of(&page, id, contents.origin));
        found.extend(body.and_then(|body| page::summaries_of(&body)).unwrap_or_default());
    }
    found
}

/// Another stored event, later than this one, that holds one of its identities.
fn shared_identity(
    state: &State,
    key: EventKey,
    facts: &dyn ReadFacts,
) -> Result<Option<crate::name::Uid>, StoreError> {
    let fact = facts.read(state.position(key))?;
    let Some(event) = fact.event() else { return Ok(None) };
    for identity in event.identities {
        for other in state.identity_candidates(event.envelope, identity) {
            if other <= key || !state.row_of(other).is_stored() {
                continue;
            }
            let theirs: Arc<_> = facts.read(state.position(other))?;
            let holds = theirs.event().is_some_and(|theirs| {
                theirs.envelope.source == event.envelope.source
                    && theirs.envelope.path == event.envelope.path
                    && theirs.identities.contains(identity)
            });
            if holds {
                return Ok(Some(state.row_of(other).uid));
            }
        }
    }
    Ok(None)
}

/// The rows of each segment, in words: the numbers of names differ from one reading to another.
fn digests(state: &State) -> BTreeMap<u32, [u8; 32]> {
    let mut digests = BTreeMap::new();
    for (&segment, shelf) in state.shelves().iter().filter(|(_, shelf)| !shelf.events.is_empty()) {
        let mut digest = Sha256::new();
        for row in &shelf.events {
            digest.update(format!(
                "{:?}",
                (row.uid, row.offset, row.index, row.kind, row.received_s)
            ));
            for delivery in shelf.deliveries_of(row) {
                // A worker held it; after a start nobody does.
                let status = match delivery.status {
                    Status::Processing => Status::Queued,
                    other => other,
                };
                let (route, cause) = (state.name(delivery.route), delivery.cause());
                let cause = cause.map(|cause| state.name(cause));
                let counts = (delivery.version(), delivery.attempts, delivery.last());
                digest.update(format!("{:?}", (route, status, cause, counts)));
            }
        }
        digests.insert(segment, digest.finalize().into());
    }
    digests
}
