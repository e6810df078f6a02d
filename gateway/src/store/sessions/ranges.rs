//! Lists of byte ranges as bytes: each start and end as 8 bytes, little endian.

/// Writes ranges.
pub(super) fn encode(ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ranges.len() * RANGE_BYTES);
    for (start, end) in ranges {
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend_from_slice(&end.to_le_bytes());
    }
    bytes
}

/// Reads ranges back; `None` unless they are ascending, not empty and do not touch.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<(u64, u64)>> {
    let (pairs, []) = bytes.as_chunks::<RANGE_BYTES>() else {
        return None;
    };
    let mut ranges: Vec<(u64, u64)> = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let (start, end) = pair.split_first_chunk::<8>()?;
        let start = u64::from_le_bytes(*start);
        let end = u64::from_le_bytes(end.try_into().ok()?);
        if start >= end || ranges.last().is_some_and(|&(_, before)| before >= start) {
            return None;
        }
        ranges.push((start, end));
    }
    Some(ranges)
}

const RANGE_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_round_trip() {
        for ranges in [vec![], vec![(0, 1)], vec![(5, 9), (10, u64::MAX)]] {
            assert_eq!(decode(&encode(&ranges)), Some(ranges));
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(decode(&[0; 15]), None);
        assert_eq!(decode(&encode(&[(5, 5)])), None);
        assert_eq!(decode(&encode(&[(5, 9), (9, 10)])), None);
        assert_eq!(decode(&encode(&[(5, 9), (1, 2)])), None);
    }
}
