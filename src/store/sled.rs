//! Pages kept in sled. Groups and pages go in, and come out again; what stands in a page, what it was derived from and
//! whether it can be believed is not known here, and nobody else knows that it is sled.
//!
//! sled 0.34.7 is fast, and cannot be trusted: on a damaged folder it opens empty without an error, or panics; it can wait
//! for ever; after a full disk it fails until it is opened again. All of that is bearable for pages that the journal can
//! give again, as long as it stays in here. So a database lives on a thread of its own that calls talk to under a time
//! limit, and the first error, panic or silence ends it: then each call fails at once, until [`Index::reset`] moves the
//! folder aside and begins a new one. A thread that does not answer is left behind, never waited for.

use std::any::Any;
use std::convert::Infallible;
use std::ffi::OsString;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use std::{fs, io, thread};

use ::sled::{Db, IVec};
use bytes::Bytes;
use tracing::warn;

use super::index::{Group, Index, IndexError, PAGE_BYTES_MAX, PageId, PageKind};

/// What is put or removed in one go; a read waits for no more than that.
const PAGES_A_JOB: usize = 64;
const ROWS_A_JOB: usize = PAGES_A_JOB * ROWS_A_PAGE as usize;

/// Each caller has one job in the queue, and there are fewer callers than this: tokio's 512 blocking threads.
const JOBS_MAX: usize = 1024;

/// A page is cut into rows, or sled's memory would have no bound: it keeps a leaf of up to 16 values until 64 accesses more
/// came to its shard, one of 256, and leaves of more than 128 KiB it counts as nothing and keeps for ever. With 40,000 pages
/// read in no order the process held 577 MiB with a value a page, and 31 MiB with rows, whatever [`CACHE_BYTES`] said.
const ROW_BYTES: usize = 2 << 10;
const ROWS_A_PAGE: u8 = (PAGE_BYTES_MAX / ROW_BYTES) as u8;

/// For each of sled's shards one leaf of rows.
const CACHE_BYTES: u64 = 8 << 20;

/// sled syncs its file that often while it is written, and the journal's own syncs wait for that; what is lost of its buffer
/// when the process is killed is derived again.
const FLUSH_EVERY_MS: u64 = 2_000;

/// The first byte of a key says what stands under it. Then come kind, segment and generation, as in [`Group`], and for a row
/// its page's sequence and its number: big-endian, so that keys sort as groups and pages do. This is a format on disk.
const ENTRY: u8 = 1;
const ROW: u8 = 2;
/// Kind, segment, generation.
const GROUP_BYTES: usize = 1 + 8 + 8;
/// After a group, behind the key of any row of it.
const BEHIND: [u8; 5] = [u8::MAX; 5];

/// How long sled may take before it counts as broken.
#[derive(Clone, Copy, Debug)]
pub struct SledLimits {
    /// Opening, which reads what was written since the last opening.
    pub open: Duration,
    pub get: Duration,
    /// A batch of pages put or removed, or a list of all groups.
    pub batch: Duration,
    /// Closing, when the index is dropped or reset; afterwards the thread is left behind.
    pub close: Duration,
}

impl Default for SledLimits {
    fn default() -> Self {
        Self {
            open: Duration::from_secs(30),
            get: Duration::from_secs(5),
            batch: Duration::from_secs(30),
            close: Duration::from_secs(5),
        }
    }
}

/// An index in a folder of its own.
pub struct SledIndex {
    folder: PathBuf,
    limits: SledLimits,
    /// `None` before the first call.
    worker: Mutex<Option<Arc<Worker>>>,
    /// Held by whoever replaces the worker.
    replacing: Mutex<()>,
}

impl SledIndex {
    /// The index of a folder, which is opened with the first call and not touched before: by then whoever calls holds the
    /// lock of the store.
    pub fn at(folder: impl Into<PathBuf>, limits: SledLimits) -> Self {
        let (worker, replacing) = (Mutex::new(None), Mutex::new(()));
        Self { folder: folder.into(), limits, worker, replacing }
    }

