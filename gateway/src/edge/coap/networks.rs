//! How much strangers may send: a token bucket for each network, an IPv4 /24 or an IPv6 /56.
//!
//! Invariants: the table is bounded; at the bound only networks that are at rest give their places, and new ones wait
//! for that; a network that is not in the table has a full bucket.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

/// A bucket holds what may be sent in so many seconds.
const BURST_SECS: f64 = 5.0;

/// The networks of strangers.
#[derive(Debug)]
pub(super) struct Networks {
    buckets: HashMap<IpAddr, Bucket>,
    rate: f64,
    max: usize,
    swept_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Networks {
    /// Buckets of `rate` datagrams a second for at most `max` networks.
    pub(super) fn new(rate: u32, max: usize, now: Instant) -> Self {
        Self {
            buckets: HashMap::new(),
            rate: f64::from(rate),
            max,
            swept_at: now,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Takes a datagram's token; `false`: there is none.
    pub(super) fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        let full = self.rate * BURST_SECS;
        let network = network(address);
        if !self.buckets.contains_key(&network) && self.buckets.len() >= self.max {
            self.make_room(now);
            if self.buckets.len() >= self.max {
                return false;
            }
        }
        let bucket = self.buckets.entry(network).or_insert(Bucket {
            tokens: full,
            at: now,
        });
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = elapsed.mul_add(self.rate, bucket.tokens).min(full);
        bucket.at = now;
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }

    /// Forgets networks whose buckets are full again; looks for them once a second at most.
    fn make_room(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept_at).as_secs() < 1 {
            return;
        }
        self.swept_at = now;
        let (rate, full) = (self.rate, self.rate * BURST_SECS);
        self.buckets.retain(|_, bucket| {
            let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
            elapsed.mul_add(rate, bucket.tokens) < full
        });
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 72)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_network_sends_its_burst_and_then_its_rate() {
        let now = Instant::now();
        let mut networks = Networks::new(2, 16, now);
        let (one, neighbour) = ("192.0.2.1".parse().unwrap(), "192.0.2.200".parse().unwrap());
        let admitted = |networks: &mut Networks, address, now| {
            (0..100)
                .take_while(|_| networks.admit(address, now))
                .count()
        };
        assert_eq!(admitted(&mut networks, one, now), 10);
        assert_eq!(
            admitted(&mut networks, neighbour, now),
            0,
            "the same network"
        );
        assert_eq!(
            admitted(&mut networks, "192.0.3.1".parse().unwrap(), now),
            10
        );
        let later = now + Duration::from_secs(2);
        assert_eq!(admitted(&mut networks, neighbour, later), 4);
    }

    #[test]
    fn the_table_is_bounded_and_makes_room() {
        let now = Instant::now();
        let mut networks = Networks::new(1, 2, now);
        let address = |n: u8| IpAddr::from([10, 0, n, 1]);
        assert!(networks.admit(address(1), now) && networks.admit(address(2), now));
        assert!(!networks.admit(address(3), now), "no room");
        let later = now + Duration::from_secs(6);
        assert!(networks.admit(address(3), later), "the others are at rest");
        assert_eq!(networks.len(), 1);
    }
}
