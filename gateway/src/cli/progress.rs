//! What `headgate serve` tells the person who started it.
//!
//! Credentials go to a terminal, once, and never to the log: what is not a terminal is kept by a service manager as the log
//! is, and is told in which files they are. Where the listeners are goes to the log. Called by the application as it starts.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, stdout},
    path::Path,
};

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
            let _ = tell(first_start(first, stdout().is_terminal()));
        }
        Progress::Ready(ports) => {
            log_ports(ports);
            notify(Notice::Ready);
        }
    }
}

fn first_start(first: &FirstStart, shows_secrets: bool) -> String {
    let made = &first.credentials;
    let shown = |secret: &str, file: &Path| {
        let file = file.display();
        if shows_secrets {
            format!("{secret}   {file}")
        } else {
            format!("in {file}")
        }
    };
    let mut text = format!(
        "First start. {} files are for this user only.\n\
         \x20 operator   {}\n\
         \x20 password   {}\n\
         \x20 API token  {}\n",
        if shows_secrets {
            "This is shown once; the"
        } else {
            "The"
        },
        made.operator,
        shown(&made.password, &first.password_file),
        shown(&made.token, &first.token_file),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Bootstrap;

    #[test]
    fn a_terminal_is_shown_what_a_log_is_told_the_place_of() {
        let first = FirstStart {
            credentials: Bootstrap {
                operator: "admin",
                password: "a secret".to_owned().into(),
                token: "hgt_another".to_owned().into(),
            },
            password_file: "/data/admin.password".into(),
            token_file: "/data/api.token".into(),
            ca_file: None,
            console: None,
        };
        for (is_terminal, wanted) in [(true, [true, true]), (false, [false, false])] {
            let text = first_start(&first, is_terminal);
            let shown = ["a secret", "hgt_another"].map(|secret| text.contains(secret));
            assert_eq!(shown, wanted, "{text}");
            assert!(text.contains("/data/admin.password") && text.contains("/data/api.token"));
        }
    }
}
