//! Devices: what they claim and present against what the registry holds.
//!
//! A device is looked up once, by the name it claims, in memory or in the query that all who wait share. A certificate
//! is compared by its fingerprint, a password by the proof that its form makes.

mod secured;
mod unsecured;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use headgate_protocol::{
    credential::{Claim, Form, Proof},
    identity::{DeviceId, NodeId, ProductId},
};
use quick_cache::sync::Cache;
use subtle::ConstantTimeEq as _;
use tokio::sync::Mutex as AsyncMutex;

use self::secured::Preferred;
pub use self::secured::{CredentialTag, PresharedKey};
use crate::{
    config::AuthConfig,
    model::{
        AuthKind, CertificateWarning, CredentialForm, Device, DeviceName, Millis, PeerCertificate,
        Product,
    },
    service::{
        auth::{
            AuthError, CertificateRefusal, changes::Changes, lookup::Lookups, throttle::Throttle,
        },
        seal::Sealer,
    },
    store::registry::{DeviceAuthRow, Registry},
    telemetry::{metrics::Metrics, sampler::Sampler},
};

/// Who is at the other end of a connection, beside what it claims.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The certificate whose key it proved to hold.
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// Checks chains of certificates; TLS does, in another layer.
pub trait ChainVerifier: Send + Sync {
    /// Whether a device's certificate leads to one of these authorities (PEM) at that time.
    ///
    /// # Errors
    /// Why it does not, for the log.
    fn verify(&self, peer: &PeerCertificate, authorities: &str, at: Millis) -> Result<(), String>;
}

/// A device that proved who it is.
#[derive(Clone, Debug)]
pub struct AuthenticatedDevice {
    /// Its id.
    pub device_id: DeviceId,
    /// Its id within its product.
    pub node_id: NodeId,
    /// Its product, as it was when the device came in.
    pub product: Arc<Product>,
    /// The form of its CONNECT, whose topics it expects.
    pub form: Form,
    /// What it proved itself by.
    pub auth: AuthKind,
    /// What had been changed in the registry when this was true.
    changes: u64,
}

/// Authenticates devices. Cloning shares the cache.
#[derive(Clone)]
pub struct DeviceAuthenticator {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    sealer: Sealer,
    lookups: Lookups,
    throttle: Throttle,
    /// Found devices by the string that named them, secrets sealed. Strings that name nothing are not kept: they
    /// would let a stranger push the fleet out.
    devices: Cache<Box<str>, Arc<DeviceAuthRow>>,
    products: Cache<ProductId, Arc<Product>>,
    /// Held by the one look-up of a product that queries.
    product_turn: AsyncMutex<()>,
    /// Counts what was invalidated, so that a look-up that began before is not kept after it.
    changes: Changes,
    /// Sealed like a secret; opened where a device has none, so that every answer takes the same work.
    dummy: Vec<u8>,
    huawei_clock_skew: Duration,
    allow_expired_certificates: bool,
    chains: OnceLock<Arc<dyn ChainVerifier>>,
    /// Which of their two secrets devices use as a pre-shared key, where it is not the first.
    preferred: Cache<Box<str>, Preferred>,
    /// Lines about certificates that are let in.
    warnings: Sampler,
}

impl DeviceAuthenticator {
    /// An authenticator that keeps up to `config.cache_entries` devices in memory, about 400 bytes each.
    ///
    /// # Errors
    /// [`AuthError::Seal`] when nothing can be sealed.
    pub fn new(
        registry: Registry,
        sealer: Sealer,
        config: &AuthConfig,
        metrics: &Metrics,
    ) -> Result<Self, AuthError> {
        let dummy = sealer.seal(DUMMY_OWNER, DUMMY_SECRET)?;
        Ok(Self {
            inner: Arc::new(Inner {
                lookups: Lookups::new(registry.clone(), metrics),
                throttle: Throttle::new(config, metrics),
                registry,
                sealer,
                devices: Cache::new(config.cache_entries),
                preferred: Cache::new(config.cache_entries),
                products: Cache::new(PRODUCT_ENTRIES),
                product_turn: AsyncMutex::default(),
                changes: Changes::new(),
                dummy,
                huawei_clock_skew: config.huawei_clock_skew,
                allow_expired_certificates: config.allow_expired_certificates,
                chains: OnceLock::new(),
                warnings: Sampler::default(),
            }),
        })
    }

    /// Says who checks whether a certificate leads to a product's authorities; until then none does.
    pub fn connect_chains(&self, chains: Arc<dyn ChainVerifier>) {
        // A second one would change nothing.
        let _first = self.inner.chains.set(chains);
    }

