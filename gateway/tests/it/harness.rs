//! A real gateway to test against: real sockets, real TLS, real stores in a temporary directory.
//!
//! [`Gateway`] runs the program's own start and end, in this process or as one of its own; [`Client`]
//! is a device on the wire, well behaved or not. Nothing here sleeps: what is waited for is looked
//! at until it is there, up to [`PATIENCE`].

mod client;
mod coap;
mod command;
mod daemon;
mod events;
mod failover;
mod gateway;
mod http;
mod identity;
mod postgres;
mod proxy;
mod redis;
mod s3;
mod sdk;
mod transfer;
mod upload;

use std::{future::Future, time::Duration};

use sha2::{Digest as _, Sha256};
use tokio::time::{MissedTickBehavior, interval, timeout};

pub(crate) use self::{
    client::{Client, Login, connect, payload_json, publish, subscribe},
    coap::{Coap, json_of},
    command::{Printed, need, run, run_for},
    daemon::{Daemon, log_of},
    events::{Event, Events},
    gateway::{App, Device, Gateway, Site},
    http::{Answer, fetch},
    identity::{Authority, Identity, listens_for_requests},
    postgres::Postgres,
    proxy::{Proxy, Target},
    redis::Redis,
    s3::S3,
    sdk::{Library, Sdk, library, library_or_path},
    transfer::{Announced, chunk_of},
    upload::{Sending, announcement, md5},
};

/// How long anything may take on a machine that is busy with all other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again until there is something.
pub(crate) async fn until<T, F>(what: &str, look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    until_in(PATIENCE, what, look).await
}

/// The same, for what may take so long.
pub(crate) async fn until_in<T, F>(patience: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let looking = async {
        let mut turn = interval(Duration::from_millis(10));
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    timeout(patience, looking).await.expect(what)
}

/// Bytes that differ from place to place, so that a misplaced chunk is seen.
pub(crate) fn content(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        })
        .collect()
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The memory that this process holds, in bytes.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    let kib: u64 = line
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number");
    kib * 1024
}
