//! The listeners: all are bound before anything is made, and served once everything is open.

use std::{net::SocketAddr, path::Path, sync::Arc};

use tokio::{net::TcpListener, sync::mpsc};

use super::{
    certificates, coap,
    settings::{Reread, Settings},
    start::StartError,
};
use crate::{
    config::{Config, ListenerConfig, MqttConfig, Profile, data_dir::Ports},
    edge::{
        accept::{self, Gate},
        console::Console,
        files::{self, DeviceFiles},
        http::{self, ApiState, listener::Plain},
        mqtt::{self, ListenerSetup},
        ops::OpsListener,
        tls::{Certificates, ServerTls, TlsError},
    },
    service::{node::Reload, seal::Sealer, space::Space},
    session::{ConformanceProfile, Node},
    shutdown::Shutdown,
    telemetry::health::Readiness,
};

/// Connections the kernel holds for a listener that speaks HTTP.
const HTTP_BACKLOG: u32 = 1024;

/// The listeners, open but not served.
pub(super) struct Listeners {
    mqtts: Option<TcpListener>,
    mqtt: Option<TcpListener>,
    /// One for each table of the configuration, in its order.
    further: Vec<TcpListener>,
    http: TcpListener,
    files: Option<TcpListener>,
    metrics: Option<OpsListener>,
    coap: coap::Sockets,
}

/// What the listeners lead to.
pub(super) struct Served {
    pub(super) api: ApiState,
    pub(super) console: Console,
    pub(super) node: Arc<Node>,
    /// The place of this node among all; 0 alone.
    pub(super) place: u16,
    pub(super) sealer: Sealer,
    pub(super) readiness: Readiness,
    /// Operators who have the certificates looked at.
    pub(super) reloads: mpsc::Receiver<Reload>,
    pub(super) reread: Option<Reread>,
    /// The owner of listeners and connections, which ends before the rest.
    pub(super) edges: Shutdown,
}

impl Listeners {
    /// Opens every listener of the configuration.
    ///
    /// # Errors
    /// `Listen`, naming the address.
    pub(super) async fn bind(config: &Config) -> Result<Self, StartError> {
        let backlog = config.mqtt.backlog;
        let further = config.listeners.iter().filter_map(|own| own.address);
        Ok(Self {
            mqtts: maybe("MQTT over TLS", config.mqtt.listen, backlog)?,
            mqtt: maybe("MQTT", config.mqtt.plain_listen, backlog)?,
            further: further
                .map(|address| bind("an MQTT listener", address, backlog))
                .collect::<Result<_, _>>()?,
            http: bind("the HTTP API", config.http.listen, HTTP_BACKLOG)?,
            files: maybe("device files", config.files.listen, HTTP_BACKLOG)?,
            metrics: bind_metrics(config.metrics.listen).await?,
            coap: coap::Sockets::bind(config)?,
        })
    }

    /// Where they were opened.
    pub(super) fn ports(&self) -> Ports {
        let address = |listener: &TcpListener| listener.local_addr().ok();
        let [coap, coaps] = self.coap.addresses();
        Ports {
            mqtts: self.mqtts.as_ref().and_then(address),
            mqtt: self.mqtt.as_ref().and_then(address),
            listeners: self.further.iter().filter_map(address).collect(),
            coap,
            coaps,
            http: address(&self.http),
            files: self.files.as_ref().and_then(address),
            metrics: self.metrics.as_ref().map(OpsListener::address),
        }
    }

    /// Lets the first client in.
    ///
    /// # Errors
    /// `Tls`, where the certificate of a listener's own cannot be used.
    pub(super) fn serve(
        self,
        config: &Config,
        tls: &ServerTls,
        served: Served,
        shutdown: &Shutdown,
    ) -> Result<(), StartError> {
        let certificates = Certificates::default();
        certificates.add(tls);
        let setups = setups(
            config,
            tls,
            &certificates,
            conformance(config, &served).as_ref(),
        )?;
        let own_http = own_tls(
            config.http.certificate.as_deref(),
            config.http.key.as_deref(),
            false,
        )?;
        if let Some(tls) = &own_http {
            certificates.add(tls);
        }
        let Served {
            api,
            console,
            node,
            place,
            sealer,
            readiness,
            reloads,
            reread,
            edges,
        } = served;
        let (authenticator, metrics) = (node.authenticator.clone(), node.metrics.clone());
        let gate = Gate::new(&config.mqtt, authenticator, metrics);
        let settings = Settings {
            held: config.clone(),
            reread,
            gate: gate.clone(),
        };
        certificates::watch(
            certificates,
            config.tls.reload_interval,
            reloads,
            settings,
            &node.metrics,
            &edges,
        )?;
        let listeners = self.mqtts.into_iter().chain(self.mqtt).chain(self.further);
        for (listener, setup) in listeners.zip(setups) {
            let (node, gate, stop) = (Arc::clone(&node), gate.clone(), edges.clone());
            edges.spawn(mqtt::serve(listener, setup, node, gate, stop));
        }
        self.coap.serve(config, (&node, place), &sealer, &edges)?;
        if let Some(listener) = self.files {
            let source = DeviceFiles::new(node.delivery.clone(), node.uploads.clone());
            let acceptor = tls.http_acceptor();
            let (files, metrics, stop) =
                (config.files.clone(), node.metrics.clone(), edges.clone());
            edges.spawn(async move {
                files::serve(listener, acceptor, source, &files, &metrics, stop).await;
            });
        }
        serve_http(self.http, own_http, config, (console, api), &edges);
        // Metrics and health outlive the connections: a drain can be watched to its end.
        if let Some(listener) = self.metrics {
            let (metrics, stop) = (node.metrics.clone(), shutdown.clone());
            shutdown.spawn(async move { listener.run(metrics, readiness, stop).await });
        }
        Ok(())
    }
}

