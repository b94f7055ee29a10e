//! Reading one body within its limits: its own size, the time for all of it, and the memory that all bodies share.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::world::clock::{Clock, timeout};

/// A body, and the memory it is accounted under until it is dropped.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    TooLarge,
    TooSlow,
    /// All bodies in flight together are too large.
    NoRoom,
    /// The sender broke off, or its framing is wrong.
    Broken,
}

pub(super) async fn read(
    mut body: Incoming,
    bytes_max: usize,
    limit: Duration,
    memory: &Arc<Semaphore>,
    clock: &dyn Clock,
) -> Result<Whole, Fault> {
    // What the sender announces is refused before any of it is read.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(Fault::TooLarge);
    }
    let whole = async {
        let mut bytes = BytesMut::new();
        let mut permit: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            // Trailers are nobody's business here.
            let Ok(data) = frame.map_err(|_| Fault::Broken)?.into_data() else { continue };
            if data.len() > bytes_max - bytes.len() {
                return Err(Fault::TooLarge);
            }
            // Memory is taken as bytes arrive, so an announcement alone holds nothing.
            let count = u32::try_from(data.len()).map_err(|_| Fault::TooLarge)?;
            let more = memory.clone().try_acquire_many_owned(count).map_err(|_| Fault::NoRoom)?;
            match &mut permit {
                Some(permit) => permit.merge(more),
                None => permit = Some(more),
            }
            // Copied out, so that a small piece does not keep a whole read buffer alive.
            bytes.extend_from_slice(&data);
        }
        Ok(Whole { bytes: bytes.freeze(), _memory: permit })
    };
    timeout(clock, limit, whole).await.unwrap_or(Err(Fault::TooSlow))
}
