//! Who asks, and whether they may.
//!
//! A layer turns the bearer token into an [`Actor`] once per request; handlers name the role that
//! they need by taking [`Viewer`], [`Operator`] or [`Admin`].
//! Invariants: no path below `/api/v1` answers a stranger anything but 401. Spec: RFC 6750.

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::Response,
};

use super::{
    ApiState,
    problem::{Kind, Problem},
};
use crate::model::{Actor, Role};

/// Someone who may read.
#[derive(Debug, Clone)]
pub struct Viewer(pub Actor);

/// Someone who may change devices, resources and tasks.
#[derive(Debug, Clone)]
pub struct Operator(pub Actor);

/// Someone who may do everything.
#[derive(Debug, Clone)]
pub struct Admin(pub Actor);

/// Lets those in who bring a valid token, and notes who they are.
pub(super) async fn authenticate(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(token) = bearer(request.headers()) else {
        return Err(unauthenticated(
            "send a token as \"Authorization: Bearer <token>\"",
        ));
    };
    let actor = match state.tokens.token(token).await {
        Ok(actor) => actor,
        Err(error) => return Err(error.into()),
    };
    request.extensions_mut().insert(actor);
    Ok(next.run(request).await)
}

/// The token of an `Authorization` header; the scheme's case does not matter.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The answer to someone without a valid token.
pub(super) fn unauthenticated(detail: &'static str) -> Problem {
    Problem::new(Kind::Unauthenticated, detail)
}

fn actor_with(parts: &Parts, needed: Role) -> Result<Actor, Problem> {
    let Some(actor) = parts.extensions.get::<Actor>() else {
        return Err(unauthenticated("a token is needed"));
    };
    if actor.role < needed {
        let detail = format!(
            "the token's role is {}, {} is needed",
            actor.role.as_str(),
            needed.as_str()
        );
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    Ok(actor.clone())
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
            parts.extensions.insert(Actor { name, role });
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
    fn bearer_tokens_are_found() {
        for (value, want) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic abc", None),
            ("abc", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(bearer(&headers), want, "{value:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
