//! The network as the router's own calls see it: bytes out, bytes in, and an honest word on what is known of the rest.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method};
use url::Url;

/// One HTTP request, ready to leave.
#[derive(Clone, Debug)]
pub struct WireRequest {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// More of the answer's body than this is not read.
    pub response_bytes_max: usize,
}

#[derive(Clone, Debug)]
pub struct WireResponse {
    pub status: u16,
    pub headers: HeaderMap,
    /// At most `response_bytes_max`.
    pub body: Bytes,
    /// The answer had more than was read.
    pub truncated: bool,
}

/// What is known after a request.
#[derive(Clone, Debug)]
pub enum Sent {
    /// Refused before flight, or the connection failed: the other side has seen nothing. `why` is for people.
    NotSent {
        why: String,
        kind: NotSentKind,
    },
    /// The first byte may have left and no whole answer came back: the work may or may not have been done.
    NoAnswer {
        why: String,
        timed_out: bool,
    },
    Answered(WireResponse),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSentKind {
    /// The egress fence refused the address: a retry cannot help until somebody edits the configuration.
    Refused,
    /// Name resolution, connect or TLS failed.
    Connect,
    /// The connect took too long.
    ConnectTimeout,
}

pub trait Transport: Send + Sync + 'static {
    /// Sends and waits at most `deadline` for the whole answer.
    fn send(&self, request: WireRequest, deadline: Duration) -> BoxFuture<'_, Sent>;
}
