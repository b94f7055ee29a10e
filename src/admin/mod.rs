//! The admin listener: health, metrics, the API. It knows the store and the live configuration, and nothing of ingress.

pub mod door;
mod events;
mod guard;
mod problem;
mod replay;
mod shape;
mod sources;
mod store;
mod transfer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::arming::Arming;
use crate::config::{Live, Role};
use crate::store::{Readiness, Store};
use crate::telemetry::{Backlog, CONTENT_TYPE, Metrics};
use crate::world::World;
use crate::world::clock::timeout;
use door::Door;
use problem::Problem;

const BODY_BYTES_MAX: usize = 64 * 1024;
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Requests in flight may go on this long after the signal to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What the admin listener works with.
#[derive(Clone)]
pub struct Admin {
    pub world: World,
    pub store: Arc<dyn Store>,
    pub live: watch::Receiver<Arc<Live>>,
    pub metrics: Arc<Metrics>,
    /// Which sources may take a secret out of a handshake.
    pub arming: Arc<Arming>,
    /// Why the workers cannot work, while they cannot.
    pub trouble: watch::Receiver<Option<String>>,
}

/// Why the admin listener cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "the admin address {0} is not loopback, so it needs a token: name one under `admin.tokens`"
    )]
    PublicWithoutToken(SocketAddr),
    #[error("the admin listener failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Serves until `stop` says true, then finishes what is in flight within [`SHUTDOWN_GRACE`].
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    let loopback = address.ip().is_loopback();
    if !loopback && admin.live.borrow().set.server.admin.tokens.is_empty() {
        return Err(ServeError::PublicWithoutToken(address));
    }
    let clock = admin.world.clock.clone();
    let mut draining = stop.clone();
    let server = axum::serve(Door::new(listener, clock.clone()), app(admin, loopback))
        .with_graceful_shutdown(async move { stopped(&mut draining).await });
    tokio::select! {
        ended = async { server.await } => ended?,
        () = async {
            stopped(&mut stop).await;
            clock.sleep(SHUTDOWN_GRACE).await;
        } => {}
    }
    Ok(())
}

async fn stopped(signal: &mut watch::Receiver<bool>) {
    // A closed channel is a signal too: whoever would have given it is gone.
    drop(signal.wait_for(|stop| *stop).await);
}

fn app(admin: Admin, loopback: bool) -> Router {
    let api = Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/events", get(events::list))
        .route("/api/v1/events/{event_id}", get(events::show))
        .route("/api/v1/events/{event_id}/replay", post(replay::replay))
        .route("/api/v1/causes", get(events::causes))
        .route("/api/v1/sources", get(sources::list))
        .route("/api/v1/sources/{name}/arm", post(sources::arm))
        .route("/api/v1/sources/{name}/disarm", post(sources::disarm))
        .route("/api/v1/sources/{name}/secrets/{id}", delete(sources::drop_secret))
        .route("/api/v1/sources/{name}/secrets/{id}/reveal", post(sources::reveal))
        .route("/api/v1/store/files", get(store::list))
        .route("/api/v1/store/files/{name}", get(store::read))
        .route("/api/v1/store/export", get(transfer::export))
        .route(
            "/api/v1/store/import",
            post(transfer::import).layer(Extension(transfer::Turn::new())),
        )
        .route_layer(from_fn_with_state(admin.clone(), authenticate));
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .merge(api)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state((admin.clone(), loopback), surround))
        .with_state(admin)
}

/// Around every request: who may come in at all, how long it may take, and the headers of every answer.
async fn surround(
    State((admin, loopback)): State<(Admin, bool)>,
    request: Request,
    next: Next,
) -> Response {
    let live = admin.live.borrow().clone();
    let mut response = match guard::admit(&live, loopback, request.method(), request.headers()) {
        Err(problem) => problem.into_response(),
        Ok(()) => timeout(&*admin.world.clock, REQUEST_LIMIT, next.run(request))
            .await
            .unwrap_or_else(|| {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long")
                    .into_response()
            }),
    };
    let headers = response.headers_mut();
    let policy = "default-src 'none'; frame-ancestors 'none'";
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn authenticate(
    State(admin): State<Admin>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let live = admin.live.borrow().clone();
    let actor = guard::actor(&live, request.headers())?;
    actor.may(Role::Viewer)?;
    request.extensions_mut().insert(actor);
    Ok(next.run(request).await)
}

async fn index() -> &'static str {
    "router\n\n/healthz\n/readyz\n/metrics\n/api/v1/events\n/api/v1/events/{eventId}\n/api/v1/causes\nPOST /api/v1/events/{eventId}/replay\n/api/v1/sources\nPOST /api/v1/sources/{name}/arm\nPOST /api/v1/sources/{name}/disarm\nDELETE /api/v1/sources/{name}/secrets/{id}\nPOST /api/v1/sources/{name}/secrets/{id}/reveal\n/api/v1/store/export\nPOST /api/v1/store/import\n/api/v1/store/files\n/api/v1/store/files/{name}\n"
}

async fn alive() -> Response {
    axum::Json(json!({ "status": "alive" })).into_response()
}

/// Ready: new events are accepted and workers carry them out.
async fn ready(State(admin): State<Admin>) -> Response {
    let store = match admin.store.summary().await.ready {
        Readiness::Ready => None,
        Readiness::Rebuilding(why) => {
            Some(format!("the index is made anew from the journal; events are taken in: {why}"))
        }
        Readiness::Refusing(why) => Some(format!("the store takes no new events for now: {why}")),
        Readiness::Dead(why) => Some(format!("the store has stopped: {why}")),
    };
    let workers = admin.trouble.borrow().clone();
    let reasons: Vec<String> = store.into_iter().chain(workers).collect();
    let (status, word) = match reasons.is_empty() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    (status, axum::Json(json!({ "status": word, "reasons": reasons }))).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let summary = admin.store.summary().await;
    let now = admin.world.clock.now();
    let age = summary.oldest_due_at.map(|due_at| now.duration_since(due_at));
    let backlog = Backlog {
        events: summary.events,
        queued: summary.queued,
        processing: summary.processing,
        failed: summary.failed,
        // A clock that went back makes nothing due in the future old.
        oldest_due: age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default(),
        ready: summary.ready == Readiness::Ready,
        pages_rebuilt: summary.pages_rebuilt,
    };
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], admin.metrics.encode(backlog)).into_response()
}

async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address; `/` names what there is")
}

async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take this method")
}
