//! `GET /tasks/{task}/events`: what happens to a task, as server-sent events.
//!
//! Spec: WHATWG HTML, server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream::{Stream, unfold};

use super::{
    ApiState,
    auth::Viewer,
    extract::PathOf,
    problem::{Kind, Problem},
    view::TaskEventView,
};
use crate::{
    model::Id,
    service::delivery::{TaskEvent, TaskWatch},
    shutdown::Shutdown,
};

/// A comment is sent when nothing else was for so long: proxies and our own listener close what is silent.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The longest position that is looked at.
const MAX_POSITION_BYTES: usize = 64;

/// Tells what happens to a task: `snapshot` first, then `change` at most twice a second, and `end`
/// once it is over. A client that comes back with `Last-Event-ID` goes on where it was, or is given a
/// `snapshot`.
#[utoipa::path(get, path = "/tasks/{task}/events", tag = "tasks",
    params(("task" = String, Path, description = "The task's id"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event")),
    responses((status = 200, content_type = "text/event-stream", body = TaskEventView)))]
pub(super) async fn watch(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let position = match headers.get("last-event-id") {
        Some(value) => {
            let text = value.to_str().ok();
            let text = text.filter(|text| text.len() <= MAX_POSITION_BYTES);
            let wrong = || Problem::new(Kind::InvalidHeader, "not an id of these events");
            Some(text.ok_or_else(wrong)?.to_owned())
        }
        None => None,
    };
    let watch = state.delivery.watch_task(id, position).await?;
    let events = events(watch, state.shutdown.clone());
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

/// The events until the task is over or the node drains: clients come back, to another node.
fn events(
    watch: TaskWatch,
    shutdown: Shutdown,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    unfold((watch, shutdown), async |(mut watch, shutdown)| {
        let next = tokio::select! {
            biased;
            () = shutdown.draining() => return None,
            next = watch.next() => next,
        };
        match next {
            Ok(Some(event)) => Some((Ok(encode(event)), (watch, shutdown))),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "a task can no longer be watched");
                None
            }
        }
    })
}

fn encode(told: TaskEvent) -> Event {
    let name = match (told.is_over, &told.deliveries) {
        (true, _) => "end",
        (false, None) => "snapshot",
        (false, Some(_)) => "change",
    };
    let mut event = Event::default().event(name);
    if let Some(position) = &told.position {
        event = event.id(position);
    }
    let data = serde_json::to_string(&TaskEventView::from(told));
    // Views are plain data: they are always written.
    event.data(data.unwrap_or_default())
}
