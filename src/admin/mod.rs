//! The admin listener: health, metrics, the API. It knows the store and the live configuration, and nothing of ingress.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::Live;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::world::World;

/// What the admin listener works with.
#[derive(Clone)]
pub struct Admin {
    pub world: World,
    pub store: Arc<dyn Store>,
    pub live: watch::Receiver<Arc<Live>>,
    pub metrics: Arc<Metrics>,
    /// Why the workers cannot work, while they cannot.
    pub trouble: watch::Receiver<Option<String>>,
}

/// Why the admin listener cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "the admin address {0} is not loopback, so it needs a token: name one under `admin.tokens`"
    )]
    PublicWithoutToken(std::net::SocketAddr),
    #[error("the admin listener failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Serves until `stop` says true and what is under way has ended.
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    drop((listener, admin, stop));
    todo!()
}
