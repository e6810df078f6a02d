//! `/resources`: platform resources, what became of them, and their bytes.

mod change;

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::{
    Console,
    call::Routes,
    fault::Fault,
    form::{Errors, PathOf},
    layout::{Layout, Place, render, render_with},
    paging::{ListQuery, Rows},
    session::Visit,
    show,
    text::{TEXTS, Texts, fill},
};
use crate::{
    edge::http::content::{self, Stored},
    model::{DeliveryState, Id, Page, Resource},
    service::{ResourceFilter, TaskFilter},
};

/// The filters of the list.
const FILTERS: &[&str] = &["text", "product"];

/// The routes of this file and of those below.
pub(super) fn routes() -> Routes {
    let streamed = Routes::new()
        .get("/resources", list)
        .post("/resources", change::add)
        .get("/resources/{id}/content", download)
        .post("/resources/{id}/content", change::replace)
        .streamed();
    Routes::new()
        .merge(streamed)
        .get("/resources/new", change::add_page)
        .get("/resources/{id}", one)
        .get("/resources/{id}/edit", change::edit_page)
        .post("/resources/{id}/edit", change::edit)
        .get("/resources/{id}/delete", change::delete_page)
        .post("/resources/{id}/delete", change::delete)
}

#[derive(Template)]
#[template(path = "console/resources/list.html")]
struct ListPage {
    t: &'static Texts,
    layout: Layout,
    text: String,
    product: String,
    products: Vec<String>,
    rows: Rows<Row>,
}

#[derive(Template)]
#[template(path = "console/resources/details.html")]
struct DetailsPage {
    t: &'static Texts,
    layout: Layout,
    row: Row,
    size_bytes: String,
    sha256: String,
    md5: String,
    parts: usize,
    created: String,
    counts: Vec<(&'static str, String)>,
    tasks: Vec<TaskRow>,
    errors: Errors,
}

/// A resource as it is listed.
struct Row {
    id: String,
    name: String,
    product: String,
    version: u32,
    size: String,
    changed: String,
    description: String,
}

/// A task that delivers the resource.
struct TaskRow {
    id: String,
    name: String,
    version: u32,
    run: &'static str,
    delivered: u64,
    failed: u64,
    total: u32,
    created: String,
}

impl From<&Resource> for Row {
    fn from(resource: &Resource) -> Self {
        Self {
            id: resource.id.to_string(),
            name: resource.name.to_string(),
            product: resource.product_id.to_string(),
            version: resource.version,
            size: show::bytes(resource.size),
            changed: show::time(resource.updated_at),
            description: resource.description.clone(),
        }
    }
}

impl DetailsPage {
    fn exact(&self) -> String {
        fill(self.t.resources.bytes, &[("size", &self.size_bytes)])
    }

    fn parts_of(&self) -> String {
        fill(self.t.resources.parts_of, &[("count", &self.parts)])
    }
}

async fn list(
    State(console): State<Arc<Console>>,
    visit: Visit,
    query: ListQuery,
) -> Result<Response, Fault> {
    let (text, product) = (query.value("text"), query.value("product"));
    let filter = ResourceFilter {
        product: product.parse().ok(),
        text: (!text.is_empty()).then(|| text.to_owned()),
    };
    let found = console
        .services
        .resources
        .resources(&filter, &query.page())
        .await?;
    let page = ListPage {
        t: &TEXTS,
        layout: Layout::new(&visit, Place::Resources, TEXTS.resources.title),
        text: text.to_owned(),
        product: product.to_owned(),
        products: products(&console).await?,
        rows: query.rows(&found, FILTERS),
    };
    Ok(render(&page))
}

async fn one(
    State(console): State<Arc<Console>>,
    visit: Visit,
    PathOf(id): PathOf<Id>,
) -> Result<Response, Fault> {
    details(&console, &visit, id, StatusCode::OK, Errors::default()).await
}

/// The page of a resource, with what is wrong with new bytes for it.
async fn details(
    console: &Console,
    visit: &Visit,
    id: Id,
    status: StatusCode,
    errors: Errors,
) -> Result<Response, Fault> {
    let resources = &console.services.resources;
    let resource = resources.resource(id).await?;
    let version = resources.version(id, resource.version).await?;
    let counts = resources.statistics(id).await?;
    let filter = TaskFilter {
        resource: Some(id),
        ..TaskFilter::default()
    };
    let tasks = console
        .services
        .delivery
        .tasks(&filter, &Page::default())
        .await?;
    let page = DetailsPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Resources, resource.name.as_str()),
        row: Row::from(&resource),
        size_bytes: show::grouped(version.size),
        sha256: hex::encode(version.sha256),
        md5: hex::encode(version.md5),
        parts: version.part_digests.len() / 32,
        created: show::time(resource.created_at),
        counts: DeliveryState::ALL
            .iter()
            .map(|state| (state.as_str(), show::grouped(counts.of(*state))))
            .collect(),
        tasks: tasks
            .items
            .into_iter()
            .map(|view| TaskRow {
                id: view.task.id.to_string(),
                name: view.task.name,
                version: view.task.resource_version,
                run: view.task.run.as_str(),
                delivered: view.counts.delivered,
                failed: view.counts.failed,
                total: view.task.total,
                created: show::time(view.task.created_at),
            })
            .collect(),
        errors,
    };
    Ok(render_with(status, &page))
}

async fn download(
    State(console): State<Arc<Console>>,
    _visit: Visit,
    PathOf(id): PathOf<Id>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let resources = console.services.resources.clone();
    let resource = resources.resource(id).await?;
    let version = resources.version(id, resource.version).await?;
    let stored = Stored {
        name: resource.name.as_str(),
        size: version.size,
        sha256: version.sha256,
        md5: version.md5,
    };
    let blob = version.blob;
    let answer = content::respond(&stored, &headers, move |start, end| {
        let resources = resources.clone();
        async move { resources.read(&blob, start..end).await }
    });
    Ok(answer?)
}

/// The ids of products, as many as fit a choice.
pub(super) async fn products(console: &Console) -> Result<Vec<String>, Fault> {
    let page = Page {
        limit: Page::MAX_LIMIT,
        cursor: None,
    };
    let found = console.services.registry.products(&page).await?;
    let ids = found
        .items
        .into_iter()
        .map(|product| product.id.to_string());
    Ok(ids.collect())
}
