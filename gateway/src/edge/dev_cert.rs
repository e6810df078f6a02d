//! The development certificate: a CA of this data directory and a server certificate signed by it.
//!
//! Used when no certificate is configured. Made at the first start under `tls/`; the server's is
//! renewed at a start within 30 days of its end, or when this machine's name has changed; the CA is
//! kept, so that devices which trust `ca.pem` go on. Invariants: keys are 0600 and never logged; a
//! certificate that is handed out fits its key and its CA.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, extensions::ParsedExtension,
    pem::parse_x509_pem,
};

use crate::config::data_dir::{DataDirError, write_private};

const DAY: Duration = Duration::from_hours(24);
const CA_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// Some TLS clients refuse a server certificate that is valid for longer.
const SERVER_LIFETIME: Duration = Duration::from_hours(397 * 24);
const RENEW_BEFORE: Duration = Duration::from_hours(30 * 24);

/// Where the development certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevelopmentCertificate {
    /// PEM file of the CA: what devices are to trust.
    pub ca: PathBuf,
    /// PEM file of the server's chain.
    pub certificate: PathBuf,
    /// PEM file of the server's private key.
    pub key: PathBuf,
    /// When the server's certificate ends.
    pub not_after: SystemTime,
}

/// Why there is no development certificate.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentCertificateError {
    /// A certificate cannot be made.
    #[error("development certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] DataDirError),
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

type Result<T> = std::result::Result<T, DevelopmentCertificateError>;

/// Gives the development certificate in `directory`, made or renewed where that is due at `now`.
///
/// # Errors
/// When files cannot be read or written, or the system gives no randomness.
pub fn ensure(directory: &Path, now: SystemTime) -> Result<DevelopmentCertificate> {
    ensure_for(directory, now, host_name().as_deref())
}

fn ensure_for(
    directory: &Path,
    now: SystemTime,
    host: Option<&str>,
) -> Result<DevelopmentCertificate> {
    let files = Files::in_directory(directory);
    let names = names(host);
    if let Some(not_after) = files.usable_until(now, &names)? {
        return Ok(files.certificate(not_after));
    }
    let authority = match files.authority(now)? {
        Some(authority) => authority,
        None => files.make_authority(now)?,
    };
    let not_after = files.make_server(now, &names, &authority)?;
    Ok(files.certificate(not_after))
}

struct Files {
    ca: PathBuf,
    ca_key: PathBuf,
    server: PathBuf,
    server_key: PathBuf,
}

impl Files {
    fn in_directory(directory: &Path) -> Self {
        Self {
            ca: directory.join("ca.pem"),
            ca_key: directory.join("ca.key"),
            server: directory.join("server.pem"),
            server_key: directory.join("server.key"),
        }
    }

    fn certificate(self, not_after: SystemTime) -> DevelopmentCertificate {
        DevelopmentCertificate {
            ca: self.ca,
            certificate: self.server,
            key: self.server_key,
            not_after,
        }
    }

    /// The end of the server's certificate when it can go on being used.
    fn usable_until(&self, now: SystemTime, names: &[SanType]) -> Result<Option<SystemTime>> {
        let (Some(ca), Some(server), Some(key)) = (
            read(&self.ca)?,
            read(&self.server)?,
            read(&self.server_key)?,
        ) else {
            return Ok(None);
        };
        let fits = with_certificate(&ca, |ca| key_id_of(ca).map(<[u8]>::to_vec)).flatten();
        let Ok(key) = KeyPair::from_pem(&String::from_utf8_lossy(&key)) else {
            return Ok(None);
        };
        let end = with_certificate(&server, |server| {
            let fresh = end_of(server) > now + RENEW_BEFORE;
            let signed = fits.is_some() && issuer_key_id_of(server) == fits.as_deref();
            let own = server.public_key().subject_public_key.data.as_ref() == key.public_key_raw();
            (fresh && signed && own && has_names(server, names)).then(|| end_of(server))
        });
        Ok(end.flatten())
    }

