//! `/applications`: programs that see and command devices.

mod bindings;
mod change;

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, http::StatusCode, response::Response};
use headgate_protocol::identity::AppId;

use self::bindings::Report;
use super::{
    Console,
    call::Routes,
    fault::Fault,
    form::{Choice, Errors, PathOf, choices},
    layout::{Layout, Place, render, render_with},
    paging::{ListQuery, Rows, Ways},
    session::Visit,
    show,
    text::{TEXTS, Texts, fill},
};
use crate::{
    model::{Application, CredentialSlot},
    service::AppFilter,
};

/// The filters of the list.
const FILTERS: &[&str] = &["text"];

/// The routes of this file and of those below.
pub(super) fn routes() -> Routes {
    let streamed = Routes::new()
        .post("/applications/{id}/import", bindings::import)
        .streamed();
    Routes::new()
        .merge(streamed)
        .get("/applications", list)
        .post("/applications", change::add)
        .get("/applications/new", change::add_page)
        .get("/applications/{id}", one)
        .get("/applications/{id}/edit", change::edit_page)
        .post("/applications/{id}/edit", change::edit)
        .post("/applications/{id}/enable", change::enable)
        .post("/applications/{id}/disable", change::disable)
        .post("/applications/{id}/secret", change::secret)
        .get("/applications/{id}/delete", change::delete_page)
        .post("/applications/{id}/delete", change::delete)
        .post("/applications/{id}/bind", bindings::bind)
        .post("/applications/{id}/unbind", bindings::unbind)
}

#[derive(Template)]
#[template(path = "console/applications/list.html")]
struct ListPage {
    t: &'static Texts,
    layout: Layout,
    text: String,
    rows: Rows<Row>,
}

#[derive(Template)]
#[template(path = "console/applications/details.html")]
struct DetailsPage {
    t: &'static Texts,
    layout: Layout,
    row: Row,
    by_mqtt: String,
    by_http: String,
    count: String,
    slots: Vec<Choice>,
    devices: Vec<DeviceRow>,
    ways: Ways,
    max_rows: String,
    report: Report,
    errors: Errors,
}

/// An application as it is listed.
struct Row {
    id: String,
    name: String,
    is_enabled: bool,
    state: &'static str,
    created: String,
    changed: String,
}

/// A device that is bound.
struct DeviceRow {
    id: String,
    bound: String,
}

impl From<&Application> for Row {
    fn from(app: &Application) -> Self {
        Self {
            id: app.id.to_string(),
            name: app.name.clone(),
            is_enabled: app.enabled,
            state: if app.enabled { "enabled" } else { "disabled" },
            created: show::time(app.created_at),
            changed: show::time(app.updated_at),
        }
    }
}

impl DetailsPage {
    fn file_hint(&self) -> String {
        fill(
            self.t.applications.bind_file_hint,
            &[("max", &self.max_rows)],
        )
    }

    fn choose(&self, device: &str) -> String {
        fill(self.t.applications.choose, &[("device", &device)])
    }
}

async fn list(
    State(console): State<Arc<Console>>,
    visit: Visit,
    query: ListQuery,
) -> Result<Response, Fault> {
    let text = query.value("text");
    let filter = AppFilter {
        text: (!text.is_empty()).then(|| text.to_owned()),
    };
    let found = console.services.apps.apps(&filter, &query.page()).await?;
    let page = ListPage {
        t: &TEXTS,
        layout: Layout::new(&visit, Place::Applications, TEXTS.applications.title),
        text: text.to_owned(),
        rows: query.rows(&found, FILTERS),
    };
    Ok(render(&page))
}

async fn one(
    State(console): State<Arc<Console>>,
    visit: Visit,
    PathOf(id): PathOf<AppId>,
    query: ListQuery,
) -> Result<Response, Fault> {
    let (report, errors) = (Report::default(), Errors::default());
    details(
        &console,
        &visit,
        &id,
        &query,
        (StatusCode::OK, report, errors),
    )
    .await
}

/// The page of an application, with what came of a change of its devices.
async fn details(
    console: &Console,
    visit: &Visit,
    id: &AppId,
    query: &ListQuery,
    (status, report, errors): (StatusCode, Report, Errors),
) -> Result<Response, Fault> {
    let t = &TEXTS.applications;
    let apps = &console.services.apps;
    let app = apps.app(id).await?;
    let bound = apps.bindings(id, &query.page()).await?;
    let count = show::grouped(apps.binding_count(id).await?);
    let slots = [CredentialSlot::Primary, CredentialSlot::Secondary].map(|slot| {
        let name = slot.as_str();
        (name, TEXTS.kinds.of(name))
    });
    let max_rows = u64::try_from(console.services.limits.max_binding_rows);
    let page = DetailsPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Applications, app.name.as_str()),
        row: Row::from(&app),
        by_mqtt: fill(t.by_mqtt_about, &[("id", id)]),
        by_http: format!("GET /api/v1/apps/{id}/messages"),
        count,
        slots: choices(slots, |_| false),
        ways: query.ways(&bound, &[]),
        devices: bound
            .items
            .into_iter()
            .map(|binding| DeviceRow {
                id: binding.device_id.to_string(),
                bound: show::time(binding.bound_at),
            })
            .collect(),
        max_rows: show::grouped(max_rows.unwrap_or(u64::MAX)),
        report,
        errors,
    };
    Ok(render_with(status, &page))
}
