//! Server CPU of a handshake of DTLS 1.2 with a pre-shared key, beside `openssl s_server`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use super::{credential, devices, gateway, hexadecimal_key};
use crate::bar::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
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
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pair in 0..args.pairs() {
        progress(&format!("coap-handshake, pair {}", pair + 1));
        let headgate = gateway(args, Some("")).await?;
        devices(&headgate, 1, true).await?;
        let address = headgate.coap_address(true)?;
        ours.push(cost(args, headgate.server(), address).await?);
        headgate.stop().await;
        if has_openssl {
            let peer = Openssl::start(&hexadecimal_key()).await?;
            theirs.push(cost(args, &peer.server, peer.address).await?);
            peer.server.stop().await;
        }
    }
    let handshakes = args.devices(50, HANDSHAKES);
    let mut section = Section::new(format!(
        "DTLS 1.2 handshake with a pre-shared key, {handshakes} one after the other: server CPU"
    ));
    let must = (!args.quick).then_some(0.2);
    section.bar("headgate", "CPU-ms", &ours, must, None);
    section.figure("openssl s_server", "CPU-ms", &theirs);
    section.note("cookie, PSK-AES128-CCM8, Connection ID with Headgate; nothing resumed");
    Ok(vec![section])
}

/// CPU milliseconds of `server` for each handshake.
async fn cost(args: &MeasureArgs, server: &Server, address: SocketAddr) -> Result<f64, BenchError> {
    let handshakes = args.devices(50, HANDSHAKES);
    sleep(SETTLE).await;
    let before = server.sample()?;
    for _ in 0..handshakes {
        let client = CoapClient::connect(address, Some(&credential(0))).await;
        let client = client.map_err(|source| server.client_error(source))?;
        let closed = client.close().await;
        closed.map_err(|source| server.client_error(source))?;
    }
    let after = server.sample()?;
    Ok((after.cpu_secs - before.cpu_secs) * 1e3 / f64::from(handshakes))
}

const HANDSHAKES: u32 = 2_000;
const SETTLE: Duration = Duration::from_millis(500);
