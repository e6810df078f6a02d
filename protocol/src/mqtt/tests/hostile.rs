//! Whatever arrives, nothing panics and no memory is taken on a claim.

use std::{fs, path::Path, time::Instant};

use hex_literal::hex;
use proptest::{prelude::*, sample::Index};

use super::{super::fuzz, *};

/// One change to a stream of bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Set(Index, u8),
    Flip(Index, u8),
    Remove(Index),
    Insert(Index, u8),
    Cut(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (at(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, 1 << bit)),
        at().prop_map(Mutation::Remove),
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        at().prop_map(Mutation::Cut),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match mutation {
        Mutation::Set(at, byte) => bytes[at.index(len)] = *byte,
        Mutation::Flip(at, bit) => bytes[at.index(len)] ^= bit,
        Mutation::Remove(at) => {
            bytes.remove(at.index(len));
        }
        Mutation::Insert(at, byte) => bytes.insert(at.index(len), *byte),
        Mutation::Cut(at) => bytes.truncate(at.index(len)),
    }
}

/// Two packets of a random sender, with the choosing byte of the fuzzer before them.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    (prop::sample::select(SENDERS.to_vec()), 0..16_u8).prop_flat_map(|(sender, piece)| {
        let packet = || arbitrary::packet(sender);
        (packet(), packet()).prop_map(move |(first, second)| {
            let mut buf = BytesMut::new();
            first.encode(sender.version, &mut buf).unwrap();
            second.encode(sender.version, &mut buf).unwrap();
            let opens = matches!(first, Packet::Connect(_) | Packet::ConnAck(_));
            let is_client = u8::from(sender.decoder == Role::Client);
            let choice = (sender.version.level() - 3)
                | (is_client << 2)
                | (u8::from(opens) << 3)
                | (piece << 4);
            [&[choice], &buf[..]].concat()
        })
    })
}

proptest! {
    #[test]
    fn random_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::decode(&bytes);
    }

    #[test]
    fn mutated_packets_are_decoded_or_refused(mut bytes in any_stream(), mutations in prop::collection::vec(mutation(), 0..4)) {
        for mutation in &mutations {
            mutate(&mut bytes, mutation);
        }
        fuzz::decode(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_either_side_does_a_connection_keeps_its_word(data in prop::collection::vec(any::<u8>(), 2..300)) {
        fuzz::connection(now(), &data);
    }
}

#[test]
fn every_first_two_bytes_are_decoded_or_refused() {
    for choice in 0..16 {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                fuzz::decode(&[choice, first, second, 0, 0, 0, 0]);
            }
        }
    }
}

#[test]
fn the_corpus_of_the_fuzzer_is_decoded_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/mqtt_decode");
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        fuzz::decode(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "the corpus is empty");
}

#[test]
fn the_corpus_of_operations_is_gone_through() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/mqtt_connection");
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        fuzz::connection(now(), &fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "the corpus is empty");
}

#[expect(
    clippy::disallowed_methods,
    reason = "any instant will do as the beginning"
)]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn a_claim_of_256_mib_takes_no_memory() {
    let limits = Limits {
        max_packet_bytes: usize::MAX,
        max_connect_bytes: usize::MAX,
        ..Limits::default()
    };
    for bytes in [hex!("10 ffffff7f 0004 4d51"), hex!("10 ffffff7f ffff ffff")] {
        let mut decoder = Decoder::new(Role::Server, limits);
        let mut buf = BytesMut::with_capacity(16);
        buf.extend_from_slice(&bytes);
        let before = (buf.as_ptr(), buf.capacity());
        for _ in 0..1000 {
            assert_eq!(decoder.decode(&mut buf), Ok(None));
        }
        assert_eq!((buf.as_ptr(), buf.capacity()), before);
    }
}

#[test]
fn lists_grow_only_with_what_arrived() {
    // The longest lists of the smallest elements that fit a packet of the default size.
    let reasons = vec![ReasonCode::Success; 262_144 - 6];
    let suback = SubAck {
        packet_id: id(1),
        reasons: reasons.into(),
        properties: None,
    };
    let mut buf = BytesMut::new();
    Packet::SubAck(suback)
        .encode(ProtocolVersion::V311, &mut buf)
        .unwrap();
    assert_eq!(buf.len(), 262_144);
    let Ok(Some(Packet::SubAck(suback))) = opened(SERVER_311).decode(&mut buf) else {
        panic!("no suback");
    };
    assert!(suback.reasons.capacity() <= 2 * 262_144);
}
