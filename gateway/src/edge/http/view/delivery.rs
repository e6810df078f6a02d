//! Resources, tasks and deliveries as the API shows and takes them.

use headgate_protocol::identity::{DeviceId, NodeId, ProductId, ResourceName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::policy::{TargetFilterView, TaskPolicyView};
use crate::{
    edge::http::schema,
    model::{
        CreationState, DeliveryState, Id, Millis, Resource, RunState, StateCounts, TargetFilter,
        TaskPolicy,
    },
    service::delivery::{
        DeliveryView as DeliveryStanding, TaskEvent, TaskView as TaskStanding, TimelineEntry,
    },
};

/// Named bytes that are delivered to devices, as the current version makes them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Resource)]
pub struct ResourceView {
    /// Its id.
    #[schema(schema_with = schema::id)]
    id: Id,
    /// The product whose devices it is for.
    #[schema(value_type = String)]
    product_id: ProductId,
    /// Its name, unique in its product.
    #[schema(value_type = String)]
    name: ResourceName,
    /// Up to 100 characters.
    description: String,
    /// The current version, counted from 1.
    version: u32,
    /// Bytes.
    size: u64,
    /// SHA-256 of the bytes.
    #[schema(schema_with = schema::hex)]
    sha256: String,
    /// MD5 of the bytes.
    #[schema(schema_with = schema::hex)]
    md5: String,
    /// When it was made.
    #[schema(schema_with = schema::time)]
    created_at: Millis,
    /// When it was last changed.
    #[schema(schema_with = schema::time)]
    updated_at: Millis,
}

impl ResourceView {
    /// The resource's id.
    pub(in crate::edge::http) const fn id(&self) -> Id {
        self.id
    }
}

impl From<Resource> for ResourceView {
    fn from(resource: Resource) -> Self {
        Self {
            id: resource.id,
            product_id: resource.product_id,
            name: resource.name,
            description: resource.description,
            version: resource.version,
            size: resource.size,
            sha256: hex::encode(resource.sha256),
            md5: hex::encode(resource.md5),
            created_at: resource.created_at,
            updated_at: resource.updated_at,
        }
    }
}

/// What of a resource can be changed without its bytes; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"description": "Stable"}))]
pub struct ResourcePatchBody {
    /// 1 to 32 characters: letters, digits, CJK, `_`, `-`, `(` and `)`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(in crate::edge::http) name: Option<ResourceName>,
    /// Up to 100 characters.
    #[serde(default)]
    pub(in crate::edge::http) description: Option<String>,
}

/// How many deliveries are in each state.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = StateCounts)]
pub struct CountsView {
    /// They wait.
    pending: u64,
    /// The device knows of them.
    pushed: u64,
    /// Bytes are on their way.
    delivering: u64,
    /// The device has them.
    delivered: u64,
    /// They failed.
    failed: u64,
}

impl From<StateCounts> for CountsView {
    fn from(counts: StateCounts) -> Self {
        Self {
            pending: counts.pending,
            pushed: counts.pushed,
            delivering: counts.delivering,
            delivered: counts.delivered,
            failed: counts.failed,
        }
    }
}

/// One resource on its way to a set of devices.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Task)]
pub struct TaskView {
    /// Its id.
    #[schema(schema_with = schema::id)]
    id: Id,
    /// A label.
    name: String,
    /// What it delivers.
    #[schema(schema_with = schema::id)]
    resource_id: Id,
    /// The version that was current when it was made.
    resource_version: u32,
    /// The product of the resource and of every device.
    #[schema(value_type = String)]
    product_id: ProductId,
    /// How far its making is.
    #[schema(schema_with = schema::creation_state)]
    creation: CreationState,
    /// How far its running is.
    #[schema(schema_with = schema::run_state)]
    run: RunState,
    /// How it runs.
    #[schema(value_type = TaskPolicyView)]
    policy: TaskPolicy,
    /// Whom it is made for, where that is no list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TargetFilterView>)]
    filter: Option<TargetFilter>,
    /// Why it could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_error: Option<String>,
    /// When it went on from its canary to all devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    promoted_at: Option<Millis>,
    /// Deliveries that it has.
    total: u32,
    /// How many of them are in each state.
    counts: CountsView,
    /// When it was made.
    #[schema(schema_with = schema::time)]
    created_at: Millis,
    /// When its last delivery ended, or it was cancelled; absent: it has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    finished_at: Option<Millis>,
    /// The operator or token that made it.
    created_by: String,
}

impl TaskView {
    /// The task's id.
    pub(in crate::edge::http) const fn id(&self) -> Id {
        self.id
    }
}

impl From<TaskStanding> for TaskView {
    fn from(standing: TaskStanding) -> Self {
        let task = standing.task;
        Self {
            id: task.id,
            name: task.name,
            resource_id: task.resource_id,
            resource_version: task.resource_version,
            product_id: task.product_id,
            creation: task.creation,
            run: task.run,
            policy: task.policy,
            filter: task.filter,
            creation_error: task.creation_error,
            promoted_at: task.promoted_at,
            total: task.total,
            counts: standing.counts.into(),
            created_at: task.created_at,
            finished_at: task.finished_at,
            created_by: task.created_by,
        }
    }
}

/// A change of a task; what is left out stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TaskPatch, example = json!({"policy": {"max_in_progress": 500}}))]
pub struct TaskPatchBody {
    /// Another label, 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64)]
    pub(in crate::edge::http) name: Option<String>,
    /// Rules to replace; `null` for one takes it away.
    #[schema(value_type = Option<TaskPolicyView>)]
    pub(in crate::edge::http) policy: Option<serde_json::Value>,
}

/// A task to be made; exactly one of `device_id`, `device_ids`, `node_ids` and `filter` says to whom.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"resource_id": "02xk3fvq5m8g0", "device_ids": ["sensor_d1"], "policy": {"pace": {"per_minute": 50}}}))]
pub struct NewTaskBody {
    /// What to deliver, in its current version.
    #[schema(schema_with = schema::id)]
    pub(in crate::edge::http) resource_id: Id,
    /// A label of 1 to 64 characters; default: name and version of the resource.
    #[serde(default)]
    pub(in crate::edge::http) name: Option<String>,
    /// To this device.
    #[serde(default)]
    pub(in crate::edge::http) device_id: Option<String>,
    /// To these devices, at most 10,000.
    #[serde(default)]
    pub(in crate::edge::http) device_ids: Option<Vec<String>>,
    /// To these devices of the resource's product, at most 10,000.
    #[serde(default)]
    pub(in crate::edge::http) node_ids: Option<Vec<String>>,
    /// To all devices of the resource's product that this lets through, found in the background.
    #[serde(default)]
    #[schema(value_type = Option<TargetFilterView>)]
    pub(in crate::edge::http) filter: Option<TargetFilter>,
    /// How.
    #[serde(default)]
    #[schema(value_type = TaskPolicyView)]
    pub(in crate::edge::http) policy: TaskPolicy,
}

/// Which deliveries of a task are meant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"delivery_ids": ["02xk3fvq5m8g0"]}))]
pub struct ChosenBody {
    /// Their ids, at most 10,000.
    #[schema(value_type = Vec<String>)]
    pub(in crate::edge::http) delivery_ids: Vec<Id>,
}

/// A task to be made from a CSV, as parts of a form; `file` is the last part.
#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "describes the form; its parts are read one by one"
)]
pub struct NewTaskForm {
    /// What to deliver, in its current version.
    #[schema(schema_with = schema::id)]
    resource_id: Id,
    /// A label of 1 to 64 characters; default: name and version of the resource.
    name: Option<String>,
    /// Deliveries that may be in progress at once.
    max_in_progress: Option<u32>,
    /// How, as JSON of the same form as in a JSON body.
    #[schema(value_type = Option<TaskPolicyView>)]
    policy: Option<String>,
    /// CSV with the column `DeviceName` and at most 10,000 rows.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// A resource to be uploaded, as parts of a form; `file` is the last part.
#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "describes the form; its parts are read one by one"
)]
pub struct NewResourceForm {
    /// The product whose devices it is for.
    product: String,
    /// 1 to 32 characters: letters, digits, CJK, `_`, `-`, `(` and `)`; unique in the product.
    name: String,
    /// Up to 100 characters.
    description: Option<String>,
    /// SHA-256 that the bytes must have, in hexadecimal.
    sha256: Option<String>,
    /// MD5 that the bytes must have, in hexadecimal.
    md5: Option<String>,
    /// How many bytes there must be.
    size: Option<u64>,
    /// The bytes, up to 1,024 MiB.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// One resource on its way to one device, as its latest attempt stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub struct DeliveryView {
    /// Its id, the same for every attempt.
    #[schema(schema_with = schema::id)]
    id: Id,
    /// The task that it is part of.
    #[schema(schema_with = schema::id)]
    task_id: Id,
    /// To which device.
    #[schema(value_type = String)]
    device_id: DeviceId,
    /// The device's id within its product.
    #[schema(value_type = String)]
    node_id: NodeId,
    /// Which attempt, counted from 1.
    attempt: u32,
    /// How far it is.
    #[schema(schema_with = schema::delivery_state)]
    state: DeliveryState,
    /// 0 to 100 while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
    /// Why it does not get on just now, for example `offline` or `device_busy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    waiting: Option<serde_json::Value>,
    /// Why it failed, for example `canceled` or `incomplete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// More about the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// When the attempt became pending.
    #[schema(schema_with = schema::time)]
    created_at: Millis,
    /// When the device was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    pushed_at: Option<Millis>,
    /// When the first bytes went out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    delivering_at: Option<Millis>,
    /// When it was delivered or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    finished_at: Option<Millis>,
}

