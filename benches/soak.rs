//! The soak: a store with short retention works through a stream of events while its process is killed at random moments.
//! Nothing acknowledged may be lost, nothing finished may run again, and memory and disk may not grow for ever.
//!
//! `cargo bench --bench soak -- --events 1M --kill-every-ms 3000 --json soak.json`
//!
//! The parent is the provider, the downstream and the ledger: the child tells it of each answer through a pipe. A SIGKILL
//! loses nothing that was written to the page cache, so this proves nothing about power cuts: the store's own tests do.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a soak prints what it saw")]

#[path = "soak/child.rs"]
mod child;
#[path = "soak/ledger.rs"]
mod ledger;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use comfy_table::{Table, presets};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use router::store::journal::JournalStore;
use router::store::{Retention, SourceRetention};
use router::world::clock::{Clock, SystemClock};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use child::Task;
use ledger::{Kind, Ledger, RECORD_BYTES, Record, Terms};
use support::figures;

#[derive(Clone, Debug, Parser, Serialize, Deserialize)]
#[command(about = "Kills a working store again and again", name = "soak")]
pub(crate) struct Options {
    /// Events in all, with k and M.
    #[arg(long, value_parser = number, default_value = "20k")]
    events: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// On average; each time between 0.3 and 1.7 of it. 0: never.
    #[arg(long, default_value_t = 500)]
    kill_every_ms: u64,
    /// At most so many kills.
    #[arg(long, default_value_t = u32::MAX)]
    kills: u32,
    #[arg(long, default_value_t = 4 << 20)]
    segment_bytes: u64,
    /// How long a finished event is kept.
    #[arg(long, default_value_t = 2000)]
    retention_ms: u64,
    /// How long a second arrival is known as a duplicate.
    #[arg(long, default_value_t = 6000)]
    dedupe_ms: u64,
    /// What would expire within this time of a look is not judged.
    #[arg(long, default_value_t = 500)]
    margin_ms: u64,
    /// Callers, and as many workers.
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    #[arg(long, default_value_t = 1024)]
    payload_bytes: usize,
    /// So many of 100 events are followed by a second arrival of a recent one.
    #[arg(long, default_value_t = 10)]
    duplicates_percent: u32,
    /// Finished events that are looked up after each restart, besides all unfinished ones.
    #[arg(long, default_value_t = 200)]
    sample: usize,
    #[arg(long, default_value_t = 250)]
    measure_every_ms: u64,
    /// The last third may be larger than the middle third by so many percent.
    #[arg(long, default_value_t = 15)]
    growth_percent: u32,
    /// Fails where retention retired too little to judge growth.
    #[arg(long)]
    must_retire: bool,
    /// Where the store is made, and removed again. Default: the system's temporary folder.
    #[arg(long)]
    folder: Option<PathBuf>,
    #[arg(long)]
    json: Option<PathBuf>,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Gives the store the times of the soak. Answers whether events expire.
pub(crate) fn retention(store: &JournalStore, options: &Options) -> bool {
    let times = SourceRetention {
        retain: Duration::from_millis(options.retention_ms),
        dedupe: Duration::from_millis(options.dedupe_ms),
    };
    store.set_retention(Retention {
        sources: BTreeMap::new(),
        default: times,
        audit: times.dedupe,
    });
    true
}

fn number(text: &str) -> Result<u64, String> {
    let (digits, unit) = match (text.strip_suffix(['k', 'K']), text.strip_suffix(['m', 'M'])) {
        (Some(digits), _) => (digits, 1_000),
        (None, Some(digits)) => (digits, 1_000_000),
        (None, None) => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| "a number, with k or M".to_owned())?;
    Ok(number * unit)
}

/// Second arrivals that are tried at the end.
const PROBES: usize = 10_000;
/// So many processes that end without having acknowledged anything are a standstill.
const IDLE_LIVES_MAX: u32 = 20;
const ROWS_MAX: usize = 40;

/// What the folder and the process were like at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    at_ms: u64,
    life: u16,
    acknowledged: u64,
    memory_kib: u64,
    journal_bytes: u64,
    index_bytes: u64,
    segments: u64,
    /// Larger than 1 once a segment was retired.
    first_segment: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [task] = arguments.as_slice()
        && task.starts_with('{')
    {
        return child::run(serde_json::from_str(task).context("the task")?);
    }
    // `cargo test --benches` runs this without `--bench` and perhaps with a test filter: then it only proves that it works.
    let asked = arguments.iter().any(|argument| {
        argument.starts_with("--events") || argument == "--bench" || argument.contains("help")
    });
    let options = match asked {
        true => Options::parse(),
        false => Options::parse_from([
            "soak",
            "--events",
            "2k",
            "--kill-every-ms",
            "300",
            "--kills",
            "4",
        ]),
    };
    ledger::judge_the_judge().map_err(anyhow::Error::msg)?;
    let base = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    fs::create_dir_all(&base)?;
    let place = tempfile::Builder::new().prefix("router-soak-").tempdir_in(base)?;
    let mut soak = Soak {
        ledger: Ledger::new(Terms { margin_ms: options.margin_ms, ..Terms::default() }),
        random: StdRng::seed_from_u64(options.seed),
        clock: Arc::new(SystemClock::start()),
        folder: place.path().join("store"),
        acknowledged: Arc::default(),
        retires: false,
        kills: 0,
        kills_while_opening: 0,
        opened_ms: Vec::new(),
        samples: Vec::new(),
        options,
    };
    soak.run()?;
    soak.report()
}

