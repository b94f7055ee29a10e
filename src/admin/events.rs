//! Looking events up: one by its id, many by a filter.

use axum::extract::{Path, RawQuery, State, rejection::PathRejection};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use jiff::{Span, SpanRelativeTo, Timestamp};
use serde_json::{Value as Json, json};
use url::form_urlencoded;

use super::problem::Problem;
use super::{Admin, shape};
use crate::name::{SourceName, Uid};
use crate::store::{Budget, EventView, Query, Term};

const ROWS: usize = 50;
const ROWS_MAX: usize = 500;
/// Events that one page looks at; a rarer match takes several pages.
const EXAMINED_MAX: usize = 20_000;
/// Matches that an ambiguity names.
const MATCHES_MAX: usize = 20;

/// What a parameter begins with that asks for a field of a route.
const FIELD: &str = "field.";

/// `GET /api/v1/events`
pub(super) async fn list(
    State(admin): State<Admin>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Problem> {
    let now = admin.world.clock.now();
    let (query, cursor, rows_max) = filters(raw.as_deref().unwrap_or_default(), now)?;
    let budget = Budget { rows_max, examined_max: EXAMINED_MAX };
    let page = admin.store.list(query, cursor, budget).await?;
    let body = json!({
        "events": page.events.iter().map(shape::row).collect::<Vec<_>>(),
        "next": page.next.map(|next| next.to_string()),
        "examined": page.examined,
        "asOf": page.as_of.map(|as_of| as_of.to_string()),
    });
    Ok(axum::Json(body).into_response())
}

/// `GET /api/v1/causes`: the failed deliveries by route and cause, most first.
pub(super) async fn causes(
    State(admin): State<Admin>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Problem> {
    if let Some((name, _)) = form_urlencoded::parse(raw.unwrap_or_default().as_bytes()).next() {
        return Err(unknown_parameter(&name, "none"));
    }
    let causes = admin.store.causes().await;
    let rows: Vec<Json> = causes.iter().map(shape::cause).collect();
    Ok(axum::Json(rows).into_response())
}

/// `GET /api/v1/events/{eventId}`
pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Problem> {
    let view = one(&admin, id, raw.as_deref()).await?;
    Ok(axum::Json(shape::event(&view)).into_response())
}

/// The one event that the path and `?source=` name.
pub(super) async fn one(
    admin: &Admin,
    id: Result<Path<String>, PathRejection>,
    raw: Option<&str>,
) -> Result<EventView, Problem> {
    let Path(id) = id.map_err(|_| Problem::bad_request("the event id is not UTF-8"))?;
    let mut source = None;
    for (name, value) in form_urlencoded::parse(raw.unwrap_or_default().as_bytes()) {
        match &*name {
            "source" => source = Some(SourceName::from(&*value)),
            other => return Err(unknown_parameter(other, "source")),
        }
    }
    let uids = admin.store.find(&id, source.as_ref()).await?;
    let not_found = || Problem::new(StatusCode::NOT_FOUND, format!("no event has the id `{id}`"));
    match *uids {
        [] => Err(not_found()),
        [uid] => admin.store.event(uid).await?.ok_or_else(not_found),
        _ => Err(ambiguous(admin, &id, &uids).await?),
    }
}

async fn ambiguous(admin: &Admin, id: &str, uids: &[Uid]) -> Result<Problem, Problem> {
    let mut matches = Vec::new();
    for uid in uids.iter().take(MATCHES_MAX) {
        if let Some(view) = admin.store.event(*uid).await? {
            let envelope = &view.envelope;
            matches.push(json!({
                "uid": uid, "source": envelope.source, "path": shape::pairs(&envelope.path),
                "receivedAt": envelope.received_at.to_string(),
            }));
        }
    }
    let detail = format!(
        "{} events have the id `{id}`; name one by its uid, or its source (`?source=`, `--source`)",
        uids.len()
    );
    Ok(Problem::conflict(detail).with("matches", Json::Array(matches)))
}

pub(super) fn filters(raw: &str, now: Timestamp) -> Result<(Query, Option<u64>, usize), Problem> {
    let mut query = Query::default();
    let (mut cursor, mut limit) = (None, ROWS);
    for (name, value) in form_urlencoded::parse(raw.as_bytes()) {
        match &*name {
            "source" => query.source = Some((&*value).into()),
            "route" => query.route = Some((&*value).into()),
            "type" => query.event_type = Some(value.into_owned()),
            "eventId" => query.event_id = Some((&*value).into()),
            "correlationId" => query.correlation_id = Some(value.into_owned()),
            "cause" => query.cause = Some(value.into_owned()),
            name if name.starts_with(FIELD) => {
                let field = name.strip_prefix(FIELD).unwrap_or_default().to_owned();
                if field.is_empty() || query.field.is_some() {
                    return Err(Problem::bad_request(
                        "one field can be asked for at a time, by its name: `field.NAME=VALUE`",
                    ));
                }
                query.field = Some(Term { field, value: value.into_owned() });
            }
            "status" => {
                let status = shape::STATUSES.into_iter().find(|known| known.to_string() == value);
                query.status = Some(status.ok_or_else(|| {
                    let known = shape::STATUSES.map(|status| status.to_string()).join(", ");
                    Problem::bad_request(format!("`status` is one of {known}, not `{value}`"))
                })?);
            }
            "since" => query.since = Some(moment("since", &value, now)?),
            "until" => query.until = Some(moment("until", &value, now)?),
            "order" => {
                query.oldest_first = match &*value {
                    "oldest" => true,
                    "newest" => false,
                    _ => return Err(Problem::bad_request("`order` is newest or oldest")),
                }
            }
            "cursor" => {
                let number = value.parse().map_err(|_| {
                    Problem::bad_request("`cursor` is what `next` of the page before says")
                })?;
                cursor = Some(number);
            }
            "limit" => {
                limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=ROWS_MAX).contains(limit))
                    .ok_or_else(|| {
                        Problem::bad_request(format!("`limit` is a number from 1 to {ROWS_MAX}"))
                    })?;
            }
            other => {
                let known = "source, route, status, type, eventId, correlationId, field.NAME, cause, since, until, order, cursor, limit";
                return Err(unknown_parameter(other, known));
            }
        }
    }
    if let (Some(Term { field, .. }), None) = (&query.field, &query.route) {
        return Err(Problem::bad_request(format!(
            "`{FIELD}{field}` is a field of a route: name the route, too (`route=`, `--route`)"
        )));
    }
    Ok((query, cursor, limit))
}

pub(super) fn unknown_parameter(name: &str, known: &str) -> Problem {
    Problem::bad_request(format!("`{name}` is no parameter of this address; it takes {known}"))
}

/// A timestamp of RFC 3339, or how long ago: `2h`, `7d`.
fn moment(name: &str, text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago = text
        .parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .and_then(|ago| now.checked_sub(ago));
    ago.map_err(|_| {
        Problem::bad_request(format!(
            "`{name}` is a time (2026-11-23T10:00:00Z) or how long ago (2h, 7d), not `{text}`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        fn check(text: &str, expected: Option<&str>) {
            let now = "2026-11-23T12:00:00Z".parse().unwrap();
            let at = moment("since", text, now).ok();
            assert_eq!(at.map(|at| at.to_string()).as_deref(), expected, "{text}");
        }
        check("2h", Some("2026-11-23T10:00:00Z"));
        check("7d", Some("2026-11-16T12:00:00Z"));
        check("90m", Some("2026-11-23T10:30:00Z"));
        check("2026-11-23T13:00:00+02:00", Some("2026-11-23T11:00:00Z"));
        check("1mo", None);
        check("yesterday", None);
        check("999999999999h", None);
    }
}
