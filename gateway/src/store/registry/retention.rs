//! What is not kept any more: tasks, their deliveries, audit entries.
//!
//! Everything goes in blocks of a bounded number of rows, each in a transaction of its own, so that no deletion
//! holds up the steps of deliveries. Whoever wants all of it gone asks again until nothing is left.

use crate::{
    model::{AuditEntry, DeliveryState, Id, Millis, StateCounts},
    store::{
        StoreError,
        registry::{
            Registry,
            counts::Moves,
            rows::{Fields, stored},
            sql::{self, Sql},
        },
    },
};

impl Registry {
    /// Tasks that ended before a time, the longest ago first; with `only_with_deliveries`, those of them that
    /// still have deliveries.
    pub async fn ended_tasks(
        &self,
        before: Millis,
        only_with_deliveries: bool,
        limit: u32,
    ) -> Result<Vec<Id>, StoreError> {
        let mut sql = Sql::new("SELECT id FROM task WHERE finished_at < ");
        sql.bind(before.as_i64());
        if only_with_deliveries {
            sql.push(" AND EXISTS (SELECT 1 FROM delivery WHERE task_id = task.id)");
        }
        sql.push(" ORDER BY finished_at LIMIT ")
            .bind(i64::from(limit));
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        rows.iter().map(|row| Fields(row).id("id")).collect()
    }

    /// Deletes deliveries of a task that has ended, at most `limit`, with all their attempts; its counts stay.
    /// Returns how many.
    pub async fn purge_deliveries(&self, task: Id, limit: u32) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let mut sql = Sql::new("SELECT id, state FROM delivery WHERE task_id = ");
        sql.bind(task.as_i64())
            .push(" AND EXISTS (SELECT 1 FROM task WHERE id = ")
            .bind(task.as_i64())
            .push(" AND finished_at IS NOT NULL) ORDER BY id LIMIT ")
            .bind(i64::from(limit));
        let rows = sql.build(tx.dialect())?.fetch_all(&mut *tx).await?;
        let mut gone = StateCounts::default();
        let mut moves = Moves::default();
        let mut last = 0;
        for row in &rows {
            let fields = Fields(row);
            let state = fields.state("state")?;
            *gone.of_mut(state) += 1;
            moves.add(task, state, -1);
            last = fields.int("id")?;
        }
        if rows.is_empty() {
            return Ok(0);
        }
        sql::query("DELETE FROM delivery WHERE task_id = $1 AND id <= $2")
            .bind(task.as_i64())
            .bind(last)
            .execute(&mut *tx)
            .await?;
        moves.store(&mut tx).await?;
        // What was open when a killed process left it counts as failed: it is nobody's any more.
        let delivered = gone.of(DeliveryState::Delivered);
        sql::query(
            "UPDATE task SET past_delivered = past_delivered + $1, past_failed = past_failed + $2 WHERE id = $3",
        )
        .bind(stored(delivered))
        .bind(stored(gone.total() - delivered))
        .bind(task.as_i64())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(gone.total())
    }

    /// Deletes a task that has ended and whose deliveries are gone; says whether it did.
    pub async fn delete_task(&self, id: Id, audit: &AuditEntry) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let deleted = sql::query(
            "DELETE FROM task WHERE id = $1 AND finished_at IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM delivery WHERE task_id = $1)",
        )
        .bind(id.as_i64())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if deleted == 0 {
            return Ok(false);
        }
        self.record_in(&mut tx, audit).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Deletes audit entries from before a time, at most `limit`. Returns how many.
    pub async fn purge_audit(&self, before: Millis, limit: u32) -> Result<u64, StoreError> {
        let mut sql = Sql::new("DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ");
        sql.bind(before.as_i64())
            .push(" ORDER BY at LIMIT ")
            .bind(i64::from(limit))
            .push(")");
        let done = sql.build(self.dialect)?.execute(&self.write).await?;
        Ok(done.rows_affected())
    }
}
