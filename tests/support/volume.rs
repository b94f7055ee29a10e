//! A small ext4 volume in an image file, mounted by loop where one router alone sees it: the mount lives in that process's
//! own mount namespace, so the kernel takes mount and loop device away with the process, however the test ends.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::PATIENCE;

/// Mounts, then becomes the rest of the arguments.
const MOUNT_AND_RUN: &str = r#"mount -n -o "$1" "$2" "$3" && shift 3 && exec "$@""#;
/// Mounts the disk, puts the volume onto it and mounts that, then becomes the rest of the arguments.
const MOUNT_BOTH_AND_RUN: &str = r#"
    mount -n -o loop "$1" "$2" && cp --sparse=always "$3" "$2/volume.img" &&
    mount -n -o loop "$2/volume.img" "$4" && shift 4 && exec "$@""#;
/// Freezes a file system until its input ends, which it does when the test ends in whatever way. It holds the mount, so
/// that there is something to thaw even when all others have gone.
const FREEZE: &str = r#"
    trap "" INT TERM HUP; exec 3<"$1" && fsfreeze -f /proc/self/fd/3 && echo frozen && read -r _
    fsfreeze -u /proc/self/fd/3"#;

pub(crate) struct Volume {
    folder: tempfile::TempDir,
}

impl Volume {
    /// An empty one of `bytes`.
    pub(crate) fn new(bytes: u64) -> Self {
        Self::make(bytes).unwrap_or_else(|why| panic!("no volume: {why}"))
    }

    fn make(bytes: u64) -> Result<Self, String> {
        let volume = Self::place();
        let image = File::create_new(volume.image()).map_err(|error| error.to_string())?;
        image.set_len(bytes).map_err(|error| error.to_string())?;
        let mut mkfs = tool("mkfs.ext4");
        // Nothing is left for the kernel to write by itself later.
        mkfs.args(["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]);
        run(mkfs.arg(volume.image()))?;
        Ok(volume)
    }

    fn place() -> Self {
        // Not in /tmp, which may be memory.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        Self { folder: folder.expect("cargo made the folder") }
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("volume.img")
    }

    /// A command that mounts it at `point` with `options` and becomes the router; arguments are appended to the router's.
    pub(crate) fn router(&self, point: &Path, options: &str) -> Command {
        fs::create_dir_all(point).expect("the test's own folder");
        let mut command = self.mounted(point, options);
        command.arg(env!("CARGO_BIN_EXE_router"));
        command
    }

    /// The same for any command.
    fn mounted(&self, point: &Path, options: &str) -> Command {
        let mut command = tool("unshare");
        command.args(["--mount", "sh", "-c", MOUNT_AND_RUN, "sh"]);
        command.arg(format!("loop,{options}")).arg(self.image()).arg(point);
        command
    }

    /// Like [`Self::router`], with the image on `disk`, whose power can go. What is written goes to that copy.
    pub(crate) fn router_on(&self, disk: &Volume, point: &Path) -> Command {
        for folder in [point, &disk.point()] {
            fs::create_dir_all(folder).expect("the test's own folder");
        }
        let mut command = tool("unshare");
        command.args(["--mount", "sh", "-c", MOUNT_BOTH_AND_RUN, "sh"]);
        command.arg(disk.image()).arg(disk.point()).arg(self.image()).arg(point);
        command.arg(env!("CARGO_BIN_EXE_router"));
        command
    }

    fn point(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Stops this disk, which the process `pid` has mounted, in the midst of whatever is written to the volume on it:
    /// from now on no write to that volume comes to an end.
    pub(crate) fn stop(&self, pid: u32) -> Stopped {
        let root = Path::new("/proc").join(pid.to_string()).join("root");
        let point = root.join(self.point().strip_prefix("/").expect("absolute"));
        let image = File::open(point.join("volume.img")).expect("it is mounted");
        let mut command = tool("sh");
        command.args(["-c", FREEZE, "sh"]).arg(point);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut freezer = command.spawn().expect("there is a shell");
        let mut said = String::new();
        let stdout = freezer.stdout.take().expect("it was piped");
        BufReader::new(stdout).read_line(&mut said).expect("it says something");
        let stopped = Stopped { freezer, image };
        assert_eq!(said, "frozen\n", "the disk does not stop");
        stopped
    }

    /// Resolves once no loop device holds it any more: the kernel unmounts a little after the process has ended.
    pub(crate) async fn released(&self) {
        let deadline = deadline();
        while let Some(device) = self.loop_device() {
            assert!(past(deadline).is_none(), "{} is not given back", device.display());
            tokio::task::yield_now().await;
        }
    }

    /// Its place in `/sys`, while it is mounted.
    fn loop_device(&self) -> Option<PathBuf> {
        let image = fs::canonicalize(self.image()).expect("it is there");
        let devices = fs::read_dir("/sys/block").expect("Linux").map_while(Result::ok);
        devices.map(|device| device.path()).find(|device| {
            // A device that is not attached has no such file.
            fs::read_to_string(device.join("loop/backing_file"))
                .is_ok_and(|path| Path::new(path.trim_end()) == image)
        })
    }
}

/// A disk that stands still until this is dropped.
pub(crate) struct Stopped {
    freezer: Child,
    image: File,
}

impl Stopped {
    /// What the volume's device holds: no more than that is there after a power cut. What its file system keeps in memory
    /// is not in it. This reads the page cache of the backing file, which is where the loop device writes.
    pub(crate) fn copy(&self) -> Volume {
        const BLOCK: usize = 256 * 1024;
        const ZEROS: &[u8] = &[0; BLOCK];
        let copy = Volume::place();
        let to = File::create_new(copy.image()).expect("the folder is new");
        let bytes = self.image.metadata().expect("it is open").len();
        to.set_len(bytes).expect("there is room");
        let mut block = vec![0; BLOCK];
        let mut at = 0;
        while at < bytes {
            let length = BLOCK.min((bytes - at) as usize);
            self.image.read_exact_at(&mut block[..length], at).expect("it is as long as it says");
            // What is zero stays a hole.
            if block[..length] != ZEROS[..length] {
                to.write_all_at(&block[..length], at).expect("there is room");
            }
            at += length as u64;
        }
        copy
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // The end of its input is the sign to thaw; then it ends.
        drop(self.freezer.stdin.take());
        drop(self.freezer.wait());
    }
}

#[expect(clippy::disallowed_methods, reason = "a bound on a wait for the kernel")]
fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

#[expect(clippy::disallowed_methods, reason = "a bound on a wait for the kernel")]
fn past(deadline: Instant) -> Option<Instant> {
    Some(Instant::now()).filter(|now| *now > deadline)
}

/// Whether volumes can be made and mounted here, found out by doing it. Where not, it is said past the harness, which would
/// keep it for itself: `untried` was not tested.
pub(crate) fn can_mount(untried: &str) -> bool {
    let tried = Volume::make(4 << 20).and_then(|volume| {
        let point = tempfile::tempdir().map_err(|error| error.to_string())?;
        run(volume.mounted(point.path(), "rw").arg("true"))
    });
    if let Err(why) = &tried {
        let ci = if std::env::var_os("CI").is_some() { " (and this is CI!)" } else { "" };
        let line = format!(
            "\n!!! NOT TESTED{ci}: {untried}. It needs root, a loop device and mkfs.ext4 (e2fsprogs): {why}\n\n"
        );
        std::io::stderr().write_all(line.as_bytes()).ok();
    }
    tried.is_ok()
}

/// A tool of the system's administrator, wherever it is.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().display().to_string();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
