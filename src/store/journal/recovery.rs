//! Opening: from the files to the state. Tells a torn tail, which a crash leaves, from damage, which needs a person.
//!
//! They can be told apart as long as a later batch says that the damaged one had been synced. Of the last batch of all
//! nobody says so: if the medium loses it after its sync, that looks as if its write had been torn, and it is cut with a
//! warning. Only the mark of a clean end, which is then missing, is a hint.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};

use super::format;
use super::replay::{Replay, Tail, Taken};
use super::sealed::{Resumed, Sealed};
use super::segment::{self, Segments};
use crate::store::checkpoint::Mark;
use crate::store::fact::Fact;
use crate::store::hashing::Hashing;
use crate::store::page::Derivation;
use crate::store::state::{Moment, State};
use crate::world::disk::Disk;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the data folder {place} is in use by another router; stop that one, or give this one a folder of its own (`store: ./data` in router.yaml)"
    )]
    Locked { place: String },
    #[error("cannot {action} in the data folder {place}{}", way_out(source))]
    Io { place: String, action: String, source: io::Error },
    #[error(
        "the journal is damaged: segment {segment}, offset {offset}: {why}; nothing was changed. Copy the folder {place} away, then run `router doctor --repair`: it keeps all that still proves itself and lists what is lost; or put a backup back with `router restore`"
    )]
    Corrupt { place: String, segment: u64, offset: u64, why: String },
    #[error(
        "segment {segment} of the journal is missing in the data folder {place}; put the file {file} back if it was moved. If it is gone, copy the folder away, then run `router doctor --repair`, or put a backup back with `router restore`"
    )]
    Missing { place: String, segment: u64, file: String },
    #[error(
        "segment {segment} of the journal in {place} was written by a newer router ({why}); run that version"
    )]
    Newer { place: String, segment: u64, why: String },
    #[error(
        "the key of the store, {place}/key, is missing or has the wrong length, and there is a journal; put it back from a backup: `router backup` keeps it"
    )]
    NoKey { place: String },
}

/// What whoever runs the router can do about it.
fn way_out(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let user = rustix::process::geteuid().as_raw();
            format!(
                " (the router runs as user {user}: the folder and all in it must belong to that user, `chown -R {user} FOLDER`, and be writable)"
            )
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            " (the volume is mounted read-only: mount it writable, or name another folder by `store:` in router.yaml)".to_owned()
        }
        _ => String::new(),
    }
}

/// What the files said.
pub(super) struct Recovered {
    pub(crate) state: State,
    /// Number of the next fact.
    pub(crate) next: u64,
    /// The newest segment that holds anything; 0: none.
    pub(crate) last: u64,
    /// The segments after it that were prepared and never written to, without a gap.
    pub(crate) spares: Vec<u64>,
}

/// Progress is told after as many.
const PROGRESS_SEGMENTS: usize = 16;

struct Walk<'a> {
    disk: &'a Arc<dyn Disk>,
    segments: &'a Segments,
    sealed: &'a Sealed,
    replay: Replay<'a>,
    now: Moment,
    /// Segments of zeros alone, and their size.
    blank: BTreeMap<u64, u64>,
    /// First and last number of each gap.
    gaps: Vec<(u64, u64)>,
}

