//! SUBSCRIBE: a client asks for topics.  Spec: MQTT 5.0 s3.8.

use smallvec::SmallVec;

use crate::mqtt::{
    DecodeError, EncodeError, PacketId, PacketType, Properties, ProtocolVersion, QoS, TopicFilter,
    Violation,
    codec::Rules,
    properties::Context,
    wire::{Reader, Sink},
};

/// Asks for one or more subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Identifier that SUBACK answers.
    pub packet_id: PacketId,
    /// What is asked for, at least one.
    pub filters: SmallVec<[Subscription; 1]>,
    /// Properties of MQTT 5.0.
    pub properties: Option<Box<Properties>>,
}

/// One subscription; the options beside the QoS are of MQTT 5.0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// What messages are wanted.
    pub filter: TopicFilter,
    /// The greatest QoS to receive them with.
    pub qos: QoS,
    /// Whether the client's own messages are left out.
    pub no_local: bool,
    /// Whether messages keep the RETAIN flag that they were published with.
    pub retain_as_published: bool,
    /// Whether retained messages are sent now.
    pub retain_handling: RetainHandling,
}

/// When a subscription is answered with retained messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetainHandling {
    /// At every SUBSCRIBE; always so before MQTT 5.0.
    #[default]
    Send,
    /// Only when the subscription is new.
    SendIfNew,
    /// Never.
    DoNotSend,
}

impl Subscription {
    /// Makes a subscription with the options of MQTT 3.1.1.
    pub const fn new(filter: TopicFilter, qos: QoS) -> Self {
        Self {
            filter,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }

    fn decode(reader: &mut Reader<'_>, rules: &Rules) -> Result<Self, DecodeError> {
        let filter = rules.topic_filter(reader.string()?)?;
        let options = reader.u8()?;
        let reserved = if rules.version.has_properties() {
            0b1100_0000
        } else {
            0b1111_1100
        };
        // [MQTT-3.8.3-5]
        if options & reserved != 0 {
            return Err(Violation::ReservedSubscriptionOptions.into());
        }
        let qos = QoS::from_bits(options & 0b11).ok_or(Violation::SubscriptionQoS3)?;
        let no_local = options & NO_LOCAL != 0;
        // [MQTT-3.8.3-4]
        if no_local && filter.is_shared() {
            return Err(Violation::NoLocalOnShared.into());
        }
        let retain_handling = match options >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(Violation::RetainHandling3.into()),
        };
        let retain_as_published = options & RETAIN_AS_PUBLISHED != 0;
        Ok(Self {
            filter,
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        })
    }

    fn write<S: Sink>(&self, version: ProtocolVersion, sink: &mut S) -> Result<(), EncodeError> {
        sink.string(&self.filter)?;
        let mut options = self.qos.bits();
        if version.has_properties() {
            if self.no_local && self.filter.is_shared() {
                return Err(EncodeError::NoLocalOnShared);
            }
            if self.no_local {
                options |= NO_LOCAL;
            }
            if self.retain_as_published {
                options |= RETAIN_AS_PUBLISHED;
            }
            options |= match self.retain_handling {
                RetainHandling::Send => 0,
                RetainHandling::SendIfNew => 1 << 4,
                RetainHandling::DoNotSend => 2 << 4,
            };
        }
        sink.u8(options);
        Ok(())
    }
}

impl Subscribe {
    pub(in crate::mqtt) fn decode(
        reader: &mut Reader<'_>,
        rules: &Rules,
    ) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let properties = Properties::decode(reader, CONTEXT, rules)?;
        let mut filters = SmallVec::new();
        while !reader.is_empty() {
            rules.check_filter_count(filters.len())?;
            filters.push(Subscription::decode(reader, rules)?);
        }
        // [MQTT-3.8.3-2]
        if filters.is_empty() {
            return Err(Violation::SubscribeEmpty.into());
        }
        Ok(Self {
            packet_id,
            filters,
            properties,
        })
    }

    pub(super) fn write_body<S: Sink>(
        &self,
        version: ProtocolVersion,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        if self.filters.is_empty() {
            return Err(EncodeError::EmptyPayload(PacketType::Subscribe));
        }
        sink.packet_id(self.packet_id);
        Properties::encode(self.properties.as_deref(), CONTEXT, version, sink)?;
        self.filters
            .iter()
            .try_for_each(|subscription| subscription.write(version, sink))
    }
}

const NO_LOCAL: u8 = 0b0100;
const RETAIN_AS_PUBLISHED: u8 = 0b1000;

const CONTEXT: Context = Context::Packet(PacketType::Subscribe);
