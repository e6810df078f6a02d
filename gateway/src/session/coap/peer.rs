//! Who is at the other end: an address, or an association of DTLS whatever its address is.

use std::net::SocketAddr;

/// What messages are kept apart by. [RFC 7252 s4.2, s9.1.1]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Whoever sends from here.
    Address(SocketAddr),
    /// Whoever has the keys of this association.
    Association(AssociationId),
}

/// An association of DTLS, or a handshake that becomes one; no two of one listener's life are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssociationId(pub u64);

impl Peer {
    /// Whether it is certain that this peer sent what came from it, and receives what is sent to it.
    pub(super) const fn is_proven(self) -> bool {
        matches!(self, Self::Association(_))
    }
}
