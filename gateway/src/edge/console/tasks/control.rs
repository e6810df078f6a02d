//! What is done to a task: held, let go, ended, tried again, deleted.

use std::{pin::Pin, sync::Arc};

use axum::{extract::State, http::StatusCode, response::Response};

use super::{Console, Fault, details};
use crate::{
    edge::console::{
        form::{Errors, PathOf, Posted},
        layout::see,
        paging::ListQuery,
        session::Operator,
        text::TEXTS,
    },
    model::{Actor, Id},
    service::delivery::{Chosen, DeliveryError, DeliveryService},
};

/// Bytes of a form with every row of a page chosen.
pub(super) const MAX_CHOSEN_BYTES: usize = 64 * 1024;

/// A change under way.
pub(super) type Change = Pin<Box<dyn Future<Output = Result<(), DeliveryError>> + Send>>;

/// What a change is made with, and who makes it.
pub(super) fn parties(console: &Console, Operator(visit): &Operator) -> (DeliveryService, Actor) {
    let delivery = console.services.delivery.clone();
    (delivery, visit.session.actor.clone())
}

/// Carries a change through to its end, also when the browser goes away meanwhile.
pub(super) async fn through(
    console: &Console,
    change: Change,
) -> Result<Result<(), DeliveryError>, Fault> {
    let done = console.services.shutdown.spawn(change).await;
    done.map_err(|error| Fault::internal(&error))
}

/// Carries a change of a task through, and shows the task.
async fn carry_out(
    console: &Console,
    Operator(visit): &Operator,
    id: Id,
    notice: &'static str,
    change: Change,
) -> Result<Response, Fault> {
    match through(console, change).await? {
        Ok(()) => Ok(see(&format!("/tasks/{id}"), notice)),
        Err(DeliveryError::Conflict(why)) => {
            let errors = Errors::one("", why);
            let query = ListQuery::plain(&format!("/tasks/{id}"));
            details(console, visit, id, &query, StatusCode::CONFLICT, errors).await
        }
        Err(error) => Err(error.into()),
    }
}

/// A handler that does one thing to the whole task.
macro_rules! action {
    ($(#[$doc:meta])+ $name:ident, $notice:literal, |$delivery:ident, $actor:ident, $id:ident| $change:expr) => {
        $(#[$doc])+
        pub(super) async fn $name(
            State(console): State<Arc<Console>>,
            visit: Operator,
            PathOf($id): PathOf<Id>,
            _form: Posted,
        ) -> Result<Response, Fault> {
            let ($delivery, $actor) = parties(&console, &visit);
            let change = Box::pin(async move { $change.await.map(drop) });
            carry_out(&console, &visit, $id, $notice, change).await
        }
    };
}

action!(
    /// `POST /tasks/{id}/pause`
    pause, "paused", |delivery, actor, id| delivery.pause_task(&actor, id)
);
action!(
    /// `POST /tasks/{id}/resume`
    resume, "resumed", |delivery, actor, id| delivery.resume_task(&actor, id)
);
action!(
    /// `POST /tasks/{id}/promote`
    promote, "promoted", |delivery, actor, id| delivery.promote_task(&actor, id)
);
action!(
    /// `POST /tasks/{id}/cancel`
    cancel, "canceled", |delivery, actor, id| delivery.cancel_task(&actor, id, Chosen::All)
);
action!(
    /// `POST /tasks/{id}/retry`
    retry, "retried", |delivery, actor, id| delivery.retry_task(&actor, id, Chosen::All)
);

/// `POST /tasks/{id}/delete`
pub(super) async fn delete(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<Id>,
    _form: Posted,
) -> Result<Response, Fault> {
    let delivery = &console.services.delivery;
    delivery.delete_task(&visit.0.session.actor, id).await?;
    Ok(see("/tasks", "deleted"))
}

/// `POST /tasks/{id}/chosen`: cancels or tries again the deliveries that are ticked.
pub(super) async fn chosen(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<Id>,
    form: Posted,
) -> Result<Response, Fault> {
    let ids: Result<Vec<Id>, _> = form.all("chosen").map(str::parse).collect();
    let ids = ids.map_err(|_| Fault::bad_request(TEXTS.fault.no_form))?;
    if ids.is_empty() {
        let errors = Errors::one("", TEXTS.tasks.none_chosen);
        let query = ListQuery::plain(&format!("/tasks/{id}"));
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return details(&console, &visit.0, id, &query, status, errors).await;
    }
    let these = Chosen::These(ids);
    let (delivery, actor) = parties(&console, &visit);
    let (notice, change): (_, Change) = match form.text("do") {
        "cancel" => {
            let change = async move { delivery.cancel_task(&actor, id, these).await.map(drop) };
            ("canceled", Box::pin(change))
        }
        "retry" => {
            let change = async move { delivery.retry_task(&actor, id, these).await.map(drop) };
            ("retried", Box::pin(change))
        }
        _ => return Err(Fault::bad_request(TEXTS.fault.no_form)),
    };
    carry_out(&console, &visit, id, notice, change).await
}
