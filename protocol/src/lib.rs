//! What devices and the gateway say to each other, without saying it: no sockets, no clocks, no tasks.
//!
//! Everything here is driven by its caller: bytes and the current time go in, packets, events and
//! deadlines come out. The gateway and the load tester are both built on it, so a rule about the
//! wire is written once. Sources: MQTT 3.1, 3.1.1 and 5.0 (OASIS), CoAP (RFC
//! 7252, 7641, 7959, 7967, 9175), and Headgate's own transfer
//! messages (`docs/devices.md`).
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::as_conversions))]

pub mod coap;
pub mod credential;
pub mod identity;
pub mod mqtt;
pub mod topics;
pub mod transfer;
pub mod vendor;
