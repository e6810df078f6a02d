//! Devices against a fake gateway over real sockets.

use std::time::Duration;

use clap::Parser;
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cli::{Cli, Command};
use crate::device::identity::Odds;
use crate::device::transfer::Plan;
use crate::device::work::Job;
use crate::fake::{Fake, Fault};
use crate::report::Report;
use crate::swarm::{self, Limits, Waited};
use crate::target::Target;
use crate::verify::Expected;
use sha2::{Digest, Sha256};

/// Runs `swarm deliver {line}` against a fake with `fault`.
async fn deliver(line: &str, size: usize, fault: Fault) -> (Report, Fake, Arc<Swarm>) {
    deliver_over(line, size, fault, None).await
}

/// The same, over TLS where there are two sides of it.
async fn deliver_over(
    line: &str,
    size: usize,
    fault: Fault,
    tls: Option<(TlsAcceptor, TlsConnector)>,
) -> (Report, Fake, Arc<Swarm>) {
    let (acceptor, connector) = tls.unzip();
    let defaults = "swarm deliver --attempts 3";
    let sizes = if line.contains("--chunk") {
        ""
    } else {
        "--chunk 1024 --window 4"
    };
    let line = format!("{defaults} {sizes} {line}");
    let cli = Cli::parse_from(line.split_ascii_whitespace());
    let Command::Deliver(args) = &cli.command else {
        panic!("deliver")
    };
    let bytes: Vec<u8> = (0..=250_u8).cycle().take(size).collect();
    let expected = Expected {
        size: size as u64,
        sha256: Sha256::digest(&bytes).into(),
        crc32: crc32fast::hash(&bytes),
    };
    let fake = Fake::start(bytes, fault, acceptor).await;
    let plan = Plan {
        version: swarm::version(args.common.mqtt),
        product: args.common.product.clone(),
        resource_name: Some("res".into()),
        expected: Arc::new(expected),
        verify: args.verify,
        mode: args.mode,
        window: args.window,
        chunk: args.chunk,
        rtt: args.rtt,
    };
    let mut target = Target::plain(fake.address);
    target.tls = connector.map(|connector| (connector, "localhost".to_owned()));
    let swarm = Arc::new(
        Swarm::new(
            &args.common,
            &target,
            Some(Job::Take(Arc::new(plan))),
            false,
        )
        .unwrap(),
    );
    let total = args.common.devices;
    let identities = (0..total).map(|i| Identity::new("swarm", 1, i)).collect();
    let odds = Odds {
        seed: 1,
        slow_fraction: args.slow_fraction,
        slow_bps: args.slow_bps,
        drop_rate: args.drop_rate,
        size: size as u64,
    };
    let mut tasks = swarm.spawn(identities, Some(odds), None);
    let deadline = Instant::now() + Duration::from_secs(20);
    let limits = Limits {
        deadline,
        interrupt: CancellationToken::new(),
    };
    let waited = limits
        .wait(|| swarm.stats.ended() >= u64::from(total), || {})
        .await;
    assert_eq!(waited, Waited::Reached);
    swarm.stop.cancel();
    while tasks.join_next().await.is_some() {}
    (
        Report::new("deliver", total, &swarm.stats, 1.0),
        fake,
        swarm,
    )
}

#[tokio::test]
async fn every_device_gets_every_byte() {
    let (report, fake, swarm) = deliver("-c 20", 50_001, Fault::None).await;
    assert!(report.ok, "{report}");
    assert_eq!(swarm.stats.bytes.get(), 20 * 50_001);
    assert_eq!(swarm.stats.duplicate_bytes.get(), 0);
    assert_eq!(swarm.stats.chunks.get(), 20 * 49);
    assert_eq!((fake.seen().logins.len(), fake.seen().done), (20, 20));
    // The fake reads the last packets on its own time.
    while fake.seen().goodbyes < 20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(swarm.stats.connected.get(), 0);
}

#[tokio::test]
async fn count_mode_and_crc32_do_the_same() {
    let (report, ..) = deliver("-c 5 --mode count --verify crc32", 50_001, Fault::None).await;
    assert!(report.ok, "{report}");
}

