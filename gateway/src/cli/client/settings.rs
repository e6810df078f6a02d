//! Where the gateway is and what opens it: from the command line, the environment, or a small file.
//!
//! What is named on the command line wins over the environment, that over the file, and without any of them the
//! gateway of the data directory on this machine is asked. The token is never on the command line, where everyone
//! sees it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use clap::Args;
use hyper::Uri;
use serde::Deserialize;

use super::{ClientError, tls::Tls};
use crate::config::Secret;

/// Where the gateway is, and what opens it.
#[derive(Debug, Clone, Default, Args)]
pub struct ClientArgs {
    /// Address of the API, as `http://127.0.0.1:8080` or `https://gateway.example.org`
    /// [env: `HEADGATE_SERVER`] [default: where the gateway of the data directory listens]
    #[arg(
        long,
        alias = "url",
        value_name = "URL",
        global = true,
        help_heading = "Gateway"
    )]
    pub server: Option<String>,
    /// File that holds the API token
    /// [env: `HEADGATE_TOKEN_FILE`, or `HEADGATE_TOKEN` with the token itself]
    /// [default: `api.token` in the data directory]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Gateway")]
    pub token_file: Option<PathBuf>,
    /// PEM file of the authorities that vouch for the gateway, for https
    /// [env: `HEADGATE_CA`] [default: those of the system]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Gateway")]
    pub ca: Option<PathBuf>,
    /// Configuration file of the gateway, which says where its data directory is [env: `HEADGATE_CONFIG`]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Gateway")]
    pub config: Option<PathBuf>,
    /// Data directory of a gateway on this machine [env: `HEADGATE__DATA_DIR`]
    #[arg(long, value_name = "DIR", global = true, help_heading = "Gateway")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON as the API gives it, for programs
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
}

/// The file `headgate/cli.toml` in the user's configuration directory.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CliFile {
    /// As `--server`.
    server: Option<String>,
    /// As `--token-file`.
    token_file: Option<PathBuf>,
    /// As `--ca`.
    ca: Option<PathBuf>,
}

/// Everything a client needs to know.
#[derive(Debug)]
pub(super) struct Settings {
    /// Host and port.
    pub(super) authority: String,
    pub(super) tls: Option<Tls>,
    pub(super) token: Secret,
}

