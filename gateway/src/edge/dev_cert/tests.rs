use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

use rustls::{
    client::danger::ServerCertVerifier as _,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

use super::*;

fn read_all(made: &DevelopmentCertificate) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let read = |path: &Path| fs::read(path).expect("it is there");
    (read(&made.ca), read(&made.certificate), read(&made.key))
}

fn later(days: u32) -> SystemTime {
    SystemTime::now() + DAY * days
}

#[test]
fn is_made_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = ensure_for(dir.path(), later(0), Some("gate-1")).expect("made");
    let before = read_all(&made);
    for file in [
        &made.ca,
        &made.certificate,
        &made.key,
        &dir.path().join("ca.key"),
    ] {
        let mode = fs::metadata(file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let again = ensure_for(dir.path(), later(1), Some("gate-1")).expect("kept");
    assert_eq!(made, again);
    assert_eq!(before, read_all(&again));
}

#[test]
fn is_what_a_client_checks() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = ensure_for(dir.path(), later(0), Some("gate-1")).expect("made");
    let (ca, server, _) = read_all(&made);
    with_certificate(&server, |server| {
        assert!(has_names(server, &names(Some("gate-1"))));
        assert!(!server.is_ca());
        assert!(server.validity().is_valid());
        assert_eq!(end_of(server), made.not_after);
    })
    .expect("a certificate");
    with_certificate(&ca, |ca| assert!(ca.is_ca() && ca.validity().is_valid()))
        .expect("a certificate");

    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(&ca).expect("a CA");
    roots.add(ca).expect("a trust anchor");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("a verifier");
    let server = CertificateDer::from_pem_slice(&server).expect("a certificate");
    for name in ["localhost", "127.0.0.1", "::1", "gate-1"] {
        let name = ServerName::try_from(name).expect("a name");
        verifier
            .verify_server_cert(&server, &[], &name, &[], UnixTime::now())
            .expect("trusted");
    }
}

#[test]
fn is_renewed_before_its_end_and_the_authority_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = ensure_for(dir.path(), later(0), None).expect("made");
    let before = read_all(&made);
    let kept = ensure_for(dir.path(), later(366), None).expect("kept");
    assert_eq!(before, read_all(&kept));
    let renewed = ensure_for(dir.path(), later(368), None).expect("renewed");
    let after = read_all(&renewed);
    assert_eq!(before.0, after.0);
    assert_ne!(before.1, after.1);
    assert!(renewed.not_after > made.not_after);
}

#[test]
fn follows_the_name_of_the_machine() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = ensure_for(dir.path(), later(0), Some("gate-1")).expect("made");
    let before = read_all(&made);
    let renamed = ensure_for(dir.path(), later(0), Some("gate-2")).expect("renamed");
    let after = read_all(&renamed);
    assert_eq!(before.0, after.0);
    assert_ne!(before.1, after.1);
}

#[test]
fn what_does_not_fit_is_made_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = ensure_for(dir.path(), later(0), None).expect("made");
    let before = read_all(&made);
    fs::write(&made.key, "no key").expect("written");
    let again = ensure_for(dir.path(), later(0), None).expect("made again");
    assert_eq!(before.0, read_all(&again).0);
    assert_ne!(before.1, read_all(&again).1);

    fs::remove_file(dir.path().join("ca.key")).expect("removed");
    let kept = ensure_for(dir.path(), later(0), None).expect("kept");
    assert_eq!(before.0, read_all(&kept).0);
    fs::write(&made.ca, "no certificate").expect("written");
    let anew = ensure_for(dir.path(), later(0), None).expect("made anew");
    assert_ne!(before.0, read_all(&anew).0);
}
