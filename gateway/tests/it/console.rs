//! The console, by a browser and by requests that no browser of ours would send.
//!
//! Each page has a program below `tests/browser`, which opens it in Chromium and does what an operator does; the test
//! here sets the stage. `make test-tools` installs what the programs need.

mod pages;
mod roles;
mod security;

use std::{path::Path, time::Duration};

use http_body_util::Full;
use hyper::{Method, Request, header};

use super::harness::{Answer, Gateway, fetch, need, run_for};

/// Where the programs are.
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser");

/// Where their libraries are.
const LIBRARIES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/browser");

/// How long a browser may take: the programs give up by themselves a little earlier.
const BROWSING: Duration = Duration::from_mins(2);

/// The first operator's password.
pub(super) fn password(gateway: &Gateway) -> String {
    let file = gateway.data_dir.join("admin.password");
    let text = std::fs::read_to_string(file).expect("a password");
    text.trim().to_owned()
}

/// Runs a program of `tests/browser`, which ends with the first thing that is wrong.
async fn browse(gateway: &Gateway, program: &str, arguments: &[&str]) {
    need("node");
    let libraries = Path::new(LIBRARIES).join("made");
    assert!(
        libraries.is_file(),
        "{} is missing: run `make test-tools` with the same CARGO_TARGET_DIR",
        libraries.display()
    );
    let program = format!("{PROGRAMS}/{program}");
    let address = format!("http://{}", gateway.ports.http.expect("a listener"));
    let password = password(gateway);
    let fixed = [program.as_str(), LIBRARIES, &address, &password];
    let ran = run_for(BROWSING, "node", &[&fixed, arguments].concat()).await;
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.success, "{said}\n{}", ran.stderr);
}

/// A request to the console with these headers.
pub(super) async fn ask(
    gateway: &Gateway,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let address = gateway.ports.http.expect("a listener");
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::from(body.to_owned()))
        .expect("a request");
    fetch(address, request).await
}
