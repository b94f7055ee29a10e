//! `GET /api/v1/store/export` and `POST /api/v1/store/import`: the store's contents as JSON lines, in pages and chunks that a
//! listener can bear. What a line means is the store's business.

use std::sync::Arc;

use axum::Extension;
use axum::body::to_bytes;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;
use url::form_urlencoded;

use super::guard::Actor;
use super::problem::Problem;
use super::{Admin, events};
use crate::config::Role;
use crate::store::portable::{self, ExportCursor, Imported};

const PAGE_BYTES: usize = 1 << 20;
/// One line may be an event with all that was kept of it.
const IMPORT_BYTES_MAX: usize = 32 << 20;
/// Where a page says what the next one's `cursor` is.
const NEXT: HeaderName = HeaderName::from_static("router-next-cursor");
const PARAMETERS: [&str; 5] = ["source", "route", "status", "since", "until"];

/// One import at a time: each may bring a body that is much larger than what others may send.
#[derive(Clone)]
pub(super) struct Turn(Arc<Semaphore>);

impl Turn {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

pub(super) async fn export(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Problem> {
    actor.may(Role::Admin)?;
    let (cursor, chosen) = split(raw.as_deref().unwrap_or_default())?;
    let (query, _, _) = events::filters(&chosen, admin.world.clock.now())?;
    if cursor.is_none() {
        tracing::info!(actor = %actor.name, "the store is exported");
    }
    let page = admin.store.export(query, cursor, PAGE_BYTES).await?;
    let mut text = page.lines.join("\n");
    text.push('\n');
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    if let Some(next) = page.next {
        let next = HeaderValue::from_str(&next.to_string()).expect("a cursor is plain text");
        headers.insert(NEXT, next);
    }
    Ok(response)
}

/// The cursor, and the parameters that choose events.
fn split(raw: &str) -> Result<(Option<ExportCursor>, String), Problem> {
    let mut cursor: Option<ExportCursor> = None;
    let mut chosen = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(raw.as_bytes()) {
        if name == "cursor" {
            let place = value.parse().map_err(|_| {
                Problem::bad_request(
                    "`cursor` is what `Router-Next-Cursor` of the page before says",
                )
            })?;
            cursor = Some(place);
        } else if PARAMETERS.contains(&&*name) {
            chosen.append_pair(&name, &value);
        } else {
            let known = format!("{}, cursor", PARAMETERS.join(", "));
            return Err(events::unknown_parameter(&name, &known));
        }
    }
    Ok((cursor, chosen.finish()))
}

pub(super) async fn import(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Extension(turn): Extension<Turn>,
    request: Request,
) -> Result<Response, Problem> {
    actor.may(Role::Admin)?;
    let Ok(_turn) = turn.0.try_acquire() else {
        return Err(Problem::conflict("another import is under way; try again once it is done"));
    };
    let body = to_bytes(request.into_body(), IMPORT_BYTES_MAX).await.map_err(|_| {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "the body did not arrive whole, or is larger than {IMPORT_BYTES_MAX} bytes; send fewer lines at a time. One event that is larger can be imported while the router is stopped: `router import --store DIR`"
            ),
        )
    })?;
    let text = std::str::from_utf8(&body)
        .map_err(|_| Problem::bad_request("the body is not UTF-8 text; nothing was imported"))?;
    let portable::Lines { records, wrong } = portable::parse_lines(text);
    match admin.store.import(records).await {
        Ok(imported) => {
            tracing::info!(actor = %actor.name, events = imported.events, "events were imported");
            match wrong {
                None => Ok(axum::Json(counts(&imported)).into_response()),
                Some(wrong) => {
                    let problem = Problem::bad_request(wrong.to_string());
                    Err(with_counts(problem.with("line", json!(wrong.line)), &imported))
                }
            }
        }
        Err(stopped) => Err(with_counts(stopped.error.into(), &stopped.so_far)),
    }
}

fn counts(imported: &Imported) -> Json {
    json!({
        "imported": imported.events,
        "skipped": { "known": imported.known },
        "others": imported.others,
        "records": imported.records,
    })
}

fn with_counts(problem: Problem, imported: &Imported) -> Problem {
    problem.with("soFar", counts(imported))
}
