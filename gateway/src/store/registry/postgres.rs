//! The registry in a PostgreSQL database that one gateway has to itself, or the nodes of one share.
//!
//! One connection writes and holds a lock of the database while it is open, so no second gateway changes anything: what a
//! gateway keeps in memory of tasks and applications would be wrong there. Nodes hold that lock together, and each takes
//! another one for each transaction: changes follow one another here as well. Others read. A connection that was not used
//! for a second is asked before it is used again, so that a restart of the server costs no more than the statements
//! that were running. Invariants: nothing is written without the lock; what waits on the server is bounded in time.

use std::{str::FromStr as _, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::{
    AnyConnection, ConnectOptions as _, Connection as _, Executor as _, Row as _,
    any::{AnyConnectOptions, AnyPoolOptions},
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

use super::{Pools, dialect::Dialect, migrations};
use crate::store::StoreError;

/// Connects, makes the tables where there are none, and takes the database for this process.
///
/// # Errors
/// [`StoreError::Refused`] when waiting does not help: wrong credentials, no such database, tables of another version,
/// another gateway at work. Else what the database says.
pub(super) async fn open(
    url: &str,
    read_connections: u32,
    is_shared: bool,
) -> Result<Pools, StoreError> {
    let options = AnyConnectOptions::from_str(url)
        .map_err(refusal)?
        .disable_statement_logging();
    let session = if is_shared {
        SHARED_SESSION
    } else {
        WRITE_SESSION
    };
    check_server(&options, session).await?;
    let write = pool(1, session)
        .connect_with(options.clone())
        .await
        .map_err(refusal)?;
    // Nodes that start together on an empty database wait for the one that makes the tables.
    write.execute(LOCK_TABLES).await.map_err(refusal)?;
    migrations::run_once(&write, Dialect::Postgres).await?;
    write.execute(UNLOCK_TABLES).await?;
    let read = pool(read_connections, READ_SESSION)
        .connect_with(options)
        .await?;
    Ok(Pools { write, read })
}

/// What notices of other nodes come by: a connection that is made when somebody listens.
pub(super) fn listener(url: &str) -> Result<PgPool, StoreError> {
    let options = PgConnectOptions::from_str(url).map_err(refusal)?;
    Ok(PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options.disable_statement_logging()))
}

/// Brings the tables of an older version up to date; says from which version to which.
///
/// # Errors
/// As of [`open`].
pub(super) async fn migrate(url: &str) -> Result<(i64, i64), StoreError> {
    let options = AnyConnectOptions::from_str(url)
        .map_err(refusal)?
        .disable_statement_logging();
    check_server(&options, WRITE_SESSION).await?;
    let write = pool(1, MIGRATE_SESSION)
        .connect_with(options)
        .await
        .map_err(refusal)?;
    let changed = migrations::migrate(&write, Dialect::Postgres).await;
    write.close().await;
    changed
}

/// A server that can hold the registry: of a version that is tested, writable, its texts in UTF-8; and nobody else at
/// work on it. Asked on a connection of its own: a pool would try again until its time is over.
async fn check_server(
    options: &AnyConnectOptions,
    session: &'static str,
) -> Result<(), StoreError> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, AnyConnection::connect_with(options));
    let mut connection = connecting
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(refusal)?;
    let row = sqlx::query(SERVER).fetch_one(&mut connection).await?;
    let version: i32 = row.try_get("version")?;
    let (encoding, standby): (String, i32) = (row.try_get("encoding")?, row.try_get("standby")?);
    let refused = |reason: String| Err(StoreError::Refused(format!("registry: {reason}")));
    if version < MIN_VERSION {
        return refused(format!(
            "PostgreSQL {} is too old: {} or a newer version is needed",
            version / 10_000,
            MIN_VERSION / 10_000
        ));
    }
    if encoding != "UTF8" {
        return refused(format!(
            "the database's encoding is {encoding}: UTF8 is needed"
        ));
    }
    if standby != 0 {
        return refused(
            "the server is a standby that cannot be written to: name the primary".to_owned(),
        );
    }
    set(&mut connection, session).await.map_err(refusal)?;
    // The lock goes with it, for the connection that writes.
    Ok(connection.close().await?)
}

