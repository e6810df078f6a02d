//! What every message and every chunk costs in this crate, one path a run, so often as is asked.
//!
//! `hot_paths PATH TIMES`: run by `protocol/hot_paths.py`, which counts the instructions of two runs and takes the
//! difference: start and end of the process are in neither. Nothing here depends on time, addresses or randomness.

use std::hint::black_box;
use std::process::ExitCode;

use bytes::{Bytes, BytesMut};
use headgate_protocol::credential::Claim;
use headgate_protocol::mqtt::{
    ConnAck, Decoder, Limits, Packet, PacketId, ProtocolVersion, PubAck, Publish, QoS, Role,
    SubscriptionIndex, TopicFilter, TopicName, encode_publish_header,
};
use headgate_protocol::transfer::window::{Ask, Pump};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (path, times) = (arguments.next(), arguments.next());
    let times: u32 = times.and_then(|times| times.parse().ok()).unwrap_or(0);
    match path.as_deref() {
        Some("publish_header") => publish_header(times),
        Some("publish_decode") => decode(times, &publish()),
        Some("puback_decode") => decode(times, &puback()),
        Some("puback_encode") => puback_encode(times),
        Some("pump_step") => pump_step(times),
        Some("index_match") => index_match(times),
        Some("claim_read") => claim_read(times),
        _ => return ExitCode::from(64),
    }
    ExitCode::SUCCESS
}

/// The head of a chunk, as each device is sent it.
fn publish_header(times: u32) {
    let mut buf = BytesMut::with_capacity(256);
    for _ in 0..times {
        buf.clear();
        let id = PacketId::new(7);
        let version = ProtocolVersion::V311;
        let (topic, qos) = (black_box(TOPIC), QoS::AtLeastOnce);
        encode_publish_header(&mut buf, version, topic, qos, id, false, false, 16_384)
            .expect("a packet within all limits");
        black_box(&buf);
    }
}

fn publish() -> Packet {
    let topic: TopicName = TOPIC.parse().expect("a valid topic");
    let mut publish = Publish::new(topic, Bytes::from(vec![0x5a; 256]));
    publish.qos = QoS::AtLeastOnce;
    publish.packet_id = PacketId::new(7);
    Packet::Publish(publish)
}

fn puback() -> Packet {
    Packet::PubAck(PubAck::new(PacketId::MIN))
}

/// A packet as it comes.
fn decode(times: u32, packet: &Packet) {
    let mut decoder = Decoder::new(Role::Client, Limits::default());
    decoder.set_version(ProtocolVersion::V311);
    // A server's first packet is CONNACK.
    let mut first = encoded(&Packet::ConnAck(ConnAck::accepted(false)));
    decoder.decode(&mut first).expect("our own");
    let encoded = encoded(packet);
    let mut buf = BytesMut::with_capacity(1_024);
    for _ in 0..times {
        buf.clear();
        buf.extend_from_slice(&encoded);
        black_box(decoder.decode(&mut buf).expect("our own"));
    }
}

fn puback_encode(times: u32) {
    let packet = puback();
    let mut buf = BytesMut::with_capacity(64);
    for _ in 0..times {
        buf.clear();
        let packet = black_box(&packet);
        packet
            .encode(ProtocolVersion::V311, &mut buf)
            .expect("a packet within all limits");
        black_box(&buf);
    }
}

/// One acknowledgement and the chunk that it makes room for.
fn pump_step(times: u32) {
    let start = || {
        let ask = Ask::Window(8);
        Pump::start(u64::from(u32::MAX), 0, 15_360, &ask, 131_072, u16::MAX).expect("in range")
    };
    let mut pump = start();
    let mut oldest = pump.next_chunk();
    for _ in 0..times {
        let Some(chunk) = oldest else {
            pump = start();
            oldest = pump.next_chunk();
            continue;
        };
        pump.on_acknowledged(chunk);
        oldest = black_box(pump.next_chunk());
    }
}

/// Whose message it is, among a thousand.
fn index_match(times: u32) {
    let mut index = SubscriptionIndex::new();
    for device in 0..1_000_u32 {
        let filter: TopicFilter = format!("P/d{device}/+").parse().expect("a filter");
        index.insert(&filter, device, ());
    }
    for _ in 0..times {
        let mut found = 0_u32;
        index.for_each_match(black_box("P/d500/data"), |_, ()| found += 1);
        black_box(found);
    }
}

/// What a CONNECT says of its sender.
fn claim_read(times: u32) {
    for _ in 0..times {
        let (id, user) = black_box(("product_device_0_0_2026112105", "product_device"));
        black_box(Claim::read(id, Some(user), Some(b"secret")));
    }
}

fn encoded(packet: &Packet) -> BytesMut {
    let mut buf = BytesMut::new();
    packet
        .encode(ProtocolVersion::V311, &mut buf)
        .expect("a packet within all limits");
    buf
}

const TOPIC: &str = "$resource/down/chunk/product/device-00000001/0123456789abcdef/1048576";