    /// Opened at once.
    #[cfg(test)]
    fn open(folder: impl Into<PathBuf>, limits: SledLimits) -> Self {
        let index = Self::at(folder, limits);
        drop(index.worker());
        index
    }

    /// Never fails: a folder that sled cannot open is moved aside, and where even a new one cannot be opened, each call says
    /// so until [`Index::reset`] succeeds.
    fn first_worker(&self) -> Worker {
        let (folder, limits) = (&self.folder, self.limits);
        let opened = Worker::open(folder, limits).or_else(|error| {
            let aside = aside(folder)?;
            warn!(
                folder = %folder.display(),
                moved_to = %aside.display(),
                %error,
                "the index cannot be opened: its folder was moved aside, and it is rebuilt from the journal"
            );
            Worker::open(folder, limits)
        });
        opened.unwrap_or_else(|error| {
            warn!(folder = %folder.display(), %error, "no index can be begun");
            Worker::broken(error, limits)
        })
    }

    /// A call goes on with the worker that it began with, so that half of a group never ends up in a new database.
    fn worker(&self) -> Arc<Worker> {
        let mut worker = locked(&self.worker);
        worker.get_or_insert_with(|| Arc::new(self.first_worker())).clone()
    }
}

impl Index for SledIndex {
    fn put(&self, group: Group, pages: &[Bytes]) -> Result<(), IndexError> {
        if pages.is_empty() {
            return self.remove(group);
        }
        let count = u32::try_from(pages.len()).map_err(|_| {
            IndexError(format!("{group:?} has {} pages, too many to count", pages.len()))
        })?;
        if let Some(page) = pages.iter().find(|page| page.len() > PAGE_BYTES_MAX) {
            return Err(IndexError(format!(
                "{group:?} has a page of {} bytes, the most is {PAGE_BYTES_MAX}",
                page.len()
            )));
        }
        let worker = self.worker();
        let _writing = locked(&worker.writing);
        worker.enter(group, 0)?;
        worker.remove_pages(group)?;
        for (first, pages) in (0..).step_by(PAGES_A_JOB).zip(pages.chunks(PAGES_A_JOB)) {
            let pages = pages.to_vec();
            worker.run("putting pages", worker.limits.batch, move |db| {
                for (sequence, page) in (first..).zip(&pages) {
                    let id = PageId { group, sequence };
                    // A page without bytes is still a page.
                    let empty = page.is_empty().then_some(&[][..]);
                    for (row, bytes) in (0..).zip(page.chunks(ROW_BYTES).chain(empty)) {
                        db.insert(row_key(id, row), bytes)?;
                    }
                }
                Ok(())
            })?;
        }
        worker.enter(group, count)
    }

    fn get(&self, id: PageId) -> Result<Option<Bytes>, IndexError> {
        let worker = self.worker();
        worker.run("reading a page", worker.limits.get, move |db| {
            let entry = db.get(entry_key(id.group))?;
            if entry.is_none_or(|entry| id.sequence >= count(&entry)) {
                return Ok(None);
            }
            let mut page = Vec::new();
            for row in 0..ROWS_A_PAGE {
                let key = row_key(id, row);
                match db.get(&key)? {
                    Some(bytes) => page.extend_from_slice(&bytes),
                    None if row == 0 => return Ok(None),
                    None => break,
                }
                // One more access, for nothing but to have sled forget older leaves earlier.
                db.contains_key(&key)?;
            }
            Ok(Some(page.into()))
        })
    }

    fn groups(&self) -> Result<Vec<Group>, IndexError> {
        let worker = self.worker();
        worker.run("listing groups", worker.limits.batch, |db| {
            let mut groups = Vec::new();
            for entry in db.scan_prefix([ENTRY]) {
                let (key, entry) = entry?;
                // A kind that is not known is a later version's.
                if let (Some(group), 1..) = (group(&key), count(&entry)) {
                    groups.push(group);
                }
            }
            Ok(groups)
        })
    }