    /// Checks a claim, and the certificate that came with it, at `now`.
    ///
    /// A device that is registered with certificates needs one of them and nothing else; every other one needs a
    /// password, and its certificate does not matter.
    ///
    /// # Errors
    /// [`AuthError::Refused`] for an unknown device, a wrong secret or certificate and a form that its product does not
    /// allow; [`AuthError::Malformed`] and [`AuthError::Stale`] for a password that proves nothing whoever it is;
    /// [`AuthError::Disabled`] and [`AuthError::Certificate`] only for a device that proved who it is;
    /// [`AuthError::Store`] and [`AuthError::Seal`] are the gateway's own fault.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn authenticate(
        &self,
        claim: &Claim<'_>,
        peer: &Peer,
        now: Millis,
    ) -> Result<AuthenticatedDevice, AuthError> {
        let mut changes = self.inner.changes.of(claim.identity);
        for _ in 0..MAX_ATTEMPTS {
            let outcome = self.attempt(claim, peer, now, changes).await;
            // What was changed meanwhile may have been read before.
            let latest = self.inner.changes.of(claim.identity);
            if outcome.is_err() || latest == changes {
                return outcome;
            }
            changes = latest;
        }
        Err(AuthError::Changing)
    }

    async fn attempt(
        &self,
        claim: &Claim<'_>,
        peer: &Peer,
        now: Millis,
        changes: u64,
    ) -> Result<AuthenticatedDevice, AuthError> {
        let Some(form) = device_form(claim.form) else {
            return Err(AuthError::Refused);
        };
        let found = self.inner.device(claim.identity).await?;
        let certificate = certified(found.as_deref(), peer);
        let row = match (found, certificate) {
            (Some(row), Some(_)) => row,
            (found, _) => self.inner.check_password(found, claim, now)?,
        };
        if !row.enabled {
            return Err(AuthError::Disabled);
        }
        let product = self.inner.product(&row.product_id).await?;
        let product = product.ok_or(AuthError::Refused)?;
        match certificate {
            Some(certificate) => {
                self.inner
                    .check_certificate(&row, &product, certificate, now)?;
            }
            None if product.credential_forms.contains(&form) => {}
            None => return Err(AuthError::Refused),
        }
        Ok(AuthenticatedDevice {
            auth: row.auth,
            device_id: row.device_id.clone(),
            node_id: row.node_id.clone(),
            product,
            form: claim.form,
            changes,
        })
    }

    /// Whether nothing was changed in the registry since this device was let in by this claim. To be asked once its
    /// session can be found: from then on whoever freezes it closes that session.
    pub fn is_current(&self, claim: &Claim<'_>, device: &AuthenticatedDevice) -> bool {
        self.inner.changes.of(claim.identity) == device.changes
    }

    /// The device that a claim names, where it is kept in memory.
    pub fn device_in_memory(&self, claim: &Claim<'_>) -> Option<DeviceId> {
        device_form(claim.form)?;
        let row = self.inner.devices.get(claim.identity)?;
        Some(row.device_id.clone())
    }

    /// What is remembered of logins that failed, for all who let someone in.
    pub fn throttle(&self) -> &Throttle {
        &self.inner.throttle
    }

    /// Forgets what was kept of a device. To be called after its credentials, its state or itself are changed in
    /// the registry: the next claim is checked against what is stored then.
    pub fn invalidate(&self, device: &Device) {
        self.invalidate_names(&device.name());
    }

    /// The same for a device by its ids.
    pub fn invalidate_names(&self, device: &DeviceName) {
        let inner = &self.inner;
        let joined = format!("{}{}", device.product_id, device.node_id);
        for name in [device.device_id.as_str(), device.node_id.as_str(), &joined] {
            // First, so that a look-up under way sees it before or after it keeps what it found.
            inner.changes.note(name);
            inner.devices.remove(name);
        }
    }

    /// Forgets everything that was kept: changes may have been missed.
    pub fn invalidate_all(&self) {
        self.inner.changes.note_all();
        self.inner.products.clear();
        self.inner.devices.clear();
    }

    /// Forgets what was kept of a product, and of all devices: their names may depend on it.
    pub fn invalidate_product(&self, product: &ProductId) {
        self.inner.changes.note_all();
        self.inner.products.remove(product);
        self.inner.devices.clear();
    }
}

/// What a product calls the form of a device; an application is none.
const fn device_form(form: Form) -> Option<CredentialForm> {
    match form {
        Form::Native => Some(CredentialForm::Native),
        Form::Huawei => Some(CredentialForm::Huawei),
        Form::Tencent => Some(CredentialForm::Tencent),
        Form::Application => None,
    }
}

/// The certificate that a device came with, when it is one that the device is registered with.
fn certified<'p>(row: Option<&DeviceAuthRow>, peer: &'p Peer) -> Option<&'p PeerCertificate> {
    let certificate = peer.certificate.as_deref()?;
    let row = row.filter(|row| row.auth == AuthKind::X509)?;
    let own = certificate.fingerprint().as_bytes();
    let mut is_known = false;
    for registered in row.fingerprints.iter().flatten() {
        is_known |= bool::from(registered.ct_eq(own));
    }
    is_known.then_some(certificate)
}