/// Tells an error that only another configuration ends from one that may pass. The address may carry a password, so
/// none of its parts is told.
fn refusal(error: sqlx::Error) -> StoreError {
    let reason = match &error {
        sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) => Some(format!("{error}")),
        sqlx::Error::Database(database) => match database.code().as_deref() {
            Some(LOCK_NOT_AVAILABLE) => Some(
                "another gateway is at work on this database: stop it, or give each a database of its own"
                    .to_owned(),
            ),
            // Invalid authorization, invalid catalog name, insufficient privilege.
            Some("28000" | "28P01" | "3D000" | "42501") => {
                Some(format!("PostgreSQL refused: {}", database.message()))
            }
            _ => None,
        },
        _ => None,
    };
    match reason {
        Some(reason) => StoreError::Refused(format!("registry: {reason}")),
        None => error.into(),
    }
}

fn pool(connections: u32, session: &'static str) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .min_connections(1)
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > ASKED_AFTER {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection, _| set(connection, session))
}

/// Runs statements that have no values.
fn set<'c>(
    connection: &'c mut AnyConnection,
    statements: &'static str,
) -> BoxFuture<'c, Result<(), sqlx::Error>> {
    Box::pin(async move {
        connection.execute(statements).await?;
        Ok(())
    })
}

/// The oldest version that is tested with.
const MIN_VERSION: i32 = 130_000;
/// How long the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a statement waits for a connection before it fails, a new connection included.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may rest and still be used without being asked.
const ASKED_AFTER: Duration = Duration::from_secs(1);
/// The server's code for a lock that was not had within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

const SERVER: &str = "SELECT current_setting('server_version_num')::int4 AS version, \
     current_setting('server_encoding') AS encoding, pg_is_in_recovery()::int4 AS standby";

/// The lock's name is "head" and a number; it goes with the connection. A commit is on the server's disk before it is
/// answered, whatever the server's own default, and a connection that is gone holds nothing for longer than 20 s.
macro_rules! write_session {
    ($lock:literal, $statement_timeout:literal) => {
        concat!(
            "SET client_min_messages = warning; SET default_transaction_isolation = 'read committed'; \
             SET default_transaction_read_only = off; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') IN ('off', 'local'); \
             SET idle_in_transaction_session_timeout = '20s'; SET tcp_keepalives_idle = 5; \
             SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 20000; \
             SET lock_timeout = '5s'; SELECT ",
            $lock,
            "(1751474532, 1); SET statement_timeout = ",
            $statement_timeout
        )
    };
}
const WRITE_SESSION: &str = write_session!("pg_advisory_lock", "'60s'");
/// Of a node: a transaction waits for those of the others, as long as a statement may take. One that stands still in the
/// middle of a change holds up the others no longer than 5 s.
const SHARED_SESSION: &str = write_session!(
    "pg_advisory_lock_shared",
    "'60s'; SET lock_timeout = '60s'; SET idle_in_transaction_session_timeout = '5s'"
);
/// A change of a large table takes the time that it takes.
const MIGRATE_SESSION: &str = write_session!("pg_advisory_lock", "0");
/// Held while tables are made or looked at.
const LOCK_TABLES: &str = "SELECT pg_advisory_lock(1751474532, 3)";
const UNLOCK_TABLES: &str = "SELECT pg_advisory_unlock(1751474532, 3)";
const READ_SESSION: &str = "SET client_min_messages = warning; SET default_transaction_read_only = on; \
     SET statement_timeout = '60s'; SET idle_in_transaction_session_timeout = '20s'; \
     SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;";
