//! Whom a task is for: devices by id, or by their name in a CSV, every wrong row named at once.

use std::collections::{HashMap, HashSet};

use headgate_protocol::identity::{DeviceId, NodeId};
use serde::Serialize;

use super::{DeliveryError, DeliveryService, NewTask, creation::lets_through};
use crate::model::{DeviceName, Product, Resource, TargetFilter};

/// Blocks of devices that are looked at to say how many a filter lets through.
const COUNTED_BLOCKS: usize = 5;

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

/// What a task would be if it were made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// What it would deliver.
    pub resource: Resource,
    /// To how many devices; `None`: too many fit the filter, or are to be looked at, to be counted at once.
    pub devices: Option<usize>,
    /// To how many at most.
    pub limit: usize,
}

impl DeliveryService {
    /// Checks everything about a task that can be checked before it is made.
    ///
    /// # Errors
    /// As [`DeliveryService::create_task`].
    pub async fn preview_task(&self, new: &NewTask) -> Result<Preview, DeliveryError> {
        let registry = &self.inner.registry;
        let resource = registry.resource(new.resource_id).await?;
        let resource = resource.ok_or(DeliveryError::NotFound("resource"))?;
        let product = registry.product(&resource.product_id).await?;
        let product = product.ok_or(DeliveryError::NotFound("product"))?;
        new.policy.validate()?;
        if let Some(name) = &new.name {
            super::task::check_name(name)?;
        }
        let (devices, limit) = match &new.targets {
            Targets::Filter(filter) => (
                self.count_targets(&product, filter).await?,
                self.inner.config.max_filter_devices,
            ),
            rows => (
                Some(self.resolve(&product, rows.clone()).await?.len()),
                self.inner.config.max_task_rows,
            ),
        };
        Ok(Preview {
            resource,
            devices,
            limit,
        })
    }

    /// How many devices a filter lets through; `None` where that takes long to say.
    async fn count_targets(
        &self,
        product: &Product,
        filter: &TargetFilter,
    ) -> Result<Option<usize>, DeliveryError> {
        let mut after: Option<DeviceId> = None;
        let mut count = 0;
        for _ in 0..COUNTED_BLOCKS {
            let registry = &self.inner.registry;
            let block = registry
                .target_devices(&product.id, filter.app.as_ref(), after.as_ref())
                .await?;
            let Some(last) = block.last() else {
                return Ok(Some(count));
            };
            after = Some(last.id.clone());
            count += block
                .iter()
                .filter(|device| lets_through(filter, device))
                .count();
        }
        Ok(None)
    }

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
                let found = self.inner.registry.names_by_ids(&legal).await?;
                (
                    rows,
                    found
                        .into_iter()
                        .map(|device| (device.device_id.to_string(), device))
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
                    .names_by_node_ids(&product.id, &legal)
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
    devices: &HashMap<String, DeviceName>,
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
                picked.push((device.device_id.clone(), device.node_id.clone()));
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
