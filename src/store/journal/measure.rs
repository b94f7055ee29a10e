//! Figures of the journal on the machine at hand. They are printed, not judged:
//! `cargo test --release --lib store::journal::measure -- --ignored --nocapture --test-threads 1`

#![expect(clippy::disallowed_methods, reason = "the machine's own clock is what is measured by")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{JournalOptions, JournalStore};
use crate::delivery::state::StepStatus;
use crate::store::fixtures::{attempted, event, intended, no_index, world};
use crate::store::{Budget, Durability, NewEvent, Query, Recorded, Store};
use crate::world::disk::FolderDisk;

const EVENTS: u64 = 100_000;
const CALLERS: u64 = 64;

fn folder() -> PathBuf {
    std::env::temp_dir().join("router-measure")
}

fn open() -> JournalStore {
    let disk = Arc::new(FolderDisk::open(folder()).unwrap());
    JournalStore::open(disk, no_index(), JournalOptions::default(), world(1).0).unwrap()
}

/// A body of 1 KiB and the ten headers that a provider sends.
fn realistic(number: u64) -> NewEvent {
    let id = format!("evt_1PqLx{number:016x}");
    let mut event = event(u128::from(number) + 1, &id, &"x".repeat(1024), &["ship"]);
    event.envelope.correlation_id = format!("0191f3c4-7b1e-7c3a-9d2f-{number:012x}").into();
    event.envelope.headers = [
        ("host", "hooks.example.com"),
        ("user-agent", "Provider-Webhooks/1.0 (+https://provider.example/docs/webhooks)"),
        ("content-type", "application/json; charset=utf-8"),
        ("content-length", "1024"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip"),
        ("x-forwarded-for", "203.0.113.77, 10.0.0.12"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "8c0a5e9e3d7b4f61a2c4d6e8f0a1b2c3"),
        (
            "x-signature",
            "t=1800000000,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd",
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    event
}

/// Seconds of processor time that this process has used.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn resident_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

async fn by_callers(
    store: &Arc<JournalStore>,
    work: fn(Arc<JournalStore>, Arc<AtomicU64>) -> futures_util::future::BoxFuture<'static, ()>,
) -> (f64, f64) {
    let (began, used) = (Instant::now(), cpu());
    let next = Arc::new(AtomicU64::new(0));
    let callers = (0..CALLERS).map(|_| tokio::spawn(work(store.clone(), next.clone())));
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let count = EVENTS as f64;
    (count / began.elapsed().as_secs_f64(), (cpu() - used) * 1e6 / count)
}

/// Answers whether there was one.
async fn carry_out_one(store: &JournalStore) -> bool {
    let claims = store.claim(1).await.unwrap();
    let Some(claim) = claims.into_iter().next() else { return false };
    let id = claim.state.id.clone();
    let intent = store.record(&id, claim.fence, 0, intended(None), Durability::Ordered);
    assert!(matches!(intent.await, Ok(Recorded::Recorded(_))));
    let done = attempted(None, StepStatus::Succeeded);
    let done = store.record(&id, claim.fence, 1, done, Durability::Synced);
    assert!(matches!(done.await, Ok(Recorded::Recorded(_))));
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and takes minutes without optimization"]
async fn a_filling() {
    fs::remove_dir_all(folder()).ok();
    let began = Instant::now();
    let store = open();
    println!("start, no folder: {:?}", began.elapsed());
    drop(store);
    let began = Instant::now();
    let store = open();
    println!("start, unclean, 0 events: {:?}", began.elapsed());
    store.close().await.unwrap();
    drop(store);
    let began = Instant::now();
    let store = Arc::new(open());
    println!("start, clean, 0 events: {:?}", began.elapsed());
    let empty = store.shared.written();
    let (rate, cpu) = by_callers(&store, |store, next| {
        Box::pin(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= EVENTS {
                    return;
                }
                while store.accept(vec![realistic(number)]).await.is_err() {
                    tokio::task::yield_now().await;
                }
            }
        })
    })
    .await;
    println!("accept, {CALLERS} at once: {rate:.0}/s, {cpu:.1} µs of processor an event");
    let accepted = store.shared.written() - empty;
    let (rate, cpu) = by_callers(&store, |store, _| {
        Box::pin(async move {
            loop {
                if !carry_out_one(&store).await {
                    return;
                }
            }
        })
    })
    .await;
    println!("carry out, {CALLERS} at once: {rate:.0}/s, {cpu:.1} µs of processor an event");
    let (written, count) = (store.shared.written() - empty, EVENTS);
    println!("bytes: {} an acceptance, {} an event in all", accepted / count, written / count);
    println!("resident after the run: {:.1} MiB", resident_mib());
}

/// As a router does it: what is held in memory for finished events is seen at the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and takes minutes without optimization"]
async fn d_finished_as_they_come() {
    fs::remove_dir_all(folder()).ok();
    let store = Arc::new(open());
    let (rate, cpu) = by_callers(&store, |store, next| {
        Box::pin(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= EVENTS {
                    return;
                }
                while store.accept(vec![realistic(number)]).await.is_err() {
                    tokio::task::yield_now().await;
                }
                carry_out_one(&store).await;
            }
        })
    })
    .await;
    println!("accept and carry out: {rate:.0}/s, {cpu:.1} µs of processor an event");
    println!("resident after the run: {:.1} MiB", resident_mib());
    while carry_out_one(&store).await {}
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and takes minutes without optimization"]
async fn b_unclean_start() {
    start("unclean").await.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and takes minutes without optimization"]
async fn c_clean_start() {
    let store = start("clean").await;
    for (name, budget) in [
        ("list of 50", Budget { rows_max: 50, examined_max: 10_000 }),
        ("list of 10000", Budget { rows_max: 10_000, examined_max: 10_000 }),
    ] {
        let began = Instant::now();
        let page = store.list(Query::default(), None, budget).await.unwrap();
        println!("{name}: {:?} ({} rows)", began.elapsed(), page.events.len());
    }
    let began = Instant::now();
    let found = store.find(&format!("evt_1PqLx{:016x}", 777), None).await.unwrap();
    println!("first find: {:?}", began.elapsed());
    let began = Instant::now();
    for number in 0..100 {
        store.find(&format!("evt_1PqLx{:016x}", number * 997), None).await.unwrap();
    }
    println!("find: {:?} each", began.elapsed() / 100);
    println!("pages derived anew: {}", store.shared.sealed().mended());
    let began = Instant::now();
    for _ in 0..100 {
        store.event(found[0]).await.unwrap();
    }
    println!("event: {:?} each", began.elapsed() / 100);
    store.close().await.unwrap();
}

async fn start(after: &str) -> JournalStore {
    let (began, before) = (Instant::now(), resident_mib());
    let store = open();
    let took = began.elapsed();
    let summary = store.summary().await;
    println!(
        "start, {after}, {} events: {took:?}, resident {before:.1} → {:.1} MiB",
        summary.events,
        resident_mib()
    );
    store
}
