//! `/deliveries/{id}`: one device of a task, with everything that happened.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, response::Response};

use super::{
    Console, Fault, Visit,
    control::{parties, through},
    row::DeliveryRow,
    words::why_failed,
};
use crate::{
    edge::console::{
        form::{PathOf, Posted},
        layout::{Layout, Place, render, see},
        session::Operator,
        show,
        text::{TEXTS, Texts},
    },
    model::{DeliveryState, Id},
};

#[derive(Template)]
#[template(path = "console/tasks/delivery.html")]
struct DeliveryPage {
    t: &'static Texts,
    layout: Layout,
    row: DeliveryRow,
    device: String,
    task: String,
    task_name: String,
    is_open: bool,
    may_retry: bool,
    entries: Vec<Entry>,
}

/// One state that an attempt came to.
struct Entry {
    attempt: u32,
    state: &'static str,
    at: String,
    why: String,
}

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    visit: Visit,
    PathOf(id): PathOf<Id>,
) -> Result<Response, Fault> {
    let delivery = &console.services.delivery;
    let view = delivery.delivery(id).await?;
    let task = delivery.task(view.delivery.task_id).await?.task;
    let timeline = delivery.timeline(id).await?;
    let row = DeliveryRow::from(&view);
    let page = DeliveryPage {
        t: &TEXTS,
        layout: Layout::new(&visit, Place::Tasks, row.device.as_str()),
        device: view.delivery.device_id.to_string(),
        task: task.id.to_string(),
        task_name: task.name,
        is_open: !view.delivery.state.is_final(),
        may_retry: view.delivery.state == DeliveryState::Failed,
        entries: timeline
            .into_iter()
            .map(|entry| Entry {
                attempt: entry.attempt,
                state: entry.state.as_str(),
                at: show::time(entry.at),
                why: match entry.state {
                    DeliveryState::Failed => {
                        why_failed(entry.reason.as_deref(), entry.detail.as_deref())
                    }
                    _ => String::new(),
                },
            })
            .collect(),
        row,
    };
    Ok(render(&page))
}

/// `POST /deliveries/{id}/cancel`
pub(super) async fn cancel(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<Id>,
    _form: Posted,
) -> Result<Response, Fault> {
    let (delivery, actor) = parties(&console, &visit);
    let change = async move { delivery.cancel_delivery(&actor, id).await.map(drop) };
    through(&console, Box::pin(change)).await??;
    Ok(see(&format!("/deliveries/{id}"), "canceled"))
}

/// `POST /deliveries/{id}/retry`
pub(super) async fn retry(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<Id>,
    _form: Posted,
) -> Result<Response, Fault> {
    let (delivery, actor) = parties(&console, &visit);
    let change = async move { delivery.retry_delivery(&actor, id).await.map(drop) };
    through(&console, Box::pin(change)).await??;
    Ok(see(&format!("/deliveries/{id}"), "retried"))
}
