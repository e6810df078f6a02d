//! Certificates that `openssl` made: a good one on P-256, and a version 1 one of RSA 1024 signed with SHA-1.

use super::*;

const GOOD: &[u8] = include_bytes!("ec.pem");
const WEAK: &[u8] = include_bytes!("weak.pem");

/// A day on which both are valid.
fn now() -> Millis {
    "2026-12-01T00:00:00Z".parse().unwrap()
}

fn der(pem: &[u8]) -> Vec<u8> {
    read_pem(pem).unwrap().remove(0)
}

#[test]
fn what_a_certificate_says_is_shown() {
    let info = inspect(GOOD, now()).unwrap();
    assert_eq!(info.fingerprint.to_string(), GOOD_FINGERPRINT);
    assert_eq!(info.subject, "O=Example, CN=meter-1");
    assert_eq!(info.issuer, info.subject);
    assert_eq!(info.key.to_string(), "EC P-256");
    assert!(info.not_before < now() && now() < info.not_after);
    assert_eq!(info.warnings, []);
    assert_eq!(inspect(&der(GOOD), now()), Ok(info));
}

#[test]
fn only_the_first_certificate_of_a_chain_counts() {
    let mut chain = b"subject=/CN=meter-1\n".to_vec();
    chain.extend_from_slice(GOOD);
    chain.extend_from_slice(WEAK);
    let info = inspect(&chain, now()).unwrap();
    assert_eq!(info.fingerprint.to_string(), GOOD_FINGERPRINT);
    assert_eq!(read_pem(&chain).unwrap().len(), 2);
}

#[test]
fn what_is_weak_is_warned_about() {
    let info = inspect(WEAK, now()).unwrap();
    let key = KeyKind::Rsa { bits: 1_024 };
    assert_eq!(
        info.warnings,
        [
            CertificateWarning::WeakSignature { algorithm: "SHA-1" },
            CertificateWarning::UnusableKey { key },
        ]
    );
    assert!(info.warnings[1].to_string().contains("RSA 1024"));
}

#[test]
fn dates_are_warned_about() {
    let info = inspect(GOOD, now()).unwrap();
    let at = |time| inspect(GOOD, time).unwrap().warnings;
    let (begin, end) = (info.not_before, info.not_after);
    let second = |time: Millis, seconds: i64| Millis::from_i64(time.as_i64() + seconds * 1_000);
    assert_eq!(at(begin), []);
    assert_eq!(
        at(second(begin, -1)),
        [CertificateWarning::NotYetValid { until: begin }]
    );
    assert_eq!(
        at(second(end, 1)),
        [CertificateWarning::Expired { since: end }]
    );
    assert_eq!(at(end), [CertificateWarning::EndsSoon { at: end }]);
    assert_eq!(at(second(end, -31 * 24 * 60 * 60)), []);
}

#[test]
fn what_is_no_certificate_is_refused_by_what_it_is() {
    let pem = String::from_utf8(GOOD.to_vec()).unwrap();
    let key = pem.replace("CERTIFICATE", "EC PRIVATE KEY");
    let request = pem.replace("CERTIFICATE", "CERTIFICATE REQUEST");
    let mut longer = der(GOOD);
    longer.push(0);
    let cut = der(GOOD)[..100].to_vec();
    for (bytes, expected) in [
        (key.as_bytes(), CertificateError::PrivateKey),
        (request.as_bytes(), CertificateError::NoCertificate),
        (&longer, CertificateError::Malformed),
        (&cut, CertificateError::Malformed),
        (b"", CertificateError::Malformed),
        (b"hello", CertificateError::Malformed),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA",
            CertificateError::Malformed,
        ),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            CertificateError::Malformed,
        ),
        (&vec![0x30; MAX_BYTES + 1], CertificateError::TooLarge),
    ] {
        assert_eq!(inspect(bytes, now()), Err(expected));
    }
    let mut with_key = GOOD.to_vec();
    with_key.extend_from_slice(key.as_bytes());
    assert_eq!(inspect(&with_key, now()), Err(CertificateError::PrivateKey));
}

#[test]
fn a_presented_chain_is_known_by_its_first() {
    let peer = PeerCertificate::new(&der(GOOD), [der(WEAK).into_boxed_slice()]);
    assert_eq!(peer.fingerprint().to_string(), GOOD_FINGERPRINT);
    assert_eq!(peer.own(), der(GOOD));
    assert_eq!(peer.others().collect::<Vec<_>>(), [der(WEAK)]);
    assert_eq!(
        peer.describe(now()).unwrap().subject,
        "O=Example, CN=meter-1"
    );
}

/// As `openssl x509 -outform der | sha256sum` gave it.
const GOOD_FINGERPRINT: &str = "d31d066619488f2b6af5c71e540d230947f3f007b86297f6e9756be021772daa";
