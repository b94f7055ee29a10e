//! A disk in memory that does what disks do: what was not synced may be lost, torn and reordered when the power goes,
//! syncs may fail, and space runs out. It keeps a log of every operation, so that one run can be cut at each of them.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Disk, DiskFile};

/// What a device writes whole or not at all.
const SECTOR: usize = 512;

/// See [`Disk`]. Clones are the same disk.
#[derive(Clone)]
pub struct MemoryDisk {
    inner: Arc<Mutex<Inner>>,
    locked: Arc<AtomicBool>,
}

struct Inner {
    image: Image,
    log: Vec<Operation>,
    start: Image,
    quota: u64,
    faults: Vec<Fault>,
}

/// Lets the `number`-th next operation of its kind go wrong (0: the very next).
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    pub number: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A write fails after half of its bytes.
    ShortWrite,
    /// A sync fails, and what it should have synced is never written; a later sync does not try again, as on Linux.
    FailedSync,
    /// A sync reports success and does nothing.
    LyingSync,
    /// A preparation meets a full disk.
    NoSpace,
}

/// How much of what was not synced survives a power cut.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    Nothing,
    Everything,
    /// A random part of it: any subset of the writes, torn at sectors, and any of the folder's changes.
    Some(u64),
}

#[derive(Clone, Default)]
struct Image {
    files: BTreeMap<u64, FileImage>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the last sync of the folder.
    pending_names: Vec<NameChange>,
}

#[derive(Clone, Default)]
struct FileImage {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone)]
enum Pending {
    Write(u64, Arc<[u8]>),
    Length(u64),
}

#[derive(Clone)]
enum NameChange {
    Add(String, u64),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone)]
enum Operation {
    Create(u64),
    Name(NameChange),
    Change(u64, Pending),
    Sync(u64),
    /// A sync that failed: what was pending is neither written nor tried again.
    Forget(u64),
    SyncFolder,
}

impl FileImage {
    fn change(bytes: &mut Vec<u8>, pending: &Pending) {
        match pending {
            Pending::Write(offset, written) => {
                let (from, to) = (*offset as usize, *offset as usize + written.len());
                if bytes.len() < to {
                    bytes.resize(to, 0);
                }
                bytes[from..to].copy_from_slice(written);
            }
            Pending::Length(length) => bytes.resize(*length as usize, 0),
        }
    }
}

impl Image {
    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create(file) => {
                self.files.insert(*file, FileImage::default());
            }
            Operation::Name(change) => {
                rename(&mut self.names, change);
                self.pending_names.push(change.clone());
            }
            Operation::Change(file, pending) => {
                if let Some(file) = self.files.get_mut(file) {
                    FileImage::change(&mut file.now, pending);
                    file.pending.push(pending.clone());
                }
            }
            Operation::Sync(file) => {
                if let Some(file) = self.files.get_mut(file) {
                    for pending in std::mem::take(&mut file.pending) {
                        FileImage::change(&mut file.durable, &pending);
                    }
                }
            }
            Operation::Forget(file) => {
                if let Some(file) = self.files.get_mut(file) {
                    file.pending.clear();
                }
            }
            Operation::SyncFolder => {
                for change in std::mem::take(&mut self.pending_names) {
                    rename(&mut self.durable_names, &change);
                }
            }
        }
    }

    /// What is there after a power cut.
    fn cut(&self, cut: Cut) -> Image {
        let mut random = match cut {
            Cut::Nothing | Cut::Everything => None,
            Cut::Some(seed) => Some(StdRng::seed_from_u64(seed)),
        };
        let mut keep = |probability: f64| match (&mut random, cut) {
            (Some(random), _) => random.random_bool(probability),
            (None, Cut::Everything) => true,
            (None, _) => false,
        };
        let mut names = self.durable_names.clone();
        for change in &self.pending_names {
            if keep(0.5) {
                rename(&mut names, change);
            }
        }
        let mut files = BTreeMap::new();
        for (number, file) in &self.files {
            let mut bytes = file.durable.clone();
            for pending in &file.pending {
                match pending {
                    Pending::Write(offset, written) => {
                        let mut at = 0;
                        // All sectors of some writes, some sectors of others.
                        let whole = keep(0.5);
                        while at < written.len() {
                            // Sectors are the file's, not the write's.
                            let sector = (*offset as usize + at) / SECTOR;
                            let end = ((sector + 1) * SECTOR - *offset as usize).min(written.len());
                            if whole || keep(0.5) {
                                let piece = written[at..end].into();
                                let piece = Pending::Write(offset + at as u64, piece);
                                FileImage::change(&mut bytes, &piece);
                            }
                            at = end;
                        }
                    }
                    Pending::Length(_) if keep(0.5) => FileImage::change(&mut bytes, pending),
                    Pending::Length(_) => {}
                }
            }
            let image = FileImage { now: bytes.clone(), durable: bytes, pending: Vec::new() };
            files.insert(*number, image);
        }
        Image { files, names: names.clone(), durable_names: names, pending_names: Vec::new() }
    }
}