    fn remove(&self, group: Group) -> Result<(), IndexError> {
        let worker = self.worker();
        let _writing = locked(&worker.writing);
        worker.enter(group, 0)?;
        worker.remove_pages(group)?;
        worker.run("removing a group", worker.limits.batch, move |db| {
            db.remove(entry_key(group)).map(drop)
        })
    }

    fn reset(&self) -> Result<(), IndexError> {
        let _replacing = locked(&self.replacing);
        // What is called meanwhile fails at once, on the old worker.
        self.worker().close("it is being begun anew");
        let opened = aside(&self.folder).and_then(|_| Worker::open(&self.folder, self.limits));
        let (worker, result) = match opened {
            Ok(worker) => (worker, Ok(())),
            Err(error) => (Worker::broken(error.clone(), self.limits), Err(error)),
        };
        *locked(&self.worker) = Some(Arc::new(worker));
        result
    }
}

impl Drop for SledIndex {
    fn drop(&mut self) {
        if let Some(worker) = locked(&self.worker).take() {
            worker.close("it is closed");
        }
    }
}

/// Opens a copy of an index, which is made in `copy`, so that nothing of the index itself changes.
pub fn open_copy(folder: &Path, copy: &Path, limits: SledLimits) -> Result<SledIndex, IndexError> {
    copy_folder(folder, copy).map_err(|error| {
        IndexError(format!("{} cannot be copied to {}: {error}", folder.display(), copy.display()))
    })?;
    let worker = Mutex::new(Some(Arc::new(Worker::open(copy, limits)?)));
    Ok(SledIndex { folder: copy.to_owned(), limits, worker, replacing: Mutex::new(()) })
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type()?.is_dir() {
            true => copy_folder(&from, &to)?,
            false => drop(fs::copy(&from, &to)?),
        }
    }
    Ok(())
}

/// Moves an index away, so that the next start derives it anew. Answers where it is.
pub fn move_aside(folder: &Path) -> Result<PathBuf, IndexError> {
    aside(folder)
}

/// Moves a folder to `<folder>.damaged`, in the place of what was moved there before: one is enough to look into, and more
/// would fill the disk. No folder is fine.
fn aside(folder: &Path) -> Result<PathBuf, IndexError> {
    let mut name = OsString::from(folder);
    name.push(".damaged");
    let to = PathBuf::from(name);
    let moved = match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => removed(&to).and_then(|()| fs::rename(folder, &to)),
    };
    match moved {
        Ok(()) => Ok(to),
        Err(error) => Err(IndexError(format!(
            "{} cannot be moved to {}: {error}; move it by hand, nothing in it is lost",
            folder.display(),
            to.display()
        ))),
    }
}

