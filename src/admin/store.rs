//! The store's files, for `router backup`: a list of one moment, and each file piece by piece. Among them is the key, so
//! only an admin may have them.

use axum::body::Bytes;
use axum::extract::{Extension, Path, RawQuery, State, rejection::PathRejection};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use url::form_urlencoded;

use super::Admin;
use super::guard::Actor;
use super::problem::Problem;
use crate::config::Role;
use crate::store::files::PIECE_BYTES_MAX;

/// `GET /api/v1/store/files`
pub(super) async fn list(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
) -> Result<Response, Problem> {
    actor.may(Role::Admin)?;
    let files = admin.store.files().await?;
    tracing::info!(actor = actor.name, files = files.files.len(), "a backup is taken");
    Ok(axum::Json(files).into_response())
}

/// `GET /api/v1/store/files/{name}?offset=…&bytes=…`
pub(super) async fn read(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    name: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Problem> {
    actor.may(Role::Admin)?;
    let Path(name) = name.map_err(|_| Problem::bad_request("the name is not UTF-8"))?;
    let (mut offset, mut bytes) = (0, PIECE_BYTES_MAX);
    for (key, value) in form_urlencoded::parse(raw.unwrap_or_default().as_bytes()) {
        let number = || {
            value.parse().map_err(|_| Problem::bad_request(format!("`{key}` is a number of bytes")))
        };
        match &*key {
            "offset" => offset = number()?,
            "bytes" => bytes = number()?,
            other => {
                return Err(Problem::bad_request(format!(
                    "`{other}` is no parameter of this address; it takes offset, bytes"
                )));
            }
        }
    }
    let piece: Option<Bytes> = admin.store.read_file(&name, offset, bytes).await?;
    let piece = piece.ok_or_else(|| {
        let detail = format!("the store has no file `{name}` (any more)");
        Problem::new(StatusCode::NOT_FOUND, detail)
    })?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], piece).into_response())
}
