//! `POST /api/v1/events/{eventId}/replay`: failed deliveries go back to the queue, events that no route took (or that a
//! route ignored) are routed anew. The rule is [`decide::replay`]; here it meets the store and the newest routes.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::guard::Actor;
use super::problem::Problem;
use super::{Admin, events};
use crate::config::{Live, Role, Route};
use crate::delivery::decide::{self, PlannedStep};
use crate::delivery::key::key_base;
use crate::delivery::state::{DeliveryState, Entry, Status, What};
use crate::name::RouteName;
use crate::store::{Change, EventView, NewDelivery, Operated, Operation};
use crate::telemetry::log;

/// A worker may move the delivery on between look and act; so often it is looked at anew.
const TRIES: usize = 3;
const NOTE_CHARS_MAX: usize = 2_000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    route: Option<RouteName>,
    note: Option<String>,
}

/// What became of one delivery.
enum Done {
    Queued(DeliveryState),
    Refused(RouteName, String),
}

pub(super) async fn replay(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    actor.may(Role::Operator)?;
    let body = body.map_err(|rejection| {
        Problem::new(rejection.status(), "the body is too large or did not arrive whole")
    })?;
    let wish = wish(&body)?;
    let view = events::one(&admin, id, raw.as_deref()).await?;
    if let Some(why) = &view.envelope.malformed {
        let detail = format!("the event could not be read, so no replay can carry it out: {why}");
        return Err(Problem::conflict(detail));
    }
    let live = admin.live.borrow().clone();
    let entry = Entry {
        at: admin.world.clock.now(),
        what: What::Operated {
            actor: actor.name.clone(),
            action: "replay".to_owned(),
            note: wish.note.clone(),
        },
    };
    let mut done = Vec::new();
    let wanted = |route: &RouteName| wish.route.as_ref().is_none_or(|wish| wish == route);
    for delivery in &view.deliveries {
        if delivery.state.status == Status::Failed && wanted(&delivery.state.id.route) {
            done.push(requeue(&admin, &live, &delivery.state, &entry).await?);
        }
    }
    done.extend(route_anew(&admin, &live, &view, wish.route.as_ref(), &entry).await?);

    let (mut replayed, mut refused) = (Vec::new(), Vec::new());
    let mut first_refusal = None;
    for done in done {
        match done {
            Done::Queued(state) => {
                let (event_id, route) = (&state.event_id, &state.id.route);
                admin.metrics.replayed(route);
                log::operated(event_id, route, &actor.name, "replay", state.status.as_str());
                replayed.push(json!({
                    "id": state.id.to_string(), "route": route, "status": state.status,
                    "revision": state.revision,
                }));
            }
            Done::Refused(route, why) => {
                first_refusal.get_or_insert_with(|| format!("route `{route}`: {why}"));
                refused.push(json!({ "route": route, "why": why }));
            }
        }
    }
    if replayed.is_empty() {
        let why = first_refusal.unwrap_or_else(|| nothing(&view, wish.route.as_ref()));
        return Err(Problem::conflict(why).with("refused", Json::Array(refused)));
    }
    let envelope = &view.envelope;
    let body = json!({
        "eventId": envelope.event_id, "uid": envelope.uid, "replayed": replayed, "refused": refused,
    });
    Ok((StatusCode::ACCEPTED, axum::Json(body)).into_response())
}

fn wish(body: &[u8]) -> Result<Wish, Problem> {
    if body.is_empty() {
        return Ok(Wish::default());
    }
    let wish: Wish = serde_json::from_slice(body).map_err(|error| {
        Problem::bad_request(format!(
            "the body must be {{ \"route\": …, \"note\": … }}, both optional: {error}"
        ))
    })?;
    if wish.note.as_ref().is_some_and(|note| note.chars().nth(NOTE_CHARS_MAX).is_some()) {
        let why = format!("`note` has more than {NOTE_CHARS_MAX} characters");
        return Err(Problem::bad_request(why));
    }
    Ok(wish)
}

/// Puts one failed delivery back in the queue, under the newest revision of its route.
async fn requeue(
    admin: &Admin,
    live: &Live,
    state: &DeliveryState,
    entry: &Entry,
) -> Result<Done, Problem> {
    let name = &state.id.route;
    let refused = |why: String| Ok(Done::Refused(name.clone(), why));
    let Some(route) = live.set.routes.get(name) else {
        return refused("the configuration has no such route any more".to_owned());
    };
    admin.store.revision_put(route.revision.clone(), route.revision_text.clone()).await?;
    let (plan, mut state) = (plan(route), state.clone());
    for _ in 0..TRIES {
        let transition = match decide::replay(&state, &plan, route.revision.clone(), entry.at) {
            Ok(transition) => transition,
            Err(refusal) => return refused(refusal.to_string()),
        };
        let operation = Operation {
            delivery: state.id.clone(),
            version: state.version,
            change: Change { entry: entry.clone(), transition, terms: Vec::new() },
        };
        match admin.store.operate(operation).await? {
            Operated::Done(state) => return Ok(Done::Queued(state)),
            Operated::NotFound => return refused("the delivery is gone".to_owned()),
            Operated::Stale => {}
        }
        match current(admin, &state).await? {
            Some(newer) => state = newer,
            None => return refused("the delivery is gone".to_owned()),
        }
    }
    refused("the delivery keeps changing; try again".to_owned())
}

