//! The store alone, without HTTP: how fast, at what cost of CPU, disk and memory, and how fast it starts.
//!
//! `cargo bench --bench store -- --events 10k,100k,1M --json figures.json`
//!
//! Each size runs in a process of its own on a folder of its own, and each start is measured in a new process, so that no
//! allocator's history counts. The parent process only starts them and prints.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a measurement prints its figures")]

#[path = "store/retiring.rs"]
mod retiring;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use router::name::Uid;
use router::store::journal::JournalStore;
use router::store::{
    Acceptance, Budget, Claim, Durability, NewEvent, Query, Recorded, Store, intend,
};
use router::world::World;
use router::world::clock::{Clock, SystemClock};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use retiring::Retiring;
use support::disk::{CountingDisk, Counts};
use support::figures::{self, Histogram, Memory};
use support::{End, Events, HEADERS};

/// Accepted before any of them is carried out, and then all of them are: so the two are measured apart, and what is held
/// in memory stays bounded at any size.
const CHUNK: u64 = 8192;
/// The bare loop writes as many of the run's batches as fit in here.
const BARE_BYTES_MAX: u64 = 128 << 20;
const BARE_BATCHES_MAX: usize = 2000;
/// Its median counts: one loop is short, and the machine is shared.
const BARE_ROUNDS: usize = 3;

#[derive(Clone, Debug, Parser, Serialize, Deserialize)]
#[command(about = "Measures the store alone", name = "store")]
struct Options {
    /// Sizes, with k and M.
    #[arg(long, value_delimiter = ',', value_parser = number, default_value = "10k,100k")]
    events: Vec<u64>,
    /// Callers that each await one `accept`, and workers that each carry one delivery out.
    #[arg(long, default_value_t = 128)]
    concurrency: usize,
    #[arg(long, default_value_t = 1024)]
    payload_bytes: usize,
    #[arg(long, default_value_t = 64 << 20)]
    segment_bytes: u64,
    /// Where the stores are made, and removed again. Default: the system's temporary folder, which should not be in memory.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Writes all figures there.
    #[arg(long)]
    json: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn number(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000),
        None => match text.strip_suffix(['m', 'M']) {
            Some(digits) => (digits, 1_000_000),
            None => (text, 1),
        },
    };
    let number: u64 = digits.parse().map_err(|_| "a number, with k or M".to_owned())?;
    if number == 0 { Err("at least 1".to_owned()) } else { Ok(number * unit) }
}

/// What a child process is to do. It is its only argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Task {
    kind: TaskKind,
    events: u64,
    folder: PathBuf,
    options: Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum TaskKind {
    /// The whole run, closed at the end.
    Run,
    /// Opens, answers a list over everything, closes.
    Start,
    /// Opens and works until it is killed; says when it has worked enough.
    WorkUntilKilled,
    /// Opens, and lets all that is finished expire while new events come.
    Retire,
}

/// Figures of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Run {
    accepts_per_s: f64,
    /// Each claimed, intended and recorded.
    deliveries_per_s: f64,
    claim_us_per_delivery: f64,
    deliveries_per_claim: f64,
    accept_cpu_us: f64,
    /// Of the phases of accepting, by thread, per event. Everything but `journal-*` is callers and runtime.
    accept_cpu_us_by_thread: BTreeMap<String, f64>,
    delivery_cpu_us: f64,
    accept_p50_ms: f64,
    accept_p99_ms: f64,
    accept_max_ms: f64,
    accept_syncs_per_event: f64,
    /// Of an event's whole life.
    syncs_per_event: f64,
    /// Filled part of the journal's files.
    journal_bytes_per_event: f64,
    /// All that was ever written to it, without zeros.
    written_bytes_per_event: f64,
    segments_prepared: u64,
    memory_mib: f64,
    memory_peak_mib: f64,
    close_ms: f64,
    bare_batches_per_s: f64,
    bare_events_per_s: f64,
    accepts_to_bare: f64,
}

/// Figures of one start.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Start {
    open_ms: f64,
    open_cpu_ms: f64,
    memory_mib: f64,
    memory_peak_mib: f64,
    /// One list over all events: it needs every page, and makes those that are missing.
    list_all_ms: f64,
    events: u64,
}

