//! A delivery whose device is at another node, or nowhere: looked at for one purpose, and in no book.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use headgate_protocol::transfer::{ranges::Ranges, window::Chunk};

use crate::{
    model::{DeliveryState, Id, Millis, OpenDelivery},
    service::delivery::{
        DeliveryService, DeliveryView, live::LiveDelivery, load::Known, wait::WaitReason,
    },
    store::{StoreError, sessions::Cursor},
};

impl DeliveryService {
    /// A working copy of an open delivery that is in no book, made by the claim that the registry has.
    pub(in crate::service::delivery) async fn visitor(
        &self,
        open: OpenDelivery,
        epoch: i64,
    ) -> Result<Option<Arc<LiveDelivery>>, StoreError> {
        let Some(task) = self.known_task(open.delivery.task_id).await? else {
            return Ok(None);
        };
        let mut known = Known::default();
        let content = known
            .content(self, open.resource_id, open.resource_version)
            .await?;
        let rules = known.rules(self, &open.product_id).await?;
        let cursors = self.inner.sessions.cursors_of(&[open.delivery.id]).await?;
        let have = cursors
            .into_iter()
            .find(|cursor| cursor.attempt == open.delivery.attempt)
            .map(|cursor| Ranges::from_parts(cursor.acked, cursor.ranges));
        let live = LiveDelivery::new(
            &open.delivery,
            open.round,
            open.product_id,
            content,
            task,
            Some(have.unwrap_or_default()),
            rules,
        );
        live.set_epoch(epoch);
        Ok(Some(Arc::new(live)))
    }

    /// The open delivery of this id though its device is at another node.
    pub(in crate::service::delivery) async fn visited(
        &self,
        id: Id,
    ) -> Result<Option<Arc<LiveDelivery>>, StoreError> {
        if self.inner.shared.is_none() {
            return Ok(None);
        }
        match self.inner.registry.open_delivery(id).await? {
            Some((open, epoch)) => self.visitor(open, epoch).await,
            None => Ok(None),
        }
    }

    /// Tells the node that has the device what went out from here: as a cursor, which that node reads when the device
    /// says that it is done.
    pub(in crate::service::delivery) fn tell_sent(
        &self,
        delivery: &Arc<LiveDelivery>,
        chunk: Chunk,
    ) {
        let config = &self.inner.config;
        delivery.on_acknowledged(chunk, config.checkpoint_interval, config.checkpoint_bytes);
        self.inner.checkpoints.mark(delivery);
        self.inner.checkpoints.hurry();
    }

    /// Adds to what is shown how far deliveries are that other nodes have: as far as their cursors were written down, and
    /// what a task's time and hold make them wait for.
    pub(in crate::service::delivery) async fn add_from_elsewhere(
        &self,
        views: &mut [DeliveryView],
    ) {
        if self.inner.shared.is_none() {
            return;
        }
        let ours = |view: &DeliveryView| self.inner.book.by_id(view.delivery.id).is_some();
        let away: Vec<usize> = (0..views.len())
            .filter(|index| !views[*index].delivery.state.is_final() && !ours(&views[*index]))
            .collect();
        if away.is_empty() {
            return;
        }
        let ids: Vec<Id> = away.iter().map(|index| views[*index].delivery.id).collect();
        let cursors = self.inner.sessions.cursors_of(&ids).await;
        let cursors: HashMap<Id, Cursor> = match cursors {
            Ok(cursors) => cursors
                .into_iter()
                .map(|cursor| (cursor.delivery, cursor))
                .collect(),
            Err(error) => {
                tracing::warn!(%error, "how far deliveries at other nodes are could not be looked up");
                HashMap::new()
            }
        };
        let nowhere = self.nowhere(views, &away).await;
        let mut sizes: HashMap<Id, u64> = HashMap::new();
        let now = Millis::now();
        for index in away {
            let view = &mut views[index];
            let task = view.delivery.task_id;
            if let Some(live) = self.inner.book.task(task) {
                view.waiting = if live.is_held() {
                    Some(WaitReason::Paused)
                } else if view.delivery.state == DeliveryState::Pending && live.starts_after(now) {
                    Some(WaitReason::Scheduled)
                } else {
                    nowhere.contains(&index).then_some(WaitReason::Offline)
                };
            }
            let size = match sizes.entry(task) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(entry) => *entry.insert(self.size_of(task).await.unwrap_or_default()),
            };
            let cursor = cursors
                .get(&view.delivery.id)
                .filter(|cursor| cursor.attempt == view.delivery.attempt);
            let have = cursor.map_or(0, |cursor| {
                Ranges::from_parts(cursor.acked, cursor.ranges.clone()).total()
            });
            let percent = have.min(size).saturating_mul(100).checked_div(size);
            view.percent = Some(u8::try_from(percent.unwrap_or(0)).unwrap_or(100));
        }
    }

    /// Those of these deliveries whose devices are at no node.
    async fn nowhere(&self, views: &[DeliveryView], away: &[usize]) -> HashSet<usize> {
        let Some(nodes) = self.inner.sessions.nodes() else {
            return HashSet::new();
        };
        let devices: Vec<_> = away
            .iter()
            .map(|index| views[*index].delivery.device_id.clone())
            .collect();
        match nodes.holders(&devices).await {
            Ok(holders) => away
                .iter()
                .zip(holders)
                .filter(|(_, holder)| holder.is_none())
                .map(|(index, _)| *index)
                .collect(),
            Err(error) => {
                tracing::warn!(%error, "where devices are could not be looked up");
                HashSet::new()
            }
        }
    }

    /// Bytes of what a task delivers.
    async fn size_of(&self, task: Id) -> Result<u64, StoreError> {
        let registry = &self.inner.registry;
        let Some(task) = registry.task_alone(task).await? else {
            return Ok(0);
        };
        let stored = registry
            .resource_version(task.resource_id, task.resource_version)
            .await?;
        Ok(stored.map_or(0, |stored| stored.size))
    }
}
