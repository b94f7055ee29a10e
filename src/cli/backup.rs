//! `router backup DIR`: copies the store's files. Where a router runs on the folder they come through its API, as they were
//! durable at one moment; otherwise they are read here. A second backup into the same folder copies only what is new, and
//! `backup.json` is written last: until then the backup of before is the one that counts.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use url::Url;

use super::doctor::store_folder;
use super::{Global, err, out};
use crate::call::api::ApiClient;
use crate::secret::SecretValue;
use crate::store::files::{PIECE_BYTES_MAX, StoreFile, StoreFiles};
use crate::store::journal::files;
use crate::world::World;
use crate::world::disk::{Disk, FolderDisk};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where the backup is kept; made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The admin address of the running router [env: ROUTER_URL] [default: `admin.listen` of the configuration]
    #[arg(long)]
    url: Option<String>,
    /// The data folder [default: `store` of the configuration]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

/// `backup.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) version: u32,
    pub(super) journal: String,
    pub(super) taken_at: String,
    pub(super) files: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    /// As the store calls it.
    pub(super) name: String,
    /// Where it stands in the backup.
    pub(super) stored: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) mark: Option<String>,
}

pub(super) const MANIFEST: &str = "backup.json";
pub(super) const VERSION: u32 = 1;
const SEGMENTS: &str = "journal";
const LOCK: &str = "lock";
const PART: &str = ".part";
/// A segment may be retired while it is copied: then all begins with a fresh list.
const TRIES: usize = 5;

impl Manifest {
    /// The manifest in a folder; `None`: there is none.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder.join(MANIFEST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let json: Json = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no JSON", path.display()))?;
        if json["version"].as_u64() != Some(VERSION.into()) {
            bail!(
                "{} is of version {}, and this router knows version {VERSION}; use the router that wrote it",
                path.display(),
                json["version"]
            );
        }
        let manifest: Self = serde_json::from_value(json)
            .with_context(|| format!("{} is not what a backup writes", path.display()))?;
        for entry in &manifest.files {
            let within =
                |part: std::path::Component| matches!(part, std::path::Component::Normal(_));
            let known = files::place_of(&entry.name).is_some();
            if !known || !Path::new(&entry.stored).components().all(within) {
                bail!("{} names a file that is none of a store's: {}", path.display(), entry.name);
            }
        }
        Ok(Some(manifest))
    }
}

/// Where the files come from.
enum Origin {
    Router(ApiClient),
    Folder { disk: Arc<dyn Disk>, _lock: Box<dyn Send + Sync> },
}

impl Origin {
    async fn list(&self) -> anyhow::Result<StoreFiles> {
        match self {
            Origin::Router(api) => {
                let answer = api.get("/api/v1/store/files", &[]).await;
                Ok(serde_json::from_value(super::remote::accepted(answer)?)
                    .context("the router answered a list that this program does not know")?)
            }
            Origin::Folder { disk, .. } => Ok(files::at_rest(&**disk)?),
        }
    }

    /// `None`: the file is not there any more.
    async fn read(&self, name: &str, offset: u64, bytes: u64) -> anyhow::Result<Option<Bytes>> {
        match self {
            Origin::Router(api) => {
                let query = [
                    ("offset".to_owned(), offset.to_string()),
                    ("bytes".to_owned(), bytes.to_string()),
                ];
                match api.get_bytes(&format!("/api/v1/store/files/{name}"), &query).await {
                    Ok(Ok(piece)) => Ok(Some(piece)),
                    Ok(Err((404, _))) => Ok(None),
                    Ok(Err(refused)) => super::remote::accepted(Ok(refused)).map(|_| None),
                    Err(error) => super::remote::accepted(Err(error)).map(|_| None),
                }
            }
            Origin::Folder { disk, .. } => Ok(files::read_piece(&**disk, name, offset, bytes)?),
        }
    }
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let named =
        args.url.clone().or_else(|| std::env::var("ROUTER_URL").ok().filter(|url| !url.is_empty()));
    let (store, url) = match (&named, &args.store) {
        (Some(url), _) => (args.store.clone(), Some(url.clone())),
        (None, _) => {
            let Some((store, server)) = store_folder(global, args.store.clone()) else {
                return Ok(ExitCode::from(1));
            };
            let url = server.map(|server| format!("http://{}", server.admin.listen));
            (Some(store), url)
        }
    };
    let url = url.unwrap_or_else(|| "http://127.0.0.1:8081".to_owned());
    let base = match Url::parse(&url) {
        Ok(base) if matches!(base.scheme(), "http" | "https") => base,
        Ok(_) | Err(_) => {
            return Ok(super::usage(&format!(
                "`{url}` is not an http URL; try http://127.0.0.1:8081"
            )));
        }
    };
    let origin = origin(store.as_deref(), named.is_some(), base).await?;
    let done = copy(&origin, &args.folder).await?;
    out(&format!(
        "{}: {} files, {} bytes; {} copied, {} removed\n",
        args.folder.display(),
        done.files,
        done.bytes,
        done.copied,
        done.removed
    ));
    Ok(ExitCode::SUCCESS)
}

