//! Another codec, coap-lite, reads and writes the same options.

use coap_lite::{CoapOption, Packet};
use proptest::prelude::*;

use crate::coap::{Code, Message, MessageId, MessageType, OptionNumber, Token};

/// Numbers around the boundaries of deltas, values around those of lengths.
fn options() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let number = prop_oneof![0..30_u16, 250..300_u16, any::<u16>()];
    let length = prop_oneof![0..20_usize, 265..275_usize];
    let value = length.prop_flat_map(|len| prop::collection::vec(any::<u8>(), len));
    prop::collection::vec((number, value), 0..10)
}

/// The options as coap-lite has them.
fn of(packet: &Packet) -> Vec<(u16, Vec<u8>)> {
    let all = packet.options();
    all.flat_map(|(number, values)| values.iter().map(|value| (*number, value.clone())))
        .collect()
}

fn ours(message: &Message) -> Vec<(u16, Vec<u8>)> {
    let all = message.options.iter();
    all.map(|(number, value)| (number.0, value.to_vec()))
        .collect()
}

proptest! {
    #[test]
    fn the_same_is_written(
        options in options(), token in prop::collection::vec(any::<u8>(), 0..=8),
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let token = Token::new(&token).unwrap();
        let mut message =
            Message::new(MessageType::Confirmable, Code::GET, MessageId(0x1234), token);
        let mut packet = Packet::new();
        for (number, value) in options {
            message.add(OptionNumber(number), &value);
            packet.add_option(CoapOption::from(number), value);
        }
        message.payload = payload.clone().into();
        packet.payload = payload;
        packet.set_token(token.as_bytes().to_vec());
        let (mine, theirs) = (message.encode(usize::MAX).unwrap(), packet.to_bytes_unlimited());
        prop_assert_eq!(&mine[4..], &theirs.unwrap()[4..]);
        prop_assert_eq!(Message::decode(&mine), Ok(message.clone()));
        prop_assert_eq!(of(&Packet::from_bytes(&mine).unwrap()), ours(&message));
    }

    #[test]
    fn what_is_read_is_read_the_same(rest in prop::collection::vec(any::<u8>(), 0..60)) {
        // A GET without a token.
        let datagram = [&[0x40, 1, 0x12, 0x34], &rest[..]].concat();
        let packet = Packet::from_bytes(&datagram);
        if let Ok(message) = Message::decode(&datagram) {
            let packet = packet.expect("a message there too");
            prop_assert_eq!(of(&packet), ours(&message));
            prop_assert_eq!(&packet.payload[..], &message.payload[..]);
        }
    }
}
