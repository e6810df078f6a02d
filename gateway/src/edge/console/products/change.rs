//! Making, editing and deleting a product.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, http::StatusCode, response::Response};
use headgate_protocol::identity::ProductId;

use crate::{
    edge::console::{
        Console,
        fault::Fault,
        form::{Choice, Errors, PathOf, Posted, choices, sentence, word},
        layout::{Layout, Place, render_with, see},
        question::Question,
        session::Admin,
        text::{TEXTS, Texts, fill},
    },
    model::{Confirm, Millis, Product, TopicPolicy, Transports},
    service::registry::RegistryError,
};

/// The fields that stand in the form.
const FIELDS: &[&str] = &[
    "id",
    "name",
    "description",
    "transports",
    "auth_kinds",
    "credential_forms",
    "client_ca",
    "publish",
    "subscribe",
    "confirm",
    "reachable_after_uplink_secs",
];

/// What was filled in, and what is wrong with it.
#[derive(Debug, Default)]
struct Draft {
    id: String,
    name: String,
    description: String,
    transports: Vec<String>,
    auth_kinds: Vec<String>,
    credential_forms: Vec<String>,
    client_ca: String,
    publish: String,
    subscribe: String,
    confirm: String,
    trust_done: bool,
    reachable: String,
    errors: Errors,
}

#[derive(Template)]
#[template(path = "console/products/edit.html")]
struct EditPage {
    t: &'static Texts,
    layout: Layout,
    /// Where the form goes to, and where giving up leads.
    action: String,
    back: String,
    /// `None`: a new one.
    revision: Option<i64>,
    draft: Draft,
    transports: Vec<Choice>,
    auth_kinds: Vec<Choice>,
    credential_forms: Vec<Choice>,
    confirms: Vec<Choice>,
}

impl Draft {
    /// The form of a new product: what most are like.
    fn usual() -> Self {
        let one = |word: &str| vec![word.to_owned()];
        Self {
            transports: one("mqtt"),
            auth_kinds: one("secret"),
            credential_forms: one("native"),
            confirm: Confirm::Report.as_str().to_owned(),
            ..Self::default()
        }
    }

    fn read(form: &Posted) -> Self {
        let all = |name| form.all(name).map(str::to_owned).collect();
        let lines = |name| form.text(name).replace("\r\n", "\n");
        Self {
            id: form.text("id").to_owned(),
            name: form.text("name").to_owned(),
            description: lines("description"),
            transports: all("transports"),
            auth_kinds: all("auth_kinds"),
            credential_forms: all("credential_forms"),
            client_ca: lines("client_ca"),
            publish: lines("publish"),
            subscribe: lines("subscribe"),
            confirm: form.text("confirm").to_owned(),
            trust_done: !form.text("trust_done").is_empty(),
            reachable: form.text("reachable_after_uplink_secs").to_owned(),
            errors: Errors::default(),
        }
    }

    /// What is to be stored, unless a field cannot even be read; then every such field is marked.
    fn checked(&mut self) -> Option<Product> {
        let id = ProductId::new(&self.id);
        if let Err(error) = &id {
            self.errors.add("id", sentence(&error.to_string()));
        }
        let reachable = match self.reachable.as_str() {
            "" => Ok(None),
            text => text.parse::<u32>().map(Some),
        };
        if reachable.is_err() {
            let rule = TEXTS.products.reachable_rule;
            self.errors.add("reachable_after_uplink_secs", rule);
        }
        if !self.errors.is_empty() {
            return None;
        }
        let has = |name: &str| self.transports.iter().any(|chosen| chosen == name);
        Some(Product {
            id: id.ok()?,
            name: self.name.clone(),
            description: self.description.clone(),
            transports: Transports {
                mqtt: has("mqtt"),
                coap: has("coap"),
            },
            auth_kinds: self
                .auth_kinds
                .iter()
                .filter_map(|name| word(name))
                .collect(),
            credential_forms: self
                .credential_forms
                .iter()
                .filter_map(|name| word(name))
                .collect(),
            client_ca: (!self.client_ca.is_empty()).then(|| self.client_ca.clone()),
            topic_policy: TopicPolicy {
                publish: filters(&self.publish),
                subscribe: filters(&self.subscribe),
            },
            confirm: word(&self.confirm).unwrap_or_default(),
            trust_done: self.trust_done,
            reachable_after_uplink_secs: reachable.ok()?,
            created_at: Millis::now(),
            updated_at: Millis::now(),
        })
    }
}

impl From<&Product> for Draft {
    fn from(product: &Product) -> Self {
        let reachable = product.reachable_after_uplink_secs;
        let owned = str::to_owned;
        Self {
            id: product.id.to_string(),
            name: product.name.clone(),
            description: product.description.clone(),
            transports: super::transports(product.transports).map(owned).collect(),
            auth_kinds: product
                .auth_kinds
                .iter()
                .map(|kind| kind.as_str().to_owned())
                .collect(),
            credential_forms: product
                .credential_forms
                .iter()
                .map(|form| form.as_str().to_owned())
                .collect(),
            client_ca: product.client_ca.clone().unwrap_or_default(),
            publish: product.topic_policy.publish.join("\n"),
            subscribe: product.topic_policy.subscribe.join("\n"),
            confirm: product.confirm.as_str().to_owned(),
            trust_done: product.trust_done,
            reachable: reachable.map_or_else(String::new, |secs| secs.to_string()),
            errors: Errors::default(),
        }
    }
}

