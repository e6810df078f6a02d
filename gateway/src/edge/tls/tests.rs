//! Both ways of carrying devices against a client of rustls's own, over a wire in memory.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    sync::Arc,
    time::SystemTime,
};

use bytes::{Bytes, BytesMut};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;

use super::{
    ServerTls,
    buffers::Backlog,
    secure::Secure,
    stream::{Piece, READ_BUDGET, ReadOutcome},
};
use crate::edge::dev_cert;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// The server's end of a wire.
struct Wire {
    to_server: VecDeque<u8>,
    to_client: Vec<u8>,
    /// The most that one read gives.
    read_limit: usize,
    /// The most that the client's side takes until it is emptied.
    room: usize,
    /// Calls that wrote something.
    writes: usize,
    is_cut: bool,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            to_server: VecDeque::new(),
            to_client: Vec::new(),
            read_limit: usize::MAX,
            room: usize::MAX,
            writes: 0,
            is_cut: false,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.to_server.is_empty() && !self.is_cut {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let limit = self.read_limit.min(buffer.len());
        self.to_server.read(&mut buffer[..limit])
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room.saturating_sub(self.to_client.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = room.min(bytes.len());
        self.to_client.extend_from_slice(&bytes[..taken]);
        self.writes += 1;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A certificate that is served, and what trusts it.
struct Stage {
    _dir: TempDir,
    tls: ServerTls,
    roots: Arc<RootCertStore>,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let made = dev_cert::ensure(dir.path(), SystemTime::now()).expect("made");
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(&made.ca).expect("a CA");
        roots.add(ca).expect("a good CA");
        Self {
            tls: ServerTls::load(&made.certificate, &made.key, true).expect("loads"),
            roots: Arc::new(roots),
            _dir: dir,
        }
    }

    fn client(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        Arc::new(config)
    }

    fn pair(&self, config: &Arc<ClientConfig>) -> Pair {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(Arc::clone(config), name).expect("a client");
        client.set_buffer_limit(None);
        Pair {
            server: Secure::new(&self.tls.mqtt).expect("a server"),
            client,
            wire: Wire::default(),
        }
    }

    /// A pair whose handshake is done.
    fn open(&self, version: &'static SupportedProtocolVersion) -> Pair {
        let mut pair = self.pair(&self.client(version));
        pair.shake_hands();
        pair
    }
}

struct Pair {
    server: Secure,
    client: ClientConnection,
    wire: Wire,
}

impl Pair {
    /// The client sends what it has to send.
    fn client_sends(&mut self) {
        while self.client.wants_write() {
            self.client
                .write_tls(&mut self.wire.to_server)
                .expect("memory");
        }
    }

    /// The client takes what is there for it; gives the plain bytes.
    fn client_takes(&mut self) -> Vec<u8> {
        let mut bytes = &std::mem::take(&mut self.wire.to_client)[..];
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).expect("memory");
            self.client.process_new_packets().expect("good TLS");
            // Without more to come this ends with "would block".
            let _ended = self.client.reader().read_to_end(&mut plain);
        }
        plain
    }

    fn shake_hands(&mut self) {
        while self.client.is_handshaking() || self.server.is_handshaking() {
            self.client_sends();
            while !self.wire.to_server.is_empty() && self.server.is_handshaking() {
                let outcome = self.server.handshake(&mut self.wire);
                assert_ne!(outcome.expect("a handshake"), ReadOutcome::Closed);
            }
            assert!(self.client_takes().is_empty());
        }
    }

    fn say(&mut self, plain: &[u8]) {
        self.client.writer().write_all(plain).expect("no limit");
        self.client_sends();
    }

    /// Everything that the server can read now.
    fn server_reads(&mut self) -> Vec<u8> {
        let mut plain = BytesMut::new();
        while let ReadOutcome::Data(_) = self.server.read(&mut self.wire, &mut plain).expect("good")
        {
        }
        plain.to_vec()
    }

    fn server_writes(&mut self, pieces: &[(&[u8], &[Bytes])]) {
        let pieces = pieces
            .iter()
            .map(|(head, payload)| Piece::of(head, payload));
        self.server.write(pieces, &mut self.wire).expect("open");
    }

    fn assert_at_rest(&self) {
        assert!(!self.server.has_backlog());
        assert_eq!(self.server.kept_bytes(), 0);
    }
}

