//! Who asks, and whether they may.
//!
//! A layer turns what the `Authorization` header holds into an [`Actor`], or into an application, once
//! per request; handlers name the role that they need by taking [`Viewer`], [`Operator`] or [`Admin`],
//! or [`Caller`] where applications may come too.
//! Invariants: no path below `/api/v1` answers a stranger anything but 401 and, after too many of these, 429; an application meets only
//! what takes a [`Caller`]. Spec: RFC 6750, RFC 7617.

use std::{net::SocketAddr, time::Instant};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::Response,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use headgate_protocol::identity::AppId;
use zeroize::Zeroizing;

use super::{
    ApiState,
    problem::{Kind, Problem},
};
use crate::{
    model::{Actor, Role},
    service::auth::{AppAuthenticator, AuthError, AuthenticatedApp, HttpLogin},
};

/// Someone who may read.
#[derive(Debug, Clone)]
pub struct Viewer(pub Actor);

/// Someone who may change devices, resources and tasks.
#[derive(Debug, Clone)]
pub struct Operator(pub Actor);

/// Someone who may do everything.
#[derive(Debug, Clone)]
pub struct Admin(pub Actor);

/// An operator, or an application, each limited to its own.
#[derive(Debug, Clone)]
pub enum Caller {
    /// An operator or a token.
    Actor(Actor),
    /// An application.
    App(AuthenticatedApp),
}

impl Caller {
    /// Lets every operator pass, and the application itself; gives the latter. Other applications are told that
    /// there is no such one.
    pub(super) fn may_read_of(&self, app: &AppId) -> Result<Option<&AuthenticatedApp>, Problem> {
        match self {
            Self::Actor(_) => Ok(None),
            Self::App(caller) if caller.id == *app => Ok(Some(caller)),
            Self::App(_) => Err(Problem::not_found("application")),
        }
    }
}

/// What an `Authorization` header holds.
#[derive(Debug, PartialEq, Eq)]
enum Credentials {
    Bearer(Zeroizing<String>),
    /// Username and password.
    Basic(String, Zeroizing<String>),
}

impl Credentials {
    /// As what failures of it are counted.
    fn login(&self) -> HttpLogin<'_> {
        match self {
            Self::Bearer(secret) => HttpLogin::Bearer(secret),
            Self::Basic(id, _) => HttpLogin::Application(id),
        }
    }
}

/// Lets those in who bring a valid token or an application's secret, and notes who they are.
pub(super) async fn authenticate(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(credentials) = credentials(request.headers()) else {
        return Err(unauthenticated(
            "send a token as \"Authorization: Bearer <token>\"",
        ));
    };
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let address = peer.map(|peer| peer.ip().to_canonical());
    let login = credentials.login();
    let throttle = state.authenticator.throttle();
    if let Some(wait) = address.and_then(|from| throttle.http_wait(login, from, Instant::now())) {
        let detail = "too many wrong tokens or secrets came from this network";
        return Err(Problem::new(Kind::TooManyFailures, detail).with_wait(wait));
    }
    let found = look_up(&state, &credentials).await;
    if let Some(from) = address {
        match &found {
            Ok(_) => throttle.http_succeeded(login, from, Instant::now()),
            Err(AuthError::Refused) => throttle.http_failed(login, from, Instant::now()),
            Err(_) => {}
        }
    }
    let extensions = request.extensions_mut();
    match found? {
        Caller::Actor(actor) => {
            extensions.insert(actor.at(address));
        }
        Caller::App(app) => {
            extensions.insert(app);
        }
    }
    Ok(next.run(request).await)
}

async fn look_up(state: &ApiState, credentials: &Credentials) -> Result<Caller, AuthError> {
    let (tokens, apps) = (&state.tokens, &state.apps);
    match credentials {
        Credentials::Bearer(secret) if AppAuthenticator::is_secret(secret) => {
            apps.authenticate_bearer(secret).await.map(Caller::App)
        }
        Credentials::Bearer(token) => tokens.token(token).await.map(Caller::Actor),
        Credentials::Basic(id, secret) => {
            let app = apps.authenticate(id, secret.as_bytes()).await;
            app.map(Caller::App)
        }
    }
}

