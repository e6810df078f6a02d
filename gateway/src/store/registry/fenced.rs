//! Deliveries of which each is in the hands of one node: taken with a claim of its device, and changed by nobody who has
//! an older one.

use std::collections::{HashMap, HashSet};

use headgate_protocol::identity::DeviceId;

use crate::{
    model::{DeliveryChange, DeliveryState, Id, Millis, OpenDelivery, RunState},
    store::{
        StoreError,
        registry::{
            BLOCK, Registry, Tx,
            counts::{self, Moves},
            rows::{Fields, state_number},
            sql::{self, Sql},
            steps::{FENCED, Merged, rounds},
        },
    },
};

impl Registry {
    /// Takes the open deliveries of these devices, each with the claim of its session; gives those that are in its hands
    /// from now on. Devices that nothing is open for cost one look at all of them.
    pub async fn take_deliveries(
        &self,
        sessions: &[(DeviceId, i64)],
    ) -> Result<Vec<(OpenDelivery, i64)>, StoreError> {
        let mut taken = Vec::new();
        for block in sessions.chunks(BLOCK) {
            let found = self.open_of_devices(block).await?;
            if found.is_empty() {
                continue;
            }
            let with_some: HashSet<&DeviceId> =
                found.iter().map(|open| &open.delivery.device_id).collect();
            let claims: Vec<_> = block
                .iter()
                .filter(|(device, _)| with_some.contains(device))
                .cloned()
                .collect();
            let mut sql = Sql::new("WITH here (device_id, epoch) AS (VALUES ");
            sql.rows(&claims, |row, (device, epoch)| {
                row.bind(device.as_str().to_owned()).bind(*epoch);
            })
            .push(
                ") UPDATE delivery SET session_epoch = here.epoch FROM here \
                 WHERE delivery.device_id = here.device_id AND delivery.state < 3 \
                 AND delivery.session_epoch <= here.epoch RETURNING delivery.id, delivery.session_epoch",
            );
            let rows = sql
                .build_rows(self.dialect, claims.len())?
                .fetch_all(&self.write)
                .await?;
            let mut ours = HashMap::with_capacity(rows.len());
            for row in &rows {
                let fields = Fields(row);
                ours.insert(fields.id("id")?, fields.int("session_epoch")?);
            }
            // As they are now that nobody else changes them.
            for open in self.open_of_devices(&claims).await? {
                if let Some(epoch) = ours.get(&open.delivery.id) {
                    taken.push((open, *epoch));
                }
            }
        }
        Ok(taken)
    }

    async fn open_of_devices(
        &self,
        sessions: &[(DeviceId, i64)],
    ) -> Result<Vec<OpenDelivery>, StoreError> {
        let devices: Vec<&str> = sessions.iter().map(|(device, _)| device.as_str()).collect();
        let mut sql = Sql::new(super::delivery::SELECT_OPEN);
        sql.push(" AND d.device_id IN ")
            .texts(&devices)
            .push(" ORDER BY d.id");
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        rows.iter().map(super::delivery::read_open).collect()
    }

    /// A task's open deliveries in the order of their ids, each with the claim that has it: at most [`BLOCK`] of those
    /// after `after`.
    pub async fn open_with_claims(
        &self,
        task: Id,
        after: Option<Id>,
    ) -> Result<Vec<(OpenDelivery, i64)>, StoreError> {
        let mut sql = Sql::new(super::delivery::SELECT_OPEN);
        sql.push(" AND d.task_id = ").bind(task.as_i64());
        self.block_after(sql, after).await
    }

    /// Deliveries that devices know of since before a time, each with the claim that has it, in the order of their ids:
    /// at most [`BLOCK`] of those after `after`.
    pub async fn out_since(
        &self,
        before: Millis,
        after: Option<Id>,
    ) -> Result<Vec<(OpenDelivery, i64)>, StoreError> {
        let mut sql = Sql::new(super::delivery::SELECT_OPEN);
        sql.push(" AND d.state > 0 AND COALESCE(d.pushed_at, d.delivering_at) < ")
            .bind(before.as_i64());
        self.block_after(sql, after).await
    }

