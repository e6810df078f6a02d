//! What a device that is connected notices of other work: how long its messages wait for their
//! acknowledgements.

use std::time::Duration;

use tokio::time::interval;

use crate::fleet::ClientError;
use crate::fleet::mqtt::Prober;

/// Publishes to `topic` again and again until `end`; gives how long each acknowledgement took, and what `end` gave.
///
/// # Errors
/// The prober's [`ClientError`].
pub(super) async fn waits<T>(
    prober: &mut Prober,
    topic: &str,
    end: impl Future<Output = T>,
) -> Result<(Vec<Duration>, T), ClientError> {
    let mut waits = Vec::new();
    let mut turn = interval(PROBE_INTERVAL);
    let mut end = std::pin::pin!(end);
    loop {
        tokio::select! {
            biased;
            ended = &mut end => return Ok((waits, ended)),
            _ = turn.tick() => {}
        }
        waits.push(prober.publish(topic).await?);
    }
}

/// The wait that one in a hundred exceeds, ms.
pub(super) fn p99_millis(mut waits: Vec<Duration>) -> f64 {
    waits.sort_unstable();
    let at = waits.len().saturating_sub(1) * 99 / 100;
    waits.get(at).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
}

const PROBE_INTERVAL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hundredth_part_is_left_out() {
        let waits = (1..=200).map(Duration::from_millis).collect();
        assert!((p99_millis(waits) - 198.0).abs() < 1e-9);
        assert!(p99_millis(Vec::new()).abs() < 1e-9);
    }
}
