//! Deliveries: their lists, and the steps that one gateway alone stores.

use headgate_protocol::identity::DeviceId;
use sqlx::any::AnyRow;

use crate::{
    model::{
        Delivery, DeliveryChange, DeliveryState, Id, OpenDelivery, Page, Paged, task::CANCELED,
    },
    store::{
        StoreError,
        registry::{
            BLOCK, Registry,
            counts::Moves,
            rows::{Fields, state_number},
            sql::Sql,
            steps::{FREE, rounds},
        },
    },
};

impl Registry {
    /// Deliveries of a task, in the order of their ids: their current attempts.
    pub async fn deliveries(
        &self,
        task: Id,
        state: Option<DeliveryState>,
        page: &Page,
    ) -> Result<Paged<Delivery>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE task_id = ").bind(task.as_i64());
        if let Some(state) = state {
            sql.push(" AND state = ").bind(state_number(state));
        }
        if let Some(after) = super::id_cursor(page)? {
            sql.push(" AND id > ").bind(after);
        }
        sql.push(" ORDER BY id LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let deliveries = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(deliveries, page.limit, |delivery| {
            delivery.id.to_string()
        }))
    }

    /// Deliveries to a device, newest first: their current attempts.
    pub async fn deliveries_to(
        &self,
        device: &DeviceId,
        page: &Page,
    ) -> Result<Paged<Delivery>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE device_id = ").bind(device.as_str());
        if let Some(before) = super::id_cursor(page)? {
            sql.push(" AND id < ").bind(before);
        }
        sql.push(" ORDER BY id DESC LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let deliveries = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(deliveries, page.limit, |delivery| {
            delivery.id.to_string()
        }))
    }

    /// The current attempt of a delivery.
    pub async fn delivery(&self, id: Id) -> Result<Option<Delivery>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE id = ").bind(id.as_i64());
        let row = sql.build(self.dialect)?.fetch_optional(&self.read).await?;
        row.as_ref().map(read).transpose()
    }

    /// Every attempt of a delivery, the first first; none when there is no such delivery.
    pub async fn delivery_attempts(&self, id: Id) -> Result<Vec<Delivery>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.id, d.task_id, d.device_id, d.node_id, a.attempt, a.state, a.reason, a.detail, \
             a.created_at, a.pushed_at, a.delivering_at, a.finished_at \
             FROM delivery d JOIN delivery_attempt a ON a.delivery_id = d.id WHERE d.id = $1 \
             UNION ALL SELECT id, task_id, device_id, node_id, attempt, state, reason, detail, \
             created_at, pushed_at, delivering_at, finished_at FROM delivery WHERE id = $1 ORDER BY attempt",
        )
        .bind(id.as_i64())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Deliveries of a task, all attempts of each in order: those after the delivery `after`, of at most `limit`
    /// deliveries.
    pub async fn delivery_history(
        &self,
        task: Id,
        after: Option<Id>,
        limit: u32,
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut sql = Sql::new("WITH part AS (SELECT id FROM delivery WHERE task_id = ");
        sql.bind(task.as_i64())
            .push(" AND id > ")
            .bind(after.map_or(0, Id::as_i64))
            .push(" ORDER BY id LIMIT ")
            .bind(i64::from(limit))
            .push(
                ") SELECT d.id, d.task_id, d.device_id, d.node_id, a.attempt, a.state, a.reason, a.detail, \
                 a.created_at, a.pushed_at, a.delivering_at, a.finished_at FROM part \
                 JOIN delivery d ON d.id = part.id JOIN delivery_attempt a ON a.delivery_id = d.id \
                 UNION ALL SELECT d.id, d.task_id, d.device_id, d.node_id, d.attempt, d.state, d.reason, \
                 d.detail, d.created_at, d.pushed_at, d.delivering_at, d.finished_at FROM part \
                 JOIN delivery d ON d.id = part.id ORDER BY 1, 5",
            );
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        rows.iter().map(read).collect()
    }

    /// The current attempts of these deliveries of a task, in any order; ids of other tasks and unknown ones are
    /// absent. One query for each [`BLOCK`].
    pub async fn deliveries_by_ids(
        &self,
        task: Id,
        ids: &[Id],
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for block in ids.chunks(BLOCK) {
            let mut sql = Sql::new(SELECT);
            sql.push(" WHERE task_id = ")
                .bind(task.as_i64())
                .push(" AND id IN ")
                .numbers(block.iter().map(|id| id.as_i64()));
            let rows = sql
                .build_rows(self.dialect, block.len())?
                .fetch_all(&self.read)
                .await?;
            for row in &rows {
                found.push(read(row)?);
            }
        }
        Ok(found)
    }

    /// A task's open deliveries, in the order of their ids: at most [`BLOCK`] of those after `after`.
    pub async fn open_deliveries_of(
        &self,
        task: Id,
        after: Option<Id>,
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE task_id = ")
            .bind(task.as_i64())
            .push(" AND state < 3 AND id > ")
            .bind(after.map_or(0, Id::as_i64))
            .push(" ORDER BY id LIMIT ")
            .bind(i64::try_from(BLOCK).unwrap_or(i64::MAX));
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        rows.iter().map(read).collect()
    }

    /// How many deliveries of a task an operator has cancelled.
    pub async fn canceled_deliveries(&self, task: Id) -> Result<u32, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS deliveries FROM delivery WHERE task_id = $1 AND state = 4 AND reason = $2",
        )
        .bind(task.as_i64())
        .bind(CANCELED)
        .fetch_one(&self.read)
        .await?;
        Fields(&row).number("deliveries")
    }

    /// Every delivery that has not ended, oldest first, to go on with after a start; none of a task that is
    /// still being made.
    pub async fn open_deliveries(&self) -> Result<Vec<OpenDelivery>, StoreError> {
        let mut sql = Sql::new(SELECT_OPEN);
        sql.push(" ORDER BY d.id");
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        rows.iter().map(read_open).collect()
    }

    /// Stores steps of deliveries, all or none: one transaction, one to three statements for each [`BLOCK`] of
    /// deliveries, and one for the counts of all their tasks. Returns how many deliveries changed.
    ///
    /// Steps may come late, twice or out of order, and never lead back: within an attempt a state only gives way
    /// to a later one, delivered and failed to none; a greater attempt replaces a smaller one, whose row is kept,
    /// unless the delivery is delivered; a smaller attempt changes nothing.
    pub async fn apply_delivery_changes(
        &self,
        changes: &[DeliveryChange],
    ) -> Result<u64, StoreError> {
        let mut changed = 0;
        let mut moves = Moves::default();
        let mut tx = self.begin().await?;
        for round in rounds(changes) {
            for block in round.chunks(BLOCK) {
                changed += FREE.store(&mut tx, block, &mut moves).await?.len() as u64;
            }
        }
        moves.store(&mut tx).await?;
        tx.commit().await?;
        Ok(changed)
    }
}

