//! Applications: what an operator makes of them, and what that means for those that are here.
//!
//! Every change is stored together with its audit entry and then made known to authentication and to
//! open sessions before the caller hears of it. A change that has begun is carried out whole, also
//! when its caller goes away: nothing is ever stored that memory does not know.

mod binding;
#[cfg(test)]
pub(super) mod tests;

use std::{fmt, future::Future};

use headgate_protocol::identity::{AppId, DeviceId};

pub use self::binding::BindReport;
use crate::{
    config::ApplicationsConfig,
    model::{
        Actor, Application, CredentialSlot, InvalidField, Millis, NoRandomness, Page, Paged, text,
    },
    service::{
        auth::{AppAuthenticator, AppSecret, AuthError, AuthenticatedApp},
        changes::{Change, Changes},
        uplink::{Ended, Uplink},
    },
    shutdown::Shutdown,
    store::{
        StoreError,
        registry::{AppFilter, AppPatch, Registry},
    },
};

/// Why an application cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// There is none of that id.
    #[error("no such {what}")]
    NotFound {
        /// `application` or `device`.
        what: &'static str,
    },
    /// The id is taken.
    #[error("{what} is taken by {with}")]
    Conflict {
        /// `application id`.
        what: &'static str,
        /// Which record has it.
        with: String,
    },
    /// It is not any more as whoever wants to change it read it.
    #[error("the {what} was changed meanwhile")]
    Stale {
        /// What.
        what: &'static str,
    },
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// There are as many as may be.
    #[error("there are {limit} {what}, and no more may be")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many may be.
        limit: u64,
    },
    /// The registry failed.
    #[error(transparent)]
    Store(StoreError),
    /// No secret can be made.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The gateway ended, or the change failed, before it was known to be carried out.
    #[error("the change was interrupted")]
    Interrupted,
}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what } => Self::NotFound { what },
            StoreError::Stale { what } => Self::Stale { what },
            StoreError::Conflict { what, with } => Self::Conflict { what, with },
            StoreError::Quota { unit, limit } => Self::TooMany { what: unit, limit },
            StoreError::Page(error) => Self::Invalid(InvalidField::from(error)),
            other => Self::Store(other),
        }
    }
}

/// An application that was made.
#[derive(Debug)]
pub struct CreatedApp {
    /// The application.
    pub app: Application,
    /// Its secret, to be shown this once.
    pub secret: AppSecret,
}

/// The service of applications. Cloning shares everything.
#[derive(Clone)]
pub struct AppService {
    registry: Registry,
    authenticator: AppAuthenticator,
    uplink: Uplink,
    config: ApplicationsConfig,
    tasks: Shutdown,
    changes: Changes,
}

impl AppService {
    /// The service over a registry; `tasks` owns changes that are under way.
    pub const fn new(
        registry: Registry,
        authenticator: AppAuthenticator,
        uplink: Uplink,
        config: ApplicationsConfig,
        tasks: Shutdown,
    ) -> Self {
        Self {
            registry,
            authenticator,
            uplink,
            config,
            tasks,
            changes: Changes::alone(),
        }
    }

    /// The same service, saying its changes.
    #[must_use]
    pub fn with_changes(mut self, changes: Changes) -> Self {
        self.changes = changes;
        self
    }

    /// Makes an application, enabled and without devices, and its primary secret.
    ///
    /// # Errors
    /// [`AppError::Invalid`] naming the field, [`AppError::Conflict`] when its id is taken, [`AppError::TooMany`].
    pub async fn create(
        &self,
        actor: &Actor,
        id: AppId,
        name: String,
    ) -> Result<CreatedApp, AppError> {
        let now = Millis::now();
        let app = Application {
            id,
            name,
            enabled: true,
            created_at: now,
            updated_at: now,
        };
        app.validate()?;
        let secret = AppSecret::generate()?;
        let audit = actor.did("app.create", &app.id, app.name.as_str());
        let max = self.config.max_applications;
        self.registry
            .insert_app(&app, &secret.digest(), max, &audit)
            .await?;
        Ok(CreatedApp { app, secret })
    }

    /// The application of an id.
    ///
    /// # Errors
    /// [`AppError::NotFound`].
    pub async fn app(&self, id: &AppId) -> Result<Application, AppError> {
        let app = self.registry.app(id).await?;
        app.ok_or(AppError::NotFound {
            what: "application",
        })
    }

    /// Applications in the order of their ids.
    ///
    /// # Errors
    /// [`AppError::Invalid`] for a wrong cursor.
    pub async fn apps(
        &self,
        filter: &AppFilter,
        page: &Page,
    ) -> Result<Paged<Application>, AppError> {
        Ok(self.registry.apps(filter, page).await?)
    }

