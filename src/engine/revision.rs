//! The route that a delivery began with. It is the running one, or it is compiled again from the text that the store
//! kept; and all that it reads must still be there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::config::check::compile_revision;
use crate::config::{Auth, Destination, DestinationUrl, Live, Route};
use crate::delivery::state::{DeliveryState, Reason};
use crate::name::RevisionHash;
use crate::secret::SecretRef;
use crate::store::{Store, StoreError};

/// Former revisions kept compiled.
const KEPT_MAX: usize = 64;

/// Former revisions that were compiled against the running configuration.
#[derive(Default)]
pub(super) struct Revisions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    against: Option<Arc<Live>>,
    /// Oldest first.
    routes: VecDeque<Arc<Route>>,
}

impl Revisions {
    /// The delivery's route, or the reason why it cannot be carried out.
    pub(super) async fn find(
        &self,
        store: &dyn Store,
        live: &Arc<Live>,
        state: &DeliveryState,
    ) -> Result<Result<Arc<Route>, Reason>, StoreError> {
        let found = match live.set.routes.get(&state.id.route) {
            Some(route) if route.revision == state.revision => Some(Arc::clone(route)),
            _ => self.kept(live, &state.revision),
        };
        let route = match found {
            Some(route) => route,
            None => {
                let Some(text) = store.revision_get(&state.revision).await? else {
                    return Ok(Err(gone(state, "the store does not have its text")));
                };
                match compile_revision(&text, &live.set) {
                    Ok(route) => self.keep(live, Arc::new(route)),
                    Err(why) => return Ok(Err(gone(state, &why))),
                }
            }
        };
        Ok(missing_secret(&route, live).map_or(Ok(route), Err))
    }

    fn kept(&self, live: &Arc<Live>, revision: &RevisionHash) -> Option<Arc<Route>> {
        let kept = self.0.lock().expect("no holder of this lock can panic");
        let against = kept.against.as_ref().filter(|against| Arc::ptr_eq(against, live));
        against.and_then(|_| kept.routes.iter().find(|route| route.revision == *revision).cloned())
    }

    fn keep(&self, live: &Arc<Live>, route: Arc<Route>) -> Arc<Route> {
        let mut kept = self.0.lock().expect("no holder of this lock can panic");
        if !kept.against.as_ref().is_some_and(|against| Arc::ptr_eq(against, live)) {
            *kept = Kept { against: Some(Arc::clone(live)), routes: VecDeque::new() };
        }
        if kept.routes.len() >= KEPT_MAX {
            kept.routes.pop_front();
        }
        kept.routes.push_back(Arc::clone(&route));
        route
    }
}

fn gone(state: &DeliveryState, why: &str) -> Reason {
    Reason {
        cause: "revision".to_owned(),
        subject: None,
        message: format!(
            "the revision {} of the route `{}` cannot be used any more: {why}; replay the event to take the newest one",
            state.revision, state.id.route
        ),
    }
}

/// The first secret that the route reads and the environment no longer gives.
fn missing_secret(route: &Route, live: &Live) -> Option<Reason> {
    let of_route = route.secrets.iter().map(|(name, reference)| (name.clone(), reference));
    let of_destinations = route
        .steps
        .iter()
        .filter_map(|step| step.call.to.as_deref())
        .flat_map(|to| secrets_of(to).map(|reference| (to.lane.to_string(), reference)));
    let (name, reference) = of_route
        .chain(of_destinations)
        .find(|(_, reference)| live.resolved.secret(reference).is_none())?;
    Some(Reason {
        cause: "missing_secret".to_owned(),
        message: format!(
            "the secret of `{name}` ({reference:?}) has no value; set it, restart and replay"
        ),
        subject: Some(name),
    })
}

fn secrets_of(destination: &Destination) -> impl Iterator<Item = &SecretRef> {
    let url = match &destination.url {
        DestinationUrl::Plain(_) => None,
        DestinationUrl::Secret(reference) => Some(reference),
    };
    let auth = destination.auth.as_ref().map(|auth| match auth {
        Auth::Bearer(secret)
        | Auth::Basic { password: secret, .. }
        | Auth::Header { value: secret, .. } => secret,
    });
    url.into_iter().chain(auth)
}
