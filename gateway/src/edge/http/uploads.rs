//! `/uploads`: what devices sent, and are sending.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use headgate_protocol::identity::{DeviceId, ProductId};
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::{Operator, Viewer},
    content::{self, Stored},
    extract::{PathOf, QueryOf},
    problem::{Kind, Problem},
    view::{PageQuery, PageView, UploadView},
};
use crate::{
    model::{Id, Millis, UploadPhase},
    service::{UploadFilter, upload::UploadError},
};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one, delete))
        .routes(routes!(download))
}

/// Which uploads are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UploadQuery {
    /// Entries at most, 1 to 500; default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only what this device sent, by its `device_id`.
    #[param(value_type = Option<String>)]
    device: Option<DeviceId>,
    /// Only what devices of this product sent.
    #[param(value_type = Option<String>)]
    product: Option<ProductId>,
    /// Only those of this name.
    name: Option<String>,
    /// Only those in this state: `receiving` or `stored`.
    #[param(schema_with = super::schema::upload_phase)]
    state: Option<String>,
    /// Only those that were announced at this time or later.
    #[param(schema_with = super::schema::time)]
    since: Option<Millis>,
    /// Only those that were announced before this time.
    #[param(schema_with = super::schema::time)]
    until: Option<Millis>,
}

/// Lists uploads, newest first.
#[utoipa::path(get, path = "/uploads", tag = "uploads", params(UploadQuery),
    responses((status = 200, body = PageView<UploadView>)))]
async fn list(
    _viewer: Viewer,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<UploadQuery>,
) -> Result<Json<PageView<UploadView>>, Problem> {
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .page()?;
    let phase = query.state.map(|text| {
        text.parse::<UploadPhase>().map_err(|_| {
            let detail = "state must be receiving or stored";
            Problem::new(Kind::InvalidQuery, detail).with_field("state")
        })
    });
    let filter = UploadFilter {
        device: query.device,
        product: query.product,
        name: query.name,
        phase: phase.transpose()?,
        since: query.since,
        until: query.until,
    };
    Ok(Json(PageView::of(
        state.uploads.uploads(&filter, &page).await?,
    )))
}

/// Shows an upload.
#[utoipa::path(get, path = "/uploads/{upload}", tag = "uploads",
    params(("upload" = String, Path, description = "The upload's id")),
    responses((status = 200, body = UploadView)))]
async fn one(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<UploadView>, Problem> {
    Ok(Json(state.uploads.upload(id).await?.into()))
}

/// Deletes an upload and its bytes; one in progress ends, and its device is told.
#[utoipa::path(delete, path = "/uploads/{upload}", tag = "uploads",
    params(("upload" = String, Path, description = "The upload's id")),
    responses((status = 204)))]
async fn delete(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<StatusCode, Problem> {
    state.uploads.delete(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Downloads a stored upload, or a range of it.
#[utoipa::path(get, path = "/uploads/{upload}/content", tag = "uploads",
    params(("upload" = String, Path, description = "The upload's id"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-Range" = Option<String>, Header, description = "The entity tag that the range is of")),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>)))]
async fn download(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let upload = state.uploads.upload(id).await?.upload;
    let (Some(blob), Some(sha256), Some(md5)) = (upload.blob, upload.sha256, upload.md5) else {
        let detail = "the upload is not whole yet";
        return Err(Problem::new(Kind::WrongState, detail));
    };
    let stored = Stored {
        name: &upload.name,
        size: upload.size,
        sha256,
        md5,
    };
    content::respond(&stored, &headers, move |start, end| {
        let uploads = state.uploads.clone();
        async move { uploads.read(&blob, start..end).await }
    })
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::NotFound => Self::not_found("upload"),
            UploadError::Invalid(error) => error.into(),
            UploadError::Store(_) | UploadError::NotRecorded => Self::internal(&error),
        }
    }
}
