//! What a node says of itself to the others.

use serde::{Deserialize, Serialize};

use crate::model::Millis;

/// The version of what nodes tell each other. Nodes of different versions do not work side by side.
pub const PROTOCOL: u32 = 1;

/// A node in its own words, as of its last beat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeRecord {
    /// Its name.
    pub name: String,
    /// Where operators find it.
    pub address: Option<String>,
    /// The version of the program.
    pub version: String,
    /// The version of what it tells others.
    pub protocol: u32,
    /// When it started, in ms since 1970.
    pub started_at: i64,
    /// How far it is, by the state's name.
    pub state: String,
    /// Devices that are connected to it.
    pub devices: usize,
    /// Sessions of applications by MQTT.
    pub applications: usize,
    /// What is looked at.
    pub checks: Vec<NodeCheck>,
}

/// Something that must be well for a node to be ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCheck {
    /// What.
    pub name: String,
    /// Why it is not well; `None` where it is.
    pub failure: Option<String>,
}

impl NodeRecord {
    /// When it started.
    pub const fn started(&self) -> Millis {
        Millis::from_i64(self.started_at)
    }
}
