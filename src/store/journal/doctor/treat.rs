//! The repair: what the reading found is put right on the disk. Every step leaves a folder that can be repaired again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::super::format::{self, HEADER_BYTES, Header};
use super::super::recovery::{self, OpenError};
use super::super::segment;
use super::check::Pass;
use super::{Patient, Report};
use crate::delivery::state::{Entry, What};
use crate::store::StoreError;
use crate::store::fact::{CarriedConflict, CarriedDelivery, Fact, ReadFacts, Snapshot};
use crate::store::state::State;
use crate::store::state::rows::EventKey;
use crate::store::view;

/// As a commit takes at most.
const BATCH_BYTES_MAX: usize = 4 << 20;
const SEGMENT_BYTES_MAX: usize = 64 << 20;

impl Patient<'_> {
    /// Answers whether anything in the journal was changed.
    pub(super) fn treat(&self, pass: &mut Pass<'_>) -> Result<bool, OpenError> {
        let mut done = Vec::new();
        let patches = std::mem::take(&mut pass.patches);
        for (&number, (patches, end)) in &patches {
            let bytes = match self.segments.bytes(number) {
                Ok(bytes) => Some(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(self.io(format!("read segment {number}"))(error)),
            };
            let aside = self.quarantine(number, bytes.as_deref(), &pass.report)?;
            let mut image = bytes.unwrap_or_default();
            image.resize(image.len().max(*end), 0);
            for (offset, patch) in patches {
                image[*offset..offset + patch.len()].copy_from_slice(patch);
            }
            image.truncate(*end);
            recovery::put(&*self.disk, &self.segments, number, &image)
                .map_err(self.io(format!("put segment {number} anew")))?;
            done.push(format!(
                "segment {number} was put anew with all that still proves itself; {aside} says what is lost"
            ));
        }
        if let Some((number, end)) = pass.torn {
            if !patches.contains_key(&number) {
                recovery::copy(&*self.disk, &self.segments, number, end)
                    .map_err(self.io("copy the last segment"))?;
            }
            done.push(format!("the torn tail of segment {number} was cut at {end}"));
        } else if !patches.is_empty()
            && let Some((number, end)) = pass.replay.last
            && !patches.contains_key(&number)
        {
            // The repair stands on what a crash may have left in the page cache alone.
            recovery::copy(&*self.disk, &self.segments, number, end)
                .map_err(self.io("copy the last segment"))?;
        }
        let events: BTreeSet<EventKey> =
            pass.replay.state.damage.gaps().map(|((key, _), _)| key).collect();
        if !events.is_empty() {
            self.carry(pass, &events)?;
            done.push(format!(
                "{} events were carried over what they lost; deliveries whose end is unknown are in review (cause `damaged`)",
                events.len()
            ));
        }
        let changed = !done.is_empty();
        // Its pages and checkpoints are of what was there before.
        pass.index_is_wrong |= !patches.is_empty() || !events.is_empty();
        pass.report.repaired = done;
        Ok(changed)
    }

    /// Copies a damaged segment to `quarantine/`, with the report beside it. Answers the name of that.
    fn quarantine(
        &self,
        number: u64,
        bytes: Option<&[u8]>,
        report: &Report,
    ) -> Result<String, OpenError> {
        let names = self.disk.list().map_err(self.io("list the files"))?;
        let file = segment::name(number).replace("journal/", "quarantine/");
        // An earlier repair of the same segment keeps what it put there.
        let mut numbered = (1..).map(|count| match count {
            1 => file.clone(),
            count => format!("{file}.{count}"),
        });
        let free = |name: &String| {
            !names.contains(name) && !names.contains(&format!("{name}.report.json"))
        };
        let file = numbered.find(free).expect("some number is free");
        if let Some(bytes) = bytes {
            self.write(&file, bytes)?;
        }
        let about = |finding: &&super::Finding| finding.segment == Some(number);
        let text = serde_json::json!({
            "segment": number,
            "repairedAt": self.at.to_string(),
            "findings": report.findings.iter().filter(about).collect::<Vec<_>>(),
            "lossOfTheWholeRepair": report.loss,
        });
        let report = format!("{file}.report.json");
        self.write(&report, format!("{text:#}\n").as_bytes())?;
        Ok(report)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), OpenError> {
        let write = || -> io::Result<()> {
            self.disk.prepare(name, 0)?;
            let file = self.disk.open(name)?;
            file.write_at(0, bytes)?;
            file.sync_data()?;
            self.disk.sync_folder()
        };
        write().map_err(self.io(format!("write {name}")))
    }

    /// Writes these events whole into a segment of their own, after all others.
    fn carry(&self, pass: &Pass<'_>, events: &BTreeSet<EventKey>) -> Result<(), OpenError> {
        let salt = self.segments.salts().own();
        let state = &pass.replay.state;
        let last = pass.replay.last.map_or(0, |(segment, _)| segment);
        let (epoch, mut next) = (state.epoch + 1, pass.replay.next);
        let mut segments: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut number = last + 1;
        let mut batch: Vec<Fact> = vec![Fact::Opened { epoch }];
        let mut weight = 0;
        let mut flush = |number: u64, batch: &mut Vec<Fact>, next: &mut u64| -> usize {
            let segment = segments.entry(number).or_default();
            let mut bytes = vec![0; HEADER_BYTES];
            for fact in batch.iter() {
                bytes.extend(format::frame(salt, std::slice::from_ref(fact)));
            }
            let length = (bytes.len() - HEADER_BYTES) as u32;
            let header = Header { segment: number, epoch, first: *next, durable: *next, length };
            format::seal(salt, &mut bytes, header);
            *next += batch.len() as u64;
            batch.clear();
            segment.extend(bytes);
            segment.len()
        };
        for &key in events {
            let snapshot = self.snapshot(state, key).map_err(|error| {
                self.io("carry an event over what it lost")(io::Error::other(error))
            })?;
            weight += snapshot.envelope.body.len();
            batch.push(Fact::Snapshot(Box::new(snapshot)));
            if weight >= BATCH_BYTES_MAX {
                weight = 0;
                if flush(number, &mut batch, &mut next) >= SEGMENT_BYTES_MAX {
                    number += 1;
                }
            }
        }
        batch.push(Fact::Closed);
        flush(number, &mut batch, &mut next);
        for (number, bytes) in segments {
            recovery::put(&*self.disk, &self.segments, number, &bytes)
                .map_err(self.io(format!("write segment {number}")))?;
        }
        Ok(())
    }

    /// The event with all that is known of it.
    fn snapshot(&self, state: &State, key: EventKey) -> Result<Snapshot, StoreError> {
        let facts = &*self.segments;
        let at = state.position(key);
        let fact = facts.read(at)?;
        let Some(event) = fact.event() else {
            return Err(StoreError::Corrupt(format!("no event stands at {at}")));
        };
        let uid = event.envelope.uid;
        let (mut deliveries, mut terms) = (Vec::new(), Vec::new());
        for (row, number) in state.deliveries(key).iter().zip(0..) {
            let slot = (key, number);
            let route = state.route_name(row.route);
            if let Some(gap) = state.damage.gap(slot) {
                let mut entries = gap.entries.clone();
                let note = "facts about this delivery were lost with a damaged segment; this is what is left".to_owned();
                let (actor, action) = ("router doctor".to_owned(), "repair".to_owned());
                let what = What::Operated { actor, action, note: Some(note) };
                entries.push(Entry { at: self.at, what });
                terms.extend(&gap.terms);
                deliveries.push(CarriedDelivery { state: gap.state.clone(), entries });
            } else {
                let (read, entries) = view::read_chain(uid, &route, row.last(), facts)?;
                terms.extend(view::terms_of(uid, &route, row.last(), facts)?);
                let live = state.live(slot).map(|live| live.state.clone());
                deliveries.push(CarriedDelivery { state: live.unwrap_or(read), entries });
            }
        }
        terms.sort_unstable();
        terms.dedup();
        let repeats = state.repeats(key).cloned().unwrap_or_default();
        let mut conflicts = Vec::new();
        for kept in &repeats.conflicts {
            let (received_at, body) = match &*facts.read(kept.at)? {
                Fact::Conflict { received_at, body: Some(body), .. } => {
                    (*received_at, body.clone())
                }
                Fact::Snapshot(snapshot) => match snapshot.conflicts.get(kept.number as usize) {
                    Some(carried) => (carried.received_at, carried.body.clone()),
                    None => continue,
                },
                _ => continue,
            };
            conflicts.push(CarriedConflict { received_at, digest: kept.digest, body });
        }
        Ok(Snapshot {
            envelope: event.envelope.clone(),
            identities: event.identities.to_vec(),
            body_digest: *event.body_digest,
            duplicates: repeats.duplicates,
            conflict_count: repeats.conflict_count,
            conflicts,
            deliveries,
            terms,
        })
    }
}
