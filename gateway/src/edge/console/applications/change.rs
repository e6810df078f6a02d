//! Making, renaming, disabling and deleting an application, and its secrets.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, http::StatusCode, response::Response};
use headgate_protocol::identity::AppId;

use crate::{
    edge::console::{
        Console,
        fault::Fault,
        form::{Errors, PathOf, Posted, sentence, word},
        layout::{Layout, Place, render_with, see},
        question::Question,
        session::Operator,
        shown_once::ShownOnce,
        text::{TEXTS, Texts, fill},
    },
    model::{CredentialSlot, Millis},
    service::{AppPatch, app::AppError},
};

#[derive(Template)]
#[template(path = "console/applications/edit.html")]
struct EditPage {
    t: &'static Texts,
    layout: Layout,
    id: String,
    /// `None`: a new one.
    revision: Option<i64>,
    shown_name: String,
    errors: Errors,
}

fn new_form(
    Operator(visit): &Operator,
    status: StatusCode,
    id: String,
    name: String,
    errors: Errors,
) -> Response {
    let page = EditPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Applications, TEXTS.applications.add),
        id,
        revision: None,
        shown_name: name,
        errors,
    };
    render_with(status, &page)
}

/// `GET /applications/new`
pub(super) async fn add_page(visit: Operator) -> Result<Response, Fault> {
    let nothing = String::new;
    Ok(new_form(
        &visit,
        StatusCode::OK,
        nothing(),
        nothing(),
        Errors::default(),
    ))
}

/// `POST /applications`
pub(super) async fn add(
    State(console): State<Arc<Console>>,
    visit: Operator,
    form: Posted,
) -> Result<Response, Fault> {
    let t = &TEXTS.applications;
    let (text, name) = (form.text("id").to_owned(), form.text("name").to_owned());
    let refused = StatusCode::UNPROCESSABLE_ENTITY;
    let id = match AppId::new(&text) {
        Ok(id) => id,
        Err(error) => {
            let errors = Errors::one("id", sentence(&error.to_string()));
            return Ok(new_form(&visit, refused, text, name, errors));
        }
    };
    let label = if name.is_empty() { &text } else { &name };
    let actor = &visit.0.session.actor;
    match console.services.apps.create(actor, id, label.clone()).await {
        Ok(created) => {
            let id = &created.app.id;
            let shown = (t.done_label, created.secret.reveal());
            let done = fill(t.done, &[("id", id)]);
            let next = (format!("/applications/{id}"), t.open);
            let page = ShownOnce::new(&visit.0, Place::Applications, shown, done, next);
            Ok(page.with(t.id, id.as_str()).response())
        }
        Err(AppError::Invalid(error)) => {
            let errors = Errors::invalid(&["name"], &error);
            Ok(new_form(&visit, refused, text, name, errors))
        }
        Err(AppError::Conflict { .. }) => {
            let errors = Errors::one("id", t.taken);
            Ok(new_form(&visit, StatusCode::CONFLICT, text, name, errors))
        }
        Err(error) => Err(error.into()),
    }
}

/// The form as the application is, or as it was filled in.
async fn edit_form(
    console: &Console,
    Operator(visit): &Operator,
    id: &AppId,
    (status, name, errors): (StatusCode, Option<String>, Errors),
) -> Result<Response, Fault> {
    let app = console.services.apps.app(id).await?;
    let page = EditPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Applications, TEXTS.applications.edit_title),
        id: app.id.to_string(),
        revision: Some(app.updated_at.as_i64()),
        shown_name: name.unwrap_or(app.name),
        errors,
    };
    Ok(render_with(status, &page))
}

/// `GET /applications/{id}/edit`
pub(super) async fn edit_page(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<AppId>,
) -> Result<Response, Fault> {
    let as_is = (StatusCode::OK, None, Errors::default());
    edit_form(&console, &visit, &id, as_is).await
}

