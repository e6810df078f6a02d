//! What the API says about the form of a task's policy and filter.
//!
//! The model reads and writes them; these types only describe them in the OpenAPI document. A test
//! holds the two against each other.

use utoipa::ToSchema;

/// How a task runs; what is left out is as the node's settings say.
#[derive(Debug, ToSchema)]
#[schema(as = TaskPolicy)]
#[expect(dead_code, reason = "describes JSON that the model reads and writes")]
pub struct TaskPolicyView {
    /// Deliveries that may be in progress at once, from 1.
    max_in_progress: Option<u32>,
    /// Bytes a second over all its devices, from 256.
    bytes_per_sec: Option<u64>,
    /// How many devices begin in a minute.
    pace: Option<PaceView>,
    /// The few devices that go first.
    canary: Option<CanaryView>,
    /// When the rest is given up.
    abort: Option<AbortView>,
    /// Before this nothing is begun.
    #[schema(value_type = Option<String>, format = DateTime)]
    start_at: Option<String>,
    /// Outside of these hours nothing is begun.
    window: Option<DailyWindowView>,
    /// Timers of its own.
    timers: Option<TimersView>,
    /// How often a delivery is tried by itself.
    attempts: Option<AttemptsView>,
}

/// How many devices begin in a minute.
#[derive(Debug, ToSchema)]
#[schema(as = Pace)]
#[expect(dead_code, reason = "describes JSON that the model reads and writes")]
struct PaceView {
    /// Devices a minute, 1 to 1,000,000; with a ramp: at its beginning.
    per_minute: u32,
    /// How it grows.
    ramp: Option<RampView>,
}

/// An exponential ramp.
#[derive(Debug, ToSchema)]
#[schema(as = Ramp)]
#[expect(dead_code, reason = "describes JSON that the model reads and writes")]
struct RampView {
    /// By how much the pace is multiplied each time, 1.01 to 10.
    factor: f64,
    /// After so many deliveries that succeeded, from 1.
    every_succeeded: u32,
    /// The pace at which the growth ends.
    max_per_minute: u32,
}

/// The devices that go first; exactly one of `devices` and `percent`.
#[derive(Debug, ToSchema)]
#[schema(as = Canary)]
#[expect(dead_code, reason = "describes JSON that the model reads and writes")]
struct CanaryView {
    /// So many: the first that are there.
    devices: Option<u32>,
    /// So many hundredths of all, 1 to 100.
    percent: Option<u8>,
    /// Promoted once so many hundredths of them were delivered; absent: by an operator.
    success_percent: Option<u8>,
}

/// When a task is given up.
#[derive(Debug, ToSchema)]
#[schema(as = Abort)]
#[expect(dead_code, reason = "describes JSON that the model reads and writes")]
struct AbortView {
    /// Hundredths of the deliveries that ended, 1 to 100.
    failed_percent: u8,
    /// And at least so many have ended, from 1.
    min_finished: u32,
}

/// Hours of every day.
#[derive(Debug, ToSchema)]
#[schema(as = DailyWindow)]
#[expect(dead_code, reason = "describes JSON that the model reads and writes")]
struct DailyWindowView {
    /// `HH:MM`.
    from: String,
    /// `HH:MM`; before `from`: of the next day.
    to: String,
    /// `+HH:MM` or `-HH:MM`; default `+00:00`.
    utc_offset: Option<String>,
}

/// Timers in seconds.
#[derive(Debug, ToSchema)]
#[schema(as = Timers)]
#[expect(dead_code, reason = "describes JSON that the model reads and writes")]
struct TimersView {
    /// A connected device that owes an answer is silent.
    step_timeout_secs: Option<u32>,
    /// A device knows of the delivery, its absence included.
    in_progress_timeout_secs: Option<u32>,
    /// A device has every byte and says nothing.
    confirm_timeout_secs: Option<u32>,
}

/// How often a delivery is tried by itself.
#[derive(Debug, ToSchema)]
#[schema(as = Attempts)]
#[expect(dead_code, reason = "describes JSON that the model reads and writes")]
struct AttemptsView {
    /// Attempts in all, 1 to 20.
    max: Option<u32>,
    /// Seconds before the second one, doubled before each further one.
    backoff_secs: Option<u32>,
    /// Never longer than this.
    max_backoff_secs: Option<u32>,
}

/// The devices of a task that is not made from a list.
#[derive(Debug, ToSchema)]
#[schema(as = TargetFilter)]
#[expect(dead_code, reason = "describes JSON that the model reads and writes")]
pub struct TargetFilterView {
    /// Node id or name: `*` any characters, `?` one; absent: every device of the product.
    name: Option<String>,
    /// Only devices that are bound to this application.
    app: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use utoipa::{PartialSchema, openapi::RefOr, openapi::schema::Schema};

    use super::*;
    use crate::model::{TargetFilter, TaskPolicy};

    fn described<T: PartialSchema>() -> BTreeSet<String> {
        match T::schema() {
            RefOr::T(Schema::Object(object)) => object.properties.keys().cloned().collect(),
            _ => panic!("an object"),
        }
    }

    fn keys(value: &Value) -> BTreeSet<String> {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    }

    #[test]
    fn what_is_described_is_what_is_read() {
        let text = r#"{"max_in_progress":5,"bytes_per_sec":1048576,
            "pace":{"per_minute":50,"ramp":{"factor":1.5,"every_succeeded":100,"max_per_minute":1000}},
            "canary":{"devices":5,"percent":5,"success_percent":90},
            "abort":{"failed_percent":20,"min_finished":10},
            "start_at":"2026-12-01T20:00:00.000Z",
            "window":{"from":"22:30","to":"05:00","utc_offset":"-03:30"},
            "timers":{"step_timeout_secs":1,"in_progress_timeout_secs":2,"confirm_timeout_secs":3},
            "attempts":{"max":5,"backoff_secs":10,"max_backoff_secs":60}}"#;
        let policy: TaskPolicy = serde_json::from_str(text).expect("every field is known");
        let json = serde_json::to_value(policy).expect("plain data");
        assert_eq!(keys(&json), described::<TaskPolicyView>());
        for (of, described) in [
            (&json["pace"], described::<PaceView>()),
            (&json["pace"]["ramp"], described::<RampView>()),
            (&json["canary"], described::<CanaryView>()),
            (&json["abort"], described::<AbortView>()),
            (&json["window"], described::<DailyWindowView>()),
            (&json["timers"], described::<TimersView>()),
            (&json["attempts"], described::<AttemptsView>()),
        ] {
            assert_eq!(keys(of), described);
        }
        let filter: TargetFilter =
            serde_json::from_str(r#"{"name":"a*","app":"x"}"#).expect("every field is known");
        let filter = serde_json::to_value(filter).expect("plain data");
        assert_eq!(keys(&filter), described::<TargetFilterView>());
    }
}
