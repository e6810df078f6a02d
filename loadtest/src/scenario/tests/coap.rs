//! Whole runs of devices by CoAP against the fake.

use super::*;
use crate::device::identity::secret;
use crate::fake::coap::{FakeCoap, Fault, Keys};

/// The key of the device that has this identity; nobody else has one.
fn key(identity: &[u8]) -> Option<Vec<u8>> {
    let device = std::str::from_utf8(identity).ok()?;
    let is_one = device.starts_with("swarm-coaps_s1-");
    is_one.then(|| hex::decode(secret(1, device)).unwrap())
}

async fn run(fault: Fault, line: &str) -> (Result<Report, RunError>, FakeCoap) {
    let content = Content::generated(1, 30_000).unwrap();
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut content.reader(), &mut bytes).unwrap();
    let api = FakeApi::start().await;
    let keys = line.contains("--proto coaps").then_some(key as Keys);
    let fake = FakeCoap::start(content.resource_name(), bytes, fault, keys).await;
    let proto = if line.contains("--proto") {
        ""
    } else {
        "--proto coap"
    };
    let patience = if line.contains("--ack-timeout") {
        ""
    } else {
        "--ack-timeout 100ms"
    };
    let line = format!(
        "swarm {line} {patience} {proto} --host 127.0.0.1 --port {} --http-url http://{} --token token",
        fake.address.port(),
        api.address
    );
    let cli = Cli::parse_from(line.split_ascii_whitespace());
    let report = crate::scenario::run(&cli.command, CancellationToken::new()).await;
    (report, fake)
}

#[tokio::test]
async fn devices_by_coap_take_a_resource_over_a_bad_network() {
    let line = "deliver -c 5 --size 30000 --loss 0.1 --duplicate 0.1 --reorder 0.1 --rebind 8 --drop-rate 1";
    let (report, fake) = run(Fault::None, line).await;
    let report = report.unwrap();
    assert!(report.ok, "{report}");
    let delivery = report.delivery.as_ref().unwrap();
    assert_eq!(delivery.bytes, 150_000);
    assert_eq!(report.connect.planned_drops, 5);
    let datagrams = report.datagrams.as_ref().unwrap();
    assert!(
        datagrams.lost > 20 && datagrams.rebinds > 10,
        "{datagrams:?}"
    );
    assert!(
        datagrams.duplicated > 20 && datagrams.reordered > 20,
        "{datagrams:?}"
    );
    assert!(datagrams.retransmissions > 10, "{datagrams:?}");
    fake.with_seen(|seen| {
        // More where an answer was lost and the repetition came from another port.
        assert!(seen.registered >= 10 && seen.done >= 5, "{seen:?}");
        assert!(seen.echoes > 5, "{seen:?}");
    });
}

#[tokio::test]
async fn every_lost_datagram_is_made_good_by_one() {
    // Long enough that no answer is late for want of a processor.
    let line = "deliver -c 8 --size 30000 --loss 0.05 --ack-timeout 1s";
    let report = run(Fault::None, line).await.0.unwrap();
    assert!(report.ok, "{report}");
    let datagrams = report.datagrams.unwrap();
    assert!(datagrams.retransmissions > 0);
    assert!(datagrams.retransmissions <= datagrams.lost, "{datagrams:?}");
    assert_eq!(datagrams.timeouts, 0);
}

#[tokio::test]
async fn a_wrong_byte_by_coap_fails_the_run() {
    let report = run(Fault::WrongByte, "deliver -c 2 --size 30000")
        .await
        .0
        .unwrap();
    assert_eq!((report.ok, report.devices.wrong), (false, 2), "{report}");
    assert_eq!(report.errors["wrong_bytes"].count, 2);
}

#[tokio::test]
async fn a_registration_that_is_gone_is_made_anew_and_a_busy_gateway_asked_again() {
    let (report, fake) = run(Fault::Forget(20), "deliver -c 2 --size 30000").await;
    let report = report.unwrap();
    assert!(report.ok, "{report}");
    assert_eq!(report.delivery.as_ref().unwrap().duplicate_bytes, 0);
    assert_eq!(report.errors["unregistered"].count, 2);
    assert_eq!(fake.with_seen(|seen| seen.registered), 4);
    let report = run(Fault::Busy, "deliver -c 2 --size 30000")
        .await
        .0
        .unwrap();
    assert!(report.ok, "{report}");
    assert!(report.delivery.unwrap().stalls > 10);
}

