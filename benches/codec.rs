//! What every delivered chunk costs in the protocol crate: header out, packet in, PUBACK, one step
//! of the pump.
//!
//! Run by `cargo bench -p headgate-benches`.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput};
use headgate_protocol::mqtt::{
    ConnAck, Decoder, Limits, Packet, PacketId, ProtocolVersion, PubAck, Publish, QoS, Role,
    TopicName, encode_publish_header,
};
use headgate_protocol::transfer::window::{Ask, Pump};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    encode_header(&mut criterion);
    decode_publish(&mut criterion);
    decode_puback(&mut criterion);
    pump_step(&mut criterion);
    criterion.final_summary();
}

fn encode_header(criterion: &mut Criterion) {
    let mut buf = BytesMut::with_capacity(256);
    criterion.bench_function("publish/encode_header", |bencher| {
        bencher.iter(|| {
            buf.clear();
            encode_publish_header(
                &mut buf,
                ProtocolVersion::V311,
                black_box(TOPIC),
                QoS::AtLeastOnce,
                PacketId::new(7),
                false,
                false,
                CHUNK_BYTES,
            )
            .expect("a packet within all limits");
            black_box(&buf);
        });
    });
}

fn decode_publish(criterion: &mut Criterion) {
    let topic: TopicName = TOPIC.parse().expect("a valid topic");
    let mut publish = Publish::new(topic, Bytes::from(vec![0x5a; CHUNK_BYTES]));
    publish.qos = QoS::AtLeastOnce;
    publish.packet_id = PacketId::new(7);
    let encoded = encode(&Packet::Publish(publish));
    let mut group = criterion.benchmark_group("publish");
    group.throughput(Throughput::Bytes(encoded.len() as u64));
    group.bench_function("decode_16k", |bencher| decode(bencher, &encoded));
    group.finish();
}

fn decode_puback(criterion: &mut Criterion) {
    let packet_id = PacketId::new(7).expect("not zero");
    let encoded = encode(&Packet::PubAck(PubAck::new(packet_id)));
    criterion.bench_function("puback/decode", |bencher| decode(bencher, &encoded));
    let puback = PubAck::new(packet_id);
    let packet = Packet::PubAck(puback);
    let mut buf = BytesMut::with_capacity(64);
    criterion.bench_function("puback/encode", |bencher| {
        bencher.iter(|| {
            buf.clear();
            black_box(&packet)
                .encode(ProtocolVersion::V311, &mut buf)
                .expect("a packet within all limits");
            black_box(&buf);
        });
    });
}

/// One acknowledgement and the chunk that it makes room for.
fn pump_step(criterion: &mut Criterion) {
    criterion.bench_function("pump/step", |bencher| {
        let mut pump = full_pump();
        let mut oldest = pump.next_chunk();
        bencher.iter(|| {
            let Some(chunk) = oldest else {
                // The file is at its end: the next one.
                pump = full_pump();
                oldest = pump.next_chunk();
                return;
            };
            pump.on_acknowledged(chunk);
            oldest = black_box(pump.next_chunk());
        });
    });
}

fn full_pump() -> Pump {
    let size = u64::from(u32::MAX);
    let chunk_bytes = 15_360;
    let window_bytes = 131_072;
    let ask = Ask::Window(8);
    Pump::start(size, 0, chunk_bytes, &ask, window_bytes, u16::MAX).expect("a request in range")
}

fn encode(packet: &Packet) -> BytesMut {
    let mut buf = BytesMut::new();
    packet
        .encode(ProtocolVersion::V311, &mut buf)
        .expect("a packet within all limits");
    buf
}

fn decode(bencher: &mut criterion::Bencher<'_>, encoded: &BytesMut) {
    let mut decoder = Decoder::new(Role::Client, Limits::default());
    decoder.set_version(ProtocolVersion::V311);
    // A server's first packet is CONNACK.
    decoder
        .decode(&mut encode(&Packet::ConnAck(ConnAck::accepted(false))))
        .expect("it was encoded by ourselves");
    bencher.iter_batched_ref(
        || encoded.clone(),
        |buf| {
            let packet = decoder.decode(buf).expect("it was encoded by ourselves");
            black_box(packet)
        },
        BatchSize::SmallInput,
    );
}

const TOPIC: &str = "/devices/swarm-00000001/delivery/down";
const CHUNK_BYTES: usize = 16_384;
