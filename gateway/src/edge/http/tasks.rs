//! `/tasks`: one resource to one device, to a list or to the rows of a CSV.

use axum::{
    Json,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::from_fn,
    response::{IntoResponse, Response},
};
use headgate_protocol::identity::ProductId;
use serde::Deserialize;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

use super::{
    ApiState,
    auth::{Operator, Viewer},
    device_csv,
    extract::{PathOf, QueryOf, buffer, media_type, parse_json},
    form::{Fields, Form, whole},
    linger::linger,
    openapi::{BASE, Problems},
    problem::{Kind, Problem},
    view::{DeliveryView, NewTaskBody, NewTaskForm, PageQuery, PageView, TaskView},
};
use crate::{
    model::{Actor, DeliveryState, Id, RunState, TaskPolicy},
    service::{
        TaskFilter,
        delivery::{NewTask, TargetRow, Targets},
    },
};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create).layer(from_fn(linger)))
        .routes(routes!(template))
        .routes(routes!(one))
        .routes(routes!(deliveries))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(cancel))
        .routes(routes!(retry))
}

/// Which tasks are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TaskQuery {
    /// Entries at most, 1 to 500; default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only tasks for devices of this product.
    #[param(value_type = Option<String>)]
    product: Option<ProductId>,
    /// Only tasks that deliver this resource.
    #[param(schema_with = super::schema::id)]
    resource: Option<Id>,
    /// Only tasks in this state.
    #[param(schema_with = super::schema::run_state)]
    run: Option<RunState>,
}

/// Lists tasks, newest first.
#[utoipa::path(get, path = "/tasks", tag = "tasks", params(TaskQuery),
    responses((status = 200, body = PageView<TaskView>), Problems))]
async fn list(
    _viewer: Viewer,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<TaskQuery>,
) -> Result<Json<PageView<TaskView>>, Problem> {
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .page()?;
    let filter = TaskFilter {
        product: query.product,
        resource: query.resource,
        run: query.run,
    };
    Ok(Json(PageView::of(
        state.delivery.tasks(&filter, &page).await?,
    )))
}

/// Makes a task. It is made whole or not at all; every device that cannot be used is named.
#[utoipa::path(post, path = "/tasks", tag = "tasks",
    request_body(content((NewTaskBody = "application/json"), (NewTaskForm = "multipart/form-data"))),
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 ASCII characters")),
    responses((status = 201, body = TaskView), Problems))]
async fn create(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    request: Request,
) -> Result<Response, Problem> {
    let is_form =
        media_type(request.headers()).is_some_and(|essence| essence.starts_with("multipart/"));
    let new = if is_form {
        from_form(request, &state).await?
    } else {
        from_json(request, &state).await?
    };
    create_task(&state, &actor, new).await
}

async fn create_task(state: &ApiState, actor: &Actor, new: NewTask) -> Result<Response, Problem> {
    let view = TaskView::from(state.delivery.create_task(actor, new).await?);
    let location = format!("{BASE}/tasks/{}", view.id());
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(view),
    )
        .into_response())
}

async fn from_json(request: Request, state: &ApiState) -> Result<NewTask, Problem> {
    if media_type(request.headers()).as_deref() != Some("application/json") {
        return Err(Problem::new(
            Kind::UnsupportedMediaType,
            "send the body as application/json, or as multipart/form-data with a CSV",
        ));
    }
    let body: NewTaskBody = parse_json(&buffer(request, state).await?)?;
    let targets = match (body.device_id, body.device_ids, body.node_ids) {
        (Some(device), None, None) => Targets::Devices(vec![device]),
        (None, Some(devices), None) => Targets::Devices(devices),
        (None, None, Some(nodes)) => Targets::DeviceNames(
            (1..)
                .zip(nodes)
                .map(|(row, device_name)| TargetRow { row, device_name })
                .collect(),
        ),
        _ => {
            let detail = "exactly one of device_id, device_ids and node_ids must be given";
            return Err(Problem::field("device_ids", detail));
        }
    };
    Ok(NewTask {
        name: body.name,
        resource_id: body.resource_id,
        targets,
        policy: TaskPolicy {
            max_in_progress: body.policy.max_in_progress,
        },
    })
}

