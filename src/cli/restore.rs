//! `router restore DIR`: proves a backup whole, then puts it into a data folder that holds no journal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::backup::{MANIFEST, Manifest, digest_of, hint, make_folder, owners_file, sync_folder};
use super::doctor::store_folder;
use super::{Global, out};
use crate::store::journal::files;
use crate::world::disk::{Disk, FolderDisk};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// A folder that `router backup` wrote
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The data folder to put it into [default: `store` of the configuration]
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let Some((store, _)) = store_folder(global, args.store) else { return Ok(ExitCode::from(1)) };
    let put = tokio::task::spawn_blocking(move || restore(&args.folder, &store));
    let said = put.await.context("the restore")??;
    out(&said);
    hint(
        "what happened after the backup was taken is not in it: steps that ran since then may run again, with the same idempotency keys",
    );
    Ok(ExitCode::SUCCESS)
}

fn restore(folder: &Path, store: &Path) -> anyhow::Result<String> {
    let Some(manifest) = Manifest::read(folder)? else {
        bail!("{} holds no {MANIFEST}, so it is no finished backup", folder.display());
    };
    for entry in &manifest.files {
        let path = folder.join(&entry.stored);
        let (sha256, bytes) =
            digest_of(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if (&sha256, bytes) != (&entry.sha256, entry.bytes) {
            bail!(
                "{} is not what {MANIFEST} says; nothing was restored. Use another backup",
                path.display()
            );
        }
    }
    if !manifest.files.iter().any(|entry| entry.name == "key") {
        bail!("the backup in {} has no key; use another one", folder.display());
    }
    let disk = FolderDisk::open(store)
        .with_context(|| format!("cannot open the data folder {}", store.display()))?;
    let _lock = disk.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => anyhow::anyhow!(
            "a router holds the data folder {}; stop it, and move the folder away",
            store.display()
        ),
        _ => anyhow::Error::new(error)
            .context(format!("cannot take the lock of {}", store.display())),
    })?;
    let holds = |name: &String| name == "key" || name.starts_with("journal/");
    if disk.list()?.iter().any(holds) {
        bail!(
            "the data folder {} holds a journal already; move it away first: mv {0} {0}.before",
            store.display()
        );
    }
    let (draft, journal) = (store.join("journal.restoring"), store.join("journal"));
    if draft.exists() {
        // Of a restore that did not come to its end.
        fs::remove_dir_all(&draft)?;
    }
    make_folder(&draft)?;
    for entry in manifest.files.iter().filter(|entry| entry.name != "key") {
        put(&folder.join(&entry.stored), &draft.join(&entry.name))?;
    }
    sync_folder(&draft)?;
    if journal.exists() {
        fs::remove_dir(&journal).context("cannot replace the empty folder journal/")?;
    }
    fs::rename(&draft, &journal)?;
    // Last: without it nothing is opened.
    for entry in manifest.files.iter().filter(|entry| entry.name == "key") {
        let place = files::place_of(&entry.name).unwrap_or_default();
        put(&folder.join(&entry.stored), &store.join(place))?;
    }
    sync_folder(store)?;
    Ok(format!(
        "{}: {} files of the backup that was taken at {}; the next start opens it\n",
        store.display(),
        manifest.files.len(),
        manifest.taken_at
    ))
}

fn put(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copied = || -> anyhow::Result<()> {
        let (mut from, mut to) = (fs::File::open(from)?, owners_file(to, true)?);
        io::copy(&mut from, &mut to)?;
        Ok(to.sync_all()?)
    };
    copied().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}
