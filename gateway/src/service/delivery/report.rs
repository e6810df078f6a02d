//! The proof of a task: every delivery with its stamps, or every attempt of each, block by block.

use super::{DeliveryError, DeliveryService, wait::WaitReason};
use crate::model::{Delivery, Id, Millis, Page};

/// One row of a report: an attempt, and what holds it up if it is the present one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The attempt.
    pub delivery: Delivery,
    /// 0 to 100 while it is open.
    pub percent: Option<u8>,
    /// Why it does not get on.
    pub waiting: Option<WaitReason>,
}

impl DeliveryService {
    /// The rows of a report on a task: those of the deliveries after `after`, of a block of them;
    /// with `attempts` every attempt of each, else the present one. Empty: there are no more.
    ///
    /// # Errors
    /// [`DeliveryError::NotFound`] where there is no such task.
    pub async fn report_block(
        &self,
        task: Id,
        after: Option<Id>,
        attempts: bool,
    ) -> Result<Vec<Reported>, DeliveryError> {
        let registry = &self.inner.registry;
        if after.is_none() && registry.task(task).await?.is_none() {
            return Err(DeliveryError::NotFound("task"));
        }
        let mut rows = registry
            .delivery_history(task, after, Page::MAX_LIMIT)
            .await?;
        if !attempts {
            // Attempts of one delivery follow each other, the present one last.
            rows.reverse();
            rows.dedup_by_key(|row| row.id);
            rows.reverse();
        }
        let now = Millis::now();
        Ok(rows
            .into_iter()
            .map(|row| self.reported(row, now))
            .collect())
    }

    fn reported(&self, delivery: Delivery, now: Millis) -> Reported {
        let live = self.inner.book.by_id(delivery.id);
        let live = live.filter(|live| live.attempt == delivery.attempt);
        Reported {
            percent: live.as_ref().map(|live| live.percent()),
            waiting: live.and_then(|live| self.waiting_for(&live, now)),
            delivery,
        }
    }
}
