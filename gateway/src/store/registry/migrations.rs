//! The registry's tables, as numbered SQL files in the binary.
//!
//! A file that was released never changes: its checksum is kept in the database and checked at each start.

use sqlx::{
    AnyPool, Row as _,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use crate::store::{StoreError, registry::dialect::Dialect};

/// Applies what the database does not have yet, each file in one transaction.
///
/// # Errors
/// [`StoreError::Refused`] for tables of a later version, or of another build.
pub(super) async fn run(pool: &AnyPool, dialect: Dialect) -> Result<(), StoreError> {
    let migrator = migrator(dialect, NEWEST);
    migrator.run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => StoreError::Refused(format!(
            "registry: its tables are of version {version} and this headgate knows {NEWEST}: start \
             the version that made them, or a newer one"
        )),
        MigrateError::VersionMismatch(version) => StoreError::Refused(format!(
            "registry: version {version} of its tables was made by another build of headgate"
        )),
        error => StoreError::Migration(error),
    })
}

/// What makes tables of a version.
pub(super) fn migrator(dialect: Dialect, newest: i64) -> Migrator {
    let migrations = FILES
        .iter()
        .filter(|(version, ..)| *version <= newest)
        .map(|&(version, name, text)| {
            Migration::new(
                version,
                name.into(),
                MigrationType::Simple,
                dialect.tables(text),
                false,
            )
        })
        .collect();
    Migrator::with_migrations(migrations)
}

/// Makes the tables where there are none, and checks those that are there without changing them: other nodes may be
/// at work on them.
///
/// # Errors
/// As of [`run`], and [`StoreError::Refused`] for tables of an older version.
pub(super) async fn run_once(pool: &AnyPool, dialect: Dialect) -> Result<(), StoreError> {
    match newest_applied(pool, dialect).await? {
        Some(version) if version < NEWEST => Err(StoreError::Refused(format!(
            "registry: its tables are of version {version} and this headgate needs {NEWEST}: stop \
             the older one, then run `headgate registry migrate`"
        ))),
        Some(_) | None => run(pool, dialect).await,
    }
}

/// Applies what the database does not have yet; says from which version (0: none) to which it went.
///
/// # Errors
/// As of [`run`].
pub(super) async fn migrate(pool: &AnyPool, dialect: Dialect) -> Result<(i64, i64), StoreError> {
    let before = newest_applied(pool, dialect).await?;
    run(pool, dialect).await?;
    let after = newest_applied(pool, dialect).await?;
    Ok((before.unwrap_or(0), after.unwrap_or(0)))
}

/// The newest version that was applied to the database, if any was.
async fn newest_applied(pool: &AnyPool, dialect: Dialect) -> Result<Option<i64>, StoreError> {
    let table = match dialect {
        Dialect::Sqlite => "SELECT name FROM sqlite_schema WHERE name = '_sqlx_migrations'",
        Dialect::Postgres => "SELECT to_regclass('_sqlx_migrations')::text AS name",
    };
    let row = sqlx::query(table).fetch_optional(pool).await?;
    let name: Option<String> = row.map(|row| row.try_get("name")).transpose()?.flatten();
    if name.is_none() {
        return Ok(None);
    }
    let row = sqlx::query("SELECT MAX(version) AS version FROM _sqlx_migrations")
        .fetch_one(pool)
        .await?;
    Ok(row.try_get("version")?)
}

/// The newest version that this build knows.
pub(super) const NEWEST: i64 = {
    let mut newest = 0;
    let mut index = 0;
    while index < FILES.len() {
        if FILES[index].0 > newest {
            newest = FILES[index].0;
        }
        index += 1;
    }
    newest
};

const FILES: &[(i64, &str, &str)] = &[
    (1, "initial", include_str!("migrations/0001_initial.sql")),
    (2, "identity", include_str!("migrations/0002_identity.sql")),
    (
        3,
        "application",
        include_str!("migrations/0003_application.sql"),
    ),
    (4, "policy", include_str!("migrations/0004_policy.sql")),
    (5, "upload", include_str!("migrations/0005_upload.sql")),
    (6, "login", include_str!("migrations/0006_login.sql")),
    (8, "delivery", include_str!("migrations/0008_delivery.sql")),
    (9, "console", include_str!("migrations/0009_console.sql")),
    (
        11,
        "fingerprint",
        include_str!("migrations/0011_fingerprint.sql"),
    ),
    (12, "account", include_str!("migrations/0012_account.sql")),
    (
        13,
        "device_deliveries",
        include_str!("migrations/0013_device_deliveries.sql"),
    ),
    (
        17,
        "nodes_of_tasks",
        include_str!("migrations/0017_nodes_of_tasks.sql"),
    ),
    (19, "lists", include_str!("migrations/0019_lists.sql")),
    (
        22,
        "upload_claims",
        include_str!("migrations/0022_upload_claims.sql"),
    ),
];