/// All figures of one size.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    events: u64,
    run: Run,
    index_bytes_per_event: f64,
    /// With what is prepared ahead.
    journal_on_disk_mib: f64,
    clean: Start,
    killed: Start,
    rebuilt: Start,
    retiring: Retiring,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [task] = arguments.as_slice()
        && task.starts_with('{')
    {
        return work(serde_json::from_str(task).context("the task")?);
    }
    // `cargo test --benches` runs this without `--bench` and perhaps with a test filter: then it only proves that it works.
    let asked = arguments.iter().any(|argument| {
        argument.starts_with("--events") || argument == "--bench" || argument.contains("help")
    });
    let options = match asked {
        true => Options::parse(),
        false => Options::parse_from(["store", "--events", "2k"]),
    };
    let mut all = Vec::new();
    for &events in &options.events {
        eprintln!("{events} events …");
        all.push(measure(events, &options).with_context(|| format!("measuring {events} events"))?);
    }
    println!("{}", table(&all, &options));
    println!("{}", notes(&options));
    if let Some(file) = &options.json {
        let figures = serde_json::json!({ "options": options, "sizes": all });
        fs::write(file, serde_json::to_vec_pretty(&figures)?)
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

fn measure(events: u64, options: &Options) -> anyhow::Result<Figures> {
    let base = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    fs::create_dir_all(&base)?;
    let place = tempfile::Builder::new().prefix("router-bench-").tempdir_in(base)?;
    let folder = place.path().join("store");
    let task = |kind| Task { kind, events, folder: folder.clone(), options: options.clone() };

    let run: Run = finish(start(&task(TaskKind::Run))?)?;
    let index = figures::usage(&folder.join(support::INDEX_FOLDER))?;
    let journal = figures::usage(&folder.join("journal"))?;
    let clean: Start = finish(start(&task(TaskKind::Start))?)?;
    ensure!(clean.events == events, "{} of {events} events are listed", clean.events);

    let mut working = start(&task(TaskKind::WorkUntilKilled))?;
    let mut said = String::new();
    let out = working.stdout.as_mut().context("its output is piped")?;
    BufReader::new(out).read_line(&mut said)?;
    ensure!(!said.is_empty(), "the process that was to be killed ended by itself");
    // SIGKILL, in the middle of its work.
    working.kill()?;
    working.wait()?;
    let killed: Start = finish(start(&task(TaskKind::Start))?)?;
    ensure!(killed.events > events, "{} events are listed after the kill", killed.events);

    match fs::remove_dir_all(folder.join(support::INDEX_FOLDER)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let rebuilt: Start = finish(start(&task(TaskKind::Start))?)?;
    ensure!(rebuilt.events == killed.events, "{} events are listed anew", rebuilt.events);
    let retiring: Retiring = finish(start(&task(TaskKind::Retire))?)?;
    Ok(Figures {
        events,
        run,
        index_bytes_per_event: index.bytes as f64 / events as f64,
        journal_on_disk_mib: journal.bytes as f64 / f64::from(1 << 20),
        clean,
        killed,
        rebuilt,
        retiring,
    })
}

fn start(task: &Task) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(serde_json::to_string(task)?).stdout(Stdio::piped()).stdin(Stdio::null());
    command.spawn().context("starting a process")
}

fn finish<F: for<'a> Deserialize<'a>>(mut child: Child) -> anyhow::Result<F> {
    let mut said = String::new();
    child.stdout.take().context("its output is piped")?.read_to_string(&mut said)?;
    let status = child.wait()?;
    ensure!(status.success(), "a process ended with {status}");
    serde_json::from_str(&said).with_context(|| format!("the figures in {said:?}"))
}

/// In a child process.
fn work(task: Task) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = match task.kind {
        TaskKind::Run => serde_json::to_string(&runtime.block_on(run(&task))?)?,
        TaskKind::Start => serde_json::to_string(&runtime.block_on(start_and_list(&task))?)?,
        TaskKind::Retire => serde_json::to_string(&runtime.block_on(retiring::retire(&task))?)?,
        TaskKind::WorkUntilKilled => {
            let never = runtime.block_on(work_until_killed(&task))?;
            match never {}
        }
    };
    println!("{figures}");
    Ok(())
}

fn open(task: &Task, world: &World) -> anyhow::Result<(Arc<JournalStore>, Arc<Counts>)> {
    let (disk, counts) = CountingDisk::open(&task.folder)?;
    let store = support::open(disk, &task.folder, task.options.segment_bytes, world.clone())?;
    Ok((Arc::new(store), counts))
}

