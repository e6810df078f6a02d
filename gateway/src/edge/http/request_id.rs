//! One id for every request, in the answer, in problems and in the log.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

use super::problem::Problem;

/// The header that carries the id both ways.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id taken over from a client.
const MAX_LEN: usize = 64;

/// Outermost layer: takes over or makes the id, and stamps it into the answer.
pub(in crate::edge) async fn stamp(request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|id| is_acceptable(id))
        .map_or_else(generate, str::to_owned);
    let span = tracing::info_span!(
        "http",
        request_id = %id,
        method = %request.method(),
        path = request.uri().path(),
    );
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let allow = response.headers_mut().remove(axum::http::header::ALLOW);
        response = problem.with_request_id(&id).render();
        if let Some(allow) = allow {
            response
                .headers_mut()
                .insert(axum::http::header::ALLOW, allow);
        }
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "answered"));
    response
}

fn is_acceptable(id: &str) -> bool {
    (1..=MAX_LEN).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// 64 random bits; without a source of randomness the id says so, the request goes on.
fn generate() -> String {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => hex::encode(bytes),
        Err(_) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_taken_over() {
        for id in ["a", "A-b_c.9", &"x".repeat(64)] {
            assert!(is_acceptable(id), "{id}");
        }
        for id in ["", "a b", "a\nb", "é", "a,b", &"x".repeat(65)] {
            assert!(!is_acceptable(id), "{id}");
        }
        assert_ne!(generate(), generate());
    }
}
