//! Devices over DTLS: a key for the identity that one names, and whether who has shown it is let in.
//!
//! A handshake is made with one key, and whether the device has it shows afterwards only. So of a device's two secrets
//! one is chosen: after a failure the other one for a minute, and then the one that worked.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use headgate_protocol::credential::Form;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    AuthenticatedDevice, DUMMY_OWNER, DeviceAuthenticator, Inner, MAX_ATTEMPTS, Peer, certified,
};
use crate::{
    model::{AuthKind, CredentialSlot, Millis, PeerCertificate, psk_of},
    service::auth::AuthError,
    store::registry::DeviceAuthRow,
};

/// How long the other secret is tried after a failure.
const OTHER_FOR: Duration = Duration::from_mins(1);

/// Tells one secret of a device from others that it has or had; not the secret, nor what it could be found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialTag(pub u64);

/// A key for a handshake.
pub struct PresharedKey {
    /// The key.
    pub key: Zeroizing<Vec<u8>>,
    /// Which secret it is of.
    pub slot: CredentialSlot,
    /// That secret.
    pub tag: CredentialTag,
}

/// Which secret the next handshake is made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preferred {
    slot: CredentialSlot,
    /// `None`: it worked.
    until: Option<Instant>,
}

impl DeviceAuthenticator {
    /// The key for a handshake of whoever names this identity; `None` where no device of that name has a secret.
    /// Two secrets are opened whatever there is.
    ///
    /// # Errors
    /// [`AuthError::Store`] and [`AuthError::Seal`]: the gateway's own fault.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn preshared_key(&self, identity: &str) -> Result<Option<PresharedKey>, AuthError> {
        let row = self.inner.device(identity).await?;
        let row = row.filter(|row| row.auth == AuthKind::Secret);
        let (owner, secrets) = row.as_ref().map_or((DUMMY_OWNER, [None, None]), |row| {
            let secrets = [row.primary.as_deref(), row.secondary.as_deref()];
            (row.device_id.as_str(), secrets)
        });
        let mut opened = [None, None];
        for (sealed, opened) in secrets.iter().zip(&mut opened) {
            let dummy = (DUMMY_OWNER, self.inner.dummy.as_slice());
            let (owner, bytes) = sealed.map_or(dummy, |sealed| (owner, sealed));
            let secret = self.inner.sealer.open(owner, bytes)?;
            *opened = sealed.is_some().then_some(secret);
        }
        let there_are = secrets.map(|secret| secret.is_some());
        let Some(row) = row else { return Ok(None) };
        let slot = self.choose(identity, there_are);
        let [primary, secondary] = opened;
        let secret = match slot {
            CredentialSlot::Primary => primary,
            CredentialSlot::Secondary => secondary,
        };
        let key = secret.and_then(|secret| psk_of(&secret, row.psk_encoding));
        let tag = sealed(&row, slot).map(tag_of);
        Ok(key
            .zip(tag)
            .map(|(key, tag)| PresharedKey { key, slot, tag }))
    }

    /// Takes note of whether a device has shown the key that was chosen for it.
    pub fn note_key(&self, identity: &str, slot: CredentialSlot, is_right: bool, now: Instant) {
        let preferred = match (slot, is_right) {
            // The first one, as by default.
            (CredentialSlot::Primary, true) | (CredentialSlot::Secondary, false) => {
                self.inner.preferred.remove(identity);
                return;
            }
            (CredentialSlot::Secondary, true) => Preferred { slot, until: None },
            (CredentialSlot::Primary, false) => Preferred {
                slot: CredentialSlot::Secondary,
                until: Some(now + OTHER_FOR),
            },
        };
        self.inner.preferred.insert(identity.into(), preferred);
    }

    /// The device of this name, whose key was shown when its session began; `None` where it has that secret no more.
    ///
    /// # Errors
    /// [`AuthError::WrongTransport`], [`AuthError::Disabled`]; [`AuthError::Store`] is the gateway's own fault.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn admit_with_key(
        &self,
        name: &str,
        tag: CredentialTag,
    ) -> Result<Option<AuthenticatedDevice>, AuthError> {
        let has_it = |row: &DeviceAuthRow| {
            let slots = [CredentialSlot::Primary, CredentialSlot::Secondary];
            let mut tags = slots.into_iter().filter_map(|slot| sealed(row, slot));
            row.auth == AuthKind::Secret && tags.any(|sealed| tag_of(sealed) == tag)
        };
        self.admit(name, &has_it, None).await
    }

    /// The device of this name, whose certificate was shown when its session began; `None` where it is registered with
    /// that no more.
    ///
    /// # Errors
    /// As [`DeviceAuthenticator::admit_with_key`]; [`AuthError::Certificate`] for one that is no good now.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn admit_with_certificate(
        &self,
        name: &str,
        peer: &Peer,
    ) -> Result<Option<AuthenticatedDevice>, AuthError> {
        let has_it = |row: &DeviceAuthRow| certified(Some(row), peer).is_some();
        self.admit(name, &has_it, peer.certificate.as_deref()).await
    }

    /// The name of the one device that is registered with this certificate; `None` where it is nobody's, or several
    /// devices': without a name it does not say which.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn device_of_certificate(
        &self,
        certificate: &PeerCertificate,
    ) -> Result<Option<Box<str>>, AuthError> {
        let fingerprint = certificate.fingerprint().as_bytes();
        let found = self
            .inner
            .registry
            .devices_by_fingerprint(fingerprint)
            .await?;
        Ok(match &found[..] {
            [one] => Some(one.as_str().into()),
            _ => None,
        })
    }

    async fn admit(
        &self,
        name: &str,
        has_it: &(dyn Fn(&DeviceAuthRow) -> bool + Sync),
        certificate: Option<&PeerCertificate>,
    ) -> Result<Option<AuthenticatedDevice>, AuthError> {
        let mut changes = self.inner.changes.of(name);
        for _ in 0..MAX_ATTEMPTS {
            let admitted = self.inner.admit(name, has_it, certificate, changes).await;
            // What was changed meanwhile may have been read before.
            let latest = self.inner.changes.of(name);
            if latest == changes {
                return admitted;
            }
            changes = latest;
        }
        Err(AuthError::Changing)
    }

    /// The secret for the next handshake, of those that there are.
    fn choose(&self, identity: &str, [_, has_secondary]: [bool; 2]) -> CredentialSlot {
        let preferred = self.inner.preferred.get(identity).filter(|preferred| {
            has_secondary && preferred.until.is_none_or(|until| until > Instant::now())
        });
        preferred.map_or(CredentialSlot::Primary, |preferred| preferred.slot)
    }
}

