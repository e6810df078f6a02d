//! The rules: who may do what, what is delivered to whom, and what is kept.
//!
//! Services own no sockets and speak no SQL; edges and sessions call them, stores serve them.

pub mod auth;
pub mod delivery;
pub mod presence;
pub mod registry;
pub mod resource;
pub mod seal;
pub mod topics;

/// How lists are narrowed and records changed, for callers that know no store.
pub use crate::store::registry::{
    DeviceFilter, DevicePatch, ResourceFilter, ResourcePatch, TaskFilter,
};
