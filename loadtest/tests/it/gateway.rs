//! The gateway: every form in which devices say who they are, and every way to it.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::harness::{gateway, gateway_with, swarm, until};

#[test]
fn devices_publish_in_every_form_and_by_every_way() {
    let (server, web) = gateway();
    let data = server.path();
    let web = format!("--ws --port {web}");
    for (options, version) in [
        ("--form native", "5"),
        ("--form certificate", "3.1.1"),
        ("--form huawei", "3.1.1"),
        ("--form tencent", "3.1.1"),
        (web.as_str(), "5"),
    ] {
        let run = swarm(&format!(
            "telemetry --data-dir {data} {options} --mqtt {version} -c 5 -I 100 --for 2s --listeners 2"
        ));
        run.ok();
        let sent = run.number("/messages/sent");
        assert!(sent >= 80, "{options}: {}", run.words);
        assert_eq!(run.number("/messages/received"), 2 * sent, "{}", run.words);
    }
}

#[test]
fn devices_take_a_resource_in_every_form() {
    let (server, web) = gateway();
    let data = server.path();
    let web = format!("--ws --port {web}");
    for options in [
        "--form certificate",
        "--form huawei",
        "--form tencent",
        &web,
    ] {
        swarm(&format!(
            "deliver --data-dir {data} {options} -c 3 --size 100KiB"
        ))
        .ok();
    }
}

#[test]
fn the_gateway_survives_chaos_and_loses_nothing() {
    let (server, _) = gateway();
    let data = server.path();
    let run = swarm(&format!(
        "chaos --data-dir {data} -c 20 -I 100 --for 10s --every 300ms --share 20% --seed 4 --processes 2"
    ));
    run.ok();
    let malformed = run.number("/chaos/malformed");
    assert!(malformed > 0, "{}", run.words);
    assert_eq!(run.number("/chaos/malformed_refused"), malformed);
    assert_eq!(run.number("/messages/lost"), 0);
}

/// A certificate of `ca` for the loopback, and its key, as PEM.
fn certificate(ca: &Issuer<'_, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, ca).expect("signed");
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn a_certificate_is_changed_under_load_and_no_connection_is_lost() {
    let files = tempfile::tempdir().expect("a directory");
    let path = |name: &str| files.path().join(name).display().to_string();
    let ca_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(
        path("ca.pem"),
        params.self_signed(&ca_key).expect("signed").pem(),
    )
    .expect("written");
    let ca = Issuer::new(params, ca_key);
    let change = || {
        let (certificate, key) = certificate(&ca);
        fs::write(path("key.pem"), key).expect("written");
        fs::write(path("certificate.pem"), certificate).expect("written");
    };
    change();
    let (server, _) = gateway_with(&[
        ("HEADGATE__TLS__CERTIFICATE", &path("certificate.pem")),
        ("HEADGATE__TLS__KEY", &path("key.pem")),
    ]);
    let reloads = || server.metric(r#"headgate_tls_reloads_total{result="changed"}"#);
    let before = reloads();
    let line = format!(
        "telemetry --data-dir {} --ca {} -c 100 -I 200 --for 6s --fail-if reconnects=0,failed=0,lost=0",
        server.path(),
        path("ca.pem")
    );
    let run = std::thread::spawn(move || swarm(&line));
    until("devices are there", || {
        (server.metric("headgate_packets_total") > 300.0).then_some(())
    });
    change();
    server.signal_reload();
    until("the new certificate is served", || {
        (reloads() > before).then_some(())
    });
    run.join().expect("no panic").ok();
    // Who comes now gets the new one, and trusts it.
    swarm(&format!(
        "connect --data-dir {} --ca {} -c 5 --hold 0s",
        server.path(),
        path("ca.pem")
    ))
    .ok();
}
