//! A whole router in this process: a checked configuration with its secrets enters, both listeners accept when `start`
//! returns. `serve` and `demo` stand on it; the rooms themselves know nothing of each other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{self, Admin};
use crate::arming::Arming;
use crate::call::Caller;
use crate::call::egress::Fence;
use crate::call::http::HttpTransport;
use crate::call::keys::KeyFetcher;
use crate::config::{Live, RouteSet, Server, Source};
use crate::engine::{Deps, Ended, Engine};
use crate::ingress::{self, Ingress};
use crate::store::journal::{JournalOptions, JournalStore, OpenError};
use crate::store::sled::{SledIndex, SledLimits};
use crate::store::{Retention, SourceRetention, Store};
use crate::telemetry::Metrics;
use crate::world::World;
use crate::world::disk::FolderDisk;
use crate::world::transport::Transport;

/// The index stands beside the journal.
pub(super) const INDEX_FOLDER: &str = "sled";

/// A running router.
pub struct Running {
    pub ingress: SocketAddr,
    pub admin: SocketAddr,
    pub store: Arc<JournalStore>,
    pub metrics: Arc<Metrics>,
    engine: Engine,
    ingress_task: JoinHandle<()>,
    admin_task: JoinHandle<Result<(), admin::ServeError>>,
    stop_ingress: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    trouble: watch::Sender<Option<String>>,
    live: watch::Sender<Arc<Live>>,
}

impl Running {
    /// Opens the store, keeps the routes' revisions in it, binds both ports and starts to work.
    pub async fn start(live: Live, world: World) -> anyhow::Result<Self> {
        let transport = HttpTransport::new(
            Fence::new(live.set.server.egress_allow.clone()),
            Arc::clone(&world.clock),
        )?;
        let transport: Arc<dyn Transport> = Arc::new(transport);
        let store = open(&live.set, &world).await?;
        // From here on a failure closes the store, so that the next start need not take this one for a crash.
        match Self::start_on(Arc::clone(&store), transport, live, world).await {
            Ok(running) => Ok(running),
            Err(error) => {
                store.close().await.context("cannot close the store")?;
                Err(error)
            }
        }
    }

    async fn start_on(
        store: Arc<JournalStore>,
        transport: Arc<dyn Transport>,
        live: Live,
        world: World,
    ) -> anyhow::Result<Self> {
        for route in live.set.routes.values() {
            store.revision_put(route.revision.clone(), Arc::clone(&route.revision_text)).await?;
        }
        let public = bind(live.set.server.listen, "listen").await?;
        let private = bind(live.set.server.admin.listen, "admin.listen").await?;
        let (ingress_at, admin_at) = (public.local_addr()?, private.local_addr()?);

        let (live, watched) = watch::channel(Arc::new(live));
        let (stop_ingress, ingress_stops) = watch::channel(false);
        let (stop_admin, admin_stops) = watch::channel(false);
        let (trouble, troubled) = watch::channel(None);
        let metrics = Arc::new(Metrics::new());
        let arming = Arc::new(Arming::new(Arc::clone(&world.clock)));
        let any_store: Arc<dyn Store> = Arc::<JournalStore>::clone(&store);

        let engine = Engine::start(Deps {
            world: world.clone(),
            store: Arc::clone(&any_store),
            live: watched.clone(),
            caller: Arc::new(Caller::new(Arc::clone(&transport))),
            metrics: Arc::clone(&metrics),
        });
        let admin = Admin {
            world: world.clone(),
            store: Arc::clone(&any_store),
            live: watched.clone(),
            metrics: Arc::clone(&metrics),
            trouble: troubled,
            arming: Arc::clone(&arming),
        };
        let admin_task = tokio::spawn(admin::serve(private, admin, admin_stops));
        let keys = KeyFetcher::new(transport, &world, Arc::clone(&metrics));
        let ingress = Ingress {
            world,
            store: any_store,
            live: watched,
            metrics: Arc::clone(&metrics),
            arming,
            keys,
        };
        let ingress_task = tokio::spawn(ingress::serve(public, ingress, ingress_stops));
        Ok(Self {
            ingress: ingress_at,
            admin: admin_at,
            store,
            metrics,
            engine,
            ingress_task,
            admin_task,
            stop_ingress,
            stop_admin,
            trouble,
            live,
        })
    }

