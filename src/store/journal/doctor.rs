//! `router doctor`: reads all that a data folder holds, judges it by the code that a start judges by, and says what is wrong.
//! An examination changes nothing and takes no lock. A repair keeps every fact that still proves itself, moves nothing away
//! before its replacement stands, and writes down what is lost.

mod check;
mod treat;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use self::check::Pass;
use super::commit::{KEY, read_key};
use super::format::Salts;
use super::recovery::OpenError;
use super::segment::{self, Segments};
use crate::delivery::state::Status;
use crate::name::{DeliveryId, EventId, SourceName, Uid};
use crate::store::hashing::Hashing;
use crate::store::index::{Index, IndexError};
use crate::store::state::Moment;
use crate::store::wait::moment;
use crate::world::World;
use crate::world::disk::Disk;

/// What is wrong in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub segment: Option<u64>,
    pub offset: Option<u64>,
    /// Relative to the data folder.
    pub file: String,
    pub what: String,
    pub means: String,
    /// What `--repair` does about it; `None`: it can do nothing.
    pub repair: Option<String>,
}

/// What `router doctor` found.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub store: String,
    /// A router holds the folder.
    pub in_use: bool,
    pub segments: usize,
    pub events: u64,
    pub findings: Vec<Finding>,
    /// What is worth knowing and nothing wrong.
    pub notes: Vec<String>,
    pub loss: Loss,
    /// What was done.
    pub repaired: Vec<String>,
}

/// What is gone with the damaged places, as far as the rest tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    pub facts: u64,
    pub events: Vec<LostEvent>,
    /// They were begun in what is lost: later facts about them tell nothing.
    pub deliveries: Vec<DeliveryId>,
    /// Some of what happened to them is lost.
    pub gaps: Vec<GapView>,
    /// They were unfinished before the loss, and nothing later is about them: what is lost may have been.
    pub unsure: Vec<DeliveryId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LostEvent {
    pub uid: Uid,
    pub event_id: Option<EventId>,
    pub source: Option<SourceName>,
    pub received_at: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GapView {
    pub delivery: DeliveryId,
    pub event_id: EventId,
    /// After the repair.
    pub status: Status,
}

impl Loss {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Segments done, and all of them.
pub type Progress<'a> = &'a dyn Fn(usize, usize);

/// A data folder under examination.
struct Patient<'a> {
    disk: Arc<dyn Disk>,
    /// `None`: it is not looked at.
    index: Option<Arc<dyn Index>>,
    segments: Arc<Segments>,
    hashing: Hashing,
    now: Moment,
    at: Timestamp,
    progress: Progress<'a>,
}

/// While a router works on the folder, a segment may go between the look at the list and the look into it.
const TRIES: usize = 3;

/// Looks at everything and changes nothing. `index`: a copy of the index; `None`: it is not looked at.
pub fn examine(
    disk: &Arc<dyn Disk>,
    index: Option<Arc<dyn Index>>,
    world: &World,
    progress: Progress<'_>,
) -> Result<Report, OpenError> {
    let in_use = disk.is_locked().map_err(|source| OpenError::Io {
        place: disk.place(),
        action: "look at the lock".into(),
        source,
    })?;
    let mut tries = 0;
    loop {
        tries += 1;
        let looked = (|| match Patient::new(disk, index.clone(), world, progress)? {
            Some(patient) => Ok(patient.pass(in_use)?.report),
            None => Ok(Report::default()),
        })();
        let mut report = match looked {
            Ok(report) => report,
            Err(error) => without_repair(&error).ok_or(error)?,
        };
        if in_use && tries < TRIES && !report.is_clean() {
            continue;
        }
        report.store = disk.place();
        report.in_use = in_use;
        if in_use {
            report.notes.insert(
                0,
                "a router holds the folder: its newest part was in motion while it was read, and the index was not looked at (the router proves each page that it reads)".to_owned(),
            );
        }
        return Ok(report);
    }
}

/// Takes the lock, looks at everything, and repairs what can be repaired. `index`: a copy of the index; `aside` moves the
/// index itself away.
pub fn repair(
    disk: &Arc<dyn Disk>,
    index: Option<Arc<dyn Index>>,
    world: &World,
    progress: Progress<'_>,
    aside: &dyn Fn() -> Result<(), IndexError>,
) -> Result<Report, OpenError> {
    let _lock = disk.lock().map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { place: disk.place() },
        _ => OpenError::Io { place: disk.place(), action: "take the lock".into(), source },
    })?;
    let looked = look_and_treat(disk, index, world, progress);
    let (mut report, stale) = match looked {
        Ok(looked) => looked,
        Err(error) => (without_repair(&error).ok_or(error)?, false),
    };
    report.store = disk.place();
    if stale {
        aside().map_err(|error| OpenError::Io {
            place: disk.place(),
            action: "move the index aside".into(),
            source: io::Error::other(error),
        })?;
        report.repaired.push(
            "the index was moved aside; the next start derives it anew from the journal".to_owned(),
        );
    }
    Ok(report)
}

