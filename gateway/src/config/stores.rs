//! Settings of where things are kept: the registry, the sessions, the blobs.

use super::{
    section::section,
    setting::{Count, Hidden, Optional, Secret, Text},
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
        /// Where it is: nothing for SQLite in the data directory, in a file of its own, or `redis://:password@host` beside
        /// a registry on PostgreSQL (see docs/cluster.md).
        url: Option<Secret> = None, Optional(Hidden, "");
        /// In Redis: what the names of all keys begin with; letters, digits, - and _.
        prefix: String = "headgate".to_owned(), Text(32);
    }
}

section! {
    /// The bytes of resources and uploads.
    pub struct BlobsConfig in "blobs" {
        /// Where they are: nothing for files in the data directory, `file:///an/absolute/path`, or `s3://bucket/prefix`
        /// (see docs/cluster.md).
        url: Option<Secret> = None, Optional(Hidden, "");
        /// Of a bucket: where its service is, such as `https://s3.example:9000`; without one it is Amazon's.
        endpoint: Option<String> = None, Optional(Text(255), "");
        /// Of a bucket: its region.
        region: String = "us-east-1".to_owned(), Text(64);
        /// Of a bucket: the id of the key that opens it; without one, what the environment has (`AWS_*`) or the
        /// machine's own role.
        access_key_id: Option<String> = None, Optional(Text(128), "");
        /// Of a bucket: the key.
        secret_access_key: Option<Secret> = None, Optional(Hidden, "");
    }
}
