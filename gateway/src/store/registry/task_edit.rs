//! What an operator changes about a task that there is: its name, its policy, and from where on failures count.

use crate::{
    model::{AuditEntry, Id, RunState, Task, TaskPolicy},
    store::{
        StoreError,
        registry::{
            Registry,
            rows::{self, Fields},
            sql::{self, Sql},
        },
    },
};

/// How a change of a task came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEdited {
    /// It is stored.
    Stored,
    /// The task is another than it was when the change was made up; nothing has changed.
    Overtaken,
}

impl Registry {
    /// Stores another name and policy of a task, if those that it has, and its run state, are still those of `known`.
    pub async fn edit_task(
        &self,
        known: &Task,
        name: &str,
        policy: &TaskPolicy,
        audit: &AuditEntry,
    ) -> Result<TaskEdited, StoreError> {
        let mut tx = self.begin().await?;
        let row = sql::query("SELECT name, policy, run FROM task WHERE id = $1")
            .bind(known.id.as_i64())
            .fetch_optional(&mut *tx)
            .await?;
        let Some(row) = row else {
            return Ok(TaskEdited::Overtaken);
        };
        let fields = Fields(&row);
        let stored: TaskPolicy = fields.json("policy")?;
        let run: RunState = fields.parsed("run")?;
        if fields.text("name")? != known.name || stored != known.policy || run != known.run {
            return Ok(TaskEdited::Overtaken);
        }
        sql::query("UPDATE task SET name = $1, policy = $2 WHERE id = $3")
            .bind(name)
            .bind(rows::json("policy", policy)?)
            .bind(known.id.as_i64())
            .execute(&mut *tx)
            .await?;
        self.record_in(&mut tx, audit).await?;
        self.tell_of_task(&mut tx, known.id).await?;
        tx.commit().await?;
        Ok(TaskEdited::Stored)
    }

    /// Notes what of a task had failed and what had been delivered when it was last tried again by hand.
    pub async fn settle_task(
        &self,
        id: Id,
        [failed, delivered]: [u32; 2],
    ) -> Result<(), StoreError> {
        let mut sql = Sql::new("UPDATE task SET settled_failed = ");
        sql.bind(i64::from(failed))
            .push(", settled_delivered = ")
            .bind(i64::from(delivered))
            .push(" WHERE id = ")
            .bind(id.as_i64());
        let mut tx = self.begin().await?;
        sql.build(tx.dialect())?.execute(&mut *tx).await?;
        self.tell_of_task(&mut tx, id).await?;
        Ok(tx.commit().await?)
    }

    /// What [`Registry::settle_task`] noted last.
    pub async fn settled_deliveries(&self, id: Id) -> Result<[u32; 2], StoreError> {
        let row = sql::query("SELECT settled_failed, settled_delivered FROM task WHERE id = $1")
            .bind(id.as_i64())
            .fetch_optional(&self.read)
            .await?;
        let Some(row) = row else { return Ok([0; 2]) };
        let fields = Fields(&row);
        Ok([
            fields.number("settled_failed")?,
            fields.number("settled_delivered")?,
        ])
    }
}
