//! Sessions at rest: frozen, thawed, bounded, carried over a restart.

use std::time::Duration;

use super::pair::{World, certificate};
use crate::{
    ClientConfig, CloseReason, Credential, Event, ImportError, Server, ServerConfig, Suite,
};

/// What a live session counts for.
const LIVE_BYTES: usize = 12 * 1024;

fn closed(world: &World) -> Vec<CloseReason> {
    let reasons = world.events.iter().filter_map(|event| match event {
        Event::Closed { reason, .. } => Some(*reason),
        _ => None,
    });
    reasons.collect()
}

#[test]
fn a_session_at_rest_is_frozen_and_goes_on_after_it() {
    let mut world = World::new(ServerConfig {
        certificate: Some(certificate("gateway")),
        ..ServerConfig::default()
    });
    let by_key = world.device(1);
    let own = Credential::Certificate(certificate("device"));
    world.connect(2, &ClientConfig::default(), &own);
    let by_certificate = world.connected();
    for round in 0..3 {
        assert_eq!(world.say(1, "a"), [(by_key, b"a".to_vec())], "{round}");
        assert_eq!(world.say(2, "b"), [(by_certificate, b"b".to_vec())]);
        world.pass(40);
        let depths = world.server.depths();
        assert_eq!((depths.live, depths.frozen), (0, 2), "{round}");
        // The server can be the first to speak too.
        assert_eq!(world.tell(by_key, "c"), [(1, b"c".to_vec())]);
        assert_eq!(world.tell(by_certificate, "d"), [(2, b"d".to_vec())]);
        world.pass(40);
    }
    assert_eq!(world.server.counters().frozen, 12);
    assert_eq!(world.server.counters().thawed, 10, "each once");
    world.rebind(1, 3);
    assert_eq!(
        world.say(3, "e"),
        [(by_key, b"e".to_vec())],
        "from elsewhere"
    );
}

#[test]
fn sessions_that_cannot_be_frozen_stay() {
    let mut world = World::new(ServerConfig::default());
    let config = ClientConfig {
        suites: Some(vec![Suite::PSK_CBC_SHA256]),
        ..ClientConfig::default()
    };
    let by_cbc = world.device_with(1, &config);
    world.say(1, "a");
    // This one has not said anything since its handshake: its last flight may have to be repeated.
    world.device(2);
    world.pass(100);
    assert_eq!(world.server.depths().live, 2);
    assert_eq!(world.say(1, "b"), [(by_cbc, b"b".to_vec())]);
    // After a while nobody will say anything in it any more.
    world.pass(600);
    assert_eq!(closed(&world), [CloseReason::Expired]);
    assert_eq!(world.server.depths().live, 1);
    assert_eq!(world.say(1, "c"), [(by_cbc, b"c".to_vec())]);
}

#[test]
fn a_session_that_is_not_used_expires() {
    let mut world = World::new(ServerConfig {
        session_lifetime: Duration::from_secs(100),
        ..ServerConfig::default()
    });
    world.device(1);
    world.say(1, "a");
    world.device(2);
    world.pass(90);
    assert_eq!(world.say(1, "b").len(), 1);
    world.pass(90);
    assert_eq!(closed(&world), [CloseReason::Expired]);
    assert_eq!(world.server.depths().frozen, 1);
}

#[test]
fn above_the_bound_of_bytes_the_longest_at_rest_gives_way() {
    let mut world = World::new(ServerConfig {
        // Two live sessions and a page of frozen ones.
        max_bytes: 2 * LIVE_BYTES + 64 * 1024 + 4_096,
        ..ServerConfig::default()
    });
    for port in 1..=9 {
        world.device(port);
        world.say(port, "a");
    }
    let depths = world.server.depths();
    assert!(
        depths.live <= 7 && depths.live + depths.frozen == 9,
        "{depths:?}"
    );
    assert!(depths.bytes <= 2 * LIVE_BYTES + 64 * 1024 + 4_096);
    assert_eq!(closed(&world), []);
    for port in 1..=9 {
        assert_eq!(
            world.say(port, "b").len(),
            1,
            "{port} was frozen, not forgotten"
        );
    }
}

#[test]
fn above_the_bound_of_sessions_the_longest_at_rest_is_forgotten() {
    let mut world = World::new(ServerConfig {
        max_sessions: 3,
        ..ServerConfig::default()
    });
    for port in 1..=3 {
        world.device(port);
        world.say(port, "a");
        world.pass(1);
    }
    world.say(1, "b");
    world.device(4);
    assert_eq!(closed(&world), [CloseReason::Evicted]);
    assert_eq!(world.say(1, "c").len(), 1);
    assert_eq!(world.say(2, "c"), []);
    assert_eq!(world.server.counters().evicted, 1);
}

#[test]
fn sessions_outlive_a_clean_restart() {
    let mut world = World::new(ServerConfig::default());
    world.device(1);
    world.say(1, "a");
    let fixed = ClientConfig {
        with_cid: false,
        ..ClientConfig::default()
    };
    world.device_with(2, &fixed);
    world.say(2, "a");
    // This one cannot be carried over, and is told.
    let config = ClientConfig {
        suites: Some(vec![Suite::PSK_CBC_SHA256]),
        ..ClientConfig::default()
    };
    world.device_with(3, &config);
    world.say(3, "a");

    let mut exported = Vec::new();
    let now = world.now;
    world
        .server
        .export(now, |_, bytes| exported.push(bytes.to_vec()));
    world.settle();
    world.run();
    assert_eq!(exported.len(), 2);
    assert!(!world.clients[&3].is_connected());

    world.server = Server::new(ServerConfig::default(), now).unwrap();
    let mut sessions = Vec::new();
    for bytes in &exported {
        let (session, identity) = world.server.import(now, bytes).unwrap();
        sessions.push((session, identity));
        assert_eq!(
            world.server.import(now, bytes),
            Err(ImportError::NoPlace),
            "once"
        );
    }
    world.rebind(1, 4);
    assert_eq!(world.say(4, "b"), [(sessions[0].0, b"b".to_vec())]);
    assert_eq!(world.say(2, "b"), [(sessions[1].0, b"b".to_vec())]);
    assert_eq!(world.tell(sessions[0].0, "c"), [(4, b"c".to_vec())]);
    let newcomer = world.device(5);
    assert!(sessions.iter().all(|(session, _)| *session != newcomer));
}

#[test]
fn what_is_not_a_session_is_not_imported() {
    let mut world = World::new(ServerConfig::default());
    world.device(1);
    world.say(1, "a");
    let mut exported = Vec::new();
    let now = world.now;
    world.server.export(now, |_, bytes| exported.extend(bytes));
    let mut server = Server::new(ServerConfig::default(), now).unwrap();
    for cut in 0..45 {
        let refused = server.import(now, &exported[..cut]);
        assert_eq!(refused, Err(ImportError::Malformed), "{cut}");
    }
    // What the library does not take ends when its peer is heard of.
    let cut = exported.len() - 7;
    let (session, _) = server.import(now, &exported[..cut]).unwrap();
    assert!(server.send(now, session, b"down").is_err());
    assert_eq!(server.depths().frozen, 0);
}