fn look_and_treat(
    disk: &Arc<dyn Disk>,
    index: Option<Arc<dyn Index>>,
    world: &World,
    progress: Progress<'_>,
) -> Result<(Report, bool), OpenError> {
    let Some(patient) = Patient::new(disk, index, world, progress)? else {
        return Ok((Report::default(), false));
    };
    let mut pass = patient.pass(false)?;
    // A part of a repair would be neither the old state nor a new one.
    if pass.report.findings.iter().any(|finding| finding.repair.is_none()) {
        return Ok((pass.report, false));
    }
    let treated = patient.treat(&mut pass)?;
    if treated {
        confirm(disk, world, progress)?;
    }
    Ok((pass.report, pass.index_is_wrong))
}

/// What was repaired must be whole now.
fn confirm(disk: &Arc<dyn Disk>, world: &World, progress: Progress<'_>) -> Result<(), OpenError> {
    let Some(patient) = Patient::new(disk, None, world, progress)? else { return Ok(()) };
    match patient.pass(false)?.report.findings.into_iter().next() {
        None => Ok(()),
        Some(finding) => Err(OpenError::Corrupt {
            place: disk.place(),
            segment: finding.segment.unwrap_or(0),
            offset: finding.offset.unwrap_or(0),
            why: format!("the repair did not mend this: {}", finding.what),
        }),
    }
}

/// An examination that ends before it begins.
fn without_repair(error: &OpenError) -> Option<Report> {
    let (segment, file, means) = match error {
        OpenError::NoKey { .. } => (
            None,
            KEY.to_owned(),
            "without the key no event is recognised; put it back from a backup".to_owned(),
        ),
        OpenError::Newer { segment, .. } => (
            Some(*segment),
            segment::name(*segment),
            "nothing is wrong with it; run the newer router's doctor".to_owned(),
        ),
        OpenError::Locked { .. }
        | OpenError::Io { .. }
        | OpenError::Corrupt { .. }
        | OpenError::Missing { .. } => return None,
    };
    let what = error.to_string();
    let finding = Finding { segment, offset: None, file, what, means, repair: None };
    Some(Report { findings: vec![finding], ..Report::default() })
}

impl<'a> Patient<'a> {
    /// `None`: there is no journal yet.
    fn new(
        disk: &Arc<dyn Disk>,
        index: Option<Arc<dyn Index>>,
        world: &World,
        progress: Progress<'a>,
    ) -> Result<Option<Self>, OpenError> {
        let names = disk.list().map_err(|source| OpenError::Io {
            place: disk.place(),
            action: "list the files".into(),
            source,
        })?;
        if !names.iter().any(|name| name == KEY) {
            return match names.iter().any(|name| segment::number(name).is_some()) {
                true => Err(OpenError::NoKey { place: disk.place() }),
                false => Ok(None),
            };
        }
        let hashing = Hashing::new(read_key(&**disk)?);
        Ok(Some(Self {
            disk: disk.clone(),
            index,
            segments: Arc::new(Segments::new(disk.clone(), Salts::new(hashing))),
            hashing,
            now: moment(&*world.clock),
            at: world.clock.now(),
            progress,
        }))
    }

    fn io(&self, action: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
        let (place, action) = (self.disk.place(), action.into());
        move |source| OpenError::Io { place, action, source }
    }

    /// Reads all segments; a second time where one turns out to be missing.
    fn pass(&self, in_use: bool) -> Result<Pass<'_>, OpenError> {
        let names = self.disk.list().map_err(self.io("list the files"))?;
        let there: BTreeSet<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
        let mut absent = BTreeSet::new();
        loop {
            let pass = Pass::read(self, &there, &absent, in_use)?;
            let missing: BTreeSet<u64> = pass.missing().collect();
            if missing.is_subset(&absent) {
                return pass.look_deeper(&names);
            }
            absent.extend(missing);
        }
    }
}

/// Ranges of numbers, as (first, last).
type Gaps = Vec<(u64, u64)>;

/// What must be written over segments.
type Patches = BTreeMap<u64, (Vec<(usize, Vec<u8>)>, usize)>;