async fn origin(store: Option<&Path>, by_url: bool, base: Url) -> anyhow::Result<Origin> {
    let token = std::env::var("ROUTER_TOKEN").ok().filter(|token| !token.is_empty());
    let api = || ApiClient::new(base.clone(), token.clone().map(SecretValue::new));
    let Some(store) = store.filter(|_| !by_url) else { return Ok(Origin::Router(api()?)) };
    if !store.is_dir() {
        bail!(
            "there is no data folder {}; name it by --store, or the running router by --url",
            store.display()
        );
    }
    let disk: Arc<dyn Disk> = Arc::new(FolderDisk::open(store)?);
    let locked = disk.lock();
    match locked {
        Ok(lock) => Ok(Origin::Folder { disk, _lock: lock }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let origin = Origin::Router(api()?);
            // Another router may answer at that address.
            let theirs = origin.list().await.with_context(|| {
                format!(
                    "a router holds {}, so the backup goes through its API at {base}",
                    store.display()
                )
            })?;
            if files::journal_of(&*disk).is_ok_and(|own| own != theirs.journal) {
                bail!(
                    "the router at {base} has another store than {}; name the address of the one that holds it by --url",
                    store.display()
                );
            }
            Ok(origin)
        }
        Err(error) => {
            Err(error).with_context(|| format!("cannot take the lock of {}", store.display()))
        }
    }
}

struct Done {
    files: usize,
    bytes: u64,
    copied: usize,
    removed: usize,
}

async fn copy(origin: &Origin, folder: &Path) -> anyhow::Result<Done> {
    make_folder(folder)?;
    let lock = owners_file(&folder.join(LOCK), false)?;
    if lock.try_lock().is_err() {
        bail!("another backup into {} is under way", folder.display());
    }
    let old = Manifest::read(folder)?;
    if old.is_none() {
        check_is_ours(folder)?;
    }
    make_folder(&folder.join(SEGMENTS))?;
    let mut known: Vec<Entry> = old.iter().flat_map(|old| old.files.clone()).collect();
    let mut copied = 0;
    for _ in 0..TRIES {
        let list = origin.list().await?;
        if let Some(old) = old.as_ref().filter(|old| old.journal != list.journal) {
            bail!(
                "{} holds a backup of another store (journal {}, and this is {}); name another folder",
                folder.display(),
                old.journal,
                list.journal
            );
        }
        let mut entries = Vec::new();
        for file in &list.files {
            let same = |entry: &&Entry| {
                entry.name == file.name
                    && entry.bytes == file.bytes
                    && entry.mark.is_some()
                    && entry.mark == file.mark
            };
            let kept = known.iter().find(same).filter(|entry| {
                fs::metadata(folder.join(&entry.stored))
                    .is_ok_and(|found| found.len() == entry.bytes)
            });
            if let Some(entry) = kept {
                entries.push(entry.clone());
                continue;
            }
            let Some((entry, is_new)) = copy_file(origin, folder, file).await? else { break };
            copied += usize::from(is_new);
            known.push(entry.clone());
            entries.push(entry);
        }
        if entries.len() < list.files.len() {
            continue;
        }
        let manifest = Manifest {
            version: VERSION,
            journal: list.journal,
            taken_at: World::real().clock.now().to_string(),
            files: entries,
        };
        return finish(folder, &manifest, copied);
    }
    bail!("segments were retired {TRIES} times while they were copied; try again")
}

