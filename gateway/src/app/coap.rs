//! The CoAP listener's part of the start.

use std::{sync::Arc, time::Instant};

use tokio::net::UdpSocket;

use super::start::StartError;
use crate::{
    config::CoapConfig,
    edge::coap,
    session::{CoapServer, Node},
    shutdown::Shutdown,
};

/// Opens the socket, where there is to be one.
pub(super) fn bind(config: &CoapConfig) -> Result<Option<UdpSocket>, StartError> {
    let bound = config.listen.map(|address| {
        coap::bind(address).map_err(|source| StartError::Listen {
            what: "CoAP",
            address,
            source,
        })
    });
    bound.transpose()
}

/// Serves devices on the socket.
pub(super) fn serve(
    socket: UdpSocket,
    config: &CoapConfig,
    node: &Arc<Node>,
    edges: &Shutdown,
) -> Result<(), StartError> {
    let (config, metrics, stop) = (config.clone(), node.metrics.clone(), edges.clone());
    let server = CoapServer::new(Arc::clone(node), config.clone(), Instant::now())
        .map_err(|_no_randomness| StartError::Random)?;
    edges.spawn(async move { coap::serve(socket, server, &config, metrics, stop).await });
    Ok(())
}
