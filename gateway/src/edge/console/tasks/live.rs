//! `GET /tasks/{id}/live`: what changes of a task while its page is looked at, as server-sent events.
//!
//! At most two a second, and only the rows that the page shows are looked up.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream::{Stream, unfold};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::{
    Console, Fault, Visit,
    row::{DeliveryRow, ids},
    segments, state_of,
};
use crate::{
    edge::console::{form::PathOf, paging::ListQuery, session::STREAM_LASTS, show, text::TEXTS},
    model::{Id, Page},
    service::delivery::{TaskEvent, TaskWatch},
    shutdown::Shutdown,
};

/// A comment is sent when nothing else was for so long: our own listener closes what is silent.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What the script puts into the page.
#[derive(Debug, Serialize)]
struct Change {
    /// The task's state and its word.
    state: &'static str,
    word: &'static str,
    /// How many deliveries there are: more come while a task is made.
    total: String,
    /// For each state: its name, how many, the beginning and the length of its part of the bar.
    counts: Vec<(&'static str, String, u64, u64)>,
    rows: Vec<DeliveryRow>,
    /// Nothing more will come: the page is to be loaded anew, for what can be done now.
    is_over: bool,
}

pub(super) async fn events(
    State(console): State<Arc<Console>>,
    _visit: Visit,
    PathOf(id): PathOf<Id>,
    query: ListQuery,
) -> Result<Response, Fault> {
    let most = usize::try_from(Page::MAX_LIMIT).unwrap_or(usize::MAX);
    let rows = ids(query.value("rows"), most);
    let watch = console.services.delivery.watch_task(id, None).await?;
    let stream = stream(watch.among(rows), console.services.shutdown.clone());
    Ok(Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

fn stream(
    watch: TaskWatch,
    shutdown: Shutdown,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let end = Instant::now() + STREAM_LASTS;
    unfold(
        (watch, shutdown, end),
        async |(mut watch, shutdown, end)| {
            let next = tokio::select! {
                biased;
                () = shutdown.draining() => return None,
                () = sleep_until(end) => return None,
                next = watch.next() => next,
            };
            match next {
                Ok(Some(event)) => Some((Ok(encode(&event)), (watch, shutdown, end))),
                Ok(None) => None,
                Err(error) => {
                    tracing::warn!(%error, "a task can no longer be watched");
                    None
                }
            }
        },
    )
}

fn encode(told: &TaskEvent) -> Event {
    let state = state_of(&told.task);
    let change = Change {
        state,
        word: TEXTS.state.of(state),
        total: show::grouped(told.task.counts.total()),
        counts: segments(&told.task.counts)
            .into_iter()
            .map(|part| {
                (
                    part.state,
                    show::grouped(part.count),
                    part.from,
                    part.length,
                )
            })
            .collect(),
        rows: told
            .deliveries
            .iter()
            .flatten()
            .map(DeliveryRow::from)
            .collect(),
        is_over: told.is_over,
    };
    // Plain data is always written.
    Event::default().data(serde_json::to_string(&change).unwrap_or_default())
}