fn serve_http(
    listener: TcpListener,
    tls: Option<ServerTls>,
    config: &Config,
    (console, api): (Console, ApiState),
    edges: &Shutdown,
) {
    let (http_config, stop) = (config.http.clone(), edges.clone());
    let router = http::router(api);
    #[cfg(feature = "console")]
    let router = crate::edge::console::router(console, router);
    #[cfg(not(feature = "console"))]
    drop(console);
    if let Some(tls) = tls {
        let acceptor = tls.http_acceptor();
        edges.spawn(async move {
            http::serve(listener, acceptor, router, &http_config, stop).await;
        });
    } else {
        edges.spawn(async move {
            http::serve(listener, Plain, router, &http_config, stop).await;
        });
    }
}

/// How the MQTT listeners are served: the simple ones, then the others in order.
fn setups(
    config: &Config,
    shared: &ServerTls,
    certificates: &Certificates,
    conformance: Option<&Arc<ConformanceProfile>>,
) -> Result<Vec<ListenerSetup>, TlsError> {
    let MqttConfig {
        listen,
        plain_listen,
        ..
    } = config.mqtt;
    let simple = listen.map(ListenerConfig::at);
    let plain = plain_listen.map(|address| ListenerConfig {
        tls: false,
        ..ListenerConfig::at(address)
    });
    let all = simple.into_iter().chain(plain);
    all.chain(config.listeners.iter().cloned())
        .map(|listener| {
            let own = own_tls(
                listener.certificate.as_deref(),
                listener.key.as_deref(),
                config.tls.tickets,
            )?;
            if let Some(tls) = &own {
                certificates.add(tls);
            }
            Ok(ListenerSetup {
                tls: listener.tls.then(|| own.unwrap_or_else(|| shared.clone())),
                transport: listener.transport,
                proxies: listener.proxy_protocol,
                conformance: conformance
                    .filter(|_| listener.profile == Profile::Conformance)
                    .map(Arc::clone),
            })
        })
        .collect()
}

/// The topic space of test suites, where a listener leads to it.
fn conformance(config: &Config, served: &Served) -> Option<Arc<ConformanceProfile>> {
    let mut listeners = config.listeners.iter();
    if !listeners.any(|listener| listener.profile == Profile::Conformance) {
        return None;
    }
    let metrics = served.node.metrics.clone();
    let space = Arc::new(Space::new(config.conformance.clone(), metrics));
    let (upkeep, stop) = (Arc::clone(&space), served.edges.clone());
    served.edges.spawn(async move { upkeep.run(stop).await });
    Some(Arc::new(ConformanceProfile::new(space)))
}

/// The certificate of a listener's own, where it has one.
fn own_tls(
    certificate: Option<&Path>,
    key: Option<&Path>,
    tickets: bool,
) -> Result<Option<ServerTls>, TlsError> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => ServerTls::load(certificate, key, tickets).map(Some),
        _ => Ok(None),
    }
}

fn bind(what: &'static str, address: SocketAddr, backlog: u32) -> Result<TcpListener, StartError> {
    accept::bind(address, backlog).map_err(|source| StartError::Listen {
        what,
        address,
        source,
    })
}

fn maybe(
    what: &'static str,
    address: Option<SocketAddr>,
    backlog: u32,
) -> Result<Option<TcpListener>, StartError> {
    address
        .map(|address| bind(what, address, backlog))
        .transpose()
}

async fn bind_metrics(address: Option<SocketAddr>) -> Result<Option<OpsListener>, StartError> {
    let Some(address) = address else {
        return Ok(None);
    };
    match OpsListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) => Err(StartError::Listen {
            what: "metrics",
            address,
            source,
        }),
    }
}
