//! The registry's tables, as numbered SQL files in the binary.
//!
//! A file that was released never changes: its checksum is kept in the database and checked at each start.

use sqlx::SqlSafeStr as _;
use sqlx::{
    AnyPool,
    migrate::{Migration, MigrationType, Migrator},
};

use crate::store::StoreError;

/// Applies what the database does not have yet, each file in one transaction.
pub(super) async fn run(pool: &AnyPool) -> Result<(), StoreError> {
    let migrations = FILES
        .iter()
        .map(|&(version, name, text)| {
            Migration::new(
                version,
                name.into(),
                MigrationType::Simple,
                text.into_sql_str(),
                false,
            )
        })
        .collect();
    Ok(Migrator::with_migrations(migrations).run(pool).await?)
}

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
];
