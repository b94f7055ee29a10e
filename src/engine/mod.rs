//! The workers: claim → fields → steps → record. Checked routes, a store and a caller enter; recorded deliveries leave.
//! It knows nothing of how requests come in or how operators look at what happened.

mod judge;
mod revision;
mod step;
mod terms;
mod work;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::call::Caller;
use crate::config::Live;
use crate::store::{Claim, Store, StoreError};
use crate::telemetry::Metrics;
use crate::world::World;
use revision::Revisions;

/// Deliveries held at once, for each call that may be in flight: enough to keep the callers busy while others record.
const CLAIMS_PER_WORKER: usize = 2;
/// How long a store that refuses for now is left alone.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// What the engine works with.
#[derive(Clone)]
pub struct Deps {
    pub world: World,
    pub store: Arc<dyn Store>,
    pub live: watch::Receiver<Arc<Live>>,
    pub caller: Arc<Caller>,
    pub metrics: Arc<Metrics>,
}

/// A running engine. Dropping it abandons what is in flight.
pub struct Engine {
    world: World,
    stop: watch::Sender<Stop>,
    ended: watch::Receiver<Option<Ended>>,
}

/// Why an engine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to; calls in flight were finished, or given up at the limit.
    Stopped,
    /// The store is dead or damaged: the process must be restarted.
    StoreFailed(String),
}

/// How far the engine is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    Not,
    /// Start nothing; finish and record what is in flight.
    Finish,
    /// Drop what is in flight: its intents are recorded, so the next start counts them as interrupted.
    Abandon,
}

impl Engine {
    /// Starts to claim and to work.
    pub fn start(deps: Deps) -> Engine {
        let (stop, stopping) = watch::channel(Stop::Not);
        let (end, ended) = watch::channel(None);
        let world = deps.world.clone();
        let workers = deps.live.borrow().set.server.workers.max(1);
        let shared = Arc::new(Shared {
            deps,
            calls: Arc::new(Semaphore::new(workers)),
            revisions: Revisions::default(),
            stopping,
            store_failed: watch::Sender::new(None),
        });
        let claims_max = workers.saturating_mul(CLAIMS_PER_WORKER);
        let main = async move {
            let reason = run(shared, claims_max).await;
            end.send_replace(Some(reason));
        };
        world.spawn.spawn("engine", main.boxed());
        Engine { world, stop, ended }
    }

    /// Resolves when the engine has ended, for whatever reason.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let reason = ended.wait_for(Option::is_some).await.map(|reason| reason.clone());
        match reason {
            Ok(Some(reason)) => reason,
            // The task is gone without a word: its runtime was shut down.
            Ok(None) | Err(_) => Ended::Stopped,
        }
    }

    /// Stops claiming, waits at most `limit` for calls in flight, records what came back.
    pub async fn shutdown(self, limit: Duration) -> Ended {
        self.stop.send_replace(Stop::Finish);
        let sleep = self.world.clock.sleep(limit);
        tokio::select! {
            biased;
            ended = self.ended() => return ended,
            () = sleep => {}
        }
        self.stop.send_replace(Stop::Abandon);
        self.ended().await
    }
}

/// What the tasks of one engine share.
struct Shared {
    deps: Deps,
    /// One permit per call in flight.
    calls: Arc<Semaphore>,
    revisions: Revisions,
    stopping: watch::Receiver<Stop>,
    store_failed: watch::Sender<Option<String>>,
}

impl Shared {
    fn stop(&self) -> Stop {
        // A closed channel: the engine was dropped.
        match self.stopping.has_changed() {
            Ok(_) => *self.stopping.borrow(),
            Err(_) => Stop::Abandon,
        }
    }

    /// Resolves once the engine is to stop at least so far.
    async fn stopped(&self, wanted: Stop) {
        let mut stopping = self.stopping.clone();
        // An error means that the engine was dropped.
        let _abandoned = stopping.wait_for(|stop| *stop >= wanted).await.is_err();
    }

    async fn store_failed(&self) -> String {
        let mut failed = self.store_failed.subscribe();
        let why = failed.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        // `self` holds the sender, so the channel stays open as long as anybody waits here.
        why.expect("the channel is open, and it was waited for a value")
    }
}

/// Claims and starts tasks until the engine is to stop, then waits for the tasks.
async fn run(shared: Arc<Shared>, claims_max: usize) -> Ended {
    let slots = Arc::new(Semaphore::new(claims_max));
    let failed = tokio::select! {
        biased;
        why = shared.store_failed() => Some(why),
        () = shared.stopped(Stop::Finish) => None,
        why = claim_on(&shared, &slots) => Some(why),
    };
    // Every task gives its slot back, and ends by itself: after its calls, or at once when they are abandoned.
    let all = u32::try_from(claims_max).unwrap_or(u32::MAX);
    if let Some(why) = failed {
        tracing::error!(error = %why, "the store failed; the engine stops");
        return Ended::StoreFailed(why);
    }
    tokio::select! {
        biased;
        why = shared.store_failed() => Ended::StoreFailed(why),
        _all = slots.acquire_many(all) => Ended::Stopped,
    }
}

/// Ends only with a store that fails.
async fn claim_on(shared: &Arc<Shared>, slots: &Arc<Semaphore>) -> String {
    let Deps { world, store, .. } = &shared.deps;
    loop {
        let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
            return "the engine's slots are closed".to_owned();
        };
        let free = 1 + slots.available_permits();
        let claims = match store.claim(free).await {
            Ok(claims) => claims,
            Err(StoreError::Refusing(why)) => {
                tracing::warn!(error = %why, "the store gives no work for now");
                world.clock.sleep(REFUSED_PAUSE).await;
                continue;
            }
            Err(error @ (StoreError::Dead(_) | StoreError::Corrupt(_))) => {
                return error.to_string();
            }
        };
        if claims.is_empty() {
            drop(slot);
            store.wait().await;
            continue;
        }
        let mut slot = Some(slot);
        for claim in claims {
            // Only this loop takes slots, so those seen free are still free.
            let Some(slot) = slot.take().or_else(|| Arc::clone(slots).try_acquire_owned().ok())
            else {
                return "the store gave more claims than asked for".to_owned();
            };
            let task = carry_out(Arc::clone(shared), claim, slot);
            world.spawn.spawn("delivery", task.boxed());
        }
    }
}

/// One delivery in a task of its own: whatever happens in it, the others go on.
async fn carry_out(shared: Arc<Shared>, claim: Claim, slot: OwnedSemaphorePermit) {
    let (id, fence) = (claim.state.id.clone(), claim.fence);
    let work = AssertUnwindSafe(work::carry_out(&shared, claim)).catch_unwind();
    let result = match work.await {
        Ok(result) => result,
        Err(_panic) => {
            tracing::error!(delivery = %id, "a bug in the router ended the work on this delivery");
            work::review_after_panic(&shared, &id, fence).await
        }
    };
    if let Err(error) = result {
        shared.store_failed.send_replace(Some(error.to_string()));
    }
    drop(slot);
}

#[cfg(test)]
mod tests;
