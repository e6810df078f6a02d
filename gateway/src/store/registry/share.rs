//! What each node has of a task whose policy bounds it, settled by one node after the other.
//!
//! Which part a node may have is the caller's rule; that no two nodes settle at once, and that a node which is gone has
//! nothing any more, is the store's.

use crate::{
    model::{DeliveryState, Id, Millis, StateCounts},
    store::{
        StoreError,
        registry::{
            Registry,
            rows::Fields,
            sql::{self, Sql},
        },
    },
};

/// What one node has of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskShare {
    /// Deliveries that may be in progress there.
    pub places: u32,
    /// Those that are.
    pub in_progress: u32,
    /// Those that wait there for a place.
    pub waiting: u32,
    /// Devices that may begin there, or have begun without a record of it.
    pub permits: u32,
}

/// Parts of a device, by the thousand.
pub type Thousandths = u64;

/// How a task stands when a node settles its share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareStanding {
    /// The database's own time.
    pub now: Millis,
    /// Devices that might begin when the pace was counted last, and when that was.
    pub pace: (Thousandths, Option<Millis>),
    /// What the other nodes have that were heard of lately.
    pub others: Vec<TaskShare>,
    /// All its deliveries by state, where that was asked for.
    pub counts: StateCounts,
    /// Deliveries that have begun in any attempt, where that was asked for.
    pub begun: u32,
}

impl Registry {
    /// Settles the share of a node: `rule` says what it has from now on, and what is left of the pace. With `counted` it
    /// is told how the deliveries stand, too.
    ///
    /// A node that did not settle for [`SHARE_LASTS_MILLIS`] has no share.
    pub async fn settle_share<R: Send>(
        &self,
        task: Id,
        node: &str,
        counted: bool,
        rule: impl FnOnce(&ShareStanding) -> (TaskShare, Thousandths, R) + Send,
    ) -> Result<Option<R>, StoreError> {
        let mut tx = self.begin().await?;
        let mut standing = ShareStanding {
            now: self.server_time(&mut tx).await?,
            ..ShareStanding::default()
        };
        let mut sql = Sql::new("SELECT pace_thousandths, paced_at FROM task WHERE id = ");
        sql.bind(task.as_i64());
        let row = sql.build(self.dialect)?.fetch_optional(&mut *tx).await?;
        let Some(row) = row else { return Ok(None) };
        let fields = Fields(&row);
        standing.pace = (
            fields.number("pace_thousandths")?,
            fields.optional_time("paced_at")?,
        );
        let heard = standing.now.as_i64().saturating_sub(SHARE_LASTS_MILLIS);
        sql::query("DELETE FROM task_share WHERE task_id = $1 AND seen_at < $2")
            .bind(task.as_i64())
            .bind(heard)
            .execute(&mut *tx)
            .await?;
        let rows = sql::query(
            "SELECT places, in_progress, waiting, permits FROM task_share WHERE task_id = $1 AND node <> $2",
        )
        .bind(task.as_i64())
        .bind(node)
        .fetch_all(&mut *tx)
        .await?;
        for row in &rows {
            let fields = Fields(row);
            standing.others.push(TaskShare {
                places: fields.number("places")?,
                in_progress: fields.number("in_progress")?,
                waiting: fields.number("waiting")?,
                permits: fields.number("permits")?,
            });
        }
        if counted {
            (standing.counts, standing.begun) = self.standing_of(task).await?;
        }
        let (share, left, result) = rule(&standing);
        sql::query("UPDATE task SET pace_thousandths = $1, paced_at = $2 WHERE id = $3")
            .bind(i64::try_from(left).unwrap_or(i64::MAX))
            .bind(standing.now.as_i64())
            .bind(task.as_i64())
            .execute(&mut *tx)
            .await?;
        sql::query(
            "INSERT INTO task_share (task_id, node, places, in_progress, waiting, permits, seen_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (task_id, node) DO UPDATE SET \
             places = excluded.places, in_progress = excluded.in_progress, waiting = excluded.waiting, \
             permits = excluded.permits, seen_at = excluded.seen_at",
        )
        .bind(task.as_i64())
        .bind(node)
        .bind(i64::from(share.places))
        .bind(i64::from(share.in_progress))
        .bind(i64::from(share.waiting))
        .bind(i64::from(share.permits))
        .bind(standing.now.as_i64())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Some(result))
    }

    /// How the deliveries of a task stand: by state, and how many have begun in any attempt.
    pub async fn standing_of(&self, task: Id) -> Result<(StateCounts, u32), StoreError> {
        let rows = sql::query(
            "SELECT state, COUNT(*) AS deliveries, COUNT(CASE WHEN state > 0 OR attempt > 1 THEN 1 END) AS begun \
             FROM delivery WHERE task_id = $1 GROUP BY state",
        )
        .bind(task.as_i64())
        .fetch_all(&self.read)
        .await?;
        let (mut counts, mut begun) = (StateCounts::default(), 0_u32);
        for row in &rows {
            let fields = Fields(row);
            let state: DeliveryState = fields.state("state")?;
            *counts.of_mut(state) = fields.number("deliveries")?;
            begun = begun.saturating_add(fields.number("begun")?);
        }
        Ok((counts, begun))
    }
}

/// How long a node that is not heard of keeps its share.
const SHARE_LASTS_MILLIS: i64 = 15_000;
