//! Applications: what they hold against the digests that the registry has.
//!
//! A secret is 256 random bits, so its SHA-256 says nothing of it and is looked up as it is; only
//! whoever holds the secret can make the digest. Right secrets are kept in memory, wrong ones are not.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use headgate_protocol::identity::AppId;
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{
    model::{NoRandomness, random},
    service::auth::AuthError,
    store::registry::{AppSecretRow, Registry},
};

/// Secrets kept in memory, as digests.
const SECRET_ENTRIES: usize = 4_096;
/// A longer text is no secret of ours.
const MAX_SECRET_BYTES: usize = 128;
/// What every secret begins with, so that one in the wrong place is recognised.
const PREFIX: &str = "hga_";

/// An application that proved who it is.
#[derive(Clone, Debug)]
pub struct AuthenticatedApp {
    /// Its id.
    pub id: AppId,
    /// What had been changed of applications when it was looked up.
    version: u64,
}

/// A secret that was just made, to be shown once. Wiped when dropped, never printed.
pub struct AppSecret(Zeroizing<String>);

impl AppSecret {
    /// Makes one.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub(in crate::service) fn generate() -> Result<Self, NoRandomness> {
        let bytes = Zeroizing::new(random::<32>()?);
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 43));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut text);
        Ok(Self(text))
    }

    /// What is stored of it.
    pub(in crate::service) fn digest(&self) -> [u8; 32] {
        digest(self.0.as_bytes())
    }

    /// The secret as text, for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AppSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppSecret(..)")
    }
}

/// Authenticates applications. Cloning shares the cache.
#[derive(Clone)]
pub struct AppAuthenticator {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    secrets: Cache<[u8; 32], Arc<AppSecretRow>>,
    /// Counts changes of applications, so that nothing found before one is kept or used after it.
    version: AtomicU64,
}

impl AppAuthenticator {
    /// Nothing is kept in memory yet.
    pub fn new(registry: Registry) -> Self {
        Self {
            inner: Arc::new(Inner {
                registry,
                secrets: Cache::new(SECRET_ENTRIES),
                version: AtomicU64::new(0),
            }),
        }
    }

    /// Checks that `secret` is one of the application's.
    ///
    /// # Errors
    /// [`AuthError::Refused`] for an unknown application and a wrong secret, [`AuthError::Disabled`] for a disabled
    /// application whose secret was right; [`AuthError::Store`] is the gateway's own fault.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn authenticate(
        &self,
        app_id: &str,
        secret: &[u8],
    ) -> Result<AuthenticatedApp, AuthError> {
        let (row, version) = self.find(secret).await?;
        let is_right = row.as_ref().is_some_and(|row| {
            row.app_id
                .as_str()
                .as_bytes()
                .ct_eq(app_id.as_bytes())
                .into()
        });
        Self::admit(row.filter(|_| is_right), version)
    }

    /// Finds the application that a secret alone stands for.
    ///
    /// # Errors
    /// As [`AppAuthenticator::authenticate`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn authenticate_bearer(&self, secret: &str) -> Result<AuthenticatedApp, AuthError> {
        let (row, version) = self.find(secret.as_bytes()).await?;
        Self::admit(row, version)
    }

    /// Whether a text has the form of an application's secret.
    pub fn is_secret(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Whether nothing has been changed of any application since this one was looked up.
    pub(in crate::service) fn is_current(&self, app: &AuthenticatedApp) -> bool {
        self.inner.version.load(Ordering::SeqCst) == app.version
    }

    /// Forgets what was kept. To be called after secrets, states or applications were changed in the registry.
    pub(in crate::service) fn invalidate(&self) {
        // First, so that a look-up under way sees it before or after it keeps what it found.
        self.inner.version.fetch_add(1, Ordering::SeqCst);
        self.inner.secrets.clear();
    }

    async fn find(&self, secret: &[u8]) -> Result<(Option<Arc<AppSecretRow>>, u64), AuthError> {
        let inner = &self.inner;
        let version = inner.version.load(Ordering::SeqCst);
        if secret.len() > MAX_SECRET_BYTES {
            return Ok((None, version));
        }
        let digest = digest(secret);
        if let Some(row) = inner.secrets.get(&digest) {
            return Ok((Some(row), version));
        }
        let Some(row) = inner.registry.app_by_secret(&digest).await? else {
            return Ok((None, version));
        };
        let row = Arc::new(row);
        inner.secrets.insert(digest, Arc::clone(&row));
        if inner.version.load(Ordering::SeqCst) != version {
            inner.secrets.remove(&digest);
        }
        Ok((Some(row), version))
    }

    fn admit(row: Option<Arc<AppSecretRow>>, version: u64) -> Result<AuthenticatedApp, AuthError> {
        let row = row.ok_or(AuthError::Refused)?;
        if !row.enabled {
            return Err(AuthError::Disabled);
        }
        Ok(AuthenticatedApp {
            id: row.app_id.clone(),
            version,
        })
    }
}

impl fmt::Debug for AppAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppAuthenticator").finish_non_exhaustive()
    }
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}
