//! A folder of the machine. Files and folder are for the owner alone: they hold what customers sent.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile};

const LOCK: &str = "lock";

const ZEROS: &[u8] = &[0; 256 * 1024];

/// The folders in it that are ours. Others may not even be readable: `lost+found` is root's.
const FOLDERS: [&str; 2] = ["journal", "quarantine"];

/// See [`Disk`].
pub struct FolderDisk {
    root: PathBuf,
}

impl FolderDisk {
    /// Makes the folder if it is not there.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        make_folder(&root)?;
        Ok(Self { root })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn space(&self) -> io::Result<rustix::fs::StatVfs> {
        Ok(rustix::fs::fstatvfs(File::open(&self.root)?)?)
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn owners_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.read(true).write(true).mode(0o600).open(path)
}

impl Disk for FolderDisk {
    fn place(&self) -> String {
        // `././data` is `./data`.
        self.root.components().collect::<PathBuf>().display().to_string()
    }

    fn prepare(&self, name: &str, bytes: u64) -> io::Result<()> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        let file = owners_file(OpenOptions::new().create_new(true), &path)?;
        let written = write_zeros(&file, bytes).and_then(|()| file.sync_all());
        if written.is_err() {
            // The first error is the one to tell; the space is given back as far as that is possible.
            fs::remove_file(&path).ok();
        }
        written
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = owners_file(&mut OpenOptions::new(), &self.path(name))?;
        Ok(Arc::new(FolderFile(file)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        list_into(&self.root, "", &mut names)?;
        for folder in FOLDERS {
            match list_into(&self.root.join(folder), &format!("{folder}/"), &mut names) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                listed => listed?,
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        for folder in FOLDERS {
            match File::open(self.root.join(folder)) {
                Ok(folder) => folder.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        File::open(&self.root)?.sync_all()?;
        // The folder itself may be new.
        match self.root.canonicalize()?.parent() {
            Some(parent) => match File::open(parent) {
                Ok(parent) => parent.sync_all(),
                // Whoever may not read the parent did not make the folder in it either.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                Err(error) => Err(error),
            },
            None => Ok(()),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let space = self.space()?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn total_bytes(&self) -> io::Result<u64> {
        let space = self.space()?;
        Ok(space.f_blocks.saturating_mul(space.f_frsize))
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let options = &mut OpenOptions::new();
        let file = owners_file(options.create(true).truncate(false), &self.path(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn is_locked(&self) -> io::Result<bool> {
        let inode = match fs::metadata(self.path(LOCK)) {
            Ok(found) => found.ino(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        // Trying it would take it for an instant, in which a router that starts would be turned away. The device is not
        // compared: file systems show another one here than in the metadata.
        let locks = match fs::read_to_string("/proc/locks") {
            Ok(locks) => locks,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let is_ours = |line: &str| {
            let mut words = line.split_whitespace();
            words.any(|word| word == "FLOCK")
                && words.any(|word| {
                    word.rsplit_once(':').is_some_and(|(_, last)| last == inode.to_string())
                })
        };
        Ok(locks.lines().any(is_ours))
    }
}

fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    let mut at = 0;
    while at < bytes {
        let length = (bytes - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..length as usize], at)?;
        at += length;
    }
    Ok(())
}

fn list_into(folder: &Path, prefix: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A name that is no text is none of ours.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.file_type()?.is_file() {
            names.push(format!("{prefix}{name}"));
        }
    }
    Ok(())
}

struct FolderFile(File);

impl DiskFile for FolderFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}
