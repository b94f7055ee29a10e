//! The router's own calls: intended requests in, outcomes out. The only room that knows reqwest. It adds what the
//! destination demands (its static credentials), and knows nothing of routes, templates or retries.

pub mod api;
pub mod egress;
pub mod http;

use std::sync::Arc;

use crate::delivery::outcome::Outcome;
use crate::render::OutgoingRequest;
use crate::secret::Vault;
use crate::store::Intended;
use crate::world::transport::Transport;

/// Carries intended requests out over a [`Transport`].
#[derive(Clone)]
pub struct Caller {
    transport: Arc<dyn Transport>,
}

impl Caller {
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// Sends one step's request. Only a recorded intent can be sent.
    pub async fn send_step(&self, intended: Intended<OutgoingRequest>, vault: &Vault) -> Outcome {
        drop((intended.into_request(), vault, &self.transport));
        todo!()
    }
}
