//! Registered devices: under which number, where they are, how long that holds, and what they are about.
//!
//! Invariants: a device is registered at most once; the number of registrations is bounded; a registration that is
//! awake has the device's session in the node's table.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    net::SocketAddr,
    sync::Arc,
    task::Waker,
    time::Instant,
};

use bytes::Bytes;
use headgate_protocol::{
    coap::{ContentFormat, Sequence, Token},
    identity::DeviceId,
    transfer::window::Chunk,
};

use super::peer::Peer;
use crate::{
    service::{
        auth::AuthenticatedDevice, delivery::LiveDelivery, uplink::Stored, upload::LiveUpload,
    },
    session::handle::SessionHandle,
};

/// The number of a registration: 64 random bits, which whoever sends requests for a device has to know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RdId(pub(super) u64);

impl RdId {
    /// Reads what [`RdId`] is written as.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_one = text.len() == 16 && text.bytes().all(is_hex);
        let id = is_one.then(|| u64::from_str_radix(text, 16).ok())??;
        Some(Self(id))
    }
}

impl fmt::Display for RdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Whoever knows it speaks for a device: it is not for logs.
impl fmt::Debug for RdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RdId")
    }
}

/// One registered device.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) device: AuthenticatedDevice,
    /// The name that it registered with.
    pub(super) name: Box<str>,
    /// Where notifications go.
    pub(super) address: Peer,
    /// Where the number was sent: whoever knows it and is there received it there.
    pub(super) issued_to: Peer,
    /// Where an Echo was answered from.
    proven: Option<Peer>,
    /// Where it was heard of.
    pub(super) source: Option<SocketAddr>,
    /// `None`: it lasts as long as its association.
    pub(super) expires_at: Option<Instant>,
    /// `None`: it sleeps.
    pub(super) awake: Option<Awake>,
    /// Who watches `/t`, and what it was told last.
    pub(super) deliveries: Option<Observation>,
    /// Who watches `/c`.
    pub(super) commands: Option<Observation>,
    /// The delivery whose blocks it asks for.
    pub(super) reading: Option<Reading>,
    /// The message from an application that it is being given.
    pub(super) command: Option<Command>,
    /// Messages from applications that are not kept.
    pub(super) transient: VecDeque<Arc<Stored>>,
    /// What it sends.
    pub(super) uploads: Vec<Uploading>,
}

/// A device that can be reached.
#[derive(Debug)]
pub(super) struct Awake {
    pub(super) handle: Arc<SessionHandle>,
    /// `None`: it never sleeps.
    pub(super) until: Option<Instant>,
    /// Puts it on the list of those that were signalled.
    pub(super) waker: Waker,
}

/// A relation of RFC 7641.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) token: Token,
    pub(super) sequence: Sequence,
    /// The format that it wants.
    pub(super) accept: Option<ContentFormat>,
    /// Of `/t`: the delivery that it was last told of, on its way or acknowledged.
    pub(super) told: Option<Arc<LiveDelivery>>,
}

/// A delivery that a device asks for block by block.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) delivery: Arc<LiveDelivery>,
    /// The block that was sent last; the request for the one behind it says that it arrived.
    pub(super) last: Option<Chunk>,
}

/// A message from an application, until the device has all of it.
#[derive(Debug)]
pub(super) struct Command {
    /// Tells it from those before it.
    pub(super) serial: u32,
    pub(super) stored: Arc<Stored>,
    /// As the device is shown it.
    pub(super) format: ContentFormat,
    pub(super) body: Bytes,
}

/// An upload in progress.
#[derive(Debug)]
pub(super) struct Uploading {
    pub(super) upload: Arc<LiveUpload>,
    /// The Request-Tag of its blocks. [RFC 9175 s3]
    pub(super) tag: Option<Box<[u8]>>,
}

