//! `router doctor`: looks through a data folder and says what is wrong; `--repair` puts right what can be put right.

use std::io::IsTerminal;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value as Json;

use super::running::INDEX_FOLDER;
use super::{Global, err, out};
use crate::config::Server;
use crate::store::index::Index;
use crate::store::journal::OpenError;
use crate::store::journal::doctor::{self, Finding, Loss, Report};
use crate::store::sled::{self, SledLimits};
use crate::telemetry::log::field;
use crate::world::World;
use crate::world::disk::{Disk, FolderDisk};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Repair what is wrong; copy the folder away before. No router may run on it
    #[arg(long)]
    repair: bool,
    /// Print JSON for machines
    #[arg(long)]
    json: bool,
    /// The data folder [default: `store` of the configuration]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

/// The data folder that a command is about, and the server that the configuration describes, where it is asked. `None`: the
/// configuration is wrong, and that was said.
pub(super) fn store_folder(
    global: &Global,
    named: Option<PathBuf>,
) -> Option<(PathBuf, Option<Server>)> {
    if let Some(folder) = named {
        return Some((folder, None));
    }
    let loaded = super::check::load(&global.location());
    match loaded.set {
        Some(set) => Some((set.server.store.clone(), Some(set.server))),
        None => {
            super::check::complain(&loaded.files, &loaded.diagnostics);
            err(
                "error: the configuration does not say where the store is; name the folder by --store\n",
            );
            None
        }
    }
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let Some((folder, _)) = store_folder(global, args.store) else {
        return Ok(ExitCode::from(1));
    };
    let (repair, json) = (args.repair, args.json);
    let examined = tokio::task::spawn_blocking(move || examine(&folder, repair));
    let report = examined.await.context("the examination")??;
    let mended = repair && report.findings.iter().all(|finding| finding.repair.is_some());
    let clean = report.is_clean();
    out(&match json {
        true => {
            let mut json = serde_json::to_value(&report)?;
            json["clean"] = Json::Bool(clean);
            json["mended"] = Json::Bool(!clean && mended);
            format!("{json:#}\n")
        }
        false => lines(&report, repair, mended),
    });
    Ok(ExitCode::from(u8::from(!clean && !mended)))
}

fn examine(folder: &Path, repair: bool) -> anyhow::Result<Report> {
    if !folder.is_dir() {
        anyhow::bail!("there is no data folder {}; name it by --store", folder.display());
    }
    let world = World::real();
    let disk: Arc<dyn Disk> = Arc::new(
        FolderDisk::open(folder)
            .with_context(|| format!("cannot open the data folder {}", folder.display()))?,
    );
    let terminal = std::io::stderr().is_terminal();
    let progress = |done: usize, total: usize| {
        if terminal && total > 4 {
            let end = if done == total { "\n" } else { "" };
            err(&format!("\rsegment {done} of {total}{end}"));
        }
    };
    let real = folder.join(INDEX_FOLDER);
    let mut note = None;
    let copy = match real.is_dir() && !disk.is_locked().unwrap_or(false) {
        true => Some(Copy::of(&real)),
        false => None,
    };
    let index = match &copy {
        None if !real.is_dir() => {
            note = Some("there is no index; the next start derives it from the journal".to_owned());
            None
        }
        None => None,
        Some(Ok(copy)) => Some(copy.index.clone() as Arc<dyn Index>),
        Some(Err(error)) => {
            note = Some(format!(
                "the index was not looked at ({error}); a start moves one aside that it cannot open"
            ));
            None
        }
    };
    let aside = || sled::move_aside(&real).map(drop);
    let looked = match repair {
        true => doctor::repair(&disk, index, &world, &progress, &aside),
        false => doctor::examine(&disk, index, &world, &progress),
    };
    let mut report = looked.map_err(|error| match error {
        OpenError::Locked { place } => {
            anyhow::anyhow!("a router holds the data folder {place}; stop it before a repair")
        }
        error => error.into(),
    })?;
    report.notes.extend(note);
    Ok(report)
}

