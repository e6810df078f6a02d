//! Tencent's form: client id `{ProductID}{DeviceName}`, username `{ClientId};{sdkappid};{connid};{expiry}`, password
//! `hex(HMAC(base64decode(secret), username));{method}`.
//!
//! The username is signed as it came. Its connid repeats, so it is no nonce, and its end is whatever an SDK makes of
//! it: seconds, milliseconds, a maximum cut to some digits. Only an end that is past counts.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Unproven, hex_mac::HexMac};

/// The digest of the HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `hmacsha1`: the C and Python SDKs.
    HmacSha1,
    /// `hmacsha256`: the Java SDK.
    HmacSha256,
}

/// A password of this form, and the username that it signs.
#[derive(Clone, Copy)]
pub(super) struct Signature<'a> {
    method: Method,
    mac: HexMac,
    username: &'a str,
}

/// Whether CONNECT's fields have this form: a username of four parts of which the first is the client id.
pub(super) fn is(client_id: &str, username: &str) -> bool {
    let rest = username.strip_prefix(client_id);
    let behind = rest.and_then(|rest| rest.strip_prefix(';'));
    !client_id.is_empty() && behind.is_some_and(|parts| parts.split(';').count() == 3)
}

impl<'a> Signature<'a> {
    /// Reads a password that signs `username`.
    pub(super) fn read(
        username: &'a str,
        password: &[u8],
        now_secs: u64,
    ) -> Result<Self, Unproven> {
        let expiry = username.rsplit(';').next().unwrap_or_default();
        if !expiry.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Unproven::Malformed);
        }
        let expiry: u64 = expiry.parse().map_err(|_| Unproven::Malformed)?;
        let end = password.iter().position(|byte| *byte == b';');
        let (mac, method) = end
            .and_then(|end| password.split_at_checked(end))
            .ok_or(Unproven::Malformed)?;
        let method = match method {
            b";hmacsha1" => Method::HmacSha1,
            b";hmacsha256" => Method::HmacSha256,
            _ => return Err(Unproven::Malformed),
        };
        let mac = HexMac::read(mac, method.mac_bytes()).ok_or(Unproven::Malformed)?;
        if expiry < now_secs {
            return Err(Unproven::Expired);
        }
        Ok(Self {
            method,
            mac,
            username,
        })
    }

    /// A secret that is no base64 made nothing; the HMAC is computed all the same.
    pub(super) fn is_of(&self, secret: &[u8]) -> bool {
        let decoded = BASE64.decode(secret).map(Zeroizing::new);
        let key = decoded.as_ref().map_or(secret, |key| key.as_slice());
        let message = self.username.as_bytes();
        let matches = match self.method {
            Method::HmacSha1 => Hmac::<Sha1>::new_from_slice(key).is_ok_and(|hmac| {
                self.mac
                    .is(&hmac.chain_update(message).finalize().into_bytes())
            }),
            Method::HmacSha256 => Hmac::<Sha256>::new_from_slice(key).is_ok_and(|hmac| {
                self.mac
                    .is(&hmac.chain_update(message).finalize().into_bytes())
            }),
        };
        matches & decoded.is_ok()
    }
}

impl Method {
    const fn mac_bytes(self) -> usize {
        match self {
            Self::HmacSha1 => 20,
            Self::HmacSha256 => 32,
        }
    }
}

/// As lenient as the SDKs' decoders: padding may be missing, bits behind the last byte do not matter.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
