//! Batches: many devices registered from one file.

use std::fmt;

use headgate_protocol::identity::DeviceId;
use serde::{Deserialize, Serialize};

use crate::model::{id::Id, time::Millis};

/// A file of devices and how far its registration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceBatch {
    /// Its id.
    pub id: Id,
    /// How far it is.
    pub state: BatchState,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// Bytes of the file.
    pub size: u64,
    /// Rows of the file.
    pub total: u32,
    /// Rows that are done, from the first on.
    pub next_row: u32,
    /// How they ended.
    pub counts: RowCounts,
    /// Why the whole batch failed.
    pub error: Option<String>,
    /// Who sent the file.
    pub created_by: String,
    /// When it was there.
    pub created_at: Millis,
    /// When its first row was begun.
    pub started_at: Option<Millis>,
    /// When its last row was done.
    pub finished_at: Option<Millis>,
    /// Until when an ended batch shows the secrets that were made; `None`: it shows none.
    pub secrets_until: Option<Millis>,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// Others are before it.
    Waiting,
    /// Its rows are being registered.
    Running,
    /// Every row is done, well or not.
    Finished,
    /// Its file can no longer be read; the rows before are done.
    Failed,
}

/// How a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowState {
    /// The device was registered.
    Created,
    /// The device was there, as the row says.
    Unchanged,
    /// The row cannot be used.
    Failed,
}

/// How many rows ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Devices that were registered.
    pub created: u32,
    /// Devices that were there, as their rows say.
    pub unchanged: u32,
    /// Rows that cannot be used.
    pub failed: u32,
}

/// What came of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRow {
    /// Place among the rows of the file, from 0.
    pub index: u32,
    /// Line of the file that it begins on, from 1.
    pub line: u32,
    /// How it ended.
    pub state: RowState,
    /// The product as given.
    pub product_id: String,
    /// The node id as given.
    pub node_id: String,
    /// The device; `None` when there is none.
    pub device_id: Option<DeviceId>,
    /// Why it cannot be used.
    pub error: Option<BatchRowError>,
    /// When the device got the secret that was made for it; `None`: none was made.
    pub secret_made_at: Option<Millis>,
}

/// Why a row cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRowError {
    /// Stable code.
    pub code: BatchRowCode,
    /// The reason, for a person; never a secret.
    pub message: String,
}

/// Stable codes of [`BatchRowError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchRowCode {
    /// The row has more cells than the heading.
    MalformedRow,
    /// A cell breaks a rule.
    InvalidField,
    /// There is no such product.
    UnknownProduct,
    /// The device stands on an earlier line.
    Duplicate,
    /// The device is registered, with other data.
    AlreadyExists,
    /// Another device has a string that would name this one.
    AliasTaken,
}

impl DeviceBatch {
    /// Whether it shows the secrets that were made for its devices.
    pub fn shows_secrets(&self, now: Millis) -> bool {
        match self.state {
            BatchState::Waiting | BatchState::Running => true,
            BatchState::Finished | BatchState::Failed => {
                self.secrets_until.is_some_and(|until| now < until)
            }
        }
    }

    /// Whether there is nothing left to do.
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, BatchState::Finished | BatchState::Failed)
    }
}

impl BatchState {
    /// Every state.
    pub const ALL: &'static [Self] = &[Self::Waiting, Self::Running, Self::Finished, Self::Failed];

    /// The state's name as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

impl RowState {
    /// Every state, each at the place that is its number in the registry.
    pub const ALL: &'static [Self] = &[Self::Created, Self::Unchanged, Self::Failed];

    /// The state's name as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

impl BatchRowCode {
    /// Every code.
    pub const ALL: &'static [Self] = &[
        Self::MalformedRow,
        Self::InvalidField,
        Self::UnknownProduct,
        Self::Duplicate,
        Self::AlreadyExists,
        Self::AliasTaken,
    ];

    /// The code as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedRow => "malformed_row",
            Self::InvalidField => "invalid_field",
            Self::UnknownProduct => "unknown_product",
            Self::Duplicate => "duplicate",
            Self::AlreadyExists => "already_exists",
            Self::AliasTaken => "alias_taken",
        }
    }
}

impl RowCounts {
    /// Counts the rows.
    pub fn of<'r>(rows: impl IntoIterator<Item = &'r BatchRow>) -> Self {
        let mut counts = Self::default();
        for row in rows {
            match row.state {
                RowState::Created => counts.created += 1,
                RowState::Unchanged => counts.unchanged += 1,
                RowState::Failed => counts.failed += 1,
            }
        }
        counts
    }
}

impl fmt::Display for RowCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} created, {} unchanged, {} failed",
            self.created, self.unchanged, self.failed
        )
    }
}
