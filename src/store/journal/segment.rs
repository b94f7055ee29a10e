//! Segment files: their names, their spares, and reading one fact back.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

use bytes::Bytes;

use super::format::{self, Found, HEADER_BYTES, Header, Salt, Salts};
use crate::store::StoreError;
use crate::store::codec::{self, DecodeError};
use crate::store::fact::{Fact, Position, ReadFacts};
use crate::world::disk::{Disk, DiskFile};

const FOLDER: &str = "journal/";
const ENDING: &str = ".segment";
/// A frame from this size on is kept until the next such one is read.
const LONG_FRAME_BYTES: usize = 64 << 10;

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
    salts: Salts,
    files: Mutex<BTreeMap<u64, Opened>>,
    /// The last long frame that was read. A POST of thousands of events is one frame, and who looks for one of them mostly
    /// looks for the next one, too.
    long: Mutex<Option<Frame>>,
    tip: Mutex<Tip>,
    /// The tip has moved.
    moved: Condvar,
}

/// How far the journal is written. The state runs ahead of it: a fact is in the rows before its bytes are in the file, and
/// whoever reads it there must not meet half of them and take that for damage.
#[derive(Default)]
struct Tip {
    /// Segment and offset behind the last batch. `None`: nobody writes, or nobody goes on writing; what is there is there.
    end: Option<(u64, u64)>,
    /// Readers that wait for the tip.
    waiting: usize,
}

/// A frame's body, proven.
#[derive(Clone)]
struct Frame {
    segment: u64,
    offset: u32,
    body: Bytes,
    /// Where its facts begin in it.
    starts: Arc<[u32]>,
}

#[derive(Clone)]
struct Opened {
    file: Arc<dyn DiskFile>,
    /// As its first bytes claim, once they were read: whoever only writes does not depend on reading.
    salt: Arc<OnceLock<Salt>>,
}

/// A batch that proves itself.
pub(crate) struct Proven {
    pub(crate) header: Header,
    /// All of it.
    pub(crate) bytes: Vec<u8>,
    salt: Salt,
    offset: u64,
}

impl Proven {
    pub(crate) fn facts(&self) -> Result<Vec<(Position, Fact)>, DecodeError> {
        let body_at = self.offset as usize + HEADER_BYTES;
        format::facts_of(self.salt, &self.bytes[HEADER_BYTES..], self.header.segment, body_at)
    }
}

impl Segments {
    pub(crate) fn new(disk: Arc<dyn Disk>, salts: Salts) -> Self {
        Self {
            disk,
            salts,
            files: Mutex::default(),
            long: Mutex::default(),
            tip: Mutex::default(),
            moved: Condvar::new(),
        }
    }

    /// All before `offset` of `segment` is in the files now.
    pub(crate) fn advance(&self, segment: u64, offset: u64) {
        self.tip().end = Some((segment, offset));
        self.moved.notify_all();
    }

    /// Nothing more will be written: nobody is to wait for it.
    pub(crate) fn stop_writing(&self) {
        self.tip().end = None;
        self.moved.notify_all();
    }

