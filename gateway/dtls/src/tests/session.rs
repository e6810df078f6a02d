//! Handshakes that succeed, those that do not, and what is said after.

use super::pair::{KEY, World, certificate, psk};
use crate::{
    ClientConfig, ClientEvent, CloseReason, Credential, DtlsError, Event, HandshakeFailure,
    Identity, ServerConfig, Suite,
};

fn with_certificates() -> ServerConfig {
    ServerConfig {
        certificate: Some(certificate("gateway")),
        allows_legacy_suites: true,
        ..ServerConfig::default()
    }
}

#[test]
fn a_key_lets_in_by_every_suite() {
    for suite in [&Suite::PSK[..], &[Suite::PSK_CBC_SHA]].concat() {
        let mut world = World::new(with_certificates());
        let config = ClientConfig {
            suites: Some(vec![suite]),
            ..ClientConfig::default()
        };
        let session = world.device_with(1, &config);
        let Event::Connected {
            identity,
            suite: agreed,
            has_cid,
            ..
        } = &world.events[0]
        else {
            panic!("{:?}", world.events);
        };
        assert_eq!(identity, &Identity::Psk(b"device-1"[..].into()));
        assert_eq!((*agreed, *has_cid), (suite, true));
        assert_eq!(world.say(1, "up"), [(session, b"up".to_vec())]);
        assert_eq!(world.tell(session, "down"), [(1, b"down".to_vec())]);
        assert_eq!(world.server.depths().handshakes, 0);
    }
}

#[test]
fn a_certificate_lets_in_by_every_suite() {
    let mut fingerprints = Vec::new();
    for suite in Suite::ECDHE_ECDSA {
        let mut world = World::new(with_certificates());
        let config = ClientConfig {
            suites: Some(vec![suite]),
            ..ClientConfig::default()
        };
        let own = Credential::Certificate(certificate("device"));
        world.connect(1, &config, &own);
        let session = world.connected();
        let Event::Connected {
            identity: Identity::Certificate(fingerprint),
            suite: agreed,
            ..
        } = &world.events[0]
        else {
            panic!("{:?}", world.events);
        };
        assert_eq!(*agreed, suite);
        assert!(!fingerprints.contains(fingerprint), "another key each time");
        fingerprints.push(*fingerprint);
        assert_eq!(world.say(1, "up"), [(session, b"up".to_vec())]);
        assert_eq!(world.tell(session, "down"), [(1, b"down".to_vec())]);
    }
}

#[test]
fn without_a_certificate_of_its_own_a_server_speaks_of_keys_only() {
    let mut world = World::new(ServerConfig::default());
    let own = Credential::Certificate(certificate("device"));
    world.connect(1, &ClientConfig::default(), &own);
    world.pass(200);
    assert_eq!(world.events, []);
    assert!(matches!(
        world.client_events[..],
        [(1, ClientEvent::Failed(_))]
    ));
    let legacy = ClientConfig {
        suites: Some(vec![Suite::PSK_CBC_SHA]),
        ..ClientConfig::default()
    };
    world.connect(2, &legacy, &psk("device-2", KEY));
    world.pass(200);
    assert_eq!(world.events, [], "nor of SHA-1");
}

#[test]
fn another_key_and_an_unknown_identity_look_the_same() {
    let mut failures = Vec::new();
    for (identity, key) in [("device-1", &b"another key"[..]), ("nobody", KEY)] {
        let mut world = World::new(ServerConfig::default());
        world.connect(1, &ClientConfig::default(), &psk(identity, key));
        let [
            Event::Failed {
                identity: Some(named),
                failure,
                ..
            },
        ] = &world.events[..]
        else {
            panic!("{:?}", world.events);
        };
        assert_eq!(**named, *identity.as_bytes());
        assert_eq!(*failure, HandshakeFailure::WrongKey);
        assert_eq!(world.server.depths().handshakes, 0);
        failures.push(world.client_events);
    }
    assert_eq!(
        failures[0],
        [(1, ClientEvent::Failed(HandshakeFailure::Alert))]
    );
    assert_eq!(failures[0], failures[1]);
}

