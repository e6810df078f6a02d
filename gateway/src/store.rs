//! What must last: the registry of record, transfer cursors, blobs and unfinished uploads.
//!
//! Stores know records and bytes, no rules: only services call them. Each owns its files or its database
//! and nothing else.

pub mod blobs;
#[cfg(test)]
mod contract;
mod hash;
pub mod registry;
pub mod sessions;
pub mod spool;

use std::io;

use crate::model::{InvalidPage, NoRandomness};

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such record.
    #[error("no such {what}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
    },
    /// A unique value is taken.
    #[error("{what} is taken by {with}")]
    Conflict {
        /// The value that must be unique.
        what: &'static str,
        /// The record that has it.
        with: String,
    },
    /// The record cannot go while others need it.
    #[error("{what} is in use by {by}")]
    InUse {
        /// The record.
        what: &'static str,
        /// What needs it.
        by: String,
    },
    /// The record is not any more as whoever wants to change it read it.
    #[error("the {what} was changed meanwhile")]
    Stale {
        /// The record.
        what: &'static str,
    },
    /// More than the quota allows.
    #[error("more than the quota of {limit} {unit}")]
    Quota {
        /// What is counted: `resources` or `bytes`.
        unit: &'static str,
        /// How much may be.
        limit: u64,
    },
    /// A page's cursor is wrong.
    #[error(transparent)]
    Page(#[from] InvalidPage),
    /// A stored value is not what this version writes.
    #[error("stored {column} cannot be read: {reason}")]
    Corrupt {
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The database's address is none that this build can use.
    #[error("registry {0:?} is not supported: expected sqlite: or postgres:")]
    Unsupported(String),
    /// A store cannot be used as it is configured, and waiting does not help; the sentence says what to do.
    #[error("{0}")]
    Refused(String),
    /// The database refused or is away.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables could not be brought to this version's form.
    #[error("migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The store of sessions refused or is away.
    #[error("sessions: {0}")]
    Sessions(#[from] redis::RedisError),
    /// This node's lease has ended: it must not change the sessions until it has another one.
    #[error("sessions: the lease of this node has ended")]
    Fenced,
    /// The blob store refused or is away.
    #[error("blobs: {0}")]
    Blobs(#[from] object_store::Error),
    /// A blob writer was used after a failed or cancelled write.
    #[error("blob writer was interrupted")]
    Interrupted,
    /// No random number for an id.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// A file or directory of the store.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the same may be done when it is asked for again: a database was away, or was in somebody's way.
    pub fn may_pass(&self) -> bool {
        let Self::Database(error) = self else {
            return false;
        };
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => true,
            // By PostgreSQL's classes: connections, transactions that met, resources, an operator at work, the system;
            // a standby that was not made the primary yet, and a lock that was not had in time.
            sqlx::Error::Database(told) => told.code().is_some_and(|code| {
                matches!(code.get(..2), Some("08" | "40" | "53" | "57" | "58"))
                    || matches!(&*code, "25006" | "55P03")
            }),
            _ => false,
        }
    }
}
