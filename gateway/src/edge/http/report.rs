//! `GET /tasks/{task}/report.csv`: the proof of a task, streamed block by block.
//!
//! Cells that a spreadsheet would take for a formula are given an apostrophe: some of them are a
//! device's own words.

use std::borrow::Cow;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream::{Stream, unfold};
use serde::Deserialize;

use super::{
    ApiState,
    auth::Viewer,
    extract::{PathOf, QueryOf},
    problem::Problem,
};
use crate::{
    model::{Id, Millis},
    service::delivery::{DeliveryError, DeliveryService, Reported},
};

/// The columns.
const HEADING: [&str; 13] = [
    "delivery_id",
    "device_id",
    "DeviceName",
    "attempt",
    "state",
    "percent",
    "waiting",
    "reason",
    "detail",
    "created_at",
    "pushed_at",
    "delivering_at",
    "finished_at",
];

/// Which rows a report has.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReportQuery {
    /// `latest`: one row for each delivery; `all`: one for each attempt. Default `latest`.
    #[serde(default)]
    #[param(inline)]
    attempts: Attempts,
}

/// Which attempts a report has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Attempts {
    /// The present one of each delivery.
    #[default]
    Latest,
    /// Every one.
    All,
}

/// Gives a row for each delivery of a task, with its stamps, as a CSV.
#[utoipa::path(get, path = "/tasks/{task}/report.csv", tag = "tasks",
    params(("task" = String, Path, description = "The task's id"), ReportQuery),
    responses((status = 200, content_type = "text/csv", body = String)))]
pub(super) async fn download(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
    QueryOf(query): QueryOf<ReportQuery>,
) -> Result<Response, Problem> {
    answer(state.delivery, id, query.attempts == Attempts::All).await
}

/// The report as an answer; with `all` a row for each attempt.
pub(in crate::edge) async fn answer(
    delivery: DeliveryService,
    id: Id,
    all: bool,
) -> Result<Response, Problem> {
    let first = delivery.report_block(id, None, all).await?;
    let mut response = Body::from_stream(blocks(delivery, id, all, first)).into_response();
    let headers = response.headers_mut();
    let csv = HeaderValue::from_static("text/csv; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, csv);
    let name = format!("attachment; filename=\"task-{id}.csv\"");
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// Where a report stands: the rows to be written next, the heading before the first of them.
struct Rest {
    delivery: DeliveryService,
    task: Id,
    all: bool,
    rows: Vec<Reported>,
    is_first: bool,
}

fn blocks(
    delivery: DeliveryService,
    task: Id,
    all: bool,
    rows: Vec<Reported>,
) -> impl Stream<Item = Result<Bytes, DeliveryError>> + Send {
    let rest = Rest {
        delivery,
        task,
        all,
        rows,
        is_first: true,
    };
    unfold(Some(rest), async |rest| {
        let mut rest = rest?;
        if rest.rows.is_empty() && !rest.is_first {
            return None;
        }
        let text = write(&rest.rows, rest.is_first);
        let Some(last) = rest.rows.last().map(|row| row.delivery.id) else {
            return Some((Ok(text), None));
        };
        let after = Some(last);
        match rest.delivery.report_block(rest.task, after, rest.all).await {
            Ok(rows) => {
                rest.rows = rows;
                rest.is_first = false;
                Some((Ok(text), Some(rest)))
            }
            // The reader sees that it ends short.
            Err(error) => Some((Err(error), None)),
        }
    })
}

fn write(rows: &[Reported], with_heading: bool) -> Bytes {
    let mut csv = csv::Writer::from_writer(Vec::with_capacity(rows.len() * 160 + 160));
    let heading = with_heading.then_some(HEADING);
    // A buffer in memory takes everything.
    if let Some(heading) = heading {
        let _taken = csv.write_record(heading);
    }
    for row in rows {
        let _taken = csv.write_record(cells(row).iter().map(AsRef::as_ref));
    }
    Bytes::from(csv.into_inner().unwrap_or_default())
}

fn cells(row: &Reported) -> [Cow<'_, str>; 13] {
    let delivery = &row.delivery;
    let time = |at: Option<Millis>| Cow::Owned(at.map(|at| at.to_string()).unwrap_or_default());
    let percent = row.percent.map(|percent| percent.to_string());
    [
        Cow::Owned(delivery.id.to_string()),
        harmless(delivery.device_id.as_str()),
        harmless(delivery.node_id.as_str()),
        Cow::Owned(delivery.attempt.to_string()),
        Cow::Borrowed(delivery.state.as_str()),
        Cow::Owned(percent.unwrap_or_default()),
        Cow::Borrowed(row.waiting.map_or("", |reason| reason.as_str())),
        Cow::Borrowed(delivery.reason.as_deref().unwrap_or_default()),
        harmless(delivery.detail.as_deref().unwrap_or_default()),
        time(Some(delivery.created_at)),
        time(delivery.pushed_at),
        time(delivery.delivering_at),
        time(delivery.finished_at),
    ]
}

/// A text that no spreadsheet takes for a formula; a negative number is none.
fn harmless(text: &str) -> Cow<'_, str> {
    let mut chars = text.chars();
    let is_formula = match chars.next() {
        Some('=' | '+' | '@' | '\t' | '\r') => true,
        Some('-') => !chars.next().is_some_and(|next| next.is_ascii_digit()),
        _ => false,
    };
    if is_formula {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_devices_are_no_formulas() {
        for (text, shown) in [
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-cmd", "'-cmd"),
            ("-", "'-"),
            ("-4: md5", "-4: md5"),
            ("7: flash", "7: flash"),
            ("", ""),
        ] {
            assert_eq!(harmless(text), shown);
        }
    }
}