impl Registration {
    /// A device that has said nothing yet.
    pub(super) fn new(
        device: AuthenticatedDevice,
        name: Box<str>,
        address: Peer,
        source: Option<SocketAddr>,
        expires_at: Option<Instant>,
    ) -> Self {
        Self {
            device,
            name,
            address,
            issued_to: address,
            proven: None,
            source,
            expires_at,
            awake: None,
            deliveries: None,
            commands: None,
            reading: None,
            command: None,
            transient: VecDeque::new(),
            uploads: Vec::new(),
        }
    }

    /// Whether requests of this peer come from someone who receives what it is sent.
    pub(super) fn is_proven(&self, peer: Peer) -> bool {
        peer.is_proven() || self.issued_to == peer || self.proven == Some(peer)
    }
}

impl Observation {
    pub(super) fn new(token: Token, accept: Option<ContentFormat>) -> Self {
        Self {
            token,
            accept,
            sequence: Sequence::default(),
            told: None,
        }
    }

    /// The number of the next notification.
    pub(super) fn next(&mut self) -> u32 {
        self.sequence = self.sequence.next();
        self.sequence.value()
    }
}

/// All registered devices.
#[derive(Debug)]
pub(super) struct Registrations {
    by_id: HashMap<RdId, Registration>,
    by_device: HashMap<DeviceId, RdId>,
    /// How many are at an address, or have proven that they receive there.
    addresses: HashMap<Peer, u32>,
    max: usize,
}

impl Registrations {
    pub(super) fn new(max: usize) -> Self {
        Self {
            by_id: HashMap::new(),
            by_device: HashMap::new(),
            addresses: HashMap::new(),
            max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.by_id.len() >= self.max
    }

    pub(super) fn get(&self, id: RdId) -> Option<&Registration> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: RdId) -> Option<&mut Registration> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn ids(&self) -> Vec<RdId> {
        self.by_id.keys().copied().collect()
    }

    pub(super) fn of_device(&self, device: &DeviceId) -> Option<RdId> {
        self.by_device.get(device).copied()
    }

    /// Whether a device is registered at this address, or has answered an Echo from there.
    pub(super) fn is_known(&self, address: SocketAddr) -> bool {
        self.addresses.contains_key(&Peer::Address(address))
    }

    /// Enters a device, which must not be registered.
    pub(super) fn insert(&mut self, id: RdId, registration: Registration) {
        self.by_device
            .insert(registration.device.device_id.clone(), id);
        *self.addresses.entry(registration.address).or_default() += 1;
        self.by_id.insert(id, registration);
    }

    pub(super) fn remove(&mut self, id: RdId) -> Option<Registration> {
        let registration = self.by_id.remove(&id)?;
        self.by_device.remove(&registration.device.device_id);
        self.leave_address(registration.address);
        if let Some(proven) = registration.proven {
            self.leave_address(proven);
        }
        Some(registration)
    }

    /// Moves a device.
    pub(super) fn set_address(&mut self, id: RdId, address: Peer) {
        let Some(registration) = self.by_id.get_mut(&id) else {
            return;
        };
        let former = std::mem::replace(&mut registration.address, address);
        *self.addresses.entry(address).or_default() += 1;
        self.leave_address(former);
    }

    /// A device answered an Echo from there; what it proved of another place counts no longer.
    pub(super) fn set_proven(&mut self, id: RdId, peer: Peer) {
        let Some(registration) = self.by_id.get_mut(&id) else {
            return;
        };
        let former = registration.proven.replace(peer);
        *self.addresses.entry(peer).or_default() += 1;
        if let Some(former) = former {
            self.leave_address(former);
        }
    }

    fn leave_address(&mut self, address: Peer) {
        if let Some(count) = self.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_sixteen_digits_and_shown_nowhere() {
        let id = RdId(0x00ab_cdef_0123_4567);
        assert_eq!(id.to_string(), "00abcdef01234567");
        assert_eq!(RdId::parse("00abcdef01234567"), Some(id));
        assert_eq!(format!("{id:?}"), "RdId");
        for text in [
            "",
            "1",
            "00ABCDEF01234567",
            "+0abcdef01234567",
            "00abcdef012345678",
        ] {
            assert_eq!(RdId::parse(text), None, "{text}");
        }
    }
}
