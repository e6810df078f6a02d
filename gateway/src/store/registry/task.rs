//! Tasks and the deliveries that they are made of.

use std::collections::HashMap;

use headgate_protocol::identity::ProductId;
use sqlx::any::AnyRow;

use crate::{
    model::{AuditEntry, Delivery, Id, Millis, Page, Paged, RunState, StateCounts, Task},
    store::{
        StoreError,
        registry::{
            BLOCK, Registry,
            rows::{self, Fields, state_number},
            sql::Sql,
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
    /// [`StoreError::NotFound`] when the resource's version is gone.
    pub async fn insert_task(
        &self,
        task: &Task,
        deliveries: &[Delivery],
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let inserted = sqlx::query(
            "INSERT INTO task (id, name, resource_id, resource_version, product_id, creation, run, policy, \
             total, created_at, finished_at, created_by) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 WHERE EXISTS \
             (SELECT 1 FROM resource_version WHERE resource_id = $3 AND version = $4)",
        )
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
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if inserted == 0 {
            return Err(StoreError::NotFound { what: "resource" });
        }
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
            sql.build_rows(block.len())?.execute(&mut *tx).await?;
        }
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// Sets how far a task's running is; a final state stamps it finished, another takes the stamp away.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_task_run(
        &self,
        id: Id,
        run: RunState,
        at: Millis,
        audit: Option<&AuditEntry>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let updated = sqlx::query("UPDATE task SET run = $1, finished_at = $2 WHERE id = $3")
            .bind(run.as_str())
            .bind(run.is_final().then_some(at.as_i64()))
            .bind(id.as_i64())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if updated == 0 {
            return Err(StoreError::NotFound { what: "task" });
        }
        if let Some(audit) = audit {
            self.record_in(&mut tx, audit).await?;
        }
        Ok(tx.commit().await?)
    }

    /// The task of an id, with the number of its deliveries in each state.
    pub async fn task(&self, id: Id) -> Result<Option<(Task, StateCounts)>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE id = ").bind(id.as_i64());
        let row = sql.build()?.fetch_optional(&self.read).await?;
        let Some(row) = row else { return Ok(None) };
        let task = read(&row)?;
        let counts = self.counts(&[id]).await?;
        let counts = counts.get(&id).copied().unwrap_or_default();
        Ok(Some((task, counts)))
    }

    /// Tasks, newest first, each with the number of its deliveries in each state. Two statements.
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
        let rows = sql.build()?.fetch_all(&self.read).await?;
        let tasks = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let page = Paged::cut(tasks, page.limit, |task| task.id.to_string());
        let ids: Vec<Id> = page.items.iter().map(|task| task.id).collect();
        let counts = self.counts(&ids).await?;
        Ok(page.map(|task| {
            let counts = counts.get(&task.id).copied().unwrap_or_default();
            (task, counts)
        }))
    }

    async fn counts(&self, tasks: &[Id]) -> Result<HashMap<Id, StateCounts>, StoreError> {
        let mut found: HashMap<Id, StateCounts> = HashMap::new();
        if tasks.is_empty() {
            return Ok(found);
        }
        let mut sql = Sql::new(
            "SELECT task_id, state, COUNT(*) AS deliveries FROM delivery WHERE task_id IN ",
        );
        sql.numbers(tasks.iter().map(|id| id.as_i64()))
            .push(" GROUP BY task_id, state");
        for row in &sql.build()?.fetch_all(&self.read).await? {
            let fields = Fields(row);
            let counts = found.entry(fields.id("task_id")?).or_default();
            *counts.of_mut(fields.state("state")?) = fields.number("deliveries")?;
        }
        Ok(found)
    }
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
        total: fields.number("total")?,
        created_at: fields.time("created_at")?,
        finished_at: fields.optional_time("finished_at")?,
        created_by: fields.text("created_by")?.to_owned(),
    })
}

const SELECT: &str = "SELECT id, name, resource_id, resource_version, product_id, creation, run, policy, total, \
     created_at, finished_at, created_by FROM task";
