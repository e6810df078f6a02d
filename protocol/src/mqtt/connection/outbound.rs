//! Messages to the client: what may go now, what waits, and their acknowledgements.

use super::{
    Connection, Event, Message, NotSent, Output, State,
    in_flight::{Entry, Kept},
};
use crate::mqtt::{Packet, PacketId, PubRel, Publish, QoS, ReasonCode, TopicName};

impl<T: Clone> Connection<T> {
    /// Sends a message, or keeps it until the client has acknowledged others.
    ///
    /// # Errors
    /// [`NotSent`] where it can be neither sent nor kept.
    pub fn send(&mut self, message: Message<T>) -> Result<(), NotSent> {
        self.check_message(&message)?;
        if message.qos == QoS::AtMostOnce || self.may_send() {
            let publish = self.begin(message);
            self.transmit(Packet::Publish(publish));
            return Ok(());
        }
        let (max_messages, max_bytes) = (self.limits.outbox_messages, self.limits.outbox_bytes);
        let rare = self.rare();
        let bytes = rare.waiting_bytes.saturating_add(message.bytes());
        if rare.waiting.len() >= max_messages || bytes > max_bytes {
            return Err(NotSent::OutboxFull);
        }
        rare.waiting_bytes = bytes;
        rare.waiting.push_back(message);
        Ok(())
    }

    /// Makes the PUBLISH of a message that the caller sends next, itself: before anything that
    /// [`Connection::poll_output`] gives after this call, and after everything before.
    ///
    /// # Errors
    /// [`NotSent`] where it cannot be sent now; no identifier is taken then.
    pub fn prepare(&mut self, message: Message<T>) -> Result<Publish, NotSent> {
        self.check_message(&message)?;
        if message.qos != QoS::AtMostOnce && !self.may_send() {
            return Err(NotSent::NoQuota);
        }
        if self.output.is_empty() {
            return Ok(self.begin(message));
        }
        // What announces an alias may be among what was not taken out yet: this one does without.
        let (publish, _) = self.identify(message);
        Ok(publish)
    }

    /// Takes a packet identifier for a PUBLISH of QoS 1 that the caller encodes itself and does not
    /// send on another connection; `None` where the client's Receive Maximum is reached or messages
    /// wait, which go first.
    pub fn reserve(&mut self, tag: T) -> Option<PacketId> {
        if self.state != State::Open || !self.may_send() {
            return None;
        }
        Some(self.take_id(QoS::AtLeastOnce, Kept::Tag(tag)))
    }

    /// How many packets of the caller's own may follow with [`Connection::reserve`].
    pub fn send_quota(&self) -> u16 {
        if self.state != State::Open || self.has_waiting() {
            return 0;
        }
        let used = u16::try_from(self.under_way()).unwrap_or(u16::MAX);
        self.max_under_way().saturating_sub(used)
    }

    /// PUBACK, which ends an exchange of QoS 1.
    pub(super) fn handle_puback(&mut self, packet_id: PacketId) {
        match self.in_flight.qos(packet_id) {
            Some(QoS::AtLeastOnce) => self.finish(packet_id),
            Some(_) => self.close(ReasonCode::ProtocolError),
            // An identifier that is not in use is no harm: the packet may have been dropped by us.
            None => {}
        }
    }

    /// PUBREC, which releases the message of an exchange of QoS 2, or ends it with an error.
    pub(super) fn handle_pubrec(&mut self, packet_id: PacketId, reason: ReasonCode) {
        match self.in_flight.qos(packet_id) {
            Some(QoS::ExactlyOnce) if reason.is_error() => self.finish(packet_id),
            Some(QoS::ExactlyOnce) => self.release(packet_id),
            Some(_) => self.close(ReasonCode::ProtocolError),
            // It may come again: its PUBREL was lost with an earlier connection.
            None if self.is_released(packet_id) => {
                self.transmit(Packet::PubRel(PubRel::new(packet_id)));
            }
            None if reason.is_error() => {}
            None => self.transmit(Packet::PubRel(PubRel {
                packet_id,
                reason: ReasonCode::PacketIdentifierNotFound,
                properties: None,
            })),
        }
    }

    /// PUBCOMP, which ends an exchange of QoS 2.
    pub(super) fn handle_pubcomp(&mut self, packet_id: PacketId) {
        if self.in_flight.qos(packet_id).is_some() {
            return self.close(ReasonCode::ProtocolError);
        }
        let mut released = self.rare.iter_mut().map(|rare| &mut rare.released);
        let done = released.find_map(|released| {
            let at = released.iter().position(|entry| entry.id == packet_id)?;
            released.remove(at)
        });
        if let Some(entry) = done {
            self.acknowledged(entry.kept.into_tag());
        }
    }

    /// Sends what waits, as far as the client takes it now.
    pub(super) fn send_waiting(&mut self) {
        while self.state == State::Open && self.has_quota() {
            let Some(rare) = &mut self.rare else { return };
            if let Some(entry) = rare.resuming.pop_front() {
                self.send_again(entry);
            } else if let Some(message) = rare.waiting.pop_front() {
                rare.waiting_bytes = rare.waiting_bytes.saturating_sub(message.bytes());
                let tag = message.tag.clone();
                if self.check_message(&message).is_ok() {
                    let publish = self.begin(message);
                    self.transmit(Packet::Publish(publish));
                } else {
                    // [MQTT-3.1.2-25]: it came from a connection that took larger ones.
                    self.output
                        .push_back(Output::Event(Event::Acknowledged(tag)));
                }
            } else {
                return;
            }
        }
    }

