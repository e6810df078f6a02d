//! Who each device is and how its link behaves, drawn from the seed.
//!
//! The same seed gives the same names, secrets and misfortunes, so that a second run with `--keep`
//! finds its devices and two runs can be compared.

use sha2::{Digest, Sha256};

use crate::rng::Rng;

/// The name and secret of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Position in the swarm, from 0.
    pub(crate) index: u32,
    /// `{device}` in topics.
    pub(crate) node_id: String,
    /// `{product}_{node}`: the gateway's default; `ClientId` and user name.
    pub(crate) device_id: String,
}

impl Identity {
    /// Device `index` of the swarm with `seed`.
    pub(crate) fn new(product: &str, seed: u64, index: u32) -> Self {
        let node_id = format!("s{seed}-{index:05}");
        let device_id = format!("{product}_{node_id}");
        Self {
            index,
            node_id,
            device_id,
        }
    }
}

/// 32 hex digits that `device_id` logs in with.
///
/// A test device's secret is no secret: whoever knows the seed knows it.
pub(crate) fn secret(seed: u64, device_id: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"swarm device secret");
    hash.update(seed.to_be_bytes());
    hash.update(device_id.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    hex::encode(&digest[..16])
}

/// How one device's link behaves during a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    /// Bytes a second that it reads, when it is slow.
    pub(crate) read_bps: Option<u64>,
    /// Offset from which on it drops its link, once.
    pub(crate) drop_at: Option<u64>,
}

impl Fate {
    /// A link without misfortune.
    pub(crate) const NONE: Self = Self {
        read_bps: None,
        drop_at: None,
    };
}

/// What fates are drawn from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Odds {
    /// Seed of the run.
    pub(crate) seed: u64,
    /// Share of slow devices.
    pub(crate) slow_fraction: f64,
    /// Bytes a second that those read.
    pub(crate) slow_bps: u64,
    /// Share of devices that drop.
    pub(crate) drop_rate: f64,
    /// Size of the resource.
    pub(crate) size: u64,
}

impl Odds {
    /// The fate of device `index`.
    pub(crate) fn fate(&self, index: u32) -> Fate {
        let mut rng = Rng::new(self.seed, FATE_STREAM + u64::from(index));
        let slow = rng.chance(self.slow_fraction);
        let drops = rng.chance(self.drop_rate);
        // Somewhere between a tenth and nine tenths of the way, so that both sides have a state.
        let drop_at = self.size / 10 + rng.below(self.size / 10 * 8 + 1);
        Fate {
            read_bps: slow.then_some(self.slow_bps),
            drop_at: drops.then_some(drop_at.max(1)),
        }
    }
}

/// Keeps fates apart from content and jitter, which use the same seed.
const FATE_STREAM: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    const ODDS: Odds = Odds {
        seed: 5,
        slow_fraction: 0.1,
        slow_bps: 1024,
        drop_rate: 0.3,
        size: 1_000_000,
    };

    #[test]
    fn names_and_secrets_repeat_and_are_legal() {
        let a = Identity::new("swarm", 1, 7);
        assert_eq!(a, Identity::new("swarm", 1, 7));
        assert_eq!(a.device_id, "swarm_s1-00007");
        let s = secret(1, &a.device_id);
        assert_eq!(s.len(), 32);
        assert_eq!(s, secret(1, &a.device_id));
        assert_ne!(s, secret(2, &a.device_id));
        let longest = Identity::new("swarm", u64::MAX, 999_999).node_id;
        assert!(longest.len() <= 64);
    }

    #[test]
    fn fates_repeat_and_keep_to_the_odds() {
        let fates: Vec<_> = (0..10_000).map(|i| ODDS.fate(i)).collect();
        let slow = fates.iter().filter(|f| f.read_bps.is_some()).count();
        let drops = fates.iter().filter(|f| f.drop_at.is_some()).count();
        assert!((850..1_150).contains(&slow), "{slow}");
        assert!((2_800..3_200).contains(&drops), "{drops}");
        assert_eq!(fates[17], ODDS.fate(17));
    }

    #[test]
    fn drops_happen_on_the_way() {
        let drops = (0..1_000).filter_map(|i| ODDS.fate(i).drop_at);
        for at in drops {
            assert!((100_000..=900_000).contains(&at), "{at}");
        }
        let tiny = Odds {
            size: 5,
            drop_rate: 1.0,
            ..ODDS
        };
        assert!(
            (0..50)
                .filter_map(|i| tiny.fate(i).drop_at)
                .all(|at| (1..=5).contains(&at))
        );
    }
}
