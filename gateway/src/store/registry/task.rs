//! Tasks and the deliveries that they are made of.

use std::collections::HashMap;

use headgate_protocol::identity::ProductId;
use sqlx::any::AnyRow;

use crate::{
    model::{AuditEntry, Delivery, Id, Millis, Page, Paged, RunState, StateCounts, Task},
    store::{
        StoreError,
        registry::{
            BLOCK, Registry, Tx, counts,
            rows::{self, Fields, state_number},
            sql::{self, Sql},
        },
    },
};

/// Which tasks a list holds; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// That deliver this resource.
    pub resource: Option<Id>,
    /// In this run state.
    pub run: Option<RunState>,
    /// To devices of this product.
    pub product: Option<ProductId>,
}

impl Registry {
    /// Stores a task and all its deliveries, or nothing: one transaction, one statement for each [`BLOCK`] of
    /// deliveries. What only a later step gives a delivery (reason, later stamps) is not stored.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the resource's version or one of the devices is gone.
    pub async fn insert_task(
        &self,
        task: &Task,
        deliveries: &[Delivery],
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let inserted = sql::query(INSERT)
            .bind(task.id.as_i64())
            .bind(task.name.as_str())
            .bind(task.resource_id.as_i64())
            .bind(i64::from(task.resource_version))
            .bind(task.product_id.as_str())
            .bind(task.creation.as_str())
            .bind(task.run.as_str())
            .bind(rows::json("policy", &task.policy)?)
            .bind(i64::from(task.total))
            .bind(task.created_at.as_i64())
            .bind(task.finished_at.map(Millis::as_i64))
            .bind(task.created_by.as_str())
            .bind(optional_json("filter", task.filter.as_ref())?)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if inserted == 0 {
            return Err(StoreError::NotFound { what: "resource" });
        }
        insert_deliveries(&mut tx, task.id, deliveries).await?;
        self.record_in(&mut tx, audit).await?;
        self.tell_of_task(&mut tx, task.id).await?;
        Ok(tx.commit().await?)
    }

    /// Adds deliveries to a task that is being made and has `before`; `false` when it is not any more, or somebody else
    /// has added to it, and nothing is added.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when one of the devices is gone.
    pub async fn add_deliveries(
        &self,
        task: Id,
        before: usize,
        deliveries: &[Delivery],
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let updated = sql::query(
            "UPDATE task SET total = total + $1 WHERE id = $2 AND creation = 'creating' AND total = $3 \
             AND run IN ('scheduled', 'running', 'paused')",
        )
        .bind(i64::try_from(deliveries.len()).unwrap_or(i64::MAX))
        .bind(task.as_i64())
        .bind(i64::try_from(before).unwrap_or(i64::MAX))
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if updated == 0 {
            return Ok(false);
        }
        insert_deliveries(&mut tx, task, deliveries).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Ends the making of a task; says whether it was being made. One that could not be made is over, and none
    /// of it is left.
    pub async fn end_creation(
        &self,
        id: Id,
        error: Option<&str>,
        at: Millis,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let text = if error.is_none() {
            "UPDATE task SET creation = 'created', creation_error = $1 WHERE id = $2 AND creation = 'creating' \
             AND run IN ('scheduled', 'running', 'paused')"
        } else {
            "UPDATE task SET creation = 'creation_failed', creation_error = $1, run = 'canceled', total = 0, \
             n_pending = 0, n_pushed = 0, n_delivering = 0, n_delivered = 0, n_failed = 0, finished_at = $3 WHERE id = $2 AND creation = 'creating'"
        };
        let mut query = sql::query(text).bind(error).bind(id.as_i64());
        if error.is_some() {
            query = query.bind(at.as_i64());
        }
        let updated = query.execute(&mut *tx).await?.rows_affected();
        if error.is_some() && updated > 0 {
            sql::query("DELETE FROM delivery WHERE task_id = $1")
                .bind(id.as_i64())
                .execute(&mut *tx)
                .await?;
        }
        self.tell_of_task(&mut tx, id).await?;
        tx.commit().await?;
        Ok(updated > 0)
    }

    /// Tasks that are being made, the oldest first.
    pub async fn tasks_being_made(&self) -> Result<Vec<Task>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE creation IN ('not_started', 'creating') ORDER BY id");
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        rows.iter().map(read).collect()
    }