#[test]
fn bytes_go_both_ways_and_nothing_is_kept() {
    let stage = Stage::new();
    for version in VERSIONS {
        let mut pair = stage.open(version);
        assert_eq!(pair.client.protocol_version(), Some(version.version));
        pair.say(b"hello");
        assert_eq!(pair.server_reads(), b"hello");
        pair.server_writes(&[(b"how ", &[Bytes::from_static(b"are you")])]);
        assert_eq!(pair.client_takes(), b"how are you");
        pair.assert_at_rest();
    }
}

#[test]
fn what_comes_along_with_finished_is_read_first() {
    let stage = Stage::new();
    let mut pair = stage.pair(&stage.client(&TLS13));
    // Kept by the client until it may be sent, which is right behind Finished.
    pair.client.writer().write_all(b"CONNECT").expect("kept");
    pair.shake_hands();
    pair.say(b" and more");
    assert_eq!(pair.server_reads(), b"CONNECT and more");
    pair.assert_at_rest();
}

#[test]
fn byte_after_byte_is_as_good_as_all_at_once() {
    let stage = Stage::new();
    for version in VERSIONS {
        let mut pair = stage.pair(&stage.client(version));
        pair.client_sends();
        while pair.client.is_handshaking() || pair.server.is_handshaking() {
            while let Some(byte) = pair.wire.to_server.pop_front() {
                let behind = std::mem::take(&mut pair.wire.to_server);
                pair.wire.to_server.push_back(byte);
                let _outcome = pair.server.handshake(&mut pair.wire).expect("a handshake");
                pair.wire.to_server = behind;
            }
            pair.client_takes();
            pair.client_sends();
        }
        pair.say(&vec![b'x'; 20_000]);
        pair.wire.read_limit = 1;
        let mut plain = BytesMut::new();
        while let Some(byte) = pair.wire.to_server.pop_front() {
            let behind = std::mem::take(&mut pair.wire.to_server);
            pair.wire.to_server.push_back(byte);
            let _outcome = pair.server.read(&mut pair.wire, &mut plain).expect("good");
            pair.wire.to_server = behind;
            // Between two bytes something may be written.
            if plain.len() == 16_384 && pair.wire.to_client.is_empty() {
                pair.server_writes(&[(b"half", &[])]);
            }
        }
        assert_eq!(plain.len(), 20_000);
        assert_eq!(pair.client_takes(), b"half");
        pair.assert_at_rest();
    }
}

#[test]
fn many_records_in_one_read_come_out_in_order() {
    let stage = Stage::new();
    for version in VERSIONS {
        let mut pair = stage.open(version);
        let mut expected = Vec::new();
        for n in 0..40_u8 {
            let plain = vec![n; 1 + usize::from(n) * 409];
            pair.say(&plain);
            expected.extend(plain);
        }
        assert!(expected.len() > 2 * READ_BUDGET);
        let mut plain = BytesMut::new();
        let first = pair.server.read(&mut pair.wire, &mut plain).expect("good");
        assert_eq!(first, ReadOutcome::Data(plain.len()));
        assert!(plain.len() < 2 * READ_BUDGET + 16 * 1024, "{}", plain.len());
        plain.extend_from_slice(&pair.server_reads());
        assert!(plain == expected);
        pair.assert_at_rest();
    }
}

#[test]
fn a_batch_is_one_write_of_full_records() {
    let stage = Stage::new();
    for version in VERSIONS {
        let mut pair = stage.open(version);
        pair.wire.writes = 0;
        let payload = Bytes::from(vec![0x5a; 15_360]);
        let head = [0xa5; 100];
        let shared = [payload.clone()];
        let pieces: Vec<(&[u8], &[Bytes])> = vec![(&head, &shared); 8];
        pair.server_writes(&pieces);
        assert!(pair.wire.writes <= 2, "{} writes", pair.wire.writes);
        assert_eq!(records(&pair.wire.to_client), 8);
        let plain = pair.client_takes();
        assert_eq!(plain.len(), 8 * 15_460);
        assert!(
            plain
                .chunks(15_460)
                .all(|packet| packet[..100] == head && packet[100..] == payload)
        );
        pair.assert_at_rest();
    }
}

#[test]
fn a_piece_larger_than_a_record_is_cut_into_records() {
    let stage = Stage::new();
    for version in VERSIONS {
        let mut pair = stage.open(version);
        let payload = [Bytes::from(vec![1; 40_000]), Bytes::from(vec![2; 60_000])];
        pair.server_writes(&[(b"head", &payload), (b"", &[]), (b"next", &[])]);
        let plain = pair.client_takes();
        assert_eq!(plain.len(), 100_008);
        assert!(plain.starts_with(b"head\x01") && plain.ends_with(b"\x02next"));
    }
}

