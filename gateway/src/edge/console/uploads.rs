//! `/uploads`: device resources, which devices have sent and are sending.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, http::HeaderMap, response::Response};

use super::{
    Console,
    call::Routes,
    fault::Fault,
    form::{PathOf, Posted},
    layout::{Layout, Place, render, see},
    paging::{ListQuery, Rows},
    session::{Operator, Visit},
    show,
    text::{TEXTS, Texts, fill},
};
use crate::{
    edge::http::content::{self, Stored},
    model::{Id, UploadPhase},
    service::{
        UploadFilter,
        upload::{UploadError, UploadStanding},
    },
};

/// The filters of the list.
const FILTERS: &[&str] = &["device", "product", "name", "state"];

/// The routes of this file.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/uploads", list)
        .get("/uploads/{id}/content", download)
        .get("/uploads/{id}/delete", delete_page)
        .post("/uploads/{id}/delete", delete)
}

#[derive(Template)]
#[template(path = "console/uploads/list.html")]
struct ListPage {
    t: &'static Texts,
    layout: Layout,
    device: String,
    product: String,
    products: Vec<String>,
    name: String,
    state: String,
    rows: Rows<Row>,
}

#[derive(Template)]
#[template(path = "console/uploads/delete.html")]
struct DeletePage {
    t: &'static Texts,
    layout: Layout,
    row: Row,
}

/// A file of a device.
struct Row {
    id: String,
    device: String,
    name: String,
    state: &'static str,
    is_stored: bool,
    percent: u64,
    version: String,
    size: String,
    sent: String,
    sha256: Option<String>,
    md5: Option<String>,
}

impl From<&UploadStanding> for Row {
    fn from(standing: &UploadStanding) -> Self {
        let upload = &standing.upload;
        let phase = upload.phase();
        let is_stored = phase == UploadPhase::Stored;
        Self {
            id: upload.id.to_string(),
            device: upload.device_id.to_string(),
            name: upload.name.clone(),
            state: phase.as_str(),
            is_stored,
            percent: standing.received.saturating_mul(100) / upload.size.max(1),
            version: if is_stored {
                upload.version.to_string()
            } else {
                String::new()
            },
            size: show::bytes(upload.size),
            sent: show::time(upload.created_at),
            sha256: upload.sha256.map(hex::encode),
            md5: upload.md5.map(hex::encode),
        }
    }
}

impl ListPage {
    fn received(&self, row: &Row) -> String {
        fill(self.t.uploads.received, &[("percent", &row.percent)])
    }
}

impl DeletePage {
    fn question(&self) -> String {
        let t = &self.t.uploads;
        let text = if self.row.is_stored {
            t.delete_question
        } else {
            t.delete_receiving
        };
        fill(
            text,
            &[("name", &self.row.name), ("device", &self.row.device)],
        )
    }
}

async fn list(
    State(console): State<Arc<Console>>,
    visit: Visit,
    query: ListQuery,
) -> Result<Response, Fault> {
    let name = query.value("name");
    let filter = UploadFilter {
        device: query.value("device").parse().ok(),
        product: query.value("product").parse().ok(),
        name: (!name.is_empty()).then(|| name.to_owned()),
        phase: query.value("state").parse().ok(),
        since: None,
        until: None,
    };
    let found = console
        .services
        .uploads
        .uploads(&filter, &query.page())
        .await?;
    let page = ListPage {
        t: &TEXTS,
        layout: Layout::new(&visit, Place::Uploads, TEXTS.uploads.title),
        device: query.value("device").to_owned(),
        product: query.value("product").to_owned(),
        products: super::resources::products(&console).await?,
        name: name.to_owned(),
        state: query.value("state").to_owned(),
        rows: query.rows(&found, FILTERS),
    };
    Ok(render(&page))
}

async fn download(
    State(console): State<Arc<Console>>,
    _visit: Visit,
    PathOf(id): PathOf<Id>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let uploads = console.services.uploads.clone();
    let upload = uploads.upload(id).await?.upload;
    let (Some(blob), Some(sha256), Some(md5)) = (upload.blob, upload.sha256, upload.md5) else {
        return Err(UploadError::NotFound.into());
    };
    let stored = Stored {
        name: &upload.name,
        size: upload.size,
        sha256,
        md5,
    };
    let answer = content::respond(&stored, &headers, move |start, end| {
        let uploads = uploads.clone();
        async move { uploads.read(&blob, start..end).await }
    });
    Ok(answer?)
}

async fn delete_page(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<Id>,
) -> Result<Response, Fault> {
    let standing = console.services.uploads.upload(id).await?;
    let page = DeletePage {
        t: &TEXTS,
        layout: Layout::new(&visit.0, Place::Uploads, TEXTS.uploads.delete_title),
        row: Row::from(&standing),
    };
    Ok(render(&page))
}

async fn delete(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<Id>,
    _form: Posted,
) -> Result<Response, Fault> {
    console
        .services
        .uploads
        .delete(&visit.0.session.actor, id)
        .await?;
    Ok(see("/uploads", "deleted"))
}
