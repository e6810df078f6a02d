//! `/products`: kinds of devices, and how they connect.

mod change;

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, response::Response};
use headgate_protocol::identity::ProductId;

use super::{
    Console,
    call::Routes,
    fault::Fault,
    form::PathOf,
    layout::{Layout, Place, render},
    paging::{ListQuery, Rows},
    session::Visit,
    show,
    text::{TEXTS, Texts, fill},
};
use crate::model::{AuthKind, CredentialForm, Product, Transports};

/// The routes of this file and of the one below.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/products", list)
        .post("/products", change::add)
        .get("/products/new", change::add_page)
        .get("/products/{id}", one)
        .get("/products/{id}/edit", change::edit_page)
        .post("/products/{id}/edit", change::edit)
        .get("/products/{id}/delete", change::delete_page)
        .post("/products/{id}/delete", change::delete)
}

#[derive(Template)]
#[template(path = "console/products/list.html")]
struct ListPage {
    t: &'static Texts,
    layout: Layout,
    rows: Rows<Row>,
}

#[derive(Template)]
#[template(path = "console/products/details.html")]
struct DetailsPage {
    t: &'static Texts,
    layout: Layout,
    row: Row,
    publish: Vec<String>,
    subscribe: Vec<String>,
    authorities: &'static str,
    confirm: &'static str,
    trusts_done: bool,
    reachable: String,
    created: String,
}

/// A product as it is listed.
struct Row {
    id: String,
    name: String,
    description: String,
    transports: String,
    auth_kinds: String,
    credential_forms: String,
    changed: String,
}

impl From<&Product> for Row {
    fn from(product: &Product) -> Self {
        Self {
            id: product.id.to_string(),
            name: product.name.clone(),
            description: product.description.clone(),
            transports: in_words(transports(product.transports)),
            auth_kinds: in_words(product.auth_kinds.iter().map(|kind| kind.as_str())),
            credential_forms: in_words(product.credential_forms.iter().map(|form| form.as_str())),
            changed: show::time(product.updated_at),
        }
    }
}

/// Names of the API in words, one behind the other.
fn in_words<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<&str> = names.map(|name| TEXTS.kinds.of(name)).collect();
    words.join("; ")
}

/// The names of the transports that are allowed.
fn transports(allowed: Transports) -> impl Iterator<Item = &'static str> {
    [("mqtt", allowed.mqtt), ("coap", allowed.coap)]
        .into_iter()
        .filter_map(|(name, is_allowed)| is_allowed.then_some(name))
}

/// Every kind of authentication with its words.
pub(super) fn auth_kinds() -> impl Iterator<Item = (&'static str, &'static str)> {
    let kinds = AuthKind::ALL.iter().map(|kind| kind.as_str());
    kinds.map(|name| (name, TEXTS.kinds.of(name)))
}

/// Every credential form with its words.
fn credential_forms() -> impl Iterator<Item = (&'static str, &'static str)> {
    let forms = CredentialForm::ALL.iter().map(|form| form.as_str());
    forms.map(|name| (name, TEXTS.kinds.of(name)))
}

async fn list(
    State(console): State<Arc<Console>>,
    visit: Visit,
    query: ListQuery,
) -> Result<Response, Fault> {
    let found = console.services.registry.products(&query.page()).await?;
    let page = ListPage {
        t: &TEXTS,
        layout: Layout::new(&visit, Place::Products, TEXTS.products.title),
        rows: query.rows(&found, &[]),
    };
    Ok(render(&page))
}

async fn one(
    State(console): State<Arc<Console>>,
    visit: Visit,
    PathOf(id): PathOf<ProductId>,
) -> Result<Response, Fault> {
    let product = console.services.registry.product(&id).await?;
    let t = &TEXTS.products;
    let page = DetailsPage {
        t: &TEXTS,
        layout: Layout::new(&visit, Place::Products, product.name.as_str()),
        row: Row::from(&product),
        authorities: match product.client_ca {
            Some(_) => t.some_authorities,
            None => t.any_authority,
        },
        confirm: TEXTS.kinds.of(product.confirm.as_str()),
        trusts_done: product.trust_done,
        reachable: product.reachable_after_uplink_secs.map_or_else(
            || t.always.to_owned(),
            |secs| fill(t.seconds, &[("seconds", &show::grouped(u64::from(secs)))]),
        ),
        created: show::time(product.created_at),
        publish: product.topic_policy.publish,
        subscribe: product.topic_policy.subscribe,
    };
    Ok(render(&page))
}
