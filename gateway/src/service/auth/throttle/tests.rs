//! The throttle with a clock of the test's own.

use prometheus::IntGauge;

use super::*;

fn throttle() -> Throttle {
    Throttle::new(&AuthConfig::default(), &Metrics::new())
}

fn device(name: &str) -> Claim<'_> {
    Claim::read("c", Some(name), None)
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Fails until something has to be waited for; gives how often that was.
fn fail_until_it_waits(throttle: &Throttle, name: &str, from: IpAddr, now: Instant) -> u32 {
    let mut failures = 0;
    while throttle.admits_login(&device(name), from, now) {
        throttle.failed(&device(name), from, now);
        failures += 1;
    }
    failures
}

#[test]
fn a_name_that_fails_again_and_again_waits_ever_longer() {
    let (throttle, from, mut now) = (throttle(), address("192.0.2.1"), Instant::now());
    assert_eq!(fail_until_it_waits(&throttle, "d1", from, now), 6);
    for delay in [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60, 60] {
        let almost = now + secs(delay - 1) + Duration::from_millis(999);
        assert!(!throttle.admits_login(&device("d1"), from, almost));
        now += secs(delay);
        assert_eq!(
            fail_until_it_waits(&throttle, "d1", from, now),
            1,
            "{delay}"
        );
    }
    // Only this name waits, and only in this network.
    assert!(throttle.admits_login(&device("d2"), from, now));
    assert!(throttle.admits_login(&device("d1"), address("192.0.3.1"), now));
    assert!(throttle.admits_login(&Claim::read("app:d1", Some("d1"), None), from, now));
    assert!(!throttle.admits_login(&device("d1"), address("192.0.2.200"), now));
    assert!(!throttle.admits_login(&device("d1"), address("::ffff:192.0.2.9"), now));
    assert!(throttle.admits_connection(from, now));
    // After a quiet time all is as before.
    now += Duration::from_mins(30);
    assert_eq!(fail_until_it_waits(&throttle, "d1", from, now), 6);
}

#[test]
fn a_login_that_succeeds_takes_its_failures_with_it() {
    let (throttle, from, now) = (throttle(), address("2001:db8::1"), Instant::now());
    for _ in 0..3 {
        for _ in 0..5 {
            throttle.failed(&device("d1"), from, now);
        }
        assert!(throttle.admits_login(&device("d1"), from, now));
        throttle.succeeded(&device("d1"), from, now);
    }
    assert_eq!(fail_until_it_waits(&throttle, "d1", from, now), 6);
}

#[test]
fn ten_thousand_devices_behind_one_address_come_in_among_a_thousand_that_may_not() {
    let (throttle, from, start) = (throttle(), address("192.0.2.1"), Instant::now());
    let bad: Vec<String> = (0..1_000).map(|index| format!("bad{index}")).collect();
    let good: Vec<String> = (0..10_000).map(|index| format!("good{index}")).collect();
    let mut looked_at = 0;
    for second in 0..1_200 {
        let now = start + secs(second);
        for name in &bad {
            if throttle.admits_login(&device(name), from, now) {
                throttle.failed(&device(name), from, now);
                looked_at += 1;
            }
        }
        // All at first, and again and again: after a power cut, or a walk through tunnels.
        if second % 600 == 0 {
            for name in &good {
                assert!(throttle.admits_connection(from, now), "{second} s");
                assert!(
                    throttle.admits_login(&device(name), from, now),
                    "{second} s"
                );
                throttle.succeeded(&device(name), from, now);
            }
        }
    }
    assert!(looked_at < 40_000, "{looked_at} of 1,200,000");
}

#[test]
fn a_network_of_strangers_is_refused_before_tls_and_one_with_known_names_after_it() {
    let (throttle, now) = (throttle(), Instant::now());
    for (from, home) in [("198.51.100.7", false), ("2001:db8:0:100::7", true)] {
        let from = address(from);
        if home {
            throttle.succeeded(&device("known"), from, now);
        }
        for index in 0..20_001 {
            assert!(throttle.admits_connection(from, now));
            throttle.failed(&device(&format!("guess{index}")), from, now);
        }
        assert_eq!(throttle.admits_connection(from, now), home);
        assert_eq!(throttle.admits_login(&device("known"), from, now), home);
        assert!(!throttle.admits_login(&device("stranger"), from, now));
        assert!(throttle.admits_login(&device("stranger"), from, now + secs(1)));
        assert!(throttle.admits_connection(from, now + secs(1)));
    }
    // A neighbour of the first is in its network, one of the second's provider is not.
    assert!(!throttle.admits_connection(address("198.51.100.200"), now));
    assert!(throttle.admits_connection(address("198.51.101.7"), now));
    assert!(!throttle.admits_login(&device("x"), address("2001:db8:0:1ff::1"), now));
    assert!(throttle.admits_login(&device("x"), address("2001:db8:0:200::1"), now));
}

#[test]
fn nobody_is_known_for_ever() {
    let (throttle, from, start) = (throttle(), address("192.0.2.1"), Instant::now());
    throttle.succeeded(&device("d1"), from, start);
    let mut now = start + Duration::from_hours(23);
    for (hours, is_known) in [(0, true), (2, false)] {
        now += Duration::from_hours(hours);
        for index in 0..20_001 {
            throttle.failed(&device(&format!("guess{index}")), from, now);
        }
        assert_eq!(throttle.admits_login(&device("d1"), from, now), is_known);
        assert_eq!(throttle.admits_connection(from, now), is_known);
    }
}

#[test]
fn tables_stay_within_their_bound_and_are_swept() {
    let config = AuthConfig {
        throttle_entries: 1_000,
        ..AuthConfig::default()
    };
    let metrics = Metrics::new();
    let (throttle, now) = (Throttle::new(&config, &metrics), Instant::now());
    for index in 0..50_000_u32 {
        let from = IpAddr::from(Ipv4Addr::from_bits(index << 8));
        let name = format!("d{index}");
        throttle.failed(&device(&name), from, now);
        throttle.succeeded(&device(&format!("k{index}")), from, now);
    }
    let gauges = &metrics.auth_throttle;
    let sizes = || {
        [
            &gauges.failed_names,
            &gauges.failed_networks,
            &gauges.known_names,
            &gauges.known_networks,
        ]
        .map(IntGauge::get)
    };
    throttle.sweep(now);
    assert!(
        sizes().iter().all(|size| (900..=1_016).contains(size)),
        "{:?}",
        sizes()
    );
    throttle.sweep(now + Duration::from_mins(20));
    assert_eq!(sizes()[..2], [0, 0]);
    throttle.sweep(now + Duration::from_hours(25));
    assert_eq!(sizes(), [0; 4]);
}