/// `POST /applications/{id}/edit`
pub(super) async fn edit(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<AppId>,
    form: Posted,
) -> Result<Response, Fault> {
    let name = form.text("name").to_owned();
    let patch = AppPatch {
        name: Some(name.clone()),
        enabled: None,
        revision: form.text("revision").parse().ok().map(Millis::from_i64),
    };
    let actor = &visit.0.session.actor;
    let again = match console.services.apps.patch(actor, &id, patch).await {
        Ok(_) => return Ok(see(&format!("/applications/{id}"), "saved")),
        Err(AppError::Stale { .. }) => {
            let errors = Errors::one("", TEXTS.common.changed_meanwhile);
            (StatusCode::CONFLICT, None, errors)
        }
        Err(AppError::Invalid(error)) => {
            let errors = Errors::invalid(&["name"], &error);
            (StatusCode::UNPROCESSABLE_ENTITY, Some(name), errors)
        }
        Err(error) => return Err(error.into()),
    };
    edit_form(&console, &visit, &id, again).await
}

/// `POST /applications/{id}/enable`
pub(super) async fn enable(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<AppId>,
    _form: Posted,
) -> Result<Response, Fault> {
    set_enabled(&console, &visit, &id, true).await?;
    Ok(see(&format!("/applications/{id}"), "app-enabled"))
}

/// `POST /applications/{id}/disable`
pub(super) async fn disable(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<AppId>,
    _form: Posted,
) -> Result<Response, Fault> {
    set_enabled(&console, &visit, &id, false).await?;
    Ok(see(&format!("/applications/{id}"), "app-disabled"))
}

async fn set_enabled(
    console: &Console,
    Operator(visit): &Operator,
    id: &AppId,
    enabled: bool,
) -> Result<(), Fault> {
    let patch = AppPatch {
        enabled: Some(enabled),
        ..AppPatch::default()
    };
    let apps = &console.services.apps;
    apps.patch(&visit.session.actor, id, patch).await?;
    Ok(())
}

/// `POST /applications/{id}/secret`
pub(super) async fn secret(
    State(console): State<Arc<Console>>,
    Operator(visit): Operator,
    PathOf(id): PathOf<AppId>,
    form: Posted,
) -> Result<Response, Fault> {
    let t = &TEXTS.applications;
    let which = word(form.text("which")).unwrap_or(CredentialSlot::Primary);
    let disconnect = !form.text("disconnect").is_empty();
    let apps = &console.services.apps;
    let actor = &visit.session.actor;
    let secret = apps.reset_secret(actor, &id, which, disconnect).await?;
    let shown = (t.reset_label, secret.reveal());
    let done = fill(t.reset_done, &[("id", &id)]);
    let next = (format!("/applications/{id}"), t.open);
    let page = ShownOnce::new(&visit, Place::Applications, shown, done, next);
    let page = page.with(t.id, id.as_str());
    Ok(page
        .with(t.which, TEXTS.kinds.of(which.as_str()))
        .response())
}

/// `GET /applications/{id}/delete`
pub(super) async fn delete_page(
    State(console): State<Arc<Console>>,
    Operator(visit): Operator,
    PathOf(id): PathOf<AppId>,
) -> Result<Response, Fault> {
    let t = &TEXTS.applications;
    let id = console.services.apps.app(&id).await?.id;
    let question = Question {
        place: Place::Applications,
        title: t.delete_title,
        text: fill(t.delete_question, &[("id", &id)]),
        list: ("/applications", t.title),
        thing: Some((format!("/applications/{id}"), id.to_string())),
        action: format!("/applications/{id}/delete"),
        yes: TEXTS.common.delete,
    };
    Ok(question.ask(&visit))
}

/// `POST /applications/{id}/delete`
pub(super) async fn delete(
    State(console): State<Arc<Console>>,
    Operator(visit): Operator,
    PathOf(id): PathOf<AppId>,
    _form: Posted,
) -> Result<Response, Fault> {
    let apps = &console.services.apps;
    apps.delete(&visit.session.actor, &id).await?;
    Ok(see("/applications", "deleted"))
}
