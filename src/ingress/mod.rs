//! Bytes in → accepted, durably, or refused: the only place that knows hyper's server.
//!
//! A socket and a [`Live`] configuration enter; answers leave, and [`NewEvent`](crate::store::NewEvent)s go to the store.
//! What becomes of an accepted event is not known here.

mod body;
pub mod canonical;
mod elements;
pub mod event;
mod head;
mod paths;
mod request;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::arming::Arming;
use crate::call::keys::KeyFetcher;
use crate::config::Live;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::world::World;
use crate::world::clock::timeout;
use request::Front;

/// Requests in flight may go on this long after the signal to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// The head of one request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bodies in memory at once, over all connections.
const BODY_BYTES_IN_FLIGHT_MAX: usize = 256 * 1024 * 1024;
/// Connections beyond the limit that are told so before they are closed; the rest is closed in silence.
const REFUSALS_MAX: usize = 64;
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
/// After a failed accept (no file descriptors left, say) the next one waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the ingress stands on.
#[derive(Clone)]
pub struct Ingress {
    pub world: World,
    pub store: Arc<dyn Store>,
    pub live: watch::Receiver<Arc<Live>>,
    pub metrics: Arc<Metrics>,
    /// Which sources may take a secret out of a handshake.
    pub arming: Arc<Arming>,
    /// The keys of providers that have to be fetched.
    pub keys: KeyFetcher,
}

/// Serves until `shutdown` is true, then finishes what is in flight within [`SHUTDOWN_GRACE`].
pub async fn serve(listener: TcpListener, deps: Ingress, mut shutdown: watch::Receiver<bool>) {
    let front = Arc::new(Front::new(deps, BODY_BYTES_IN_FLIGHT_MAX));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    // Each connection holds a sender: their number is the number of connections, and the channel ends with the last.
    let (open, mut all_closed) = mpsc::channel::<Infallible>(1);
    let (cut, _) = watch::channel(false);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            front.clock().sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if open.strong_count() > front.limits().connections {
            if let Ok(permit) = refusals.clone().try_acquire_owned() {
                let clock = front.clock().clone();
                front.spawn(Box::pin(async move {
                    timeout(&*clock, REFUSAL_LIMIT, refuse(stream)).await;
                    drop(permit);
                }));
            }
            continue;
        }
        let (front_, open, shutdown, mut cut) =
            (front.clone(), open.clone(), shutdown.clone(), cut.subscribe());
        front.spawn(Box::pin(async move {
            tokio::select! {
                () = converse(stream, front_, shutdown) => {}
                () = stopped(&mut cut) => {}
            }
            drop(open);
        }));
    }
    drop((listener, open));
    if timeout(&**front.clock(), SHUTDOWN_GRACE, all_closed.recv()).await.is_none() {
        cut.send_replace(true);
        all_closed.recv().await;
    }
}

/// Resolves when the signal is true, or when nobody is left to give it.
async fn stopped(signal: &mut watch::Receiver<bool>) {
    // A closed channel is a signal too: whoever would have given it is gone.
    drop(signal.wait_for(|stop| *stop).await);
}

/// Says 503, then reads on a little: closing over unread bytes would reset the connection and lose the answer.
async fn refuse(mut stream: TcpStream) {
    if stream.write_all(REFUSAL).await.is_ok() && stream.shutdown().await.is_ok() {
        let mut rest = [0; 1024];
        while matches!(stream.read(&mut rest).await, Ok(read) if read > 0) {}
    }
}

/// One connection, request after request.
async fn converse(stream: TcpStream, front: Arc<Front>, mut shutdown: watch::Receiver<bool>) {
    // A failure only costs latency.
    drop(stream.set_nodelay(true));
    let (wire, head) = head::watch(stream, front.clock().clone());
    let service = service_fn(|request| {
        let (front, head) = (front.clone(), head.clone());
        async move { Ok::<_, Infallible>(front.answer(request, &head).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Runs from the moment a head is awaited: silent connections and idle keep-alive end by it too.
        .header_read_timeout(front.limits().header_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(wire), service);
    tokio::pin!(connection);
    tokio::select! {
        // How a connection ends is the sender's business: every request on it was answered, or cut off by it.
        _ = connection.as_mut() => return,
        () = stopped(&mut shutdown) => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}
