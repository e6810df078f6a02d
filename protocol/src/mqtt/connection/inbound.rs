//! Messages from the client: their QoS, their aliases, and how many may be under way.

use super::{Connection, Event, Output};
use crate::mqtt::{
    Packet, PacketId, ProtocolVersion, PubAck, PubComp, PubRec, Publish, QoS, ReasonCode,
};

/// A QoS 2 packet that the client has not released.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unreleased {
    pub(super) id: PacketId,
    /// Whether the caller acknowledged it. Until then nobody has it but this connection.
    pub(super) is_acted_on: bool,
}

impl<T: Clone> Connection<T> {
    /// Answers a PUBLISH that has been acted on; `qos` is that of the PUBLISH.
    pub fn acknowledge(&mut self, packet_id: PacketId, qos: QoS, reason: ReasonCode) {
        self.acknowledge_with(packet_id, qos, reason, None);
    }

    /// Answers a PUBLISH that has been acted on, and says to an MQTT 5 client why so.
    pub fn acknowledge_with(
        &mut self,
        packet_id: PacketId,
        qos: QoS,
        reason: ReasonCode,
        reason_string: Option<Box<str>>,
    ) {
        let properties = super::fit::explaining(reason_string);
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                self.unanswered = self.unanswered.saturating_sub(1);
                self.transmit(Packet::PubAck(PubAck {
                    packet_id,
                    reason,
                    properties,
                }));
            }
            QoS::ExactlyOnce => {
                self.note_acted_on(packet_id, reason);
                self.transmit(Packet::PubRec(PubRec {
                    packet_id,
                    reason,
                    properties,
                }));
            }
        }
    }

    /// [MQTT-4.3.3-9]: an error ends the exchange, and the identifier is free.
    fn note_acted_on(&mut self, packet_id: PacketId, reason: ReasonCode) {
        let Some(rare) = &mut self.rare else { return };
        if reason.is_error() {
            rare.unreleased.retain(|one| one.id != packet_id);
        } else if let Some(one) = rare.unreleased.iter_mut().find(|one| one.id == packet_id) {
            one.is_acted_on = true;
        }
    }

    pub(super) fn handle_publish(&mut self, mut publish: Publish) {
        if let Err(reason) = self.check_offer(&mut publish) {
            return self.close(reason);
        }
        let is_new = match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, _) => {
                self.unanswered = self.unanswered.saturating_add(1);
                true
            }
            (QoS::ExactlyOnce, Some(packet_id)) => self.note_unreleased(packet_id),
            _ => true,
        };
        if !self.keeps_receive_maximum() {
            // s3.3.4: more than our Receive Maximum.
            return self.close(ReasonCode::ReceiveMaximumExceeded);
        }
        if is_new {
            self.output
                .push_back(Output::Event(Event::Publish(publish)));
        }
    }

    /// Holds a PUBLISH to what CONNACK said there is, and puts the topic in the place of its alias.
    fn check_offer(&mut self, publish: &mut Publish) -> Result<(), ReasonCode> {
        let offer = self.limits.offer;
        if self.version != ProtocolVersion::V5 {
            // Nobody told the client.
            publish.retain &= offer.retain_available;
            return Ok(());
        }
        // [MQTT-3.2.2-14]
        if publish.retain && !offer.retain_available {
            return Err(ReasonCode::RetainNotSupported);
        }
        // [MQTT-3.2.2-11]
        if publish.qos > offer.max_qos {
            return Err(ReasonCode::QoSNotSupported);
        }
        let Some(properties) = &mut publish.properties else {
            return Ok(());
        };
        let Some(alias) = properties.topic_alias.take() else {
            return Ok(());
        };
        let topic = publish.topic.clone();
        let max = offer.topic_alias_maximum;
        publish.topic = self.rare().inbound_aliases.resolve(alias, topic, max)?;
        Ok(())
    }

    /// Takes note of a QoS 2 message; says whether it is a new one. [MQTT-4.3.3-10]
    fn note_unreleased(&mut self, packet_id: PacketId) -> bool {
        let unreleased = &mut self.rare().unreleased;
        let known = unreleased.iter().find(|one| one.id == packet_id).copied();
        match known {
            // The same message again: it is acknowledged and not acted on.
            Some(known) if known.is_acted_on => {
                self.transmit(Packet::PubRec(PubRec::new(packet_id)));
            }
            // It will be acknowledged once it has been acted on.
            Some(_) => {}
            None => unreleased.push(Unreleased {
                id: packet_id,
                is_acted_on: false,
            }),
        }
        known.is_none()
    }

    fn keeps_receive_maximum(&self) -> bool {
        let unreleased = self.rare.as_ref().map_or(0, |rare| rare.unreleased.len());
        if self.version == ProtocolVersion::V5 {
            usize::from(self.unanswered) + unreleased <= usize::from(self.limits.receive_maximum)
        } else {
            unreleased <= usize::from(self.limits.max_unreleased)
        }
    }

    pub(super) fn handle_release(&mut self, packet_id: PacketId) {
        let mut unreleased = self.rare.iter_mut().map(|rare| &mut rare.unreleased);
        let known = unreleased.find_map(|all| {
            let at = all.iter().position(|one| one.id == packet_id)?;
            Some(all.remove(at))
        });
        let reason = match known {
            // PUBREL before PUBREC. [MQTT-4.3.3-4]
            Some(one) if !one.is_acted_on => return self.close(ReasonCode::ProtocolError),
            Some(_) => {
                let released = Event::Released(packet_id);
                self.output.push_back(Output::Event(released));
                ReasonCode::Success
            }
            None => ReasonCode::PacketIdentifierNotFound,
        };
        self.transmit(Packet::PubComp(PubComp {
            packet_id,
            reason,
            properties: None,
        }));
    }
}