/// A copy of the index that goes when it is dropped: opening changes a folder.
struct Copy {
    index: Arc<sled::SledIndex>,
    _folder: Temporary,
}

struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

impl Copy {
    fn of(real: &Path) -> anyhow::Result<Self> {
        let name = format!("router-doctor-{}", uuid::Uuid::from_u128(drawn()));
        let folder = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let temporary = Temporary(folder.clone());
        let index = sled::open_copy(real, &folder.join(INDEX_FOLDER), SledLimits::default())?;
        Ok(Self { index: Arc::new(index), _folder: temporary })
    }
}

fn drawn() -> u128 {
    let mut bytes = [0; 16];
    World::real().random.fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

/// Of each list as many are shown; `--json` has all.
const SHOWN_MAX: usize = 20;

fn lines(report: &Report, repair: bool, mended: bool) -> String {
    let Report { store, segments, events, findings, notes, loss, repaired, .. } = report;
    let mut text = format!("{store}: {segments} segments, {events} events\n");
    for note in notes {
        text += &format!("note: {}\n", plain(note));
    }
    for Finding { offset, file, what, means, repair: mend, .. } in findings {
        let place = offset.map_or_else(String::new, |offset| format!(", offset {offset}"));
        text += &format!("\n{file}{place}: {}\n  {}\n", plain(what), plain(means));
        text += &match mend {
            Some(mend) if !repair => format!("  --repair: {mend}\n"),
            Some(_) => String::new(),
            None => "  --repair can do nothing about it\n".to_owned(),
        };
    }
    if !loss.is_empty() {
        text += &lost(loss);
    }
    if !repaired.is_empty() {
        text.push('\n');
    }
    for done in repaired {
        text += &format!("repaired: {}\n", plain(done));
    }
    text += match (findings.is_empty(), repair, mended) {
        (true, ..) => "nothing is wrong\n",
        (false, true, true) => "\nrepaired; the router can start\n",
        (false, true, false) => {
            "\nnothing was changed: not all of this can be repaired. Put a backup back: `router restore`\n"
        }
        (false, false, _) => {
            "\nnothing was changed. Copy the folder away, then run `router doctor --repair`\n"
        }
    };
    text
}

fn lost(loss: &Loss) -> String {
    let mut text = format!("\n{} facts are lost\n", loss.facts);
    let mut list = |title: &str, rows: Vec<String>| {
        if rows.is_empty() {
            return;
        }
        text.push_str(&format!("{title}: {}\n", rows.len()));
        for row in rows.iter().take(SHOWN_MAX) {
            text.push_str(&format!("  {row}\n"));
        }
        if rows.len() > SHOWN_MAX {
            text.push_str(&format!("  and {} more; --json names all\n", rows.len() - SHOWN_MAX));
        }
    };
    let known = |text: Option<&str>| text.map_or("?".to_owned(), |text| field(text).into_owned());
    list(
        "events that are lost; their senders may send them again",
        loss.events
            .iter()
            .map(|event| {
                let id = known(event.event_id.as_ref().map(|id| id.as_str()));
                let source = known(event.source.as_ref().map(|source| source.as_str()));
                let at = known(event.received_at.as_deref());
                format!("{id} (uid {}), source {source}, received {at}", event.uid)
            })
            .collect(),
    );
    list(
        "deliveries that are lost",
        loss.deliveries.iter().map(|id| field(&id.to_string()).into_owned()).collect(),
    );
    list(
        "deliveries that lost some of what happened to them",
        loss.gaps
            .iter()
            .map(|gap| {
                let (id, event) = (gap.delivery.to_string(), gap.event_id.as_str());
                format!("{} of event {}: {}", field(&id), field(event), gap.status)
            })
            .collect(),
    );
    list(
        "unfinished deliveries that may have gone on in what is lost: their steps may run again, with the same keys",
        loss.unsure.iter().map(|id| field(&id.to_string()).into_owned()).collect(),
    );
    text
}

/// A sentence on one line, safe for a terminal.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() })
        .collect()
}
