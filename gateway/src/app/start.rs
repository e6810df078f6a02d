//! The start: everything is opened and checked before the first device is let in.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::SystemTime};

use super::{
    advice, cluster, console,
    listeners::{Listeners, Served},
    settings::Boot,
    stores::{Stores, open_stores},
};
use crate::{
    app::{keys::SEALING_KEY, watch::StoreWatch},
    config::{
        Config, ShutdownConfig,
        data_dir::{DataDir, DataDirError, Ports, write_private},
    },
    edge::{
        dev_cert::{self, DevelopmentCertificateError},
        http::{self, ApiState, idempotency::Answers, rate::Rates},
        tls::{ClientChains, ServerTls, TlsError},
    },
    service::{
        account::AccountService,
        app::AppService,
        auth::{AppAuthenticator, AuthError, Bootstrap, DeviceAuthenticator, TokenAuthenticator},
        changes::Changes,
        cluster::Cluster,
        delivery::{DeliveryParts, DeliveryService},
        link::{FileUrls, LinkSigner},
        presence::Presence,
        registration::{RegistrationError, RegistrationParts, RegistrationService},
        registry::RegistryService,
        resource::{ResourceError, ResourceService},
        seal::{SealError, Sealer},
        uplink::{Uplink, UplinkParts},
        upload::{UploadParts, UploadService},
        will::Wills,
    },
    session::{Node, NodeParts, SessionTable},
    shutdown::{self, Shutdown},
    store::{StoreError, registry::Registry, sessions::SessionStore},
    telemetry::{health::Readiness, metrics::Metrics},
};

/// Name of the registry's setting that holds the sealed key of file addresses.
const LINK_KEY: &str = "file_link_key";

