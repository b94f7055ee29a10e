//! `router export`: the store's contents as JSON lines, out of its folder or through the router that has it open.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use jiff::{Span, SpanRelativeTo, Timestamp};

use super::place::{Expect, Place, PlaceArgs};
use super::remote::{Api, accepted};
use super::{Global, err, usage};
use crate::delivery::state::Status;
use crate::store::journal::JournalStore;
use crate::store::portable::ExportCursor;
use crate::store::{EventStatus, Query, Store};
use crate::world::World;

/// Of what is read at once.
const PAGE_BYTES: usize = 1 << 20;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// Where to write, readable by its owner alone [default: the standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only events in this status: queued, processing, succeeded, failed, ignored, unrouted or malformed
    #[arg(long)]
    status: Option<String>,
    /// Only events that this route took
    #[arg(long)]
    route: Option<String>,
    /// Only events of this source
    #[arg(long)]
    source: Option<String>,
    /// Only events since this time, or that long ago: 2h, 7d
    #[arg(long)]
    since: Option<String>,
    /// Only events until this time
    #[arg(long)]
    until: Option<String>,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let filters: Vec<(String, String)> = [
        ("status", &args.status),
        ("route", &args.route),
        ("source", &args.source),
        ("since", &args.since),
        ("until", &args.until),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
    .collect();
    let query = match query(&args, World::real().clock.now()) {
        Ok(query) => query,
        Err(why) => return Ok(usage(&why)),
    };
    let place = match args.place.open(Expect::AStore, global).await? {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let mut sink = Sink::open(args.output)?;
    match place {
        Place::Folder(store) => {
            let written = from_folder(&store, &query, &mut sink).await;
            store.close().await.context("cannot close the store")?;
            written?;
        }
        Place::Router(api) => from_router(&api, filters, &mut sink).await?,
    }
    let (records, place) = sink.finish()?;
    err(&format!("{records} records were written to {place}\n"));
    Ok(ExitCode::SUCCESS)
}

async fn from_folder(store: &JournalStore, query: &Query, sink: &mut Sink) -> anyhow::Result<()> {
    let mut cursor: Option<ExportCursor> = None;
    loop {
        let page = store.export(query.clone(), cursor, PAGE_BYTES).await?;
        for line in &page.lines {
            sink.line(line)?;
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

async fn from_router(
    api: &Api,
    filters: Vec<(String, String)>,
    sink: &mut Sink,
) -> anyhow::Result<()> {
    let mut query = filters.clone();
    loop {
        let answer = match api.0.get_lines("/api/v1/store/export", &query).await {
            Ok(answer) => answer,
            Err(error) => return accepted(Err(error)).map(drop),
        };
        if answer.status != 200 {
            let detail = serde_json::from_slice(&answer.body).unwrap_or_default();
            accepted(Ok((answer.status, detail)))?;
            bail!("the router answered {}", answer.status);
        }
        if answer.truncated {
            bail!(
                "one page of the export is too large to be received; stop the router and export from its folder (--store DIR)"
            );
        }
        let text = std::str::from_utf8(&answer.body)
            .context("the answer is not text; is this the admin address of a router?")?;
        for line in text.lines() {
            sink.line(line)?;
        }
        let next = answer.headers.get("router-next-cursor");
        let Some(next) = next.and_then(|next| next.to_str().ok()) else { return Ok(()) };
        query = filters.clone();
        query.push(("cursor".to_owned(), next.to_owned()));
    }
}

fn query(args: &Args, now: Timestamp) -> Result<Query, String> {
    let status = match args.status.as_deref() {
        None => None,
        Some("unrouted") => Some(EventStatus::Unrouted),
        Some("malformed") => Some(EventStatus::Malformed),
        Some(word) => {
            let known = [
                Status::Queued,
                Status::Processing,
                Status::Succeeded,
                Status::Failed,
                Status::Ignored,
            ];
            let status = known.into_iter().find(|status| status.as_str() == word);
            Some(EventStatus::Delivery(status.ok_or_else(|| {
                format!(
                    "--status is queued, processing, succeeded, failed, ignored, unrouted or malformed, not `{word}`"
                )
            })?))
        }
    };
    let moment = |name: &str, text: &Option<String>| {
        text.as_deref().map(|text| moment(name, text, now)).transpose()
    };
    Ok(Query {
        status,
        route: args.route.as_deref().map(Into::into),
        source: args.source.as_deref().map(Into::into),
        since: moment("since", &args.since)?,
        until: moment("until", &args.until)?,
        ..Query::default()
    })
}

fn moment(name: &str, text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago = text
        .parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .and_then(|ago| now.checked_sub(ago));
    ago.map_err(|_| {
        format!("--{name} is a time (2026-11-23T10:00:00Z) or how long ago (2h, 7d), not `{text}`")
    })
}

/// Where the lines go. A file has its name only once it is whole.
struct Sink {
    writer: Box<dyn Write + Send>,
    file: Option<(File, PathBuf, PathBuf)>,
    records: u64,
    /// Texts of routes that stand there already: each page brings those that it needs.
    revisions: BTreeSet<String>,
}

impl Sink {
    fn open(output: Option<PathBuf>) -> anyhow::Result<Self> {
        let (writer, file): (Box<dyn Write + Send>, _) = match output {
            None => (Box::new(io::stdout()), None),
            Some(path) => {
                let mut draft = path.clone().into_os_string();
                draft.push(".part");
                let draft = PathBuf::from(draft);
                let file = create(&draft)
                    .with_context(|| format!("cannot write to {}", draft.display()))?;
                let writer = io::BufWriter::new(file.try_clone()?);
                (Box::new(writer), Some((file, draft, path)))
            }
        };
        Ok(Self { writer, file, records: 0, revisions: BTreeSet::new() })
    }

    fn line(&mut self, line: &str) -> anyhow::Result<()> {
        if line.starts_with("{\"revision\":") && !self.revisions.insert(line.to_owned()) {
            return Ok(());
        }
        let written =
            self.writer.write_all(line.as_bytes()).and_then(|()| self.writer.write_all(b"\n"));
        written.context("cannot write the export")?;
        self.records += 1;
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<(u64, String)> {
        self.writer.flush().context("cannot write the export")?;
        let Some((file, draft, path)) = self.file else {
            return Ok((self.records, "the standard output".to_owned()));
        };
        file.sync_all().with_context(|| format!("cannot write to {}", draft.display()))?;
        fs::rename(&draft, &path)
            .with_context(|| format!("cannot give {} its name", path.display()))?;
        Ok((self.records, path.display().to_string()))
    }
}

/// Payloads stand in it, and what the store hashes with.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
