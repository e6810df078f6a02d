//! Handlers whose types are forgotten where they are routed.
//!
//! A router is made anew for every type of handler that it is given, and each page has one of its own: most of what the
//! console added to the program was that. Routed through [`erase`], all pages share one router.

use std::{fmt, pin::Pin, sync::Arc};

use axum::{extract::Request, handler::Handler, response::Response};

use super::Console;

/// The answer to a request, when it comes.
type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A handler of any type.
#[derive(Clone)]
pub(super) struct Erased(Arc<dyn Fn(Request, Arc<Console>) -> Answer + Send + Sync>);

/// Forgets the type of a handler.
pub(super) fn erase<H, T>(handler: H) -> Erased
where
    H: Handler<T, Arc<Console>>,
{
    Erased(Arc::new(move |request, console| {
        Box::pin(handler.clone().call(request, console))
    }))
}

impl Handler<(), Arc<Console>> for Erased {
    type Future = Answer;

    fn call(self, request: Request, console: Arc<Console>) -> Answer {
        (self.0)(request, console)
    }
}

impl fmt::Debug for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Erased").finish_non_exhaustive()
    }
}
