//! Tencent's platform on `$sys/operation`.

use headgate_protocol::{
    topics::DeviceNames,
    vendor::tencent::{Time, asks_for_time},
};

use super::Verdict;
use crate::model::Millis;

/// What is done about a message on `$sys/operation/{product}/{device}` that came at `received`.
pub fn ask(device: DeviceNames<'_>, payload: &[u8], received: Millis, now: Millis) -> Verdict {
    if !asks_for_time(payload) {
        return Verdict::Data;
    }
    let time = Time {
        received: received.as_i64(),
        answered: now.as_i64(),
    };
    Verdict::Answer {
        topic: device.tencent_operation_result(),
        payload: time.to_json(),
    }
}
