//! The CoAP listeners' part of the start.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use tokio::net::UdpSocket;

use super::start::StartError;
use crate::{
    config::Config,
    edge::coap,
    service::seal::Sealer,
    session::{CoapServer, Node},
    shutdown::Shutdown,
};

/// The sockets, open but not served.
pub(super) struct Sockets {
    plain: Option<UdpSocket>,
    secure: Option<UdpSocket>,
    #[cfg(feature = "coaps")]
    dtls: Option<coap::Secure>,
}

impl Sockets {
    /// Opens the sockets, where there are to be any.
    ///
    /// # Errors
    /// `Listen`, naming the address; `Coaps` for a certificate that cannot be used, and in a build without DTLS.
    pub(super) fn bind(config: &Config) -> Result<Self, StartError> {
        #[cfg(not(feature = "coaps"))]
        if config.coaps.listen.is_some() {
            return Err(StartError::NoCoaps);
        }
        #[cfg(feature = "coaps")]
        let dtls = match config.coaps.listen {
            Some(_) => Some(coap::Secure::open(&config.coaps, Instant::now())?),
            None => None,
        };
        Ok(Self {
            plain: bind("CoAP", config.coap.listen)?,
            secure: bind("CoAP over DTLS", config.coaps.listen)?,
            #[cfg(feature = "coaps")]
            dtls,
        })
    }

    /// Where they were opened: without and with DTLS.
    pub(super) fn addresses(&self) -> [Option<SocketAddr>; 2] {
        let address = |socket: &Option<UdpSocket>| socket.as_ref()?.local_addr().ok();
        [address(&self.plain), address(&self.secure)]
    }

    /// Serves devices, as the node with this place among all.
    pub(super) fn serve(
        self,
        config: &Config,
        (node, place): (&Arc<Node>, u16),
        sealer: &Sealer,
        edges: &Shutdown,
    ) -> Result<(), StartError> {
        let (settings, metrics) = (config.coap.clone(), node.metrics.clone());
        if let Some(socket) = self.plain {
            let server = CoapServer::plain(Arc::clone(node), settings.clone(), Instant::now());
            let server = server.map_err(|_no_randomness| StartError::Random)?;
            let stop = edges.clone();
            let (settings, metrics) = (settings.clone(), metrics.clone());
            edges.spawn(async move { coap::serve(socket, server, &settings, metrics, stop).await });
        }
        #[cfg(feature = "coaps")]
        if let (Some(socket), Some(dtls)) = (self.secure, self.dtls) {
            let server = CoapServer::secure(Arc::clone(node), settings.clone(), Instant::now());
            let server = server.map_err(|_no_randomness| StartError::Random)?;
            let stop = edges.clone();
            let store = coap::SessionStore::new(&config.data_dir, sealer.clone());
            edges.spawn(async move {
                let dtls = dtls.of_node(place);
                dtls.serve(socket, server, &settings, store, metrics, stop)
                    .await;
            });
        }
        #[cfg(not(feature = "coaps"))]
        let _unused = (self.secure, sealer, settings, metrics, place);
        Ok(())
    }
}

fn bind(what: &'static str, address: Option<SocketAddr>) -> Result<Option<UdpSocket>, StartError> {
    let bound = address.map(|address| {
        coap::bind(address).map_err(|source| StartError::Listen {
            what,
            address,
            source,
        })
    });
    bound.transpose()
}