impl Inner {
    async fn admit(
        &self,
        name: &str,
        has_it: &(dyn Fn(&DeviceAuthRow) -> bool + Sync),
        certificate: Option<&PeerCertificate>,
        changes: u64,
    ) -> Result<Option<AuthenticatedDevice>, AuthError> {
        let Some(row) = self.device(name).await?.filter(|row| has_it(row)) else {
            return Ok(None);
        };
        if !row.enabled {
            return Err(AuthError::Disabled);
        }
        let Some(product) = self.product(&row.product_id).await? else {
            return Ok(None);
        };
        if !product.transports.coap || !product.auth_kinds.contains(&row.auth) {
            return Err(AuthError::WrongTransport);
        }
        if let Some(certificate) = certificate {
            self.check_certificate(&row, &product, certificate, Millis::now())?;
        }
        Ok(Some(AuthenticatedDevice {
            auth: row.auth,
            device_id: row.device_id.clone(),
            node_id: row.node_id.clone(),
            product: Arc::clone(&product),
            form: Form::Native,
            changes,
        }))
    }
}

fn sealed(row: &DeviceAuthRow, slot: CredentialSlot) -> Option<&[u8]> {
    match slot {
        CredentialSlot::Primary => row.primary.as_deref(),
        CredentialSlot::Secondary => row.secondary.as_deref(),
    }
}

fn tag_of(sealed: &[u8]) -> CredentialTag {
    let digest: [u8; 32] = Sha256::digest(sealed).into();
    let first = digest.first_chunk().copied();
    CredentialTag(first.map_or(0, u64::from_be_bytes))
}

impl std::fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PresharedKey")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}
