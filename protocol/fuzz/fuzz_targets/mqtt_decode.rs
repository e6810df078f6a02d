//! Streams of MQTT packets from either end, in every version.
//!
//! The body stands in `headgate_protocol::mqtt::fuzz`, where ordinary tests replay the corpus.

#![no_main]

use headgate_protocol::mqtt::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::decode(data));
