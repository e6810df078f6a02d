//! Devices that come: their deliveries are taken out of the registry, many devices' at a time.

use std::{collections::HashMap, sync::Arc};

use headgate_protocol::{identity::DeviceId, transfer::ranges::Ranges};
use tokio::time::{Instant, sleep_until};

use super::{AGAIN, Shared};
use crate::{
    model::{Id, OpenDelivery, Task},
    service::delivery::{
        DeliveryService,
        journal::PACE,
        live::{LiveDelivery, LiveTask},
        load::Known,
    },
    store::{StoreError, sessions::Cursor},
};

/// Devices that one look is for.
const AT_ONCE: usize = 500;

impl DeliveryService {
    /// Takes what is open for devices that come, again and again, until it is dropped. The first one after a pause is
    /// looked up at once; who comes closely behind gathers, so that a storm of them costs few queries.
    pub(super) async fn run_arrivals(&self, shared: &Shared) {
        let mut not_before = Instant::now();
        loop {
            shared.came.notified().await;
            loop {
                sleep_until(not_before).await;
                not_before = Instant::now() + PACE;
                if let Err(error) = self.give_back_refused(shared).await {
                    tracing::warn!(%error, "what became of deliveries that were refused could not be looked up; trying again");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                let arrived = next_of(shared);
                if arrived.is_empty() {
                    break;
                }
                if let Err(error) = self.take_for(shared, &arrived).await {
                    tracing::warn!(%error, devices = arrived.len(), "deliveries of devices that came could not be looked up; trying again");
                    put_back(shared, arrived);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Takes what is open for these devices, and wakes those that have something new, however far it comes.
    pub(in crate::service::delivery) async fn take_for(
        &self,
        shared: &Shared,
        arrived: &[(DeviceId, i64)],
    ) -> Result<(), StoreError> {
        let taken = self.inner.registry.take_deliveries(arrived).await?;
        self.enter_taken(shared, taken).await
    }

    /// Enters open deliveries whose devices are here, each where its cursor stands; those that are in the book stay as
    /// they are. Devices that have something new are woken, each once where its deliveries stand together, for whoever is
    /// woken twice is told twice. They are also where an error ends this early: the next look finds theirs in the book.
    pub(in crate::service::delivery) async fn enter_taken(
        &self,
        shared: &Shared,
        taken: Vec<(OpenDelivery, i64)>,
    ) -> Result<(), StoreError> {
        let mut entered = Vec::new();
        let outcome = self.enter_each(shared, taken, &mut entered).await;
        for device in entered {
            self.inner.links().wake(&device);
        }
        outcome
    }

    async fn enter_each(
        &self,
        shared: &Shared,
        taken: Vec<(OpenDelivery, i64)>,
        entered: &mut Vec<DeviceId>,
    ) -> Result<(), StoreError> {
        if taken.is_empty() {
            return Ok(());
        }
        let ids: Vec<Id> = taken.iter().map(|(open, _)| open.delivery.id).collect();
        let mut cursors: HashMap<Id, Cursor> = match self.inner.sessions.cursors_of(&ids).await {
            Ok(cursors) => cursors
                .into_iter()
                .map(|cursor| (cursor.delivery, cursor))
                .collect(),
            Err(error) => {
                // The device knows best how far it is.
                tracing::warn!(%error, "cursors of deliveries could not be read; more bytes may be sent twice");
                HashMap::new()
            }
        };
        let mut known = Known::default();
        for (open, epoch) in taken {
            let content = known
                .content(self, open.resource_id, open.resource_version)
                .await?;
            let rules = known.rules(self, &open.product_id).await?;
            let Some(task) = self.known_task(open.delivery.task_id).await? else {
                continue;
            };
            let cursor = cursors.remove(&open.delivery.id);
            let have = cursor
                .filter(|cursor| cursor.attempt == open.delivery.attempt)
                .map(|cursor| Ranges::from_parts(cursor.acked, cursor.ranges));
            if let Some(former) = self.inner.book.by_id(open.delivery.id) {
                if former.attempt == open.delivery.attempt {
                    former.set_epoch(epoch);
                    continue;
                }
                self.let_go(&former);
            }
            let live = LiveDelivery::new(
                &open.delivery,
                open.round,
                open.product_id,
                content,
                task,
                have,
                rules,
            );
            live.set_epoch(epoch);
            let live = Arc::new(live);
            if self.inner.book.insert_absent(&live) {
                self.enter_on_clock(&live);
                if entered.last() != Some(&live.device_id) {
                    entered.push(live.device_id.clone());
                }
            }
            // It may have gone, or come again, since it was looked up; whoever comes later looks for himself.
            if !shared.has(&live.device_id, epoch) {
                self.let_go(&live);
            }
        }
        Ok(())
    }

    /// The working copy of a task; `None` where there is no such task.
    pub(super) async fn known_task(&self, id: Id) -> Result<Option<Arc<LiveTask>>, StoreError> {
        if let Some(task) = self.inner.book.task(id) {
            return Ok(Some(task));
        }
        match self.inner.registry.task_alone(id).await? {
            Some(task) => self.know_task(&task).await.map(Some),
            None => Ok(None),
        }
    }

    /// The working copy of a task that is open, made where there is none.
    pub(super) async fn know_task(&self, task: &Task) -> Result<Arc<LiveTask>, StoreError> {
        if let Some(known) = self.inner.book.task(task.id) {
            return Ok(known);
        }
        let (counts, _) = self.inner.registry.standing_of(task.id).await?;
        let live = self.live_task(task, counts, 0).await?;
        Ok(self.inner.book.add_task(live))
    }

    /// Strikes out what the registry said is another's; what is open and whose device is here is looked up anew. A device
    /// hears of what has ended: it may have been offered it a moment before.
    async fn give_back_refused(&self, shared: &Shared) -> Result<(), StoreError> {
        let refused = std::mem::take(&mut *shared.refused.lock());
        if let Err(error) = self.strike_ended(refused.clone()).await {
            shared.refused.lock().extend(refused);
            return Err(error);
        }
        for id in refused {
            let Some(delivery) = self.inner.book.by_id(id) else {
                continue;
            };
            tracing::info!(delivery = %id, device_id = %delivery.device_id, "a delivery is in other hands");
            self.let_go(&delivery);
            self.look_again(&delivery.device_id);
        }
        Ok(())
    }
}

fn next_of(shared: &Shared) -> Vec<(DeviceId, i64)> {
    let mut arrivals = shared.arrivals.lock();
    let mut left = AT_ONCE;
    arrivals
        .extract_if(|_, _| {
            left = left.saturating_sub(1);
            left > 0
        })
        .collect()
}

/// Those that did not leave or come again meanwhile.
fn put_back(shared: &Shared, arrived: Vec<(DeviceId, i64)>) {
    for (device, epoch) in arrived {
        if shared.has(&device, epoch) {
            shared.arrivals.lock().entry(device).or_insert(epoch);
        }
    }
}
