//! `/apps/{app}/devices`: which devices an application sees and commands.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use futures_util::StreamExt as _;
use headgate_protocol::identity::{AppId, DeviceId};
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::{Caller, Operator},
    csv_rows::{CsvRow, CsvRows},
    extract::{JsonBody, PathOf, QueryOf, media_type},
    problem::{Kind, MAX_ROW_ERRORS, Problem, RowProblem},
    view::{BindBody, BindReportView, BindingView, PageQuery, PageView},
};
use crate::{model::Actor, service::app::BindReport};

/// The column that must be there; others are ignored.
const COLUMN: &str = "device_id";
/// Rows that are bound by one call of the service.
const BLOCK: usize = 500;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, bind, unbind))
        .routes(routes!(unbind_one))
        .routes(routes!(import))
}

/// Lists the devices of an application in the order of their ids.
#[utoipa::path(get, path = "/apps/{app}/devices", tag = "bindings",
    params(("app" = String, Path, description = "The application's id"), PageQuery),
    security(("token" = []), ("application" = [])),
    responses((status = 200, body = PageView<BindingView>)))]
async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    PathOf(id): PathOf<AppId>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<PageView<BindingView>>, Problem> {
    caller.may_read_of(&id)?;
    let page = query.page()?;
    Ok(Json(PageView::of(state.apps.bindings(&id, &page).await?)))
}

/// Binds one device or many. Those that can be are bound; `errors` names the others.
#[utoipa::path(post, path = "/apps/{app}/devices", tag = "bindings", request_body = BindBody,
    params(("app" = String, Path, description = "The application's id")),
    responses((status = 200, body = BindReportView)))]
async fn bind(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<AppId>,
    JsonBody(body): JsonBody<BindBody>,
) -> Result<Json<BindReportView>, Problem> {
    let mut job = Job::new(&state, &actor, &id, Action::Bind);
    job.take(body.into_devices()?).await?;
    job.report().map(Json)
}

/// Unbinds one device or many. When this has answered, the application sees nothing of them any more.
#[utoipa::path(delete, path = "/apps/{app}/devices", tag = "bindings", request_body = BindBody,
    params(("app" = String, Path, description = "The application's id")),
    responses((status = 200, body = BindReportView)))]
async fn unbind(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<AppId>,
    JsonBody(body): JsonBody<BindBody>,
) -> Result<Json<BindReportView>, Problem> {
    let mut job = Job::new(&state, &actor, &id, Action::Unbind);
    job.take(body.into_devices()?).await?;
    job.report().map(Json)
}

/// Unbinds a device. When this has answered, the application sees nothing of it any more.
#[utoipa::path(delete, path = "/apps/{app}/devices/{device}", tag = "bindings",
    params(("app" = String, Path, description = "The application's id"),
        ("device" = String, Path, description = "The device's id in the whole gateway")),
    responses((status = 204)))]
async fn unbind_one(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf((id, device)): PathOf<(AppId, DeviceId)>,
) -> Result<StatusCode, Problem> {
    let report = state.apps.unbind(&actor, &id, vec![device]).await?;
    if report.changed == 0 {
        return Err(Problem::not_found("binding"));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// What the rows of a CSV are for.
#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// To be bound.
    #[default]
    Bind,
    /// To be unbound.
    Unbind,
}

/// What is done with a CSV.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ImportQuery {
    /// Default: `bind`.
    #[serde(default)]
    #[param(inline)]
    action: Action,
}

/// Binds or unbinds the devices of a CSV with the column `device_id`, up to 100,000 rows, which are carried out as they
/// come; sent again it changes nothing more. Rows that cannot be used are in `errors`, by line.
#[utoipa::path(post, path = "/apps/{app}/devices:csv", tag = "bindings",
    request_body(content = String, content_type = "text/csv"),
    params(("app" = String, Path, description = "The application's id"), ImportQuery),
    responses((status = 200, body = BindReportView)))]
