//! mosquitto: what has nothing to do with a gateway works with any broker.

use std::fs;

use super::harness::{mosquitto, swarm, swarm_with};

#[test]
fn devices_connect_to_any_broker_in_several_processes() {
    let (_server, port, _) = mosquitto();
    let run = swarm(&format!(
        "connect --any-broker --plain -h 127.0.0.1 -p {port} -c 40 --hold 0s --processes 3"
    ));
    run.ok();
    assert_eq!(run.number("/connect/connected"), 40);
    assert_eq!(run.number("/connect/ready/count"), 40);
}

#[test]
fn every_message_comes_to_every_listener_at_each_qos_and_version() {
    let (_server, port, web) = mosquitto();
    for (qos, version, port, ws) in [
        (0, "3.1.1", port, ""),
        (1, "5", port, ""),
        (2, "3.1.1", port, ""),
        (1, "3.1.1", web, "--ws"),
    ] {
        let run = swarm(&format!(
            "telemetry --any-broker --plain -h 127.0.0.1 -p {port} {ws} --mqtt {version} -q {qos} \
             -c 10 -I 50 --for 2s --listeners 2"
        ));
        run.ok();
        let sent = run.number("/messages/sent");
        assert!(sent >= 300, "{}", run.words);
        assert_eq!(run.number("/messages/received"), 2 * sent, "{}", run.words);
        assert_eq!(run.number("/messages/lost"), 0);
        assert_eq!(run.number("/messages/end_to_end/count"), 2 * sent);
    }
}

#[test]
fn a_broker_survives_chaos_and_loses_nothing() {
    let (server, port, _) = mosquitto();
    let run = swarm(&format!(
        "chaos --any-broker --plain -h 127.0.0.1 -p {port} -c 20 -I 100 --for 10s --every 300ms --share 20% \
         --processes 2 --seed 4 --server-pid {}",
        server.pid()
    ));
    run.ok();
    for kind in ["flaps", "storms", "half_open", "slow_readers", "malformed"] {
        assert!(
            run.number(&format!("/chaos/{kind}")) > 0,
            "{kind}: {}",
            run.words
        );
    }
    let malformed = run.number("/chaos/malformed");
    assert_eq!(run.number("/chaos/malformed_refused"), malformed);
    assert!(run.number("/messages/reconnect/count") > 0);
}

#[test]
fn memory_is_watched_and_links_flap_in_a_soak() {
    let (server, port, _) = mosquitto();
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (csv, html, json) = (file("run.csv"), file("run.html"), file("run.json"));
    let run = swarm(&format!(
        "soak --any-broker --plain -h 127.0.0.1 -p {port} -c 10 -I 200 --for 24s --settle 0% --max-growth 50% \
         --flap 50% --flap-every 2s --server-pid {} --csv {csv} --html {html} --json {json} \
         --fail-if p99<30s,failed=0,lost=0,rss_growth<50%",
        server.pid()
    ));
    run.ok();
    assert!(run.number("/connect/planned_drops") > 10);
    assert_eq!(run.report["soak"]["flat"], true);
    let lines = fs::read_to_string(csv).expect("written").lines().count();
    assert!((20..40).contains(&lines), "{lines}");
    let page = fs::read_to_string(html).expect("written");
    assert!(page.matches("<svg").count() >= 5 && !page.contains("<script"));
    let written = fs::read_to_string(json).expect("written");
    assert_eq!(
        written.parse::<serde_json::Value>().expect("JSON"),
        run.report
    );
}

#[test]
fn what_does_not_hold_has_an_exit_code_of_its_own() {
    let (_server, port, _) = mosquitto();
    let line = format!(
        "telemetry --any-broker --plain -h 127.0.0.1 -p {port} -c 2 -I 100 --for 1s --fail-if p99<1us,failed=0"
    );
    let run = swarm(&line);
    assert_eq!(run.code, Some(3));
    assert!(
        run.words.contains("does not hold  p99<1us: was "),
        "{}",
        run.words
    );
    assert_eq!(run.report["broken"].as_array().map(Vec::len), Some(1));
    let output = swarm_with(line.replace("p99<1us", "p98<1us").split(' '));
    assert_eq!(output.status.code(), Some(64));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("`p98` is no figure"), "{words}");
}
