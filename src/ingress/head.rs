//! The wire under one connection: keeps the bytes of each request's head, since hyper resolves a doubled body framing
//! without a trace, and gives up on a peer that does not take its answer.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::HEAD_BYTES_MAX;
use crate::world::clock::Clock;

/// An answer that finds no room in the peer's window for this long ends the connection.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

pub(super) fn watch(stream: TcpStream, clock: Arc<dyn Clock>) -> (Wire, Head) {
    let head = Head(Arc::new(Mutex::new(Some(Vec::new()))));
    (Wire { stream, head: head.clone(), clock, stalled: None }, head)
}

/// The bytes read since the last answer; `None` while a request is being answered.
#[derive(Clone)]
pub(super) struct Head(Arc<Mutex<Option<Vec<u8>>>>);

impl Head {
    fn state(&self) -> std::sync::MutexGuard<'_, Option<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the recording of this request's head: whether it gave a length although its body is chunked. Two readers of
    /// such a request may see two different bodies.
    ///
    /// Of a request that was sent ahead of the answer before it, the head may not be here: then hyper's reading counts
    /// (chunked wins, RFC 9112, 6.3), and the connection ends with the answer as after every chunked request.
    pub(super) fn gives_a_length(&self) -> bool {
        self.state().take().is_some_and(|bytes| {
            // What did not fit is not known: it may give one.
            let cut = bytes.len() >= HEAD_BYTES_MAX && !has_end(&bytes);
            cut || has_header(&bytes, b"content-length")
        })
    }

    /// The answer is made: what is read from now on is the next head.
    pub(super) fn expect_next(&self) {
        *self.state() = Some(Vec::new());
    }

    fn record(&self, bytes: &[u8]) {
        if let Some(head) = &mut *self.state() {
            let room = HEAD_BYTES_MAX.saturating_sub(head.len());
            head.extend(bytes.iter().take(room));
        }
    }
}

/// The empty line after the head is there.
fn has_end(head: &[u8]) -> bool {
    let empty = |line: &&[u8]| line.trim_ascii().is_empty();
    let mut lines = head.split(|byte| *byte == b'\n').skip_while(empty);
    lines.any(|line| empty(&line))
}

fn has_header(head: &[u8], name: &[u8]) -> bool {
    let empty = |line: &&[u8]| line.trim_ascii().is_empty();
    // Empty lines before a request are no part of it (RFC 9112, 2.2), and hyper skips them too.
    let lines = head.split(|byte| *byte == b'\n').skip_while(empty);
    lines.take_while(|line| !empty(line)).any(|line| {
        line.split(|byte| *byte == b':').next().is_some_and(|key| {
            line.len() > key.len() && key.trim_ascii().eq_ignore_ascii_case(name)
        })
    })
}

pub(super) struct Wire {
    stream: TcpStream,
    head: Head,
    clock: Arc<dyn Clock>,
    /// Runs while the peer takes nothing.
    stalled: Option<BoxFuture<'static, ()>>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if let Some(read) = buffer.filled().get(before..) {
            self.head.record(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(context, bytes) {
            self.stalled = None;
            return Poll::Ready(written);
        }
        let wire = &mut *self;
        let stalled = wire.stalled.get_or_insert_with(|| wire.clock.sleep(WRITE_LIMIT));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_header_in_the_head_alone() {
        let check = |head: &str, expected| {
            assert_eq!(has_header(head.as_bytes(), b"content-length"), expected, "{head:?}");
        };
        check("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nHost: a\r\nCONTENT-LENGTH:3\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nHost: a\r\n\r\ncontent-length: 3\r\n", false);
        check("POST / HTTP/1.1\r\nX-Content-Length: 3\r\n\r\n", false);
        check("\r\n\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", true);
        check("content-length", false);
        check("", false);
    }

    #[test]
    fn a_head_too_long_to_be_kept_is_taken_to_give_a_length() {
        let check = |headers: usize, expected| {
            let head = Head(Arc::new(Mutex::new(Some(Vec::new()))));
            head.record(b"POST / HTTP/1.1\r\n");
            for _ in 0..headers {
                head.record(b"X-Pad: 0123456789\r\n");
            }
            head.record(b"Content-Length: 3\r\n\r\n");
            assert_eq!(head.gives_a_length(), expected, "{headers} headers");
        };
        check(10, true);
        check(HEAD_BYTES_MAX, true);
        // A long body behind a short head is no long head.
        let head = Head(Arc::new(Mutex::new(Some(Vec::new()))));
        head.record(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n");
        head.record(&vec![b'x'; 2 * HEAD_BYTES_MAX]);
        assert!(!head.gives_a_length());
    }
}