    /// The configuration that runs now.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.borrow())
    }

    /// Resolves only when something without which the router is of no use has ended, and says why.
    pub async fn broken(&mut self) -> Broken {
        tokio::select! {
            why = self.store.died() => Broken::Store(why),
            ended = self.engine.ended() => match ended {
                Ended::StoreFailed(why) => Broken::Store(why),
                Ended::Stopped => Broken::Part("the workers ended".to_owned()),
            },
            ended = &mut self.ingress_task => Broken::Part(format!("the ingress listener ended{}", why(ended.err()))),
            ended = &mut self.admin_task => Broken::Part(match ended {
                Ok(Err(error)) => error.to_string(),
                Ok(Ok(())) => "the admin listener ended".to_owned(),
                Err(error) => format!("the admin listener ended{}", why(Some(error))),
            }),
        }
    }

    /// Stops accepting, finishes what is in flight within `limit`, flushes, and marks a clean end.
    pub async fn shutdown(self, limit: Duration) -> anyhow::Result<()> {
        self.trouble.send_replace(Some("the router is shutting down".to_owned()));
        self.stop_ingress.send_replace(true);
        let (ended, ingress) = tokio::join!(self.engine.shutdown(limit), self.ingress_task);
        self.stop_admin.send_replace(true);
        let admin = self.admin_task.await;
        // Closed whatever the others said: what is ordered is to be written.
        self.store.close().await.context("cannot close the store")?;
        ingress.context("the ingress listener")?;
        admin.context("the admin listener")??;
        match ended {
            Ended::Stopped => Ok(()),
            Ended::StoreFailed(why) => Err(anyhow!("the store failed: {why}")),
        }
    }
}

/// Why a router cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A write or sync failed: only a new start can tell what is on the medium.
    Store(String),
    Part(String),
}

async fn open(set: &RouteSet, world: &World) -> anyhow::Result<Arc<JournalStore>> {
    let options = JournalOptions { retention: retention(set), ..options(&set.server) };
    open_store(set.server.store.clone(), options, world).await
}

/// What the configuration says of the journal.
pub(super) fn options(server: &Server) -> JournalOptions {
    JournalOptions {
        min_free_disk: server.limits.min_free_disk_bytes,
        backlog_max: server.limits.backlog,
        ..JournalOptions::default()
    }
}

/// The store in a folder, which nobody else may have open.
pub(super) async fn open_store(
    path: PathBuf,
    options: JournalOptions,
    world: &World,
) -> anyhow::Result<Arc<JournalStore>> {
    let world = world.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let disk = FolderDisk::open(&path).map_err(|source| OpenError::Io {
            place: path.display().to_string(),
            action: "make files".into(),
            source,
        })?;
        let index = Arc::new(SledIndex::at(path.join(INDEX_FOLDER), SledLimits::default()));
        Ok::<_, anyhow::Error>(JournalStore::open(Arc::new(disk), index, options, world)?)
    });
    Ok(Arc::new(opening.await.context("opening the store")??))
}

/// How long what is kept, as the configuration says.
fn retention(set: &RouteSet) -> Retention {
    let of = |source: &Source| SourceRetention { retain: source.retain, dedupe: source.dedupe };
    Retention {
        sources: set.sources.iter().map(|(name, source)| (name.clone(), of(source))).collect(),
        audit: set.server.audit_retain,
        ..Retention::default()
    }
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; choose another address with `{key}` in router.yaml")
    })
}

fn why(error: Option<tokio::task::JoinError>) -> String {
    error.map(|error| format!(": {error}")).unwrap_or_default()
}