async fn from_form(request: Request, state: &ApiState) -> Result<NewTask, Problem> {
    let max_bytes = state.limits.max_csv_bytes;
    let form = Form::of(request, u64::try_from(max_bytes).unwrap_or(u64::MAX))?;
    let (mut fields, file) = form
        .fields(&["resource_id", "name", "max_in_progress"])
        .await?;
    let resource_id = parsed::<Id>(&mut fields, "resource_id")?.ok_or_else(|| {
        Problem::field("resource_id", "resource_id must stand before the part file")
    })?;
    let max_in_progress = parsed(&mut fields, "max_in_progress")?;
    let name = fields.optional("name");
    let csv = whole(file, max_bytes).await?;
    let rows = device_csv::read(&csv, state.limits.max_task_rows)?;
    let targets = rows
        .into_iter()
        .map(|row| TargetRow {
            row: row.line,
            device_name: row.name,
        })
        .collect();
    Ok(NewTask {
        name,
        resource_id,
        targets: Targets::DeviceNames(targets),
        policy: TaskPolicy { max_in_progress },
    })
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    fields: &mut Fields,
    name: &'static str,
) -> Result<Option<T>, Problem> {
    let Some(text) = fields.optional(name) else {
        return Ok(None);
    };
    let value = text
        .parse()
        .map_err(|error| Problem::field(name, format!("{name}: {error}")))?;
    Ok(Some(value))
}

/// A CSV to be filled in.
#[utoipa::path(get, path = "/tasks/template.csv", tag = "tasks",
    responses((status = 200, content_type = "text/csv", body = String), Problems))]
async fn template(_viewer: Viewer) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"devices.csv\"",
        ),
    ];
    (headers, device_csv::TEMPLATE)
}

/// Shows a task.
#[utoipa::path(get, path = "/tasks/{task}", tag = "tasks",
    params(("task" = String, Path, description = "The task's id")),
    responses((status = 200, body = TaskView), Problems))]
async fn one(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(state.delivery.task(id).await?.into()))
}

/// Which deliveries are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeliveryQuery {
    /// Entries at most, 1 to 500; default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only those in this state.
    #[param(schema_with = super::schema::delivery_state)]
    state: Option<DeliveryState>,
}

/// Lists a task's deliveries.
#[utoipa::path(get, path = "/tasks/{task}/deliveries", tag = "tasks",
    params(("task" = String, Path, description = "The task's id"), DeliveryQuery),
    responses((status = 200, body = PageView<DeliveryView>), Problems))]
async fn deliveries(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
    QueryOf(query): QueryOf<DeliveryQuery>,
) -> Result<Json<PageView<DeliveryView>>, Problem> {
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .page()?;
    let deliveries = state.delivery.deliveries(id, query.state, &page).await?;
    Ok(Json(PageView::of(deliveries)))
}

/// Holds a running task: nothing more of it is sent until it is resumed.
#[utoipa::path(post, path = "/tasks/{task}/pause", tag = "tasks",
    params(("task" = String, Path, description = "The task's id")),
    responses((status = 200, body = TaskView), Problems))]
async fn pause(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(state.delivery.pause_task(&actor, id).await?.into()))
}

/// Lets a paused task go on.
#[utoipa::path(post, path = "/tasks/{task}/resume", tag = "tasks",
    params(("task" = String, Path, description = "The task's id")),
    responses((status = 200, body = TaskView), Problems))]
async fn resume(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(state.delivery.resume_task(&actor, id).await?.into()))
}

/// Cancels what of a task has not been delivered; its devices are told.
#[utoipa::path(post, path = "/tasks/{task}/cancel", tag = "tasks",
    params(("task" = String, Path, description = "The task's id")),
    responses((status = 200, body = TaskView), Problems))]
async fn cancel(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(state.delivery.cancel_task(&actor, id).await?.into()))
}

/// Tries every failed delivery of a task again, each as a new attempt.
#[utoipa::path(post, path = "/tasks/{task}/retry", tag = "tasks",
    params(("task" = String, Path, description = "The task's id")),
    responses((status = 200, body = TaskView), Problems))]
async fn retry(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(state.delivery.retry_task(&actor, id).await?.into()))
}
