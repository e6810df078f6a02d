//! `/tokens`: with what programs use the API.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, http::StatusCode, response::Response};

use super::{
    Console,
    call::Routes,
    fault::Fault,
    form::{Choice, Errors, PathOf, Posted},
    layout::{Layout, Place, render, render_with, see},
    operators::roles,
    paging::{ListQuery, Rows},
    question::Question,
    session::Admin,
    show,
    shown_once::ShownOnce,
    text::{TEXTS, Texts, fill},
};
use crate::{
    model::{Id, Millis, Role},
    service::account::{AccountError, NewToken, Token},
};

/// The routes of this file.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/tokens", list)
        .post("/tokens", add)
        .get("/tokens/new", add_page)
        .get("/tokens/{id}/revoke", revoke_page)
        .post("/tokens/{id}/revoke", revoke)
}

#[derive(Template)]
#[template(path = "console/tokens/list.html")]
struct ListPage {
    t: &'static Texts,
    layout: Layout,
    rows: Rows<Row>,
}

#[derive(Template)]
#[template(path = "console/tokens/new.html")]
struct NewPage {
    t: &'static Texts,
    layout: Layout,
    draft: Draft,
    roles: Vec<Choice>,
}

/// A token as it is listed; never the token itself.
struct Row {
    id: String,
    name: String,
    role: &'static str,
    created: String,
    expires: String,
    used: String,
}

/// What was filled in, and what is wrong with it.
#[derive(Default)]
struct Draft {
    name: String,
    role: String,
    expires: String,
    errors: Errors,
}

impl From<&Token> for Row {
    fn from(token: &Token) -> Self {
        let or_never =
            |at: Option<Millis>| at.map_or_else(|| TEXTS.tokens.never.to_owned(), show::time);
        Self {
            id: token.id.to_string(),
            name: token.name.clone(),
            role: token.role.as_str(),
            created: show::time(token.created_at),
            expires: or_never(token.expires_at),
            used: or_never(token.last_used_at),
        }
    }
}

/// The beginning of a day that a form names.
pub(super) fn day(text: &str) -> Option<Millis> {
    format!("{text}T00:00:00.000Z").parse().ok()
}

async fn list(
    State(console): State<Arc<Console>>,
    Admin(visit): Admin,
    query: ListQuery,
) -> Result<Response, Fault> {
    let found = console.services.accounts.tokens(&query.page()).await?;
    let page = ListPage {
        t: &TEXTS,
        layout: Layout::new(&visit, Place::Tokens, TEXTS.tokens.title),
        rows: query.rows(&found, &[]),
    };
    Ok(render(&page))
}

async fn add_page(visit: Admin) -> Result<Response, Fault> {
    Ok(new_form(&visit, StatusCode::OK, Draft::default()))
}

fn new_form(Admin(visit): &Admin, status: StatusCode, draft: Draft) -> Response {
    let page = NewPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Tokens, TEXTS.tokens.add),
        roles: roles(&draft.role),
        draft,
    };
    render_with(status, &page)
}

async fn add(
    State(console): State<Arc<Console>>,
    visit: Admin,
    form: Posted,
) -> Result<Response, Fault> {
    let t = &TEXTS.tokens;
    let mut draft = Draft {
        name: form.text("name").to_owned(),
        role: form.text("role").to_owned(),
        expires: form.text("expires").to_owned(),
        errors: Errors::default(),
    };
    let refused = StatusCode::UNPROCESSABLE_ENTITY;
    let expires_at = day(&draft.expires);
    if expires_at.is_none() && !draft.expires.is_empty() {
        draft.errors.add("expires", t.expires_rule);
        return Ok(new_form(&visit, refused, draft));
    }
    let new = NewToken {
        name: draft.name.clone(),
        role: draft.role.parse().unwrap_or(Role::Viewer),
        expires_at,
    };
    let accounts = &console.services.accounts;
    match accounts.create_token(&visit.0.session.actor, new).await {
        Ok(created) => {
            let done = fill(t.done, &[("name", &created.token.name)]);
            let shown = (t.done_label, created.secret.as_str());
            let next = ("/tokens".to_owned(), t.back);
            Ok(ShownOnce::new(&visit.0, Place::Tokens, shown, done, next).response())
        }
        Err(AccountError::Invalid(error)) if error.field == "expires_at" => {
            draft.errors.add("expires", t.expires_rule);
            Ok(new_form(&visit, refused, draft))
        }
        Err(AccountError::Invalid(error)) => {
            draft.errors = Errors::invalid(&["name"], &error);
            Ok(new_form(&visit, refused, draft))
        }
        Err(AccountError::TooMany { .. }) => {
            draft.errors = Errors::one("", t.too_many);
            Ok(new_form(&visit, StatusCode::CONFLICT, draft))
        }
        Err(error) => Err(error.into()),
    }
}

async fn revoke_page(
    State(console): State<Arc<Console>>,
    Admin(visit): Admin,
    PathOf(id): PathOf<Id>,
) -> Result<Response, Fault> {
    let t = &TEXTS.tokens;
    let token = console.services.accounts.token(id).await?;
    let question = Question {
        place: Place::Tokens,
        title: t.revoke_title,
        text: fill(t.revoke_question, &[("name", &token.name)]),
        list: ("/tokens", t.title),
        thing: None,
        action: format!("/tokens/{}/revoke", token.id),
        yes: t.revoke,
    };
    Ok(question.ask(&visit))
}

async fn revoke(
    State(console): State<Arc<Console>>,
    Admin(visit): Admin,
    PathOf(id): PathOf<Id>,
    _form: Posted,
) -> Result<Response, Fault> {
    let accounts = &console.services.accounts;
    accounts.revoke_token(&visit.session.actor, id).await?;
    Ok(see("/tokens", "token-revoked"))
}
