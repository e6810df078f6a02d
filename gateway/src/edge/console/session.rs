//! Who looks at a page: the cookie, the session behind it, and what the role allows.
//!
//! [`enter`] lets in who is signed in and sends the others to the sign-in. Handlers take a [`Visit`], or
//! [`Operator`] around one where the page needs that role.

use std::{net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, Method, Uri, header, request::Parts, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{
    Console,
    call::{Call, Part},
    fault::Fault,
    form::query_value,
    layout::redirect,
};
use crate::{model::Role, service::auth::OperatorSession};

/// The cookie under TLS: browsers take it from this host alone, and never send it without TLS.
const SECURE_COOKIE: &str = "__Host-headgate";
/// The cookie without TLS, which takes no such prefix.
const PLAIN_COOKIE: &str = "headgate";

/// The header of what the script asks for by itself: it does not make the session last.
const REFRESH: &str = "x-headgate-refresh";

/// A stream of events lasts so long: the browser opens the next one, if its operator may still come in.
pub(super) const STREAM_LASTS: Duration = Duration::from_mins(5);

/// One look at a page by someone who is signed in. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Visit(Arc<Visited>);

/// What a visit is.
#[derive(Debug)]
pub(super) struct Visited {
    /// Who.
    pub(super) session: OperatorSession,
    /// A code of what was just done.
    pub(super) notice: Option<String>,
}

impl Deref for Visit {
    type Target = Visited;

    fn deref(&self) -> &Visited {
        &self.0
    }
}

/// A visit of someone who may change devices, resources and tasks.
#[derive(Debug, Clone)]
pub(super) struct Operator(pub(super) Visit);

/// A visit of someone who may also change products, operators and nodes.
#[derive(Debug, Clone)]
pub(super) struct Admin(pub(super) Visit);

/// The layer of every page but the sign-in.
pub(super) async fn enter(
    State(console): State<Arc<Console>>,
    mut request: Request,
    next: Next,
) -> Response {
    if is_foreign(request.method(), request.headers()) {
        return Fault::forged().into_response();
    }
    let token = cookie(request.headers(), console.is_secure);
    let is_asked_for = !request.headers().contains_key(REFRESH);
    let session = console
        .sessions
        .session(token.unwrap_or_default(), is_asked_for);
    let session = match session.await {
        Ok(session) => session,
        Err(error) => return Fault::from(error).into_response(),
    };
    let Some(mut session) = session else {
        // Who had a cookie was signed in once: the sign-in says that the session has ended.
        return turn_away(&request, token.is_some());
    };
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    session.actor.origin = peer.map(|peer| peer.ip());
    let notice = query_value(request.uri(), "note");
    let visited = Visited { session, notice };
    request.extensions_mut().insert(Visit(Arc::new(visited)));
    next.run(request).await
}

/// Sends to the sign-in whoever asked for a page; a script and a form are told.
fn turn_away(request: &Request, was_signed_in: bool) -> Response {
    let is_page = request.headers().get(header::ACCEPT).is_some_and(|accept| {
        accept
            .to_str()
            .is_ok_and(|accept| accept.contains("text/html"))
    });
    if request.method() != Method::GET || !is_page {
        return Fault::signed_out().into_response();
    }
    let next = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let why = if was_signed_in { "&ended=1" } else { "" };
    let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
    redirect(&format!("/sign-in?next={next}{why}"))
}

/// Whether a form was sent by another site's page. Browsers say so; what is no browser carries no cookie of one.
pub(super) fn is_foreign(method: &Method, headers: &HeaderMap) -> bool {
    if matches!(*method, Method::GET | Method::HEAD) {
        return false;
    }
    if let Some(site) = headers.get("sec-fetch-site") {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.parse::<Uri>().ok());
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let of_origin = origin
        .as_ref()
        .and_then(Uri::authority)
        .map(Authority::as_str);
    of_origin.is_none() || of_origin != host
}

/// The session's token.
pub(super) fn cookie(headers: &HeaderMap, is_secure: bool) -> Option<&str> {
    let name = cookie_name(is_secure);
    let pairs = headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// What sets the cookie; it goes with the browser, and with the session on this side.
pub(super) fn set_cookie(token: &str, is_secure: bool) -> String {
    let name = cookie_name(is_secure);
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{name}={token}; Path=/; HttpOnly; SameSite=Strict{secure}")
}

/// What takes the cookie away.
pub(super) fn clear_cookie(is_secure: bool) -> String {
    set_cookie("", is_secure) + "; Max-Age=0"
}

const fn cookie_name(is_secure: bool) -> &'static str {
    if is_secure {
        SECURE_COOKIE
    } else {
        PLAIN_COOKIE
    }
}

/// The visit that [`enter`] left with a request, if its operator has the role that is `needed`.
///
/// # Errors
/// The fault of a request of someone who has not, or is not signed in.
pub(super) fn visit_of(parts: &Parts, needed: Role) -> Result<Visit, Fault> {
    let visit = parts
        .extensions
        .get::<Visit>()
        .ok_or_else(Fault::signed_out)?;
    if visit.session.actor.role < needed {
        return Err(Fault::forbidden());
    }
    Ok(visit.clone())
}

/// Lets a handler ask for a role by the type of its argument.
macro_rules! role {
    ($type:ident) => {
        impl Part for $type {
            const ROLE: Option<Role> = Some(Role::$type);

            fn of(call: &mut Call) -> Result<Self, Fault> {
                call.visit(Role::$type).map(Self)
            }
        }
    };
}

role!(Operator);
role!(Admin);

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter()
            .map(|(name, value)| {
                (
                    header::HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let found = headers(&[("cookie", "a=b; headgate=token; __Host-headgate=secure")]);
        assert_eq!(cookie(&found, false), Some("token"));
        assert_eq!(cookie(&found, true), Some("secure"));
        assert_eq!(cookie(&headers(&[("cookie", "xheadgate=1")]), false), None);
        assert_eq!(cookie(&HeaderMap::new(), false), None);
        assert!(set_cookie("t", true).ends_with("HttpOnly; SameSite=Strict; Secure"));
        assert!(!set_cookie("t", false).contains("Secure"));
    }

    #[test]
    fn forms_of_other_sites_are_known() {
        let cases: [(&[(&'static str, &'static str)], bool); 7] = [
            (&[], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("origin", "http://a:1"), ("host", "a:1")], false),
            (&[("origin", "null"), ("host", "a")], true),
        ];
        for (given, foreign) in cases {
            assert_eq!(
                is_foreign(&Method::POST, &headers(given)),
                foreign,
                "{given:?}"
            );
            assert!(!is_foreign(&Method::GET, &headers(given)));
        }
    }
}