    /// Tasks that are made and have not ended, the oldest first.
    pub async fn open_tasks(&self) -> Result<Vec<Task>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(
            " WHERE run IN ('scheduled', 'running', 'paused') AND creation = 'created' ORDER BY id",
        );
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        rows.iter().map(read).collect()
    }

    /// The task of an id, without its deliveries.
    pub async fn task_alone(&self, id: Id) -> Result<Option<Task>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE id = ").bind(id.as_i64());
        let row = sql.build(self.dialect)?.fetch_optional(&self.read).await?;
        row.as_ref().map(read).transpose()
    }

    /// Moves a task on from one of the run states `from`; says whether it was in one. A final state stamps it
    /// finished, another takes the stamp away.
    pub async fn change_task_run(
        &self,
        id: Id,
        from: &[RunState],
        to: RunState,
        at: Millis,
        audit: Option<&AuditEntry>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let mut sql = Sql::new("UPDATE task SET run = ");
        sql.bind(to.as_str())
            .push(", finished_at = ")
            .bind(to.is_final().then_some(at.as_i64()))
            .push(" WHERE id = ")
            .bind(id.as_i64())
            .push(" AND run IN ")
            .texts(&from.iter().map(|run| run.as_str()).collect::<Vec<_>>());
        let updated = sql
            .build(tx.dialect())?
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if updated == 0 {
            return Ok(false);
        }
        if let Some(audit) = audit {
            self.record_in(&mut tx, audit).await?;
        }
        self.tell_of_task(&mut tx, id).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Lets a task go on from its canary; says whether it had not yet.
    pub async fn promote_task(
        &self,
        id: Id,
        at: Millis,
        audit: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let updated =
            sql::query("UPDATE task SET promoted_at = $1 WHERE id = $2 AND promoted_at IS NULL")
                .bind(at.as_i64())
                .bind(id.as_i64())
                .execute(&mut *tx)
                .await?
                .rows_affected();
        if updated == 0 {
            return Ok(false);
        }
        self.record_in(&mut tx, audit).await?;
        self.tell_of_task(&mut tx, id).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The task of an id, with the number of its deliveries in each state.
    pub async fn task(&self, id: Id) -> Result<Option<(Task, StateCounts)>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE id = ").bind(id.as_i64());
        let row = sql.build(self.dialect)?.fetch_optional(&self.read).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((read(&row)?, counts::read(&row)?)))
    }

    /// The names of tasks; unknown ids are absent.
    pub async fn task_names(&self, ids: &[Id]) -> Result<HashMap<Id, String>, StoreError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let mut sql = Sql::new("SELECT id, name FROM task WHERE id IN ");
        sql.numbers(ids.iter().map(|id| id.as_i64()));
        let rows = sql
            .build_rows(self.dialect, ids.len())?
            .fetch_all(&self.read)
            .await?;
        rows.iter()
            .map(|row| {
                let fields = Fields(row);
                Ok((fields.id("id")?, fields.text("name")?.to_owned()))
            })
            .collect()
    }

    /// Tasks, newest first, each with the number of its deliveries in each state.
    pub async fn tasks(
        &self,
        filter: &TaskFilter,
        page: &Page,
    ) -> Result<Paged<(Task, StateCounts)>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE 1 = 1");
        if let Some(resource) = filter.resource {
            sql.push(" AND resource_id = ").bind(resource.as_i64());
        }
        if let Some(run) = filter.run {
            sql.push(" AND run = ").bind(run.as_str());
        }
        if let Some(product) = &filter.product {
            sql.push(" AND product_id = ").bind(product.as_str());
        }
        if let Some(before) = super::id_cursor(page)? {
            sql.push(" AND id < ").bind(before);
        }
        sql.push(" ORDER BY id DESC LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let tasks = rows
            .iter()
            .map(|row| Ok((read(row)?, counts::read(row)?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        Ok(Paged::cut(tasks, page.limit, |(task, _)| {
            task.id.to_string()
        }))
    }
}

/// Stores deliveries of a task, one statement for each [`BLOCK`], and makes sure that their devices are there.
async fn insert_deliveries(
    tx: &mut Tx,
    task: Id,
    deliveries: &[Delivery],
) -> Result<(), StoreError> {
    for block in deliveries.chunks(BLOCK) {
        let mut sql = Sql::new(
            "INSERT INTO delivery (id, task_id, device_id, node_id, attempt, state, created_at) VALUES ",
        );
        sql.rows(block, |row, delivery| {
            row.bind(delivery.id.as_i64())
                .bind(delivery.task_id.as_i64())
                .bind(delivery.device_id.as_str())
                .bind(delivery.node_id.as_str())
                .bind(i64::from(delivery.attempt))
                .bind(state_number(delivery.state))
                .bind(delivery.created_at.as_i64());
        });
        sql.build_rows(tx.dialect(), block.len())?
            .execute(&mut **tx)
            .await?;
    }
    let mut moves = counts::Moves::default();
    for delivery in deliveries {
        moves.add(task, delivery.state, 1);
    }
    moves.store(tx).await?;
    // A device may have been deleted since it was looked up: it would be waited for for ever.
    let Some(first) = deliveries.first() else {
        return Ok(());
    };
    let gone = sql::query(
        "SELECT 1 FROM delivery d WHERE d.task_id = $1 AND d.id >= $2 \
         AND NOT EXISTS (SELECT 1 FROM device WHERE id = d.device_id) LIMIT 1",
    )
    .bind(task.as_i64())
    .bind(first.id.as_i64())
    .fetch_optional(&mut **tx)
    .await?;
    match gone {
        Some(_) => Err(StoreError::NotFound { what: "device" }),
        None => Ok(()),
    }
}

fn optional_json<T: serde::Serialize>(
    column: &'static str,
    value: Option<&T>,
) -> Result<Option<String>, StoreError> {
    value.map(|value| rows::json(column, value)).transpose()
}

fn read(row: &AnyRow) -> Result<Task, StoreError> {
    let fields = Fields(row);
    Ok(Task {
        id: fields.id("id")?,
        name: fields.text("name")?.to_owned(),
        resource_id: fields.id("resource_id")?,
        resource_version: fields.number("resource_version")?,
        product_id: fields.parsed("product_id")?,
        creation: fields.parsed("creation")?,
        run: fields.parsed("run")?,
        policy: fields.json("policy")?,
        filter: match fields.optional_text("filter")? {
            Some(text) => {
                Some(serde_json::from_str(&text).map_err(|error| rows::corrupt("filter", error))?)
            }
            None => None,
        },
        creation_error: fields.optional_text("creation_error")?,
        promoted_at: fields.optional_time("promoted_at")?,
        total: fields.number("total")?,
        created_at: fields.time("created_at")?,
        finished_at: fields.optional_time("finished_at")?,
        created_by: fields.text("created_by")?.to_owned(),
    })
}

const SELECT: &str = "SELECT id, name, resource_id, resource_version, product_id, creation, run, policy, total, \
     created_at, finished_at, created_by, filter, creation_error, promoted_at, n_pending, n_pushed, \
     n_delivering, n_delivered, n_failed, past_delivered, past_failed FROM task";
const INSERT: &str = "INSERT INTO task (id, name, resource_id, resource_version, product_id, creation, run, policy, \
     total, created_at, finished_at, created_by, filter) \
     SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 WHERE EXISTS \
     (SELECT 1 FROM resource_version WHERE resource_id = $3 AND version = $4)";
