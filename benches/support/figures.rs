//! What the kernel says of a process and of a folder, and a histogram of waits.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// CPU time of all threads of this process so far.
pub(crate) fn process_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec as u32)
}

/// The same by the name of the thread, in ticks of 10 ms each: for sums over seconds. Threads that ended are not in it.
pub(crate) fn thread_cpu() -> BTreeMap<String, Duration> {
    let mut spent = BTreeMap::new();
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return spent };
    for thread in threads.flatten() {
        // A thread may end meanwhile.
        let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else { continue };
        // `pid (name) state …`: the name may hold anything, so the last parenthesis ends it.
        let Some((head, fields)) = stat.rsplit_once(')') else { continue };
        let name = head.split_once('(').map_or("", |(_, name)| name);
        let ticks =
            fields.split_whitespace().skip(11).take(2).filter_map(|it| it.parse::<u64>().ok());
        *spent.entry(name.to_owned()).or_default() +=
            Duration::from_millis(10 * ticks.sum::<u64>());
    }
    spent
}

/// Resident memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) now_kib: u64,
    pub(crate) peak_kib: u64,
}

/// `process`: a pid or `self`. `None` once it is gone.
pub(crate) fn memory(process: &str) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    Some(Memory { now_kib: field("VmRSS")?, peak_kib: field("VmHWM")? })
}

/// Bytes that a folder takes on the medium, and its files. Nothing where there is no folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

pub(crate) fn usage(folder: &Path) -> io::Result<Usage> {
    let mut sum = Usage::default();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(sum),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => {
                let inner = usage(&entry.path())?;
                sum.bytes += inner.bytes;
                sum.files += inner.files;
            }
            Ok(meta) => {
                sum.bytes += meta.blocks() * 512;
                sum.files += 1;
            }
            // The store may remove a file meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

/// Counts of waits in buckets at most 1/32 wide, in a fixed amount of memory: a list of all would weigh on what is measured.
pub(crate) struct Histogram {
    buckets: Vec<AtomicU64>,
    max_nanos: AtomicU64,
}

const PARTS: u64 = 32;

impl Default for Histogram {
    fn default() -> Self {
        let buckets = (0..=bucket(u64::MAX)).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, max_nanos: AtomicU64::new(0) }
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < PARTS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - PARTS.ilog2();
    (u64::from(shift) * PARTS + (nanos >> shift)) as usize
}

/// The largest value of a bucket.
fn ceiling(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    let shift = bucket / PARTS - 1;
    let head = bucket - shift * PARTS;
    ((head + 1) << shift) - 1
}

impl Histogram {
    pub(crate) fn add(&self, wait: Duration) {
        let nanos = wait.as_nanos() as u64;
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.max_nanos.fetch_max(nanos, Ordering::Relaxed);
    }

    /// At most this long for the given share of all, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let counts: Vec<u64> =
            self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                return ceiling(bucket).min(self.max_nanos.load(Ordering::Relaxed)) as f64 / 1e6;
            }
        }
        0.0
    }

    pub(crate) fn max_ms(&self) -> f64 {
        self.max_nanos.load(Ordering::Relaxed) as f64 / 1e6
    }
}
