//! Tencent's `$sys/operation`: a device asks the platform for the time.

pub mod ota;

use serde::Deserialize;
use serde_json::json;

/// When a request for the time came, and when it is answered; milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// `ntptime1`: when the request came.
    pub received: i64,
    /// `ntptime2`: when it is answered.
    pub answered: i64,
}

#[derive(Deserialize)]
struct Operation<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    resource: Vec<&'a str>,
}

/// Whether a message asks for the time.
pub fn asks_for_time(payload: &[u8]) -> bool {
    serde_json::from_slice::<Operation<'_>>(payload)
        .is_ok_and(|asked| asked.kind == "get" && asked.resource.contains(&"time"))
}

impl Time {
    /// The answer.
    pub fn to_json(self) -> Vec<u8> {
        let message = json!({
            "type": "get",
            "time": self.answered.div_euclid(1_000),
            "ntptime1": self.received,
            "ntptime2": self.answered,
        });
        message.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn only_a_request_for_the_time_is_one() {
        for (payload, asks) in [
            (&br#"{"type": "get", "resource": ["time"]}"#[..], true),
            (br#"{"type":"get","resource":["x","time"],"more":1}"#, true),
            (br#"{"type":"set","resource":["time"]}"#, false),
            (br#"{"type":"get","resource":["x"]}"#, false),
            (br#"{"type":"get"}"#, false),
            (b"\xff", false),
        ] {
            assert_eq!(asks_for_time(payload), asks, "{payload:?}");
        }
    }

    #[test]
    fn the_time_is_told_in_seconds_and_milliseconds() {
        let answer = Time {
            received: 1_621_562_343_123,
            answered: 1_621_562_343_999,
        };
        let answer: Value = serde_json::from_slice(&answer.to_json()).expect("JSON");
        assert_eq!(
            answer,
            json!({"type": "get", "time": 1_621_562_343, "ntptime1": 1_621_562_343_123_i64, "ntptime2": 1_621_562_343_999_i64})
        );
    }
}