fn removed(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

type Job = Box<dyn FnOnce(&Db) + Send>;

/// A database, seen from outside of its thread.
struct Worker {
    jobs: SyncSender<Job>,
    /// Why it answers no more. The thread ends as soon as it can once this is set.
    fault: Arc<OnceLock<IndexError>>,
    /// Disconnected when the database is closed and its thread has ended.
    ended: Mutex<Receiver<Infallible>>,
    /// Held while a group is put or removed, which takes several jobs; reads may come between them.
    writing: Mutex<()>,
    limits: SledLimits,
}

impl Worker {
    fn open(folder: &Path, limits: SledLimits) -> Result<Self, IndexError> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(JOBS_MAX);
        let (opened, opening) = mpsc::sync_channel(1);
        let (alive, ended) = mpsc::sync_channel::<Infallible>(0);
        let fault = Arc::new(OnceLock::new());
        let failed =
            |reason: &str| IndexError(format!("sled cannot open {}: {reason}", folder.display()));

        let (path, faulted) = (folder.to_owned(), fault.clone());
        let thread = thread::Builder::new().name("index-sled".to_owned()).spawn(move || {
            // Dropped last, when nothing of the database is left.
            let _alive = alive;
            let db = match unwound(|| database(&path)) {
                Ok(db) => db,
                Err(reason) => return drop(opened.send(Err(reason))),
            };
            // Nobody waits any more: the folder is another database's now.
            if opened.send(Ok(())).is_ok() {
                while faulted.get().is_none() {
                    let Ok(job) = queue.recv() else { break };
                    job(&db);
                }
            }
            // Whoever still waits is told before the closing, which may hang.
            drop(queue);
            if let Err(reason) = unwound(|| {
                drop(db);
                Ok(())
            }) {
                warn!(folder = %path.display(), reason, "closing the index failed");
            }
        });
        thread.map_err(|error| failed(&format!("no thread can be started: {error}")))?;

        match opening.recv_timeout(limits.open) {
            Ok(Ok(())) => {
                Ok(Self { jobs, fault, ended: Mutex::new(ended), writing: Mutex::new(()), limits })
            }
            Ok(Err(reason)) => Err(failed(&reason)),
            Err(RecvTimeoutError::Timeout) => {
                Err(failed(&format!("no answer within {:?}", limits.open)))
            }
            Err(RecvTimeoutError::Disconnected) => Err(failed("its thread has ended")),
        }
    }

    /// One without a database, which fails each call.
    fn broken(error: IndexError, limits: SledLimits) -> Self {
        Self {
            jobs: mpsc::sync_channel(0).0,
            fault: Arc::new(OnceLock::from(error)),
            ended: Mutex::new(mpsc::sync_channel(0).1),
            writing: Mutex::new(()),
            limits,
        }
    }

    /// Has the thread do something, and waits for it. What fails is told again to each later call.
    fn run<T: Send + 'static>(
        &self,
        doing: &'static str,
        limit: Duration,
        work: impl FnOnce(&Db) -> ::sled::Result<T> + Send + 'static,
    ) -> Result<T, IndexError> {
        if let Some(error) = self.fault.get() {
            return Err(error.clone());
        }
        let (answer, answers) = mpsc::sync_channel(1);
        let fault = self.fault.clone();
        let job: Job = Box::new(move |db| {
            // The fault is known before the answer is, so that no other call gets in between.
            let result = unwound(|| work(db)).map_err(|reason| first(&fault, doing, &reason));
            // Whoever asked may have given up.
            drop(answer.send(result));
        });
        // Waiting for room could last for ever.
        if self.jobs.try_send(job).is_err() {
            return Err(first(
                &self.fault,
                doing,
                "its thread has ended, or too many calls wait for it",
            ));
        }
        match answers.recv_timeout(limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                Err(first(&self.fault, doing, &format!("no answer within {limit:?}")))
            }
            // A fault ended the thread with this job still in the queue.
            Err(RecvTimeoutError::Disconnected) => {
                Err(first(&self.fault, doing, "its thread has ended"))
            }
        }
    }

    /// Says in the directory how many pages a group has. 0 while they are being put or removed: a half of them is none, and
    /// what a crash leaves of it is found at the next opening.
    fn enter(&self, group: Group, count: u32) -> Result<(), IndexError> {
        self.run("writing the directory", self.limits.batch, move |db| {
            db.insert(entry_key(group), &count.to_le_bytes()).map(drop)
        })
    }

    fn remove_pages(&self, group: Group) -> Result<(), IndexError> {
        let range = row_key(PageId { group, sequence: 0 }, 0)..behind(&group_bytes(group));
        loop {
            let range = range.clone();
            if !self.run("removing pages", self.limits.batch, move |db| remove_some(db, range))? {
                return Ok(());
            }
        }
    }

    /// Lets the thread end, and waits for that as long as the limit says.
    fn close(&self, reason: &str) {
        self.fault.get_or_init(|| IndexError(reason.to_owned()));
        // Wakes a thread that waits for work. One that has ended, or has a full queue, needs no waking.
        drop(self.jobs.try_send(Box::new(|_| ())));
        if locked(&self.ended).recv_timeout(self.limits.close) == Err(RecvTimeoutError::Timeout) {
            warn!(
                "the index could not be closed within {:?}, and is left behind",
                self.limits.close
            );
        }
    }
}

