//! `router import`: takes in what `router export` wrote, into a store's folder or through the router that has it open.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::{Value as Json, json};

use super::place::{Expect, Place, PlaceArgs};
use super::remote::{Api, accepted};
use super::{Global, err, out};
use crate::store::Store;
use crate::store::journal::JournalStore;
use crate::store::portable::{Imported, Lines, Record, parse_lines};

/// Of what is handed over at once.
const CHUNK_BYTES: usize = 4 << 20;
const CHUNK_LINES: usize = 4096;
/// More than any event that a segment of the journal holds.
const LINE_BYTES_MAX: u64 = 128 << 20;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// What `router export` wrote; `-` is the standard input
    file: PathBuf,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print JSON for machines
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let input: Box<dyn BufRead + Send> = match args.file.to_str() {
        Some("-") => Box::new(BufReader::new(io::stdin())),
        _ => {
            let file = File::open(&args.file)
                .with_context(|| format!("cannot read {}", args.file.display()))?;
            Box::new(BufReader::new(file))
        }
    };
    let mut input = Input { input, line: 0, ended: false };
    // Before anything is opened: a wrong file must not make a store.
    let Some(header) = input.next().context("cannot read the file")? else {
        bail!("{} is empty; an export begins with a header line", args.file.display());
    };
    if let Some(wrong) = parse_lines(&header).wrong {
        bail!("{}, {wrong}; nothing was imported", args.file.display());
    }
    let place = match args.place.open(Expect::AStoreOrNothing, global).await? {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let mut so_far = Imported::default();
    let target = Target { place, header };
    let taken = target.take_all(&mut input, &mut so_far).await;
    if let Place::Folder(store) = &target.place {
        store.close().await.context("cannot close the store")?;
    }
    if args.json {
        out(&format!(
            "{:#}\n",
            json!({
                "imported": so_far.events,
                "skipped": { "known": so_far.known },
                "others": so_far.others,
            })
        ));
    } else {
        out(&format!(
            "{} events and {} other records were imported; {} events were known already\n",
            so_far.events, so_far.others, so_far.known
        ));
    }
    taken.with_context(|| {
        format!(
            "{} was not imported to its end; what was taken stays, and is skipped when it comes again",
            args.file.display()
        )
    })?;
    if !input.ended {
        err(&format!(
            "error: {} has no last line {{\"end\":{{}}}}: it is only a part of an export. What stands in it was imported\n",
            args.file.display()
        ));
        return Ok(ExitCode::from(1));
    }
    Ok(ExitCode::SUCCESS)
}

/// The file, line by line.
struct Input {
    input: Box<dyn BufRead + Send>,
    /// Number of the line that was read last.
    line: usize,
    /// The line that ends an export was met.
    ended: bool,
}

impl Input {
    fn next(&mut self) -> anyhow::Result<Option<String>> {
        let mut bytes = Vec::new();
        let read = io::Read::take(&mut self.input, LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        if read as u64 == LINE_BYTES_MAX && bytes.last() != Some(&b'\n') {
            bail!("line {}: it is longer than {LINE_BYTES_MAX} bytes", self.line);
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned())),
            Err(_) => bail!("line {}: it is not UTF-8 text", self.line),
        }
    }
}

struct Target {
    place: Place,
    /// Goes before every chunk: it says what the lines mean.
    header: String,
}

impl Target {
    async fn take_all(&self, input: &mut Input, so_far: &mut Imported) -> anyhow::Result<()> {
        loop {
            let mut chunk = format!("{}\n", self.header);
            let (first, mut count) = (input.line + 1, 0);
            let mut unread = None;
            while chunk.len() < CHUNK_BYTES && count < CHUNK_LINES {
                match input.next() {
                    Ok(Some(line)) => {
                        count += 1;
                        // A short line only: events need not be read twice.
                        input.ended |= line.len() < 32
                            && Record::parse(&line).is_ok_and(|record| record.is_end());
                        chunk.push_str(&line);
                        chunk.push('\n');
                    }
                    Ok(None) => break,
                    Err(error) => {
                        unread = Some(error);
                        break;
                    }
                }
            }
            if count > 0 || first == 2 {
                // The header is line 1 of the chunk.
                let line_of = |line: usize| if line < 2 { 1 } else { first + line - 2 };
                match &self.place {
                    Place::Folder(store) => into_folder(store, &chunk, so_far, line_of).await?,
                    Place::Router(api) => into_router(api, chunk, so_far, line_of).await?,
                }
            }
            if let Some(error) = unread {
                return Err(error);
            }
            if count == 0 {
                return Ok(());
            }
        }
    }
}

async fn into_folder(
    store: &Arc<JournalStore>,
    chunk: &str,
    so_far: &mut Imported,
    line_of: impl Fn(usize) -> usize,
) -> anyhow::Result<()> {
    let Lines { records, wrong } = parse_lines(chunk);
    match store.import(records).await {
        Ok(imported) => add(so_far, &imported),
        Err(stopped) => {
            add(so_far, &stopped.so_far);
            return Err(stopped.error.into());
        }
    }
    match wrong {
        None => Ok(()),
        Some(wrong) => bail!("line {}: {}", line_of(wrong.line), wrong.why),
    }
}

async fn into_router(
    api: &Api,
    chunk: String,
    so_far: &mut Imported,
    line_of: impl Fn(usize) -> usize,
) -> anyhow::Result<()> {
    let answer = api.0.post_lines("/api/v1/store/import", chunk).await;
    if let Ok((status, body)) = &answer {
        let counts = if *status == 200 { body } else { &body["soFar"] };
        let count = |value: &Json| value.as_u64().unwrap_or(0);
        so_far.events += count(&counts["imported"]);
        so_far.known += count(&counts["skipped"]["known"]);
        so_far.others += count(&counts["others"]);
        if let Some(line) = body["line"].as_u64() {
            // The router counts from the chunk's first line.
            let detail = body["detail"].as_str().unwrap_or_default();
            let why = detail.split_once(": ").map_or(detail, |(_, why)| why);
            bail!("line {}: {}", line_of(line as usize), super::remote::field_long(why));
        }
    }
    accepted(answer).map(drop)
}

fn add(so_far: &mut Imported, more: &Imported) {
    so_far.events += more.events;
    so_far.known += more.known;
    so_far.others += more.others;
    so_far.records += more.records;
}
