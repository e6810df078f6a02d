//! What can go wrong, by whose fault.

use thiserror::Error;

/// Why something could not be set up or said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DtlsError {
    /// The certificate or its key cannot be read, or they do not belong together.
    #[error("the certificate or its key is not usable (-{:#06x})", -.0)]
    Certificate(i32),
    /// The key is empty or longer than [`crate::MAX_KEY_BYTES`].
    #[error("a key has 1 to 32 bytes")]
    Key,
    /// The message is longer than what one record carries.
    #[error("the message is too long for a record")]
    TooLarge,
    /// There is no such session, or its handshake is not over.
    #[error("there is no such session")]
    NotConnected,
    /// The library gave this error.
    #[error("DTLS error -{:#06x}", -.0)]
    Library(i32),
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer said so.
    Peer,
    /// The same peer has a new session.
    Replaced,
    /// It was the one at rest for longest, and there is no room for all.
    Evicted,
    /// It was at rest for longer than sessions are kept.
    Expired,
    /// The owner of the endpoint said so.
    Local,
    /// The library gave this error.
    Error(i32),
}

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The peer does not have the key that was given for its identity.
    WrongKey,
    /// The peer's certificate, or the proof that it has the key of it, is no good.
    BadCertificate,
    /// The peer began another one, or there is no room for this one.
    Abandoned,
    /// The peer fell silent.
    Timeout,
    /// The peer said that it does not want to go on.
    Alert,
    /// Anything else that the library objects to: its error.
    Protocol(i32),
}
