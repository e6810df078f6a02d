//! `/nodes`: whether the gateway is well, and what can be asked of it as a process.

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::{Admin, Viewer},
    extract::{JsonBody, PathOf, QueryOf},
    problem::Problem,
    schema,
    view::{PageQuery, PageView, invalid_page},
};
use crate::{
    model::{InvalidField, Millis, Paged},
    service::{
        cluster::NodeCheck,
        node::{Evacuation, NodeHealth},
    },
};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one))
        .routes(routes!(drain))
        .routes(routes!(evacuate))
        .routes(routes!(reload))
}

/// One process of the gateway.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
struct NodeView {
    /// Its id: the name of its machine, or what it is configured to be.
    id: String,
    /// Where operators find it, where that is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The program's version.
    version: String,
    /// How far it is.
    #[schema(schema_with = schema::node_state)]
    state: &'static str,
    /// When it started.
    #[schema(schema_with = schema::time)]
    started_at: Millis,
    /// What is looked at; what is wrong has a `reason`.
    checks: Vec<CheckView>,
    /// Devices that are connected to it.
    devices: usize,
    /// Sessions of applications by MQTT.
    applications: usize,
}

/// Something that must be well for a node to be ready.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Check)]
struct CheckView {
    /// What: `node`, `registry` or `sessions`.
    name: String,
    /// Whether it is well.
    ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<NodeCheck> for CheckView {
    fn from(check: NodeCheck) -> Self {
        Self {
            name: check.name,
            ok: check.failure.is_none(),
            reason: check.failure,
        }
    }
}

/// What came of looking at the certificates.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reloaded)]
struct ReloadedView {
    /// How many had changed, and are served from here on.
    certificates_changed: usize,
}

/// Lists the nodes in the order of their ids.
#[utoipa::path(get, path = "/nodes", tag = "nodes", params(PageQuery),
    responses((status = 200, body = PageView<NodeView>)))]
async fn list(
    _viewer: Viewer,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<PageView<NodeView>>, Problem> {
    let page = query.page()?;
    let after = page.after().map_err(invalid_page)?;
    let mut nodes = state.nodes.nodes();
    nodes.retain(|node| after.as_ref().is_none_or(|after| node.id > *after));
    let nodes = Paged::cut(nodes, page.limit, |node| node.id.clone());
    Ok(Json(PageView::of(nodes.map(view))))
}

/// Shows a node.
#[utoipa::path(get, path = "/nodes/{node}", tag = "nodes",
    params(("node" = String, Path, description = "The node's id")),
    responses((status = 200, body = NodeView)))]
async fn one(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<String>,
) -> Result<Json<NodeView>, Problem> {
    Ok(Json(view(state.nodes.node(&id)?)))
}

/// Has a node drain and stop: it lets nobody in any more, and its devices are told to go at a rate. Nothing takes it
/// back.
#[utoipa::path(post, path = "/nodes/{node}/drain", tag = "nodes",
    params(("node" = String, Path, description = "The node's id")),
    responses((status = 202, body = NodeView, description = "It has begun.")))]
async fn drain(
    Admin(actor): Admin,
    State(state): State<ApiState>,
    PathOf(id): PathOf<String>,
) -> Result<(StatusCode, Json<NodeView>), Problem> {
    let node = state.nodes.drain(&actor, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(view(node))))
}

/// Which clients of a node are to go.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Evacuation)]
struct EvacuationBody {
    /// How many of each hundred: 1 to 100; all unless given.
    #[schema(minimum = 1, maximum = 100)]
    percent: Option<u8>,
    /// Clients told in a second; as when the node stops (`shutdown.disconnect_rate`) unless given.
    #[schema(minimum = 1)]
    per_second: Option<u32>,
}

/// Has clients of a node told to go to another one, at a rate: MQTT 5 clients with 0x9C, and the server reference where one
/// is configured. The node goes on and lets in who comes, so a balancer in front decides where they go.
#[utoipa::path(post, path = "/nodes/{node}/evacuate", tag = "nodes", request_body = EvacuationBody,
    params(("node" = String, Path, description = "The node's id")),
    responses((status = 202, body = NodeView, description = "It has begun.")))]
async fn evacuate(
    Admin(actor): Admin,
    State(state): State<ApiState>,
    PathOf(id): PathOf<String>,
    JsonBody(body): JsonBody<EvacuationBody>,
) -> Result<(StatusCode, Json<NodeView>), Problem> {
    let percent = body.percent.unwrap_or(100);
    if !(1..=100).contains(&percent) {
        return Err(InvalidField::new("percent", "is not from 1 to 100").into());
    }
    if body.per_second == Some(0) {
        return Err(InvalidField::new("per_second", "is 0").into());
    }
    let evacuation = Evacuation {
        percent,
        per_second: body.per_second,
    };
    let node = state.nodes.evacuate(&actor, &id, evacuation).await?;
    Ok((StatusCode::ACCEPTED, Json(view(node))))
}

/// Has a node look at its configuration and the files of its certificates now, as SIGHUP does. One that cannot be used is 409, and those from
/// before are still served.
#[utoipa::path(post, path = "/nodes/{node}/reload", tag = "nodes",
    params(("node" = String, Path, description = "The node's id")),
    responses((status = 200, body = ReloadedView)))]
async fn reload(
    Admin(actor): Admin,
    State(state): State<ApiState>,
    PathOf(id): PathOf<String>,
) -> Result<Json<ReloadedView>, Problem> {
    let certificates_changed = state.nodes.reload(&actor, &id).await?;
    Ok(Json(ReloadedView {
        certificates_changed,
    }))
}

fn view(node: NodeHealth) -> NodeView {
    NodeView {
        id: node.id,
        address: node.address,
        version: node.version,
        state: node.state.as_str(),
        started_at: node.started_at,
        checks: node.checks.into_iter().map(CheckView::from).collect(),
        devices: node.load.devices,
        applications: node.load.applications,
    }
}
