use super::*;

fn policy(json: &str) -> TaskPolicy {
    serde_json::from_str(json).expect(json)
}

fn at(text: &str) -> Millis {
    text.parse().expect(text)
}

#[test]
fn every_rule_survives_its_json() {
    let text = r#"{"max_in_progress":5,"bytes_per_sec":1048576,
        "pace":{"per_minute":50,"ramp":{"factor":1.5,"every_succeeded":100,"max_per_minute":1000}},
        "canary":{"percent":5,"success_percent":90},"abort":{"failed_percent":20,"min_finished":10},
        "start_at":"2026-12-01T20:00:00.000Z","window":{"from":"22:30","to":"05:00","utc_offset":"-03:30"},
        "timers":{"step_timeout_secs":90},"attempts":{"max":5,"backoff_secs":10}}"#;
    let read = policy(text);
    assert_eq!(read.validate(), Ok(()));
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(
        written,
        serde_json::from_str::<serde_json::Value>(text).unwrap()
    );
    assert_eq!(serde_json::to_string(&TaskPolicy::default()).unwrap(), "{}");
}

#[test]
fn a_broken_rule_is_named_by_its_path() {
    for (json, field) in [
        (r#"{"max_in_progress":0}"#, "policy.max_in_progress"),
        (r#"{"bytes_per_sec":10}"#, "policy.bytes_per_sec"),
        (r#"{"pace":{"per_minute":0}}"#, "policy.pace.per_minute"),
        (
            r#"{"pace":{"per_minute":9,"ramp":{"factor":1,"every_succeeded":1,"max_per_minute":9}}}"#,
            "policy.pace.ramp.factor",
        ),
        (
            r#"{"pace":{"per_minute":9,"ramp":{"factor":2,"every_succeeded":1,"max_per_minute":8}}}"#,
            "policy.pace.ramp.max_per_minute",
        ),
        (r#"{"canary":{}}"#, "policy.canary"),
        (r#"{"canary":{"devices":1,"percent":1}}"#, "policy.canary"),
        (r#"{"canary":{"percent":101}}"#, "policy.canary.percent"),
        (
            r#"{"canary":{"devices":1,"success_percent":0}}"#,
            "policy.canary.success_percent",
        ),
        (
            r#"{"abort":{"failed_percent":0,"min_finished":1}}"#,
            "policy.abort.failed_percent",
        ),
        (
            r#"{"window":{"from":"10:00","to":"10:00"}}"#,
            "policy.window.to",
        ),
        (
            r#"{"timers":{"step_timeout_secs":0}}"#,
            "policy.timers.step_timeout_secs",
        ),
        (r#"{"attempts":{"max":21}}"#, "policy.attempts.max"),
    ] {
        let error = policy(json).validate().expect_err(json);
        assert_eq!(error.field, field, "{json}");
    }
}

#[test]
fn an_unknown_rule_or_a_wrong_text_is_no_policy() {
    for json in [
        r#"{"paces":1}"#,
        r#"{"pace":{"per_minute":1,"burst":2}}"#,
        r#"{"window":{"from":"24:00","to":"01:00"}}"#,
        r#"{"window":{"from":"1:00","to":"02:00"}}"#,
        r#"{"window":{"from":"01:00","to":"02:60"}}"#,
        r#"{"window":{"from":"01:00","to":"02:00","utc_offset":"8"}}"#,
        r#"{"window":{"from":"01:00","to":"02:00","utc_offset":"+15:00"}}"#,
        r#"{"start_at":"tomorrow"}"#,
    ] {
        assert!(serde_json::from_str::<TaskPolicy>(json).is_err(), "{json}");
    }
}

#[test]
fn the_pace_grows_with_success_up_to_its_end() {
    let pace = policy(
        r#"{"pace":{"per_minute":50,"ramp":{"factor":2,"every_succeeded":100,"max_per_minute":300}}}"#,
    );
    let pace = pace.pace.unwrap();
    for (succeeded, expected) in [
        (0, 50.0),
        (99, 50.0),
        (100, 100.0),
        (250, 200.0),
        (300, 300.0),
        (u32::MAX, 300.0),
    ] {
        assert!(
            (pace.per_minute_after(succeeded) - expected).abs() < 1e-9,
            "{succeeded}"
        );
    }
    let steady = Pace {
        per_minute: 7,
        ramp: None,
    };
    assert!((steady.per_minute_after(1_000_000) - 7.0).abs() < 1e-9);
}

#[test]
fn a_canary_has_at_least_one_device_and_at_most_all() {
    let canary = |devices, percent, success_percent| Canary {
        devices,
        percent,
        success_percent,
    };
    for (canary, total, size, needed) in [
        (canary(Some(10), None, Some(90)), 1_000, 10, Some(9)),
        (canary(Some(10), None, None), 4, 4, None),
        (canary(None, Some(5), Some(100)), 1_000, 50, Some(50)),
        (canary(None, Some(1), Some(50)), 3, 1, Some(1)),
    ] {
        assert_eq!(
            (canary.size(total), canary.needed(total)),
            (size, needed),
            "{canary:?}"
        );
    }
}

#[test]
fn too_many_failures_need_a_minimum_of_ends() {
    let abort = Abort {
        failed_percent: 20,
        min_finished: 10,
    };
    assert!(!abort.is_reached(9, 9));
    assert!(!abort.is_reached(1, 10));
    assert!(abort.is_reached(2, 10));
    assert!(!abort.is_reached(19, 100) && abort.is_reached(20, 100));
}

#[test]
fn windows_follow_their_zone_and_cross_midnight() {
    let window = |from: &str, to: &str, offset: &str| DailyWindow {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        utc_offset: offset.parse().unwrap(),
    };
    for (window, time, open) in [
        (
            window("01:00", "03:00", "+00:00"),
            "2026-01-31T00:59:59.999Z",
            false,
        ),
        (
            window("01:00", "03:00", "+00:00"),
            "2026-01-31T01:00:00.000Z",
            true,
        ),
        (
            window("01:00", "03:00", "+00:00"),
            "2026-01-31T03:00:00.000Z",
            false,
        ),
        (
            window("22:00", "05:00", "+08:00"),
            "2026-01-31T14:00:00.000Z",
            true,
        ),
        (
            window("22:00", "05:00", "+08:00"),
            "2026-01-31T20:59:00.000Z",
            true,
        ),
        (
            window("22:00", "05:00", "+08:00"),
            "2026-01-31T21:00:00.000Z",
            false,
        ),
        (
            window("22:00", "05:00", "-03:30"),
            "2026-01-31T01:29:00.000Z",
            false,
        ),
        (
            window("22:00", "05:00", "-03:30"),
            "2026-01-31T01:30:00.000Z",
            true,
        ),
    ] {
        assert_eq!(window.is_open(at(time)), open, "{window:?} {time}");
    }
}

#[test]
fn the_wait_doubles_up_to_its_limit_and_devices_part() {
    let (first, most) = (Duration::from_secs(10), Duration::from_mins(1));
    for (failed, whole) in [(1, 10), (2, 20), (3, 40), (4, 60), (40, 60)] {
        for seed in 0..200 {
            let wait = backoff(first, most, failed, seed);
            let whole = Duration::from_secs(whole);
            assert!(
                wait >= whole * 3 / 4 && wait <= whole * 5 / 4,
                "{failed} {seed} {wait:?}"
            );
            assert_eq!(wait, backoff(first, most, failed, seed));
        }
    }
    let waits: std::collections::HashSet<_> =
        (0..100).map(|seed| backoff(first, most, 1, seed)).collect();
    assert!(
        waits.len() > 60,
        "devices that failed together come back together"
    );
}
