//! The devices that a filter may stand for, in blocks.

use headgate_protocol::identity::{AppId, DeviceId, NodeId, ProductId};

use crate::{
    model::Id,
    store::{
        StoreError,
        registry::{
            BLOCK, Registry,
            rows::Fields,
            sql::{self, Sql},
        },
    },
};

/// A device as far as a filter looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetDevice {
    /// Its id.
    pub id: DeviceId,
    /// Its id within its product.
    pub node_id: NodeId,
    /// Its label.
    pub name: String,
}

impl Registry {
    /// Devices of a product, or those of them that are bound to an application, in the order of their ids: at
    /// most [`BLOCK`] of those after `after`.
    pub async fn target_devices(
        &self,
        product: &ProductId,
        app: Option<&AppId>,
        after: Option<&DeviceId>,
    ) -> Result<Vec<TargetDevice>, StoreError> {
        let mut sql = Sql::new("SELECT id, node_id, name FROM device WHERE product_id = ");
        sql.bind(product.as_str());
        if let Some(app) = app {
            sql.push(" AND id IN (SELECT device_id FROM app_device WHERE app_id = ")
                .bind(app.as_str())
                .push(")");
        }
        sql.push(" AND id > ")
            .bind(after.map_or("", DeviceId::as_str))
            .push(" ORDER BY id LIMIT ")
            .bind(i64::try_from(BLOCK).unwrap_or(i64::MAX));
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        rows.iter()
            .map(|row| {
                let fields = Fields(row);
                Ok(TargetDevice {
                    id: fields.parsed("id")?,
                    node_id: fields.parsed("node_id")?,
                    name: fields.text("name")?.to_owned(),
                })
            })
            .collect()
    }

    /// The last device, in the order of ids, that a task has a delivery to.
    pub async fn last_target(&self, task: Id) -> Result<Option<DeviceId>, StoreError> {
        let row = sql::query("SELECT MAX(device_id) AS last FROM delivery WHERE task_id = $1")
            .bind(task.as_i64())
            .fetch_one(&self.read)
            .await?;
        let fields = Fields(&row);
        match fields.optional_text("last")? {
            Some(_) => fields.parsed("last").map(Some),
            None => Ok(None),
        }
    }
}