    /// The CA that is there, when it is whole and lasts longer than a certificate it would sign.
    fn authority(&self, now: SystemTime) -> Result<Option<Issuer<'static, KeyPair>>> {
        let (Some(ca), Some(key)) = (read(&self.ca)?, read(&self.ca_key)?) else {
            return Ok(None);
        };
        let Ok(key) = KeyPair::from_pem(&String::from_utf8_lossy(&key)) else {
            return Ok(None);
        };
        let name = with_certificate(&ca, |ca| {
            let own = ca.public_key().subject_public_key.data.as_ref() == key.public_key_raw();
            let lasts = end_of(ca) > now + SERVER_LIFETIME;
            let name = ca.subject().iter_common_name().next()?.as_str().ok()?;
            (own && lasts).then(|| name.to_owned())
        });
        Ok(name
            .flatten()
            .map(|name| Issuer::new(authority_params(&name, now), key)))
    }

    fn make_authority(&self, now: SystemTime) -> Result<Issuer<'static, KeyPair>> {
        let key = KeyPair::generate()?;
        // Two data directories on one machine have two CAs: the name tells them apart.
        let mark: String = key
            .public_key_raw()
            .iter()
            .rev()
            .take(4)
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let params = authority_params(&format!("Headgate development CA {mark}"), now);
        let certificate = params.self_signed(&key)?;
        write_private(&self.ca_key, key.serialize_pem().as_bytes())?;
        write_private(&self.ca, certificate.pem().as_bytes())?;
        tracing::info!(ca = %self.ca.display(), "made a development CA");
        Ok(Issuer::new(params, key))
    }

    fn make_server(
        &self,
        now: SystemTime,
        names: &[SanType],
        authority: &Issuer<'_, KeyPair>,
    ) -> Result<SystemTime> {
        let key = KeyPair::generate()?;
        let not_after = now + SERVER_LIFETIME;
        let mut params = CertificateParams::default();
        params.not_before = (now - DAY).into();
        params.not_after = not_after.into();
        params.subject_alt_names = names.to_vec();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "Headgate development server");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, authority)?;
        // Between the two writes they do not fit; the next start then makes both again.
        write_private(&self.server_key, key.serialize_pem().as_bytes())?;
        write_private(&self.server, certificate.pem().as_bytes())?;
        tracing::info!(certificate = %self.server.display(), "made a development certificate");
        // What stands in the certificate has whole seconds.
        Ok(with_certificate(certificate.pem().as_bytes(), end_of).unwrap_or(not_after))
    }
}

fn authority_params(name: &str, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (now - DAY).into();
    params.not_after = (now + CA_LIFETIME).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// What the server may be called: localhost, the loopback addresses, this machine's name.
fn names(host: Option<&str>) -> Vec<SanType> {
    let dns = |name: &str| Some(SanType::DnsName(name.to_owned().try_into().ok()?));
    let host = host.filter(|host| *host != "localhost").and_then(dns);
    dns("localhost")
        .into_iter()
        .chain(host)
        .chain([
            SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
            SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
        ])
        .collect()
}

/// This machine's name, when it can stand in a certificate.
fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!name.is_empty() && name.len() <= 253 && name.chars().all(valid)).then(|| name.to_owned())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DevelopmentCertificateError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// What `look` sees in the first certificate of a PEM text; nothing when there is none.
fn with_certificate<T>(pem: &[u8], look: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let (_, pem) = parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Some(look(&certificate))
}

fn end_of(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = certificate.validity().not_after.timestamp();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0))
}

fn key_id_of<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.iter_extensions().find_map(|extension| {
        let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() else {
            return None;
        };
        Some(id.0)
    })
}

fn issuer_key_id_of<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.iter_extensions().find_map(|extension| {
        let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() else {
            return None;
        };
        id.key_identifier.as_ref().map(|id| id.0)
    })
}

fn has_names(certificate: &X509Certificate<'_>, names: &[SanType]) -> bool {
    let Ok(Some(present)) = certificate.subject_alternative_name() else {
        return false;
    };
    let present = &present.value.general_names;
    names.iter().all(|name| {
        present.iter().any(|known| match (name, known) {
            (SanType::DnsName(name), GeneralName::DNSName(known)) => name.as_str() == *known,
            (SanType::IpAddress(IpAddr::V4(ip)), GeneralName::IPAddress(known)) => {
                ip.octets() == *known
            }
            (SanType::IpAddress(IpAddr::V6(ip)), GeneralName::IPAddress(known)) => {
                ip.octets() == *known
            }
            _ => false,
        })
    })
}

#[cfg(test)]
mod tests;
