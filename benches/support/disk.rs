//! The folder of a store, with its writes and syncs counted.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use router::world::disk::{Disk, DiskFile, FolderDisk};

/// What went through a [`CountingDisk`].
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    /// Segments made; each is zero-written and synced beside the commits.
    pub(crate) prepared: AtomicU64,
    /// While set, the length of each write is kept for the bare loop that is compared with.
    pub(crate) keep_lengths: AtomicBool,
    lengths: Mutex<Vec<u32>>,
    /// How far each file that exists is written: what was prepared and not used yet does not count.
    written_to: Mutex<BTreeMap<String, u64>>,
}

impl Counts {
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    pub(crate) fn lengths(&self) -> Vec<u32> {
        self.lengths.lock().expect("no holder of this lock can panic").clone()
    }

    /// Bytes that hold something, of all files that exist.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.written_to.lock().expect("no holder of this lock can panic").values().sum()
    }
}

pub(crate) struct CountingDisk {
    folder: FolderDisk,
    counts: Arc<Counts>,
}

impl CountingDisk {
    pub(crate) fn open(folder: &Path) -> io::Result<(Self, Arc<Counts>)> {
        let counts = Arc::<Counts>::default();
        Ok((Self { folder: FolderDisk::open(folder)?, counts: Arc::clone(&counts) }, counts))
    }
}

impl Disk for CountingDisk {
    fn place(&self) -> String {
        self.folder.place()
    }

    fn prepare(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.folder.prepare(name, bytes)?;
        self.counts.prepared.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.folder.open(name)?;
        Ok(Arc::new(CountingFile { name: name.to_owned(), file, counts: Arc::clone(&self.counts) }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.folder.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)?;
        let mut written = self.counts.written_to.lock().expect("no holder of this lock can panic");
        if let Some(bytes) = written.remove(from) {
            written.insert(to.to_owned(), bytes);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)?;
        self.counts.written_to.lock().expect("no holder of this lock can panic").remove(name);
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.folder.sync_folder()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.folder.free_bytes()
    }

    fn total_bytes(&self) -> io::Result<u64> {
        self.folder.total_bytes()
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.folder.lock()
    }
}

struct CountingFile {
    name: String,
    file: Arc<dyn DiskFile>,
    counts: Arc<Counts>,
}

impl DiskFile for CountingFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)?;
        let counts = &self.counts;
        counts.bytes_written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if counts.keep_lengths.load(Ordering::Relaxed) {
            let mut lengths = counts.lengths.lock().expect("no holder of this lock can panic");
            lengths.push(bytes.len() as u32);
        }
        let end = offset + bytes.len() as u64;
        let mut written = counts.written_to.lock().expect("no holder of this lock can panic");
        match written.get_mut(&self.name) {
            Some(until) => *until = end.max(*until),
            None => drop(written.insert(self.name.clone(), end)),
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}