fn read(row: &AnyRow) -> Result<Delivery, StoreError> {
    let fields = Fields(row);
    Ok(Delivery {
        id: fields.id("id")?,
        task_id: fields.id("task_id")?,
        device_id: fields.parsed("device_id")?,
        node_id: fields.parsed("node_id")?,
        attempt: fields.number("attempt")?,
        state: fields.state("state")?,
        reason: fields.optional_text("reason")?,
        detail: fields.optional_text("detail")?,
        created_at: fields.time("created_at")?,
        pushed_at: fields.optional_time("pushed_at")?,
        delivering_at: fields.optional_time("delivering_at")?,
        finished_at: fields.optional_time("finished_at")?,
    })
}

/// An open delivery, as [`SELECT_OPEN`] gives it.
pub(super) fn read_open(row: &AnyRow) -> Result<OpenDelivery, StoreError> {
    let fields = Fields(row);
    Ok(OpenDelivery {
        delivery: read(row)?,
        round: fields.number("round")?,
        resource_id: fields.id("resource_id")?,
        resource_version: fields.number("resource_version")?,
        product_id: fields.parsed("product_id")?,
        task_run: fields.parsed("run")?,
    })
}

/// Deliveries that have not ended, of tasks that are made.
pub(super) const SELECT_OPEN: &str = "SELECT d.id, d.task_id, d.device_id, d.node_id, d.attempt, d.state, d.reason, \
     d.detail, d.created_at, d.pushed_at, d.delivering_at, d.finished_at, d.round, d.session_epoch, \
     t.resource_id, t.resource_version, t.product_id, t.run \
     FROM delivery d JOIN task t ON t.id = d.task_id WHERE d.state < 3 AND t.creation = 'created'";
const SELECT: &str = "SELECT id, task_id, device_id, node_id, attempt, state, reason, detail, created_at, \
     pushed_at, delivering_at, finished_at FROM delivery";