#[test]
fn a_handshake_survives_losses() {
    for lost in 1..9 {
        let mut world = World::new(ServerConfig::default());
        world.loses = match lost {
            1 => |n| n == 1,
            2 => |n| n == 2,
            3 => |n| n == 3,
            4 => |n| n == 4,
            5 => |n| n == 5,
            6 => |n| n == 6,
            7 => |n| n == 7,
            _ => |n| n.is_multiple_of(3),
        };
        world.connect(1, &ClientConfig::default(), &psk("device-1", KEY));
        world.pass(60);
        let is_connected = world.clients[&1].is_connected();
        assert!(is_connected, "without datagram {lost}: {:?}", world.events);
    }
}

#[test]
fn a_peer_that_falls_silent_is_given_up() {
    let mut world = World::new(ServerConfig::default());
    // The hello, its cookie, the hello with it; the server's flight is lost, and all that follows.
    world.loses = |n| n > 3;
    world.connect(1, &ClientConfig::default(), &psk("device-1", KEY));
    assert_eq!(world.server.depths().handshakes, 1);
    world.pass(62);
    assert_eq!(world.server.depths().handshakes, 0);
    assert!(matches!(
        world.events[..],
        [Event::Failed {
            failure: HandshakeFailure::Timeout,
            ..
        }]
    ));
}

#[test]
fn a_session_follows_its_peer_to_another_address() {
    let mut world = World::new(ServerConfig::default());
    let session = world.device(1);
    world.say(1, "here");
    world.rebind(1, 2);
    assert_eq!(world.say(2, "there"), [(session, b"there".to_vec())]);
    assert_eq!(world.tell(session, "down"), [(2, b"down".to_vec())]);
    assert_eq!(world.server.counters().moved, 1);
}

#[test]
fn without_a_connection_id_an_address_is_the_session() {
    let config = ClientConfig {
        with_cid: false,
        ..ClientConfig::default()
    };
    let mut world = World::new(ServerConfig::default());
    let first = world.device_with(1, &config);
    world.rebind(1, 2);
    assert_eq!(world.say(2, "there"), [], "nobody knows it there");
    world.rebind(2, 1);
    assert_eq!(world.say(1, "back"), [(first, b"back".to_vec())]);

    // It was restarted: its new session replaces the old one.
    let second = world.device_with(1, &config);
    assert_ne!(first, second);
    let replaced = Event::Closed {
        session: first,
        reason: CloseReason::Replaced,
    };
    assert!(world.events.contains(&replaced));
    assert_eq!(world.say(1, "again"), [(second, b"again".to_vec())]);
}

#[test]
fn both_sides_can_end_a_session() {
    let mut world = World::new(ServerConfig::default());
    let session = world.device(1);
    world.clients.get_mut(&1).unwrap().close(world.now);
    world.run();
    let closed = Event::Closed {
        session,
        reason: CloseReason::Peer,
    };
    assert_eq!(world.events.last(), Some(&closed));

    let session = world.device(2);
    world.say(2, "confirmed");
    world.server.close(world.now, session);
    world.settle();
    world.run();
    let closed = (2, ClientEvent::Closed(CloseReason::Peer));
    assert_eq!(world.client_events.last(), Some(&closed));
    let gone = world.server.send(world.now, session, b"down");
    assert_eq!(gone, Err(DtlsError::NotConnected));
}

#[test]
fn a_message_fits_a_record_or_is_refused() {
    let mut world = World::new(ServerConfig::default());
    let session = world.device(1);
    let long = "x".repeat(1_152);
    assert_eq!(world.say(1, &long), [(session, long.clone().into_bytes())]);
    assert_eq!(world.tell(session, &long), [(1, long.into_bytes())]);
    let longer = vec![0; 4_000];
    assert_eq!(
        world.server.send(world.now, session, &longer),
        Err(DtlsError::TooLarge)
    );
}