async fn current(admin: &Admin, state: &DeliveryState) -> Result<Option<DeliveryState>, Problem> {
    let view = admin.store.event(state.id.uid).await?;
    let deliveries = view.into_iter().flat_map(|view| view.deliveries);
    Ok(deliveries.map(|delivery| delivery.state).find(|other| other.id == state.id))
}

/// Gives the event to routes that have not carried it out: the one that is asked for, those that ignored it, and all that
/// want it where none had taken it.
async fn route_anew(
    admin: &Admin,
    live: &Live,
    view: &EventView,
    asked: Option<&RouteName>,
    entry: &Entry,
) -> Result<Vec<Done>, Problem> {
    let envelope = &view.envelope;
    let status_of = |route: &RouteName| {
        view.deliveries.iter().map(|view| &view.state).find(|state| state.id.route == *route)
    };
    if let Some(asked) = asked
        && status_of(asked).is_none_or(|state| state.status == Status::Ignored)
    {
        let refused = |why: String| Ok(vec![Done::Refused(asked.clone(), why)]);
        match live.set.routes.get(asked) {
            None => return refused("the configuration has no such route".to_owned()),
            Some(route) if route.source != envelope.source => {
                return refused(format!(
                    "it reads the source `{}`, and the event came from `{}`",
                    route.source, envelope.source
                ));
            }
            Some(route) if !route.on.matches(&envelope.event_type) => {
                return refused(format!("its `on` does not take `{}`", envelope.event_type));
            }
            Some(_) => {}
        }
    }
    let unrouted = view.deliveries.is_empty();
    let routes: Vec<&Arc<Route>> = live
        .set
        .routes_on(&envelope.source)
        .filter(|route| route.on.matches(&envelope.event_type))
        .filter(|route| match (asked, status_of(&route.name)) {
            (Some(asked), _) if *asked != route.name => false,
            (_, Some(state)) => state.status == Status::Ignored,
            (asked, None) => asked.is_some() || unrouted,
        })
        .collect();
    if routes.is_empty() {
        return Ok(Vec::new());
    }
    // All deliveries of an event have one base. Without any, no key was ever sent, and a base of its own body is free.
    let known = view.deliveries.first().map(|delivery| delivery.state.key_base.clone());
    let base = |digest: Option<&[u8; 32]>| {
        let fresh = || key_base(&envelope.source, &envelope.path, &envelope.event_id, digest);
        known.clone().unwrap_or_else(fresh)
    };
    let digest: [u8; 32] = Sha256::digest(&envelope.body).into();
    let mut deliveries = Vec::new();
    for route in routes {
        admin.store.revision_put(route.revision.clone(), route.revision_text.clone()).await?;
        deliveries.push(NewDelivery {
            route: route.name.clone(),
            revision: route.revision.clone(),
            key_base: base(None),
            key_base_with_body: base(Some(&digest)),
        });
    }
    let queued = admin.store.route(envelope.uid, entry.clone(), deliveries).await?;
    let view = admin.store.event(envelope.uid).await?;
    let states = view.into_iter().flat_map(|view| view.deliveries).map(|view| view.state);
    Ok(states.filter(|state| queued.contains(&state.id)).map(Done::Queued).collect())
}

fn plan(route: &Route) -> Vec<PlannedStep> {
    route
        .steps
        .iter()
        .map(|step| PlannedStep {
            name: step.name.clone(),
            was: step.was.clone(),
            needs: step.needs.clone(),
        })
        .collect()
}

fn nothing(view: &EventView, asked: Option<&RouteName>) -> String {
    if view.deliveries.is_empty() {
        return "no route of the configuration takes this event".to_owned();
    }
    let standing: Vec<String> = view
        .deliveries
        .iter()
        .map(|delivery| &delivery.state)
        .filter(|state| asked.is_none_or(|asked| *asked == state.id.route))
        .map(|state| format!("`{}` is {}", state.id.route, state.status))
        .collect();
    format!("nothing to replay: {}; only failed and ignored deliveries are", standing.join(", "))
}
