//! The state of sessions in Redis, or what speaks its protocol, for the nodes of a gateway.
//!
//! Every change is one script, so it happens whole or not at all, and every key carries the same hash tag, so a script
//! finds its keys in one place also where the server is a cluster. A node that opens the store takes the next number and a
//! lease on it; a script of a node whose lease has ended changes nothing: one that was paused and whose devices are
//! elsewhere cannot spoil what is kept of them there. Invariants: nothing is written without a lease; times are the
//! caller's, but for a claim's, whose epoch is the server's own time.

mod cursor;
pub(super) mod form;
mod mail;
mod nodes;
pub(super) mod persistent;
pub(super) mod retained;
mod script;
mod will;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU16, Ordering},
    },
    time::Duration,
};

use ::redis::{
    Client, ErrorKind, IntoConnectionInfo as _, ProtocolVersion, RedisError, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use self::script::Scripts;
use crate::store::{StoreError, sessions::NodeEntry};

/// Sessions in Redis. Cloning shares the connection.
#[derive(Clone)]
pub(super) struct RedisSessions {
    connection: ConnectionManager,
    /// Only for what waits on the server.
    waiting: ConnectionManager,
    scripts: &'static Scripts,
    /// The hash tag that all keys begin with.
    tag: String,
    /// Whose registry's sessions they are.
    registry: Arc<[u8]>,
    node: Arc<NodeEntry>,
    /// This node's number, until its lease ends.
    number: Arc<AtomicI64>,
    /// Its place among the nodes, which its name keeps.
    place: Arc<AtomicU16>,
}

impl RedisSessions {
    /// Opens the store for the registry of a name, to which what is below the prefix belongs from then on, as a node of
    /// it.
    pub(super) async fn open(
        url: &str,
        prefix: &str,
        registry: &[u8],
        node: NodeEntry,
    ) -> Result<Self, StoreError> {
        let mut connection = connect(url).await?;
        check_server(&mut connection).await?;
        let store = Self {
            connection,
            waiting: connect(url).await?,
            scripts: Scripts::get(),
            tag: format!("{{{prefix}}}"),
            registry: registry.into(),
            node: Arc::new(node),
            number: Arc::default(),
            place: Arc::default(),
        };
        store.own(prefix).await?;
        store.join_at_start().await?;
        Ok(store)
    }

    /// Takes what is below the prefix for this registry, where nobody has.
    async fn own(&self, prefix: &str) -> Result<(), StoreError> {
        let owner = self.key("owner");
        let mut connection = self.connection.clone();
        let (_, found): (Value, Vec<u8>) = ::redis::pipe()
            .set_nx(&owner, &*self.registry)
            .get(&owner)
            .query_async(&mut connection)
            .await
            .map_err(refusal)?;
        if found == *self.registry {
            return Ok(());
        }
        Err(refused(&format!(
            "what is below the prefix {prefix:?} belongs to another registry: give this one a prefix of its own"
        )))
    }

    /// Whether the server answers, and this node has its lease there.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        let held: bool = ::redis::cmd("EXISTS")
            .arg(self.key(&format!("lease:{}", self.number())))
            .query_async(&mut connection)
            .await?;
        if held {
            Ok(())
        } else {
            Err(StoreError::Fenced)
        }
    }

    fn number(&self) -> i64 {
        self.number.load(Ordering::Acquire)
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.tag)
    }

    /// Every field of a hash with its value, in pages, so that the server is never busy with all of them.
    async fn scan(&self, hash: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        let mut connection = self.connection.clone();
        let mut found = std::collections::BTreeMap::new();
        let mut cursor = "0".to_owned();
        loop {
            let (next, page): (String, Vec<Vec<u8>>) = ::redis::cmd("HSCAN")
                .arg(self.key(hash))
                .arg(&cursor)
                .arg("COUNT")
                .arg(PAGE)
                .query_async(&mut connection)
                .await?;
            let mut fields = page.into_iter();
            while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
                found.insert(field, value);
            }
            if next == "0" {
                return Ok(found.into_iter().collect());
            }
            cursor = next;
        }
    }
}

async fn connect(url: &str) -> Result<ConnectionManager, StoreError> {
    let info = url.into_connection_info().map_err(refusal)?;
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3);
    let client = Client::open(info.set_redis_settings(settings)).map_err(refusal)?;
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(ANSWER_TIMEOUT))
        .set_number_of_retries(RETRIES)
        .set_max_delay(LONGEST_DELAY);
    ConnectionManager::new_with_config(client, config)
        .await
        .map_err(refusal)
}

/// A server that can hold sessions: new enough, a primary, throwing nothing away for want of memory. One that writes
/// nothing to its disk is warned of.
async fn check_server(connection: &mut ConnectionManager) -> Result<(), StoreError> {
    let info: String = ::redis::cmd("INFO")
        .query_async(connection)
        .await
        .map_err(refusal)?;
    let of = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let version = of("redis_version").unwrap_or_default();
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    if major.is_none_or(|major: u32| major < MIN_VERSION) {
        return Err(refused(&format!(
            "Redis {version} is too old: {MIN_VERSION} or a newer version is needed"
        )));
    }
    if of("role").is_some_and(|role| role != "master") {
        return Err(refused(
            "the server is a replica that cannot be written to: name the primary",
        ));
    }
    let policy = of("maxmemory_policy").unwrap_or_default();
    if of("maxmemory").is_some_and(|bytes| bytes != "0") && policy != "noeviction" {
        return Err(refused(&format!(
            "with maxmemory-policy {policy} the server throws sessions away: noeviction is needed"
        )));
    }
    if of("aof_enabled") != Some("1") {
        tracing::warn!(
            "the Redis of the sessions has no append-only file: when it restarts, messages that wait, persistent \
             sessions and the progress of transfers are lost"
        );
    }
    Ok(())
}

fn refused(reason: &str) -> StoreError {
    StoreError::Refused(format!("sessions: {reason}"))
}

/// Tells an error that only another configuration ends from one that may pass. The address may carry a password, so
/// none of its parts is told.
fn refusal(error: RedisError) -> StoreError {
    if matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM")) {
        return refused("Redis refuses these credentials");
    }
    match error.kind() {
        ErrorKind::InvalidClientConfig => refused("sessions.url is no address of Redis"),
        ErrorKind::AuthenticationFailed => refused("Redis refuses these credentials"),
        ErrorKind::RESP3NotSupported => refused("the server does not speak RESP3"),
        _ => error.into(),
    }
}

impl std::fmt::Debug for RedisSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSessions")
            .field("tag", &self.tag)
            .field("node", &self.node.name)
            .field("number", &self.number())
            .finish_non_exhaustive()
    }
}

/// The oldest version that is tested with.
const MIN_VERSION: u32 = 7;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a connection is tried again before what waits for it fails.
const RETRIES: usize = 2;
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// Fields of one page of a hash.
const PAGE: usize = 1_000;
/// Arguments of one script at most, about: no script keeps the server from others for long.
const BLOCK: usize = 500;
