//! `/operators`: who signs in here.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, http::StatusCode, response::Response};
use zeroize::Zeroizing;

use super::{
    Console,
    call::Routes,
    fault::Fault,
    form::{Choice, Errors, PathOf, Posted, choices},
    layout::{Layout, Place, render, render_with, see},
    paging::{ListQuery, Rows},
    session::Admin,
    show,
    shown_once::ShownOnce,
    text::{TEXTS, Texts, fill},
};
use crate::{
    model::{Millis, Role},
    service::{
        OperatorPatch,
        account::{AccountError, NewOperator, Operator},
    },
};

/// The fields that the forms show.
const FIELDS: &[&str] = &["name", "role", "password", "password_again"];

/// The routes of this file.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/operators", list)
        .post("/operators", add)
        .get("/operators/new", add_page)
        // Behind a part of its own: an operator may be called "new".
        .get("/operators/named/{name}", one)
        .post("/operators/named/{name}", edit)
        .post("/operators/named/{name}/password", password)
        .post("/operators/named/{name}/delete", delete)
}

#[derive(Template)]
#[template(path = "console/operators/list.html")]
struct ListPage {
    t: &'static Texts,
    layout: Layout,
    rows: Rows<Row>,
}

#[derive(Template)]
#[template(path = "console/operators/new.html")]
struct NewPage {
    t: &'static Texts,
    layout: Layout,
    draft_name: String,
    roles: Vec<Choice>,
    errors: Errors,
}

#[derive(Template)]
#[template(path = "console/operators/details.html")]
struct DetailsPage {
    t: &'static Texts,
    layout: Layout,
    row: Row,
    revision: i64,
    roles: Vec<Choice>,
    errors: Errors,
}

/// An operator as it is listed.
struct Row {
    name: String,
    role: &'static str,
    is_enabled: bool,
    state: &'static str,
    created: String,
    changed: String,
    password_set: String,
}

impl From<&Operator> for Row {
    fn from(operator: &Operator) -> Self {
        Self {
            name: operator.name.clone(),
            role: operator.role.as_str(),
            is_enabled: operator.enabled,
            state: if operator.enabled {
                "enabled"
            } else {
                "disabled"
            },
            created: show::time(operator.created_at),
            changed: show::time(operator.updated_at),
            password_set: show::time(operator.password_set_at),
        }
    }
}

/// Every role, to be chosen from.
pub(super) fn roles(chosen: &str) -> Vec<Choice> {
    let all = [Role::Viewer, Role::Operator, Role::Admin].map(|role| {
        let name = role.as_str();
        (name, TEXTS.kinds.of(name))
    });
    choices(all, |name| name == chosen)
}

/// Where an operator is found.
fn address(name: &str) -> String {
    format!("/operators/named/{name}")
}

/// The password of two fields; `None`: none was given, so that one is made.
///
/// # Errors
/// What is wrong where the two are not the same.
fn given_password(form: &Posted) -> Result<Option<Zeroizing<String>>, Errors> {
    let given = form.raw("password");
    if given != form.raw("password_again") {
        let rule = TEXTS.operators.password_differs;
        return Err(Errors::one("password_again", rule));
    }
    Ok((!given.is_empty()).then(|| Zeroizing::new(given.to_owned())))
}

async fn list(
    State(console): State<Arc<Console>>,
    Admin(visit): Admin,
    query: ListQuery,
) -> Result<Response, Fault> {
    let found = console.services.accounts.operators(&query.page()).await?;
    let page = ListPage {
        t: &TEXTS,
        layout: Layout::new(&visit, Place::Operators, TEXTS.operators.title),
        rows: query.rows(&found, &[]),
    };
    Ok(render(&page))
}

async fn add_page(visit: Admin) -> Result<Response, Fault> {
    let role = Role::Operator.as_str();
    Ok(new_form(
        &visit,
        StatusCode::OK,
        "",
        role,
        Errors::default(),
    ))
}

fn new_form(
    Admin(visit): &Admin,
    status: StatusCode,
    name: &str,
    role: &str,
    errors: Errors,
) -> Response {
    let page = NewPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Operators, TEXTS.operators.add),
        draft_name: name.to_owned(),
        roles: roles(role),
        errors,
    };
    render_with(status, &page)
}

