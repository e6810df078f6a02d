//! One batch: how far it is, and what came of each row.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, response::Response};

use super::Row;
use crate::{
    edge::{
        console::{
            Console,
            fault::Fault,
            form::{PathOf, Posted, sentence, word},
            layout::{Layout, Place, render, see},
            paging::{ListQuery, Ways},
            session::{Operator, Visit},
            show,
            text::{TEXTS, Texts, fill},
        },
        http::batches::download,
    },
    model::{DeviceBatch, Id, Millis, RowState},
    service::registration::{RegistrationError, RowResult},
};

/// The filters of the rows.
const FILTERS: &[&str] = &["state"];

#[derive(Template)]
#[template(path = "console/batches/details.html")]
struct DetailsPage {
    t: &'static Texts,
    layout: Layout,
    row: Row,
    size: String,
    sha256: String,
    started: Option<String>,
    ended: Option<String>,
    error: Option<String>,
    has_ended: bool,
    /// 0 to 100.
    percent: u64,
    /// What is to be done with the secrets, while they are shown.
    secrets: Option<String>,
    tabs: Vec<Tab>,
    results: Vec<ResultRow>,
    ways: Ways,
}

/// A choice of rows by how they ended.
struct Tab {
    address: String,
    label: &'static str,
    count: String,
    is_chosen: bool,
}

/// What came of a row.
struct ResultRow {
    line: u32,
    state: &'static str,
    word: &'static str,
    product: String,
    node_id: String,
    device: Option<String>,
    secret: String,
    reason: String,
}

impl From<&RowResult> for ResultRow {
    fn from(result: &RowResult) -> Self {
        let row = &result.row;
        let error = row.error.as_ref();
        Self {
            line: row.line,
            state: row.state.as_str(),
            word: word_of(row.state),
            product: row.product_id.clone(),
            node_id: row.node_id.clone(),
            device: row.device_id.as_ref().map(ToString::to_string),
            secret: result
                .secret
                .as_ref()
                .map_or_else(String::new, |secret| secret.reveal().to_owned()),
            reason: error.map_or_else(String::new, |error| sentence(&error.message)),
        }
    }
}

/// `GET /batches/{id}`
pub(super) async fn page(
    State(console): State<Arc<Console>>,
    visit: Visit,
    PathOf(id): PathOf<Id>,
    query: ListQuery,
) -> Result<Response, Fault> {
    let registration = &console.services.registration;
    let batch = registration.batch(id).await?;
    let state = query.value("state");
    let chosen: Option<RowState> = word(state);
    let layout = Layout::new(&visit, Place::Batches, id.to_string());
    let rows = registration
        .rows(id, chosen, &query.page(), layout.may_operate)
        .await?;
    let page = DetailsPage {
        t: &TEXTS,
        row: Row::from(&batch),
        size: show::bytes(batch.size),
        sha256: hex::encode(batch.sha256),
        started: batch.started_at.map(show::time),
        ended: batch.finished_at.map(show::time),
        error: batch.error.as_deref().map(sentence),
        has_ended: batch.has_ended(),
        percent: u64::from(batch.next_row) * 100 / u64::from(batch.total.max(1)),
        secrets: layout.may_operate.then(|| secrets(&batch)).flatten(),
        tabs: tabs(&batch, chosen),
        ways: query.ways(&rows, FILTERS),
        results: rows.items.iter().map(ResultRow::from).collect(),
        layout,
    };
    Ok(render(&page))
}

/// What is said of the secrets while the result has them.
fn secrets(batch: &DeviceBatch) -> Option<String> {
    let t = &TEXTS.batches;
    match batch.secrets_until {
        _ if !batch.shows_secrets(Millis::now()) || batch.counts.created == 0 => None,
        Some(until) => Some(fill(t.secrets_until, &[("time", &show::time(until))])),
        None => Some(t.secrets_now.to_owned()),
    }
}

/// How a row ended, in a word.
fn word_of(state: RowState) -> &'static str {
    let t = &TEXTS.batches;
    match state {
        RowState::Created => t.created,
        RowState::Unchanged => t.unchanged,
        RowState::Failed => t.failed,
    }
}

fn tabs(batch: &DeviceBatch, chosen: Option<RowState>) -> Vec<Tab> {
    let (t, own) = (&TEXTS.batches, format!("/batches/{}", batch.id));
    let all = Tab {
        address: own.clone(),
        label: t.all,
        count: show::grouped(u64::from(batch.next_row)),
        is_chosen: chosen.is_none(),
    };
    let counts = [
        (RowState::Created, batch.counts.created),
        (RowState::Unchanged, batch.counts.unchanged),
        (RowState::Failed, batch.counts.failed),
    ];
    let each = counts.into_iter().map(|(state, count)| Tab {
        address: format!("{own}?state={}", state.as_str()),
        label: word_of(state),
        count: show::grouped(u64::from(count)),
        is_chosen: chosen == Some(state),
    });
    std::iter::once(all).chain(each).collect()
}

/// `GET /batches/{id}/result.csv`
pub(super) async fn result(
    State(console): State<Arc<Console>>,
    Operator(visit): Operator,
    PathOf(id): PathOf<Id>,
) -> Result<Response, Fault> {
    let registration = &console.services.registration;
    Ok(download(registration, &visit.session.actor, id).await?)
}

/// `POST /batches/{id}/confirm`
pub(super) async fn confirm(
    State(console): State<Arc<Console>>,
    Operator(visit): Operator,
    PathOf(id): PathOf<Id>,
    _form: Posted,
) -> Result<Response, Fault> {
    let registration = &console.services.registration;
    let confirmed = registration.confirm(&visit.session.actor, id).await;
    confirmed.map_err(not_running)?;
    Ok(see(&format!("/batches/{id}"), "batch-confirmed"))
}

/// `POST /batches/{id}/delete`
pub(super) async fn delete(
    State(console): State<Arc<Console>>,
    Operator(visit): Operator,
    PathOf(id): PathOf<Id>,
    _form: Posted,
) -> Result<Response, Fault> {
    let registration = &console.services.registration;
    let deleted = registration.delete(&visit.session.actor, id).await;
    deleted.map_err(not_running)?;
    Ok(see("/batches", "deleted"))
}

fn not_running(error: RegistrationError) -> Fault {
    match error {
        RegistrationError::Running => Fault::conflict(TEXTS.batches.running),
        error => error.into(),
    }
}
