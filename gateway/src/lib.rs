//! The gateway: device connections, deliveries, the registry and the API, as one library.
//!
//! Layers, top down; each uses only those below it, and `tests/it/layers.rs` checks that:
//! [`app`] puts everything together; `edge` owns sockets and framing; `session` is one live device;
//! `service` holds the rules; `store` keeps what must last. `config`, `model`, `telemetry` and
//! `shutdown` are leaves that every layer may use.

pub mod app;
pub mod cli;
pub mod config;
pub mod edge;
pub mod model;
pub mod service;
pub mod session;
pub mod shutdown;
pub mod store;
pub mod telemetry;
