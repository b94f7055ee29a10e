//! What new events feel of retention: they come at a steady rate, first beside nothing, then while all older ones expire.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use router::store::{Retention, SourceRetention, Store};
use router::world::World;
use serde::{Deserialize, Serialize};

use crate::support::figures::Histogram;
use crate::{Task, open};

/// Events that come in a second.
const RATE: u64 = 1_000;
/// How long each part is looked at.
const PART: Duration = Duration::from_secs(5);
/// Everything older expires.
const RETAIN: Duration = Duration::from_secs(1);

/// Figures of accepting at [`RATE`], without and with retention at work.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Retiring {
    pub(crate) quiet_p50_ms: f64,
    pub(crate) quiet_p99_ms: f64,
    pub(crate) quiet_max_ms: f64,
    pub(crate) busy_p50_ms: f64,
    pub(crate) busy_p99_ms: f64,
    pub(crate) busy_max_ms: f64,
    /// Events that expired meanwhile, in a second.
    pub(crate) expired_per_s: f64,
}

/// Opens the folder, which holds finished events, and lets them expire.
pub(crate) async fn retire(task: &Task) -> anyhow::Result<Retiring> {
    let world = World::real();
    let (store, _) = open(task, &world)?;
    let next = Arc::new(AtomicU64::new(task.events * 2 + 100_000));
    let mut figures = Retiring::default();

    let quiet = accept_for(&store, task, &world, &next).await?;
    figures.quiet_p50_ms = quiet.quantile_ms(0.5);
    figures.quiet_p99_ms = quiet.quantile_ms(0.99);
    figures.quiet_max_ms = quiet.max_ms();

    let before = store.summary().await.events;
    let times = SourceRetention { retain: RETAIN, dedupe: RETAIN };
    store.set_retention(Retention { sources: BTreeMap::new(), default: times, audit: RETAIN });
    let busy = accept_for(&store, task, &world, &next).await?;
    figures.busy_p50_ms = busy.quantile_ms(0.5);
    figures.busy_p99_ms = busy.quantile_ms(0.99);
    figures.busy_max_ms = busy.max_ms();
    let came = RATE * PART.as_secs();
    let gone = (before + came).saturating_sub(store.summary().await.events);
    figures.expired_per_s = gone as f64 / PART.as_secs_f64();
    store.close().await?;
    Ok(figures)
}

/// One event after another at [`RATE`], each sent when it is due whatever became of those before.
async fn accept_for(
    store: &Arc<router::store::journal::JournalStore>,
    task: &Task,
    world: &World,
    next: &AtomicU64,
) -> anyhow::Result<Arc<Histogram>> {
    let waits = Arc::new(Histogram::default());
    let begun = world.clock.monotonic();
    let mut callers = Vec::new();
    for number in 0..RATE * PART.as_secs() {
        let due = Duration::from_nanos(number * 1_000_000_000 / RATE);
        let passed = world.clock.monotonic() - begun;
        if let Some(left) = due.checked_sub(passed) {
            world.clock.sleep(left).await;
        }
        let event = task.stream().event(next.fetch_add(1, Ordering::Relaxed), world);
        let (store, clock, waits) = (store.clone(), world.clock.clone(), waits.clone());
        callers.push(tokio::spawn(async move {
            let asked = clock.monotonic();
            let answers = store.accept(vec![event]).await?;
            waits.add(clock.monotonic() - asked);
            ensure!(answers.len() == 1, "one event was answered {answers:?}");
            Ok(())
        }));
    }
    for caller in callers {
        caller.await??;
    }
    Ok(waits)
}
