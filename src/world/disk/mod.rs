//! The disk as the journal sees it: a folder of files, written at positions and synced on purpose. The real one is a
//! folder; the one in memory loses, reorders and tears what was not synced.

mod folder;
mod memory;

use std::io;
use std::sync::Arc;

pub use folder::FolderDisk;
pub use memory::{Cut, Fault, FaultKind, MemoryDisk};

/// A folder of files by name; a name may stand in the folder `journal/` or `quarantine/`. Every call blocks; the journal's own threads make them.
pub trait Disk: Send + Sync + 'static {
    /// The folder, as messages name it.
    fn place(&self) -> String;
    /// Creates `name` with `bytes` zero-written and synced bytes, for later writes in place. `AlreadyExists` where it is.
    /// What could not be finished is not left behind.
    fn prepare(&self, name: &str, bytes: u64) -> io::Result<()>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Names in the folder, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_folder(&self) -> io::Result<()>;
    fn free_bytes(&self) -> io::Result<u64>;
    fn total_bytes(&self) -> io::Result<u64>;
    /// Takes the folder for this process until the guard goes. `WouldBlock` where another holds it.
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>>;
    /// Whether a process holds it now, as far as this one can see. Takes nothing.
    fn is_locked(&self) -> io::Result<bool> {
        Ok(false)
    }
}

pub trait DiskFile: Send + Sync {
    fn size(&self) -> io::Result<u64>;
    /// Writes all of `bytes` at `offset`. Not durable before `sync_data` returns.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// `fdatasync`: what was written before is on the medium when this returns.
    fn sync_data(&self) -> io::Result<()>;
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    fn truncate(&self, len: u64) -> io::Result<()>;
}
