//! `/tasks`: one resource to one device, to a list or to the rows of a CSV.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
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
    device_csv, events,
    extract::{JsonBody, PathOf, QueryOf, buffer, media_type, parse_json},
    form::{Fields, Form, whole},
    linger::linger,
    openapi::BASE,
    problem::{Kind, Problem},
    report, tag,
    view::{
        ChosenBody, DeliveryView, NewTaskBody, NewTaskForm, PageQuery, PageView, TaskPatchBody,
        TaskView,
    },
};
use crate::{
    model::{Actor, DeliveryState, Id, RunState, TaskPolicy},
    service::{
        TaskFilter,
        delivery::{
            Chosen, DeliveryError, NewTask, TargetRow, Targets, TaskEdit, TaskView as TaskStanding,
        },
    },
};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create).layer(from_fn(linger)))
        .routes(routes!(template))
        .routes(routes!(one, edit, delete))
        .routes(routes!(deliveries))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(cancel))
        .routes(routes!(retry))
        .routes(routes!(promote))
        .routes(routes!(events::watch))
        .routes(routes!(report::download))
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
    responses((status = 200, body = PageView<TaskView>)))]
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
    responses((status = 201, body = TaskView)))]
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
    let (delivery, actor) = (state.delivery.clone(), actor.clone());
    let creating = async move { delivery.create_task(&actor, new).await };
    let view = TaskView::from(carry_through(state, creating).await?);
    let location = format!("{BASE}/tasks/{}", view.id());
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(view),
    )
        .into_response())
}

/// Carries a change through to its end, also when the client goes away meanwhile: a task is never left half
/// opened or half cancelled.
pub(super) async fn carry_through<T: Send + 'static>(
    state: &ApiState,
    change: impl Future<Output = Result<T, DeliveryError>> + Send + 'static,
) -> Result<T, Problem> {
    match state.shutdown.spawn(change).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(Problem::internal(&error)),
    }
}

async fn from_json(request: Request, state: &ApiState) -> Result<NewTask, Problem> {
    if media_type(request.headers()).as_deref() != Some("application/json") {
        return Err(Problem::new(
            Kind::UnsupportedMediaType,
            "send the body as application/json, or as multipart/form-data with a CSV",
        ));
    }
    let body: NewTaskBody = parse_json(&buffer(request, state).await?)?;
    let targets = match (body.device_id, body.device_ids, body.node_ids, body.filter) {
        (Some(device), None, None, None) => Targets::Devices(vec![device]),
        (None, Some(devices), None, None) => Targets::Devices(devices),
        (None, None, None, Some(filter)) => Targets::Filter(filter),
        (None, None, Some(nodes), None) => Targets::DeviceNames(
            (1..)
                .zip(nodes)
                .map(|(row, device_name)| TargetRow { row, device_name })
                .collect(),
        ),
        _ => {
            let detail = "exactly one of device_id, device_ids, node_ids and filter must be given";
            return Err(Problem::field("device_ids", detail));
        }
    };
    Ok(NewTask {
        name: body.name,
        resource_id: body.resource_id,
        targets,
        policy: body.policy,
    })
}

async fn from_form(request: Request, state: &ApiState) -> Result<NewTask, Problem> {
    let max_bytes = state.limits.max_csv_bytes;
    let form = Form::of(request, u64::try_from(max_bytes).unwrap_or(u64::MAX))?;
    let (mut fields, file) = form
        .fields(&["resource_id", "name", "max_in_progress", "policy"])
        .await?;
    let resource_id = parsed::<Id>(&mut fields, "resource_id")?.ok_or_else(|| {
        Problem::field("resource_id", "resource_id must stand before the part file")
    })?;
    let policy = form_policy(&mut fields)?;
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
        policy,
    })
}

/// The policy of a form: JSON in the field `policy`, or `max_in_progress` alone.
fn form_policy(fields: &mut Fields) -> Result<TaskPolicy, Problem> {
    let max_in_progress = parsed(fields, "max_in_progress")?;
    let mut policy: TaskPolicy = match fields.optional("policy") {
        Some(text) => parse_json(text.as_bytes()).map_err(|problem| problem.within("policy"))?,
        None => TaskPolicy::default(),
    };
    policy.max_in_progress = policy.max_in_progress.or(max_in_progress);
    Ok(policy)
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
    responses((status = 200, content_type = "text/csv", body = String)))]
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
    responses((status = 200, body = TaskView)))]
