//! Segment files: their names, their spares, and reading one fact back.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use super::format;
use crate::store::StoreError;
use crate::store::codec;
use crate::store::fact::{Fact, Position, ReadFacts};
use crate::world::disk::{Disk, DiskFile};

const FOLDER: &str = "journal/";
const ENDING: &str = ".segment";

pub(crate) fn name(segment: u64) -> String {
    format!("{FOLDER}{segment:016}{ENDING}")
}

/// The segment that a file of the data folder is.
pub(crate) fn number(name: &str) -> Option<u64> {
    name.strip_prefix(FOLDER)?.strip_suffix(ENDING)?.parse().ok()
}

/// The files that facts are read from.
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    files: Mutex<BTreeMap<u64, Arc<dyn DiskFile>>>,
}

impl Segments {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, files: Mutex::default() }
    }

    pub(crate) fn file(&self, segment: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files.lock().expect("no holder of this lock can panic");
        if let Some(file) = files.get(&segment) {
            return Ok(file.clone());
        }
        let file = self.disk.open(&name(segment))?;
        files.insert(segment, file.clone());
        Ok(file)
    }

    /// Opens the file anew next time: it was replaced.
    pub(crate) fn forget(&self, segment: u64) {
        self.files.lock().expect("no holder of this lock can panic").remove(&segment);
    }

    /// A whole segment.
    pub(crate) fn bytes(&self, segment: u64) -> io::Result<Vec<u8>> {
        let file = self.file(segment)?;
        let mut bytes = vec![0; file.size()? as usize];
        let count = file.read_at(0, &mut bytes)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// The bytes of the batch at `offset`, as its header has it; whether they prove themselves is not looked at.
    pub(crate) fn batch(&self, segment: u64, offset: u64) -> io::Result<Vec<u8>> {
        let file = self.file(segment)?;
        let mut bytes = vec![0; format::HEADER_BYTES];
        let count = file.read_at(offset, &mut bytes)?;
        let length = format::batch_length(&bytes[..count]).ok_or(io::ErrorKind::UnexpectedEof)?;
        if length as u64 > file.size()?.saturating_sub(offset) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.resize(length, 0);
        file.read_at(offset + count as u64, &mut bytes[count..])?;
        Ok(bytes)
    }

    fn frame(&self, at: Position) -> io::Result<Vec<u8>> {
        // Most frames fit into the first read.
        const FIRST_READ_BYTES: usize = 4096;
        let file = self.file(at.segment)?;
        let mut bytes = vec![0; FIRST_READ_BYTES];
        let count = file.read_at(u64::from(at.offset), &mut bytes)?;
        let length = format::frame_length(&bytes[..count]).ok_or(io::ErrorKind::UnexpectedEof)?;
        if length as u64 > file.size()?.saturating_sub(u64::from(at.offset)) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let known = count.min(length);
        bytes.resize(length, 0);
        if known < length {
            file.read_at(u64::from(at.offset) + known as u64, &mut bytes[known..])?;
        }
        Ok(bytes)
    }
}

impl ReadFacts for Segments {
    fn read(&self, at: Position) -> Result<Arc<Fact>, StoreError> {
        let frame =
            self.frame(at).map_err(|error| StoreError::Corrupt(format!("{at}: {error}")))?;
        fact_of(&frame, at)
    }
}

/// The fact with `at.index` in a whole frame.
pub(crate) fn fact_of(frame: &[u8], at: Position) -> Result<Arc<Fact>, StoreError> {
    let corrupt = |why: String| StoreError::Corrupt(format!("{at}: {why}"));
    let body = format::frame_body(frame).ok_or_else(|| corrupt("the checksum is wrong".into()))?;
    let facts = codec::decode_all(body).map_err(|error| corrupt(error.to_string()))?;
    let fact = facts.into_iter().nth(at.index as usize);
    fact.map(Arc::new).ok_or_else(|| corrupt("the frame has fewer facts".into()))
}