    /// What a selection of open deliveries finds, in the order of their ids: at most [`BLOCK`] of those after `after`.
    async fn block_after(
        &self,
        mut sql: Sql,
        after: Option<Id>,
    ) -> Result<Vec<(OpenDelivery, i64)>, StoreError> {
        sql.push(" AND d.id > ")
            .bind(after.map_or(0, Id::as_i64))
            .push(" ORDER BY d.id LIMIT ")
            .bind(i64::try_from(BLOCK).unwrap_or(i64::MAX));
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        read_claimed(&rows)
    }

    /// One open delivery, with the claim that has it.
    pub async fn open_delivery(&self, id: Id) -> Result<Option<(OpenDelivery, i64)>, StoreError> {
        let mut sql = Sql::new(super::delivery::SELECT_OPEN);
        sql.push(" AND d.id = ").bind(id.as_i64());
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        Ok(read_claimed(&rows)?.pop())
    }

    /// Whether a delivery that a device was told of has not ended.
    pub async fn has_open_delivery(&self, device: &DeviceId) -> Result<bool, StoreError> {
        let mut sql = Sql::new(
            "SELECT 1 AS one FROM delivery WHERE state < 3 AND (state > 0 OR attempt > 1) AND device_id = ",
        );
        sql.bind(device.as_str().to_owned()).push(" LIMIT 1");
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        Ok(!rows.is_empty())
    }

    /// Those of these deliveries that have not ended.
    pub async fn still_open(&self, ids: &[Id]) -> Result<HashSet<Id>, StoreError> {
        let mut open = HashSet::new();
        for block in ids.chunks(BLOCK) {
            let mut sql = Sql::new("SELECT id FROM delivery WHERE state < 3 AND id IN ");
            sql.numbers(block.iter().map(|id| id.as_i64()));
            let rows = sql
                .build_rows(self.dialect, block.len())?
                .fetch_all(&self.read)
                .await?;
            for row in &rows {
                open.insert(Fields(row).id("id")?);
            }
        }
        Ok(open)
    }

    /// Stores steps as [`Registry::apply_delivery_changes`] does, each if no newer claim than its own has the delivery,
    /// and tells the other nodes of them. Gives the deliveries that are not as their steps say: another node has them,
    /// or somebody has ended them.
    ///
    /// A batch that comes again, because its answer was lost, is found as it is.
    pub async fn apply_fenced_changes(
        &self,
        node: &str,
        changes: &[(Id, DeliveryChange)],
    ) -> Result<Vec<Id>, StoreError> {
        let steps: Vec<DeliveryChange> = changes.iter().map(|(_, step)| step.clone()).collect();
        let mut tx = self.begin_beside().await?;
        let mut unchanged = Vec::new();
        let mut moves = Moves::default();
        for round in rounds(&steps) {
            for block in round.chunks(BLOCK) {
                let done: HashSet<Id> = FENCED
                    .store(&mut tx, block, &mut moves)
                    .await?
                    .into_iter()
                    .collect();
                unchanged.extend(
                    block
                        .iter()
                        .filter(|merged| !done.contains(&merged.delivery))
                        .cloned(),
                );
            }
        }
        moves.store(&mut tx).await?;
        let refused = refused_of(&mut tx, &unchanged).await?;
        let told: Vec<(Id, Id)> = changes
            .iter()
            .map(|(task, step)| (*task, step.delivery))
            .collect();
        self.tell_of_steps(&mut tx, node, &told).await?;
        tx.commit().await?;
        Ok(refused)
    }

