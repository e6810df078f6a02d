//! Whom a task is for: devices by id, or by their name in a CSV, every wrong row named at once.

use std::collections::{HashMap, HashSet};

use headgate_protocol::identity::{DeviceId, NodeId};
use serde::Serialize;

use super::{DeliveryError, DeliveryService};
use crate::model::{Device, Product, TargetFilter};

/// The devices of a task.
#[derive(Debug, Clone)]
pub enum Targets {
    /// Device ids.
    Devices(Vec<String>),
    /// Rows of a CSV, each with a device's name within the resource's product.
    DeviceNames(Vec<TargetRow>),
    /// Those of the resource's product that a filter lets through, found in the background.
    Filter(TargetFilter),
}

/// One row of a CSV.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRow {
    /// The line in the file, counted from 1.
    pub row: u32,
    /// The `DeviceName` column.
    pub device_name: String,
}

/// What is wrong with one device of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowError {
    /// The line in the file, or the place in the list, counted from 1.
    pub row: u32,
    /// The device as it was named.
    pub device: String,
    /// The kind of error.
    pub code: RowErrorCode,
    /// One sentence.
    pub message: String,
}

/// The kinds of error of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowErrorCode {
    /// No device has this name.
    UnknownDevice,
    /// The device stands in an earlier row, too.
    Duplicate,
    /// The device is of another product than the resource.
    WrongProduct,
    /// The text cannot be a device's name.
    InvalidName,
}

impl DeliveryService {
    /// The devices that the targets name, in their order.
    pub(super) async fn resolve(
        &self,
        product: &Product,
        targets: Targets,
    ) -> Result<Vec<(DeviceId, NodeId)>, DeliveryError> {
        let limit = self.inner.config.max_task_rows;
        let count = match &targets {
            Targets::Devices(ids) => ids.len(),
            Targets::DeviceNames(rows) => rows.len(),
            Targets::Filter(_) => 0,
        };
        if count == 0 || count > limit {
            return Err(DeliveryError::Invalid {
                field: "devices",
                reason: format!("must be 1 to {limit} devices"),
            });
        }
        let (rows, devices) = match targets {
            Targets::Devices(ids) => {
                let rows: Vec<TargetRow> = (1..)
                    .zip(ids)
                    .map(|(row, device_name)| TargetRow { row, device_name })
                    .collect();
                let legal: Vec<DeviceId> = rows
                    .iter()
                    .filter_map(|row| row.device_name.parse().ok())
                    .collect();
                let found = self.inner.registry.devices_by_ids(&legal).await?;
                (
                    rows,
                    found
                        .into_iter()
                        .map(|device| (device.id.to_string(), device))
                        .collect(),
                )
            }
            Targets::DeviceNames(rows) => {
                let legal: Vec<NodeId> = rows
                    .iter()
                    .filter_map(|row| row.device_name.parse().ok())
                    .collect();
                let found = self
                    .inner
                    .registry
                    .devices_by_node_ids(&product.id, &legal)
                    .await?;
                (
                    rows,
                    found
                        .into_iter()
                        .map(|device| (device.node_id.to_string(), device))
                        .collect(),
                )
            }
            Targets::Filter(_) => (Vec::new(), HashMap::new()),
        };
        pick(product, rows, &devices)
    }
}

/// Matches each row with its device and collects every error.
fn pick(
    product: &Product,
    rows: Vec<TargetRow>,
    devices: &HashMap<String, Device>,
) -> Result<Vec<(DeviceId, NodeId)>, DeliveryError> {
    let mut seen = HashSet::with_capacity(rows.len());
    let mut picked = Vec::with_capacity(rows.len());
    let mut errors = Vec::new();
    for row in rows {
        let wrong = match devices.get(&row.device_name) {
            _ if !seen.insert(row.device_name.clone()) => (
                RowErrorCode::Duplicate,
                "the device stands in an earlier row, too",
            ),
            Some(device) if device.product_id != product.id => (
                RowErrorCode::WrongProduct,
                "the device is of another product than the resource",
            ),
            Some(device) => {
                picked.push((device.id.clone(), device.node_id.clone()));
                continue;
            }
            None if DeviceId::new(&row.device_name).is_err() => (
                RowErrorCode::InvalidName,
                "this cannot be the name of a device",
            ),
            None => (RowErrorCode::UnknownDevice, "no device has this name"),
        };
        let (code, message) = wrong;
        errors.push(RowError {
            row: row.row,
            device: row.device_name,
            code,
            message: message.to_owned(),
        });
    }
    if errors.is_empty() {
        Ok(picked)
    } else {
        Err(DeliveryError::Rows(errors))
    }
}