/// Reads all segments, mends the tail, and leaves nothing that another crash could lose. Prepared segments of
/// `segment_bytes` are kept; nothing that is read here is ever appended to.
pub(super) fn recover(
    disk: &Arc<dyn Disk>,
    segments: &Segments,
    sealed: &Sealed,
    hashing: Hashing,
    segment_bytes: u64,
    now: Moment,
) -> Result<Recovered, OpenError> {
    let place = disk.place();
    let io = |action: &str| {
        let (place, action) = (place.clone(), action.to_owned());
        move |source| OpenError::Io { place, action, source }
    };
    let names = disk.list().map_err(io("list the files"))?;
    let there: BTreeSet<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    let walk = |resuming: bool| {
        let blank = BTreeMap::new();
        let replay = Replay::new(disk.place(), segments, hashing, now);
        let mut walk = Walk { disk, segments, sealed, replay, now, blank, gaps: Vec::new() };
        let resumed = resuming && walk.resume(&there);
        (resumed, walk.through(&there, resumed).map(|()| walk))
    };
    let walk = match walk(true) {
        (true, Err(OpenError::Corrupt { segment, offset, why, .. })) => {
            tracing::warn!(
                segment,
                offset,
                why,
                "the journal does not go on from its checkpoint; all of it is read"
            );
            walk(false).1?
        }
        (_, walked) => walked?,
    };
    let Walk { replay, blank, gaps, .. } = walk;
    let Replay { state, next, clean, last: newest, .. } = replay;
    let last = newest.map_or(0, |(segment, _)| segment);
    let retired = state.retired;
    for (first, end) in gaps {
        let segment = first.max(retired + 1);
        if segment <= end.min(last) {
            let file = segment::name(segment);
            return Err(OpenError::Missing { place, segment, file });
        }
    }
    if let Some((slot, gap)) = state.damage.gaps().next() {
        let at = state.delivery(slot).last();
        let why = format!(
            "the repair of this journal was not finished: {} is not carried over what it lost",
            gap.state.id
        );
        let (segment, offset) = (at.segment, at.offset.into());
        return Err(OpenError::Corrupt { place, segment, offset, why });
    }
    for segment in state.damage.segments() {
        tracing::warn!(
            segment,
            "this segment was damaged and repaired; what was lost with it is written down in the folder quarantine/"
        );
    }
    if let Some((segment, end)) = newest {
        if clean {
            // What was prepared and not used is given back.
            let file = segments.file(segment).map_err(io("open the last segment"))?;
            file.truncate(end as u64).map_err(io("shorten the last segment"))?;
        } else {
            copy(&**disk, segments, segment, end).map_err(io("copy the last segment"))?;
        }
    }
    for &gone in there.range(..=retired) {
        // Its end was written down, and is on the medium now; what was left to do is done.
        sealed.forget(gone);
        segments.forget(gone);
        disk.remove(&segment::name(gone)).map_err(io("remove a segment that is retired"))?;
    }
    let spares: Vec<u64> =
        (last + 1..).take_while(|number| blank.get(number) == Some(&segment_bytes)).collect();
    for &spare in &spares {
        // Whoever prepared it may have been killed before its sync.
        let synced = segments.file(spare).and_then(|file| file.sync_data());
        synced.map_err(io("sync a prepared segment"))?;
    }
    let unusable = |number: &&u64| **number > last && !spares.contains(number);
    for &number in there.iter().filter(unusable) {
        disk.remove(&segment::name(number)).map_err(io("remove an unused segment"))?;
        segments.forget(number);
    }
    // What stays in the index costs room alone.
    drop(sealed.sweep());
    Ok(Recovered { state, next, last, spares })
}

