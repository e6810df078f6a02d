//! Packets other than PUBLISH are made to fit what the client said that it takes.
//!
//! Spec: MQTT 5.0 s3.1.2.11.4, s3.1.2.11.7.

use super::{Connection, Output, State};
use crate::mqtt::{Packet, Properties, ReasonCode};

impl<T> Connection<T> {
    /// Puts a packet out. One that is larger than the client takes goes without what is for people to
    /// read; where that is not enough, there is no way to go on.
    pub(super) fn transmit(&mut self, packet: Packet) {
        if self.state == State::Closed {
            return;
        }
        match self.fit(packet) {
            Some(packet) => self.output.push_back(Output::Transmit(packet)),
            None => self.end(ReasonCode::PacketTooLarge),
        }
    }

    /// The packet as it may go out; `None` where it is too large. [MQTT-3.1.2-24]
    fn fit(&self, mut packet: Packet) -> Option<Packet> {
        // [MQTT-3.1.2-29]
        if !self.wants_problem_information && is_reserved_for_the_curious(&packet) {
            drop_explanation(&mut packet);
        }
        if self.is_small_enough(&packet) {
            return Some(packet);
        }
        // [MQTT-3.2.2-19], [MQTT-3.4.2-2] and its likes
        drop_explanation(&mut packet);
        self.is_small_enough(&packet).then_some(packet)
    }

    pub(super) fn is_small_enough(&self, packet: &Packet) -> bool {
        let max = self.client_max_packet_bytes;
        // The caller looked at the size of a message; looking again costs a pass over its properties.
        if max == u32::MAX || matches!(packet, Packet::Publish(_)) {
            return true;
        }
        // One that cannot be encoded is left to whoever encodes it.
        packet
            .encoded_len(self.version)
            .is_ok_and(|bytes| u32::try_from(bytes).is_ok_and(|bytes| bytes <= max))
    }
}

/// Properties that hold nothing but the reason, for people to read.
pub(super) fn explaining(reason_string: Option<Box<str>>) -> Option<Box<Properties>> {
    reason_string.map(|reason_string| {
        Box::new(Properties {
            reason_string: Some(reason_string),
            ..Properties::default()
        })
    })
}

/// Whether a client that asked for no problem information gets none in this packet.
const fn is_reserved_for_the_curious(packet: &Packet) -> bool {
    !matches!(
        packet,
        Packet::Publish(_) | Packet::ConnAck(_) | Packet::Disconnect(_)
    )
}

/// Takes out reason string and user properties.
fn drop_explanation(packet: &mut Packet) {
    let properties = match packet {
        Packet::ConnAck(ack) => &mut ack.properties,
        Packet::PubAck(ack) => &mut ack.properties,
        Packet::PubRec(ack) => &mut ack.properties,
        Packet::PubRel(ack) => &mut ack.properties,
        Packet::PubComp(ack) => &mut ack.properties,
        Packet::SubAck(ack) => &mut ack.properties,
        Packet::UnsubAck(ack) => &mut ack.properties,
        Packet::Disconnect(disconnect) => &mut disconnect.properties,
        Packet::Auth(auth) => &mut auth.properties,
        Packet::Connect(_)
        | Packet::Publish(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq
        | Packet::PingResp => return,
    };
    if let Some(all) = properties {
        all.reason_string = None;
        all.user = Vec::new();
        properties.take_if(|all| **all == Properties::default());
    }
}
