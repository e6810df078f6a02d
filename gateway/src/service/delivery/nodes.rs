//! Deliveries over several nodes: each is in the hands of the node that has its device.
//!
//! A node's book holds what is open for the devices that are connected to it, and every open task. A device that comes
//! brings the claim of its session; its deliveries are taken with it, and no node with an older claim changes them any
//! more: the registry itself refuses that. What is done to a task is done to the tables first and told to all nodes with
//! the same transaction; each does to its own deliveries what follows. What one node does for all is done by whoever
//! holds the lease (`keeper`); what a policy bounds is shared out every second (`share`).
//! Invariants: a delivery is in the book of a node only while its device is there; a notice is a hint, and who misses one
//! finds the same in the tables at the next look.

mod arrivals;
mod keeper;
mod notices;
mod rule;
mod share;
mod visitor;

use std::{collections::HashMap, sync::Arc, time::Duration};

use dashmap::DashMap;
use headgate_protocol::identity::DeviceId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{DeliveryService, live::LiveDelivery};
use crate::{
    model::{self, Id, NoRandomness},
    shutdown::Shutdown,
};

/// What a node knows of itself among others.
#[derive(Debug)]
pub(super) struct Shared {
    /// This process, by a name that no other one has.
    node: Box<str>,
    /// The claims of the devices that are here.
    here: DashMap<DeviceId, i64>,
    /// Devices whose deliveries are to be taken; bounded by those that are here.
    arrivals: Mutex<HashMap<DeviceId, i64>>,
    /// Deliveries that another node has, or somebody has ended, as the registry said.
    refused: Mutex<Vec<Id>>,
    came: Notify,
    /// Shares are to be settled before the next tick.
    hurry: Notify,
    keeper: keeper::Lease,
}

impl Shared {
    pub(super) fn new() -> Result<Self, NoRandomness> {
        let name: [u8; 8] = model::random()?;
        Ok(Self {
            node: hex::encode(name).into(),
            here: DashMap::new(),
            arrivals: Mutex::default(),
            refused: Mutex::default(),
            came: Notify::new(),
            hurry: Notify::new(),
            keeper: keeper::Lease::default(),
        })
    }

    /// Whether the device is here, in the session of this claim.
    fn has(&self, device: &DeviceId, epoch: i64) -> bool {
        self.here.get(device).is_some_and(|known| *known == epoch)
    }

    /// This process, by a name that no other one has.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// Whether everything was looked up that was to be.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.arrivals.lock().is_empty()
    }

    /// Takes note that the registry refused steps of these deliveries.
    pub(super) fn refuse(&self, deliveries: Vec<Id>) {
        self.refused.lock().extend(deliveries);
        self.came.notify_one();
    }
}

impl DeliveryService {
    /// A device's session begins here, with a claim that is greater than any before: what is open for it comes into the
    /// hands of this node, and the session is woken. Without other nodes nothing is to be done.
    pub fn on_connected(&self, device: &DeviceId, epoch: i64) {
        let Some(shared) = &self.inner.shared else {
            return;
        };
        shared.here.insert(device.clone(), epoch);
        shared.arrivals.lock().insert(device.clone(), epoch);
        shared.came.notify_one();
    }

    /// Something is open for a device that is here, and not in the book: its deliveries are taken anew.
    pub(super) fn look_again(&self, device: &DeviceId) {
        let Some(shared) = &self.inner.shared else {
            return;
        };
        if let Some(epoch) = shared.here.get(device) {
            shared.arrivals.lock().insert(device.clone(), *epoch);
            shared.came.notify_one();
        }
    }

    /// The device is gone from here: what is open for it is left to the node where it comes next.
    pub(super) fn leave_to_others(&self, device: &DeviceId) {
        let Some(shared) = &self.inner.shared else {
            return;
        };
        shared.here.remove(device);
        shared.arrivals.lock().remove(device);
        for delivery in self.inner.book.of_device(device) {
            self.let_go(&delivery);
        }
        self.inner.checkpoints.hurry();
    }

    /// Strikes out of the book what is not in this node's hands any more; it stays open.
    fn let_go(&self, delivery: &LiveDelivery) {
        if self.inner.book.strike(delivery).is_none() {
            return;
        }
        self.inner.admission.release(delivery);
        self.inner.alarms.clear(delivery.id, &delivery.alarm);
        let state = delivery.state();
        if !state.is_final() {
            self.inner.metrics.deliveries.of(state).dec();
        }
    }

    /// Starts what only several nodes need.
    pub(super) fn spawn_among_nodes(&self, shutdown: &Shutdown) {
        let Some(shared) = &self.inner.shared else {
            return;
        };
        let (service, of, stop) = (self.clone(), Arc::clone(shared), shutdown.token().clone());
        shutdown.spawn(async move {
            stop.run_until_cancelled(service.run_arrivals(&of)).await;
        });
        let (service, of, stop) = (self.clone(), Arc::clone(shared), shutdown.token().clone());
        shutdown.spawn(async move {
            stop.run_until_cancelled(service.run_notices(&of)).await;
        });
        let (service, of, stop) = (self.clone(), Arc::clone(shared), shutdown.token().clone());
        shutdown.spawn(async move {
            stop.run_until_cancelled(service.run_keeper(&of)).await;
            // Another node need not wait for its end.
            service.give_up_keeping(&of).await;
        });
        let (service, of, stop) = (self.clone(), Arc::clone(shared), shutdown.token().clone());
        shutdown.spawn(async move {
            stop.run_until_cancelled(service.run_shares(&of)).await;
        });
    }
}

/// How often what nodes tell each other is looked up, told or not.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A pause before what a store refused is tried again.
const AGAIN: Duration = Duration::from_secs(1);