struct Soak {
    options: Options,
    ledger: Ledger,
    random: StdRng,
    clock: Arc<SystemClock>,
    folder: PathBuf,
    /// For the one who measures beside.
    acknowledged: Arc<AtomicU64>,
    retires: bool,
    kills: u32,
    kills_while_opening: u32,
    opened_ms: Vec<u32>,
    samples: Vec<Sample>,
}

/// When the child is killed.
#[derive(Clone, Copy, Debug)]
enum Kill {
    Never,
    AfterStart(Duration),
    AfterOpened(Duration),
}

/// What the reader tells the one who measures and kills.
enum Note {
    Opened,
}

impl Soak {
    fn run(&mut self) -> anyhow::Result<()> {
        let mut idle = 0;
        while !self.ledger.done {
            let before = self.ledger.tally;
            let kill = self.next_kill();
            let mut asked: Vec<Record> = self.ledger.unsettled().collect();
            let kept: Vec<Record> = self.ledger.kept(self.now_ms()).collect();
            asked.extend((0..self.options.sample.min(kept.len())).map(|_| {
                let at = self.random.random_range(0..kept.len());
                kept[at]
            }));
            self.live(asked, kill, false)?;
            let moved = (before.acknowledged, before.succeeded)
                != (self.ledger.tally.acknowledged, self.ledger.tally.succeeded);
            idle = if moved { 0 } else { idle + 1 };
            ensure!(idle < IDLE_LIVES_MAX, "{idle} processes in a row acknowledged nothing");
        }
        // At last everything that must be there, by a process that only looks.
        let mut asked: Vec<Record> = self.ledger.kept(self.now_ms()).collect();
        let probes: Vec<Record> = asked
            .iter()
            .take(PROBES)
            .map(|record| Record { kind: Kind::Probe, ..*record })
            .collect();
        asked.splice(0..0, probes);
        self.ledger.done = false;
        self.live(asked, Kill::Never, true)?;
        ensure!(self.ledger.done, "the last look did not end");
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        self.clock.monotonic().as_millis() as u64
    }

    fn next_kill(&mut self) -> Kill {
        let mean = self.options.kill_every_ms;
        if mean == 0 || self.kills >= self.options.kills {
            return Kill::Never;
        }
        let after = Duration::from_millis(self.random.random_range(mean * 3 / 10..=mean * 17 / 10));
        // Some while it opens. Not more: a start that is never let finish makes no progress.
        match self.random.random_range(0..5) {
            0 => Kill::AfterStart(after.mul_f64(self.random.random_range(0.0..0.3))),
            _ => Kill::AfterOpened(after),
        }
    }

