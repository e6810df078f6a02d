//! How devices say who they are: the fields of CONNECT in each form, and certificates.
//!
//! Everything is drawn from the seed, so that a gateway that was told of it once knows it in the
//! next run, and so that several processes of one run agree without a word.
//! Spec: docs/devices.md, "Who is calling".

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use headgate_protocol::mqtt::{Connect, Properties, ProtocolVersion};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::identity::{Identity, secret};
use crate::cli::Form;

/// What a client logs in with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Login {
    /// ClientId.
    pub(crate) client_id: String,
    /// User name, where there is one.
    pub(crate) username: Option<String>,
    /// Password, where there is one.
    pub(crate) password: Option<String>,
    /// The session goes on where the connection before it ended.
    pub(crate) persistent: bool,
}

impl Login {
    /// The login of a device in `form` at this moment.
    pub(crate) fn of(form: Form, product: &str, seed: u64, identity: &Identity) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_secs = now.map_or(0, |now| now.as_secs());
        Self::at(form, product, seed, identity, now_secs)
    }

    fn at(form: Form, product: &str, seed: u64, identity: &Identity, now_secs: u64) -> Self {
        let device_id = identity.device_id.clone();
        match form {
            Form::Native => Self {
                client_id: device_id.clone(),
                username: Some(device_id.clone()),
                password: Some(secret(seed, &device_id)),
                persistent: false,
            },
            Form::Certificate => Self {
                client_id: device_id.clone(),
                username: Some(device_id),
                password: None,
                persistent: false,
            },
            Form::Huawei => {
                let hour = hour(now_secs);
                let secret = secret(seed, &device_id);
                Self {
                    client_id: format!("{device_id}_0_1_{hour}"),
                    password: Some(mac(hour.as_bytes(), secret.as_bytes())),
                    username: Some(device_id),
                    persistent: false,
                }
            }
            Form::Tencent => {
                let client_id = format!("{product}{}", identity.node_id);
                let end = now_secs + TENCENT_VALID_SECS;
                let username = format!("{client_id};12010126;swarm;{end}");
                let secret = secret(seed, &device_id);
                // 32 hex digits are base64 too: the key is what they decode to.
                let key = STANDARD.decode(&secret).unwrap_or_default();
                Self {
                    password: Some(format!("{};hmacsha256", mac(&key, username.as_bytes()))),
                    username: Some(username),
                    client_id,
                    persistent: false,
                }
            }
        }
    }

    /// Its CONNECT.
    pub(crate) fn connect(&self, version: ProtocolVersion, keep_alive_secs: u16) -> Connect {
        let mut connect = Connect::new(version, self.client_id.as_str());
        connect.clean_start = !self.persistent;
        if self.persistent && version == ProtocolVersion::V5 {
            connect.properties = Some(Box::new(Properties {
                session_expiry_interval_secs: Some(SESSION_SECS),
                ..Properties::default()
            }));
        }
        connect.keep_alive_secs = keep_alive_secs;
        connect.username = self.username.as_deref().map(Into::into);
        let password = self.password.as_deref().map(str::as_bytes);
        connect.password = password.map(Bytes::copy_from_slice);
        connect
    }
}

/// A device's certificate and key.
///
/// Ed25519, because its keys and signatures follow from the seed alone.
///
/// # Errors
/// What the library says; with keys from here it says nothing.
pub(crate) fn certificate(
    seed: u64,
    device_id: &str,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
    let mut hash = Sha256::new();
    hash.update(b"swarm device key");
    hash.update(seed.to_be_bytes());
    hash.update(device_id.as_bytes());
    let mut pkcs8 = ED25519_PKCS8.to_vec();
    pkcs8.extend_from_slice(&hash.finalize());
    let key = PrivatePkcs8KeyDer::from(pkcs8);
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ED25519)?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, device_id);
    let certificate = params.self_signed(&pair)?;
    Ok((certificate.der().clone(), PrivateKeyDer::Pkcs8(key)))
}

/// SHA-256 of a device's certificate, as it is registered.
///
/// # Errors
/// As [`certificate`].
pub(crate) fn fingerprint(seed: u64, device_id: &str) -> Result<String, rcgen::Error> {
    let (certificate, _) = certificate(seed, device_id)?;
    Ok(hex::encode(Sha256::digest(&certificate)))
}

/// `hex(HMAC-SHA256)`.
fn mac(key: &[u8], message: &[u8]) -> String {
    // A key of any length makes an HMAC.
    Hmac::<Sha256>::new_from_slice(key).map_or_else(
        |_| String::new(),
        |hmac| hex::encode(hmac.chain_update(message).finalize().into_bytes()),
    )
}

/// The hour `YYYYMMDDHH` of UTC.
fn hour(now_secs: u64) -> String {
    let (days, of_day) = (now_secs / 86_400, now_secs % 86_400);
    // Years that begin in March, so that the odd day is the last one.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let mut text = String::with_capacity(10);
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "{:04}{month:02}{day:02}{:02}",
        era * 400 + year + next,
        of_day / 3_600
    );
    text
}

/// PKCS#8 of an Ed25519 key up to its 32 bytes (RFC 8410, section 7).
const ED25519_PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// A day: as the SDKs sign.
const TENCENT_VALID_SECS: u64 = 86_400;

/// How long a session is kept of which MQTT 5 has to say so.
const SESSION_SECS: u32 = 3_600;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use headgate_protocol::credential::Claim;

    use super::*;

    const NOW: u64 = 1_795_237_200;

    #[test]
    fn hours_are_those_of_the_calendar() {
        for (secs, text) in [
            (0, "1970010100"),
            (951_865_200, "2000022923"),
            (951_868_800, "2000030100"),
            (NOW, "2026112105"),
            (253_402_297_200, "9999123123"),
        ] {
            assert_eq!(hour(secs), text);
        }
    }

    #[test]
    fn every_form_is_what_a_gateway_checks() {
        for (form, product) in [
            (Form::Native, "swarm"),
            (Form::Huawei, "swarm"),
            (Form::Tencent, "SWARM00001"),
        ] {
            let identity = Identity::new(product, 1, 7);
            let login = Login::at(form, product, 1, &identity, NOW);
            let password = login.password.as_deref().map(str::as_bytes);
            let claim = Claim::read(&login.client_id, login.username.as_deref(), password);
            let proof = claim.proof(NOW, Duration::ZERO).unwrap();
            let secret = secret(1, &identity.device_id);
            assert!(proof.is_of(secret.as_bytes()), "{form:?}");
            assert!(
                !proof.is_of(b"0123456789abcdef0123456789abcdef"),
                "{form:?}"
            );
        }
    }

    #[test]
    fn certificates_repeat_and_differ() {
        let one = fingerprint(1, "swarm_a").unwrap();
        assert_eq!(one, fingerprint(1, "swarm_a").unwrap());
        assert_ne!(one, fingerprint(1, "swarm_b").unwrap());
        assert_ne!(one, fingerprint(2, "swarm_a").unwrap());
    }
}
