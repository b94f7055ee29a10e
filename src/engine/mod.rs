//! The workers: claim → fields → steps → record. Checked routes, a store and a caller enter; recorded deliveries leave.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::call::Caller;
use crate::config::Live;
use crate::store::Store;
use crate::world::World;

/// What the engine works with. (Metrics are added as soon as `telemetry` has them.)
pub struct Deps {
    pub world: World,
    pub store: Arc<dyn Store>,
    pub live: watch::Receiver<Arc<Live>>,
    pub caller: Arc<Caller>,
}

/// A running engine.
pub struct Engine {
    stop: watch::Sender<bool>,
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

impl Engine {
    /// Starts to claim and to work.
    pub fn start(deps: Deps) -> Engine {
        drop(deps);
        todo!()
    }

    /// Resolves when the engine has ended, for whatever reason.
    pub async fn ended(&self) -> Ended {
        drop(self.ended.clone());
        todo!()
    }

    /// Stops claiming, waits at most `limit` for calls in flight, records what came back.
    pub async fn shutdown(self, limit: Duration) -> Ended {
        drop((&self.stop, limit));
        todo!()
    }
}
