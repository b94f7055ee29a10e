//! Sources and the secrets that their providers' handshakes brought: what there is, who waits for one, and taking one away.
//! A secret is not shown, its fingerprint tells which it is; but where a provider wants back what it sent, an admin may see it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use url::form_urlencoded;

use super::events::unknown_parameter;
use super::guard::Actor;
use super::problem::Problem;
use super::{Admin, shape};
use crate::arming::{ARMED_DEFAULT, ARMED_MAX};
use crate::config::{Role, units};
use crate::name::{SourceName, Uid};
use crate::store::captured::{CapturedSecret, DroppedSecret};
use crate::telemetry::log;

/// `GET /api/v1/sources`
pub(super) async fn list(
    State(admin): State<Admin>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Problem> {
    if let Some((name, _)) = form_urlencoded::parse(raw.unwrap_or_default().as_bytes()).next() {
        return Err(unknown_parameter(&name, "none"));
    }
    let mut secrets: BTreeMap<SourceName, Vec<Json>> = BTreeMap::new();
    for secret in admin.store.secrets().await? {
        secrets.entry(secret.source.clone()).or_default().push(secret_row(&secret));
    }
    let live = admin.live.borrow().clone();
    let mut rows = Vec::new();
    for source in live.set.sources.values() {
        rows.push(json!({
            "name": source.name,
            "path": source.path,
            "provider": source.verify.provider,
            "captures": source.captures(),
            "armedUntil": armed_until(&admin, &source.name),
            "secrets": secrets.remove(&source.name).unwrap_or_default(),
        }));
    }
    // What was captured stays until it is dropped, whatever becomes of the source.
    for (name, secrets) in secrets {
        rows.push(json!({
            "name": name, "path": null, "provider": null, "captures": false, "armedUntil": null,
            "secrets": secrets,
        }));
    }
    Ok(axum::Json(json!({ "sources": rows })).into_response())
}

fn secret_row(secret: &CapturedSecret) -> Json {
    json!({
        "id": secret.id,
        "path": shape::pairs(&secret.path),
        "capturedAt": secret.captured_at.to_string(),
        "armedBy": secret.armed_by,
        "fingerprint": secret.fingerprint(),
    })
}

/// On the wall clock, for people: it ends by the monotonic one.
fn armed_until(admin: &Admin, name: &SourceName) -> Option<String> {
    let left = SignedDuration::try_from(admin.arming.left(name)?).ok()?;
    Some(admin.world.clock.now().checked_add(left).ok()?.to_string())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    #[serde(rename = "for")]
    time: Option<String>,
    /// The parts of the path that the secret must come to; others are open.
    #[serde(default)]
    path: BTreeMap<String, String>,
}

/// `POST /api/v1/sources/{name}/arm`
pub(super) async fn arm(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    actor.may(Role::Operator)?;
    let name = source_name(name)?;
    let body = body.map_err(|rejection| {
        Problem::new(rejection.status(), "the body is too large or did not arrive whole")
    })?;
    let wish = wish(&body)?;
    let time = time(&wish)?;
    let live = admin.live.borrow().clone();
    let source = live.set.sources.get(&name).ok_or_else(|| no_source(&name))?;
    if !source.captures() {
        let why = format!(
            "the source `{name}` takes no secret out of a handshake: none of its handshakes has `capture_secret`"
        );
        return Err(Problem::conflict(why));
    }
    let has_part = |part: &&String| source.path.contains(&format!("{{{part}}}"));
    if let Some(part) = wish.path.keys().find(|part| !has_part(part)) {
        let why = format!("the path {} of the source `{name}` has no part `{part}`", source.path);
        return Err(Problem::bad_request(why));
    }
    let parts = wish.path.clone().into_iter().collect();
    admin.arming.arm(name.clone(), parts, time, &actor.name);
    let until = armed_until(&admin, &name);
    log::source_operated(&name, &actor.name, "arm", until.as_deref().unwrap_or_default());
    let path = &source.path;
    Ok(axum::Json(json!({ "name": name, "path": path, "armedUntil": until })).into_response())
}

fn wish(body: &[u8]) -> Result<Wish, Problem> {
    if body.is_empty() {
        return Ok(Wish::default());
    }
    serde_json::from_slice(body).map_err(|error| {
        Problem::bad_request(format!(
            "the body must be {{ \"for\": \"10m\", \"path\": {{ \"NAME\": \"VALUE\" }} }}, or empty: {error}"
        ))
    })
}

fn time(wish: &Wish) -> Result<Duration, Problem> {
    let Some(text) = &wish.time else { return Ok(ARMED_DEFAULT) };
    let time = units::duration(text)
        .map_err(|why| Problem::bad_request(format!("`for` is a duration, not `{text}`: {why}")))?;
    if time.is_zero() || time > ARMED_MAX {
        let why = "`for` is more than nothing and at most 24h";
        return Err(Problem::bad_request(why));
    }
    Ok(time)
}

/// `POST /api/v1/sources/{name}/disarm`
pub(super) async fn disarm(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    actor.may(Role::Operator)?;
    let name = source_name(name)?;
    if !admin.live.borrow().set.sources.contains_key(&name) {
        return Err(no_source(&name));
    }
    let was_armed = admin.arming.disarm(&name);
    log::source_operated(
        &name,
        &actor.name,
        "disarm",
        if was_armed { "" } else { "it was not armed" },
    );
    Ok(axum::Json(json!({ "name": name, "wasArmed": was_armed })).into_response())
}

/// `POST /api/v1/sources/{name}/secrets/{id}/reveal`
pub(super) async fn reveal(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    actor.may(Role::Admin)?;
    let (name, uid) = secret_of(path)?;
    let secrets = admin.store.secrets().await?;
    let secret = secrets.iter().find(|secret| secret.source == name && secret.id == uid);
    let secret = secret.ok_or_else(|| no_secret(&name, &uid.to_string()))?;
    log::source_operated(&name, &actor.name, "reveal_secret", &uid.to_string());
    Ok(axum::Json(json!({ "name": name, "id": uid, "secret": secret.value.expose() }))
        .into_response())
}

/// `DELETE /api/v1/sources/{name}/secrets/{id}`
pub(super) async fn drop_secret(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    actor.may(Role::Operator)?;
    let (name, uid) = secret_of(path)?;
    let (at, actor) = (admin.world.clock.now(), actor.name);
    let dropped = DroppedSecret { id: uid, at, actor: actor.clone() };
    if !admin.store.drop_secret(name.clone(), dropped).await? {
        return Err(no_secret(&name, &uid.to_string()));
    }
    log::source_operated(&name, &actor, "drop_secret", &uid.to_string());
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn secret_of(
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<(SourceName, Uid), Problem> {
    let Path((name, id)) = path.map_err(|_| Problem::bad_request("the address is not UTF-8"))?;
    let name = SourceName::from(name);
    match id.parse() {
        Ok(uid) => Ok((name, Uid(uid))),
        Err(_) => Err(no_secret(&name, &id)),
    }
}

fn no_secret(name: &SourceName, id: &str) -> Problem {
    let why = format!(
        "the source `{name}` has no captured secret `{id}`; `router sources list` names them"
    );
    Problem::new(StatusCode::NOT_FOUND, why)
}

fn source_name(name: Result<Path<String>, PathRejection>) -> Result<SourceName, Problem> {
    let Path(name) = name.map_err(|_| Problem::bad_request("the source's name is not UTF-8"))?;
    Ok(SourceName::from(name))
}

fn no_source(name: &SourceName) -> Problem {
    let why = format!(
        "the configuration has no source `{name}`; `router sources list` names those that there are"
    );
    Problem::new(StatusCode::NOT_FOUND, why)
}
