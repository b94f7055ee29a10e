//! The admin listener's door: how many connections are inside at once, and for how long. axum's server bounds neither, so
//! silent, dripping and never-reading peers would pile up for ever. It knows nothing of HTTP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::world::clock::Clock;

/// Connections inside at once. One more waits outside.
pub const CONNECTIONS_MAX: usize = 256;
/// A connection ends after this long, whatever it does: twice what one request may take.
pub const CONNECTION_LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Door {
    listener: TcpListener,
    room: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
}

impl Door {
    pub(super) fn new(listener: TcpListener, clock: Arc<dyn Clock>) -> Self {
        Self { listener, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)), clock }
    }
}

impl axum::serve::Listener for Door {
    type Io = Visit;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visit, SocketAddr) {
        let room = Arc::clone(&self.room).acquire_owned().await;
        let room = room.expect("the semaphore is never closed");
        // axum's own `accept` outlives failed ones.
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        let end = self.clock.sleep(CONNECTION_LIMIT);
        (Visit { stream, end, ended: false, _room: room }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One connection inside.
pub(super) struct Visit {
    stream: TcpStream,
    end: BoxFuture<'static, ()>,
    ended: bool,
    _room: OwnedSemaphorePermit,
}

impl Visit {
    /// An error once the time is over; wakes the task then.
    fn poll_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.ended = self.ended || self.end.as_mut().poll(context).is_ready();
        match self.ended {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_time(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
