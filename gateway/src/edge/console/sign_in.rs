//! `/sign-in` and `/sign-out`: the ways in and out.

use std::{net::SocketAddr, sync::Arc};

use askama::Template;
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};

use super::{
    Console,
    call::Routes,
    fault::Fault,
    form::{Errors, Posted, query_value},
    layout::{Bare, redirect, render_with},
    session::{Visit, clear_cookie, is_foreign, set_cookie},
    show,
    text::{TEXTS, Texts, fill},
};
use crate::service::auth::SignInError;

/// Bytes of the form.
const MAX_FORM_BYTES: usize = 16 * 1024;

/// The routes for strangers.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/sign-in", page)
        .post("/sign-in", sign_in)
        .at_most(MAX_FORM_BYTES)
}

/// The routes for those who are signed in.
pub(super) fn routes_within() -> Routes {
    Routes::new().post("/sign-out", sign_out)
}

#[derive(Template)]
#[template(path = "console/sign_in.html")]
struct SignInPage<'a> {
    t: &'static Texts,
    layout: Bare,
    name: &'a str,
    next: &'a str,
    errors: Errors,
    notice: Option<&'static str>,
    is_first_run: bool,
}

async fn page(State(console): State<Arc<Console>>, uri: Uri) -> Result<Response, Fault> {
    let t = &TEXTS.sign_in;
    let notice = if query_value(&uri, "ended").is_some() {
        Some(t.ended)
    } else {
        query_value(&uri, "left").map(|_| t.left)
    };
    let next = query_value(&uri, "next");
    let page = SignInPage {
        t: &TEXTS,
        layout: Bare::new(),
        name: "",
        next: local(next.as_deref().unwrap_or_default()),
        errors: Errors::default(),
        notice,
        is_first_run: !console.sessions.has_been_used().await?,
    };
    Ok(render_with(StatusCode::OK, &page))
}

async fn sign_in(
    State(console): State<Arc<Console>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Result<Response, Fault> {
    // Nobody is to be signed in by another site's page, under a name that is not theirs.
    if is_foreign(request.method(), request.headers()) {
        return Err(Fault::forged());
    }
    let form = Posted::read(request).await?;
    let (name, next) = (form.text("name"), local(form.raw("next")));
    let signed_in = console
        .sessions
        .sign_in(name, form.raw("password"), peer.ip())
        .await;
    let (status, message, retry_after) = match signed_in {
        Ok(token) => {
            return Ok(with_cookie(
                redirect(next),
                &set_cookie(&token, console.is_secure),
            ));
        }
        Err(SignInError::Refused) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            TEXTS.sign_in.refused.to_owned(),
            None,
        ),
        Err(SignInError::LockedOut { remaining }) => {
            let secs = remaining.as_secs().max(1);
            let time = show::duration(secs);
            let message = fill(TEXTS.sign_in.locked_out, &[("time", &time)]);
            (StatusCode::TOO_MANY_REQUESTS, message, Some(secs))
        }
        Err(error @ SignInError::Auth(_)) => return Err(error.into()),
    };
    let page = SignInPage {
        t: &TEXTS,
        layout: Bare::new(),
        name,
        next,
        errors: Errors::one("", message),
        notice: None,
        is_first_run: !console.sessions.has_been_used().await?,
    };
    let mut response = render_with(status, &page);
    if let Some(secs) = retry_after {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    Ok(response)
}

async fn sign_out(
    State(console): State<Arc<Console>>,
    visit: Visit,
    _form: Posted,
) -> Result<Response, Fault> {
    console.sessions.sign_out(&visit.session).await?;
    let cookie = clear_cookie(console.is_secure);
    Ok(with_cookie(redirect("/sign-in?left=1"), &cookie))
}

/// An answer that sets or takes away the cookie.
pub(super) fn with_cookie(response: Response, cookie: &str) -> Response {
    match HeaderValue::from_str(cookie) {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], response).into_response(),
        Err(error) => Fault::internal(&error).into_response(),
    }
}

/// A path of this server; anything else becomes the overview.
fn local(next: &str) -> &str {
    let is_path = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains('\\')
        && next.bytes().all(|byte| byte.is_ascii_graphic());
    if is_path { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_on_leads_nowhere_else() {
        for (next, way) in [
            ("/tasks?run=paused", "/tasks?run=paused"),
            ("", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/a\r\nSet-Cookie: x", "/"),
        ] {
            assert_eq!(local(next), way, "{next:?}");
        }
    }
}
