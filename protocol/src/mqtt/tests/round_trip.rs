//! What is written is read again, however it arrives.

use proptest::prelude::*;

use super::*;

fn any_sender() -> impl Strategy<Value = Sender> {
    prop::sample::select(SENDERS.to_vec())
}

fn any_packet() -> impl Strategy<Value = (Sender, Packet)> {
    any_sender().prop_flat_map(|sender| (Just(sender), arbitrary::packet(sender)))
}

/// A conversation after the connection was opened.
fn any_stream() -> impl Strategy<Value = (Sender, Vec<Packet>)> {
    any_sender().prop_flat_map(|sender| {
        let follows = arbitrary::packet(sender).prop_filter("opens", |packet| {
            !matches!(packet, Packet::Connect(_) | Packet::ConnAck(_))
        });
        (Just(sender), prop::collection::vec(follows, 1..8))
    })
}

proptest! {
    #[test]
    fn every_packet_in_every_version((sender, packet) in any_packet()) {
        let mut buf = BytesMut::new();
        packet.encode(sender.version, &mut buf).unwrap();
        prop_assert_eq!(packet.encoded_len(sender.version), Ok(buf.len()));
        // At once and byte by byte, and written as the same bytes again.
        check(sender, &buf, Ok(packet));
    }

    #[test]
    fn a_stream_in_any_pieces((sender, packets) in any_stream(), sizes in prop::collection::vec(1..64_usize, 1..16)) {
        let mut bytes = BytesMut::new();
        for packet in &packets {
            packet.encode(sender.version, &mut bytes).unwrap();
        }
        let (mut decoder, mut buf) = (opened(sender), BytesMut::new());
        let mut decoded = Vec::new();
        let mut sizes = sizes.iter().cycle();
        while !bytes.is_empty() {
            let size = bytes.len().min(*sizes.next().unwrap());
            buf.extend_from_slice(&bytes.split_to(size));
            while let Some(packet) = decoder.decode(&mut buf).unwrap() {
                decoded.push(packet);
            }
        }
        prop_assert_eq!(decoded, packets);
        prop_assert!(buf.is_empty());
    }

    #[test]
    fn a_message_of_5_0_can_be_written_for_every_version((_, packet) in (Just(CLIENT_5), arbitrary::packet(CLIENT_5))) {
        if let Packet::Publish(publish) = &packet && !publish.topic.is_empty() {
            for version in VERSIONS {
                let mut buf = BytesMut::new();
                packet.encode(version, &mut buf).unwrap();
                let sender = Sender { decoder: Role::Server, version };
                let Ok(Some(Packet::Publish(read))) = decode(sender, &buf) else {
                    return Err(TestCaseError::fail("not a publish"));
                };
                prop_assert_eq!(&read.topic, &publish.topic);
                prop_assert_eq!(&read.payload, &publish.payload);
            }
        }
    }
}