/// Why the gateway cannot start; the message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Secrets cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Authentication cannot be set up.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Batches of devices cannot be gone on with.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// Resources cannot be opened.
    #[error(transparent)]
    Resources(#[from] ResourceError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No development certificate can be made.
    #[error(transparent)]
    DevelopmentCertificate(#[from] DevelopmentCertificateError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}: {source}")]
    Listen {
        /// For what.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// SIGHUP cannot be taken over.
    #[error("no signals: {0}")]
    Signals(#[source] io::Error),
    /// DTLS cannot be spoken as the configuration says.
    #[cfg(feature = "coaps")]
    #[error(transparent)]
    Coaps(#[from] crate::edge::coap::SecureError),
    /// DTLS cannot be spoken at all.
    #[cfg(not(feature = "coaps"))]
    #[error("coaps.listen is set, and this build cannot speak DTLS: 5684 is off")]
    NoCoaps,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

impl StartError {
    /// Whether only another configuration helps.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Store(StoreError::Refused(_)))
    }
}

/// What the first start made; shown once, and kept in files that only this user reads.
#[derive(Debug)]
pub struct FirstStart {
    /// The credentials.
    pub credentials: Bootstrap,
    /// The file with the operator's password.
    pub password_file: PathBuf,
    /// The file with the API token.
    pub token_file: PathBuf,
    /// The CA that devices are to trust, where the certificate is a development one.
    pub ca_file: Option<PathBuf>,
    /// Where the operator signs in, seen from this machine.
    pub console: Option<String>,
}

/// The running gateway.
#[derive(Debug)]
pub struct App {
    /// Held until the end: no second process may use the directory.
    _data_dir: DataDir,
    first_start: Option<FirstStart>,
    ports: Ports,
    /// Listeners and connections, which end before the rest.
    pub(super) edges: Shutdown,
    pub(super) shutdown_config: ShutdownConfig,
    pub(super) readiness: Readiness,
    pub(super) metrics: Metrics,
    pub(super) registry: Registry,
    pub(super) sessions: SessionStore,
    pub(super) delivery: DeliveryService,
    pub(super) presence: Presence,
    pub(super) tokens: TokenAuthenticator,
    pub(super) node: Arc<Node>,
    pub(super) cluster: Option<Cluster>,
}

impl App {
    /// Opens everything and lets the first device in.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left open then.
    pub async fn start(
        Boot { config, reread }: Boot,
        shutdown: &Shutdown,
    ) -> Result<Self, StartError> {
        let data_dir = DataDir::open(&config.data_dir)?;
        let metrics = Metrics::new();
        let (tls, ca_file) = load_tls(&config, &data_dir)?;
        let sealer = Sealer::open_or_create(&data_dir.join(SEALING_KEY))?;
        let stores = open_stores(&config, &data_dir).await?;
        let (readiness, edges) = (Readiness::new(), Shutdown::new());
        let (cluster, nodes, reloads) =
            cluster::open(&config, &stores, &readiness, &metrics, shutdown).await?;
        sealer.bind(&stores.registry).await?;
        let tokens = open_tokens(&config, &stores);
        // Before credentials are made: a taken address must not cost their one showing.
        let listeners = Listeners::bind(&config).await?;
        let ports = listeners.ports();
        let first_start = first_start(&config, &ports, &tokens, &data_dir, ca_file).await?;
        let urls = file_urls(&config, &stores, &sealer, &ports).await?;
        let delivery = open_delivery(&config, &stores, urls.clone(), &metrics, shutdown).await?;
        let resources = open_resources(&config, &stores).await?;
        let uploads = open_uploads(&config, &stores, urls, &metrics, &data_dir, shutdown).await?;
        let authenticator = open_authenticator(&config, &stores, &sealer, &metrics)?;
        let (apps, app_authenticator, uplink, wills) =
            open_apps(&config, &stores, &metrics, shutdown).await?;
        let presence = Presence::new(stores.registry.clone(), &metrics);
        let node = Arc::new(Node::new(NodeParts {
            authenticator: authenticator.clone(),
            app_authenticator,
            delivery: delivery.clone(),
            uploads: uploads.clone(),
            uplink: uplink.clone(),
            wills,
            presence: presence.clone(),
            mqtt: config.mqtt.clone(),
            applications: config.applications.clone(),
            shutdown: config.shutdown.clone(),
            rates: config.rates.clone(),
            delivery_config: config.delivery.clone(),
            metrics: metrics.clone(),
        }));
        connect_links(&node.table, &delivery, &uploads, &uplink);
        let registration =
            open_registration(&config, &data_dir, &stores, &sealer, &metrics, shutdown).await?;
        let changes = Changes::over(cluster.clone());
        let operators = console::sessions(&config, &stores, &tokens);
        let told = (cluster.as_ref(), &nodes, &node, &operators);
        let directory = cluster::hear(told, &stores.registry, &config.shutdown, shutdown).await?;
        let api = ApiState {
            accounts: AccountService::new(stores.registry.clone(), tokens.clone()),
            nodes,
            rates: Rates::new(&config.http),
            authenticator: authenticator.clone(),
            registry: RegistryService::new(stores.registry.clone(), sealer.clone(), authenticator)
                .with_watch(Arc::<SessionTable>::clone(&node.table))
                .with_uplink(uplink.clone())
                .with_changes(changes.clone()),
            registration,
            resources,
            uploads: uploads.clone(),
            delivery: delivery.clone(),
            sessions: Arc::clone(&node.table),
            directory,
            apps: apps.with_changes(changes),
            uplink,
            requests: node.requests.clone(),
            tokens: tokens.clone(),
            limits: limits(&config),
            shutdown: edges.clone(),
            answers: Answers::default(),
        };
        spawn_upkeep(&node, &presence, &tokens, shutdown);
        watch_stores(&stores, &readiness, &metrics, shutdown);
        let served = Served {
            console: console::open(&config, operators, &api, &metrics, &readiness),
            api,
            node: Arc::clone(&node),
            place: cluster.as_ref().map_or(0, Cluster::place),
            sealer,
            readiness: readiness.clone(),
            reloads,
            reread,
            edges: edges.clone(),
        };
        listeners.serve(&config, &tls, served, shutdown)?;
        data_dir.write_ports(&ports)?;
        readiness.started();
        Ok(Self {
            _data_dir: data_dir,
            first_start,
            ports,
            edges,
            shutdown_config: config.shutdown,
            readiness,
            metrics,
            registry: stores.registry,
            sessions: stores.sessions,
            delivery,
            presence,
            tokens,
            node,
            cluster,
        })
    }

    /// What the first start made; `None` on every later one.
    pub fn first_start(&self) -> Option<&FirstStart> {
        self.first_start.as_ref()
    }

    /// The addresses that are listened on.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }
}

fn open_tokens(config: &Config, stores: &Stores) -> TokenAuthenticator {
    TokenAuthenticator::new(stores.registry.clone(), config.auth.max_password_checks)
}

fn open_authenticator(
    config: &Config,
    stores: &Stores,
    sealer: &Sealer,
    metrics: &Metrics,
) -> Result<DeviceAuthenticator, AuthError> {
    let (registry, sealer) = (stores.registry.clone(), sealer.clone());
    let authenticator = DeviceAuthenticator::new(registry, sealer, &config.auth, metrics)?;
    authenticator.connect_chains(Arc::new(ClientChains::default()));
    Ok(authenticator)
}

/// Asks the stores again and again whether they answer.
fn watch_stores(stores: &Stores, readiness: &Readiness, metrics: &Metrics, shutdown: &Shutdown) {
    StoreWatch::new(
        stores.registry.clone(),
        stores.sessions.clone(),
        stores.blobs.clone(),
        readiness,
        metrics,
        shutdown::watchdog(),
    )
    .spawn(shutdown);
}

/// Says how the sessions of devices are reached.
fn connect_links(
    links: &Arc<SessionTable>,
    delivery: &DeliveryService,
    uploads: &UploadService,
    uplink: &Uplink,
) {
    delivery.connect_links(Arc::<SessionTable>::clone(links));
    uploads.connect_links(Arc::<SessionTable>::clone(links));
    uplink.connect_links(Arc::<SessionTable>::clone(links));
}

/// What a request to the API may bring.
fn limits(config: &Config) -> http::Limits {
    http::Limits::new(
        &config.http,
        &config.mqtt,
        &config.resources,
        &config.delivery,
        &config.applications,
    )
}

/// The configured certificate, or the development one.
fn load_tls(
    config: &Config,
    data_dir: &DataDir,
) -> Result<(ServerTls, Option<PathBuf>), StartError> {
    let tickets = config.tls.tickets;
    if let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.key) {
        return Ok((ServerTls::load(certificate, key, tickets)?, None));
    }
    let made = dev_cert::ensure(&data_dir.join("tls"), SystemTime::now())?;
    let tls = ServerTls::load(&made.certificate, &made.key, tickets)?;
    Ok((tls, Some(made.ca)))
}

/// Applications, and the way of messages between them and devices.
async fn open_apps(
    config: &Config,
    stores: &Stores,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<(AppService, AppAuthenticator, Uplink, Wills), StoreError> {
    let authenticator = AppAuthenticator::new(stores.registry.clone());
    let parts = UplinkParts {
        registry: stores.registry.clone(),
        sessions: stores.sessions.clone(),
        authenticator: authenticator.clone(),
        applications: config.applications.clone(),
        mailbox: config.mailbox.clone(),
        retained: config.retained.clone(),
        max_persistent: config.sessions.max_persistent,
        metrics: metrics.clone(),
    };
    let uplink = Uplink::start(parts, shutdown).await?;
    let apps = AppService::new(
        stores.registry.clone(),
        authenticator.clone(),
        uplink.clone(),
        config.applications.clone(),
        shutdown.clone(),
    );
    let wills = Wills::start(
        uplink.clone(),
        stores.sessions.clone(),
        config.will.clone(),
        metrics,
        shutdown,
    )
    .await?;
    Ok((apps, authenticator, uplink, wills))
}

/// Resources; blobs that no record names are removed here, before uploads make new ones.
async fn open_resources(config: &Config, stores: &Stores) -> Result<ResourceService, StartError> {
    let (registry, blobs) = (stores.registry.clone(), stores.blobs.clone());
    Ok(ResourceService::open(registry, blobs, config.resources.clone()).await?)
}

async fn open_delivery(
    config: &Config,
    stores: &Stores,
    urls: FileUrls,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<DeliveryService, StartError> {
    let parts = DeliveryParts {
        registry: stores.registry.clone(),
        sessions: stores.sessions.clone(),
        blobs: stores.blobs.clone(),
        urls,
        config: config.delivery.clone(),
        retention: config.retention.clone(),
        metrics: metrics.clone(),
    };
    Ok(DeliveryService::start(parts, shutdown).await?)
}

async fn open_uploads(
    config: &Config,
    stores: &Stores,
    urls: FileUrls,
    metrics: &Metrics,
    data_dir: &DataDir,
    shutdown: &Shutdown,
) -> Result<UploadService, StartError> {
    let parts = UploadParts {
        registry: stores.registry.clone(),
        blobs: stores.blobs.clone(),
        urls,
        config: config.uploads.clone(),
        metrics: metrics.clone(),
    };
    Ok(UploadService::start(parts, &data_dir.join("spool"), shutdown).await?)
}

/// What makes the addresses that devices are told.
async fn file_urls(
    config: &Config,
    stores: &Stores,
    sealer: &Sealer,
    ports: &Ports,
) -> Result<FileUrls, StartError> {
    advice::check_addresses(&stores.registry, &config.files).await?;
    Ok(FileUrls::new(
        link_signer(&stores.registry, sealer).await?,
        config.files.public_url.clone(),
        ports.files,
        config.files.url_lifetime,
    ))
}

async fn first_start(
    config: &Config,
    ports: &Ports,
    tokens: &TokenAuthenticator,
    data_dir: &DataDir,
    ca_file: Option<PathBuf>,
) -> Result<Option<FirstStart>, StartError> {
    let (password_file, token_file) = (data_dir.join("admin.password"), data_dir.join("api.token"));
    let credentials = tokens
        .bootstrap(|made| {
            write_private(&password_file, format!("{}\n", *made.password).as_bytes())
                .map_err(io::Error::other)?;
            write_private(&token_file, format!("{}\n", *made.token).as_bytes())
                .map_err(io::Error::other)
        })
        .await?;
    Ok(credentials.map(|credentials| FirstStart {
        credentials,
        password_file,
        token_file,
        ca_file,
        console: console::address(config, ports),
    }))
}

async fn open_registration(
    config: &Config,
    data_dir: &DataDir,
    stores: &Stores,
    sealer: &Sealer,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<RegistrationService, RegistrationError> {
    let parts = RegistrationParts {
        registry: stores.registry.clone(),
        sealer: sealer.clone(),
        spool: data_dir.join("device-batches"),
        config: config.registration.clone(),
        metrics: metrics.clone(),
    };
    RegistrationService::start(parts, shutdown).await
}

/// The signer of file addresses, whose sealed key is the registry's: one for all nodes.
async fn link_signer(registry: &Registry, sealer: &Sealer) -> Result<LinkSigner, StartError> {
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh).map_err(|_| StartError::Random)?;
    let sealed = registry
        .setting_or_insert(LINK_KEY, &sealer.seal(LINK_KEY, &fresh)?)
        .await?;
    let key = sealer.open(LINK_KEY, &sealed)?;
    let key: [u8; 32] = key.as_slice().try_into().map_err(|_| StoreError::Corrupt {
        column: "setting.value",
        reason: "the key of file addresses has the wrong length".to_owned(),
    })?;
    Ok(LinkSigner::new(key))
}

/// Starts what runs beside the listeners.
fn spawn_upkeep(
    node: &Arc<Node>,
    presence: &Presence,
    tokens: &TokenAuthenticator,
    shutdown: &Shutdown,
) {
    let (logins, stop) = (node.authenticator.clone(), shutdown.token().clone());
    shutdown.spawn(async move { stop.run_until_cancelled(logins.throttle().run()).await });
    let (node, stop) = (Arc::clone(node), shutdown.token().clone());
    shutdown.spawn(async move { stop.run_until_cancelled(node.slots.run()).await });
    let (presence, stop) = (presence.clone(), shutdown.token().clone());
    shutdown.spawn(async move { stop.run_until_cancelled(presence.run()).await });
    let (tokens, stop) = (tokens.clone(), shutdown.token().clone());
    shutdown.spawn(async move { stop.run_until_cancelled(tokens.run()).await });
}