impl Walk<'_> {
    /// Begins with the newest checkpoint, if there is one to go on from.
    fn resume(&mut self, there: &BTreeSet<u64>) -> bool {
        let resumed = self.sealed.resume(there, self.now);
        let Some(Resumed { state, mark, gone }) =
            resumed.filter(|resumed| self.ends_at(&resumed.mark))
        else {
            return false;
        };
        self.replay.clean = self.is_clean_end(&mark);
        self.replay.next = state.next;
        self.gaps.extend(gone);
        self.replay.last = Some((mark.segment, mark.end as usize));
        self.replay.state = state;
        self.replay.state.is_reading = true;
        true
    }

    /// Reads all segments after those that it began with.
    fn through(&mut self, there: &BTreeSet<u64>, resumed: bool) -> Result<(), OpenError> {
        let mut expected = self.replay.last.map_or(1, |(segment, _)| segment + 1);
        let total = there.range(expected..).count();
        let sealed = self.sealed;
        // The index takes the pages of one segment while the next one is read.
        std::thread::scope(|scope| {
            let (pages, derived) = mpsc::sync_channel(1);
            scope.spawn(move || {
                for (derivation, segment, end) in derived {
                    // What the index does not take is derived again when it is asked for.
                    drop(sealed.put(derivation, segment, end));
                }
            });
            for (&number, done) in there.range(expected..).zip(1..) {
                if expected < number {
                    self.gaps.push((expected, number - 1));
                }
                self.replay.state.has_gaps |= !self.gaps.is_empty();
                self.segment(number, expected == number, &pages)?;
                expected = number + 1;
                if !resumed && done % PROGRESS_SEGMENTS == 0 {
                    tracing::info!(done, total, "reading the segments of the journal");
                }
            }
            Ok(())
        })
    }

    /// Applies what stands in one segment. `follows`: the segment before it was read too.
    fn segment(
        &mut self,
        number: u64,
        follows: bool,
        pages: &SyncSender<(Derivation, u64, u64)>,
    ) -> Result<(), OpenError> {
        let bytes = self.segments.bytes(number).map_err(|source| OpenError::Io {
            place: self.disk.place(),
            action: format!("read segment {number}"),
            source,
        })?;
        let Taken { end, derivation, tail } = self.replay.take(number, &bytes, follows)?;
        if let Some(derivation) = derivation {
            pages.send((derivation, number, end as u64)).expect("its receiver waits for the end");
            drop(self.replay.state.shelve(number as u32));
        } else if let Tail::Blank = tail {
            self.blank.insert(number, bytes.len() as u64);
        }
        if let Tail::Torn = tail {
            tracing::warn!(
                segment = number,
                offset = end,
                "the journal's tail is torn: what was being written when the router ended was never acknowledged, and is cut"
            );
        }
        Ok(())
    }

    /// Nothing was written behind the mark in its segment.
    fn ends_at(&self, mark: &Mark) -> bool {
        let tail = || -> io::Result<Vec<u8>> {
            let file = self.segments.file(mark.segment)?;
            let mut tail = vec![0; file.size()?.saturating_sub(mark.end) as usize];
            let count = file.read_at(mark.end, &mut tail)?;
            tail.truncate(count);
            Ok(tail)
        };
        tail().is_ok_and(|tail| format::is_blank(&tail))
    }

    /// The last thing before the mark was the mark of a clean end.
    fn is_clean_end(&self, mark: &Mark) -> bool {
        let Some(length) = format::batch_length(&mark.header) else { return false };
        let Some(offset) = mark.end.checked_sub(length as u64) else { return false };
        let Ok(batch) = self.segments.batch(mark.segment, offset) else { return false };
        batch.facts().is_ok_and(|facts| facts.last().is_some_and(|(_, fact)| *fact == Fact::Closed))
    }
}

/// What was written but not synced may be in the page cache alone. So the last segment is written anew up to `end` and
/// synced, before anything in it is relied on. Positions stay what they are.
pub(super) fn copy(
    disk: &dyn Disk,
    segments: &Segments,
    number: u64,
    end: usize,
) -> io::Result<()> {
    let bytes = segments.bytes(number)?;
    put(disk, segments, number, &bytes[..end])
}

/// Puts a whole segment in the place of the one that has this number, or of none.
pub(super) fn put(
    disk: &dyn Disk,
    segments: &Segments,
    number: u64,
    bytes: &[u8],
) -> io::Result<()> {
    const DRAFT: &str = "journal/recovering";
    match disk.remove(DRAFT) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    disk.prepare(DRAFT, 0)?;
    let file = disk.open(DRAFT)?;
    file.write_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(DRAFT, &segment::name(number))?;
    disk.sync_folder()?;
    segments.forget(number);
    Ok(())
}
