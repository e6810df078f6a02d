//! `/device-batches`: many devices registered from one CSV.

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::from_fn,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream::{Stream, unfold};
use serde::Deserialize;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

use super::{
    ApiState,
    auth::{Operator, Viewer},
    extract::{PathOf, QueryOf, media_type},
    form::SourceError,
    linger::linger,
    openapi::BASE,
    problem::{Kind, Problem},
    view::{BatchRowView, BatchView, PageQuery, PageView},
};
use crate::{
    model::{Actor, BatchState, Id, Page, Role, RowState},
    service::registration::{RegistrationError, RegistrationService, RowResult, TEMPLATE},
};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create).layer(from_fn(linger)))
        .routes(routes!(template))
        .routes(routes!(one, delete))
        .routes(routes!(rows))
        .routes(routes!(result))
        .routes(routes!(confirm))
}

/// Which batches are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct BatchQuery {
    /// Entries at most, 1 to 500; default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only those in this state.
    #[param(schema_with = super::schema::batch_state)]
    state: Option<BatchState>,
}

/// Lists batches, newest first.
#[utoipa::path(get, path = "/device-batches", tag = "device_batches", params(BatchQuery),
    responses((status = 200, body = PageView<BatchView>)))]
async fn list(
    _viewer: Viewer,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<BatchQuery>,
) -> Result<Json<PageView<BatchView>>, Problem> {
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .page()?;
    let batches = state.registration.batches(query.state, &page).await?;
    Ok(Json(PageView::of(batches)))
}

/// Takes a CSV of devices and registers them in the background. The same file sent again changes nothing.
#[utoipa::path(post, path = "/device-batches", tag = "device_batches",
    request_body(content = String, content_type = "text/csv"),
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 ASCII characters")),
    responses((status = 201, body = BatchView),
        (status = 200, body = BatchView, description = "The file was sent before: this is its batch.")))]
async fn create(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    request: Request,
) -> Result<Response, Problem> {
    if media_type(request.headers()).as_deref() != Some("text/csv") {
        return Err(Problem::new(
            Kind::UnsupportedMediaType,
            "send the body as text/csv",
        ));
    }
    let limit = state.registration.max_batch_bytes();
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced > limit) {
        return Err(super::form::too_large(limit));
    }
    let stream = futures_util::StreamExt::map(request.into_body().into_data_stream(), |read| {
        read.map_err(SourceError::from)
    });
    let (batch, is_new) = state.registration.upload(&actor, stream).await?;
    let location = format!("{BASE}/device-batches/{}", batch.id);
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let headers = [(header::LOCATION, location)];
    Ok((status, headers, Json(BatchView::from(batch))).into_response())
}

/// A CSV to be filled in.
#[utoipa::path(get, path = "/device-batches/template.csv", tag = "device_batches",
    responses((status = 200, content_type = "text/csv", body = String)))]
async fn template(_viewer: Viewer) -> impl IntoResponse {
    (csv_headers("devices.csv"), TEMPLATE)
}

/// Shows how far a batch is.
#[utoipa::path(get, path = "/device-batches/{batch}", tag = "device_batches",
    params(("batch" = String, Path, description = "The batch's id")),
    responses((status = 200, body = BatchView)))]
async fn one(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<BatchView>, Problem> {
    Ok(Json(state.registration.batch(id).await?.into()))
}

/// Deletes a batch that is not running, with its result. Its devices stay.
#[utoipa::path(delete, path = "/device-batches/{batch}", tag = "device_batches",
    params(("batch" = String, Path, description = "The batch's id")),
    responses((status = 204)))]
async fn delete(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<StatusCode, Problem> {
    state.registration.delete(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which rows are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RowQuery {
    /// Entries at most, 1 to 500; default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only those that ended so.
    #[param(schema_with = super::schema::row_state)]
    state: Option<RowState>,
}

/// Lists the rows of a batch that are done, in the file's order; viewers see no secret.
#[utoipa::path(get, path = "/device-batches/{batch}/rows", tag = "device_batches",
    params(("batch" = String, Path, description = "The batch's id"), RowQuery),
    responses((status = 200, body = PageView<BatchRowView>)))]
async fn rows(
    Viewer(actor): Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
    QueryOf(query): QueryOf<RowQuery>,
) -> Result<Json<PageView<BatchRowView>>, Problem> {
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .page()?;
    let with_secrets = actor.role >= Role::Operator;
    let rows = state
        .registration
        .rows(id, query.state, &page, with_secrets)
        .await?;
    Ok(Json(PageView::of(rows)))
}

/// Downloads what came of each row, with the secrets that were made until they are confirmed.
#[utoipa::path(get, path = "/device-batches/{batch}/result.csv", tag = "device_batches",
    params(("batch" = String, Path, description = "The batch's id")),
    responses((status = 200, content_type = "text/csv", body = String)))]