impl From<DeliveryStanding> for DeliveryView {
    fn from(standing: DeliveryStanding) -> Self {
        let delivery = standing.delivery;
        Self {
            id: delivery.id,
            task_id: delivery.task_id,
            device_id: delivery.device_id,
            node_id: delivery.node_id,
            attempt: delivery.attempt,
            state: delivery.state,
            percent: standing.percent,
            waiting: standing
                .waiting
                .and_then(|reason| serde_json::to_value(reason).ok()),
            reason: delivery.reason,
            detail: delivery.detail,
            created_at: delivery.created_at,
            pushed_at: delivery.pushed_at,
            delivering_at: delivery.delivering_at,
            finished_at: delivery.finished_at,
        }
    }
}

/// What happened to a task.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskEvent)]
pub struct TaskEventView {
    /// The task as it stands.
    task: TaskView,
    /// Deliveries that changed since the event before, at most 500; absent in a snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<Vec<DeliveryView>>,
    /// How many more changed.
    omitted: usize,
}

impl From<TaskEvent> for TaskEventView {
    fn from(event: TaskEvent) -> Self {
        let views = |deliveries: Vec<DeliveryStanding>| {
            deliveries.into_iter().map(DeliveryView::from).collect()
        };
        Self {
            task: event.task.into(),
            deliveries: event.deliveries.map(views),
            omitted: event.omitted,
        }
    }
}

/// One state that an attempt of a delivery came to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TimelineEntry)]
pub struct TimelineEntryView {
    /// Which attempt, counted from 1.
    attempt: u32,
    /// Which state.
    #[schema(schema_with = schema::delivery_state)]
    state: DeliveryState,
    /// When.
    #[schema(schema_with = schema::time)]
    at: Millis,
    /// Why, for a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// More about the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl From<TimelineEntry> for TimelineEntryView {
    fn from(entry: TimelineEntry) -> Self {
        Self {
            attempt: entry.attempt,
            state: entry.state,
            at: entry.at,
            reason: entry.reason,
            detail: entry.detail,
        }
    }
}
