//! The address at which bytes can be fetched or sent by HTTPS.
//!
//! Devices' parsers are narrow: the whole address stays under 200 characters, and some take no
//! port at all, for which `files.public_url` is there.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Link, LinkSigner, Purpose};
use crate::model::{Id, Millis};

/// Makes addresses.
#[derive(Debug, Clone)]
pub struct FileUrls {
    signer: LinkSigner,
    public_url: Option<String>,
    listen: Option<SocketAddr>,
    lifetime: Duration,
}

impl FileUrls {
    /// Addresses below `public_url`, or else at the listener's own address; without either the
    /// address is empty and devices take the bytes in-band.
    pub fn new(
        signer: LinkSigner,
        public_url: Option<String>,
        listen: Option<SocketAddr>,
        lifetime: Duration,
    ) -> Self {
        let public_url = public_url.map(|url| url.trim_end_matches('/').to_owned());
        Self {
            signer,
            public_url,
            listen,
            lifetime,
        }
    }

    /// A signed address for this delivery or upload, valid from now on.
    ///
    /// `reached_at` stands in for a listener that listens everywhere: what the device reached once
    /// it reaches again.
    pub(in crate::service) fn url(
        &self,
        purpose: Purpose,
        id: Id,
        reached_at: Option<IpAddr>,
    ) -> String {
        let base = match (&self.public_url, self.listen) {
            (Some(url), _) => url.clone(),
            (None, Some(listen)) => {
                let host = match reached_at {
                    Some(reached) if listen.ip().is_unspecified() => reached,
                    _ => listen.ip(),
                };
                // A listener on all addresses that no connection has named yet is on this machine.
                let host = match host {
                    any if any.is_unspecified() => "localhost".to_owned(),
                    IpAddr::V4(v4) => v4.to_string(),
                    IpAddr::V6(v6) => v6
                        .to_ipv4_mapped()
                        .map_or_else(|| format!("[{v6}]"), |v4| v4.to_string()),
                };
                format!("https://{host}:{}", listen.port())
            }
            (None, None) => return String::new(),
        };
        let link = Link {
            purpose,
            id,
            expires_at: Millis::now().after(self.lifetime),
        };
        format!("{base}/files/{}", self.signer.sign(link))
    }

    /// How long an address can be used.
    pub(in crate::service) const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The signer, for the listener that checks.
    pub(in crate::service) fn signer(&self) -> &LinkSigner {
        &self.signer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(public_url: Option<&str>, listen: Option<&str>) -> FileUrls {
        let listen = listen.map(|listen| listen.parse().expect("an address"));
        FileUrls::new(
            LinkSigner::new([1; 32]),
            public_url.map(str::to_owned),
            listen,
            Duration::from_mins(1),
        )
    }

    #[test]
    fn the_host_is_configured_or_what_the_device_reached() {
        let id = Id::from_i64(5).expect("positive");
        let cases = [
            (
                Some("https://files.example.org/"),
                Some("0.0.0.0:8443"),
                None,
                "https://files.example.org/files/",
            ),
            (
                None,
                Some("0.0.0.0:8443"),
                Some("10.1.2.3"),
                "https://10.1.2.3:8443/files/",
            ),
            (
                None,
                Some("[::]:8443"),
                Some("::ffff:10.1.2.3"),
                "https://10.1.2.3:8443/files/",
            ),
            (
                None,
                Some("[::]:8443"),
                Some("2001:db8::1"),
                "https://[2001:db8::1]:8443/files/",
            ),
            (
                None,
                Some("192.0.2.1:443"),
                Some("10.1.2.3"),
                "https://192.0.2.1:443/files/",
            ),
            (
                None,
                Some("0.0.0.0:8443"),
                None,
                "https://localhost:8443/files/",
            ),
        ];
        for (public_url, listen, reached, expected) in cases {
            let url = urls(public_url, listen).url(
                Purpose::Download,
                id,
                reached.map(|ip: &str| ip.parse().expect("an address")),
            );
            assert!(url.starts_with(expected), "{url}");
            assert!(url.len() < 1_000);
        }
        assert_eq!(urls(None, None).url(Purpose::Download, id, None), "");
    }
}