#[tokio::test]
async fn devices_that_are_not_let_in_are_told_apart() {
    let report = run(Fault::Refuse, "connect -c 2 --hold 0s")
        .await
        .0
        .unwrap();
    assert_eq!((report.ok, report.devices.failed), (false, 2), "{report}");
    assert_eq!(report.errors["registration_refused"].count, 2);
}

#[tokio::test]
async fn sleeping_devices_hear_nothing_and_go_on() {
    let line = "deliver -c 3 --size 30000 --block 512 --sleep 30ms --awake 5ms --slow-fraction 1 --slow-bps 300KiB";
    let (report, fake) = run(Fault::None, line).await;
    let report = report.unwrap();
    assert!(report.ok, "{report}");
    // About 100 ms of reading in turns of 5 ms, and a rest after each.
    assert!(report.delivery.unwrap().seconds > 0.3);
    assert_eq!(fake.with_seen(|seen| seen.done), 3);
}

#[tokio::test]
async fn devices_by_coap_send_files_and_go_on_where_they_were() {
    let line = "upload -c 3 --size 20001 --loss 0.05 --rebind 9 --drop-rate 1 --verify-sample 0";
    let (report, fake) = run(Fault::None, line).await;
    let report = report.unwrap();
    assert!(report.ok, "{report}");
    let uploads = report.uploads.as_ref().unwrap();
    assert_eq!(uploads.bytes, 60_003);
    assert_eq!(report.connect.planned_drops, 3);
    fake.with_seen(|seen| {
        assert!(seen.files.len() >= 3 && seen.registered >= 6, "{seen:?}");
        assert!(seen.files.iter().all(|file| file.len() == 20_001));
    });
}

#[tokio::test]
async fn devices_by_coap_stay_and_leave() {
    let (report, fake) = run(Fault::None, "connect -c 4 --hold 50ms").await;
    let report = report.unwrap();
    assert!(report.ok, "{report}");
    assert_eq!((report.connect.connected, report.devices.ok), (4, 4));
    let left = timeout(Duration::from_secs(5), async {
        while fake.with_seen(|seen| seen.left) < 4 {
            tokio::task::yield_now().await;
        }
    });
    assert!(left.await.is_ok());
}

#[tokio::test]
async fn devices_that_stayed_ask_once_and_are_answered() {
    for proto in ["coap", "coaps"] {
        let line = format!("connect --proto {proto} -c 3 --hold 50ms --ask");
        let report = run(Fault::None, &line).await.0.unwrap();
        assert_eq!((report.ok, report.answered), (true, Some(3)), "{report}");
    }
}

#[tokio::test]
async fn sessions_of_dtls_outlive_other_source_ports_and_losses() {
    let line = "deliver --proto coaps -c 4 --size 30000 --loss 0.05 --reorder 0.05 --rebind 7";
    let (report, fake) = run(Fault::None, line).await;
    let report = report.unwrap();
    assert!(report.ok, "{report}");
    assert_eq!(report.delivery.as_ref().unwrap().bytes, 120_000);
    let datagrams = report.datagrams.as_ref().unwrap();
    assert!(
        datagrams.rebinds >= 12 && datagrams.lost > 0,
        "{datagrams:?}"
    );
    assert_eq!(report.connect.reconnects, 0, "{report}");
    assert_eq!(report.connect.tls.as_ref().unwrap().count, 4);
    fake.with_seen(|seen| {
        assert_eq!((seen.sessions, seen.registered, seen.done), (4, 4, 4));
        assert_eq!(seen.echoes, 0, "a session is known wherever it is");
    });
}

#[tokio::test]
async fn a_key_that_the_gateway_does_not_have_is_an_error_of_its_own() {
    let line = "connect --proto coaps -c 1 --seed 2 --hold 0s --attempts 1";
    let report = run(Fault::None, line).await.0.unwrap();
    assert_eq!((report.ok, report.devices.failed), (false, 1), "{report}");
    assert_eq!(report.errors["dtls"].count, 1);
}

#[tokio::test]
async fn devices_that_only_shake_hands_by_dtls_never_register() {
    let line = "connect --proto coaps -c 3 --hold 0s --handshake-only";
    let (report, fake) = run(Fault::None, line).await;
    let report = report.unwrap();
    assert!(report.ok, "{report}");
    fake.with_seen(|seen| assert_eq!((seen.sessions, seen.registered), (3, 0)));
}