impl Task {
    fn stream(&self) -> Events {
        Events { seed: self.options.seed, payload_bytes: self.options.payload_bytes }
    }
}

/// Sums over the phases of one kind.
#[derive(Default)]
struct Spent {
    wall: Duration,
    cpu: Duration,
    syncs: u64,
}

/// Where the sums stood when a phase began.
struct Phase {
    wall: Duration,
    cpu: Duration,
    syncs: u64,
}

impl Phase {
    fn begin(world: &World, counts: &Counts) -> Self {
        Self { wall: world.clock.monotonic(), cpu: figures::process_cpu(), syncs: counts.syncs() }
    }

    fn end(self, spent: &mut Spent, world: &World, counts: &Counts) {
        spent.cpu += figures::process_cpu() - self.cpu;
        spent.wall += world.clock.monotonic() - self.wall;
        spent.syncs += counts.syncs() - self.syncs;
    }
}

async fn run(task: &Task) -> anyhow::Result<Run> {
    let world = World::real();
    let (store, counts) = open(task, &world)?;
    support::put_revisions(&store).await?;
    let stream = task.stream();
    let (mut accepting, mut delivering) = (Spent::default(), Spent::default());
    let mut threads: BTreeMap<String, Duration> = BTreeMap::new();
    let waits = Arc::new(Histogram::default());
    let claiming = Arc::new(Claiming::default());
    let syncs_before = counts.syncs();

    let mut from = 0;
    while from < task.events {
        let until = (from + CHUNK).min(task.events);
        // Made before the clock runs: ingress is not measured here.
        let events: Vec<NewEvent> =
            (from..until).map(|number| stream.event(number, &world)).collect();

        let before = figures::thread_cpu();
        counts.keep_lengths.store(true, Ordering::Relaxed);
        let phase = Phase::begin(&world, &counts);
        accept_all(&store, events, task.options.concurrency, &world, &waits).await?;
        phase.end(&mut accepting, &world, &counts);
        counts.keep_lengths.store(false, Ordering::Relaxed);
        for (name, spent) in figures::thread_cpu() {
            let before = before.get(&name).copied().unwrap_or_default();
            *threads.entry(name).or_default() += spent.saturating_sub(before);
        }

        let phase = Phase::begin(&world, &counts);
        deliver_all(&store, until - from, task.options.concurrency, &world, &claiming).await?;
        phase.end(&mut delivering, &world, &counts);
        from = until;
    }
    let syncs = counts.syncs() - syncs_before;
    let memory = figures::memory("self").unwrap_or_default();
    let closing = world.clock.monotonic();
    store.close().await?;
    drop(store);
    let close = world.clock.monotonic() - closing;

    let events = task.events as f64;
    let lengths = counts.lengths();
    let bare_batches_per_s = bare_loop(&task.folder, &lengths)?;
    let bare_events_per_s = bare_batches_per_s * events / lengths.len() as f64;
    let accepts_per_s = events / accepting.wall.as_secs_f64();
    let claims = claiming.claims.load(Ordering::Relaxed) as f64;
    let micros = |spent: Duration| spent.as_secs_f64() * 1e6 / events;
    Ok(Run {
        accepts_per_s,
        deliveries_per_s: events / delivering.wall.as_secs_f64(),
        claim_us_per_delivery: claiming.nanos.load(Ordering::Relaxed) as f64 / 1e3 / events,
        deliveries_per_claim: events / claims,
        accept_cpu_us: micros(accepting.cpu),
        accept_cpu_us_by_thread: threads
            .into_iter()
            .map(|(name, spent)| (name, micros(spent)))
            .collect(),
        delivery_cpu_us: micros(delivering.cpu),
        accept_p50_ms: waits.quantile_ms(0.5),
        accept_p99_ms: waits.quantile_ms(0.99),
        accept_max_ms: waits.max_ms(),
        accept_syncs_per_event: accepting.syncs as f64 / events,
        syncs_per_event: syncs as f64 / events,
        journal_bytes_per_event: counts.used_bytes() as f64 / events,
        written_bytes_per_event: counts.bytes_written.load(Ordering::Relaxed) as f64 / events,
        segments_prepared: counts.prepared.load(Ordering::Relaxed),
        memory_mib: mib(memory.now_kib),
        memory_peak_mib: mib(memory.peak_kib),
        close_ms: close.as_secs_f64() * 1e3,
        bare_batches_per_s,
        bare_events_per_s,
        accepts_to_bare: accepts_per_s / bare_events_per_s,
    })
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// As many callers as asked for, each with its share of the events, each awaiting one after another.
async fn accept_all(
    store: &Arc<JournalStore>,
    events: Vec<NewEvent>,
    concurrency: usize,
    world: &World,
    waits: &Arc<Histogram>,
) -> anyhow::Result<()> {
    let mut shares: Vec<Vec<NewEvent>> = (0..concurrency).map(|_| Vec::new()).collect();
    for (at, event) in events.into_iter().enumerate() {
        shares[at % concurrency].push(event);
    }
    let callers: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let (store, clock) = (Arc::clone(store), Arc::clone(&world.clock));
            let waits = Arc::clone(waits);
            tokio::spawn(async move {
                for event in share {
                    let asked = clock.monotonic();
                    let answers = store.accept(vec![event]).await?;
                    waits.add(clock.monotonic() - asked);
                    ensure!(
                        matches!(answers.as_slice(), [Acceptance::Accepted { .. }]),
                        "a new event was answered {answers:?}"
                    );
                }
                Ok(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    Ok(())
}

/// What the calls of `claim` took.
#[derive(Default)]
struct Claiming {
    claims: AtomicU64,
    nanos: AtomicU64,
}

/// Carries `count` deliveries out: one task claims for as many workers as are free, one task per delivery records, as in
/// the engine.
async fn deliver_all(
    store: &Arc<JournalStore>,
    count: u64,
    concurrency: usize,
    world: &World,
    claiming: &Arc<Claiming>,
) -> anyhow::Result<()> {
    let free = Arc::new(Semaphore::new(concurrency));
    let mut left = count;
    let mut workers = Vec::with_capacity(count as usize);
    while left > 0 {
        let mut permit = Arc::clone(&free).acquire_owned().await?;
        let others = free.available_permits() as u32;
        if others > 0
            && let Ok(others) = Arc::clone(&free).try_acquire_many_owned(others)
        {
            permit.merge(others);
        }
        let asked = world.clock.monotonic();
        let claims = store.claim(permit.num_permits()).await?;
        let took = world.clock.monotonic() - asked;
        if claims.is_empty() {
            drop(permit);
            store.wait().await;
            continue;
        }
        claiming.claims.fetch_add(1, Ordering::Relaxed);
        claiming.nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        left = left.checked_sub(claims.len() as u64).context("more was due than was accepted")?;
        for claim in claims {
            let own = permit.split(1).context("no more is claimed than there are permits")?;
            let (store, world) = (Arc::clone(store), world.clone());
            workers.push(tokio::spawn(async move {
                deliver(&store, claim, &world).await?;
                drop(own);
                anyhow::Ok(())
            }));
        }
    }
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

/// One step, one attempt, with success.
async fn deliver(store: &JournalStore, claim: Claim, world: &World) -> anyhow::Result<()> {
    let Claim { state, fence, .. } = claim;
    let change = support::intended(&state, "ship", world.clock.now());
    let (id, version) = (&state.id, state.version);
    let (recorded, intended) =
        intend(store, id, fence, version, change, Durability::Ordered, ()).await?;
    let (Recorded::Recorded(state), Some(_)) = (&recorded, intended) else {
        bail!("an intent was answered {recorded:?}");
    };
    let change = support::attempted(state, "ship", End::Succeeded, world.clock.now());
    let recorded = store.record(id, fence, state.version, change, Durability::Synced).await?;
    ensure!(matches!(recorded, Recorded::Recorded(_)), "an outcome was answered {recorded:?}");
    Ok(())
}

/// What the medium gives: writes and syncs of the same lengths, one after another, into space written ahead, by one thread
/// that does nothing else. Batches a second.
fn bare_loop(folder: &Path, lengths: &[u32]) -> anyhow::Result<f64> {
    let mut bytes = 0;
    let fits = lengths.iter().take(BARE_BATCHES_MAX).take_while(|length| {
        bytes += u64::from(**length);
        bytes <= BARE_BYTES_MAX
    });
    let lengths = &lengths[..fits.count().max(1).min(lengths.len())];
    let total: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
    let noise: Vec<u8> = (0..lengths.iter().max().map_or(0, |max| u64::from(*max) / 8 + 1))
        .flat_map(|number| support::mix(number).to_le_bytes())
        .collect();
    let path = folder.join("bare-loop");
    let clock = SystemClock::start();
    let mut rates = Vec::new();
    for _ in 0..BARE_ROUNDS {
        let file = fs::File::create(&path)?;
        let mut ahead = 0;
        while ahead < total {
            let zeros = [0; 64 << 10];
            file.write_all_at(&zeros, ahead)?;
            ahead += zeros.len() as u64;
        }
        file.sync_all()?;
        let began = clock.monotonic();
        let mut at = 0;
        for &length in lengths {
            file.write_all_at(&noise[..length as usize], at)?;
            file.sync_data()?;
            at += u64::from(length);
        }
        rates.push(lengths.len() as f64 / (clock.monotonic() - began).as_secs_f64());
    }
    fs::remove_file(&path)?;
    rates.sort_by(f64::total_cmp);
    Ok(rates[BARE_ROUNDS / 2])
}

async fn start_and_list(task: &Task) -> anyhow::Result<Start> {
    let world = World::real();
    let (asked, cpu) = (world.clock.monotonic(), figures::process_cpu());
    let (store, _) = open(task, &world)?;
    let open = world.clock.monotonic() - asked;
    let cpu = figures::process_cpu() - cpu;
    let Memory { now_kib, peak_kib } = figures::memory("self").unwrap_or_default();

    let asked = world.clock.monotonic();
    let budget = Budget { rows_max: 1000, examined_max: 10_000 };
    let query = Query { oldest_first: true, ..Query::default() };
    let (mut events, mut cursor) = (0, None);
    let mut last: Option<Uid> = None;
    loop {
        let page = store.list(query.clone(), cursor, budget).await?;
        events += page.events.len() as u64;
        // Each event once: a page that began where the last one ended would be counted twice.
        ensure!(page.events.is_empty() || page.events.first().map(|row| row.uid) != last, "twice");
        last = page.events.last().map(|row| row.uid);
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let listed = world.clock.monotonic() - asked;
    store.close().await?;
    Ok(Start {
        open_ms: open.as_secs_f64() * 1e3,
        open_cpu_ms: cpu.as_secs_f64() * 1e3,
        memory_mib: mib(now_kib),
        memory_peak_mib: mib(peak_kib),
        list_all_ms: listed.as_secs_f64() * 1e3,
        events,
    })
}

enum Never {}

/// Puts some of a segment's worth of work on top, says so, and goes on: the kill comes between two commits or within one.
async fn work_until_killed(task: &Task) -> anyhow::Result<Never> {
    let world = World::real();
    let (store, _) = open(task, &world)?;
    let enough = task.events.min(CHUNK * 2);
    let said = AtomicBool::new(false);
    let waits = Arc::default();
    let claiming = Arc::default();
    let mut number = task.events;
    loop {
        let events: Vec<NewEvent> =
            (number..number + 1024).map(|number| task.stream().event(number, &world)).collect();
        accept_all(&store, events, task.options.concurrency, &world, &waits).await?;
        deliver_all(&store, 1024, task.options.concurrency, &world, &claiming).await?;
        number += 1024;
        if number >= task.events + enough && !said.swap(true, Ordering::Relaxed) {
            println!("worked");
            std::io::stdout().flush()?;
        }
    }
}

fn table(all: &[Figures], options: &Options) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_content_arrangement(ContentArrangement::Disabled);
    let mut header = vec!["figure".to_owned()];
    header.extend(all.iter().map(|figures| format!("{} events", figures.events)));
    header.push("goal".to_owned());
    table.set_header(header);
    let disk_goal = format!("≤ {:.0}", 1.5 * options.payload_bytes as f64 + 400.0);
    type Figure = fn(&Figures) -> f64;
    let rows: &[(&str, Figure, usize, &str)] = &[
        ("accepts/s", |f| f.run.accepts_per_s, 0, ""),
        (
            "bare write+fdatasync of the same batches, as events/s",
            |f| f.run.bare_events_per_s,
            0,
            "",
        ),
        ("accepts to bare", |f| f.run.accepts_to_bare, 3, ""),
        ("claimed + intended + recorded deliveries/s", |f| f.run.deliveries_per_s, 0, ""),
        ("claim, µs a delivery", |f| f.run.claim_us_per_delivery, 2, ""),
        ("deliveries a claim", |f| f.run.deliveries_per_claim, 1, ""),
        ("accept, CPU µs an event, whole process", |f| f.run.accept_cpu_us, 1, "≤ 15 in the store"),
        ("… of these the threads journal-*", |f| f.run.journal_cpu_us(), 1, ""),
        ("delivery, CPU µs, whole process", |f| f.run.delivery_cpu_us, 1, ""),
        ("accept p50, ms", |f| f.run.accept_p50_ms, 2, ""),
        ("accept p99, ms", |f| f.run.accept_p99_ms, 2, ""),
        ("accept max, ms", |f| f.run.accept_max_ms, 1, ""),
        ("fdatasyncs an event, accept alone", |f| f.run.accept_syncs_per_event, 4, ""),
        ("fdatasyncs an event, whole life", |f| f.run.syncs_per_event, 4, ""),
        ("journal, bytes an event (filled)", |f| f.run.journal_bytes_per_event, 0, ""),
        ("index, bytes an event", |f| f.index_bytes_per_event, 0, ""),
        (
            "journal + index, bytes an event",
            |f| f.run.journal_bytes_per_event + f.index_bytes_per_event,
            0,
            &disk_goal,
        ),
        ("written to the journal, bytes an event", |f| f.run.written_bytes_per_event, 0, ""),
        ("journal on disk with prepared space, MiB", |f| f.journal_on_disk_mib, 0, ""),
        ("memory after the run, MiB", |f| f.run.memory_mib, 1, ""),
        ("memory peak of the run, MiB", |f| f.run.memory_peak_mib, 1, ""),
        ("close, ms", |f| f.run.close_ms, 1, ""),
        ("start after a clean close, ms", |f| f.clean.open_ms, 1, "≤ 1000 at 1M"),
        ("memory after that start, MiB", |f| f.clean.memory_mib, 1, "≤ 150 at 1M"),
        ("memory peak of that start, MiB", |f| f.clean.memory_peak_mib, 1, ""),
        ("a list over all events then, ms", |f| f.clean.list_all_ms, 1, ""),
        ("start after a kill, ms", |f| f.killed.open_ms, 1, ""),
        ("memory after that start, MiB", |f| f.killed.memory_mib, 1, ""),
        ("start without index, s", |f| f.rebuilt.open_ms / 1e3, 3, ""),
        (
            "… with a list over all events, s",
            |f| (f.rebuilt.open_ms + f.rebuilt.list_all_ms) / 1e3,
            3,
            "≤ 10 at 1M",
        ),
        ("1000 accepts/s, p50 / ms", |f| f.retiring.quiet_p50_ms, 2, ""),
        ("… while older ones expire", |f| f.retiring.busy_p50_ms, 2, ""),
        ("1000 accepts/s, p99 / ms", |f| f.retiring.quiet_p99_ms, 2, ""),
        ("… while older ones expire", |f| f.retiring.busy_p99_ms, 2, ""),
        ("1000 accepts/s, max / ms", |f| f.retiring.quiet_max_ms, 1, ""),
        ("… while older ones expire", |f| f.retiring.busy_max_ms, 1, ""),
        ("events expired meanwhile, 1/s", |f| f.retiring.expired_per_s, 0, ""),
    ];
    for (name, figure, digits, goal) in rows {
        let mut row = vec![(*name).to_owned()];
        row.extend(all.iter().map(|figures| format!("{:.*}", *digits, figure(figures))));
        row.push((*goal).to_owned());
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1).take(all.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

impl Run {
    fn journal_cpu_us(&self) -> f64 {
        let own = self.accept_cpu_us_by_thread.iter();
        own.filter(|(name, _)| name.starts_with("journal-")).map(|(_, micros)| micros).sum()
    }
}

fn notes(options: &Options) -> String {
    format!(
        "Payload {} bytes and {} headers, one delivery of one step an event; {} callers and as many workers, {} CPUs.\n\
         accept: made events in, 2xx-ready answers out; its CPU counts the callers' tasks, the runtime, the writer, and what \
         the store does meanwhile in the background (pages, segments prepared ahead).\n\
         Each {CHUNK} events are accepted, then carried out; the end of each such round has fewer callers than asked for, \
         which lowers the rates by a percent or two.\n\
         fdatasyncs: those of the journal's files, without the index and without segments made ahead.",
        options.payload_bytes,
        HEADERS,
        options.concurrency,
        std::thread::available_parallelism().map_or(0, usize::from),
    )
}