    /// Changes an application's label, or disables it or lets it in again; the sessions of a disabled one are ended.
    ///
    /// # Errors
    /// [`AppError::NotFound`], [`AppError::Invalid`].
    pub async fn patch(
        &self,
        actor: &Actor,
        id: &AppId,
        patch: AppPatch,
    ) -> Result<Application, AppError> {
        if let Some(name) = &patch.name {
            text::check_label("name", name, 1)?;
        }
        let action = match patch.enabled {
            Some(false) => "app.disable",
            Some(true) => "app.enable",
            None => "app.update",
        };
        let audit = actor.did(action, id, patch.name.as_deref().unwrap_or_default());
        let (this, id) = (self.clone(), id.clone());
        self.whole(async move {
            let app = this
                .registry
                .patch_app(&id, &patch, Millis::now(), &audit)
                .await?;
            if patch.enabled.is_some() {
                this.authenticator.invalidate();
            }
            if !app.enabled {
                this.uplink.on_ended(&id, Ended::Disabled).await;
                this.say_ended(&id, Ended::Disabled).await;
            } else if patch.enabled.is_some() {
                this.changes.say(&Change::Applications).await;
            }
            Ok(app)
        })
        .await
    }

    /// Replaces one of an application's two secrets and returns the new one, to be shown this once. The other goes
    /// on to be valid; sessions go on too, unless `disconnect`.
    ///
    /// # Errors
    /// [`AppError::NotFound`].
    pub async fn reset_secret(
        &self,
        actor: &Actor,
        id: &AppId,
        which: CredentialSlot,
        disconnect: bool,
    ) -> Result<AppSecret, AppError> {
        let secret = AppSecret::generate()?;
        let digest = secret.digest();
        let audit = actor.did("app.reset_secret", id, which.as_str());
        let (this, id) = (self.clone(), id.clone());
        self.whole(async move {
            this.registry
                .set_app_secret(&id, which, &digest, Millis::now(), &audit)
                .await?;
            this.authenticator.invalidate();
            if disconnect {
                this.uplink.on_ended(&id, Ended::SecretReset).await;
                this.say_ended(&id, Ended::SecretReset).await;
            } else {
                this.changes.say(&Change::Applications).await;
            }
            Ok(())
        })
        .await?;
        Ok(secret)
    }

    /// Deletes an application with its bindings and ends its sessions.
    ///
    /// # Errors
    /// [`AppError::NotFound`].
    pub async fn delete(&self, actor: &Actor, id: &AppId) -> Result<(), AppError> {
        let audit = actor.did("app.delete", id, "");
        let (this, id) = (self.clone(), id.clone());
        self.whole(async move {
            this.registry.delete_app(&id, &audit).await?;
            this.authenticator.invalidate();
            this.uplink.on_ended(&id, Ended::Deleted).await;
            this.say_ended(&id, Ended::Deleted).await;
            Ok(())
        })
        .await
    }

    /// Checks that `secret` is one of the application's.
    ///
    /// # Errors
    /// As [`AppAuthenticator::authenticate`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn authenticate(
        &self,
        app_id: &str,
        secret: &[u8],
    ) -> Result<AuthenticatedApp, AuthError> {
        self.authenticator.authenticate(app_id, secret).await
    }

    /// Finds the application that a secret alone stands for.
    ///
    /// # Errors
    /// As [`AppAuthenticator::authenticate`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn authenticate_bearer(&self, secret: &str) -> Result<AuthenticatedApp, AuthError> {
        self.authenticator.authenticate_bearer(secret).await
    }

    /// Notes that an operator ends a session.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn record_kick(&self, actor: &Actor, client_id: &str) -> Result<(), AppError> {
        let audit = actor.did("app.kick", client_id, "");
        Ok(self.registry.record(&audit).await?)
    }

    /// Drops what waits for a device; gives how many messages that were.
    ///
    /// # Errors
    /// [`AppError::Interrupted`] where they could not be dropped.
    pub async fn empty_mailbox(&self, actor: &Actor, device: &DeviceId) -> Result<usize, AppError> {
        let (this, device, actor) = (self.clone(), device.clone(), actor.clone());
        self.whole(async move {
            let dropped = this.uplink.empty_mailbox(&device).await;
            let dropped = dropped.map_err(|_| AppError::Interrupted)?;
            let detail = format!("{dropped} messages");
            let audit = actor.did("device.empty_mailbox", &device, detail);
            this.registry.record(&audit).await?;
            Ok(dropped)
        })
        .await
    }

    async fn say_ended(&self, app: &AppId, reason: Ended) {
        let change = Change::Ended(app.to_string(), reason.into());
        self.changes.say(&change).await;
    }

    /// Carries a change out to its end, whatever becomes of the caller.
    async fn whole<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, AppError>> + Send + 'static,
    ) -> Result<T, AppError> {
        let done = self.tasks.spawn(change).await;
        done.unwrap_or(Err(AppError::Interrupted))
    }
}

impl fmt::Debug for AppService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppService").finish_non_exhaustive()
    }
}
