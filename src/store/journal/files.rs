//! The journal's files for a backup: of a running store as they are durable at one moment, or of a folder at rest.

use std::io;

use bytes::Bytes;

use super::commit::{KEY, KEY_BYTES, Shared, read_key};
use super::recovery::OpenError;
use super::{format, segment};
use crate::store::StoreError;
use crate::store::files::{PIECE_BYTES_MAX, StoreFile, StoreFiles};
use crate::store::hashing::Hashing;
use crate::world::disk::Disk;

/// As a backup names a journal.
fn journal_name(hashing: Hashing) -> String {
    format!("{:016x}", hashing.journal())
}

/// Names the journal in a folder, by its key.
pub fn journal_of(disk: &dyn Disk) -> Result<String, OpenError> {
    Ok(journal_name(Hashing::new(read_key(disk)?)))
}

/// Where the file stands that a backup calls so; `None`: it is none of a backup's.
pub fn place_of(name: &str) -> Option<String> {
    if name == KEY {
        return Some(name.to_owned());
    }
    let place = format!("journal/{name}");
    segment::number(&place).is_some_and(|number| segment::name(number) == place).then_some(place)
}

fn name_of(number: u64) -> String {
    let place = segment::name(number);
    place.rsplit('/').next().unwrap_or_default().to_owned()
}

fn key_file() -> StoreFile {
    StoreFile { name: KEY.to_owned(), bytes: KEY_BYTES as u64, mark: None }
}

/// The files of a folder that nobody writes to: whoever calls holds its lock.
pub fn at_rest(disk: &dyn Disk) -> Result<StoreFiles, OpenError> {
    let io =
        |source| OpenError::Io { place: disk.place(), action: "read the files".into(), source };
    let journal = journal_of(disk)?;
    let names = disk.list().map_err(io)?;
    let mut files = vec![key_file()];
    for number in names.iter().filter_map(|name| segment::number(name)) {
        let file = disk.open(&segment::name(number)).map_err(io)?;
        let bytes = file.size().map_err(io)?;
        if !is_blank(&*file, bytes).map_err(io)? {
            files.push(StoreFile { name: name_of(number), bytes, mark: None });
        }
    }
    Ok(StoreFiles { journal, files })
}

/// It was prepared and never written to.
fn is_blank(file: &dyn crate::world::disk::DiskFile, bytes: u64) -> io::Result<bool> {
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < bytes {
        let count = file.read_at(at, &mut buffer)?;
        if count == 0 {
            break;
        }
        if !format::is_blank(&buffer[..count]) {
            return Ok(false);
        }
        at += count as u64;
    }
    Ok(true)
}

/// A piece of a file. `None`: it is not there (any more).
pub fn read_piece(
    disk: &dyn Disk,
    name: &str,
    offset: u64,
    bytes: u64,
) -> io::Result<Option<Bytes>> {
    let Some(place) = place_of(name) else { return Ok(None) };
    let file = match disk.open(&place) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut piece = vec![0; bytes.min(PIECE_BYTES_MAX) as usize];
    let count = file.read_at(offset, &mut piece)?;
    piece.truncate(count);
    Ok(Some(piece.into()))
}

impl Shared {
    /// The files with what is durable of each.
    pub(super) fn files(&self) -> Result<StoreFiles, StoreError> {
        let failed = |error: io::Error| {
            StoreError::Refusing(format!("the files in {} cannot be listed: {error}", self.place()))
        };
        // Between two commits: all before the mark is synced.
        let active = self.mark();
        let (retired, hashing) = self.retired_and_hashing();
        let names = self.disk().list().map_err(failed)?;
        let full = self.full_segments();
        let mut files = vec![key_file()];
        for number in names.iter().filter_map(|name| segment::number(name)) {
            if number <= retired || number > active.segment {
                continue;
            }
            let (bytes, mark) = match full.get(&number) {
                _ if number == active.segment => (active.end, None),
                Some((end, mark)) => (*end, mark.map(|mark| format!("{mark:08x}"))),
                // It ended in an earlier process, and has no pages.
                None => {
                    let file = self.disk().open(&segment::name(number));
                    match file.and_then(|file| file.size()) {
                        Ok(bytes) => (bytes, None),
                        // Retired meanwhile; whoever asks for it later would find nothing either.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                        Err(error) => return Err(failed(error)),
                    }
                }
            };
            files.push(StoreFile { name: name_of(number), bytes, mark });
        }
        Ok(StoreFiles { journal: journal_name(hashing), files })
    }

    pub(super) fn read_file(
        &self,
        name: &str,
        offset: u64,
        bytes: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        read_piece(self.disk(), name, offset, bytes).map_err(|error| {
            StoreError::Refusing(format!("{name} in {} cannot be read: {error}", self.place()))
        })
    }
}