/// What the `Authorization` header holds; the scheme's case does not matter.
fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    let rest = rest.trim();
    if rest.is_empty() {
        return None;
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Credentials::Bearer(Zeroizing::new(rest.to_owned())));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(rest).ok()?);
    let (id, secret) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some(Credentials::Basic(
        id.to_owned(),
        Zeroizing::new(secret.to_owned()),
    ))
}

/// The answer to someone without a valid token.
pub(super) fn unauthenticated(detail: &'static str) -> Problem {
    Problem::new(Kind::Unauthenticated, detail)
}

fn actor_with(parts: &Parts, needed: Role) -> Result<Actor, Problem> {
    let Some(actor) = parts.extensions.get::<Actor>() else {
        if parts.extensions.get::<AuthenticatedApp>().is_some() {
            let detail = "an application may read its own messages and devices, and send to these";
            return Err(Problem::new(Kind::Forbidden, detail));
        }
        return Err(unauthenticated("a token is needed"));
    };
    check_role(actor, needed)?;
    Ok(actor.clone())
}

/// Checks that someone may do what needs a role.
pub(super) fn check_role(actor: &Actor, needed: Role) -> Result<(), Problem> {
    if actor.role < needed {
        let detail = format!(
            "the token's role is {}, {} is needed",
            actor.role.as_str(),
            needed.as_str()
        );
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    Ok(())
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        match parts.extensions.get::<AuthenticatedApp>() {
            Some(app) => Ok(Self::App(app.clone())),
            None => actor_with(parts, Role::Viewer).map(Self::Actor),
        }
    }
}

/// Lets a handler ask for a role by the type of its argument.
macro_rules! role {
    ($type:ident) => {
        impl<S: Send + Sync> FromRequestParts<S> for $type {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
                actor_with(parts, Role::$type).map(Self)
            }
        }
    };
}

role!(Viewer);
role!(Operator);
role!(Admin);

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn parts(role: Option<Role>) -> Parts {
        let (mut parts, ()) = axum::http::Request::new(()).into_parts();
        if let Some(role) = role {
            let name = "someone".to_owned();
            parts.extensions.insert(Actor::new(name, role));
        }
        parts
    }

    #[test]
    fn roles_may_what_the_lower_ones_may() {
        use Role::{Admin, Operator, Viewer};
        for (has, needed, allowed) in [
            (Viewer, Viewer, true),
            (Viewer, Operator, false),
            (Viewer, Admin, false),
            (Operator, Viewer, true),
            (Operator, Operator, true),
            (Operator, Admin, false),
            (Admin, Viewer, true),
            (Admin, Operator, true),
            (Admin, Admin, true),
        ] {
            let outcome = actor_with(&parts(Some(has)), needed);
            match outcome {
                Ok(_) => assert!(allowed, "{has:?} {needed:?}"),
                Err(problem) => {
                    assert!(!allowed, "{has:?} {needed:?}");
                    assert_eq!(problem.kind(), Kind::Forbidden);
                }
            }
        }
        let problem = actor_with(&parts(None), Viewer).expect_err("nobody");
        assert_eq!(problem.kind(), Kind::Unauthenticated);
    }

    #[test]
    fn credentials_are_found() {
        let bearer = |text: &str| Some(Credentials::Bearer(text.to_owned().into()));
        let basic = |id: &str, secret: &str| {
            Some(Credentials::Basic(id.to_owned(), secret.to_owned().into()))
        };
        for (value, want) in [
            ("Bearer abc", bearer("abc")),
            ("bearer  abc ", bearer("abc")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic YTpiOmM=", basic("a", "b:c")),
            ("basic YTo=", basic("a", "")),
            ("Basic YQ==", None),
            ("Basic abc", None),
            ("Basic /w==", None),
            ("Digest abc", None),
            ("abc", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(credentials(&headers), want, "{value:?}");
        }
        assert_eq!(credentials(&HeaderMap::new()), None);
    }
}
