//! Sockets, framing and HTTP: everything that faces a peer, and no rule of the domain.

pub mod accept;
pub mod coap;
pub mod console;
pub mod dev_cert;
pub mod files;
pub mod http;
pub mod mqtt;
pub mod ops;
pub mod proxy;
pub mod tls;
pub mod web;