/// Sets the reason for which an index is broken, unless there was one before, and returns what stands.
fn first(fault: &OnceLock<IndexError>, doing: &str, reason: &str) -> IndexError {
    fault.get_or_init(|| IndexError(format!("{doing}: {reason}"))).clone()
}

/// Whatever sled does, it comes back as a reason. What a panic leaves in sled is seen by nobody: the database is closed.
fn unwound<T>(work: impl FnOnce() -> ::sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("sled panicked: {}", message(&*panic))),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

/// No holder of these locks leaves anything half done that a later one would rely on.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn database(folder: &Path) -> ::sled::Result<Db> {
    let config = ::sled::Config::new()
        .path(folder)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(FLUSH_EVERY_MS));
    let db = config.open()?;
    sweep(&db)?;
    Ok(db)
}

/// Removes the groups that were half put or half removed when a crash came, and pages that the directory does not know.
fn sweep(db: &Db) -> ::sled::Result<()> {
    for entry in db.scan_prefix([ENTRY]) {
        let (key, entry) = entry?;
        if count(&entry) == 0 {
            db.remove(key)?;
        }
    }
    // From group to group, so that only one row of each is read.
    let mut from = vec![ROW];
    while let Some((key, _)) = db.range(from..vec![ROW + 1]).next().transpose()? {
        let group = &key[1..key.len().min(1 + GROUP_BYTES)];
        if !db.contains_key([&[ENTRY], group].concat())? {
            while remove_some(db, [&[ROW], group].concat()..behind(group))? {}
        }
        from = behind(group);
    }
    Ok(())
}

/// Removes the first keys of a range, and tells whether there may be more.
fn remove_some(db: &Db, range: Range<Vec<u8>>) -> ::sled::Result<bool> {
    let keys = db.range(range).keys().take(ROWS_A_JOB).collect::<::sled::Result<Vec<IVec>>>()?;
    for key in &keys {
        db.remove(key)?;
    }
    Ok(keys.len() == ROWS_A_JOB)
}

fn group_bytes(group: Group) -> [u8; GROUP_BYTES] {
    let mut bytes = [0; GROUP_BYTES];
    bytes[0] = group.kind as u8;
    bytes[1..9].copy_from_slice(&group.segment.to_be_bytes());
    bytes[9..].copy_from_slice(&group.generation.to_be_bytes());
    bytes
}

fn entry_key(group: Group) -> Vec<u8> {
    [&[ENTRY], &group_bytes(group)[..]].concat()
}

fn row_key(id: PageId, row: u8) -> Vec<u8> {
    [&[ROW], &group_bytes(id.group)[..], &id.sequence.to_be_bytes(), &[row]].concat()
}

fn behind(group: &[u8]) -> Vec<u8> {
    [&[ROW], group, &BEHIND].concat()
}

/// The group that a key in the directory names.
fn group(key: &[u8]) -> Option<Group> {
    let (&kind, numbers) = key.get(1..)?.split_first()?;
    let (segment, generation) = numbers.split_at_checked(8)?;
    Some(Group {
        kind: PageKind::from_number(kind)?,
        segment: u64::from_be_bytes(segment.try_into().ok()?),
        generation: u64::from_be_bytes(generation.try_into().ok()?),
    })
}

/// How many pages a group has, as the directory has it; 0 where that cannot be read.
fn count(entry: &IVec) -> u32 {
    entry[..].try_into().map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests;
