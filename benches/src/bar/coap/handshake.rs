//! Server CPU of a handshake of DTLS 1.2 with a pre-shared key, beside `openssl s_server`.
//!
//! A fleet that comes back comes at once: that is what the bar is about. `s_server` serves one client after the other, and
//! Headgate is measured that way too: then most of what a handshake costs is that the process is woken for each datagram.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{HEXADECIMAL_KEY, credential, devices, gateway};
use crate::bar::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::fleet::ClientError;
use crate::fleet::coap::CoapClient;
use crate::peer::is_there;
use crate::peer::openssl::Openssl;
use crate::process::Server;
use crate::report::Section;

/// Measures both, in turns.
///
/// # Errors
/// [`BenchError`] of a run that failed.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    let has_openssl = is_there(Path::new("openssl"), "version");
    let (mut ours, mut singly, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..args.pairs() {
        progress(&format!("coap-handshake, pair {}", pair + 1));
        let headgate = gateway(args, Some("")).await?;
        devices(&headgate, AT_ONCE, true).await?;
        let address = headgate.coap_address(true)?;
        ours.push(cost(args, headgate.server(), address, AT_ONCE).await?);
        singly.push(cost(args, headgate.server(), address, 1).await?);
        headgate.stop().await;
        if has_openssl {
            let peer = Openssl::start(HEXADECIMAL_KEY).await?;
            theirs.push(cost(args, &peer.server, peer.address, 1).await?);
            peer.server.stop().await;
        }
    }
    let handshakes = args.devices(50, HANDSHAKES);
    let mut section = Section::new(format!(
        "DTLS 1.2 handshake with a pre-shared key, {handshakes} of them: server CPU"
    ));
    let must = (!args.quick).then_some(0.2);
    let at_once = format!("headgate, {AT_ONCE} clients at once");
    section.bar(&at_once, "CPU-ms", &ours, must, None);
    section.figure("headgate, one client", "CPU-ms", &singly);
    section.figure("openssl s_server, one client", "CPU-ms", &theirs);
    section.note("cookie, PSK-AES128-CCM8, Connection ID with Headgate; nothing resumed");
    Ok(vec![section])
}

/// CPU milliseconds of `server` for each handshake.
async fn cost(
    args: &MeasureArgs,
    server: &Server,
    address: SocketAddr,
    clients: u32,
) -> Result<f64, BenchError> {
    let each = args.devices(48, HANDSHAKES) / clients;
    sleep(SETTLE).await;
    let before = server.sample()?;
    let mut running = JoinSet::new();
    for number in 0..clients {
        running.spawn(async move {
            for _ in 0..each {
                let client = CoapClient::connect(address, Some(&credential(number))).await?;
                client.close().await?;
            }
            Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        let ended = ended.unwrap_or(Err(ClientError::Ended));
        ended.map_err(|source| server.client_error(source))?;
    }
    let after = server.sample()?;
    Ok((after.cpu_secs - before.cpu_secs) * 1e3 / f64::from(each * clients))
}

const HANDSHAKES: u32 = 2_000;
const AT_ONCE: u32 = 16;
const SETTLE: Duration = Duration::from_millis(500);
