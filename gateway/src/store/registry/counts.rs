//! How many deliveries of each task are in each state, kept with the task.
//!
//! Whoever adds deliveries, moves them on or takes them away tells it to [`Moves`] and stores that in the same
//! transaction: whoever lists tasks reads their counts and counts nothing.

use std::collections::BTreeMap;

use sqlx::any::AnyRow;

use crate::{
    model::{DeliveryState, Id, StateCounts},
    store::{
        StoreError,
        registry::{
            Tx,
            rows::{Fields, state_number},
            sql::Sql,
        },
    },
};

/// What has changed of the counts of tasks; in the order of their ids, which is that of their locks, too.
#[derive(Debug, Default)]
pub(super) struct Moves(BTreeMap<Id, [i64; DeliveryState::ALL.len()]>);

impl Moves {
    /// So many deliveries of a task came to a state, or left it where the number is negative.
    pub(super) fn add(&mut self, task: Id, state: DeliveryState, count: i64) {
        let counts = self.0.entry(task).or_default();
        if let Some(moved) = usize::try_from(state_number(state))
            .ok()
            .and_then(|index| counts.get_mut(index))
        {
            *moved += count;
        }
    }

    /// Takes note of what a statement moved, whose rows are `task_id`, `stepped_from` and `state`. Gives their number.
    pub(super) fn steps(&mut self, rows: &[AnyRow]) -> Result<u64, StoreError> {
        for row in rows {
            let fields = Fields(row);
            let task = fields.id("task_id")?;
            self.add(task, fields.state("stepped_from")?, -1);
            self.add(task, fields.state("state")?, 1);
        }
        Ok(rows.len() as u64)
    }

    /// Stores what has changed: one statement for all tasks.
    pub(super) async fn store(self, tx: &mut Tx) -> Result<(), StoreError> {
        let changed: Vec<_> = self
            .0
            .into_iter()
            .filter(|(_, counts)| counts.iter().any(|count| *count != 0))
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        let mut sql =
            Sql::new("WITH moved (id, pending, pushed, delivering, delivered, failed) AS (VALUES ");
        sql.rows(&changed, |row, (task, counts)| {
            row.bind(task.as_i64());
            for count in counts {
                row.bind(*count);
            }
        })
        .push(
            ") UPDATE task SET n_pending = n_pending + moved.pending, n_pushed = n_pushed + moved.pushed, \
             n_delivering = n_delivering + moved.delivering, n_delivered = n_delivered + moved.delivered, \
             n_failed = n_failed + moved.failed FROM moved WHERE task.id = moved.id",
        );
        sql.build_rows(tx.dialect(), changed.len())?
            .execute(&mut **tx)
            .await?;
        Ok(())
    }
}

/// What a statement that moves deliveries gives back: which, and for [`Moves::steps`].
pub(super) const RETURNING: &str =
    " RETURNING delivery.id, delivery.task_id, delivery.stepped_from, delivery.state";

/// The counts of a row that has the columns `n_*` and `past_*`: of deliveries that are kept, and of those that are not any more.
pub(super) fn read(row: &AnyRow) -> Result<StateCounts, StoreError> {
    let fields = Fields(row);
    Ok(StateCounts {
        pending: fields.number("n_pending")?,
        pushed: fields.number("n_pushed")?,
        delivering: fields.number("n_delivering")?,
        delivered: fields.number::<u64>("n_delivered")? + fields.number::<u64>("past_delivered")?,
        failed: fields.number::<u64>("n_failed")? + fields.number::<u64>("past_failed")?,
    })
}

/// The sums of the counts of several tasks, under the names that [`read`] looks for.
pub(super) const SUMS: &str = "SELECT CAST(COALESCE(SUM(n_pending), 0) AS BIGINT) AS n_pending, \
     CAST(COALESCE(SUM(n_pushed), 0) AS BIGINT) AS n_pushed, \
     CAST(COALESCE(SUM(n_delivering), 0) AS BIGINT) AS n_delivering, \
     CAST(COALESCE(SUM(n_delivered), 0) AS BIGINT) AS n_delivered, \
     CAST(COALESCE(SUM(n_failed), 0) AS BIGINT) AS n_failed, \
     CAST(COALESCE(SUM(past_delivered), 0) AS BIGINT) AS past_delivered, \
     CAST(COALESCE(SUM(past_failed), 0) AS BIGINT) AS past_failed FROM task";
