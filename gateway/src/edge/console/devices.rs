//! `/devices`: everything that may connect.

mod change;
mod credentials;
mod details;
mod given;
mod messages;
mod register;

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, response::Response};
use headgate_protocol::identity::AppId;

use super::{
    Console,
    call::Routes,
    fault::Fault,
    form::{Choice, choices},
    layout::{Layout, Place, render},
    paging::{ListQuery, Ways},
    session::Visit,
    show,
    text::{TEXTS, Texts},
};
use crate::{
    model::{Device, Paged},
    service::DeviceFilter,
};

/// The filters of the list.
const FILTERS: &[&str] = &["text", "product", "status", "app"];

/// The routes of this file and of those below.
pub(super) fn routes() -> Routes {
    let with_file = Routes::new()
        .get("/devices", list)
        .post("/devices", register::add)
        .post("/devices/{id}/fingerprint", credentials::fingerprint)
        .streamed();
    Routes::new()
        .merge(with_file)
        .get("/devices/new", register::page)
        .get("/devices/{id}", details::page)
        .get("/devices/{id}/live", messages::events)
        .get("/devices/{id}/edit", change::edit_page)
        .post("/devices/{id}/edit", change::edit)
        .get("/devices/{id}/delete", change::delete_page)
        .post("/devices/{id}/delete", change::delete)
        .post("/devices/{id}/freeze", change::freeze)
        .post("/devices/{id}/unfreeze", change::unfreeze)
        .post("/devices/{id}/kick", change::kick)
        .get("/devices/{id}/credentials", credentials::page)
        .post("/devices/{id}/secret", credentials::secret)
        .post("/devices/{id}/clear", credentials::clear)
}

#[derive(Template)]
#[template(path = "console/devices/list.html")]
struct ListPage {
    t: &'static Texts,
    layout: Layout,
    text: String,
    products: Vec<Choice>,
    statuses: Vec<Choice>,
    app: String,
    is_filtered: bool,
    rows: Vec<Row>,
    ways: Ways,
}

/// A device as it is listed.
struct Row {
    id: String,
    node_id: String,
    product: String,
    name: String,
    state: &'static str,
    auth: &'static str,
    seen: String,
}

impl Row {
    fn new(device: &Device, is_online: bool) -> Self {
        Self {
            id: device.id.to_string(),
            node_id: device.node_id.to_string(),
            product: device.product_id.to_string(),
            name: device.name.clone(),
            state: match (device.enabled, is_online) {
                (false, _) => "frozen",
                (true, true) => "online",
                (true, false) => "offline",
            },
            auth: TEXTS.kinds.of(device.auth.as_str()),
            seen: device
                .last_seen_at
                .map_or_else(|| TEXTS.devices.never.to_owned(), show::time),
        }
    }
}

/// What a search looks for: devices whose names begin with the text, or behind a `*` hold it.
pub(super) fn found_by(text: &str) -> DeviceFilter {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match text.strip_prefix('*') {
        Some(part) => DeviceFilter {
            text: some(part),
            ..DeviceFilter::default()
        },
        None => DeviceFilter {
            begins: some(text),
            ..DeviceFilter::default()
        },
    }
}

async fn list(
    State(console): State<Arc<Console>>,
    visit: Visit,
    query: ListQuery,
) -> Result<Response, Fault> {
    let t = &TEXTS.devices;
    let (text, product) = (query.value("text"), query.value("product"));
    let (status, app) = (query.value("status"), query.value("app"));
    let known_app: Option<AppId> = app.parse().ok();
    let found = if known_app.is_none() && !app.is_empty() {
        // No application can have this name, so no device is bound to it.
        Paged {
            items: Vec::new(),
            next: None,
        }
    } else {
        let filter = DeviceFilter {
            product: product.parse().ok(),
            enabled: match status {
                "frozen" => Some(false),
                "not_frozen" => Some(true),
                _ => None,
            },
            app: known_app,
            ..found_by(text)
        };
        let registry = &console.services.registry;
        registry.devices(&filter, &query.page()).await?
    };
    let products = super::resources::products(&console).await?;
    let all_products = [(String::new(), TEXTS.common.all_products.to_owned())];
    let each = products.into_iter().map(|id| (id.clone(), id));
    let statuses = [
        ("", t.all_states),
        ("not_frozen", t.not_frozen),
        ("frozen", t.frozen),
    ];
    let ids: Vec<_> = found.items.iter().map(|device| device.id.clone()).collect();
    let online = console.services.directory.are_connected(&ids).await;
    let rows = found.items.iter().zip(online);
    let page = ListPage {
        t: &TEXTS,
        layout: Layout::new(&visit, Place::Devices, t.title),
        text: text.to_owned(),
        products: choices(all_products.into_iter().chain(each), |id| id == product),
        statuses: choices(statuses, |value| value == status),
        app: app.to_owned(),
        is_filtered: FILTERS.iter().any(|name| !query.value(name).is_empty()),
        ways: query.ways(&found, FILTERS),
        rows: rows
            .map(|(device, is_online)| Row::new(device, is_online))
            .collect(),
    };
    Ok(render(&page))
}
