//! Sequences of operations on an endpoint of CoAP.
//!
//! The body stands in `headgate_protocol::coap::fuzz`, where ordinary tests replay the corpus.

#![no_main]

use std::time::Instant;

use headgate_protocol::coap::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::endpoint(Instant::now(), data));
