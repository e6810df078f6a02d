//! How many requests one caller may make: so many a second, and some at once.
//!
//! A layer inside the authentication; a caller is an operator, a token or an application. Invariants: the table is
//! bounded; a caller that keeps to its rate is never refused because of others.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    ApiState,
    problem::{Kind, Problem},
};
use crate::{config::HttpConfig, model::Actor, service::auth::AuthenticatedApp};

/// Callers that are remembered; those that have not asked for longest go first.
const MAX_CALLERS: usize = 4_096;

/// What every caller may; clones share what is known of them.
#[derive(Debug, Clone)]
pub struct Rates(Arc<Book>);

#[derive(Debug)]
struct Book {
    hasher: RandomState,
    /// Until when the requests of a caller are paid for.
    paid_until: Mutex<HashMap<u64, Instant>>,
    /// What one request costs.
    each: Duration,
    /// How far ahead may be paid.
    ahead: Duration,
}

impl Rates {
    /// Nobody has asked yet.
    pub fn new(config: &HttpConfig) -> Self {
        let each = Duration::from_secs(1) / config.requests_per_sec.max(1);
        Self(Arc::new(Book {
            hasher: RandomState::new(),
            paid_until: Mutex::default(),
            each,
            ahead: each * config.request_burst,
        }))
    }

    /// Takes a request of a caller into account, or says how long it is to wait.
    fn take(&self, kind: &str, name: &str, now: Instant) -> Result<(), Duration> {
        let book = &*self.0;
        let key = book.hasher.hash_one((kind, name));
        let mut all = book.paid_until.lock();
        if all.len() >= MAX_CALLERS && !all.contains_key(&key) {
            all.retain(|_, paid_until| *paid_until > now);
            if all.len() >= MAX_CALLERS
                && let Some(first) = all.iter().min_by_key(|(_, paid_until)| **paid_until)
            {
                let first = *first.0;
                all.remove(&first);
            }
        }
        let paid_until = all.entry(key).or_insert(now);
        let next = (*paid_until).max(now) + book.each;
        let too_far = (next - now).saturating_sub(book.ahead);
        if !too_far.is_zero() {
            return Err(too_far);
        }
        *paid_until = next;
        Ok(())
    }
}

/// The layer.
pub(super) async fn limit(
    State(state): State<ApiState>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let extensions = request.extensions();
    let taken = match (
        extensions.get::<Actor>(),
        extensions.get::<AuthenticatedApp>(),
    ) {
        (Some(actor), _) => state.rates.take("actor", &actor.name, Instant::now()),
        (None, Some(app)) => state.rates.take("app", app.id.as_str(), Instant::now()),
        (None, None) => Ok(()),
    };
    match taken {
        Ok(()) => Ok(next.run(request).await),
        Err(wait) => Err(Problem::new(
            Kind::RateLimited,
            "more requests than http.requests_per_sec allows one caller",
        )
        .with_wait(wait)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(requests_per_sec: u32, request_burst: u32) -> Rates {
        Rates::new(&HttpConfig {
            requests_per_sec,
            request_burst,
            ..HttpConfig::default()
        })
    }

    #[test]
    fn a_caller_waits_when_its_burst_is_used_up_and_others_do_not() {
        let (rates, start) = (rates(10, 3), Instant::now());
        for _ in 0..3 {
            rates.take("actor", "ann", start).expect("within the burst");
        }
        let wait = rates.take("actor", "ann", start).expect_err("one too many");
        assert_eq!(wait, Duration::from_millis(100));
        rates.take("actor", "bob", start).expect("another");
        rates.take("app", "ann", start).expect("another kind");
        rates.take("actor", "ann", start + wait).expect("it waited");
        rates
            .take("actor", "ann", start + wait)
            .expect_err("just one is paid back");
    }

    #[test]
    fn the_table_is_bounded() {
        let (rates, start) = (rates(1, 5), Instant::now());
        for caller in 0..MAX_CALLERS + 10 {
            rates
                .take("actor", &caller.to_string(), start)
                .expect("new");
        }
        assert_eq!(rates.0.paid_until.lock().len(), MAX_CALLERS);
    }
}
