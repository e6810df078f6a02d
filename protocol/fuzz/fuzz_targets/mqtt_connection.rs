//! Sequences of operations on a connection: packets of a client, and what a server does.
//!
//! The body stands in `headgate_protocol::mqtt::fuzz`, where ordinary tests replay the corpus.

#![no_main]

use std::time::Instant;

use headgate_protocol::mqtt::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::connection(Instant::now(), data));
