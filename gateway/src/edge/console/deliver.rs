//! `/deliver`: a task is filled in, shown in plain words, and only then made.
//!
//! The preview keeps nothing on this side: its page carries what was filled in, the devices of a CSV included, and the
//! button that starts the task sends it back.

mod draft;

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};

use self::draft::{Draft, FIELDS, Kind, WrongRow};
use super::{
    Console,
    call::Routes,
    fault::Fault,
    form::{Errors, Posted, Upload},
    layout::{Layout, Place, render, render_with, see},
    paging::ListQuery,
    session::{Operator, Visit},
    show,
    tasks::in_plain_words,
    text::{TEXTS, Texts, fill},
};
use crate::{
    edge::http::{device_csv, form::whole, problem::Problem},
    model::{Id, Page, Resource},
    service::{
        DeviceFilter, ResourceFilter,
        delivery::{DeliveryError, Preview, Targets},
        resource::ResourceError,
    },
};

/// Rows that cannot be used and are shown.
const SHOWN_ROWS: usize = 100;
/// Devices that a search shows.
const SUGGESTIONS: u32 = 10;
/// Bytes of a form besides its file or its devices.
const MAX_FIELDS_BYTES: usize = 64 * 1024;

/// The routes of this file.
pub(super) fn routes() -> Routes {
    // Each has a limit of its own.
    let large = Routes::new()
        .post("/deliver/preview", preview)
        .get("/deliver", page)
        .post("/deliver", start)
        .post("/deliver/change", change)
        .unlimited();
    Routes::new()
        .merge(large)
        .get("/deliver/devices", suggest)
        .get("/deliver/template.csv", template)
}

#[derive(Template)]
#[template(path = "console/deliver/form.html")]
struct FormPage {
    t: &'static Texts,
    layout: Layout,
    draft: Draft,
    errors: Errors,
    resources: Vec<Choice>,
    max_rows: String,
    rows: Vec<WrongRow>,
    row_count: usize,
}

/// A resource to choose.
struct Choice {
    id: String,
    label: String,
}

impl From<&Resource> for Choice {
    fn from(resource: &Resource) -> Self {
        Self {
            id: resource.id.to_string(),
            label: format!(
                "{} · {} · v{} · {}",
                resource.name,
                resource.product_id,
                resource.version,
                show::bytes(resource.size)
            ),
        }
    }
}

impl FormPage {
    fn file_hint(&self) -> String {
        fill(self.t.deliver.file_hint, &[("max", &self.max_rows)])
    }

    fn rows_wrong(&self) -> String {
        fill(self.t.deliver.rows_wrong, &[("count", &self.row_count)])
    }

    fn rows_listed(&self) -> Option<String> {
        let shown = self.rows.len();
        (shown < self.row_count).then(|| fill(self.t.deliver.rows_listed, &[("count", &shown)]))
    }
}