async fn one(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<impl IntoResponse, Problem> {
    Ok(tagged(state.delivery.task(id).await?))
}

/// A task with the tag that a change of it can ask for.
fn tagged(standing: TaskStanding) -> impl IntoResponse {
    let tag = format!("\"{}\"", standing.task.revision());
    ([(header::ETAG, tag)], Json(TaskView::from(standing)))
}

/// Changes a task's name or policy. `policy` is a merge patch: `null` takes a rule away, what it leaves out stays. What
/// may be changed depends on how far the task is.
#[utoipa::path(patch, path = "/tasks/{task}", tag = "tasks", request_body = TaskPatchBody,
    params(("task" = String, Path, description = "The task's id"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the task as it was read")),
    responses((status = 200, body = TaskView)))]
async fn edit(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<TaskPatchBody>,
) -> Result<impl IntoResponse, Problem> {
    let change = TaskEdit {
        name: body.name,
        policy: body.policy,
        revision: tag::expected(&headers)?,
    };
    let delivery = state.delivery.clone();
    let editing = async move { delivery.edit_task(&actor, id, change).await };
    Ok(tagged(carry_through(&state, editing).await?))
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
    responses((status = 200, body = PageView<DeliveryView>)))]
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
    responses((status = 200, body = TaskView)))]
async fn pause(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<TaskView>, Problem> {
    let delivery = state.delivery.clone();
    let pausing = async move { delivery.pause_task(&actor, id).await };
    Ok(Json(carry_through(&state, pausing).await?.into()))
}

/// Lets a paused task go on.
#[utoipa::path(post, path = "/tasks/{task}/resume", tag = "tasks",
    params(("task" = String, Path, description = "The task's id")),
    responses((status = 200, body = TaskView)))]
async fn resume(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<TaskView>, Problem> {
    let delivery = state.delivery.clone();
    let resuming = async move { delivery.resume_task(&actor, id).await };
    Ok(Json(carry_through(&state, resuming).await?.into()))
}

/// Cancels what of a task has not been delivered, all of it or the deliveries in the body; the
/// devices are told.
#[utoipa::path(post, path = "/tasks/{task}/cancel", tag = "tasks",
    params(("task" = String, Path, description = "The task's id")),
    request_body = Option<ChosenBody>,
    responses((status = 200, body = TaskView)))]
async fn cancel(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
    request: Request,
) -> Result<Json<TaskView>, Problem> {
    let chosen = chosen(request, &state).await?;
    let delivery = state.delivery.clone();
    let canceling = async move { delivery.cancel_task(&actor, id, chosen).await };
    Ok(Json(carry_through(&state, canceling).await?.into()))
}

/// Tries failed deliveries of a task again, all of them or those in the body, each as a new attempt.
#[utoipa::path(post, path = "/tasks/{task}/retry", tag = "tasks",
    params(("task" = String, Path, description = "The task's id")),
    request_body = Option<ChosenBody>,
    responses((status = 200, body = TaskView)))]
async fn retry(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
    request: Request,
) -> Result<Json<TaskView>, Problem> {
    let chosen = chosen(request, &state).await?;
    let delivery = state.delivery.clone();
    let retrying = async move { delivery.retry_task(&actor, id, chosen).await };
    Ok(Json(carry_through(&state, retrying).await?.into()))
}

/// Which deliveries a request means: those of its body, or all where it has none.
async fn chosen(request: Request, state: &ApiState) -> Result<Chosen, Problem> {
    let body = buffer(request, state).await?;
    if body.is_empty() {
        return Ok(Chosen::All);
    }
    let body: ChosenBody = parse_json(&body)?;
    let most = usize::try_from(state.limits.max_task_rows).unwrap_or(usize::MAX);
    if body.delivery_ids.is_empty() || body.delivery_ids.len() > most {
        let detail = format!("delivery_ids must have 1 to {most} entries");
        return Err(Problem::field("delivery_ids", detail));
    }
    Ok(Chosen::These(body.delivery_ids))
}

/// Lets a task go on from its canary to all devices.
#[utoipa::path(post, path = "/tasks/{task}/promote", tag = "tasks",
    params(("task" = String, Path, description = "The task's id")),
    responses((status = 200, body = TaskView)))]
async fn promote(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<TaskView>, Problem> {
    let delivery = state.delivery.clone();
    let promoting = async move { delivery.promote_task(&actor, id).await };
    Ok(Json(carry_through(&state, promoting).await?.into()))
}

/// Deletes a task that has ended, with its deliveries.
#[utoipa::path(delete, path = "/tasks/{task}", tag = "tasks",
    params(("task" = String, Path, description = "The task's id")),
    responses((status = 204)))]
async fn delete(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<StatusCode, Problem> {
    state.delivery.delete_task(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