    /// One process, from its start to its end.
    fn live(&mut self, asked: Vec<Record>, kill: Kill, only_look: bool) -> anyhow::Result<()> {
        self.ledger.begin_life();
        let task = Task {
            options: self.options.clone(),
            folder: self.folder.clone(),
            next: self.ledger.next(),
            only_look,
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(serde_json::to_string(&task)?);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("its input is piped")?;
        let mut stdout = BufReader::new(child.stdout.take().context("its output is piped")?);
        let telling = std::thread::spawn(move || {
            let asked: Vec<u8> = asked.iter().flat_map(|record| record.encode()).collect();
            // It may be killed before it has read all.
            drop(stdin.write_all(&asked));
        });
        let watch = Watch {
            process: child.id(),
            kill,
            clock: Arc::clone(&self.clock),
            folder: self.folder.clone(),
            every: Duration::from_millis(self.options.measure_every_ms.max(1)),
            life: self.ledger.life(),
            acknowledged: Arc::clone(&self.acknowledged),
            measures: !only_look,
        };
        let (notes, noted) = mpsc::channel();
        let watching = std::thread::spawn(move || watch.run(&noted));

        let mut opened = false;
        let mut bytes = [0; RECORD_BYTES];
        // A record that the kill cut off is none.
        while stdout.read_exact(&mut bytes).is_ok() {
            let record = Record::decode(&bytes).context("the child wrote what is no record")?;
            if record.kind == Kind::Opened {
                opened = true;
                self.opened_ms.push(record.version);
                self.retires = record.flag;
                if record.flag {
                    self.ledger.terms.retention_ms = Some(self.options.retention_ms);
                    self.ledger.terms.dedupe_ms = Some(self.options.dedupe_ms);
                }
                // The watch is gone only if it has killed already.
                drop(notes.send(Note::Opened));
            }
            let now_ms = self.now_ms();
            self.ledger.apply(record, now_ms);
            self.acknowledged.store(self.ledger.tally.acknowledged, Ordering::Relaxed);
        }
        drop(notes);
        let Ok((samples, killed)) = watching.join() else { bail!("the watch panicked") };
        ensure!(telling.join().is_ok(), "the thread that writes to the child panicked");
        let status = child.wait()?;
        self.samples.extend(samples);
        if self.ledger.done {
            ensure!(status.success() || killed, "the child ended with {status}");
        } else {
            ensure!(killed, "the child ended by itself with {status}");
        }
        if killed && !self.ledger.done {
            self.kills += 1;
            self.kills_while_opening += u32::from(!opened);
        }
        Ok(())
    }

    fn report(self) -> anyhow::Result<()> {
        let tally = self.ledger.tally;
        let seconds = self.clock.monotonic().as_secs_f64();
        println!("{}", series(&self.samples));
        let mut opened = self.opened_ms.clone();
        opened.sort_unstable();
        println!(
            "{} events acknowledged, {} succeeded in {seconds:.1} s; {} kills, {} of them before the store was open; \
             starts: median {} ms, slowest {} ms",
            tally.acknowledged,
            tally.succeeded,
            self.kills,
            self.kills_while_opening,
            opened.get(opened.len() / 2).copied().unwrap_or(0),
            opened.last().copied().unwrap_or(0),
        );
        println!(
            "{} claims, {} requests downstream ({} repeated after a kill, before their outcome was durable), {} retries, \
             {} failures, {} replays",
            tally.claims,
            tally.effects,
            tally.effects_repeated_after_kill,
            tally.retries,
            tally.failures,
            tally.replays
        );
        println!(
            "judged: {} second arrivals ({} beyond dedupe not judged), {} look-ups ({} expired not judged)",
            tally.duplicates_judged,
            tally.duplicates_beyond_dedupe,
            tally.lookups_judged,
            tally.lookups_expired
        );
        let growth = Growth::of(&self.samples, self.retires);
        println!("{}", growth.tell(self.options.growth_percent));
        for violation in &self.ledger.violations {
            println!("VIOLATED: {violation}");
        }
        if let Some(file) = &self.options.json {
            let all = serde_json::json!({
                "options": self.options,
                "seconds": seconds,
                "tally": tally,
                "kills": self.kills,
                "killsWhileOpening": self.kills_while_opening,
                "openedMs": self.opened_ms,
                "growth": growth,
                "violations": self.ledger.violations,
                "series": self.samples,
            });
            fs::write(file, serde_json::to_vec_pretty(&all)?)
                .with_context(|| format!("writing {}", file.display()))?;
        }
        ensure!(tally.violations == 0, "{} promises were broken", tally.violations);
        ensure!(
            (tally.acknowledged, tally.succeeded) == (self.options.events, self.options.events),
            "not every event was acknowledged and succeeded"
        );
        match growth {
            Growth::NotJudged { why } => {
                ensure!(!self.options.must_retire, "growth was not judged: {why}")
            }
            Growth::Judged { .. } => {
                ensure!(!growth.is_too_much(self.options.growth_percent), "it grows");
            }
        }
        Ok(())
    }
}

/// Measures one process, and kills it when its time has come.
struct Watch {
    process: u32,
    kill: Kill,
    clock: Arc<SystemClock>,
    folder: PathBuf,
    every: Duration,
    life: u16,
    acknowledged: Arc<AtomicU64>,
    measures: bool,
}

impl Watch {
    /// Ends with the process, which closes the channel.
    fn run(self, notes: &mpsc::Receiver<Note>) -> (Vec<Sample>, bool) {
        let mut samples = Vec::new();
        let mut opened = false;
        let mut kill_at = match self.kill {
            Kill::AfterStart(after) => Some(self.clock.monotonic() + after),
            Kill::AfterOpened(_) | Kill::Never => None,
        };
        loop {
            let left = kill_at.map(|at| at.saturating_sub(self.clock.monotonic()));
            match notes.recv_timeout(left.map_or(self.every, |left| left.min(self.every))) {
                Ok(Note::Opened) => {
                    opened = true;
                    if let Kill::AfterOpened(after) = self.kill {
                        kill_at = Some(self.clock.monotonic() + after);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return (samples, false),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if kill_at.is_some_and(|at| at <= self.clock.monotonic()) {
                        // It is not waited for before this thread has ended: the pid is still its own.
                        let pid = Pid::from_raw(self.process as i32);
                        let killed = pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok());
                        return (samples, killed);
                    }
                    if opened && self.measures {
                        samples.extend(self.sample());
                    }
                }
            }
        }
    }

