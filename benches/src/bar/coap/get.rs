//! Server CPU of a small GET, beside libcoap's coap-server: plain, and over DTLS with a pre-shared key.
//!
//! Headgate finds the device, remembers the message for its duplicates and says what waits for the device; coap-server
//! answers with a fixed text.

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use super::{KEY, credential, devices, gateway, register};
use crate::bar::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::fleet::ClientError;
use crate::fleet::coap::{Ask, CoapClient, ask_all};
use crate::peer::is_there;
use crate::peer::libcoap::CoapServer;
use crate::process::Server;
use crate::report::Section;

/// Measures both, in turns.
///
/// # Errors
/// [`BenchError`] of a run that failed.
pub(crate) async fn measure(
    args: &MeasureArgs,
    is_secure: bool,
) -> Result<Vec<Section>, BenchError> {
    // At most so much of the peer's CPU for each request: 1.75 and 1.15 times its rate for each CPU second.
    let (kind, must, program) = if is_secure {
        ("over DTLS", 1.0 / 1.15, &args.coap_server_dtls)
    } else {
        ("plain", 1.0 / 1.75, &args.coap_server)
    };
    let has_peer = is_there(program, "-?");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pair in 0..args.pairs() {
        progress(&format!("coap-get {kind}, pair {}", pair + 1));
        if pair % 2 == 1 && has_peer {
            theirs.push(libcoap(args, program, is_secure).await?);
        }
        ours.push(headgate(args, is_secure).await?);
        if pair % 2 == 0 && has_peer {
            theirs.push(libcoap(args, program, is_secure).await?);
        }
    }
    let pairs = ours.iter().zip(&theirs);
    let ratios: Vec<f64> = pairs.map(|(ours, theirs)| ours / theirs).collect();
    let clients = args.devices(8, CLIENTS);
    let mut section = Section::new(format!(
        "CoAP GET {kind}, {clients} clients with one request each: server CPU"
    ));
    section.figure("headgate", "CPU-us/request", &ours);
    section.figure("coap-server", "CPU-us/request", &theirs);
    let must = (!args.quick).then_some(must);
    section.bar(
        "headgate / coap-server, pair by pair",
        "x",
        &ratios,
        must,
        None,
    );
    section.note(
        "Headgate: GET /t of a registered device, deduplicated; coap-server: GET of its root",
    );
    if !has_peer {
        section.note("libcoap's server is not installed: nothing to compare with (--coap-server)");
    }
    Ok(vec![section])
}

async fn headgate(args: &MeasureArgs, is_secure: bool) -> Result<f64, BenchError> {
    let headgate = gateway(args, is_secure.then_some("")).await?;
    let count = args.devices(8, CLIENTS);
    devices(&headgate, count, is_secure).await?;
    let address = headgate.coap_address(is_secure)?;
    let failed = |source| headgate.client_error(source);
    let mut clients = Vec::new();
    for number in 0..count {
        let credential = is_secure.then(|| credential(number));
        let client = CoapClient::connect(address, credential.as_ref()).await;
        let mut client = client.map_err(failed)?;
        let ask = register(&mut client, number).await.map_err(failed)?;
        clients.push((client, ask));
    }
    let cost = cost(args, headgate.server(), clients).await;
    headgate.stop().await;
    cost
}

async fn libcoap(args: &MeasureArgs, program: &Path, is_secure: bool) -> Result<f64, BenchError> {
    let peer = CoapServer::start(program, is_secure.then_some(KEY)).await?;
    let failed = |source| peer.server.client_error(source);
    let root = Ask {
        path: Vec::new(),
        query: Vec::new(),
    };
    let mut clients = Vec::new();
    for number in 0..args.devices(8, CLIENTS) {
        let credential = is_secure.then(|| credential(number));
        let client = CoapClient::connect(peer.address, credential.as_ref()).await;
        clients.push((client.map_err(failed)?, root.clone()));
    }
    let cost = cost(args, &peer.server, clients).await;
    peer.server.stop().await;
    cost
}

/// CPU microseconds of `server` for each request.
async fn cost(
    args: &MeasureArgs,
    server: &Server,
    clients: Vec<(CoapClient, Ask)>,
) -> Result<f64, BenchError> {
    let times = if args.quick { 50 } else { TIMES };
    let failed = |source: ClientError| server.client_error(source);
    let count = u32::try_from(clients.len()).unwrap_or(u32::MAX);
    let clients = ask_all(clients, times / 10).await.map_err(failed)?;
    sleep(SETTLE).await;
    let before = server.sample()?;
    ask_all(clients, times).await.map_err(failed)?;
    let after = server.sample()?;
    let requests = f64::from(times) * f64::from(count);
    Ok((after.cpu_secs - before.cpu_secs) * 1e6 / requests)
}

const CLIENTS: u32 = 64;
/// Requests of each client: some two seconds of a server's CPU in all.
const TIMES: u32 = 3_000;
const SETTLE: Duration = Duration::from_millis(500);
