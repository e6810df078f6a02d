//! Sessions as bytes: how the identity stands beside what is frozen, and how sessions outlive a clean restart.
//!
//! What is exported holds keys: the caller seals it, hands it back once, and destroys it before it does.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Instant,
};

use thiserror::Error;
use zeroize::Zeroizing;

use super::{Identity, Server, SessionId};
use crate::{
    certificate::Fingerprint,
    sessions::{ListId, State},
};

/// The form of what is exported; another one is not read.
const FORM: u8 = 1;
/// Before the identity: form, slot, end of the Connection ID, whether it is in use, newest record, address and port.
const HEADER_BYTES: usize = 1 + 4 + 2 + 1 + 8 + 16 + 2;

const PSK: u8 = 0;
const CERTIFICATE: u8 = 1;

/// Why a session from before a restart is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ImportError {
    /// It is not what this version exports.
    #[error("not a session of this version")]
    Malformed,
    /// There is no room, or another one has its place.
    #[error("no place for the session")]
    NoPlace,
}

impl Server {
    /// Ends the server: every session that can be is given as bytes, to be taken by another server of the same
    /// configuration; the peers of all others are told, by what is in the output then.
    pub fn export(&mut self, now: Instant, mut take: impl FnMut(SessionId, &[u8])) {
        for index in self.sessions.used_slots() {
            let session = self.sessions.id(index);
            self.freeze(index);
            let slot = self.sessions.slot(index);
            let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER_BYTES));
            bytes.push(FORM);
            bytes.extend(index.to_be_bytes());
            bytes.extend(slot.cid_tail.to_be_bytes());
            bytes.push(slot.has_cid.into());
            bytes.extend(slot.newest.to_be_bytes());
            let ip = match slot.address.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            bytes.extend(ip.octets());
            bytes.extend(slot.address.port().to_be_bytes());
            if let Some(slot) = self.sessions.get(index)
                && let State::Frozen(cell) = &slot.state
            {
                bytes.extend(self.sessions.arena.get(cell));
                take(session, &bytes);
            }
            self.say_goodbye(now, index);
            self.forget(index);
        }
    }

    /// Takes a session from before a restart, frozen as it was. Nothing is said of it until its peer is heard of.
    ///
    /// # Errors
    /// [`ImportError`]: its peer has to make a new session.
    pub fn import(
        &mut self,
        now: Instant,
        bytes: &[u8],
    ) -> Result<(SessionId, Identity), ImportError> {
        let (header, frozen) = bytes
            .split_at_checked(HEADER_BYTES)
            .ok_or(ImportError::Malformed)?;
        if header[0] != FORM || header[7] > 1 {
            return Err(ImportError::Malformed);
        }
        let (identity, _) = split_identity(frozen).ok_or(ImportError::Malformed)?;
        let index = u32::from_be_bytes(array(header, 1));
        let ip = Ipv6Addr::from_octets(array(header, 16)).to_canonical();
        let address = SocketAddr::new(ip, u16::from_be_bytes(array(header, 32)));
        let cid_tail = u16::from_be_bytes(array(header, 5));
        if !self.sessions.allocate_at(index, address, cid_tail) {
            return Err(ImportError::NoPlace);
        }
        let Some(cell) = self.sessions.arena.put(frozen) else {
            self.forget(index);
            return Err(ImportError::NoPlace);
        };
        let used_at = self.secs(now);
        let slot = self.sessions.slot(index);
        slot.state = State::Frozen(cell);
        slot.newest = u64::from_be_bytes(array(header, 8));
        slot.used_at = used_at;
        slot.has_cid = header[7] == 1;
        if !slot.has_cid {
            self.sessions.bind_address(index);
        }
        self.sessions.set_list(index, Some(ListId::Frozen));
        Ok((self.sessions.id(index), identity))
    }
}

/// The bytes at this place of a header, which is long enough.
fn array<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}

/// Writes an identity to the start of a buffer and gives its length; `None`: it does not fit.
pub(super) fn put_identity(identity: &Identity, buffer: &mut [u8]) -> Option<usize> {
    let (kind, bytes) = match identity {
        Identity::Psk(identity) => (PSK, &identity[..]),
        Identity::Certificate(Fingerprint(digest)) => (CERTIFICATE, &digest[..]),
    };
    let length = u16::try_from(bytes.len()).ok()?.to_be_bytes();
    let end = 3 + bytes.len();
    let place = buffer.get_mut(..end)?;
    place[0] = kind;
    place[1..3].copy_from_slice(&length);
    place[3..].copy_from_slice(bytes);
    Some(end)
}

/// Reads an identity; what is behind it is the library's.
pub(super) fn split_identity(bytes: &[u8]) -> Option<(Identity, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (identity, saved) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let identity = match *kind {
        PSK => Identity::Psk(identity.into()),
        CERTIFICATE => Identity::Certificate(Fingerprint(identity.try_into().ok()?)),
        _ => return None,
    };
    Some((identity, saved))
}
