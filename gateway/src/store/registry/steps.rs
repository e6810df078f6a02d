//! How a batch of steps becomes statements: folded to one row for each attempt, which begin attempts and move them on.
//!
//! There are two ways to store steps, which differ in what they let through: [`FREE`] and [`FENCED`].

use std::collections::BTreeMap;

use crate::{
    model::{DeliveryChange, DeliveryState, Id, Millis},
    store::{
        StoreError,
        registry::{
            Tx,
            counts::{self, Moves},
            rows::{Fields, state_number},
            sql::Sql,
        },
    },
};

/// The statements of one way to store steps. Each works on a table `change` of [`Merged`] steps.
pub(super) struct Statements {
    /// Keeps the attempts that end because a greater one begins.
    archive: &'static str,
    /// Begins greater attempts.
    begin: &'static str,
    /// Moves deliveries on within their attempt.
    step: &'static str,
}

/// For one gateway alone: whatever leads on is stored.
pub(super) const FREE: Statements = Statements {
    archive: "INSERT INTO delivery_attempt (delivery_id, attempt, state, reason, detail, created_at, pushed_at, \
        delivering_at, finished_at) SELECT d.id, d.attempt, d.state, d.reason, d.detail, d.created_at, \
        d.pushed_at, d.delivering_at, d.finished_at FROM change JOIN delivery d ON d.id = change.id \
        WHERE d.attempt < change.attempt AND d.state <> 3",
    begin: "UPDATE delivery SET attempt = change.attempt, stepped_from = delivery.state, state = change.state, \
        reason = change.reason, detail = change.detail, created_at = change.created_at, \
        pushed_at = change.pushed_at, delivering_at = change.delivering_at, finished_at = change.finished_at, \
        round = CASE WHEN change.by_hand = 1 THEN change.attempt ELSE delivery.round END \
        FROM change WHERE delivery.id = change.id AND delivery.attempt < change.attempt \
        AND delivery.state <> 3",
    step: "UPDATE delivery SET stepped_from = delivery.state, state = change.state, reason = change.reason, \
        detail = change.detail, pushed_at = COALESCE(delivery.pushed_at, change.pushed_at), \
        delivering_at = COALESCE(delivery.delivering_at, change.delivering_at), \
        finished_at = change.finished_at \
        FROM change WHERE delivery.id = change.id AND delivery.attempt = change.attempt \
        AND delivery.state < change.state AND delivery.state < 3",
};

/// For several nodes: only what no newer claim stands against, and nothing that somebody has ended. A newer claim shows
/// from its first step on.
pub(super) const FENCED: Statements = Statements {
    archive: "INSERT INTO delivery_attempt (delivery_id, attempt, state, reason, detail, created_at, pushed_at, \
        delivering_at, finished_at) SELECT d.id, d.attempt, d.state, d.reason, d.detail, d.created_at, \
        d.pushed_at, d.delivering_at, d.finished_at FROM change JOIN delivery d ON d.id = change.id \
        WHERE d.attempt < change.attempt AND d.state <> 3 AND d.session_epoch <= change.epoch \
        AND (d.state < 3 OR d.reason NOT IN ('canceled', 'aborted'))",
    begin: "UPDATE delivery SET attempt = change.attempt, stepped_from = delivery.state, state = change.state, \
        reason = change.reason, detail = change.detail, created_at = change.created_at, \
        pushed_at = change.pushed_at, delivering_at = change.delivering_at, finished_at = change.finished_at, \
        session_epoch = change.epoch \
        FROM change WHERE delivery.id = change.id AND delivery.attempt < change.attempt \
        AND delivery.state <> 3 AND delivery.session_epoch <= change.epoch \
        AND (delivery.state < 3 OR delivery.reason NOT IN ('canceled', 'aborted'))",
    step: "UPDATE delivery SET session_epoch = change.epoch, stepped_from = delivery.state, \
        state = CASE WHEN delivery.state < change.state THEN change.state ELSE delivery.state END, \
        reason = change.reason, detail = change.detail, \
        pushed_at = COALESCE(delivery.pushed_at, change.pushed_at), \
        delivering_at = COALESCE(delivery.delivering_at, change.delivering_at), \
        finished_at = change.finished_at \
        FROM change WHERE delivery.id = change.id AND delivery.attempt = change.attempt \
        AND delivery.state < 3 AND delivery.session_epoch <= change.epoch \
        AND (delivery.state < change.state OR delivery.session_epoch < change.epoch)",
};

impl Statements {
    /// Stores one round of steps, at most [`BLOCK`](super::BLOCK): begins the attempts that it begins, then moves
    /// deliveries on. Gives the deliveries that changed, one as often as it did.
    pub(super) async fn store(
        &self,
        tx: &mut Tx,
        block: &[Merged],
        moves: &mut Moves,
    ) -> Result<Vec<Id>, StoreError> {
        let mut changed = Vec::new();
        let later: Vec<&Merged> = block.iter().filter(|merged| merged.attempt > 1).collect();
        if !later.is_empty() && keep(tx, &later, self.archive).await? {
            changed = change(tx, &later, self.begin, moves).await?;
        }
        // Steps come in batches of every size: rounded up, a dozen prepared statements serve them all. A step that stands
        // there twice moves its delivery once.
        let padding = block.len().next_power_of_two() - block.len();
        let last = block.last().into_iter();
        let padded: Vec<&Merged> = block.iter().chain(last.cycle().take(padding)).collect();
        changed.extend(change(tx, &padded, self.step, moves).await?);
        Ok(changed)
    }
}

/// Whether a statement that keeps attempts kept one.
async fn keep(tx: &mut Tx, block: &[&Merged], archive: &'static str) -> Result<bool, StoreError> {
    let kept = with_changes(block, archive)
        .build_rows(tx.dialect(), block.len())?
        .execute(&mut **tx)
        .await?;
    Ok(kept.rows_affected() > 0)
}

/// The deliveries that a statement changed.
async fn change(
    tx: &mut Tx,
    block: &[&Merged],
    statement: &'static str,
    moves: &mut Moves,
) -> Result<Vec<Id>, StoreError> {
    let mut sql = with_changes(block, statement);
    sql.push(counts::RETURNING);
    let rows = sql
        .build_rows(tx.dialect(), block.len())?
        .fetch_all(&mut **tx)
        .await?;
    moves.steps(&rows)?;
    rows.iter().map(|row| Fields(row).id("id")).collect()
}

/// A statement that knows steps as the table `change`.
fn with_changes(block: &[&Merged], statement: &'static str) -> Sql {
    let mut sql = Sql::new(
        "WITH change (id, attempt, state, created_at, pushed_at, delivering_at, finished_at, reason, detail, \
         by_hand, epoch) AS (VALUES ",
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
            .bind(i64::from(merged.by_hand))
            .bind(merged.epoch);
    })
    .push(") ")
    .push(statement);
    sql
}

/// All steps of one attempt of one delivery in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) delivery: Id,
    pub(super) attempt: u32,
    pub(super) state: DeliveryState,
    /// When the attempt became pending, as far as the batch says: else its first step.
    created_at: Millis,
    pushed_at: Option<Millis>,
    delivering_at: Option<Millis>,
    finished_at: Option<Millis>,
    reason: Option<String>,
    detail: Option<String>,
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
