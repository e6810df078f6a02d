//! `/tasks`: roll-outs, and how far each is.

mod control;
mod delivery;
mod live;
mod row;
mod words;

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, http::StatusCode, response::Response};

pub(super) use self::words::in_plain_words;
use self::{row::DeliveryRow, words::why_task};
use super::{
    Console,
    call::Routes,
    fault::Fault,
    form::{Errors, PathOf},
    layout::{Layout, Place, render, render_with},
    paging::{ListQuery, Rows, Ways},
    session::Visit,
    show,
    text::{TEXTS, Texts, fill},
};
use crate::{
    edge::http::report,
    model::{CreationState, DeliveryState, Id, RunState, StateCounts},
    service::{TaskFilter, delivery::TaskView, resource::ResourceError},
};

/// The filters of the list of tasks.
const FILTERS: &[&str] = &["run", "product"];

/// The routes of this file and of those below.
pub(super) fn routes() -> Routes {
    let chosen = Routes::new()
        .post("/tasks/{id}/chosen", control::chosen)
        .at_most(control::MAX_CHOSEN_BYTES);
    Routes::new()
        .merge(chosen)
        .get("/tasks", list)
        .get("/tasks/{id}", one)
        .get("/tasks/{id}/live", live::events)
        .get("/tasks/{id}/report.csv", export)
        .post("/tasks/{id}/pause", control::pause)
        .post("/tasks/{id}/resume", control::resume)
        .post("/tasks/{id}/promote", control::promote)
        .post("/tasks/{id}/cancel", control::cancel)
        .post("/tasks/{id}/retry", control::retry)
        .post("/tasks/{id}/delete", control::delete)
        .get("/deliveries/{id}", delivery::page)
        .post("/deliveries/{id}/cancel", delivery::cancel)
        .post("/deliveries/{id}/retry", delivery::retry)
}

#[derive(Template)]
#[template(path = "console/tasks/list.html")]
struct ListPage {
    t: &'static Texts,
    layout: Layout,
    run: String,
    product: String,
    products: Vec<String>,
    runs: &'static [RunState],
    rows: Rows<TaskRow>,
}

/// A task as it is listed.
pub(super) struct TaskRow {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) product: String,
    pub(super) state: &'static str,
    pub(super) ended: u64,
    pub(super) total: u64,
    pub(super) delivered: String,
    pub(super) failed: String,
    created: String,
    by: String,
}

/// The state that says most of a task: of its making until it is made, then of its running.
fn state_of(view: &TaskView) -> &'static str {
    match view.task.creation {
        CreationState::Created => view.task.run.as_str(),
        making => making.as_str(),
    }
}

const fn ended(counts: &StateCounts) -> u64 {
    counts.delivered + counts.failed
}

impl From<&TaskView> for TaskRow {
    fn from(view: &TaskView) -> Self {
        let (task, counts) = (&view.task, &view.counts);
        Self {
            id: task.id.to_string(),
            name: task.name.clone(),
            product: task.product_id.to_string(),
            state: state_of(view),
            ended: ended(counts),
            total: u64::from(task.total).max(counts.total()),
            delivered: show::grouped(counts.delivered),
            failed: show::grouped(counts.failed),
            created: show::time(task.created_at),
            by: task.created_by.clone(),
        }
    }
}

async fn list(
    State(console): State<Arc<Console>>,
    visit: Visit,
    query: ListQuery,
) -> Result<Response, Fault> {
    let (run, product) = (query.value("run"), query.value("product"));
    let filter = TaskFilter {
        run: run.parse().ok(),
        product: product.parse().ok(),
        resource: None,
    };
    let found = console
        .services
        .delivery
        .tasks(&filter, &query.page())
        .await?;
    let page = ListPage {
        t: &TEXTS,
        layout: Layout::new(&visit, Place::Tasks, TEXTS.tasks.title),
        run: run.to_owned(),
        product: product.to_owned(),
        products: super::resources::products(&console).await?,
        runs: RunState::ALL,
        rows: query.rows(&found, FILTERS),
    };
    Ok(render(&page))
}

