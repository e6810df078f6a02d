//! A flood of first hellos without a cookie, each from another port: what it leaves in memory and costs, and that a client
//! whose two hellos have a good part of it between them gets in.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::{credential, devices, gateway};
use crate::bar::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::fleet::ClientError;
use crate::fleet::coap::{CoapClient, hello};
use crate::report::{Section, as_f64};

/// Measures one flood; a client that is kept out is an error of the run.
///
/// # Errors
/// [`BenchError`] of a run that failed.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    let hellos = args.devices(400, HELLOS);
    progress(&format!("coap-hellos: {hellos} hellos without a cookie"));
    let headgate = gateway(args, Some("")).await?;
    devices(&headgate, 1, true).await?;
    let failed = |source| headgate.client_error(source);
    let address = headgate.coap_address(true)?;
    let hello = hello(&credential(0)).map_err(failed)?;
    // What the first ones make stays.
    flood(address, &hello, hellos / 20).await.map_err(failed)?;
    sleep(SETTLE).await;
    let before = headgate.sample()?;
    flood(address, &hello, hellos / 4).await.map_err(failed)?;
    let mut client = CoapClient::begin(address, &credential(0))
        .await
        .map_err(failed)?;
    flood(address, &hello, hellos / 2).await.map_err(failed)?;
    client.finish().await.map_err(failed)?;
    flood(address, &hello, hellos - hellos / 4 - hellos / 2)
        .await
        .map_err(failed)?;
    let after = headgate.sample()?;
    headgate.stop().await;
    let grown = as_f64(after.rss_bytes.saturating_sub(before.rss_bytes)) / 1024.0;
    let cost = (after.cpu_secs - before.cpu_secs) * 1e6 / f64::from(hellos);
    let mut section = Section::new(format!(
        "{hellos} ClientHellos without a cookie, each from another port"
    ));
    let must = (!args.quick).then_some(1_024.0);
    section.bar("memory that they leave", "KiB", &[grown], must, None);
    section.figure("CPU", "us/hello", &[cost]);
    section.note(format!(
        "a client whose two hellos had {} of them in between got in",
        hellos / 2
    ));
    Ok(vec![section])
}

/// Sends so many hellos, each from a port of its own, and takes their cookies.
async fn flood(address: SocketAddr, hello: &[u8], count: u32) -> Result<(), ClientError> {
    let mut cookie = [0; 512];
    for _ in 0..count {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(address).await?;
        socket.send(hello).await?;
        let answered = timeout(PATIENCE, socket.recv(&mut cookie)).await;
        let bytes = answered.map_err(|_elapsed| ClientError::Answer("no cookie".to_owned()))??;
        if bytes > hello.len() {
            return Err(ClientError::Answer("more than was asked".to_owned()));
        }
    }
    Ok(())
}

const HELLOS: u32 = 20_000;
const SETTLE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(5);
