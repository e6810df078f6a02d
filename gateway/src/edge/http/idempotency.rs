//! `Idempotency-Key`: a POST that is sent again is answered again, not carried out again.
//!
//! A layer inside the authentication. The answers of successful requests are kept in memory for
//! 24 hours, bounded in number and bytes, on the node that gave them: a restart forgets them, and
//! another node does not know them. A request that failed leaves its key free.
//! Invariants: at most one request with a key is under way; a request with a key runs to its end
//! also when its client goes away.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{
    ApiState,
    extract::{buffer, media_type},
    problem::{Kind, Problem},
};
use crate::{model::Actor, service::auth::AuthenticatedApp};

/// The header with the key.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Says that the answer is one that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Longest key, in characters.
const MAX_KEY_LEN: usize = 128;

/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// Most answers kept; the oldest goes first.
const MAX_ANSWERS: usize = 10_000;

/// Most bytes of answers kept; the oldest goes first.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Most bytes of one answer; a larger one is not kept.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// The answers that were given to keys; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Answers(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    entries: HashMap<Digest, Entry>,
    /// Keys of given answers, the oldest first.
    order: VecDeque<(Instant, Digest)>,
    bytes: usize,
}

type Digest = [u8; 32];

#[derive(Debug)]
enum Entry {
    UnderWay,
    Given { request: Digest, answer: Answer },
}

#[derive(Debug, Clone)]
struct Answer {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    location: Option<HeaderValue>,
    body: Bytes,
}

/// What is known of a key.
#[derive(Debug)]
enum Claim {
    /// Nothing: the request is to be carried out.
    New(Claimed),
    /// The first request with it is not answered yet.
    UnderWay,
    /// It was used for another request.
    Reused,
    /// This was answered.
    Given(Answer),
}

/// The right to carry out the request of a key; dropped without an answer it frees the key.
#[derive(Debug)]
struct Claimed {
    answers: Answers,
    key: Digest,
    request: Digest,
    is_given: bool,
}

impl Answers {
    fn claim(&self, key: Digest, request: Digest, now: Instant) -> Claim {
        let mut book = self.0.lock();
        book.forget(now);
        match book.entries.get(&key) {
            Some(Entry::UnderWay) => Claim::UnderWay,
            Some(Entry::Given { request: first, .. }) if *first != request => Claim::Reused,
            Some(Entry::Given { answer, .. }) => Claim::Given(answer.clone()),
            None => {
                book.entries.insert(key, Entry::UnderWay);
                Claim::New(Claimed {
                    answers: self.clone(),
                    key,
                    request,
                    is_given: false,
                })
            }
        }
    }
}

impl Book {
    /// Drops what is too old or too much.
    fn forget(&mut self, now: Instant) {
        while let Some((at, key)) = self.order.front().copied() {
            let is_old = now.saturating_duration_since(at) >= KEPT_FOR;
            if !is_old && self.order.len() <= MAX_ANSWERS && self.bytes <= MAX_BYTES {
                return;
            }
            self.order.pop_front();
            if let Some(Entry::Given { answer, .. }) = self.entries.remove(&key) {
                self.bytes -= answer.body.len();
            }
        }
    }
}

impl Claimed {
    fn give(mut self, answer: Answer, now: Instant) {
        let mut book = self.answers.0.lock();
        book.bytes += answer.body.len();
        book.order.push_back((now, self.key));
        let request = self.request;
        book.entries
            .insert(self.key, Entry::Given { request, answer });
        book.forget(now);
        drop(book);
        self.is_given = true;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if !self.is_given {
            self.answers.0.lock().entries.remove(&self.key);
        }
    }
}

/// The layer.
pub(super) async fn replay(
    State(state): State<ApiState>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if request.method() != Method::POST || !request.headers().contains_key(KEY) {
        return Ok(next.run(request).await);
    }
    let key = key_of(&request)?;
    let (request, digest) = digest_of(request, &state).await?;
    match state.answers.claim(key, digest, Instant::now()) {
        Claim::UnderWay => Err(Problem::new(
            Kind::KeyInProgress,
            "the first request with this key has not been answered yet",
        )
        .with_retry_after(1)),
        Claim::Reused => Err(Problem::new(
            Kind::KeyReused,
            "this key was used for a request with another body",
        )
        .with_field(KEY.as_str())),
        Claim::Given(answer) => Ok(answer.into_response(true)),
        Claim::New(claimed) => {
            // In a task of its own: a client that goes away must not leave half a request behind.
            let carried_out = state.shutdown.spawn(async move {
                let response = next.run(request).await;
                keep(response, claimed).await
            });
            carried_out.await.map_err(|error| Problem::internal(&error))
        }
    }
}

