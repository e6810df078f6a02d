//! DTLS 1.2 for many peers on one socket, sans-IO, on Mbed TLS.
//!
//! [`Server`] is one endpoint for all peers: the caller hands it datagrams and the time, answers its questions for
//! keys, and sends what it puts out. [`Client`] is the other half: one peer. Neither touches a socket or a clock.
//!
//! ```text
//! datagram -> handle_datagram -> poll_output: Transmit | KeyWanted | Connected | Data | Closed
//! time     -> handle_timeout  ->     "
//! ```
//!
//! - A stranger costs nothing: one spare context answers every first `ClientHello` with a cookie and forgets it.
//! - A peer with a Connection ID keeps its session when its address changes; an address is changed by the newest
//!   record only.
//! - A session at rest is frozen to some 200 bytes, which its next record thaws.
//! - The key of an identity is asked for before the library needs it, so that it may come from anywhere.
//!
//! This crate alone calls C, in `aes`, `heap`, `random`, `settings` and `context`; everything else is safe code.
//! Spec: RFC 6347, RFC 9146 (Connection ID), RFC 4279 and 6655 (pre-shared keys, CCM), RFC 7251 (ECDHE-ECDSA CCM).

mod aes;
mod arena;
mod certificate;
mod client;
mod context;
mod cookie;
mod error;
mod handshake;
mod heap;
mod random;
mod record;
mod server;
mod sessions;
mod settings;
mod suite;
mod wheel;

#[cfg(test)]
mod tests;

pub use self::{
    certificate::{Certificate, Fingerprint},
    client::{Client, ClientConfig, ClientEvent, ClientOutput, Credential},
    error::{CloseReason, DtlsError, HandshakeFailure},
    server::{
        Counters, Depths, Event, Identity, ImportError, Output, Server, ServerConfig, SessionId,
    },
    suite::Suite,
};

/// The longest key that the library takes, in bytes.
pub const MAX_KEY_BYTES: usize = 32;
/// The most that one record carries, in bytes.
pub const MAX_DATA_BYTES: usize = 2_048;
