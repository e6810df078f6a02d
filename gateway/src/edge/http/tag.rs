//! `ETag` and `If-Match`: a change of something that was changed meanwhile is refused.
//!
//! The tag of a record is its `updated_at`, which no two states of it share.  Spec: RFC 9110 s13.1.1.

use axum::{
    Json,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::problem::{Kind, Problem};
use crate::model::Millis;

/// A view with the tag that a change of it can ask for.
pub(super) fn tagged<T: Serialize>(updated_at: Millis, view: T) -> Response {
    let tag = format!("\"{}\"", updated_at.as_i64());
    ([(header::ETAG, tag)], Json(view)).into_response()
}

/// The `updated_at` that `If-Match` names; `*` is any.
pub(super) fn revision(headers: &HeaderMap) -> Result<Option<Millis>, Problem> {
    let Some(tag) = expected(headers)? else {
        return Ok(None);
    };
    match tag.parse() {
        Ok(millis) => Ok(Some(Millis::from_i64(millis))),
        // None of ours: nothing has it.
        Err(_) => Err(Problem::new(Kind::Stale, "nothing here has this tag")),
    }
}

/// The tag in `If-Match`; `*` is any.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let tag = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    match tag {
        Some(tag) if !tag.contains('"') => Ok(Some(tag.to_owned())),
        _ => Err(Problem::new(
            Kind::InvalidHeader,
            "If-Match must be one strong entity tag, or *",
        )
        .with_field("if-match")),
    }
}