    /// `None` while the process ends.
    fn sample(&self) -> Option<Sample> {
        let memory = figures::memory(&self.process.to_string())?;
        let journal = figures::usage(&self.folder.join("journal")).ok()?;
        let index = figures::usage(&self.folder.join(support::INDEX_FOLDER)).ok()?;
        Some(Sample {
            at_ms: self.clock.monotonic().as_millis() as u64,
            life: self.life,
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            memory_kib: memory.now_kib,
            journal_bytes: journal.bytes,
            index_bytes: index.bytes,
            segments: journal.files,
            first_segment: first_segment(&self.folder.join("journal")).unwrap_or(1),
        })
    }
}

fn first_segment(journal: &Path) -> Option<u64> {
    let names = fs::read_dir(journal).ok()?.flatten();
    let numbers = names.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.split_once('.')?.0.parse().ok()
    });
    numbers.min()
}

/// Means of the middle and of the last third of the samples since the first segment was retired.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
enum Growth {
    NotJudged { why: String },
    Judged { samples: usize, figures: Vec<Thirds> },
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Thirds {
    figure: &'static str,
    middle: f64,
    last: f64,
}

impl Growth {
    fn of(samples: &[Sample], retires: bool) -> Self {
        const SAMPLES_MIN: usize = 12;
        let began = samples.iter().position(|sample| sample.first_segment > 1);
        let since = began.map_or(&[][..], |began| &samples[began..]);
        let why = match since.len() {
            _ if !retires => "the store has no retention",
            0 => "no segment was retired",
            count if count < SAMPLES_MIN => "too few samples since the first segment was retired",
            _ => {
                let third = since.len() / 3;
                let (middle, last) = (&since[third..2 * third], &since[2 * third..]);
                let mean = |part: &[Sample], figure: fn(&Sample) -> u64| {
                    part.iter().map(figure).sum::<u64>() as f64 / part.len() as f64
                };
                let thirds = |name, figure: fn(&Sample) -> u64| Thirds {
                    figure: name,
                    middle: mean(middle, figure),
                    last: mean(last, figure),
                };
                return Growth::Judged {
                    samples: since.len(),
                    figures: vec![
                        thirds("memory, KiB", |sample| sample.memory_kib),
                        thirds("journal, bytes", |sample| sample.journal_bytes),
                        thirds("index, bytes", |sample| sample.index_bytes),
                    ],
                };
            }
        };
        Growth::NotJudged { why: why.to_owned() }
    }

    fn is_too_much(&self, percent: u32) -> bool {
        match self {
            Growth::NotJudged { .. } => false,
            Growth::Judged { figures, .. } => figures.iter().any(|thirds| thirds.grows(percent)),
        }
    }

    fn tell(&self, percent: u32) -> String {
        match self {
            Growth::NotJudged { why } => format!("growth: not judged, {why}"),
            Growth::Judged { samples, figures } => {
                let figures = figures.iter().map(|thirds| {
                    let verdict = if thirds.grows(percent) { "GROWS" } else { "flat" };
                    let Thirds { figure, middle, last } = thirds;
                    format!("{figure} {middle:.0} → {last:.0}: {verdict}")
                });
                let figures = figures.collect::<Vec<_>>().join("; ");
                format!(
                    "growth, middle to last third of {samples} samples since the first retired segment: {figures}"
                )
            }
        }
    }
}

impl Thirds {
    fn grows(&self, percent: u32) -> bool {
        self.last > self.middle * (1.0 + f64::from(percent) / 100.0)
    }
}

/// At most [`ROWS_MAX`] of the samples, evenly.
fn series(samples: &[Sample]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "s",
        "life",
        "acknowledged",
        "memory MiB",
        "journal MiB",
        "index MiB",
        "segments",
        "first",
    ]);
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    for sample in samples.iter().step_by(samples.len().div_ceil(ROWS_MAX).max(1)) {
        table.add_row([
            format!("{:.1}", sample.at_ms as f64 / 1e3),
            sample.life.to_string(),
            sample.acknowledged.to_string(),
            mib(sample.memory_kib << 10),
            mib(sample.journal_bytes),
            mib(sample.index_bytes),
            sample.segments.to_string(),
            sample.first_segment.to_string(),
        ]);
    }
    table
}
