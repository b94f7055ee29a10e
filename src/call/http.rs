//! HTTP over real sockets: a [`Transport`] on reqwest.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::egress::Fence;
use crate::world::clock::Clock;
use crate::world::transport::{Sent, Transport, WireRequest};

/// One pooled client behind the egress fence. Nothing is redirected, proxied or repeated.
pub struct HttpTransport {
    clock: Arc<dyn Clock>,
    fence: Arc<Fence>,
}

#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be built: {0}")]
pub struct BuildError(pub String);

impl HttpTransport {
    pub fn new(fence: Fence, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        Ok(Self { clock, fence: Arc::new(fence) })
    }
}

impl Transport for HttpTransport {
    fn send(&self, request: WireRequest, deadline: Duration) -> BoxFuture<'_, Sent> {
        Box::pin(async move {
            drop((request, deadline, &self.clock, &self.fence));
            todo!()
        })
    }
}