#[derive(Template)]
#[template(path = "console/deliver/preview.html")]
struct PreviewPage {
    t: &'static Texts,
    layout: Layout,
    sentence: String,
    plan: Vec<String>,
    fields: Vec<(&'static str, String)>,
    may_start: bool,
}

async fn page(
    State(console): State<Arc<Console>>,
    visit: Operator,
    query: ListQuery,
) -> Result<Response, Fault> {
    let mut draft = Draft::default();
    draft.set("resource", query.value("resource"));
    draft.set("device", query.value("device"));
    form_page(&console, &visit, StatusCode::OK, draft, Refused::default()).await
}

/// What is wrong with a form: fields, and rows of its CSV.
#[derive(Debug, Default)]
struct Refused {
    errors: Errors,
    rows: Vec<WrongRow>,
    row_count: usize,
}

impl From<Errors> for Refused {
    fn from(errors: Errors) -> Self {
        Self {
            errors,
            ..Self::default()
        }
    }
}

async fn form_page(
    console: &Console,
    Operator(visit): &Operator,
    status: StatusCode,
    draft: Draft,
    refused: Refused,
) -> Result<Response, Fault> {
    let page = Page {
        limit: Page::MAX_LIMIT,
        cursor: None,
    };
    let resources = &console.services.resources;
    let found = resources
        .resources(&ResourceFilter::default(), &page)
        .await?;
    let mut choices: Vec<Choice> = found.items.iter().map(Choice::from).collect();
    // One that is not among the newest was chosen on its own page.
    if let Ok(id) = draft.of("resource").parse::<Id>()
        && !choices
            .iter()
            .any(|choice| choice.id == draft.of("resource"))
    {
        match resources.resource(id).await {
            Ok(resource) => choices.push(Choice::from(&resource)),
            Err(ResourceError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let page = FormPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Deliver, TEXTS.deliver.title),
        draft,
        errors: refused.errors,
        resources: choices,
        max_rows: show::grouped(u64::from(console.services.limits.max_task_rows)),
        rows: refused.rows,
        row_count: refused.row_count,
    };
    Ok(render_with(status, &page))
}

/// `POST /deliver/preview`: everything is checked, nothing is made.
async fn preview(
    State(console): State<Arc<Console>>,
    visit: Operator,
    request: Request,
) -> Result<Response, Fault> {
    let max_bytes = console.services.limits.max_csv_bytes;
    let max_file = u64::try_from(max_bytes).unwrap_or(u64::MAX);
    let mut form = match Upload::read(request, &visit.0, FIELDS, max_file).await? {
        Ok(form) => form,
        Err(problem) => {
            let refused = refused_file(&problem).into();
            return form_page(
                &console,
                &visit,
                problem.status(),
                Draft::default(),
                refused,
            )
            .await;
        }
    };
    let mut draft = Draft::default();
    for name in FIELDS {
        draft.set(name, form.fields.optional(name).unwrap_or_default().trim());
    }
    if draft.kind() == Kind::Csv {
        let rows = match whole(form.file, max_bytes).await {
            Ok(csv) => device_csv::read(&csv, console.services.limits.max_task_rows),
            Err(problem) => Err(problem),
        };
        match rows {
            Ok(rows) => {
                let names: Vec<String> = rows.into_iter().map(|row| row.name).collect();
                draft.set("names", &names.join("\n"));
            }
            Err(problem) => return refuse_csv(&console, &visit, draft, &problem).await,
        }
    }
    let new = match draft.task() {
        Ok(new) => new,
        Err(errors) => return refuse(&console, &visit, draft, errors.into()).await,
    };
    match console.services.delivery.preview_task(&new).await {
        Ok(found) => {
            let filter = match &new.targets {
                Targets::Filter(filter) => Some(filter),
                _ => None,
            };
            let page = PreviewPage {
                t: &TEXTS,
                layout: Layout::new(&visit.0, Place::Deliver, TEXTS.deliver.preview_title),
                sentence: sentence(&found),
                plan: in_plain_words(&new.policy, filter),
                fields: draft.filled(),
                may_start: found.devices != Some(0),
            };
            Ok(render(&page))
        }
        Err(error) => refuse_task(&console, &visit, draft, error).await,
    }
}

/// What goes where, as a sentence.
fn sentence(found: &Preview) -> String {
    let t = &TEXTS.deliver;
    let resource = &found.resource;
    let product = &resource.product_id;
    let devices = match found.devices {
        Some(0) => return t.no_device_fits.to_owned(),
        Some(1) => fill(t.one_device, &[("product", product)]),
        Some(count) => {
            let count = show::grouped(count as u64);
            fill(t.many_devices, &[("count", &count), ("product", product)])
        }
        None => {
            let limit = show::grouped(found.limit as u64);
            fill(t.at_most, &[("count", &limit), ("product", product)])
        }
    };
    fill(
        t.sentence,
        &[
            ("resource", &resource.name),
            ("version", &resource.version),
            ("size", &show::bytes(resource.size)),
            ("devices", &devices),
        ],
    )
}

/// `POST /deliver`: makes the task that the preview showed.
async fn start(
    State(console): State<Arc<Console>>,
    visit: Operator,
    request: Request,
) -> Result<Response, Fault> {
    let draft = sent_back(&console, &visit.0, request).await?;
    let new = match draft.task() {
        Ok(new) => new,
        Err(errors) => return refuse(&console, &visit, draft, errors.into()).await,
    };
    let services = &console.services;
    let (delivery, actor) = (services.delivery.clone(), visit.0.session.actor.clone());
    let creating = async move { delivery.create_task(&actor, new).await };
    let made = services.shutdown.spawn(creating).await;
    match made.map_err(|error| Fault::internal(&error))? {
        Ok(view) => Ok(see(&format!("/tasks/{}", view.task.id), "started")),
        Err(error) => refuse_task(&console, &visit, draft, error).await,
    }
}

/// `POST /deliver/change`: the form again, as it was filled in; a CSV has to be chosen anew.
async fn change(
    State(console): State<Arc<Console>>,
    visit: Operator,
    request: Request,
) -> Result<Response, Fault> {
    let draft = sent_back(&console, &visit.0, request).await?;
    form_page(&console, &visit, StatusCode::OK, draft, Refused::default()).await
}

/// What the preview carries.
async fn sent_back(console: &Console, visit: &Visit, request: Request) -> Result<Draft, Fault> {
    // A line break takes six bytes in a form; names that there are have no other letter that grows.
    let max_bytes = console.services.limits.max_csv_bytes.saturating_mul(4) + MAX_FIELDS_BYTES;
    let form = Posted::of(request, visit, max_bytes).await?;
    let mut draft = Draft::default();
    for name in FIELDS.iter().chain(&["names"]) {
        draft.set(name, form.text(name));
    }
    Ok(draft)
}

async fn refuse(
    console: &Console,
    visit: &Operator,
    draft: Draft,
    refused: Refused,
) -> Result<Response, Fault> {
    form_page(
        console,
        visit,
        StatusCode::UNPROCESSABLE_ENTITY,
        draft,
        refused,
    )
    .await
}

/// The form with what the service found wrong.
async fn refuse_task(
    console: &Console,
    visit: &Operator,
    draft: Draft,
    error: DeliveryError,
) -> Result<Response, Fault> {
    let t = &TEXTS.deliver;
    let refused = match error {
        DeliveryError::Rows(rows) if draft.kind() == Kind::One => {
            let named = rows.first().map_or("", |row| row.device.as_str());
            let similar = similar(console, &draft, named).await?;
            let message = if similar.is_empty() {
                t.device_unknown.to_owned()
            } else {
                let meant = fill(t.did_you_mean, &[("devices", &similar.join(", "))]);
                format!("{} {meant}", t.device_unknown)
            };
            Errors::one("device", message).into()
        }
        DeliveryError::Rows(rows) => Refused {
            errors: Errors::default(),
            row_count: rows.len(),
            rows: rows.iter().take(SHOWN_ROWS).map(WrongRow::from).collect(),
        },
        DeliveryError::Invalid { field, reason } => Errors::one(field, reason).into(),
        DeliveryError::NotFound(_) => Errors::one("resource", t.resource_missing).into(),
        DeliveryError::Conflict(why) => Errors::one("", why).into(),
        error => return Err(error.into()),
    };
    refuse(console, visit, draft, refused).await
}

/// The form with what is wrong with the file itself.
async fn refuse_csv(
    console: &Console,
    visit: &Operator,
    draft: Draft,
    problem: &Problem,
) -> Result<Response, Fault> {
    let (rows, row_count) = problem.wrong_rows();
    let refused = Refused {
        errors: if rows.is_empty() {
            refused_file(problem)
        } else {
            Errors::default()
        },
        rows: rows.iter().take(SHOWN_ROWS).map(WrongRow::from).collect(),
        row_count,
    };
    refuse(console, visit, draft, refused).await
}

fn refused_file(problem: &Problem) -> Errors {
    let field = if problem.wrong_field() == Some("file") {
        "file"
    } else {
        ""
    };
    Errors::one(field, problem.detail())
}

/// Node ids of the resource's product that a text finds.
async fn similar(console: &Console, draft: &Draft, text: &str) -> Result<Vec<String>, Fault> {
    let Ok(id) = draft.of("resource").parse::<Id>() else {
        return Ok(Vec::new());
    };
    let product = match console.services.resources.resource(id).await {
        Ok(resource) => resource.product_id,
        Err(ResourceError::NotFound { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let filter = DeviceFilter {
        product: Some(product),
        ..super::devices::found_by(text)
    };
    let page = Page {
        limit: SUGGESTIONS,
        cursor: None,
    };
    let found = console.services.registry.devices(&filter, &page).await?;
    let ids = found
        .items
        .into_iter()
        .map(|device| device.node_id.to_string());
    Ok(ids.collect())
}

/// `GET /deliver/devices`: what the script offers while an operator types, one a line.
async fn suggest(
    State(console): State<Arc<Console>>,
    _visit: Visit,
    query: ListQuery,
) -> Result<Response, Fault> {
    let mut draft = Draft::default();
    draft.set("resource", query.value("resource"));
    let text = query.value("text");
    let found = if text.is_empty() {
        Vec::new()
    } else {
        similar(&console, &draft, text).await?
    };
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((headers, found.join("\n")).into_response())
}

/// `GET /deliver/template.csv`
async fn template(_visit: Visit) -> Result<Response, Fault> {
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"devices.csv\"",
        ),
    ];
    Ok((headers, device_csv::TEMPLATE).into_response())
}