/// The key together with who uses it and for what, so that nobody meets another's answers.
fn key_of(request: &Request) -> Result<Digest, Problem> {
    let key = request
        .headers()
        .get(KEY)
        .and_then(|value| value.to_str().ok())
        .filter(|key| (1..=MAX_KEY_LEN).contains(&key.len()))
        .ok_or_else(|| {
            Problem::new(
                Kind::InvalidHeader,
                "Idempotency-Key must be 1 to 128 ASCII characters",
            )
            .with_field(KEY.as_str())
        })?;
    let extensions = request.extensions();
    let actor = extensions
        .get::<Actor>()
        .map_or("", |actor| actor.name.as_str());
    let app = extensions
        .get::<AuthenticatedApp>()
        .map_or("", |app| app.id.as_str());
    let mut digest = Sha256::new();
    for part in [actor, app, request.uri().path(), key] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    Ok(digest.finalize().into())
}

/// What makes a request the same one: the body of JSON, the length of a form, whose boundary may
/// differ, and of a CSV, which is known by its digest anyway.
async fn digest_of(request: Request, state: &ApiState) -> Result<(Request, Digest), Problem> {
    let is_streamed = media_type(request.headers())
        .is_some_and(|essence| essence.starts_with("multipart/") || essence == "text/csv");
    let mut digest = Sha256::new();
    if is_streamed {
        digest.update(b"form");
        if let Some(length) = request.headers().get(header::CONTENT_LENGTH) {
            digest.update(length.as_bytes());
        }
        return Ok((request, digest.finalize().into()));
    }
    let (parts, body) = request.into_parts();
    let bytes = buffer(Request::from_parts(parts.clone(), body), state).await?;
    digest.update(b"body");
    digest.update(&bytes);
    Ok((
        Request::from_parts(parts, Body::from(bytes)),
        digest.finalize().into(),
    ))
}

/// Keeps the answer of a request that was carried out.
async fn keep(response: Response, claimed: Claimed) -> Response {
    if !response.status().is_success() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = match axum::body::to_bytes(body, MAX_ANSWER_BYTES).await {
        Ok(body) => body,
        // Answers of this API to a POST are JSON in memory: too large is the one way to fail.
        Err(error) => return Problem::internal(&error).into_response(),
    };
    let answer = Answer {
        status: parts.status,
        content_type: header_of(&parts.headers, &header::CONTENT_TYPE),
        location: header_of(&parts.headers, &header::LOCATION),
        body,
    };
    claimed.give(answer.clone(), Instant::now());
    answer.into_response(false)
}

fn header_of(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    headers.get(name).cloned()
}

impl Answer {
    fn into_response(self, is_replayed: bool) -> Response {
        let mut response = (self.status, self.body).into_response();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        if let Some(value) = self.content_type {
            headers.insert(header::CONTENT_TYPE, value);
        }
        if let Some(value) = self.location {
            headers.insert(header::LOCATION, value);
        }
        if is_replayed {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: usize) -> Answer {
        Answer {
            status: StatusCode::CREATED,
            content_type: None,
            location: None,
            body: vec![b'x'; bytes].into(),
        }
    }

    fn claimed(answers: &Answers, key: u8, now: Instant) -> Claimed {
        match answers.claim([key; 32], [0; 32], now) {
            Claim::New(claimed) => claimed,
            other => panic!("{key}: {other:?}"),
        }
    }

    #[test]
    fn key_is_claimed_once_and_freed_when_nothing_was_given() {
        let (answers, now) = (Answers::default(), Instant::now());
        let first = claimed(&answers, 1, now);
        assert!(matches!(
            answers.claim([1; 32], [0; 32], now),
            Claim::UnderWay
        ));
        drop(first);
        claimed(&answers, 1, now).give(answer(1), now);
        assert!(matches!(
            answers.claim([1; 32], [0; 32], now),
            Claim::Given(_)
        ));
        assert!(matches!(
            answers.claim([1; 32], [9; 32], now),
            Claim::Reused
        ));
    }

    #[test]
    fn old_answers_and_too_many_bytes_are_forgotten() {
        let (answers, now) = (Answers::default(), Instant::now());
        claimed(&answers, 1, now).give(answer(1), now);
        let later = now + KEPT_FOR;
        drop(claimed(&answers, 1, later));
        claimed(&answers, 2, later).give(answer(MAX_BYTES / 2), later);
        claimed(&answers, 3, later).give(answer(MAX_BYTES), later);
        assert!(answers.0.lock().bytes <= MAX_BYTES);
        drop(claimed(&answers, 2, later));
    }
}