    /// [MQTT-3.3.1-1], [MQTT-4.4.0-1]
    fn send_again(&mut self, entry: Entry<T>) {
        let Kept::Message(message) = &entry.kept else {
            return;
        };
        let message = (**message).clone();
        if self.check_size(&message).is_err() {
            // [MQTT-3.1.2-25]: as if it had been sent and acknowledged.
            return self.acknowledged(entry.kept.into_tag());
        }
        let (publish, _) = message.into_publish(self.version, Some(entry.id), true);
        let publish = self.with_alias(publish);
        self.in_flight.push(entry);
        self.transmit(Packet::Publish(publish));
    }

    /// Takes an identifier where one is needed, and makes the PUBLISH.
    fn begin(&mut self, message: Message<T>) -> Publish {
        let (publish, _) = self.identify(message);
        self.with_alias(publish)
    }

    fn identify(&mut self, message: Message<T>) -> (Publish, T) {
        let packet_id = (message.qos != QoS::AtMostOnce).then(|| {
            let kept = if self.session_expiry_secs == 0 {
                Kept::Tag(message.tag.clone())
            } else {
                Kept::Message(Box::new(message.clone()))
            };
            self.take_id(message.qos, kept)
        });
        message.into_publish(self.version, packet_id, false)
    }

    fn take_id(&mut self, qos: QoS, kept: Kept<T>) -> PacketId {
        let Self {
            in_flight, rare, ..
        } = self;
        let id = in_flight.free_id(|id| {
            let entries = rare
                .iter()
                .flat_map(|rare| rare.released.iter().chain(&rare.resuming));
            entries.into_iter().any(|entry| entry.id == id)
        });
        in_flight.push(Entry { id, qos, kept });
        id
    }

    /// Lets an alias stand for the topic, or announces one.
    fn with_alias(&mut self, mut publish: Publish) -> Publish {
        let max = self.client_topic_alias_maximum;
        if max == 0 || publish.topic.len() < MIN_ALIASED_BYTES {
            return publish;
        }
        let Some((alias, is_known)) = self.rare().outbound_aliases.find(&publish.topic, max) else {
            return publish;
        };
        if is_known {
            publish.topic = TopicName::aliased();
            publish.properties.get_or_insert_default().topic_alias = Some(alias);
            return publish;
        }
        let without = publish.properties.clone();
        publish.properties.get_or_insert_default().topic_alias = Some(alias);
        if self.fits(&publish) {
            self.rare().outbound_aliases.push(publish.topic.clone());
        } else {
            publish.properties = without;
        }
        publish
    }

    fn finish(&mut self, packet_id: PacketId) {
        if let Some(entry) = self.in_flight.remove(packet_id) {
            self.acknowledged(entry.kept.into_tag());
        }
    }

    fn acknowledged(&mut self, tag: T) {
        self.output
            .push_back(Output::Event(Event::Acknowledged(tag)));
        self.send_waiting();
    }

    /// [MQTT-4.3.3-4]
    fn release(&mut self, packet_id: PacketId) {
        let Some(mut entry) = self.in_flight.remove(packet_id) else {
            return;
        };
        let received = Event::Received(entry.kept.tag().clone());
        self.output.push_back(Output::Event(received));
        if let Kept::Message(message) = &mut entry.kept {
            message.shrink();
        }
        self.rare().released.push_back(entry);
        self.transmit(Packet::PubRel(PubRel::new(packet_id)));
    }

    fn is_released(&self, packet_id: PacketId) -> bool {
        let mut released = self.rare.iter().flat_map(|rare| &rare.released);
        released.any(|entry| entry.id == packet_id)
    }

    fn may_send(&self) -> bool {
        !self.has_waiting() && self.has_quota()
    }

    fn has_waiting(&self) -> bool {
        self.rare
            .as_ref()
            .is_some_and(|rare| !rare.waiting.is_empty() || !rare.resuming.is_empty())
    }

    fn has_quota(&self) -> bool {
        self.under_way() < usize::from(self.max_under_way())
    }

    /// Exchanges of QoS 1 and 2 that this connection began, or goes on with.
    fn under_way(&self) -> usize {
        let released = self.rare.as_ref().map_or(0, |rare| rare.released.len());
        self.in_flight.len() + released
    }

    fn max_under_way(&self) -> u16 {
        // One identifier less than there are, so that there is always a free one.
        self.client_receive_maximum
            .min(self.limits.max_in_flight)
            .min(u16::MAX - 1)
    }

    fn check_message(&self, message: &Message<T>) -> Result<(), NotSent> {
        if self.state != State::Open {
            return Err(NotSent::NotOpen);
        }
        self.check_size(message)
    }

    /// [MQTT-3.1.2-24]
    fn check_size(&self, message: &Message<T>) -> Result<(), NotSent> {
        if message.packet_bytes() <= u64::from(self.client_max_packet_bytes) {
            return Ok(());
        }
        // The exact size is looked at only where it is near: that takes a copy.
        let packet_id = (message.qos != QoS::AtMostOnce).then_some(PacketId::MIN);
        let (publish, _) = message.clone().into_publish(self.version, packet_id, false);
        if self.fits(&publish) {
            Ok(())
        } else {
            Err(NotSent::TooLarge)
        }
    }

    fn fits(&self, publish: &Publish) -> bool {
        let max = self.client_max_packet_bytes;
        max == u32::MAX
            || publish
                .encoded_len(self.version)
                .is_ok_and(|bytes| u32::try_from(bytes).is_ok_and(|bytes| bytes <= max))
    }
}

/// The shortest topic that gets an alias, which takes up to 4 bytes itself.
const MIN_ALIASED_BYTES: usize = 4;