async fn import(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<AppId>,
    QueryOf(query): QueryOf<ImportQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<BindReportView>, Problem> {
    if media_type(&headers).as_deref() != Some("text/csv") {
        let detail = "send the body as text/csv";
        return Err(Problem::new(Kind::UnsupportedMediaType, detail));
    }
    state.apps.app(&id).await?;
    let mut job = Job::new(&state, &actor, &id, query.action);
    let mut rows = CsvRows::new(COLUMN, state.limits.max_binding_rows);
    let mut body = body.into_data_stream();
    let mut waiting = Vec::with_capacity(BLOCK);
    loop {
        let read = tokio::time::timeout(IDLE, body.next()).await;
        let read =
            read.map_err(|_| Problem::new(Kind::RequestTimeout, "the body stopped coming"))?;
        let found = match read {
            Some(Ok(bytes)) => rows.push(&bytes)?,
            Some(Err(_)) => {
                return Err(Problem::new(
                    Kind::Incomplete,
                    "the connection ended within the body",
                ));
            }
            None => break,
        };
        waiting.extend(found);
        while waiting.len() >= BLOCK {
            let rest = waiting.split_off(BLOCK);
            job.take_rows(std::mem::replace(&mut waiting, rest)).await?;
        }
    }
    waiting.extend(rows.finish()?);
    job.take_rows(waiting).await?;
    job.report().map(Json)
}

/// A body of which nothing comes for so long is given up.
const IDLE: Duration = Duration::from_secs(30);

/// Devices on their way to be bound or unbound, and what became of those before.
struct Job<'a> {
    state: &'a ApiState,
    actor: &'a Actor,
    app: &'a AppId,
    action: Action,
    view: BindReportView,
}

impl<'a> Job<'a> {
    fn new(state: &'a ApiState, actor: &'a Actor, app: &'a AppId, action: Action) -> Self {
        Self {
            state,
            actor,
            app,
            action,
            view: BindReportView::default(),
        }
    }

    /// Rows of a CSV, whose names have not been looked at.
    async fn take_rows(&mut self, rows: Vec<CsvRow>) -> Result<(), Problem> {
        let mut devices = Vec::with_capacity(rows.len());
        for row in rows {
            match row.value.parse() {
                Ok(device) => devices.push((row.line, device)),
                Err(error) => {
                    self.view.rows += 1;
                    self.fail(row.line, row.value, "invalid_name", format!("{error}"));
                }
            }
        }
        self.take(devices).await
    }

    async fn take(&mut self, rows: Vec<(u32, DeviceId)>) -> Result<(), Problem> {
        let lines: HashMap<DeviceId, u32> = rows
            .iter()
            .rev()
            .map(|(line, device)| (device.clone(), *line))
            .collect();
        self.view.rows += rows.len() as u64;
        let devices = rows.into_iter().map(|(_, device)| device).collect();
        let apps = &self.state.apps;
        let report = match self.action {
            Action::Bind => apps.bind(self.actor, self.app, devices).await?,
            Action::Unbind => apps.unbind(self.actor, self.app, devices).await?,
        };
        self.view.changed += report.changed;
        self.note(report, &lines);
        Ok(())
    }

    fn note(&mut self, report: BindReport, lines: &HashMap<DeviceId, u32>) {
        let line = |device: &DeviceId| lines.get(device).copied().unwrap_or_default();
        for device in report.unknown {
            let message = "no device has this id".to_owned();
            self.fail(line(&device), device.to_string(), "unknown_device", message);
        }
        for device in report.over_limit {
            let message = "the device is bound to as many applications as it may".to_owned();
            self.fail(
                line(&device),
                device.to_string(),
                "too_many_applications",
                message,
            );
        }
    }

    fn fail(&mut self, row: u32, device: String, code: &'static str, message: String) {
        self.view.error_count += 1;
        if self.view.errors.len() < MAX_ROW_ERRORS {
            self.view.errors.push(RowProblem {
                row,
                device,
                code: Cow::Borrowed(code),
                message,
            });
        }
    }

    /// What became of all; where no row could be used, that is a problem.
    fn report(self) -> Result<BindReportView, Problem> {
        if self.view.error_count > 0 && self.view.error_count == self.view.rows {
            return Err(Problem::rows(self.view.errors));
        }
        Ok(self.view)
    }
}
