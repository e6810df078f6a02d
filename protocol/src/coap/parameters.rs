//! The times of the message layer, by the names of the standard.  Spec: RFC 7252 s4.8.

use std::time::Duration;

/// The parameters that a deployment may change. Both ends need the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// `ACK_TIMEOUT`: the first retransmission comes after this, times a random factor of 1 to 1.5. NB-IoT needs more
    /// than the 2 s of the standard.
    pub ack_timeout: Duration,
    /// `MAX_RETRANSMIT`: how often a message is sent again, 0 to 20.
    pub max_retransmit: u8,
    /// `NSTART`: confirmable messages to one peer that wait for their acknowledgement at one time.
    pub nstart: u8,
    /// `MAX_LATENCY`: the longest that a datagram is on its way.
    pub max_latency: Duration,
    /// After this a request that has no response yet is acknowledged by itself. [RFC 7252 s5.2.2]
    pub separate_after: Duration,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_secs(2),
            max_retransmit: 4,
            nstart: 1,
            max_latency: Duration::from_secs(100),
            separate_after: Duration::from_millis(500),
        }
    }
}

impl Parameters {
    /// `MAX_TRANSMIT_SPAN`: from the first transmission of a message to its last.
    pub fn max_transmit_span(&self) -> Duration {
        self.largest_ack_timeout() * ((1 << self.retransmissions()) - 1)
    }

    /// `MAX_TRANSMIT_WAIT`: from the first transmission of a message to giving it up.
    pub fn max_transmit_wait(&self) -> Duration {
        self.largest_ack_timeout() * ((1 << (self.retransmissions() + 1)) - 1)
    }

    /// `EXCHANGE_LIFETIME`: for so long the identifier of a confirmable message is not used again.
    pub fn exchange_lifetime(&self) -> Duration {
        self.max_transmit_span() + 2 * self.max_latency + self.ack_timeout
    }

    /// `NON_LIFETIME`: the same for a message that is not confirmable.
    pub fn non_lifetime(&self) -> Duration {
        self.max_transmit_span() + self.max_latency
    }

    /// The first timeout of a message: `ACK_TIMEOUT` times 1 to 1.5, by a random number.
    pub(super) fn first_timeout(&self, random: u32) -> Duration {
        let jitter = self.ack_timeout / 2;
        // 16 bits are fine enough: a two thousandth of the difference.
        let part = random & 0xffff;
        self.ack_timeout + jitter * part / 0x1_0000
    }

    pub(super) fn retransmissions(&self) -> u32 {
        u32::from(self.max_retransmit.min(20))
    }

    fn largest_ack_timeout(&self) -> Duration {
        self.ack_timeout * 3 / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_give_the_standards_times() {
        let parameters = Parameters::default();
        for (time, secs) in [
            (parameters.max_transmit_span(), 45),
            (parameters.max_transmit_wait(), 93),
            (parameters.exchange_lifetime(), 247),
            (parameters.non_lifetime(), 145),
        ] {
            assert_eq!(time, Duration::from_secs(secs));
        }
    }

    #[test]
    fn the_first_timeout_is_one_to_one_and_a_half() {
        let parameters = Parameters::default();
        let two = Duration::from_secs(2);
        for random in [0, 1, 0x7fff, 0xffff, u32::MAX] {
            let timeout = parameters.first_timeout(random);
            assert!(timeout >= two && timeout <= two * 3 / 2, "{timeout:?}");
        }
    }
}
