//! `/account`: who is signed in, and another password.

use std::{net::SocketAddr, sync::Arc};

use askama::Template;
use axum::{
    extract::{ConnectInfo, State},
    http::StatusCode,
    response::Response,
};
use zeroize::Zeroizing;

use super::{
    Console,
    call::Routes,
    fault::Fault,
    form::{Errors, Posted},
    layout::{Layout, Place, render_with, see},
    session::{Visit, set_cookie},
    show,
    sign_in::with_cookie,
    text::{TEXTS, Texts, fill},
};
use crate::service::{account::AccountError, auth::SignInError};

/// The routes of this file.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/account", page)
        .post("/account", change_password)
}

#[derive(Template)]
#[template(path = "console/account.html")]
struct AccountPage {
    t: &'static Texts,
    layout: Layout,
    name: String,
    role: &'static str,
    created: String,
    password_set: String,
    errors: Errors,
}

async fn page(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Fault> {
    form_of(&console, &visit, StatusCode::OK, Errors::default()).await
}

async fn form_of(
    console: &Console,
    visit: &Visit,
    status: StatusCode,
    errors: Errors,
) -> Result<Response, Fault> {
    let name = &visit.session.actor.name;
    let operator = console.services.accounts.operator(name).await?;
    let page = AccountPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Account, TEXTS.account.title),
        role: TEXTS.kinds.of(operator.role.as_str()),
        created: show::time(operator.created_at),
        password_set: show::time(operator.password_set_at),
        name: operator.name,
        errors,
    };
    Ok(render_with(status, &page))
}

/// `POST /account`: ends every session of the operator and begins another one here.
async fn change_password(
    State(console): State<Arc<Console>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    visit: Visit,
    form: Posted,
) -> Result<Response, Fault> {
    let t = &TEXTS.account;
    let refused = StatusCode::UNPROCESSABLE_ENTITY;
    let new = form.raw("password");
    if new != form.raw("password_again") {
        let errors = Errors::one("password_again", TEXTS.operators.password_differs);
        return form_of(&console, &visit, refused, errors).await;
    }
    let (actor, address) = (&visit.session.actor, peer.ip());
    let (sessions, accounts) = (&console.sessions, &console.services.accounts);
    // Wrong ones count as at the sign-in: an open window is no place to try passwords.
    let current = form.raw("current");
    let known = sessions.check_password(&actor.name, current, address).await;
    let (status, errors) = match known {
        Ok(_) => {
            let given = Some(Zeroizing::new(new.to_owned()));
            match accounts.reset_password(actor, &actor.name, given).await {
                Ok(_) => {
                    let token = sessions.sign_in(&actor.name, new, address).await?;
                    let cookie = set_cookie(&token, console.is_secure);
                    return Ok(with_cookie(see("/account", "password-changed"), &cookie));
                }
                Err(AccountError::Invalid(error)) => {
                    (refused, Errors::invalid(&["password"], &error))
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(SignInError::Refused) => (refused, Errors::one("current", t.wrong)),
        Err(SignInError::LockedOut { remaining }) => {
            let time = show::duration(remaining.as_secs().max(1));
            let text = fill(TEXTS.sign_in.locked_out, &[("time", &time)]);
            (StatusCode::TOO_MANY_REQUESTS, Errors::one("current", text))
        }
        Err(error @ SignInError::Auth(_)) => return Err(error.into()),
    };
    form_of(&console, &visit, status, errors).await
}
