//! Who is calling: devices by their credentials, operators and programs by password and token.
//!
//! Invariants: an unknown name and a wrong secret get the same answer for the same work; secrets are compared in
//! constant time, opened only for the comparison and wiped after it; nothing here logs or shows one.

mod application;
mod changes;
mod device;
mod lockout;
mod lookup;
mod operator;
mod session;
mod throttle;

use std::{io, sync::Arc};

pub use application::{AppAuthenticator, AppSecret, AuthenticatedApp};
pub use device::{
    AuthenticatedDevice, ChainVerifier, CredentialTag, DeviceAuthenticator, Peer, PresharedKey,
};
pub use operator::{Bootstrap, TokenAuthenticator};
pub(in crate::service) use operator::{MAX_PASSWORD_BYTES, new_password, new_token};
pub use session::{OperatorSession, OperatorSessions, SignInError};
pub use throttle::{HttpLogin, Throttle, connect_cluster as share_logins};

use headgate_protocol::credential::Unproven;

use crate::{
    model::{CertificateError, Millis, NoRandomness},
    service::seal::SealError,
    store::StoreError,
};

/// Why someone is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// There is no such name, or the secret is wrong: which of them is not said.
    #[error("unknown or wrong credentials")]
    Refused,
    /// The credentials are right, but the device is frozen.
    #[error("the device is frozen")]
    Disabled,
    /// The claim cannot be checked at all.
    #[error("malformed credentials: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The password was made for another time.
    #[error("stale credentials: {reason}")]
    Stale {
        /// For which.
        reason: &'static str,
    },
    /// The certificate is the device's own, but not one to come in with.
    #[error(transparent)]
    Certificate(#[from] CertificateRefusal),
    /// The device is who it says, but its product does not allow what it speaks.
    #[error("the product does not allow this protocol")]
    WrongTransport,
    /// Too many logins with this name, or from its network, failed: nothing was looked at.
    #[error("too many failed logins")]
    Throttled,
    /// What is registered was changed while it was looked at.
    #[error("what is registered is being changed")]
    Changing,
    /// The registry could not be asked.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// A stored secret does not open, or none can be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A password cannot be hashed.
    #[error("password hash: {0}")]
    Hash(String),
    /// The first credentials could not be handed over.
    #[error("first credentials: {0}")]
    Handover(#[source] io::Error),
    /// No credentials can be made.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// Why a device is not let in with a certificate that it is registered with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefusal {
    /// It ended.
    #[error("the certificate ended at {since}")]
    Expired {
        /// When.
        since: Millis,
    },
    /// It begins later.
    #[error("the certificate begins at {until}")]
    NotYetValid {
        /// When.
        until: Millis,
    },
    /// It does not lead to an authority of the product.
    #[error("the certificate leads to no authority of the product: {reason}")]
    Foreign {
        /// Why not.
        reason: String,
    },
    /// It cannot be read.
    #[error("the certificate {0}")]
    Unreadable(#[from] CertificateError),
}

impl From<Unproven> for AuthError {
    fn from(error: Unproven) -> Self {
        match error {
            Unproven::NoPassword => Self::Malformed {
                reason: "no password",
            },
            Unproven::Malformed => Self::Malformed {
                reason: "the password is not of its form",
            },
            Unproven::WrongHour => Self::Stale {
                reason: "the password is for another hour",
            },
            Unproven::Expired => Self::Stale {
                reason: "the password has expired",
            },
        }
    }
}

impl From<StoreError> for AuthError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl AuthError {
    /// Whether the caller is at fault, not the gateway.
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused
                | Self::Disabled
                | Self::Malformed { .. }
                | Self::Stale { .. }
                | Self::Certificate(_)
                | Self::WrongTransport
                | Self::Throttled
        )
    }
}