    /// Ends open deliveries of a task, whoever has them, at most [`BLOCK`]; says how many.
    pub async fn end_deliveries(
        &self,
        task: Id,
        reason: &str,
        at: Millis,
    ) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let mut sql = end(reason, at);
        sql.push(" AND id IN (SELECT id FROM delivery WHERE task_id = ")
            .bind(task.as_i64())
            .push(" AND state < 3 ORDER BY id LIMIT ")
            .bind(i64::try_from(BLOCK).unwrap_or(i64::MAX))
            .push(")")
            .push(counts::RETURNING);
        let rows = sql.build(self.dialect)?.fetch_all(&mut *tx).await?;
        let mut moves = Moves::default();
        let ended = moves.steps(&rows)?;
        moves.store(&mut tx).await?;
        self.tell_of_task(&mut tx, task).await?;
        tx.commit().await?;
        Ok(ended)
    }

    /// Ends an open delivery, whoever has it; says whether it was open.
    pub async fn end_delivery(
        &self,
        task: Id,
        id: Id,
        reason: &str,
        at: Millis,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let mut sql = end(reason, at);
        sql.push(" AND id = ")
            .bind(id.as_i64())
            .push(counts::RETURNING);
        let rows = sql.build(self.dialect)?.fetch_all(&mut *tx).await?;
        let mut moves = Moves::default();
        let ended = moves.steps(&rows)?;
        moves.store(&mut tx).await?;
        self.tell_of_steps(&mut tx, "-", &[(task, id)]).await?;
        tx.commit().await?;
        Ok(ended > 0)
    }

    /// Tasks that have ended and have open deliveries, with how they ended.
    pub async fn ended_with_open(&self) -> Result<Vec<(Id, RunState)>, StoreError> {
        let rows = sql::query(
            "SELECT id, run FROM task WHERE finished_at IS NOT NULL AND creation = 'created' \
             AND run IN ('canceled', 'aborted') \
             AND id IN (SELECT DISTINCT task_id FROM delivery WHERE state < 3)",
        )
        .fetch_all(&self.read)
        .await?;
        rows.iter()
            .map(|row| {
                let fields = Fields(row);
                Ok((fields.id("id")?, fields.parsed("run")?))
            })
            .collect()
    }

    /// Ends a task of which no delivery is open; says whether that was so, and it had not ended.
    pub async fn finish_task(&self, id: Id, at: Millis) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let mut sql = Sql::new("UPDATE task SET run = ");
        sql.bind(RunState::Finished.as_str())
            .push(", finished_at = ")
            .bind(at.as_i64())
            .push(" WHERE id = ")
            .bind(id.as_i64())
            .push(
                " AND run IN ('scheduled', 'running', 'paused') AND creation = 'created' \
                 AND NOT EXISTS (SELECT 1 FROM delivery WHERE task_id = task.id AND state < 3)",
            );
        let ended = sql.build(self.dialect)?.execute(&mut *tx).await?;
        if ended.rows_affected() == 0 {
            return Ok(false);
        }
        self.tell_of_task(&mut tx, id).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// The beginning of a statement that ends open deliveries.
fn end(reason: &str, at: Millis) -> Sql {
    let mut sql = Sql::new("UPDATE delivery SET stepped_from = state, state = 4, reason = ");
    sql.bind(reason.to_owned())
        .push(", detail = NULL, finished_at = ")
        .bind(at.as_i64())
        .push(" WHERE state < 3");
    sql
}

fn read_claimed(rows: &[sqlx::any::AnyRow]) -> Result<Vec<(OpenDelivery, i64)>, StoreError> {
    rows.iter()
        .map(|row| {
            let epoch = Fields(row).int("session_epoch")?;
            Ok((super::delivery::read_open(row)?, epoch))
        })
        .collect()
}

/// Of deliveries that a batch did not change, those that are not as it says.
async fn refused_of(tx: &mut Tx, unchanged: &[Merged]) -> Result<Vec<Id>, StoreError> {
    let mut refused = Vec::new();
    for block in unchanged.chunks(BLOCK) {
        let mut sql =
            Sql::new("SELECT id, attempt, state, session_epoch FROM delivery WHERE id IN ");
        sql.numbers(block.iter().map(|merged| merged.delivery.as_i64()));
        let rows = sql
            .build_rows(tx.dialect(), block.len())?
            .fetch_all(&mut **tx)
            .await?;
        let mut found: HashMap<Id, (u32, i64, i64)> = HashMap::with_capacity(rows.len());
        for row in &rows {
            let fields = Fields(row);
            let is = (
                fields.number("attempt")?,
                fields.int("state")?,
                fields.int("session_epoch")?,
            );
            found.insert(fields.id("id")?, is);
        }
        for merged in block {
            let is = found.get(&merged.delivery).copied();
            if !is.is_some_and(|is| stands(merged, is)) {
                refused.push(merged.delivery);
            }
        }
    }
    refused.sort_unstable();
    refused.dedup();
    Ok(refused)
}

/// Whether a record is as a step says, or further by the same claim.
fn stands(merged: &Merged, (attempt, state, epoch): (u32, i64, i64)) -> bool {
    let wanted = state_number(merged.state);
    let is_same = attempt == merged.attempt && (state == wanted || wanted < state && state < 3);
    // After a success there is no other attempt: what is there is not as the step says.
    let is_over = attempt > merged.attempt && merged.state != DeliveryState::Delivered;
    epoch <= merged.epoch && (is_same || is_over)
}
