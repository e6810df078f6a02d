//! `/batches`: many devices registered from one file, and what came of each row.

mod one;

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

use super::{
    Console,
    call::Routes,
    fault::Fault,
    form::{Errors, Upload, sentence},
    layout::{Layout, Place, render_with, see},
    paging::{ListQuery, Rows},
    session::{Operator, Visit},
    show,
    text::{TEXTS, Texts, fill},
};
use crate::{
    edge::http::{
        batches::csv_headers,
        problem::Kind,
        upload::{self, Announced},
    },
    model::DeviceBatch,
    service::registration::{FileError, RegistrationError, TEMPLATE},
};

/// The routes of this file and of the one below.
pub(super) fn routes() -> Routes {
    let streamed = Routes::new()
        .get("/batches", list)
        .post("/batches", add)
        .streamed();
    Routes::new()
        .merge(streamed)
        .get("/batches/template.csv", template)
        .get("/batches/{id}", one::page)
        .get("/batches/{id}/result.csv", one::result)
        .post("/batches/{id}/confirm", one::confirm)
        .post("/batches/{id}/delete", one::delete)
}

#[derive(Template)]
#[template(path = "console/batches/list.html")]
struct ListPage {
    t: &'static Texts,
    layout: Layout,
    file_hint: String,
    rows: Rows<Row>,
    errors: Errors,
}

/// A batch as it is listed.
struct Row {
    id: String,
    state: &'static str,
    total: String,
    done: String,
    created: String,
    unchanged: String,
    failed: String,
    sent: String,
    by: String,
}

impl From<&DeviceBatch> for Row {
    fn from(batch: &DeviceBatch) -> Self {
        let count = |number: u32| show::grouped(u64::from(number));
        Self {
            id: batch.id.to_string(),
            state: batch.state.as_str(),
            total: count(batch.total),
            done: count(batch.next_row),
            created: count(batch.counts.created),
            unchanged: count(batch.counts.unchanged),
            failed: count(batch.counts.failed),
            sent: show::time(batch.created_at),
            by: batch.created_by.clone(),
        }
    }
}

async fn list(
    State(console): State<Arc<Console>>,
    visit: Visit,
    query: ListQuery,
) -> Result<Response, Fault> {
    list_of(&console, &visit, &query, StatusCode::OK, Errors::default()).await
}

/// The list, with what is wrong with a file.
async fn list_of(
    console: &Console,
    visit: &Visit,
    query: &ListQuery,
    status: StatusCode,
    errors: Errors,
) -> Result<Response, Fault> {
    let t = &TEXTS.batches;
    let registration = &console.services.registration;
    let found = registration.batches(None, &query.page()).await?;
    let max = show::bytes(registration.max_batch_bytes());
    let page = ListPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Batches, t.title),
        file_hint: fill(t.file_hint, &[("max", &max)]),
        rows: query.rows(&found, &[]),
        errors,
    };
    Ok(render_with(status, &page))
}

async fn add(
    State(console): State<Arc<Console>>,
    Operator(visit): Operator,
    query: ListQuery,
    request: Request,
) -> Result<Response, Fault> {
    let registration = &console.services.registration;
    let max_bytes = registration.max_batch_bytes();
    let failed = async |status, message: String| {
        let errors = Errors::one("file", message);
        list_of(&console, &visit, &query, status, errors).await
    };
    let form = match Upload::read(request, &visit, &["size"], max_bytes).await? {
        Ok(form) => form,
        Err(problem) => {
            let t = &TEXTS.batches;
            let message = match problem.kind() {
                Kind::TooLarge => t.too_large.to_owned(),
                Kind::MalformedMultipart => t.file_missing.to_owned(),
                _ => sentence(problem.detail()),
            };
            return failed(problem.status(), message).await;
        }
    };
    let (stream, _slot) = upload::of_part(form.file, Announced::default());
    match registration.upload(&visit.session.actor, stream).await {
        Ok((batch, is_new)) => {
            let note = if is_new { "batch-taken" } else { "batch-known" };
            Ok(see(&format!("/batches/{}", batch.id), note))
        }
        Err(error) => {
            let (status, message) = refused(error)?;
            failed(status, message).await
        }
    }
}

/// What is wrong with a file; a fault where that is not the operator's to mend.
fn refused(error: RegistrationError) -> Result<(StatusCode, String), Fault> {
    let t = &TEXTS.batches;
    match error {
        RegistrationError::File(FileError::Unreadable(_)) => Err(error.into()),
        RegistrationError::File(FileError::NoHeading) => {
            Ok((StatusCode::UNPROCESSABLE_ENTITY, t.file_missing.to_owned()))
        }
        RegistrationError::File(error) => Ok((
            StatusCode::UNPROCESSABLE_ENTITY,
            sentence(&error.to_string()),
        )),
        RegistrationError::TooLarge { .. } => {
            Ok((StatusCode::PAYLOAD_TOO_LARGE, t.too_large.to_owned()))
        }
        RegistrationError::Body(_) => Ok((StatusCode::BAD_REQUEST, t.file_cut.to_owned())),
        error => Err(error.into()),
    }
}

async fn template(_visit: Visit) -> Result<Response, Fault> {
    Ok((csv_headers("devices.csv"), TEMPLATE).into_response())
}
