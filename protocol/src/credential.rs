//! Who a CONNECT claims to be, and whether what it holds proves it.
//!
//! [`Claim::read`] recognises the form by the shape of client id and username, [`Claim::proof`] reads the password
//! and what is signed beside it, [`Proof::is_of`] compares with a secret that the caller looked up. Time comes from the
//! caller; nothing here looks anything up or stores anything.
//! Invariants: identities are looked up whole, never split; no outcome depends in its time on what a secret is; a
//! password is never printed. A client certificate is no form: with one, nothing of this needs to be proved.

mod application;
mod hex_mac;
mod huawei;
mod native;
mod tencent;

use std::time::Duration;

use thiserror::Error;

pub use self::{huawei::SignType, tencent::Method};

/// How the identity and its proof are written in CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// The username is the device id and the password is the secret itself.
    Native,
    /// The client id holds an hour, which keys an HMAC over the secret.
    Huawei,
    /// The secret keys an HMAC over the username, which holds an end.
    Tencent,
    /// An application: the username is its id and the password is its secret.
    Application,
}

/// What a CONNECT says of its sender: an identity to look up whole, and a proof to check.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The form that the fields were recognised as.
    pub form: Form,
    /// The name to look up: an application's id for [`Form::Application`], else a device alias.
    pub identity: &'a str,
    /// The password as it came; binary is legal.
    pub password: Option<&'a [u8]>,
    signed: Signed<'a>,
}

/// What a form signs beside the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signed<'a> {
    Nothing,
    Hour(huawei::Stamp<'a>),
    Username(&'a str),
}

/// Why a password proves nothing, whatever the secret is. Peers are told no more than that they are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unproven {
    /// There is none.
    #[error("no password")]
    NoPassword,
    /// It is not what its form writes.
    #[error("the password is not of the form that the client id and username have")]
    Malformed,
    /// The hour that it is signed for is too far from this one.
    #[error("the password is for another hour")]
    WrongHour,
    /// Its end is past.
    #[error("the password has expired")]
    Expired,
}

/// A password that was read and is current: what is left is whose secret made it.
#[derive(Clone, Copy)]
pub struct Proof<'a>(Kind<'a>);

#[derive(Clone, Copy)]
enum Kind<'a> {
    Secret(&'a [u8]),
    Huawei(huawei::Signature<'a>),
    Tencent(tencent::Signature<'a>),
}

impl<'a> Claim<'a> {
    /// Reads the claim out of CONNECT's fields.
    ///
    /// An application's client id begins with `app:` and its username, Huawei's with its username and an hour,
    /// Tencent's username with its client id. Otherwise the identity is the username up to a `?` (some SDKs append
    /// a query there), else the client id.
    pub fn read(client_id: &'a str, username: Option<&'a str>, password: Option<&'a [u8]>) -> Self {
        let username = username.unwrap_or_default();
        let named = username.split_once('?').map_or(username, |(name, _)| name);
        let (form, identity, signed) = if application::is(client_id, username) {
            (Form::Application, username, Signed::Nothing)
        } else if let Some(stamp) = huawei::Stamp::read(client_id, named) {
            (Form::Huawei, named, Signed::Hour(stamp))
        } else if tencent::is(client_id, username) {
            (Form::Tencent, client_id, Signed::Username(username))
        } else if named.is_empty() {
            (Form::Native, client_id, Signed::Nothing)
        } else {
            (Form::Native, named, Signed::Nothing)
        };
        Self {
            form,
            identity,
            password,
            signed,
        }
    }

    /// Reads the password and checks what can be checked without a secret.
    ///
    /// `now_secs` is the time in seconds since 1970, `skew` how far a device's clock may be off where its form signs
    /// an hour and asks for it to be checked.
    ///
    /// # Errors
    /// [`Unproven`]. Each costs less than a comparison; none tells whether the identity exists.
    pub fn proof(&self, now_secs: u64, skew: Duration) -> Result<Proof<'a>, Unproven> {
        let password = self.password.ok_or(Unproven::NoPassword)?;
        Ok(Proof(match self.signed {
            Signed::Nothing => Kind::Secret(password),
            Signed::Hour(stamp) => Kind::Huawei(stamp.signature(password, now_secs, skew)?),
            Signed::Username(username) => {
                Kind::Tencent(tencent::Signature::read(username, password, now_secs)?)
            }
        }))
    }
}

impl Proof<'_> {
    /// Whether the password was made with `secret`; an empty one made nothing.
    pub fn is_of(&self, secret: &[u8]) -> bool {
        let matches = match self.0 {
            Kind::Secret(password) => native::is_same(secret, password),
            Kind::Huawei(signature) => signature.is_of(secret),
            Kind::Tencent(signature) => signature.is_of(secret),
        };
        matches & !secret.is_empty()
    }
}

impl std::fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("form", &self.form)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proof(..)")
    }
}

#[cfg(test)]
mod tests;