    fn tip(&self) -> MutexGuard<'_, Tip> {
        self.tip.lock().expect("no holder of this lock can panic")
    }

    /// Returns once `at` is in the files. The writer never waits here: what it has not written it reads in its own batch.
    fn until_written(&self, at: Position) {
        let ahead =
            |tip: &Tip| tip.end.is_some_and(|end| (at.segment, u64::from(at.offset)) >= end);
        let mut tip = self.tip();
        while ahead(&tip) {
            tip.waiting += 1;
            tip = self.moved.wait(tip).expect("no holder of this lock can panic");
            tip.waiting -= 1;
        }
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.tip().waiting
    }

    pub(crate) fn salts(&self) -> Salts {
        self.salts
    }

    pub(crate) fn file(&self, segment: u64) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.opened(segment)?.file)
    }

    fn opened(&self, segment: u64) -> io::Result<Opened> {
        let mut files = self.files.lock().expect("no holder of this lock can panic");
        if let Some(opened) = files.get(&segment) {
            return Ok(opened.clone());
        }
        let file = self.disk.open(&name(segment))?;
        let opened = Opened { file, salt: Arc::default() };
        files.insert(segment, opened.clone());
        Ok(opened)
    }

    fn salt(&self, opened: &Opened) -> io::Result<Salt> {
        if let Some(salt) = opened.salt.get() {
            return Ok(*salt);
        }
        let mut head = [0; HEADER_BYTES];
        let count = opened.file.read_at(0, &mut head)?;
        Ok(*opened.salt.get_or_init(|| self.salts.of_head(&head[..count])))
    }

    /// Opens the file anew next time: it was replaced.
    pub(crate) fn forget(&self, segment: u64) {
        self.files.lock().expect("no holder of this lock can panic").remove(&segment);
        let mut long = self.long.lock().expect("no holder of this lock can panic");
        if long.as_ref().is_some_and(|frame| frame.segment == segment) {
            *long = None;
        }
    }

    /// A whole segment.
    pub(crate) fn bytes(&self, segment: u64) -> io::Result<Vec<u8>> {
        let file = self.file(segment)?;
        let mut bytes = vec![0; file.size()? as usize];
        let count = file.read_at(0, &mut bytes)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// The batch at `offset`, if one proves itself there.
    pub(crate) fn batch(&self, segment: u64, offset: u64) -> io::Result<Proven> {
        let opened = self.opened(segment)?;
        let (file, salt) = (&opened.file, self.salt(&opened)?);
        let mut bytes = vec![0; HEADER_BYTES];
        let count = file.read_at(offset, &mut bytes)?;
        let length = format::batch_length(&bytes[..count]).ok_or(io::ErrorKind::UnexpectedEof)?;
        if length as u64 > file.size()?.saturating_sub(offset) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.resize(length, 0);
        file.read_at(offset + count as u64, &mut bytes[count..])?;
        match format::batch_at(salt, &bytes, 0) {
            Found::Batch(header, _) if header.segment == segment => {
                Ok(Proven { header, bytes, salt, offset })
            }
            Found::Batch(..) | Found::Newer(_) | Found::Nothing => {
                Err(io::Error::other("the batch here does not prove itself"))
            }
        }
    }

    fn frame(&self, at: Position) -> io::Result<(Vec<u8>, Salt)> {
        // Most frames fit into the first read.
        const FIRST_READ_BYTES: usize = 4096;
        let opened = self.opened(at.segment)?;
        let (file, salt) = (&opened.file, self.salt(&opened)?);
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
        Ok((bytes, salt))
    }
}

impl ReadFacts for Segments {
    fn read(&self, at: Position) -> Result<Arc<Fact>, StoreError> {
        self.until_written(at);
        let is_here = |frame: &&Frame| (frame.segment, frame.offset) == (at.segment, at.offset);
        let long = self.long.lock().expect("no holder of this lock can panic").clone();
        if let Some(frame) = long.as_ref().filter(is_here) {
            let start = frame.starts.get(at.index as usize).map(|start| *start as usize);
            let rest = start.and_then(|start| frame.body.get(start..)).unwrap_or_default();
            return fact_in(rest, 0, at);
        }
        let (frame, salt) =
            self.frame(at).map_err(|error| StoreError::Corrupt(format!("{at}: {error}")))?;
        let fact = fact_of(salt, &frame, at)?;
        if frame.len() >= LONG_FRAME_BYTES {
            let body = Bytes::from(frame).slice(format::FRAME_HEADER_BYTES..);
            let starts = codec::starts(&body)
                .map_err(|error| StoreError::Corrupt(format!("{at}: {error}")))?;
            let starts = starts.into();
            let frame = Frame { segment: at.segment, offset: at.offset, body, starts };
            *self.long.lock().expect("no holder of this lock can panic") = Some(frame);
        }
        Ok(fact)
    }
}

/// The fact with `at.index` in a whole frame.
pub(crate) fn fact_of(salt: Salt, frame: &[u8], at: Position) -> Result<Arc<Fact>, StoreError> {
    let corrupt = |why: String| StoreError::Corrupt(format!("{at}: {why}"));
    let body = format::frame_body(salt, frame);
    fact_in(body.ok_or_else(|| corrupt("the checksum is wrong".into()))?, at.index, at)
}

/// The fact with number `index` in proven bytes; `at` is for the message.
fn fact_in(body: &[u8], index: u32, at: Position) -> Result<Arc<Fact>, StoreError> {
    let corrupt = |why: String| StoreError::Corrupt(format!("{at}: {why}"));
    let fact = codec::decode_one(body, index).map_err(|error| corrupt(error.to_string()))?;
    fact.map(Arc::new).ok_or_else(|| corrupt("the frame has fewer facts".into()))
}
