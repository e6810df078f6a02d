//! Quality of Service levels.  Spec: MQTT 5.0 s4.3.

/// How hard sender and receiver try to hand a message over; ordered, so `min` downgrades.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QoS {
    /// At most once delivery (0): no acknowledgement.
    #[default]
    AtMostOnce = 0,
    /// At least once delivery (1): acknowledged by PUBACK.
    AtLeastOnce = 1,
    /// Exactly once delivery (2): acknowledged by PUBREC, PUBREL and PUBCOMP.
    ExactlyOnce = 2,
}

impl QoS {
    /// Finds the level for its number on the wire; 3 and above have none.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// The number on the wire.
    pub const fn bits(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }
}

impl From<QoS> for u8 {
    fn from(qos: QoS) -> Self {
        qos.bits()
    }
}
