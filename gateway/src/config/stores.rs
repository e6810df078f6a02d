//! Settings of where things are kept: the registry, the sessions, the blobs.

use super::{
    section::section,
    setting::{Count, Hidden, Optional, Secret},
};

section! {
    /// The registry of record: products, devices, resources, tasks, deliveries.
    pub struct RegistryConfig in "registry" {
        /// Where it is: nothing for SQLite in the data directory, `sqlite:///an/absolute/path`, or
        /// `postgres://user:password@host/database` (see docs/cluster.md).
        url: Option<Secret> = None, Optional(Hidden, "");
        /// Connections that read; one more writes. Each costs about 2 MB of page cache, or a process of PostgreSQL.
        read_connections: u32 = 4, Count(1..=64);
    }
}

section! {
    /// The state of device sessions and transfers.
    pub struct SessionsConfig in "sessions" {
        /// Sessions of devices and applications that outlive their connections; each costs about 300 bytes of memory.
        /// Beyond them a client gets one that ends with its connection.
        max_persistent: usize = 100_000, Count(1..=10_000_000);
        /// Where it is: nothing for SQLite in the data directory, in a file of its own.
        url: Option<Secret> = None, Optional(Hidden, "");
    }
}

section! {
    /// The bytes of resources.
    pub struct BlobsConfig in "blobs" {
        /// Where they are: nothing for files in the data directory.
        url: Option<Secret> = None, Optional(Hidden, "");
    }
}
