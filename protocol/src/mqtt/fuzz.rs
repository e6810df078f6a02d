//! What the fuzzer runs, also as ordinary tests over its corpus; no part of the product.

mod connection;
mod decode;

pub use self::{connection::connection, decode::decode};