fn rename(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Add(name, file) => {
            names.insert(name.clone(), *file);
        }
        NameChange::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryDisk {
    pub fn new() -> Self {
        Self::of(Image::default())
    }

    fn of(image: Image) -> Self {
        let inner = Inner {
            start: image.clone(),
            image,
            log: Vec::new(),
            quota: 1 << 40,
            faults: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), locked: Arc::new(AtomicBool::new(false)) }
    }

    /// The disk holds `bytes` at most.
    pub fn set_quota(&self, bytes: u64) {
        self.lock_inner().quota = bytes;
    }

    pub fn inject(&self, fault: Fault) {
        self.lock_inner().faults.push(fault);
    }

    /// Operations so far.
    pub fn operations(&self) -> usize {
        self.lock_inner().log.len()
    }

    /// Numbers of the operations after which something had just become durable.
    pub fn syncs(&self) -> Vec<usize> {
        let inner = self.lock_inner();
        let log = inner.log.iter().enumerate();
        log.filter(|(_, operation)| matches!(operation, Operation::Sync(_) | Operation::SyncFolder))
            .map(|(number, _)| number + 1)
            .collect()
    }

    /// The disk as a new machine finds it, had the power gone after the first `operations`.
    pub fn cut_after(&self, operations: usize, cut: Cut) -> MemoryDisk {
        let inner = self.lock_inner();
        let mut image = inner.start.clone();
        for operation in inner.log.iter().take(operations) {
            image.apply(operation);
        }
        Self::of(image.cut(cut))
    }

    /// Like [`Self::cut_after`] for each of `points`, which ascend, in one pass.
    pub fn cut_at_each(&self, points: &[usize], mut each: impl FnMut(usize, &dyn Fn(Cut) -> Self)) {
        let (mut image, log) = {
            let inner = self.lock_inner();
            (inner.start.clone(), inner.log.clone())
        };
        let mut done = 0;
        for &point in points {
            for operation in log.iter().take(point).skip(done) {
                image.apply(operation);
            }
            done = done.max(point);
            each(point, &|cut| Self::of(image.cut(cut)));
        }
    }

    /// The disk as the next process finds it after this one was killed: nothing is lost, and nothing more is durable.
    pub fn after_kill(&self) -> MemoryDisk {
        Self::of(self.lock_inner().image.clone())
    }

    /// Flips bits of a file, on the medium.
    pub fn damage(&self, name: &str, offset: u64, mask: u8) {
        let mut inner = self.lock_inner();
        let file = inner.image.names.get(name).copied();
        if let Some(file) = file.and_then(|file| inner.image.files.get_mut(&file)) {
            for bytes in [&mut file.now, &mut file.durable] {
                if let Some(byte) = bytes.get_mut(offset as usize) {
                    *byte ^= mask;
                }
            }
        }
    }

    fn lock_inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock can panic")
    }
}

impl Inner {
    fn perform(&mut self, operation: Operation) {
        self.image.apply(&operation);
        self.log.push(operation);
    }

    fn used(&self) -> u64 {
        let named = self.image.names.values();
        named.filter_map(|file| self.image.files.get(file)).map(|file| file.now.len() as u64).sum()
    }

    /// Whether the operation at hand goes wrong as `kind` says.
    fn fails(&mut self, kind: FaultKind) -> bool {
        let mut hit = false;
        self.faults.retain_mut(|fault| {
            if fault.kind != kind {
                return true;
            }
            if fault.number == 0 {
                hit = true;
                return false;
            }
            fault.number -= 1;
            true
        });
        hit
    }

    fn grow(&self, by: u64) -> io::Result<()> {
        match self.used().saturating_add(by) <= self.quota {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn bytes(&self, file: u64) -> io::Result<&Vec<u8>> {
        let file = self.image.files.get(&file).ok_or(io::ErrorKind::NotFound)?;
        Ok(&file.now)
    }
}

impl Disk for MemoryDisk {
    fn place(&self) -> String {
        "memory".into()
    }

    fn prepare(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut inner = self.lock_inner();
        if inner.image.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if inner.fails(FaultKind::NoSpace) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inner.grow(bytes)?;
        let file = inner.image.files.len() as u64;
        inner.perform(Operation::Create(file));
        inner.perform(Operation::Name(NameChange::Add(name.to_owned(), file)));
        if bytes > 0 {
            inner.perform(Operation::Change(file, Pending::Length(bytes)));
            inner.perform(Operation::Sync(file));
        }
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.lock_inner();
        let file = *inner.image.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryFile { disk: self.clone(), file }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock_inner().image.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock_inner();
        if !inner.image.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.perform(Operation::Name(NameChange::Rename(from.to_owned(), to.to_owned())));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock_inner();
        if !inner.image.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.perform(Operation::Name(NameChange::Remove(name.to_owned())));
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.lock_inner().perform(Operation::SyncFolder);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let inner = self.lock_inner();
        Ok(inner.quota.saturating_sub(inner.used()))
    }

    fn total_bytes(&self) -> io::Result<u64> {
        Ok(self.lock_inner().quota)
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        if self.locked.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Unlock(self.locked.clone())))
    }

    fn is_locked(&self) -> io::Result<bool> {
        Ok(self.locked.load(Ordering::SeqCst))
    }
}

struct Unlock(Arc<AtomicBool>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    file: u64,
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.lock_inner().bytes(self.file)?.len() as u64)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock_inner();
        let length = inner.bytes(self.file)?.len() as u64;
        inner.grow((offset + bytes.len() as u64).saturating_sub(length))?;
        let short = inner.fails(FaultKind::ShortWrite);
        let written = if short { &bytes[..bytes.len() / 2] } else { bytes };
        inner.perform(Operation::Change(self.file, Pending::Write(offset, written.into())));
        match short {
            true => Err(io::ErrorKind::WriteZero.into()),
            false => Ok(()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.disk.lock_inner();
        if inner.fails(FaultKind::FailedSync) {
            inner.perform(Operation::Forget(self.file));
            return Err(io::Error::other("input/output error"));
        }
        if !inner.fails(FaultKind::LyingSync) {
            inner.perform(Operation::Sync(self.file));
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let inner = self.disk.lock_inner();
        let bytes = inner.bytes(self.file)?.get(offset as usize..).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.lock_inner();
        inner.perform(Operation::Change(self.file, Pending::Length(len)));
        Ok(())
    }
}
