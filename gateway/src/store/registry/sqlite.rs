//! The registry in a SQLite file: one connection writes, so writers queue in order and never see "busy", and others
//! read. The journal is a WAL with `synchronous = FULL`: a committed change survives the loss of power.

use std::{fmt::Write as _, path::Path, str::FromStr as _, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::{
    AnyConnection, ConnectOptions as _, Executor as _,
    any::{AnyConnectOptions, AnyPoolOptions},
};

use super::{Pools, dialect::Dialect, migrations};
use crate::store::StoreError;

/// Opens (and creates, where it is a file that does not exist) the database and brings its tables up to date.
pub(super) async fn open(url: &str, read_connections: u32) -> Result<Pools, StoreError> {
    // No statement is logged: parameters are not, but times and counts belong to the metrics.
    let options = AnyConnectOptions::from_str(url)?.disable_statement_logging();
    let write = pool(1, WRITE_PRAGMAS).connect_with(options.clone()).await?;
    migrations::run(&write, Dialect::Sqlite).await?;
    let read = pool(read_connections, READ_PRAGMAS)
        .connect_with(options)
        .await?;
    Ok(Pools { write, read })
}

/// Brings the tables up to date; says from which version to which.
pub(super) async fn migrate(url: &str) -> Result<(i64, i64), StoreError> {
    let options = AnyConnectOptions::from_str(url)?.disable_statement_logging();
    let write = pool(1, WRITE_PRAGMAS).connect_with(options).await?;
    let changed = migrations::migrate(&write, Dialect::Sqlite).await;
    write.close().await;
    changed
}

/// The address of a SQLite file that is created when it does not exist.
pub fn sqlite_url(path: &Path) -> String {
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_') {
            url.push(char::from(*byte));
        } else {
            // Writing to a string does not fail.
            let _ok = write!(url, "%{byte:02X}");
        }
    }
    url.push_str("?mode=rwc");
    url
}

fn pool(connections: u32, pragmas: &'static str) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .min_connections(1)
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        // A worker thread answers for the connection: asking it first would only cost a round trip.
        .test_before_acquire(false)
        .after_connect(move |connection, _| set(connection, pragmas))
}

fn set<'c>(
    connection: &'c mut AnyConnection,
    pragmas: &'static str,
) -> BoxFuture<'c, Result<(), sqlx::Error>> {
    Box::pin(async move {
        connection.execute(pragmas).await?;
        Ok(())
    })
}

/// How long a statement waits for a connection before it fails: longer than any queue that still makes sense.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

const WRITE_PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
     PRAGMA busy_timeout = 10000; PRAGMA journal_size_limit = 67108864;";
const READ_PRAGMAS: &str =
    "PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 10000; PRAGMA query_only = ON;";
