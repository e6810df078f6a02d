//! Which devices an application sees.

use headgate_protocol::identity::{AppId, DeviceId};

use super::{AppError, AppService};
use crate::{
    model::{Actor, AuditEntry, Binding, Millis, Page, Paged},
    service::changes::Change,
    store::registry::BLOCK,
};

/// What became of devices that were to be bound or unbound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BindReport {
    /// Those whose binding was changed.
    pub changed: u64,
    /// Ids that no device has.
    pub unknown: Vec<DeviceId>,
    /// Devices that are bound to as many other applications as they may.
    pub over_limit: Vec<DeviceId>,
}

impl AppService {
    /// Binds devices to an application: those that can be, in blocks that are each stored whole. It sees and commands
    /// them from then on. One that is bound already stays so.
    ///
    /// # Errors
    /// [`AppError::NotFound`] for the application. What was bound before a failure stays bound.
    pub async fn bind(
        &self,
        actor: &Actor,
        id: &AppId,
        devices: Vec<DeviceId>,
    ) -> Result<BindReport, AppError> {
        self.app(id).await?;
        let (this, id, actor) = (self.clone(), id.clone(), actor.clone());
        self.whole(async move {
            let mut report = BindReport::default();
            let max = this.config.max_per_device;
            for block in devices.chunks(BLOCK) {
                let audit = entry(&actor, "app.bind", &id, block);
                let bound = this
                    .registry
                    .bind_devices(&id, block, max, Millis::now(), &audit)
                    .await?;
                this.uplink.on_bound(&id, &bound.added);
                let change = Change::binding(&id, &bound.added, true);
                this.changes.say(&change).await;
                report.changed += bound.added.len() as u64;
                report.unknown.extend(bound.unknown);
                report.over_limit.extend(bound.over_limit);
            }
            Ok(report)
        })
        .await
    }

    /// Unbinds devices from an application. When this returns, nothing of them reaches its sessions any more. One
    /// that is not bound stays so.
    ///
    /// # Errors
    /// [`AppError::NotFound`] for the application. What was unbound before a failure stays unbound.
    pub async fn unbind(
        &self,
        actor: &Actor,
        id: &AppId,
        devices: Vec<DeviceId>,
    ) -> Result<BindReport, AppError> {
        self.app(id).await?;
        let (this, id, actor) = (self.clone(), id.clone(), actor.clone());
        self.whole(async move {
            let mut report = BindReport::default();
            for block in devices.chunks(BLOCK) {
                let audit = entry(&actor, "app.unbind", &id, block);
                let removed = this.registry.unbind_devices(&id, block, &audit).await?;
                // Other nodes first: what they still offer is taken out of the queues after that.
                let change = Change::binding(&id, &removed, false);
                this.changes.say(&change).await;
                this.uplink.on_unbound(&id, &removed).await;
                report.changed += removed.len() as u64;
            }
            Ok(report)
        })
        .await
    }

    /// The devices of an application in the order of their ids.
    ///
    /// # Errors
    /// [`AppError::NotFound`] for the application, [`AppError::Invalid`] for a wrong cursor.
    pub async fn bindings(&self, id: &AppId, page: &Page) -> Result<Paged<Binding>, AppError> {
        self.app(id).await?;
        Ok(self.registry.bindings(id, page).await?)
    }

    /// How many devices an application has.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn binding_count(&self, id: &AppId) -> Result<u64, AppError> {
        Ok(self.registry.binding_count(id).await?)
    }
}

/// Names a single device, and counts more.
fn entry(actor: &Actor, action: &'static str, app: &AppId, devices: &[DeviceId]) -> AuditEntry {
    let detail = match devices {
        [one] => one.to_string(),
        [first, .., last] => format!("{} devices from {first} to {last}", devices.len()),
        [] => String::new(),
    };
    actor.did(action, app, detail)
}