async fn result(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Response, Problem> {
    Ok(download(&state.registration, &actor, id).await?)
}

/// The result as a file, once it is noted who takes it.
///
/// # Errors
/// [`RegistrationError::NotFound`].
pub(in crate::edge) async fn download(
    registration: &RegistrationService,
    actor: &Actor,
    id: Id,
) -> Result<Response, RegistrationError> {
    registration.note_download(actor, id).await?;
    let body = Body::from_stream(pages(registration.clone(), id));
    Ok((csv_headers(&format!("devices-{id}-result.csv")), body).into_response())
}

/// Says that the secrets have arrived: the result shows them no more.
#[utoipa::path(post, path = "/device-batches/{batch}/confirm", tag = "device_batches",
    params(("batch" = String, Path, description = "The batch's id")),
    responses((status = 200, body = BatchView)))]
async fn confirm(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<BatchView>, Problem> {
    Ok(Json(state.registration.confirm(&actor, id).await?.into()))
}

/// What goes before a CSV that is to be kept as a file.
pub(in crate::edge) fn csv_headers(file: &str) -> [(header::HeaderName, String); 3] {
    [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{file}\""),
        ),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ]
}

/// A result could not be read to its end; why is in the log.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the result ended early")]
struct Cut;

/// The result as CSV, a page of rows at a time; an error cuts the body, which the client sees.
fn pages(
    registration: RegistrationService,
    id: Id,
) -> impl Stream<Item = Result<Bytes, Cut>> + Send {
    enum Next {
        Heading,
        Page(Option<String>),
        End,
    }
    unfold(Next::Heading, move |next| {
        let registration = registration.clone();
        async move {
            let cursor = match next {
                Next::Heading => {
                    return Some((Ok(Bytes::from_static(HEADING)), Next::Page(None)));
                }
                Next::Page(cursor) => cursor,
                Next::End => return None,
            };
            let page = async {
                let page =
                    Page::new(Some(RESULT_ROWS), cursor).map_err(super::view::invalid_page)?;
                Ok::<_, Problem>(registration.rows(id, None, &page, true).await?)
            };
            match page.await {
                Ok(page) => {
                    let next = page.next.map_or(Next::End, |next| Next::Page(Some(next)));
                    let mut text = Vec::new();
                    page.items.iter().for_each(|row| write_row(&mut text, row));
                    Some((Ok(text.into()), next))
                }
                Err(problem) => {
                    tracing::warn!(batch = %id, kind = ?problem.kind(), "a result was cut");
                    Some((Err(Cut), Next::End))
                }
            }
        }
    })
}

fn write_row(text: &mut Vec<u8>, result: &RowResult) {
    let row = &result.row;
    let error = row.error.as_ref();
    let (index, line) = (row.index.to_string(), row.line.to_string());
    let cells = [
        index.as_str(),
        &line,
        &row.product_id,
        &row.node_id,
        row.state.as_str(),
        row.device_id.as_ref().map_or("", |id| id.as_str()),
        result.secret.as_ref().map_or("", |secret| secret.reveal()),
        error.map_or("", |error| error.code.as_str()),
        error.map_or("", |error| error.message.as_str()),
    ];
    for (at, cell) in cells.into_iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        write_cell(text, cell);
    }
    text.extend_from_slice(b"\r\n");
}

/// Writes a cell that no spreadsheet takes for a formula.
fn write_cell(text: &mut Vec<u8>, cell: &str) {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let is_quoted = cell.contains(['"', ',', ';', '\n', '\r']);
    if is_quoted {
        text.push(b'"');
    }
    if is_formula {
        text.push(b'\'');
    }
    for &byte in cell.as_bytes() {
        if byte == b'"' {
            text.push(b'"');
        }
        text.push(byte);
    }
    if is_quoted {
        text.push(b'"');
    }
}

const HEADING: &[u8] = b"index,line,product_id,node_id,state,device_id,secret,code,message\r\n";
/// Rows that are in memory at a time.
const RESULT_ROWS: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for (cell, written) in [
            ("a", "a"),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@x", "'@x"),
            ("a,\"b\"", "\"a,\"\"b\"\"\""),
            ("=a\nb", "\"'=a\nb\""),
            ("", ""),
        ] {
            let mut text = Vec::new();
            write_cell(&mut text, cell);
            assert_eq!(String::from_utf8(text).expect("UTF-8"), written);
        }
    }
}
