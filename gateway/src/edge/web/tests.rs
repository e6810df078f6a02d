use super::*;

/// A frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut header = [0; WebSocket::MAX_HEADER];
    let len = WebSocket::header(payload.len(), &mut header);
    let mut frame = header[..len].to_vec();
    frame[0] = first;
    frame[1] |= MASKED;
    frame.extend_from_slice(&mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

/// Takes bytes in pieces of this size; gives payload, answers and how it ended.
fn take(bytes: &[u8], size: usize) -> (Vec<u8>, Vec<u8>, Result<(), WebError>, WebSocket) {
    let mut web = WebSocket::default();
    let mut buffer = BytesMut::from(&b"before"[..]);
    let mut answers = Vec::new();
    for piece in bytes.chunks(size) {
        let from = buffer.len();
        buffer.extend_from_slice(piece);
        if let Err(error) = web.unframe(&mut buffer, from, &mut answers) {
            return (buffer[6..].to_vec(), answers, Err(error), web);
        }
    }
    (buffer[6..].to_vec(), answers, Ok(()), web)
}

#[test]
fn payloads_come_out_whatever_the_pieces() {
    let long = vec![0xa5; 70_000];
    let mut bytes = frame(FIN | 2, b"one");
    bytes.extend(frame(2, b"two "));
    bytes.extend(frame(FIN | 9, b"are you there"));
    bytes.extend(frame(0, b""));
    bytes.extend(frame(FIN, b"parts"));
    bytes.extend(frame(FIN | 0x0a, b""));
    bytes.extend(frame(FIN | 2, &[7; 300]));
    bytes.extend(frame(FIN | 2, &long));
    let expected = [b"onetwo parts", &[7; 300][..], &long[..]].concat();
    for size in [1, 2, 3, 7, 1000, bytes.len()] {
        let (payload, answers, ended, _) = take(&bytes, size);
        assert!(payload == expected, "pieces of {size}");
        assert_eq!(answers, b"\x8a\x0dare you there");
        assert_eq!(ended, Ok(()));
    }
}

#[test]
fn a_violation_has_its_code_and_ends_everything() {
    let unmasked = vec![FIN | 2, 1, b'x'];
    let wasteful = vec![FIN | 2, MASKED | 0x7e, 0, 5, 0, 0, 0, 0];
    let huge = [&[FIN | 2, MASKED | 0x7f][..], &[0x7f; 8], &[0; 4]].concat();
    let cases = [
        (frame(FIN | 1, b"text"), UNSUPPORTED_DATA),
        (frame(FIN | 3, b""), PROTOCOL_ERROR),
        (frame(FIN | 0x42, b""), PROTOCOL_ERROR),
        (frame(FIN, b"continuation"), PROTOCOL_ERROR),
        (frame(9, b"in pieces"), PROTOCOL_ERROR),
        (frame(FIN | 9, &[0; 126]), PROTOCOL_ERROR),
        (
            [frame(2, b"a"), frame(FIN | 2, b"b")].concat(),
            PROTOCOL_ERROR,
        ),
        (unmasked, PROTOCOL_ERROR),
        (wasteful, PROTOCOL_ERROR),
        (huge, TOO_BIG),
        (frame(FIN | 8, &[3]), PROTOCOL_ERROR),
        (frame(FIN | 8, &1005_u16.to_be_bytes()), PROTOCOL_ERROR),
    ];
    for (bytes, expected) in cases {
        for size in [1, bytes.len()] {
            let more = [&bytes[..], &frame(FIN | 2, b"behind it")].concat();
            let (payload, _, ended, mut web) = take(&more, size.max(1));
            assert!(
                matches!(ended, Err(WebError::Violation { code, .. }) if code == expected),
                "{bytes:02x?} {ended:?}"
            );
            assert!(!payload.ends_with(b"behind it"));
            let mut said = vec![0x88, 2];
            said.extend(expected.to_be_bytes());
            assert_eq!(web.close(), Some(said));
            assert_eq!(web.close(), None, "once");
        }
    }
}

#[test]
fn a_goodbye_is_answered_with_its_code() {
    for (said, code) in [
        (&b""[..], 1000),
        (b"\x03\xe9going away", 1001),
        (b"\x0f\xa0", 4000),
    ] {
        let bytes = [frame(FIN | 2, b"last"), frame(FIN | 8, said)].concat();
        let (payload, _, ended, mut web) = take(&bytes, 3);
        assert_eq!((payload, ended), (b"last".to_vec(), Err(WebError::Closed)));
        let close = web.close().expect("not said");
        assert_eq!(close[2..], u16::to_be_bytes(code));
    }
}

#[test]
fn headers_are_read_as_they_are_written() {
    for len in [0, 1, 125, 126, 0xffff, 0x1_0000] {
        let bytes = frame(FIN | 2, &vec![1; len]);
        let (payload, _, ended, web) = take(&bytes, bytes.len());
        assert_eq!((payload.len(), ended), (len, Ok(())));
        assert_eq!(web.control.capacity(), 0);
    }
}