#[test]
fn what_a_socket_does_not_take_is_kept_in_order_and_freed() {
    let stage = Stage::new();
    for version in VERSIONS {
        let mut pair = stage.open(version);
        pair.wire.room = 50_000;
        let payload = [Bytes::from(vec![3; 15_360])];
        let pieces: Vec<(&[u8], &[Bytes])> = vec![(b"chunk", &payload); 8];
        pair.server_writes(&pieces);
        assert!(pair.server.has_backlog());
        // What waits is the batch's end and no more.
        let left = 8 * (15_365 + 64) - 50_000;
        assert!(
            pair.server.kept_bytes() <= left,
            "{}",
            pair.server.kept_bytes()
        );
        assert_eq!(pair.server.flush(&mut pair.wire).expect("open"), 0);
        pair.server_writes(&[(b"behind", &[])]);
        let mut plain = Vec::new();
        while pair.server.has_backlog() || !pair.wire.to_client.is_empty() {
            plain.extend(pair.client_takes());
            pair.server.flush(&mut pair.wire).expect("open");
        }
        assert_eq!(plain.len(), 8 * 15_365 + 6);
        assert!(plain.ends_with(b"behind"));
        pair.assert_at_rest();
    }
}

#[test]
fn a_backlog_without_bytes_owns_no_memory() {
    let mut backlog = Backlog::default();
    let mut wire = Wire {
        room: 3,
        ..Wire::default()
    };
    backlog.send(b"abcdef", &mut wire).expect("open");
    assert_eq!(backlog.kept_bytes(), 3);
    backlog.send(b"ghi", &mut wire).expect("open");
    assert_eq!(backlog.kept_bytes(), 6);
    wire.room = usize::MAX;
    assert_eq!(backlog.flush(&mut wire).expect("open"), 6);
    assert_eq!(
        (wire.to_client, backlog.is_empty()),
        (b"abcdefghi".to_vec(), true)
    );
    assert_eq!(backlog.kept_bytes(), 0);
}

#[test]
fn a_client_that_says_goodbye_is_read_to_the_end_and_still_heard() {
    let stage = Stage::new();
    for version in VERSIONS {
        let mut pair = stage.open(version);
        pair.client.writer().write_all(b"last words").expect("open");
        pair.client.send_close_notify();
        pair.client_sends();
        let mut plain = BytesMut::new();
        let outcome = pair.server.read(&mut pair.wire, &mut plain).expect("good");
        assert_eq!(outcome, ReadOutcome::Data(10));
        for _ in 0..2 {
            let outcome = pair.server.read(&mut pair.wire, &mut plain).expect("good");
            assert_eq!(outcome, ReadOutcome::Closed);
        }
        assert_eq!(plain, &b"last words"[..]);
        pair.server_writes(&[(b"farewell", &[])]);
        pair.server.close(&mut pair.wire).expect("open");
        pair.server.close(&mut pair.wire).expect("once is enough");
        assert_eq!(pair.client_takes(), b"farewell");
        let state = pair.client.process_new_packets().expect("good");
        assert!(state.peer_has_closed());
    }
}

#[test]
fn a_wire_that_is_cut_is_closed() {
    let stage = Stage::new();
    let mut pair = stage.open(&TLS13);
    pair.say(b"half of a record");
    pair.wire.to_server.truncate(10);
    pair.wire.is_cut = true;
    let mut plain = BytesMut::new();
    let outcome = pair
        .server
        .read(&mut pair.wire, &mut plain)
        .expect("no fault");
    assert_eq!((outcome, plain.len()), (ReadOutcome::Closed, 0));
}

#[test]
fn new_keys_are_followed_and_answered() {
    let stage = Stage::new();
    let mut pair = stage.open(&TLS13);
    for round in 0..3 {
        pair.client.refresh_traffic_keys().expect("TLS 1.3");
        pair.say(b"with new keys");
        assert_eq!(pair.server_reads(), b"with new keys", "{round}");
        pair.server_writes(&[(b"with mine", &[])]);
        assert_eq!(pair.client_takes(), b"with mine", "{round}");
    }
    pair.assert_at_rest();
}

#[test]
fn a_broken_record_is_answered_with_an_alert() {
    let stage = Stage::new();
    for version in VERSIONS {
        let mut pair = stage.open(version);
        pair.say(b"to be broken");
        *pair.wire.to_server.back_mut().expect("a record") ^= 1;
        let mut plain = BytesMut::new();
        let error = pair
            .server
            .read(&mut pair.wire, &mut plain)
            .expect_err("broken");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut bytes = &std::mem::take(&mut pair.wire.to_client)[..];
        pair.client.read_tls(&mut bytes).expect("memory");
        let told = pair.client.process_new_packets().expect_err("an alert");
        assert_eq!(
            told,
            rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac)
        );
        assert!(plain.is_empty());
    }
}

