//! Deliveries: their lists and the steps that they make.

use std::collections::BTreeMap;

use headgate_protocol::identity::DeviceId;
use sqlx::any::AnyRow;

use crate::{
    model::{
        Delivery, DeliveryChange, DeliveryState, Id, Millis, OpenDelivery, Page, Paged,
        task::CANCELED,
    },
    store::{
        StoreError,
        registry::{
            BLOCK, Registry, Tx,
            counts::{self, Moves},
            rows::{Fields, state_number},
            sql::Sql,
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
                changed += start_attempts(&mut tx, block, &mut moves).await?;
                changed += step(&mut tx, block, &mut moves).await?;
            }
        }
        moves.store(&mut tx).await?;
        tx.commit().await?;
        Ok(changed)
    }
}

/// All steps of one attempt of one delivery in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) delivery: Id,
    pub(super) attempt: u32,
    pub(super) state: DeliveryState,
    /// When the attempt became pending, as far as the batch says: else its first step.
    pub(super) created_at: Millis,
    pub(super) pushed_at: Option<Millis>,
    pub(super) delivering_at: Option<Millis>,
    pub(super) finished_at: Option<Millis>,
    pub(super) reason: Option<String>,
    pub(super) detail: Option<String>,
    by_hand: bool,
    pub(super) epoch: i64,
}

/// Folds a batch to one row for each attempt, in rounds that hold each delivery at most once, attempts ascending.
pub(super) fn rounds(changes: &[DeliveryChange]) -> Vec<Vec<Merged>> {
    let mut attempts: BTreeMap<(Id, u32), Merged> = BTreeMap::new();
    for change in changes {
        attempts
            .entry((change.delivery, change.attempt))
            .or_insert_with(|| Merged::new(change))
            .add(change);
    }
    let mut rounds: Vec<Vec<Merged>> = Vec::new();
    let mut last = None;
    let mut index = 0;
    for merged in attempts.into_values() {
        index = if last == Some(merged.delivery) {
            index + 1
        } else {
            0
        };
        last = Some(merged.delivery);
        if rounds.len() == index {
            rounds.push(Vec::new());
        }
        if let Some(round) = rounds.get_mut(index) {
            round.push(merged);
        }
    }
    rounds
}

impl Merged {
    fn new(change: &DeliveryChange) -> Self {
        Self {
            delivery: change.delivery,
            attempt: change.attempt,
            state: DeliveryState::Pending,
            created_at: change.at,
            pushed_at: None,
            delivering_at: None,
            finished_at: None,
            reason: None,
            detail: None,
            by_hand: false,
            epoch: change.epoch,
        }
    }

    fn add(&mut self, change: &DeliveryChange) {
        self.epoch = self.epoch.max(change.epoch);
        if self.state.is_final() || change.to < self.state {
            return;
        }
        self.state = change.to;
        self.by_hand |= change.by_hand;
        match change.to {
            DeliveryState::Pending => self.created_at = change.at,
            DeliveryState::Pushed => self.pushed_at = self.pushed_at.or(Some(change.at)),
            DeliveryState::Delivering => {
                self.delivering_at = self.delivering_at.or(Some(change.at));
            }
            DeliveryState::Delivered | DeliveryState::Failed => {
                self.finished_at = Some(change.at);
                self.reason.clone_from(&change.reason);
                self.detail.clone_from(&change.detail);
            }
        }
    }
}

/// Moves the stored attempt of deliveries that begin a greater one to the attempts before, and begins it.
async fn start_attempts(
    tx: &mut Tx,
    block: &[Merged],
    moves: &mut Moves,
) -> Result<u64, StoreError> {
    let later: Vec<Merged> = block
        .iter()
        .filter(|merged| merged.attempt > 1)
        .cloned()
        .collect();
    if later.is_empty() {
        return Ok(0);
    }
    let mut sql = with_changes(
        &later,
        "INSERT INTO delivery_attempt (delivery_id, attempt, state, reason, detail, created_at, pushed_at, \
         delivering_at, finished_at) SELECT d.id, d.attempt, d.state, d.reason, d.detail, d.created_at, \
         d.pushed_at, d.delivering_at, d.finished_at FROM change JOIN delivery d ON d.id = change.id \
         WHERE d.attempt < change.attempt AND d.state <> 3",
    );
    let archived = sql
        .build_rows(tx.dialect(), later.len())?
        .execute(&mut **tx)
        .await?;
    if archived.rows_affected() == 0 {
        return Ok(0);
    }
    sql = with_changes(
        &later,
        "UPDATE delivery SET attempt = change.attempt, stepped_from = delivery.state, state = change.state, reason = change.reason, \
         detail = change.detail, created_at = change.created_at, pushed_at = change.pushed_at, \
         delivering_at = change.delivering_at, finished_at = change.finished_at, \
         round = CASE WHEN change.by_hand = 1 THEN change.attempt ELSE delivery.round END \
         FROM change WHERE delivery.id = change.id AND delivery.attempt < change.attempt \
         AND delivery.state <> 3",
    );
    sql.push(counts::RETURNING);
    let begun = sql
        .build_rows(tx.dialect(), later.len())?
        .fetch_all(&mut **tx)
        .await?;
    moves.steps(&begun)
}

/// Moves deliveries on within their attempt.
async fn step(tx: &mut Tx, block: &[Merged], moves: &mut Moves) -> Result<u64, StoreError> {
    let mut sql = with_changes(
        block,
        "UPDATE delivery SET stepped_from = delivery.state, state = change.state, reason = change.reason, detail = change.detail, \
         pushed_at = COALESCE(delivery.pushed_at, change.pushed_at), \
         delivering_at = COALESCE(delivery.delivering_at, change.delivering_at), \
         finished_at = change.finished_at \
         FROM change WHERE delivery.id = change.id AND delivery.attempt = change.attempt \
         AND delivery.state < change.state AND delivery.state < 3",
    );
    sql.push(counts::RETURNING);
    let stepped = sql
        .build_rows(tx.dialect(), block.len())?
        .fetch_all(&mut **tx)
        .await?;
    moves.steps(&stepped)
}

fn with_changes(block: &[Merged], statement: &'static str) -> Sql {
    let mut sql = Sql::new(
        "WITH change (id, attempt, state, created_at, pushed_at, delivering_at, finished_at, reason, detail, \
         by_hand) AS (VALUES ",
    );
    sql.rows(block, |row, merged| {
        row.bind(merged.delivery.as_i64())
            .bind(i64::from(merged.attempt))
            .bind(state_number(merged.state))
            .bind(merged.created_at.as_i64())
            .bind(merged.pushed_at.map(Millis::as_i64))
            .bind(merged.delivering_at.map(Millis::as_i64))
            .bind(merged.finished_at.map(Millis::as_i64))
            .bind(merged.reason.clone())
            .bind(merged.detail.clone())
            .bind(i64::from(merged.by_hand));
    })
    .push(") ")
    .push(statement);
    sql
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