#[derive(Template)]
#[template(path = "console/tasks/details.html")]
struct DetailsPage {
    t: &'static Texts,
    layout: Layout,
    id: String,
    /// The state in words, and what is to be said of it.
    state: &'static str,
    why: Option<String>,
    run: RunState,
    is_over: bool,
    may_promote: bool,
    has_failed: bool,
    product: String,
    resource: Option<(String, String)>,
    version: u32,
    created: String,
    by: String,
    finished: Option<String>,
    plan: Vec<String>,
    total: u64,
    total_shown: String,
    segments: Vec<Segment>,
    chosen_state: String,
    all_address: String,
    rows: Vec<DeliveryRow>,
    ways: Ways,
    errors: Errors,
}

/// How many deliveries are in a state, and their share of the bar.
struct Segment {
    state: &'static str,
    count: u64,
    shown: String,
    /// Where it begins and how long it is, in thousandths of the bar.
    from: u64,
    length: u64,
}

impl DetailsPage {
    /// Whether anything can change while the page is looked at.
    const fn is_live(&self) -> bool {
        !self.is_over
    }

    fn version_of(&self) -> String {
        fill(self.t.tasks.version_of, &[("version", &self.version)])
    }

    fn choose(&self, row: &DeliveryRow) -> String {
        fill(self.t.tasks.choose, &[("device", &row.device)])
    }
}

async fn one(
    State(console): State<Arc<Console>>,
    visit: Visit,
    PathOf(id): PathOf<Id>,
    query: ListQuery,
) -> Result<Response, Fault> {
    details(
        &console,
        &visit,
        id,
        &query,
        StatusCode::OK,
        Errors::default(),
    )
    .await
}

/// A task's page; `errors` says why what was asked for was not done.
async fn details(
    console: &Console,
    visit: &Visit,
    id: Id,
    query: &ListQuery,
    status: StatusCode,
    errors: Errors,
) -> Result<Response, Fault> {
    let delivery = &console.services.delivery;
    let view = delivery.task(id).await?;
    let chosen_state = query.value("state");
    let state: Option<DeliveryState> = chosen_state.parse().ok();
    let found = delivery.deliveries(id, state, &query.page()).await?;
    let resource = match console
        .services
        .resources
        .resource(view.task.resource_id)
        .await
    {
        Ok(resource) => Some((resource.id.to_string(), resource.name.to_string())),
        Err(ResourceError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let task = &view.task;
    let page = DetailsPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Tasks, task.name.as_str()),
        id: id.to_string(),
        state: state_of(&view),
        why: why_task(task),
        run: task.run,
        is_over: task.run.is_final() || task.creation == CreationState::CreationFailed,
        may_promote: task.policy.canary.is_some()
            && task.promoted_at.is_none()
            && !task.run.is_final(),
        has_failed: view.counts.failed > 0,
        product: task.product_id.to_string(),
        resource,
        version: task.resource_version,
        created: show::time(task.created_at),
        by: task.created_by.clone(),
        finished: task.finished_at.map(show::time),
        plan: in_plain_words(&task.policy, task.filter.as_ref()),
        total: view.counts.total(),
        total_shown: show::grouped(view.counts.total()),
        segments: segments(&view.counts),
        chosen_state: chosen_state.to_owned(),
        all_address: format!("/tasks/{id}"),
        ways: query.ways(&found, &["state"]),
        rows: found.items.iter().map(DeliveryRow::from).collect(),
        errors,
    };
    Ok(render_with(status, &page))
}

/// The bar of all states, in the order of progress from the end.
fn segments(counts: &StateCounts) -> Vec<Segment> {
    use DeliveryState as S;
    let total = counts.total().max(1);
    let mut before = 0;
    [
        S::Delivered,
        S::Delivering,
        S::Pushed,
        S::Pending,
        S::Failed,
    ]
    .into_iter()
    .map(|state| {
        let count = counts.of(state);
        let from = before * 1_000 / total;
        before += count;
        Segment {
            state: state.as_str(),
            count,
            shown: show::grouped(count),
            from,
            length: before * 1_000 / total - from,
        }
    })
    .collect()
}

/// `GET /tasks/{id}/report.csv`
async fn export(
    State(console): State<Arc<Console>>,
    _visit: Visit,
    PathOf(id): PathOf<Id>,
) -> Result<Response, Fault> {
    Ok(report::answer(console.services.delivery.clone(), id, false).await?)
}