async fn add(
    State(console): State<Arc<Console>>,
    visit: Admin,
    form: Posted,
) -> Result<Response, Fault> {
    let t = &TEXTS.operators;
    let (name, role) = (form.text("name"), form.text("role"));
    let again = |status, errors| new_form(&visit, status, name, role, errors);
    let refused = StatusCode::UNPROCESSABLE_ENTITY;
    let password = match given_password(&form) {
        Ok(password) => password,
        Err(errors) => return Ok(again(refused, errors)),
    };
    let new = NewOperator {
        name: name.to_owned(),
        role: role.parse().unwrap_or(Role::Viewer),
        password,
    };
    let accounts = &console.services.accounts;
    match accounts.create_operator(&visit.0.session.actor, new).await {
        Ok(created) => {
            let name = &created.operator.name;
            let Some(made) = &created.password else {
                return Ok(see(&address(name), "saved"));
            };
            let done = fill(t.done, &[("name", name)]);
            let shown = (t.done_label, made.as_str());
            let next = (address(name), t.open);
            let page = ShownOnce::new(&visit.0, Place::Operators, shown, done, next);
            Ok(page.with(t.name, name.as_str()).response())
        }
        Err(AccountError::Invalid(error)) => Ok(again(refused, Errors::invalid(FIELDS, &error))),
        Err(AccountError::Conflict { .. }) => {
            Ok(again(StatusCode::CONFLICT, Errors::one("name", t.taken)))
        }
        Err(error) => Err(error.into()),
    }
}

async fn one(
    State(console): State<Arc<Console>>,
    visit: Admin,
    PathOf(name): PathOf<String>,
) -> Result<Response, Fault> {
    details(&console, &visit, &name, StatusCode::OK, Errors::default()).await
}

/// The page of an operator, with what is wrong with a change of it.
async fn details(
    console: &Console,
    Admin(visit): &Admin,
    name: &str,
    status: StatusCode,
    errors: Errors,
) -> Result<Response, Fault> {
    let operator = console.services.accounts.operator(name).await?;
    let page = DetailsPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Operators, operator.name.as_str()),
        row: Row::from(&operator),
        revision: operator.updated_at.as_i64(),
        roles: roles(operator.role.as_str()),
        errors,
    };
    Ok(render_with(status, &page))
}

async fn edit(
    State(console): State<Arc<Console>>,
    visit: Admin,
    PathOf(name): PathOf<String>,
    form: Posted,
) -> Result<Response, Fault> {
    let patch = OperatorPatch {
        role: form.text("role").parse().ok(),
        enabled: Some(!form.text("enabled").is_empty()),
        revision: form.text("revision").parse().ok().map(Millis::from_i64),
    };
    let accounts = &console.services.accounts;
    let actor = &visit.0.session.actor;
    let message = match accounts.patch_operator(actor, &name, &patch).await {
        Ok(_) => return Ok(see(&address(&name), "saved")),
        Err(AccountError::Stale { .. }) => TEXTS.common.changed_meanwhile,
        Err(AccountError::InUse { .. }) => TEXTS.operators.last_admin,
        Err(error) => return Err(error.into()),
    };
    let errors = Errors::one("", message);
    details(&console, &visit, &name, StatusCode::CONFLICT, errors).await
}

async fn password(
    State(console): State<Arc<Console>>,
    visit: Admin,
    PathOf(name): PathOf<String>,
    form: Posted,
) -> Result<Response, Fault> {
    let t = &TEXTS.operators;
    let refused = StatusCode::UNPROCESSABLE_ENTITY;
    let given = match given_password(&form) {
        Ok(given) => given,
        Err(errors) => return details(&console, &visit, &name, refused, errors).await,
    };
    let accounts = &console.services.accounts;
    let actor = &visit.0.session.actor;
    match accounts.reset_password(actor, &name, given).await {
        Ok(None) => Ok(see(&address(&name), "saved")),
        Ok(Some(made)) => {
            let done = fill(t.reset_done, &[("name", &name)]);
            let shown = (t.done_label, made.as_str());
            let next = (address(&name), t.open);
            Ok(ShownOnce::new(&visit.0, Place::Operators, shown, done, next).response())
        }
        Err(AccountError::Invalid(error)) => {
            let errors = Errors::invalid(FIELDS, &error);
            details(&console, &visit, &name, refused, errors).await
        }
        Err(error) => Err(error.into()),
    }
}

async fn delete(
    State(console): State<Arc<Console>>,
    visit: Admin,
    PathOf(name): PathOf<String>,
    _form: Posted,
) -> Result<Response, Fault> {
    let accounts = &console.services.accounts;
    let actor = &visit.0.session.actor;
    match accounts.delete_operator(actor, &name).await {
        Ok(()) => Ok(see("/operators", "deleted")),
        Err(AccountError::InUse { .. }) => {
            let errors = Errors::one("", TEXTS.operators.last_admin);
            details(&console, &visit, &name, StatusCode::CONFLICT, errors).await
        }
        Err(error) => Err(error.into()),
    }
}
