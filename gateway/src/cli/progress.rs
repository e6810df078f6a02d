//! What `headgate serve` tells the person who started it.
//!
//! Credentials go to standard output, once, and never to the log; where the listeners are goes to
//! the log. Called by the application as it starts.

use std::fmt::Write as _;

use super::tell;
use crate::{
    app::{FirstStart, Progress},
    config::data_dir::Ports,
    shutdown::{Notice, notify},
};

/// Tells what the application has to tell.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape the application calls"
)]
pub fn report(progress: Progress<'_>) {
    match progress {
        Progress::FirstStart(first) => {
            let _ = tell(first_start(first));
        }
        Progress::Ready(ports) => {
            log_ports(ports);
            notify(Notice::Ready);
        }
    }
}

fn first_start(first: &FirstStart) -> String {
    let made = &first.credentials;
    let mut text = format!(
        "First start. This is shown once; the files are for this user only.\n\
         \x20 operator   {}\n\
         \x20 password   {}   {}\n\
         \x20 API token  {}   {}\n",
        made.operator,
        *made.password,
        first.password_file.display(),
        *made.token,
        first.token_file.display(),
    );
    if let Some(console) = &first.console {
        let _ = writeln!(text, "  console    {console}");
    }
    if let Some(ca) = &first.ca_file {
        let _ = writeln!(text, "  device CA  {}", ca.display());
    }
    text
}

fn log_ports(ports: &Ports) {
    let shown = |address: Option<std::net::SocketAddr>| {
        address.map_or_else(|| "off".to_owned(), |address| address.to_string())
    };
    tracing::info!(
        mqtts = shown(ports.mqtts),
        mqtt = shown(ports.mqtt),
        http = shown(ports.http),
        files = shown(ports.files),
        metrics = shown(ports.metrics),
        "ready"
    );
}
