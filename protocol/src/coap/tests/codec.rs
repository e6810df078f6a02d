//! Every format error of RFC 7252 section 3, the boundaries of lengths and deltas, and what is written.

use hex_literal::hex;

use crate::coap::{
    Code, ContentFormat, DecodeError, EncodeError, Message, MessageId, MessageType, OptionNumber,
    Token, Violation,
};

#[track_caller]
fn refused(datagram: &[u8], violation: Violation, reject: Option<u16>) {
    let expected = DecodeError {
        violation,
        reject: reject.map(MessageId),
    };
    assert_eq!(Message::decode(datagram), Err(expected), "{datagram:02x?}");
}

#[test]
fn format_errors_are_refused_and_confirmable_ones_rejected() {
    let id = Some(0x1234);
    refused(&hex!(""), Violation::TooShort, None);
    refused(&hex!("40 01 12"), Violation::TooShort, None);
    for (first, version) in [(0x00, 0), (0x80, 2), (0xc0, 3)] {
        refused(&[first, 1, 0x12, 0x34], Violation::Version(version), None);
    }
    for length in 9..=15 {
        let datagram = [&[0x40 | length, 1, 0x12, 0x34][..], &[0; 16]].concat();
        refused(&datagram, Violation::TokenLength(length), id);
    }
    refused(&hex!("44 01 1234 010203"), Violation::TokenTruncated, id);
    refused(&hex!("48 01 1234"), Violation::TokenTruncated, id);
    // Empty messages have nothing behind the header.
    refused(&hex!("41 00 1234 01"), Violation::EmptyNotEmpty, id);
    refused(&hex!("40 00 1234 ff01"), Violation::EmptyNotEmpty, id);
    refused(&hex!("60 00 1234 b161"), Violation::EmptyNotEmpty, None);
    refused(&hex!("70 00 1234 00"), Violation::EmptyNotEmpty, None);
    for class in [1, 3, 6, 7] {
        let code = Code::of(class, 1).byte();
        let datagram = [0x40, code, 0x12, 0x34];
        refused(&datagram, Violation::ReservedClass(class), id);
    }
    // Table 1 of section 4.3.
    refused(&hex!("50 00 1234"), Violation::TypeAndCode, None);
    refused(&hex!("60 01 1234"), Violation::TypeAndCode, None);
    refused(&hex!("70 01 1234"), Violation::TypeAndCode, None);
    refused(&hex!("70 45 1234"), Violation::TypeAndCode, None);
    refused(&hex!("40 01 1234 f0"), Violation::OptionDelta, id);
    refused(&hex!("40 01 1234 0f"), Violation::OptionLength, id);
    refused(&hex!("40 01 1234 ff"), Violation::MarkerWithoutPayload, id);
    refused(
        &hex!("40 01 1234 b1 61 ff"),
        Violation::MarkerWithoutPayload,
        id,
    );
    refused(
        &hex!("50 01 1234 ff"),
        Violation::MarkerWithoutPayload,
        None,
    );
}

#[test]
fn options_at_their_boundaries() {
    let id = Some(0x1234);
    let truncated: &[&[u8]] = &[
        &hex!("b1"),
        &hex!("bc 00"),
        &hex!("d0"),
        &hex!("e0"),
        &hex!("e0 00"),
        &hex!("0d"),
        &hex!("0e"),
        &hex!("0e 00"),
        &hex!("0d 00 00"),
        &hex!("0e ffff 00"),
        // TKL and length both past the end: CVE-2020-12883 and its kin.
        &hex!("dd ff ff 00"),
        &hex!("ee ffff ffff"),
    ];
    for options in truncated {
        let datagram = [&hex!("40 01 1234")[..], options].concat();
        let violation = match options {
            [0xee, ..] => Violation::OptionNumber,
            _ => Violation::OptionTruncated,
        };
        refused(&datagram, violation, id);
    }
    // Deltas that add up to 65535 and to one more; CVE-2020-12887: the sum must not wrap.
    let at_most = hex!("40 01 1234 e0 fef2");
    let message = Message::decode(&at_most).expect("65535");
    assert_eq!(message.all(OptionNumber(65_535)).count(), 1);
    refused(&hex!("40 01 1234 e0 fef3"), Violation::OptionNumber, id);
    refused(&hex!("40 01 1234 e0 fef2 10"), Violation::OptionNumber, id);
    refused(
        &hex!("40 01 1234 e0 ff00 e0 ff00"),
        Violation::OptionNumber,
        id,
    );
}

