//! The rules: who may do what, what is delivered to whom, and what is kept.
//!
//! Services own no sockets and speak no SQL; edges and sessions call them, stores serve them.

pub mod account;
pub mod app;
pub mod auth;
pub mod changes;
pub mod cluster;
pub mod delivery;
pub mod link;
pub mod node;
pub mod presence;
pub mod registration;
pub mod registry;
pub mod resource;
pub mod seal;
pub mod space;
pub mod topics;
pub mod uplink;
pub mod upload;
pub mod vendor;
pub mod will;

/// How lists are narrowed and records changed, for callers that know no store.
pub use crate::store::registry::{
    AppFilter, AppPatch, AuditFilter, DeviceFilter, DevicePatch, DeviceSlots, OperatorPatch,
    ResourceFilter, ResourcePatch, TaskFilter, UploadFilter,
};