#[test]
fn what_is_no_tls_is_answered_with_an_alert() {
    let stage = Stage::new();
    let too_long = {
        // A hello that says it goes on and on, in records of their full size.
        let mut hello = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
        hello.resize(5 + 16_384, 0);
        for _ in 0..3 {
            hello.extend_from_slice(&[0x16, 3, 3, 0x40, 0]);
            hello.resize(hello.len() + 16_384, 0);
        }
        hello
    };
    for junk in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04abcd".to_vec(),
        vec![0; 64],
        vec![0xff; 40_000],
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00".to_vec(),
        too_long,
    ] {
        let mut pair = stage.pair(&stage.client(&TLS13));
        pair.wire.to_server.extend(&junk);
        let mut outcome = Ok(ReadOutcome::Data(0));
        while outcome.is_ok() && !pair.wire.to_server.is_empty() {
            outcome = pair.server.handshake(&mut pair.wire);
        }
        let shown = &junk[..junk.len().min(16)];
        assert!(outcome.is_err(), "{shown:02x?}");
        assert_eq!(pair.server.kept_bytes(), 0, "{shown:02x?}");
    }
}

#[test]
fn an_alert_of_the_client_ends_the_handshake() {
    let stage = Stage::new();
    let mut pair = stage.pair(&stage.client(&TLS13));
    pair.client_sends();
    let outcome = pair.server.handshake(&mut pair.wire);
    assert!(outcome.is_ok());
    pair.wire.to_server.extend(b"\x15\x03\x03\x00\x02\x02\x30");
    assert!(pair.server.handshake(&mut pair.wire).is_err());
}

#[test]
fn a_client_comes_back_with_its_ticket_until_tickets_are_off() {
    let stage = Stage::new();
    for version in VERSIONS {
        let config = stage.client(version);
        for round in 0..3 {
            let mut pair = stage.pair(&config);
            pair.shake_hands();
            // A ticket of 1.3 comes behind the handshake.
            pair.say(b"x");
            pair.server_reads();
            pair.client_takes();
            let expected = if round == 0 {
                rustls::HandshakeKind::Full
            } else {
                rustls::HandshakeKind::Resumed
            };
            assert_eq!(
                pair.client.handshake_kind(),
                Some(expected),
                "{version:?} {round}"
            );
            pair.assert_at_rest();
        }
    }
}

/// Streams that were good once, then cut, flipped and torn into pieces: the server must end each in
/// order, and keep no more than a record.
#[test]
fn no_damage_to_the_stream_breaks_the_server() {
    let stage = Stage::new();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % (below.max(1) as u64)).expect("small")
    };
    for round in 0..300 {
        let version = VERSIONS[round % 2];
        let mut pair = stage.pair(&stage.client(version));
        if round % 3 > 0 {
            pair.shake_hands();
            pair.say(&vec![7; random(40_000)]);
            pair.say(&vec![8; random(100)]);
        } else {
            pair.client_sends();
        }
        let mut bytes: Vec<u8> = pair.wire.to_server.drain(..).collect();
        for _ in 0..random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes.truncate(at.max(1)),
                _ => {
                    let piece = bytes[at..].to_vec();
                    bytes.extend(piece);
                }
            }
        }
        let mut at = 0;
        let mut plain = BytesMut::new();
        while at < bytes.len() {
            let end = (at + 1 + random(5000)).min(bytes.len());
            pair.wire.to_server.extend(&bytes[at..end]);
            at = end;
            let outcome = if pair.server.is_handshaking() {
                pair.server.handshake(&mut pair.wire)
            } else {
                pair.server.read(&mut pair.wire, &mut plain)
            };
            if !matches!(outcome, Ok(ReadOutcome::Data(_) | ReadOutcome::Blocked)) {
                break;
            }
            assert!(pair.server.kept_bytes() <= 64 * 1024, "{round}");
            if !pair.server.is_handshaking() {
                let pieces = std::iter::once(Piece::of(b"answer", &[]));
                let _sent = pair.server.write(pieces, &mut pair.wire);
            }
        }
    }
}

/// Records in a stream of them.
fn records(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let [_, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        bytes = &rest[length..];
        count += 1;
    }
    count
}