impl Inner {
    /// What the registry holds of the device that a string names.
    async fn device(&self, identity: &str) -> Result<Option<Arc<DeviceAuthRow>>, AuthError> {
        if identity.is_empty() || identity.len() > MAX_IDENTITY_BYTES {
            return Ok(None);
        }
        if let Some(row) = self.devices.get(identity) {
            return Ok(Some(row));
        }
        let changes = self.changes.of(identity);
        let found = self.lookups.find(identity).await?;
        if let Some(row) = &found {
            self.devices.insert(identity.into(), Arc::clone(row));
            if self.changes.of(identity) != changes {
                self.devices.remove(identity);
            }
        }
        Ok(found)
    }

    async fn product(&self, id: &ProductId) -> Result<Option<Arc<Product>>, AuthError> {
        if let Some(product) = self.products.get(id) {
            return Ok(Some(product));
        }
        // A fleet that comes at once asks once.
        let _turn = self.product_turn.lock().await;
        if let Some(product) = self.products.get(id) {
            return Ok(Some(product));
        }
        let changes = self.changes.of(id.as_str());
        let Some(product) = self.registry.product(id).await? else {
            return Ok(None);
        };
        let product = Arc::new(product);
        self.products.insert(id.clone(), Arc::clone(&product));
        if self.changes.of(id.as_str()) != changes {
            self.products.remove(id);
        }
        Ok(Some(product))
    }

    /// The device, when the password is made with one of its secrets.
    fn check_password(
        &self,
        row: Option<Arc<DeviceAuthRow>>,
        claim: &Claim<'_>,
        now: Millis,
    ) -> Result<Arc<DeviceAuthRow>, AuthError> {
        let proof = claim.proof(now.as_secs(), self.huawei_clock_skew)?;
        let is_right = self.verify(row.as_deref(), &proof)?;
        row.filter(|row| is_right && row.auth == AuthKind::Secret)
            .ok_or(AuthError::Refused)
    }

    /// Whether a password proves one of a device's two secrets. Two are opened and compared whatever there is.
    fn verify(&self, row: Option<&DeviceAuthRow>, proof: &Proof<'_>) -> Result<bool, AuthError> {
        let mut is_right = false;
        for slot in [
            row.and_then(|row| row.primary.as_deref()),
            row.and_then(|row| row.secondary.as_deref()),
        ] {
            let (owner, sealed) = match (row, slot) {
                (Some(row), Some(sealed)) => (row.device_id.as_str(), sealed),
                _ => (DUMMY_OWNER, self.dummy.as_slice()),
            };
            let secret = self.sealer.open(owner, sealed)?;
            is_right |= proof.is_of(&secret) & slot.is_some();
        }
        Ok(is_right)
    }

    /// Whether a registered certificate is one to be let in with now.
    fn check_certificate(
        &self,
        row: &DeviceAuthRow,
        product: &Product,
        certificate: &PeerCertificate,
        now: Millis,
    ) -> Result<(), AuthError> {
        let info = certificate
            .describe(now)
            .map_err(CertificateRefusal::Unreadable)?;
        for warning in info.warnings {
            let refusal = match &warning {
                CertificateWarning::Expired { since } => {
                    Some(CertificateRefusal::Expired { since: *since })
                }
                CertificateWarning::NotYetValid { until } => {
                    Some(CertificateRefusal::NotYetValid { until: *until })
                }
                _ => None,
            };
            if let Some(refusal) = refusal.filter(|_| !self.allow_expired_certificates) {
                return Err(refusal.into());
            }
            if let Some(left_out) = self.warnings.admit(Instant::now()) {
                tracing::warn!(device_id = %row.device_id, %warning, left_out, "a device's certificate");
            }
        }
        if let Some(authorities) = &product.client_ca {
            // One that may have ended is taken for what it was while it had not.
            let at = if self.allow_expired_certificates {
                now.clamp(info.not_before, info.not_after.max(info.not_before))
            } else {
                now
            };
            let chains = self.chains.get();
            let reason = chains.map_or_else(
                || Err("nothing can check that".to_owned()),
                |chains| chains.verify(certificate, authorities, at),
            );
            reason.map_err(|reason| CertificateRefusal::Foreign { reason })?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for DeviceAuthenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceAuthenticator")
            .field("devices", &self.inner.devices.len())
            .finish_non_exhaustive()
    }
}

/// Products kept in memory.
const PRODUCT_ENTRIES: usize = 1_000;
/// Changes during one login after which it is given up.
const MAX_ATTEMPTS: usize = 8;
/// Longest alias of a device: anything longer names none.
const MAX_IDENTITY_BYTES: usize = 128;
/// No device can have this id.
const DUMMY_OWNER: &str = "/";
/// As long as a secret that the gateway makes.
const DUMMY_SECRET: &[u8; 32] = &[0; 32];

#[cfg(test)]
mod tests;