impl Settings {
    /// What the arguments, the environment and the file say together.
    ///
    /// # Errors
    /// [`ClientError`] where the gateway or the token cannot be found.
    pub(super) fn find(args: &ClientArgs) -> Result<Self, ClientError> {
        let file = cli_file()?;
        let server = args
            .server
            .clone()
            .or_else(|| variable("HEADGATE_SERVER"))
            .or(file.server);
        let token_file = args.token_file.clone();
        // The file's token is for the file's gateway: another one must not be shown it.
        let is_files_own = args.server.is_none() && variable("HEADGATE_SERVER").is_none();
        let ca = args
            .ca
            .clone()
            .or_else(|| variable("HEADGATE_CA").map(PathBuf::from))
            .or_else(|| file.ca.filter(|_| is_files_own));
        let token = token(token_file, file.token_file.filter(|_| is_files_own))?;
        let local = if server.is_none() || token.is_none() {
            let source = crate::cli::SourceArgs {
                config: args.config.clone(),
                data_dir: args.data_dir.clone(),
            };
            Some(source.load()?.config)
        } else {
            None
        };
        let (authority, is_https) = match (&server, &local) {
            (Some(server), _) => authority_of(server)?,
            (None, Some(config)) => {
                let authority = authority_in(&config.data_dir)?;
                (authority, config.http.certificate.is_some())
            }
            (None, None) => return Err(ClientError::NotRunning("no data directory".to_owned())),
        };
        let token = match (token, &local) {
            (Some(token), _) => token,
            (None, Some(config)) => read(&config.data_dir.join("api.token"))?,
            (None, None) => return Err(ClientError::Token),
        };
        let tls = if is_https {
            let host = authority
                .rsplit_once(':')
                .map_or(&*authority, |(host, _)| host);
            Some(Tls::new(host, ca.as_deref())?)
        } else {
            None
        };
        Ok(Self {
            authority,
            tls,
            token: Secret::new(token.trim().to_owned()),
        })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The token, by what is named first.
fn token(named: Option<PathBuf>, in_file: Option<PathBuf>) -> Result<Option<String>, ClientError> {
    if let Some(path) = named {
        return read(&path).map(Some);
    }
    if let Some(token) = variable("HEADGATE_TOKEN") {
        return Ok(Some(token));
    }
    let path = variable("HEADGATE_TOKEN_FILE")
        .map(PathBuf::from)
        .or(in_file);
    path.map(|path| read(&path)).transpose()
}

fn cli_file() -> Result<CliFile, ClientError> {
    let directory = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")));
    let Some(path) = directory.map(|directory| directory.join("headgate/cli.toml")) else {
        return Ok(CliFile::default());
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(CliFile::default()),
        Err(source) => {
            return Err(ClientError::File {
                path: path.display().to_string(),
                source,
            });
        }
    };
    toml::from_str(&text).map_err(|error| ClientError::Settings {
        path: path.display().to_string(),
        why: error.message().to_owned(),
    })
}

/// Host and port of an address, and whether TLS is spoken there.
fn authority_of(url: &str) -> Result<(String, bool), ClientError> {
    let wrong = |why| ClientError::Url {
        url: url.to_owned(),
        why,
    };
    let parsed: Uri = url.parse().map_err(|_| wrong("not an address"))?;
    let is_https = match parsed.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong("it must begin with http:// or https://")),
    };
    if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() {
        return Err(wrong("it must be a scheme, a host and a port alone"));
    }
    let host = parsed.host().ok_or_else(|| wrong("it names no host"))?;
    let port = parsed.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    Ok((format!("{host}:{port}"), is_https))
}

/// Where the gateway of a data directory listens.
fn authority_in(directory: &Path) -> Result<String, ClientError> {
    let not_running = || ClientError::NotRunning(directory.display().to_string());
    let ports = fs::read(directory.join("ports.json")).map_err(|_| not_running())?;
    let ports: serde_json::Value = serde_json::from_slice(&ports).map_err(|_| not_running())?;
    let address = ports["http"].as_str().ok_or_else(not_running)?;
    let mut address: SocketAddr = address.parse().map_err(|_| not_running())?;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Ok(address.to_string())
}

fn read(path: &Path) -> Result<String, ClientError> {
    fs::read_to_string(path).map_err(|source| ClientError::File {
        path: path.display().to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (url, expected) in [
            ("http://127.0.0.1:8080", Some(("127.0.0.1:8080", false))),
            ("http://localhost", Some(("localhost:80", false))),
            ("http://[::1]:9/", Some(("[::1]:9", false))),
            ("https://example.org", Some(("example.org:443", true))),
            (
                "https://example.org:8443/",
                Some(("example.org:8443", true)),
            ),
            ("https://example.org/api", None),
            ("ftp://example.org", None),
            ("127.0.0.1:8080", None),
            ("", None),
        ] {
            let expected = expected.map(|(authority, https)| (authority.to_owned(), https));
            assert_eq!(authority_of(url).ok(), expected, "{url}");
        }
    }

    #[test]
    fn a_gateway_is_found_by_its_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = authority_in(directory.path()).expect_err("not running");
        assert!(matches!(missing, ClientError::NotRunning(_)));
        for (http, expected) in [
            ("127.0.0.1:18080", "127.0.0.1:18080"),
            ("0.0.0.0:18080", "127.0.0.1:18080"),
        ] {
            let ports = format!("{{\"http\":\"{http}\"}}");
            fs::write(directory.path().join("ports.json"), ports).expect("written");
            assert_eq!(authority_in(directory.path()).expect("running"), expected);
        }
    }
}