/// A folder without a manifest may hold what an interrupted backup left, and nothing else.
fn check_is_ours(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let is_ours = [LOCK, SEGMENTS].contains(&&*name)
            || name.starts_with("key")
            || name.starts_with(MANIFEST);
        if !is_ours {
            bail!(
                "{} holds `{}`, and no backup; name an empty folder, or one of an earlier backup",
                folder.display(),
                name.escape_debug()
            );
        }
    }
    Ok(())
}

/// Copies one file, and whether its content was not there yet. `None`: it is gone from the store.
async fn copy_file(
    origin: &Origin,
    folder: &Path,
    file: &StoreFile,
) -> anyhow::Result<Option<(Entry, bool)>> {
    let StoreFile { name, bytes, mark } = file.clone();
    if files::place_of(&name).is_none() {
        bail!("the router names a file that is none of a store's: {}", name.escape_debug());
    }
    let part = folder.join(format!("{SEGMENTS}/{name}{PART}"));
    let mut copy = owners_file(&part, true)?;
    let (mut digest, mut offset) = (Sha256::new(), 0);
    while offset < bytes {
        let wanted = PIECE_BYTES_MAX.min(bytes - offset);
        let Some(piece) = origin.read(&name, offset, wanted).await? else {
            fs::remove_file(&part)?;
            return Ok(None);
        };
        if piece.is_empty() || piece.len() as u64 > wanted {
            bail!("{name} has other bytes than the list says, at {offset}; try again");
        }
        copy.write_all(&piece).with_context(|| format!("cannot write {}", part.display()))?;
        digest.update(&piece);
        offset += piece.len() as u64;
    }
    copy.sync_all()?;
    let sha256 = hex::encode(digest.finalize());
    // Content names the file: the one that the backup of before has is never written over.
    let short: String = sha256.chars().take(16).collect();
    let stored = match name.strip_suffix(".segment") {
        Some(number) => format!("{SEGMENTS}/{number}-{short}.segment"),
        None => format!("{name}-{short}"),
    };
    let place = folder.join(&stored);
    let is_new = !place.exists();
    fs::rename(&part, &place)?;
    Ok(Some((Entry { name, stored, bytes, sha256, mark }, is_new)))
}

/// From here on this is the backup, and what only the one before had goes.
fn finish(folder: &Path, manifest: &Manifest, copied: usize) -> anyhow::Result<Done> {
    sync_folder(&folder.join(SEGMENTS))?;
    let draft = folder.join(format!("{MANIFEST}{PART}"));
    let mut file = owners_file(&draft, true)?;
    let text = serde_json::to_string_pretty(manifest)? + "\n";
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?;
    sync_folder(folder)?;
    fs::rename(&draft, folder.join(MANIFEST))?;
    sync_folder(folder)?;
    let wanted: BTreeSet<PathBuf> =
        manifest.files.iter().map(|entry| folder.join(&entry.stored)).collect();
    let mut removed = 0;
    for within in [folder.to_owned(), folder.join(SEGMENTS)] {
        for entry in fs::read_dir(&within)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_ours =
                name.starts_with("key-") || name.ends_with(".segment") || name.ends_with(PART);
            if is_ours && !wanted.contains(&path) && path.is_file() {
                fs::remove_file(&path)?;
                removed += 1;
            }
        }
    }
    Ok(Done {
        files: manifest.files.len(),
        bytes: manifest.files.iter().map(|entry| entry.bytes).sum(),
        copied,
        removed,
    })
}

/// It holds what customers sent.
pub(super) fn make_folder(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))
}

pub(super) fn owners_file(path: &Path, empty: bool) -> anyhow::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(empty)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

pub(super) fn sync_folder(path: &Path) -> anyhow::Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("cannot sync {}", path.display()))
}

/// SHA-256 of a file, and its length.
pub(super) fn digest_of(path: &Path) -> io::Result<(String, u64)> {
    let (mut digest, mut file) = (Sha256::new(), File::open(path)?);
    let (mut buffer, mut bytes) = (vec![0; 256 << 10], 0);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        digest.update(&buffer[..count]);
        bytes += count as u64;
    }
    Ok((hex::encode(digest.finalize()), bytes))
}

/// Says something that is no failure.
pub(super) fn hint(text: &str) {
    err(&format!("{text}\n"));
}