#[test]
fn lengths_and_deltas_of_every_form_are_written_and_read() {
    for bytes in [0, 1, 12, 13, 14, 268, 269, 270, 1_000, 65_535] {
        for number in [0, 1, 12, 13, 14, 268, 269, 270, 2_048, 65_535] {
            let mut message = get();
            message.add(OptionNumber(number), vec![7; bytes]);
            let datagram = message.encode(usize::MAX).expect("legal");
            assert_eq!(datagram.len(), message.encoded_bytes());
            let read = Message::decode(&datagram);
            assert_eq!(read, Ok(message), "{bytes} bytes of option {number}");
        }
    }
    let mut message = get();
    message.add(OptionNumber(3), vec![0; 65_805]);
    let too_long = EncodeError::OptionTooLong { size_bytes: 65_805 };
    assert_eq!(message.encode(usize::MAX), Err(too_long));
}

#[test]
fn a_message_is_written_as_in_the_standards_example() {
    // RFC 7252 appendix A, figure 16 and 17: GET /temperature and its answer.
    let mut request = get();
    request.id = MessageId(0x7d34);
    request.add(OptionNumber::URI_PATH, "temperature");
    let expected = hex!("40 01 7d34 bb 74656d7065726174757265");
    assert_eq!(request.encode(1_152).as_deref(), Ok(&expected[..]));
    let answer = hex!("60 45 7d34 ff 32322e332043");
    let answer = Message::decode(&answer).expect("legal");
    assert_eq!(
        (answer.kind, answer.code),
        (MessageType::Acknowledgement, Code::CONTENT)
    );
    assert_eq!(&*answer.payload, b"22.3 C");
}

#[test]
fn what_is_asked_of_options_is_read() {
    let mut message = get();
    for (number, value) in [
        (OptionNumber::URI_PATH, &b"u"[..]),
        (OptionNumber::URI_PATH, "é".as_bytes()),
        (OptionNumber::URI_QUERY, b"rd=1=2"),
        (OptionNumber::URI_QUERY, b"flag"),
        (OptionNumber::OBSERVE, b""),
        (OptionNumber::SIZE1, &[1, 0, 0]),
        (OptionNumber::CONTENT_FORMAT, &[60]),
        (OptionNumber::ACCEPT, &[50]),
    ] {
        message.add(number, value);
    }
    assert_eq!(message.path(), Some(vec!["u", "é"]));
    assert_eq!(message.query("rd"), Some("1=2"));
    assert_eq!((message.query("flag"), message.query("x")), (None, None));
    assert_eq!(message.uint(OptionNumber::OBSERVE), Some(0));
    assert_eq!(message.uint(OptionNumber::SIZE1), Some(65_536));
    assert_eq!(message.content_format(), Some(ContentFormat::CBOR));
    assert_eq!(message.accept(), Some(ContentFormat::JSON));
    message.add(OptionNumber::URI_PATH, [0xff]);
    assert_eq!(message.path(), None);
}

#[test]
fn critical_options_that_cannot_be_acted_on_are_found() {
    const KNOWN: &[OptionNumber] = &[OptionNumber::URI_PATH, OptionNumber::BLOCK2];
    let bad = |number: u16, values: &[&[u8]]| {
        let mut message = get();
        for value in values {
            message.add(OptionNumber(number), *value);
        }
        message.bad_option(KNOWN)
    };
    assert_eq!(bad(11, &[b"a", b"b"]), None, "a path has segments");
    assert_eq!(bad(23, &[&[6]]), None);
    assert_eq!(
        bad(23, &[&[6], &[6]]),
        Some(OptionNumber::BLOCK2),
        "one too many"
    );
    assert_eq!(
        bad(23, &[&[0, 0, 0, 6]]),
        Some(OptionNumber::BLOCK2),
        "too long"
    );
    assert_eq!(bad(27, &[&[6]]), Some(OptionNumber::BLOCK1), "not acted on");
    assert_eq!(
        bad(9, &[b"x"]),
        Some(OptionNumber(9)),
        "OSCORE is not spoken"
    );
    assert_eq!(bad(2_049, &[b"x"]), Some(OptionNumber(2_049)));
    assert_eq!(bad(2_048, &[b"x"]), None, "elective ones are ignored");
    assert_eq!(bad(60, &[b"12345"]), None);
}

#[test]
fn messages_above_the_limit_are_not_written() {
    let mut message = get();
    message.payload = vec![0; 100].into();
    let too_large = EncodeError::TooLarge {
        size_bytes: 105,
        max_bytes: 104,
    };
    assert_eq!(message.encode(104), Err(too_large));
    assert_eq!(message.encode(105).map(|datagram| datagram.len()), Ok(105));
}

#[test]
fn tokens_have_up_to_eight_bytes() {
    assert_eq!(Token::new(&[1; 9]), None);
    for len in 0..=8 {
        let mut message = get();
        message.token = Token::new(&[9; 8][..len]).expect("legal");
        let datagram = message.encode(64).expect("legal");
        assert_eq!(Message::decode(&datagram), Ok(message));
    }
}

fn get() -> Message {
    let id = MessageId(0x1234);
    Message::new(MessageType::Confirmable, Code::GET, id, Token::default())
}