#[tokio::test]
async fn late_acknowledgements_bound_the_speed() {
    let start = Instant::now();
    let (report, ..) = deliver("-c 3 --rtt 50ms", 16 * 1024, Fault::None).await;
    assert!(report.ok, "{report}");
    // Four windows of four chunks; the last one's acknowledgements need not be waited for.
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn one_wrong_byte_makes_the_device_wrong() {
    let (report, ..) = deliver("-c 2", 10_000, Fault::WrongByte).await;
    assert_eq!(
        (report.ok, report.devices.wrong, report.devices.ok),
        (false, 2, 0)
    );
    assert_eq!(report.errors["wrong_bytes"].count, 2);
}

#[tokio::test]
async fn a_missing_chunk_makes_the_device_wrong() {
    let (report, ..) = deliver("-c 2", 10_000, Fault::MissingChunk).await;
    assert_eq!((report.ok, report.devices.wrong), (false, 2));
}

#[tokio::test]
async fn a_refused_login_is_final() {
    let (report, fake, _) = deliver("-c 2", 10_000, Fault::RefuseLogin).await;
    assert_eq!((report.ok, report.devices.failed), (false, 2));
    assert_eq!(report.errors["login_refused"].count, 2);
    assert!(fake.seen().logins.values().all(|&logins| logins == 1));
}

#[tokio::test]
async fn a_refused_done_is_a_failure() {
    let (report, ..) = deliver("-c 1", 10_000, Fault::RefuseDone).await;
    assert_eq!(report.errors["report_refused"].count, 1);
    assert!(!report.ok);
}

#[tokio::test]
async fn a_closed_connection_is_resumed() {
    let (report, fake, swarm) = deliver("-c 1", 50_000, Fault::CloseAfter(10)).await;
    assert!(report.ok, "{report}");
    assert_eq!(report.connect.reconnects, 1);
    let offsets = fake.seen().offsets;
    assert!(offsets.len() >= 2 && offsets[1] > 0, "{offsets:?}");
    assert_eq!(swarm.stats.bytes.get(), 50_000);
}

#[tokio::test]
async fn dropped_links_resume() {
    let (report, fake, swarm) = deliver("-c 4 --drop-rate 1", 50_000, Fault::None).await;
    assert!(report.ok, "{report}");
    assert_eq!(report.connect.planned_drops, 4);
    assert_eq!(swarm.stats.bytes.get(), 200_000);
    assert!(fake.seen().logins.values().all(|&logins| logins == 2));
}

#[tokio::test]
async fn slow_devices_do_not_hold_up_the_others() {
    let line = "-c 10 --slow-fraction 0.3 --slow-bps 20KiB";
    let (report, _, swarm) = deliver(line, 30_000, Fault::None).await;
    assert!(report.ok, "{report}");
    let (fast, slow) = swarm.stats.with_times(|times| {
        (
            times.of(Timing::Duration).max(),
            times.of(Timing::SlowDuration).min(),
        )
    });
    assert!(fast < slow, "{fast} {slow}");
}

/// A server's side and a client that trusts it, or trusts nobody.
fn tls_pair(trusted: bool) -> (TlsAcceptor, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots
        .add(if trusted {
            certificate.clone()
        } else {
            other.cert.der().clone()
        })
        .unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (
        TlsAcceptor::from(Arc::new(server)),
        crate::tls::connector_with(roots).unwrap(),
    )
}

#[tokio::test]
async fn over_tls_every_device_gets_every_byte() {
    for line in [
        "-c 20 --chunk 15360 --window 8",
        "-c 20 --drop-rate 0.5",
        "-c 3 --rtt 30ms",
    ] {
        let pair = Some(tls_pair(true));
        let (report, ..) = deliver_over(line, 300_001, Fault::None, pair).await;
        assert!(report.ok, "{line}: {report}");
    }
}

#[tokio::test]
async fn an_untrusted_certificate_is_told() {
    let pair = Some(tls_pair(false));
    let (report, ..) = deliver_over("-c 1", 1_000, Fault::None, pair).await;
    assert_eq!((report.ok, report.devices.failed), (false, 1));
    assert!(
        report.errors["tls"].first.contains("certificate"),
        "{report}"
    );
}