/// Filters of topics, one a line.
fn filters(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// `GET /products/new`
pub(super) async fn add_page(visit: Admin) -> Result<Response, Fault> {
    Ok(form_of(&visit, StatusCode::OK, Draft::usual(), None))
}

/// The form, of a new product or of one that was so when `revision` was its time.
fn form_of(
    Admin(visit): &Admin,
    status: StatusCode,
    draft: Draft,
    revision: Option<Millis>,
) -> Response {
    let t = &TEXTS.products;
    let known = |name: &'static str| (name, TEXTS.kinds.of(name));
    let within = |list: &[String], name: &str| list.iter().any(|chosen| chosen == name);
    let (action, back, title) = if revision.is_none() {
        ("/products".to_owned(), "/products".to_owned(), t.add)
    } else {
        let own = format!("/products/{}", draft.id);
        (format!("{own}/edit"), own, t.edit_title)
    };
    let page = EditPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Products, title),
        action,
        back,
        revision: revision.map(Millis::as_i64),
        transports: choices(["mqtt", "coap"].map(known), |name| {
            within(&draft.transports, name)
        }),
        auth_kinds: choices(super::auth_kinds(), |name| within(&draft.auth_kinds, name)),
        credential_forms: choices(super::credential_forms(), |name| {
            within(&draft.credential_forms, name)
        }),
        confirms: choices(["report", "acked"].map(known), |name| name == draft.confirm),
        draft,
    };
    render_with(status, &page)
}

/// `POST /products`
pub(super) async fn add(
    State(console): State<Arc<Console>>,
    visit: Admin,
    form: Posted,
) -> Result<Response, Fault> {
    let mut draft = Draft::read(&form);
    let Some(product) = draft.checked() else {
        return Ok(form_of(
            &visit,
            StatusCode::UNPROCESSABLE_ENTITY,
            draft,
            None,
        ));
    };
    let actor = &visit.0.session.actor;
    match console
        .services
        .registry
        .create_product(actor, product)
        .await
    {
        Ok(product) => Ok(see(&format!("/products/{}", product.id), "product-added")),
        Err(error) => {
            let (status, errors) = refused(error)?;
            draft.errors = errors;
            Ok(form_of(&visit, status, draft, None))
        }
    }
}

/// `GET /products/{id}/edit`
pub(super) async fn edit_page(
    State(console): State<Arc<Console>>,
    visit: Admin,
    PathOf(id): PathOf<ProductId>,
) -> Result<Response, Fault> {
    let product = console.services.registry.product(&id).await?;
    let revision = Some(product.updated_at);
    Ok(form_of(
        &visit,
        StatusCode::OK,
        Draft::from(&product),
        revision,
    ))
}

/// `POST /products/{id}/edit`
pub(super) async fn edit(
    State(console): State<Arc<Console>>,
    visit: Admin,
    PathOf(id): PathOf<ProductId>,
    form: Posted,
) -> Result<Response, Fault> {
    let registry = &console.services.registry;
    let current = registry.product(&id).await?;
    let revision = form.text("revision").parse().map(Millis::from_i64);
    let revision = revision.unwrap_or(current.updated_at);
    let mut draft = Draft::read(&form);
    draft.id = id.to_string();
    let Some(product) = draft.checked() else {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Ok(form_of(&visit, status, draft, Some(revision)));
    };
    let actor = &visit.0.session.actor;
    match registry
        .update_product(actor, product, Some(revision))
        .await
    {
        Ok(_) => Ok(see(&format!("/products/{id}"), "saved")),
        Err(RegistryError::Stale { .. }) => {
            let product = registry.product(&id).await?;
            let mut draft = Draft::from(&product);
            draft.errors = Errors::one("", TEXTS.common.changed_meanwhile);
            let revision = Some(product.updated_at);
            Ok(form_of(&visit, StatusCode::CONFLICT, draft, revision))
        }
        Err(error) => {
            let (status, errors) = refused(error)?;
            draft.errors = errors;
            Ok(form_of(&visit, status, draft, Some(revision)))
        }
    }
}

/// What is wrong with what was sent; a fault where that is not the operator's to mend.
fn refused(error: RegistryError) -> Result<(StatusCode, Errors), Fault> {
    let t = &TEXTS.products;
    match error {
        RegistryError::Invalid(error) => Ok((
            StatusCode::UNPROCESSABLE_ENTITY,
            Errors::invalid(FIELDS, &error),
        )),
        RegistryError::Conflict {
            what: "product id", ..
        } => Ok((StatusCode::CONFLICT, Errors::one("id", t.taken))),
        RegistryError::Conflict { with, .. } => {
            let text = fill(t.clash, &[("with", &with)]);
            Ok((StatusCode::CONFLICT, Errors::one("", text)))
        }
        error => Err(error.into()),
    }
}

/// `GET /products/{id}/delete`
pub(super) async fn delete_page(
    State(console): State<Arc<Console>>,
    Admin(visit): Admin,
    PathOf(id): PathOf<ProductId>,
) -> Result<Response, Fault> {
    let product = console.services.registry.product(&id).await?;
    Ok(question(&product.id).ask(&visit))
}

fn question(id: &ProductId) -> Question {
    let t = &TEXTS.products;
    Question {
        place: Place::Products,
        title: t.delete_title,
        text: fill(t.delete_question, &[("id", id)]),
        list: ("/products", t.title),
        thing: Some((format!("/products/{id}"), id.to_string())),
        action: format!("/products/{id}/delete"),
        yes: TEXTS.common.delete,
    }
}

/// `POST /products/{id}/delete`
pub(super) async fn delete(
    State(console): State<Arc<Console>>,
    Admin(visit): Admin,
    PathOf(id): PathOf<ProductId>,
    _form: Posted,
) -> Result<Response, Fault> {
    let actor = &visit.session.actor;
    let deleted = console.services.registry.delete_product(actor, &id).await;
    question(&id).answer(&visit, deleted, TEXTS.products.in_use)
}
