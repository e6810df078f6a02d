//! From what is wanted to a device that keeps every rule, before anything is stored.

use headgate_protocol::identity::DeviceId;
use zeroize::Zeroizing;

use crate::{
    model::{
        AuthKind, CredentialForm, CredentialSlot, Device, Fingerprint, InvalidField, Millis,
        Product, PskEncoding, Secret, random,
    },
    service::{
        registry::{NewDevice, RegistryError},
        seal::{SealError, Sealer},
    },
    store::registry::SealedCredential,
};

/// A device that can be stored, and what it will prove itself with.
#[derive(Debug)]
pub(in crate::service) struct Prepared {
    /// The device.
    pub(in crate::service) device: Device,
    /// Its secret, given or made.
    pub(in crate::service) secret: Option<Secret>,
    /// Its certificates.
    pub(in crate::service) fingerprints: Vec<(CredentialSlot, Fingerprint)>,
}

/// Checks what is wanted against the rules of its product and makes what is not given.
///
/// # Errors
/// [`RegistryError::Invalid`] naming the field; [`RegistryError::Random`].
pub(in crate::service) fn prepare(
    new: NewDevice,
    product: &Product,
    now: Millis,
) -> Result<Prepared, RegistryError> {
    let auth = new.auth.or_else(|| product.auth_kinds.first().copied());
    let device = Device {
        id: new
            .device_id
            .unwrap_or_else(|| DeviceId::default_for(&new.product_id, &new.node_id)),
        product_id: new.product_id,
        node_id: new.node_id,
        name: new.name,
        description: new.description,
        auth: auth.unwrap_or(AuthKind::Secret),
        psk_encoding: new
            .psk_encoding
            .unwrap_or_else(|| product.usual_psk_encoding(new.secret.is_some())),
        enabled: true,
        created_at: now,
        updated_at: now,
        last_seen_at: None,
    };
    device.validate(product)?;
    let fingerprints = fingerprints_of(device.auth, new.fingerprint, new.secondary_fingerprint)?;
    let secret = match (device.auth, new.secret) {
        (AuthKind::Secret, given) => {
            Some(secret_or_new(given, device.psk_encoding, Some(product))?)
        }
        (_, None) => None,
        (auth, Some(_)) => {
            let reason = format!("is given although auth is {}", auth.as_str());
            return Err(InvalidField::new("secret", reason).into());
        }
    };
    Ok(Prepared {
        device,
        secret,
        fingerprints,
    })
}

/// A secret as it is stored.
///
/// # Errors
/// [`SealError::Random`].
pub(in crate::service) fn sealed(
    sealer: &Sealer,
    device: &DeviceId,
    slot: CredentialSlot,
    secret: &Secret,
) -> Result<SealedCredential, SealError> {
    Ok(SealedCredential {
        slot,
        key_id: sealer.key_id(),
        sealed: sealer.seal(device.as_str(), secret.as_bytes())?,
    })
}

/// The secret that is given, where it can be read as it will be, or a new one.
///
/// # Errors
/// [`RegistryError::Invalid`] for `secret`; [`RegistryError::Random`].
pub(super) fn secret_or_new(
    given: Option<Secret>,
    encoding: PskEncoding,
    product: Option<&Product>,
) -> Result<Secret, RegistryError> {
    let Some(secret) = given else {
        return Ok(Secret::from_random(&Zeroizing::new(random()?)));
    };
    secret.check_encoding(encoding)?;
    if product.is_some_and(|product| product.credential_forms == [CredentialForm::Tencent]) {
        // Its devices sign with what the secret decodes to, whatever it is as a pre-shared key.
        secret.check_encoding(PskEncoding::Base64)?;
    }
    Ok(secret)
}

/// The fingerprints by their slots, where they go with how the device proves who it is.
fn fingerprints_of(
    auth: AuthKind,
    primary: Option<Fingerprint>,
    secondary: Option<Fingerprint>,
) -> Result<Vec<(CredentialSlot, Fingerprint)>, InvalidField> {
    match (auth, primary, secondary) {
        (AuthKind::X509, Some(primary), secondary) => {
            let secondary = secondary.map(|given| (CredentialSlot::Secondary, given));
            Ok([(CredentialSlot::Primary, primary)]
                .into_iter()
                .chain(secondary)
                .collect())
        }
        (AuthKind::X509, None, _) => Err(InvalidField::new(
            "fingerprint",
            "is missing although auth is x509",
        )),
        (_, None, None) => Ok(Vec::new()),
        (auth, _, _) => Err(InvalidField::new(
            "fingerprint",
            format!("is given although auth is {}", auth.as_str()),
        )),
    }
}
